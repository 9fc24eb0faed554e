//! Before the first read: greeting, options, and what the server says about the disk.

use crate::{Broken, be};

const NBDMAGIC: u64 = 0x4E42_444D_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
/// What stands in place of IHAVEOPT in the handshake of servers before 2009.
const OLDSTYLE: u64 = 0x0000_4202_8186_1253;
const OPTION_REPLY: u64 = 0x0003_E889_0455_65A9;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

/// Longest name of an export or a context, by the protocol.
pub const NAME_MAX: usize = 4096;
/// Longest reply to an option that is believed: names and explanations are shorter.
pub const OPTION_REPLY_MAX: u32 = 64 << 10;

/// The option is not known to the server.
pub const REFUSED_UNSUPPORTED: u32 = (1 << 31) | 1;
/// The server wants TLS first.
pub const REFUSED_TLS_REQUIRED: u32 = (1 << 31) | 5;
/// There is no such export.
pub const REFUSED_UNKNOWN: u32 = (1 << 31) | 6;

/// What the server says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    no_zeroes: bool,
}

impl Greeting {
    /// Bytes of it.
    pub const LEN: usize = 18;

    /// # Errors
    /// [`Broken`] when this is no NBD server, or one of before the fixed newstyle handshake.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, Broken> {
        let (first, second, flags) = (be::u64(bytes, 0), be::u64(bytes, 8), be::u16(bytes, 16));
        match (first, second) {
            (NBDMAGIC, IHAVEOPT) if flags & FIXED_NEWSTYLE != 0 => {
                Ok(Self { no_zeroes: flags & NO_ZEROES != 0 })
            }
            (NBDMAGIC, IHAVEOPT | OLDSTYLE) => {
                Err(Broken::new("it only knows a handshake of before 2011"))
            }
            _ => Err(Broken::new("it does not greet as an NBD server does")),
        }
    }

    /// The client's answer.
    #[must_use]
    pub fn answer(self) -> [u8; 4] {
        let flags = FIXED_NEWSTYLE | if self.no_zeroes { NO_ZEROES } else { 0 };
        u32::from(flags).to_be_bytes()
    }
}

/// What a client can ask for before it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Opt {
    /// The old way to choose an export: it ends the options.
    ExportName = 1,
    /// The client goes away.
    Abort = 2,
    /// Chooses an export, and ends the options.
    Go = 7,
    /// Replies in chunks.
    StructuredReply = 8,
    /// Contexts that the server has.
    ListMetaContext = 9,
    /// Contexts of which the status of blocks will be asked.
    SetMetaContext = 10,
}

/// An option with its data.
///
/// # Panics
/// When `data` is longer than 4 GiB, which no name is.
#[must_use]
pub fn option(opt: Opt, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("option data is short");
    let mut out = IHAVEOPT.to_be_bytes().to_vec();
    out.extend((opt as u32).to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(data);
    out
}

fn name(out: &mut Vec<u8>, name: &str) -> Result<(), Broken> {
    let len = u32::try_from(name.len()).ok().filter(|_| name.len() <= NAME_MAX);
    let len = len.ok_or_else(|| Broken::new("a name of more than 4096 bytes"))?;
    out.extend(len.to_be_bytes());
    out.extend(name.as_bytes());
    Ok(())
}

/// The data of [`Opt::Go`], which also asks for block sizes.
///
/// # Errors
/// [`Broken`] when the name is longer than [`NAME_MAX`].
pub fn go(export: &str) -> Result<Vec<u8>, Broken> {
    let mut data = Vec::new();
    name(&mut data, export)?;
    data.extend(1u16.to_be_bytes());
    data.extend(INFO_BLOCK_SIZE.to_be_bytes());
    Ok(data)
}

/// The data of [`Opt::SetMetaContext`], and of [`Opt::ListMetaContext`] with names or beginnings
/// of names.
///
/// # Errors
/// [`Broken`] when a name is longer than [`NAME_MAX`].
pub fn set_meta_context(export: &str, contexts: &[&str]) -> Result<Vec<u8>, Broken> {
    let mut data = Vec::new();
    name(&mut data, export)?;
    let count = u32::try_from(contexts.len()).map_err(|_| Broken::new("too many contexts"))?;
    data.extend(count.to_be_bytes());
    contexts.iter().try_for_each(|context| name(&mut data, context))?;
    Ok(data)
}

/// The head of a reply to an option; `len` bytes of data follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReply {
    /// What it says.
    pub kind: OptionReplyKind,
    /// Bytes that follow, at most [`OPTION_REPLY_MAX`].
    pub len: u32,
}

