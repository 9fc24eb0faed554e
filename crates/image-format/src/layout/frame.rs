use super::{first_nonzero, record, salted_crc};
use crate::error::{Fault, Result, Section};
use crate::ids::SessionTag;
use crate::limits::{DELTA_DEPTH_MAX, FRAME_ALIGN, STORED_LEN_MAX};

record! {
    /// Precedes every payload in the frame stream.
    struct RawFrameHeader[64] {
        0 => magic: [u8; 4],
        4 => kind: u8,
        5 => codec: u8,
        6 => flags: u8,
        7 => depth: u8,
        8 => session_tag: [u8; 12],
        20 => nonce_salt: u32,
        24 => seq: u64,
        32 => subject: u64,
        40 => plain_len: u32,
        44 => stored_len: u32,
        48 => payload_crc: u32,
        52 => leaf_prefix: [u8; 8],
        60 => crc: u32,
    }
}

record! {
    /// Begins the payload of a sealed frame: what the header of another frame says in clear.
    struct RawInnerHead[32] {
        0 => subject: u64,
        8 => leaf_prefix: [u8; 8],
        16 => plain_len: u32,
        20 => pad_len: u32,
        24 => codec: u8,
        25 => flags: u8,
        26 => depth: u8,
    }
}

/// Bytes of the inner head of a sealed frame.
pub(crate) const INNER_HEAD_SIZE: usize = 32;
/// Bytes of the authentication tag behind the content of a sealed frame.
pub(crate) const TAG_SIZE: usize = 16;
/// Bytes a sealed payload has at least.
const SEALED_LEN_MIN: u32 = 48;
const _: () = assert!(SEALED_LEN_MIN as usize == INNER_HEAD_SIZE + TAG_SIZE);
/// The header bytes that the tag of a sealed frame covers.
pub(crate) const FRAME_CLEAR: std::ops::Range<usize> = 0..48;
/// The highest codec number.
const CODEC_MAX: u8 = 2;

const MAGIC: [u8; 4] = *b"AVF1";
const FLAG_DAMAGED: u8 = 1;
const SALT: [u8; 8] = *b"aiv.fram";
const PAYLOAD_SALT: [u8; 8] = *b"aiv.load";

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_SIZE: usize = 64;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// One block; the subject is its number.
    Data,
    /// One block as a difference to a block of the parent's state; the subject is its number.
    Delta,
    /// Index entries and piece hashes since the previous one; the subject is its number.
    Checkpoint,
    /// One META section; the subject is its type.
    Meta,
    /// Parity over the stripe before it; the subject is its number.
    Parity,
    /// Zeros, so that what follows lies where its writer wants it.
    Pad,
    /// One block as a difference to other blocks of the same image; the subject is its number.
    Local,
}

impl FrameKind {
    /// The word of `docs/format.md` and of dumps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "DATA",
            Self::Delta => "DELTA",
            Self::Checkpoint => "CHECKPOINT",
            Self::Meta => "META",
            Self::Parity => "PARITY",
            Self::Pad => "PAD",
            Self::Local => "LOCAL",
        }
    }

    /// Whether frames of this kind are sealed in sealed images: those that hold something.
    pub(crate) const fn is_sealable(self) -> bool {
        self.holds_block() || matches!(self, Self::Checkpoint | Self::Meta)
    }

    /// Whether a frame of this kind holds a block, whole or as a difference.
    pub(crate) const fn holds_block(self) -> bool {
        matches!(self, Self::Data | Self::Delta | Self::Local)
    }

    /// Whether a frame of this kind holds a block as a difference to others.
    pub(crate) const fn is_difference(self) -> bool {
        matches!(self, Self::Delta | Self::Local)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Delta => 2,
            Self::Checkpoint => 3,
            Self::Meta => 4,
            Self::Parity => 5,
            Self::Pad => 6,
            Self::Local => 7,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Delta),
            3 => Some(Self::Checkpoint),
            4 => Some(Self::Meta),
            5 => Some(Self::Parity),
            6 => Some(Self::Pad),
            7 => Some(Self::Local),
            _ => None,
        }
    }
}

/// A checked frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    pub codec: u8,
    /// Some places of the block could not be read and hold the fill pattern.
    pub is_damaged: bool,
    /// Of a block that a merge stored whole: its depth in the images that were merged. Zero in
    /// every other frame; differences say theirs in their payload.
    pub depth: u8,
    pub session: SessionTag,
    pub seq: u64,
    pub subject: u64,
    pub plain_len: u32,
    pub stored_len: u32,
    pub payload_crc: u32,
    pub leaf_prefix: [u8; 8],
    /// Of a sealed frame: the part of its nonce that names the process.
    pub seal: Option<u32>,
}

