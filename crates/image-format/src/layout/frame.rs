use super::{record, salted_crc};
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
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Delta => 2,
            Self::Checkpoint => 3,
            Self::Meta => 4,
            Self::Parity => 5,
            Self::Pad => 6,
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
            FrameKind::from_code(raw.kind).ok_or(value("frame type", raw.kind.into(), "1 to 6"))?;
        if raw.codec > 2 {
            return Err(value("codec", raw.codec.into(), "0 (none), 1 (lz4), 2 (zstd)"));
        }
        if raw.nonce_salt != 0 {
            return Err(value("nonce salt", raw.nonce_salt.into(), "0 in images not sealed"));
        }
        for (field, found) in [("stored length", raw.stored_len), ("plain length", raw.plain_len)] {
            if found > STORED_LEN_MAX {
                return Err(value(field, found.into(), "at most 16 MiB"));
            }
        }
        if raw.flags & !FLAG_DAMAGED != 0 || (raw.flags != 0 && kind != FrameKind::Data) {
            return Err(value("flags", raw.flags.into(), "0, or 1 (damaged) for DATA"));
        }
        if raw.depth > DELTA_DEPTH_MAX || (raw.depth != 0 && kind != FrameKind::Data) {
            return Err(value("depth", raw.depth.into(), "0, or up to 8 for DATA"));
        }
        let holds_block = matches!(kind, FrameKind::Data | FrameKind::Delta);
        if !holds_block && raw.leaf_prefix != [0; 8] {
            return Err(Fault::Reserved { at: 52 });
        }
        if kind == FrameKind::Pad && raw.subject != 0 {
            return Err(value("subject", raw.subject, "0 for PAD"));
        }
        if raw.codec != 0 && matches!(kind, FrameKind::Pad | FrameKind::Checkpoint) {
            return Err(value("codec", raw.codec.into(), "0 for PAD and CHECKPOINT"));
        }
        if raw.codec == 0 && raw.plain_len != raw.stored_len {
            return Err(value("stored length", raw.stored_len.into(), "the plain length"));
        }
        Ok(Self {
            kind,
            codec: raw.codec,
            is_damaged: raw.flags & FLAG_DAMAGED != 0,
            depth: raw.depth,
            session: SessionTag(raw.session_tag),
            seq: raw.seq,
            subject: raw.subject,
            plain_len: raw.plain_len,
            stored_len: raw.stored_len,
            payload_crc: raw.payload_crc,
            leaf_prefix: raw.leaf_prefix,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_SIZE] {
        let mut raw = RawFrameHeader {
            magic: MAGIC,
            kind: self.kind.code(),
            codec: self.codec,
            flags: if self.is_damaged { FLAG_DAMAGED } else { 0 },
            depth: self.depth,
            session_tag: self.session.0,
            nonce_salt: 0,
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
        assert!(refused(|b| b[5] = 3).contains("codec is 3"));
        assert!(refused(|b| b[6] = 2).contains("flags is 2"));
        assert!(refused(|b| b[7] = 9).contains("depth is 9"));
        assert!(refused(|b| b[4] = 2).contains("depth is 2"));
        assert!(refused(|b| b[20] = 1).contains("nonce salt"));
        assert!(refused(|b| b[43] = 2).contains("plain length"));
        assert!(refused(|b| b[47] = 2).contains("stored length"));
        assert!(refused(|b| b[5] = 0).contains("the plain length"));
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
