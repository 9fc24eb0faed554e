//! Requests and replies.

use crate::{Broken, be};

const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668E_33EF;

/// Bytes of a simple reply behind its first four.
pub const SIMPLE_REST: usize = 12;
/// Bytes of the head of a chunk behind its first four.
pub const STRUCTURED_REST: usize = 16;
/// Longest payload of a chunk that is no data: an explanation, or the status of 131,072 runs.
pub const PAYLOAD_MAX: u32 = (1 << 20) + 4;

/// The error of a sector that cannot be read.
pub const ERROR_IO: u32 = 5;
/// In the status of `base:allocation`: nothing is allocated there.
pub const STATUS_HOLE: u32 = 1;
/// In the status of `base:allocation`: it reads as zeros.
pub const STATUS_ZERO: u32 = 2;
/// In the status of `qemu:dirty-bitmap:NAME`: it was written since the bitmap began.
pub const STATUS_DIRTY: u32 = 1;

/// What can be asked of a disk here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Its bytes.
    Read = 0,
    /// Nothing more: the client goes away.
    Disconnect = 2,
    /// The status of its blocks in the contexts that were chosen.
    BlockStatus = 7,
}

/// A request. `cookie` comes back with the reply.
#[must_use]
pub fn request(command: Command, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut out = [0; 28];
    out[..4].copy_from_slice(&REQUEST.to_be_bytes());
    out[6..8].copy_from_slice(&(command as u16).to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out[16..24].copy_from_slice(&offset.to_be_bytes());
    out[24..].copy_from_slice(&len.to_be_bytes());
    out
}

/// Which kind of reply begins with these four bytes: `true` for a chunk of a structured one.
///
/// # Errors
/// [`Broken`] when none does.
pub fn reply_kind(magic: [u8; 4]) -> Result<bool, Broken> {
    match u32::from_be_bytes(magic) {
        SIMPLE => Ok(false),
        STRUCTURED => Ok(true),
        other => Err(Broken::new(format!("a reply begins with {other:#010x}"))),
    }
}

/// A simple reply: for a read without error, the data follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Zero, or the error.
    pub error: u32,
}

impl Reply {
    /// # Errors
    /// [`Broken`] when it answers another request than that with `cookie`.
    pub fn from_bytes(rest: &[u8; SIMPLE_REST], cookie: u64) -> Result<Self, Broken> {
        check_cookie(be::u64(rest, 4), cookie)?;
        Ok(Self { error: be::u32(rest, 0) })
    }
}

fn check_cookie(found: u64, expected: u64) -> Result<(), Broken> {
    if found == expected {
        return Ok(());
    }
    Err(Broken::new(format!("a reply to request {found}, expected one to {expected}")))
}

/// The head of a chunk of a structured reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// What it holds.
    pub kind: ChunkKind,
    /// Whether it is the last of the reply.
    pub is_last: bool,
    /// Bytes that follow. Anything up to 4 GiB for data, else at most [`PAYLOAD_MAX`].
    pub len: u32,
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Nothing.
    None,
    /// An offset of 8 bytes, and the data from there.
    Data,
    /// An offset of 8 bytes, and 4 bytes for the number of zeros from there.
    Hole,
    /// A context and the status of runs: see [`status_payload`].
    Status,
    /// An error: see [`error_payload`].
    Error,
}

impl Chunk {
    /// # Errors
    /// [`Broken`] when it answers another request than that with `cookie`, is of a kind that
    /// nobody asked for, or has a length that its kind cannot have.
    pub fn from_bytes(rest: &[u8; STRUCTURED_REST], cookie: u64) -> Result<Self, Broken> {
        check_cookie(be::u64(rest, 4), cookie)?;
        let len = be::u32(rest, 12);
        let (kind, is_right) = match be::u16(rest, 2) {
            0 => (ChunkKind::None, len == 0),
            1 => (ChunkKind::Data, len > 8),
            2 => (ChunkKind::Hole, len == 12),
            5 => (ChunkKind::Status, (12..=PAYLOAD_MAX).contains(&len) && len % 8 == 4),
            kind if kind >> 15 != 0 => (ChunkKind::Error, (6..=PAYLOAD_MAX).contains(&len)),
            other => return Err(Broken::new(format!("a chunk of kind {other}"))),
        };
        if !is_right {
            return Err(Broken::new(format!("a chunk of {len} bytes for {kind:?}")));
        }
        Ok(Self { kind, is_last: be::u16(rest, 0) & 1 != 0, len })
    }
}