/// What a reply to an option says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionReplyKind {
    /// Done; nothing more comes for this option.
    Ack,
    /// Something about the export: see [`Info`].
    Info,
    /// A context that the server knows: see [`meta_context`].
    MetaContext,
    /// A refusal: see [`refusal_name`]. The data is an explanation for people.
    Refused(u32),
    /// Something this client did not ask for, to be skipped.
    Other(u32),
}

impl OptionReply {
    /// Bytes of it.
    pub const LEN: usize = 20;

    /// The reply to `opt`.
    ///
    /// # Errors
    /// [`Broken`] when it is no reply to this option, or too long.
    pub fn from_bytes(bytes: &[u8; Self::LEN], opt: Opt) -> Result<Self, Broken> {
        let (magic, to) = (be::u64(bytes, 0), be::u32(bytes, 8));
        if magic != OPTION_REPLY || to != opt as u32 {
            let what = format!("a reply {magic:#018x} to option {to}, expected one to {opt:?}");
            return Err(Broken::new(what));
        }
        let len = be::u32(bytes, 16);
        if len > OPTION_REPLY_MAX {
            return Err(Broken::new(format!("a reply of {len} bytes to {opt:?}")));
        }
        let kind = match be::u32(bytes, 12) {
            1 => OptionReplyKind::Ack,
            3 => OptionReplyKind::Info,
            4 => OptionReplyKind::MetaContext,
            refused if refused >> 31 != 0 => OptionReplyKind::Refused(refused),
            other => OptionReplyKind::Other(other),
        };
        Ok(Self { kind, len })
    }
}

/// The name of a refusal.
#[must_use]
pub fn refusal_name(refused: u32) -> &'static str {
    match refused & !(1 << 31) {
        1 => "it does not know this option",
        2 => "its policy forbids it",
        3 => "it calls the option invalid",
        4 => "its platform does not support it",
        5 => "it requires TLS, which is not spoken",
        6 => "it has no export of this name",
        7 => "it is shutting down",
        8 => "it requires a block size to be negotiated",
        9 => "it calls the option too large",
        _ => "for a reason that is not known",
    }
}

const INFO_BLOCK_SIZE: u16 = 3;

/// What an [`OptionReplyKind::Info`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info {
    /// Size and abilities.
    Export(ExportInfo),
    /// Bytes a request must be a multiple of, and may have at most.
    BlockSize {
        /// A power of two up to 64 KiB.
        minimum: u32,
        /// At least `minimum`, a multiple of it.
        maximum: u32,
    },
    /// Something this client did not ask for.
    Other,
}

/// The disk behind an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes.
    pub size: u64,
    /// Abilities.
    pub flags: ExportFlags,
}

/// What an export can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportFlags(pub u16);

impl ExportFlags {
    /// Several connections see the same disk at the same time.
    #[must_use]
    pub fn can_multi_conn(self) -> bool {
        self.0 & (1 << 8) != 0
    }

    /// Nobody can write through this export.
    #[must_use]
    pub fn is_read_only(self) -> bool {
        self.0 & (1 << 1) != 0
    }
}

fn export_info(size: u64, flags: u16) -> Result<ExportInfo, Broken> {
    // Offsets are signed 64-bit numbers everywhere below a server.
    if size > i64::MAX.unsigned_abs() {
        return Err(Broken::new(format!("a disk of {size} bytes")));
    }
    if flags & 1 == 0 {
        return Err(Broken::new(format!("export flags {flags:#x} without the first")));
    }
    Ok(ExportInfo { size, flags: ExportFlags(flags) })
}

impl Info {
    /// # Errors
    /// [`Broken`] when it is too short, or its numbers cannot be.
    pub fn from_bytes(data: &[u8]) -> Result<Self, Broken> {
        let is = |len| data.len() == len;
        match (data.len() >= 2).then(|| be::u16(data, 0)) {
            Some(0) if is(12) => export_info(be::u64(data, 2), be::u16(data, 10)).map(Info::Export),
            Some(INFO_BLOCK_SIZE) if is(14) => {
                let (minimum, maximum) = (be::u32(data, 2), be::u32(data, 10));
                let is_right = minimum.is_power_of_two()
                    && minimum <= 64 << 10
                    && maximum >= minimum
                    // All bits set means as much as one likes.
                    && (maximum == u32::MAX || maximum.is_multiple_of(minimum));
                if !is_right {
                    let what = format!("requests of {minimum} to {maximum} bytes");
                    return Err(Broken::new(what));
                }
                Ok(Info::BlockSize { minimum, maximum })
            }
            None | Some(0 | INFO_BLOCK_SIZE) => {
                Err(Broken::new(format!("information of {} bytes", data.len())))
            }
            Some(_) => Ok(Info::Other),
        }
    }
}