/// What a frame states about its content: in its header, or inside the payload when sealed.
#[derive(Default)]
struct Stated {
    codec: u8,
    flags: u8,
    depth: u8,
    subject: u64,
    plain_len: u32,
    leaf_prefix: [u8; 8],
}

impl Stated {
    /// Checks what a frame of `kind` with `stored_len` bytes of content states.
    fn check(&self, kind: FrameKind, stored_len: u32) -> std::result::Result<(), Fault> {
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        if self.flags & !FLAG_DAMAGED != 0 || (self.flags != 0 && kind != FrameKind::Data) {
            return Err(value("flags", self.flags.into(), "0, or 1 (damaged) for DATA"));
        }
        if self.depth > DELTA_DEPTH_MAX || (self.depth != 0 && kind != FrameKind::Data) {
            return Err(value("depth", self.depth.into(), "0, or up to 8 for DATA"));
        }
        if !kind.holds_block() && self.leaf_prefix != [0; 8] {
            return Err(Fault::Reserved { at: 52 });
        }
        if kind == FrameKind::Pad && self.subject != 0 {
            return Err(value("subject", self.subject, "0 for PAD"));
        }
        if self.codec != 0 && matches!(kind, FrameKind::Pad | FrameKind::Checkpoint) {
            return Err(value("codec", self.codec.into(), "0 for PAD and CHECKPOINT"));
        }
        if self.codec == 0 && self.plain_len != stored_len {
            return Err(value("stored length", stored_len.into(), "the plain length"));
        }
        Ok(())
    }
}

impl FrameHeader {
    pub(crate) fn from_bytes(bytes: &[u8; FRAME_HEADER_SIZE], offset: u64) -> Result<Self> {
        Self::check(bytes).map_err(|fault| fault.at(Section::Frame, offset))
    }