/// Error and explanation of an error chunk.
///
/// # Errors
/// [`Broken`] when the explanation is longer than the chunk.
pub fn error_payload(payload: &[u8]) -> Result<(u32, String), Broken> {
    let len = usize::from(be::u16(payload, 4));
    let text = payload.get(6..).and_then(|rest| rest.get(..len));
    let text = text.ok_or_else(|| Broken::new("an error with a cut explanation"))?;
    let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
    Ok((be::u32(payload, 0), text))
}

/// Context, and the runs of a status chunk as `(length, flags)`.
///
/// # Errors
/// [`Broken`] when a run is empty.
pub fn status_payload(payload: &[u8]) -> Result<(u32, Vec<(u32, u32)>), Broken> {
    let runs = payload.get(4..).unwrap_or_default().chunks_exact(8);
    let runs: Vec<(u32, u32)> = runs.map(|run| (be::u32(run, 0), be::u32(run, 4))).collect();
    if runs.iter().any(|(len, _)| *len == 0) {
        return Err(Broken::new("the status of a run of no bytes"));
    }
    Ok((be::u32(payload, 0), runs))
}

/// What an error means.
#[must_use]
pub fn error_name(error: u32) -> &'static str {
    match error {
        1 => "operation not permitted",
        ERROR_IO => "input/output error",
        12 => "out of memory",
        22 => "invalid argument",
        28 => "no space left",
        75 => "value too large",
        95 => "operation not supported",
        108 => "the server is shutting down",
        _ => "an error without a name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_fields_in_their_places() {
        let bytes = request(Command::BlockStatus, 0x0102, 0x0304, 0x0506);
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 7]);
        assert_eq!(bytes[8..], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 5, 6]);
    }

    fn chunk(kind: u16, cookie: u64, len: u32) -> Result<Chunk, Broken> {
        let mut rest = [0; 16];
        rest[1] = 1;
        rest[2..4].copy_from_slice(&kind.to_be_bytes());
        rest[4..12].copy_from_slice(&cookie.to_be_bytes());
        rest[12..].copy_from_slice(&len.to_be_bytes());
        Chunk::from_bytes(&rest, 9)
    }

    #[test]
    fn a_chunk_has_a_length_that_its_kind_can_have() {
        assert_eq!(chunk(1, 9, 9), Ok(Chunk { kind: ChunkKind::Data, is_last: true, len: 9 }));
        for (kind, right, wrong) in [
            (0, 0, 1),
            (1, u32::MAX, 8),
            (2, 12, 13),
            (5, 12, 4),
            (5, PAYLOAD_MAX, PAYLOAD_MAX + 8),
            (5, 20, 16),
            (0x8001, 6, 5),
            (0x8002, PAYLOAD_MAX, PAYLOAD_MAX + 1),
        ] {
            assert!(chunk(kind, 9, right).is_ok(), "{kind} {right}");
            assert!(chunk(kind, 9, wrong).is_err(), "{kind} {wrong}");
        }
        assert!(chunk(0, 8, 0).is_err() && chunk(77, 9, 0).is_err());
    }

    #[test]
    fn payloads_are_read_within_their_length() {
        assert_eq!(error_payload(&[0, 0, 0, 5, 0, 2, b'n', b'\n']), Ok((5, "n ".into())));
        assert!(error_payload(&[0, 0, 0, 5, 0, 3, b'n', b'o']).is_err());
        let run = [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 3];
        assert_eq!(status_payload(&run), Ok((1, vec![(512, 3)])));
        assert!(status_payload(&[0; 12]).is_err());
        assert!(Reply::from_bytes(&[0; 12], 1).is_err());
        assert!(reply_kind([0x67, 0x44, 0x66, 0x98]) == Ok(false));
        assert!(reply_kind([0; 4]).is_err());
    }
}