/// The number and the name of a context.
///
/// # Errors
/// [`Broken`] when it is too short or no text.
pub fn meta_context(data: &[u8]) -> Result<(u32, &str), Broken> {
    let name = data.get(4..).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.filter(|name| name.len() <= NAME_MAX);
    let name = name.ok_or_else(|| Broken::new("a context without a name"))?;
    Ok((be::u32(data, 0), name))
}

/// Bytes that answer [`Opt::ExportName`].
#[must_use]
pub fn export_name_reply_len(greeting: Greeting) -> usize {
    if greeting.no_zeroes { 10 } else { 134 }
}

/// What answers [`Opt::ExportName`].
///
/// # Errors
/// [`Broken`] when its numbers cannot be.
pub fn export_name_reply(bytes: &[u8]) -> Result<ExportInfo, Broken> {
    export_info(be::u64(bytes, 0), be::u16(bytes, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(second: u64, flags: u16) -> Result<Greeting, Broken> {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(b"NBDMAGIC");
        bytes[8..16].copy_from_slice(&second.to_be_bytes());
        bytes[16..].copy_from_slice(&flags.to_be_bytes());
        Greeting::from_bytes(&bytes)
    }

    #[test]
    fn only_fixed_newstyle_servers_are_spoken_to() {
        assert_eq!(greeting(IHAVEOPT, 3).unwrap().answer(), [0, 0, 0, 3]);
        assert_eq!(greeting(IHAVEOPT, 1).unwrap().answer(), [0, 0, 0, 1]);
        assert_eq!(export_name_reply_len(greeting(IHAVEOPT, 1).unwrap()), 134);
        for (second, flags) in [(IHAVEOPT, 0), (OLDSTYLE, 0), (OLDSTYLE, 3)] {
            assert!(greeting(second, flags).unwrap_err().what.contains("before 2011"));
        }
        assert!(greeting(0, 3).is_err());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let block = |minimum: u32, maximum: u32| {
            let mut data = vec![0, 3];
            [minimum, minimum, maximum].iter().for_each(|size| data.extend(size.to_be_bytes()));
            Info::from_bytes(&data)
        };
        assert_eq!(block(1, 1 << 25), Ok(Info::BlockSize { minimum: 1, maximum: 1 << 25 }));
        assert!(block(512, u32::MAX).is_ok());
        for (minimum, maximum) in [(0, 1), (3, 9), (1 << 17, 1 << 20), (512, 256), (512, 1000)] {
            assert!(block(minimum, maximum).is_err(), "{minimum} {maximum}");
        }
        let export = |size: u64, flags: u16| {
            Info::from_bytes(&[&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
        };
        assert!(export(1 << 62, 1).is_ok());
        assert!(export(1 << 63, 1).is_err());
        assert!(export(512, 2).is_err());
        for data in [&[][..], &[0], &[0, 0], &[0, 3, 1], &[0; 13]] {
            assert!(Info::from_bytes(data).is_err(), "{data:?}");
        }
        assert_eq!(Info::from_bytes(&[0, 9, 1]), Ok(Info::Other));
    }

    #[test]
    fn a_reply_belongs_to_its_option_and_is_short() {
        let reply = |opt: u32, kind: u32, len: u32| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&OPTION_REPLY.to_be_bytes());
            for (at, value) in [(8, opt), (12, kind), (16, len)] {
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
            OptionReply::from_bytes(&bytes, Opt::Go)
        };
        let kind = |kind| reply(7, kind, 0).unwrap().kind;
        assert_eq!(kind(1), OptionReplyKind::Ack);
        assert_eq!(kind(REFUSED_UNKNOWN), OptionReplyKind::Refused(REFUSED_UNKNOWN));
        assert_eq!(kind(77), OptionReplyKind::Other(77));
        assert!(reply(8, 1, 0).is_err());
        assert!(reply(7, 1, OPTION_REPLY_MAX + 1).is_err());
        assert!(OptionReply::from_bytes(&[0; 20], Opt::Go).is_err());
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(go("ab").unwrap(), [0, 0, 0, 2, b'a', b'b', 0, 1, 0, 3]);
        let long = "x".repeat(NAME_MAX + 1);
        assert!(go(&long).is_err() && set_meta_context("", &[&long]).is_err());
        assert_eq!(meta_context(&[0, 0, 0, 7, b'a']), Ok((7, "a")));
        assert!(meta_context(&[0, 0, 0]).is_err() && meta_context(&[0, 0, 0, 7, 0xFF]).is_err());
    }
}
