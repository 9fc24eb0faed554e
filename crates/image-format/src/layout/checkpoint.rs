use super::{FrameHeader, FrameKind, IndexEntry, record};
use crate::error::{Fault, Result, Section};
use crate::ids::{Digest, SessionTag};
use crate::limits::{CHECKPOINT_ENTRIES_MAX, CHECKPOINT_PIECES_MAX, ORIGINS_MAX};

record! {
    /// Begins the payload of a CHECKPOINT frame.
    struct RawCheckpointHead[64] {
        0 => previous_address: u64,
        8 => number: u64,
        16 => next_block: u64,
        24 => first_piece: u64,
        32 => piece_count: u32,
        36 => entry_count: u32,
        40 => origin_count: u32,
    }
}

/// Bytes per origin in a checkpoint: a session tag and four reserved bytes.
pub(crate) const ORIGIN_SIZE: usize = 16;

/// A checked checkpoint head. The payload goes on with the origins, the hashes of the 64 KiB
/// pieces completed since the previous checkpoint, and the index entries since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckpointHead {
    /// Offset of the previous checkpoint frame, zero for the first.
    pub previous_address: u64,
    pub number: u64,
    /// Every block below this one has been decided.
    pub next_block: u64,
    pub first_piece: u64,
    pub piece_count: u32,
    pub entry_count: u32,
    pub origin_count: u32,
}

impl CheckpointHead {
    pub(crate) const SIZE: usize = 64;

    /// Checks the head of a payload, and that the payload is as long as it says.
    pub(crate) fn from_payload(payload: &[u8]) -> std::result::Result<Self, Fault> {
        let head = Self::unbounded(payload)?;
        if head.payload_len() == payload.len() { Ok(head) } else { Err(Fault::CutOff) }
    }

    /// Checks the head at the start of a payload of which the rest may be missing.
    pub(crate) fn unbounded(payload: &[u8]) -> std::result::Result<Self, Fault> {
        let Some(bytes) = payload.first_chunk::<64>() else { return Err(Fault::CutOff) };
        if let Some(at) = RawCheckpointHead::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at });
        }
        let raw = RawCheckpointHead::decode(bytes);
        let limits = [
            ("piece count", u64::from(raw.piece_count), u64::from(CHECKPOINT_PIECES_MAX)),
            ("entry count", u64::from(raw.entry_count), CHECKPOINT_ENTRIES_MAX as u64),
            ("origin count", u64::from(raw.origin_count), ORIGINS_MAX as u64),
        ];
        for (field, found, max) in limits {
            if found > max {
                return Err(Fault::Value { field, found, allowed: "what section 10 lists" });
            }
        }
        Ok(Self {
            previous_address: raw.previous_address,
            number: raw.number,
            next_block: raw.next_block,
            first_piece: raw.first_piece,
            piece_count: raw.piece_count,
            entry_count: raw.entry_count,
            origin_count: raw.origin_count,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; 64] {
        RawCheckpointHead {
            previous_address: self.previous_address,
            number: self.number,
            next_block: self.next_block,
            first_piece: self.first_piece,
            piece_count: self.piece_count,
            entry_count: self.entry_count,
            origin_count: self.origin_count,
        }
        .encode()
    }

    /// Bytes of the whole payload; the counts are bounded, so this cannot overflow.
    pub(crate) fn payload_len(&self) -> usize {
        self.entries_at() + self.entry_count as usize * 48
    }

    /// Offset of the piece hashes in the payload.
    pub(crate) fn pieces_at(&self) -> usize {
        Self::SIZE + self.origin_count as usize * ORIGIN_SIZE
    }

    /// Offset of the entries in the payload.
    pub(crate) fn entries_at(&self) -> usize {
        self.pieces_at() + self.piece_count as usize * 32
    }
}

/// A checkpoint read from a file: its head, and the payload it describes.
pub(crate) struct Checkpoint {
    pub head: CheckpointHead,
    payload: Vec<u8>,
    address: u64,
}

impl Checkpoint {
    /// The checkpoint in the frame at `address`, which was checked, and opened where it is sealed.
    pub(crate) fn of_frame(header: &FrameHeader, content: Vec<u8>, address: u64) -> Result<Self> {
        let checkpoint = Self::from_payload(content, address)?;
        if header.kind != FrameKind::Checkpoint || header.subject != checkpoint.head.number {
            let fault = Fault::Differs { field: "number", other: "header of its frame" };
            return Err(fault.at(Section::Checkpoint, address));
        }
        Ok(checkpoint)
    }

    /// Checks the head of a payload that was checked against its frame at `address`.
    pub(crate) fn from_payload(payload: Vec<u8>, address: u64) -> Result<Self> {
        let at = |fault: Fault| fault.at(Section::Checkpoint, address);
        let head = CheckpointHead::from_payload(&payload).map_err(at)?;
        let origins = payload[CheckpointHead::SIZE..head.pieces_at()].chunks_exact(ORIGIN_SIZE);
        if origins.clone().any(|origin| origin[12..] != [0; 4]) {
            return Err(at(Fault::Reserved { at: CheckpointHead::SIZE }));
        }
        Ok(Self { head, payload, address })
    }

    /// The sessions whose frames come before this checkpoint.
    pub(crate) fn origins(&self) -> impl Iterator<Item = SessionTag> + '_ {
        let list = &self.payload[CheckpointHead::SIZE..self.head.pieces_at()];
        list.chunks_exact(ORIGIN_SIZE).map(|chunk| {
            let mut tag = SessionTag::default();
            tag.0.copy_from_slice(&chunk[..12]);
            tag
        })
    }

    /// The hashes of the pieces completed since the previous checkpoint.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Digest> + '_ {
        let list = &self.payload[self.head.pieces_at()..self.head.entries_at()];
        list.chunks_exact(32).map(|chunk| {
            let mut digest = Digest::default();
            digest.0.copy_from_slice(chunk);
            digest
        })
    }

    /// The index entries since the previous checkpoint.
    pub(crate) fn entries(&self) -> Result<Vec<IndexEntry>> {
        let list = &self.payload[self.head.entries_at()..];
        list.chunks_exact(48)
            .map(|chunk| {
                let mut bytes = [0; 48];
                bytes.copy_from_slice(chunk);
                IndexEntry::from_bytes(&bytes)
                    .map_err(|fault| fault.at(Section::Checkpoint, self.address))
            })
            .collect()
    }
}