    fn check(bytes: &[u8; FRAME_HEADER_SIZE]) -> std::result::Result<Self, Fault> {
        let raw = RawFrameHeader::decode(bytes);
        if raw.magic != MAGIC {
            return Err(Fault::Magic);
        }
        let found = salted_crc(SALT, &bytes[..60]);
        if found != raw.crc {
            return Err(Fault::Checksum { found, stored: raw.crc });
        }
        if let Some(at) = RawFrameHeader::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at });
        }
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        let kind =
            FrameKind::from_code(raw.kind).ok_or(value("frame type", raw.kind.into(), "1 to 7"))?;
        if raw.codec > CODEC_MAX {
            return Err(value("codec", raw.codec.into(), "0 (none), 1 (lz4), 2 (zstd)"));
        }
        for (field, found) in [("stored length", raw.stored_len), ("plain length", raw.plain_len)] {
            if found > STORED_LEN_MAX {
                return Err(value(field, found.into(), "at most 16 MiB"));
            }
        }
        let seal = Self::seal_of(&raw, kind)?;
        if seal.is_none() && raw.nonce_salt != 0 {
            return Err(value("nonce salt", raw.nonce_salt.into(), "0 in frames not sealed"));
        }
        let stated = Stated {
            codec: raw.codec,
            flags: raw.flags,
            depth: raw.depth,
            subject: raw.subject,
            plain_len: raw.plain_len,
            leaf_prefix: raw.leaf_prefix,
        };
        if seal.is_none() {
            stated.check(kind, raw.stored_len)?;
        }
        let header = Self {
            kind,
            codec: 0,
            is_damaged: false,
            depth: 0,
            session: SessionTag(raw.session_tag),
            seq: raw.seq,
            subject: 0,
            plain_len: 0,
            stored_len: raw.stored_len,
            payload_crc: raw.payload_crc,
            leaf_prefix: [0; 8],
            seal,
        };
        Ok(header.stating(&stated))
    }

    /// The salt of the nonce when the header is that of a sealed frame: it says nothing of its
    /// content, which is more than an unsealed frame could be without.
    fn seal_of(raw: &RawFrameHeader, kind: FrameKind) -> std::result::Result<Option<u32>, Fault> {
        let says_nothing = raw.codec == 0 && raw.plain_len == 0;
        if !kind.is_sealable() || !says_nothing || raw.stored_len < SEALED_LEN_MIN {
            return Ok(None);
        }
        let value = |field, found: u64| Fault::Value { field, found, allowed: "0 when sealed" };
        for (field, found) in [
            ("flags", u64::from(raw.flags)),
            ("depth", raw.depth.into()),
            ("subject", raw.subject),
            ("leaf prefix", u64::from_le_bytes(raw.leaf_prefix)),
        ] {
            if found != 0 {
                return Err(value(field, found));
            }
        }
        Ok(Some(raw.nonce_salt))
    }

    /// The same with what the frame says about its content.
    fn stating(self, stated: &Stated) -> Self {
        Self {
            codec: stated.codec,
            is_damaged: stated.flags & FLAG_DAMAGED != 0,
            depth: stated.depth,
            subject: stated.subject,
            plain_len: stated.plain_len,
            leaf_prefix: stated.leaf_prefix,
            ..self
        }
    }

    /// The header of a sealed frame with what the frame says inside: `plain` is its decrypted
    /// payload. Returns where in that the content lies.
    pub(crate) fn opened(
        self,
        plain: &[u8],
    ) -> std::result::Result<(Self, std::ops::Range<usize>), Fault> {
        let Some(head) = plain.first_chunk::<INNER_HEAD_SIZE>() else { return Err(Fault::CutOff) };
        if let Some(at) = RawInnerHead::first_reserved_set(head) {
            return Err(Fault::Reserved { at });
        }
        let raw = RawInnerHead::decode(head);
        let stated = Stated {
            codec: raw.codec,
            flags: raw.flags,
            depth: raw.depth,
            subject: raw.subject,
            plain_len: raw.plain_len,
            leaf_prefix: raw.leaf_prefix,
        };
        let end = plain.len().checked_sub(raw.pad_len as usize);
        let Some(end) = end.filter(|&end| end >= INNER_HEAD_SIZE) else {
            return Err(Fault::Bounds);
        };
        if raw.codec > CODEC_MAX {
            let (field, found) = ("codec", raw.codec.into());
            return Err(Fault::Value { field, found, allowed: "0 (none), 1 (lz4), 2 (zstd)" });
        }
        if raw.plain_len > STORED_LEN_MAX {
            let (field, found) = ("plain length", raw.plain_len.into());
            return Err(Fault::Value { field, found, allowed: "at most 16 MiB" });
        }
        if let Some(at) = first_nonzero(&plain[end..]) {
            return Err(Fault::Reserved { at: end + at });
        }
        let content = INNER_HEAD_SIZE..end;
        stated.check(self.kind, u32::try_from(content.len()).unwrap_or(u32::MAX))?;
        Ok((self.stating(&stated), content))
    }

    /// The header as it stands in front of a sealed payload, and what goes inside of it.
    pub(crate) fn closed(self, pad_len: u32) -> (Self, [u8; INNER_HEAD_SIZE]) {
        let inner = RawInnerHead {
            subject: self.subject,
            leaf_prefix: self.leaf_prefix,
            plain_len: self.plain_len,
            pad_len,
            codec: self.codec,
            flags: if self.is_damaged { FLAG_DAMAGED } else { 0 },
            depth: self.depth,
        };
        let nothing = Stated::default();
        (self.stating(&nothing), inner.encode())
    }

    /// Makes both checksums of a frame right, whose payload has `stored_len` bytes.
    pub(crate) fn put_crcs(frame: &mut [u8], stored_len: usize) {
        let payload = Self::payload_crc(&frame[FRAME_HEADER_SIZE..FRAME_HEADER_SIZE + stored_len]);
        frame[48..52].copy_from_slice(&payload.to_le_bytes());
        let own = salted_crc(SALT, &frame[..60]);
        frame[60..FRAME_HEADER_SIZE].copy_from_slice(&own.to_le_bytes());
    }

    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_SIZE] {
        let mut raw = RawFrameHeader {
            magic: MAGIC,
            kind: self.kind.code(),
            codec: self.codec,
            flags: if self.is_damaged { FLAG_DAMAGED } else { 0 },
            depth: self.depth,
            session_tag: self.session.0,
            nonce_salt: self.seal.unwrap_or(0),
            seq: self.seq,
            subject: self.subject,
            plain_len: self.plain_len,
            stored_len: self.stored_len,
            payload_crc: self.payload_crc,
            leaf_prefix: self.leaf_prefix,
            crc: 0,
        };
        raw.crc = salted_crc(SALT, &raw.encode()[..60]);
        raw.encode()
    }

    /// Checks the payload against the header.
    pub(crate) fn check_payload(&self, payload: &[u8], offset: u64) -> Result<()> {
        let found = Self::payload_crc(payload);
        if found != self.payload_crc {
            let fault = Fault::Checksum { found, stored: self.payload_crc };
            return Err(fault.at(Section::Frame, offset));
        }
        Ok(())
    }

    pub(crate) fn payload_crc(payload: &[u8]) -> u32 {
        salted_crc(PAYLOAD_SALT, payload)
    }

    /// Bytes from the start of this frame to the start of the next.
    pub(crate) fn frame_size(&self) -> u64 {
        frame_size(u64::from(self.stored_len))
    }
}

/// Bytes a frame with a payload of `stored_len` takes: header, payload, padding to 64.
pub(crate) const fn frame_size(stored_len: u64) -> u64 {
    (FRAME_HEADER_SIZE as u64 + stored_len).next_multiple_of(FRAME_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Data,
            codec: 2,
            is_damaged: false,
            depth: 2,
            session: SessionTag([9; 12]),
            seq: 77,
            subject: 12345,
            plain_len: 65536,
            stored_len: 999,
            payload_crc: 0xdead_beef,
            leaf_prefix: [5; 8],
            seal: None,
        }
    }

    fn refused(change: impl FnOnce(&mut [u8; 64])) -> String {
        let mut bytes = sample().to_bytes();
        change(&mut bytes);
        let crc = salted_crc(SALT, &bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        FrameHeader::from_bytes(&bytes, 4096).expect_err("the change is refused").to_string()
    }

    #[test]
    fn a_frame_header_survives_the_round_trip() {
        let bytes = sample().to_bytes();
        assert_eq!(FrameHeader::from_bytes(&bytes, 0).expect("just written"), sample());
    }

    #[test]
    fn every_value_out_of_range_is_refused_by_field() {
        assert!(refused(|b| b[0] = 0).contains("magic"));
        assert!(refused(|b| b[4] = 0).contains("frame type is 0"));
        assert!(refused(|b| b[4] = 8).contains("frame type is 8"));
        assert!(refused(|b| b[5] = 3).contains("codec is 3"));
        assert!(refused(|b| b[6] = 2).contains("flags is 2"));
        assert!(refused(|b| b[7] = 9).contains("depth is 9"));
        assert!(refused(|b| b[4] = 2).contains("depth is 2"));
        assert!(refused(|b| b[4] = 7).contains("depth is 2"));
        assert!(refused(|b| b[20] = 1).contains("nonce salt"));
        assert!(refused(|b| b[43] = 2).contains("plain length"));
        assert!(refused(|b| b[47] = 2).contains("stored length"));
        assert!(refused(|b| b[5] = 0).contains("the plain length"));
    }

    #[test]
    fn a_sealed_header_says_nothing_and_gets_back_what_its_payload_says() {
        let sealed = FrameHeader { seal: Some(0x1234_5678), stored_len: 300, ..sample() };
        let (outside, inner) = sealed.closed(20);
        let read = FrameHeader::from_bytes(&outside.to_bytes(), 0).expect("just written");
        assert_eq!(read, outside);
        assert_eq!((read.subject, read.plain_len, read.codec), (0, 0, 0));
        let plain = [&inner[..], &[7; 100], &[0; 20]].concat();
        let (back, content) = read.opened(&plain).expect("just written");
        assert_eq!((back, content), (sealed, 32..132));
        for (at, value, fault) in [
            (20, 121, "past the end"),
            (24, 3, "codec is 3"),
            (25, 2, "flags is 2"),
            (26, 9, "depth is 9"),
            (27, 1, "reserved byte 27"),
            (19, 9, "plain length"),
            (140, 1, "reserved byte 140"),
        ] {
            let mut plain = plain.clone();
            plain[at] = value;
            let error = read.opened(&plain).expect_err("the change is refused").to_string();
            assert!(error.contains(fault), "{at}: {error}");
        }
        for at in [6, 7, 32, 52] {
            let mut bytes = outside.to_bytes();
            bytes[at] = 1;
            let crc = salted_crc(SALT, &bytes[..60]);
            bytes[60..].copy_from_slice(&crc.to_le_bytes());
            let error = FrameHeader::from_bytes(&bytes, 0).expect_err("refused").to_string();
            assert!(error.contains("0 when sealed"), "{at}: {error}");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample().to_bytes();
        for bit in 0..64 * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::from_bytes(&bytes, 0).is_err(), "bit {bit}");
        }
    }
}
