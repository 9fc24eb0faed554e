//! The records of the log: descriptor, commit and revoke blocks.

use super::super::blocks::JOURNAL_MAGIC;
use super::super::checksum::crc32c;
use super::superblock::{JournalSuperblock, TagFormat};
use crate::bytes::{be16, be32, be64};

const BLOCK_TYPE_DESCRIPTOR: u32 = 1;
const BLOCK_TYPE_COMMIT: u32 = 2;
const BLOCK_TYPE_REVOKE: u32 = 5;
/// Bytes of the header all records share.
const HEADER_LEN: usize = 12;

const FLAG_ESCAPE: u32 = 1;
const FLAG_SAME_UUID: u32 = 2;
const FLAG_LAST_TAG: u32 = 8;

/// What kind of record a block of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Descriptor,
    Commit,
    Revoke,
}

/// The kind of a record of transaction `sequence`; `None` when the log ends here.
pub(super) fn kind_of(block: &[u8], sequence: u32) -> Option<RecordKind> {
    if !block.starts_with(&JOURNAL_MAGIC) || be32(block, 8) != sequence {
        return None;
    }
    match be32(block, 4) {
        BLOCK_TYPE_DESCRIPTOR => Some(RecordKind::Descriptor),
        BLOCK_TYPE_COMMIT => Some(RecordKind::Commit),
        BLOCK_TYPE_REVOKE => Some(RecordKind::Revoke),
        _ => None,
    }
}

/// One block of the filesystem whose new contents follow the descriptor block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Block of the filesystem.
    pub(super) block: u64,
    pub(super) escaped: bool,
    checksum: u32,
}

impl Tag {
    /// Whether `data`, as it is in the log, is what was written there.
    pub(super) fn matches(&self, journal: &JournalSuperblock, sequence: u32, data: &[u8]) -> bool {
        let Some(seed) = journal.seed else { return true };
        let sum = crc32c(crc32c(seed, &sequence.to_be_bytes()), data);
        match journal.tags {
            TagFormat::Plain => true,
            TagFormat::Csum2 => sum & 0xffff == self.checksum,
            TagFormat::Csum3 => sum == self.checksum,
        }
    }
}

impl JournalSuperblock {
    /// Whether a descriptor or revoke block matches the checksum in its last four bytes.
    pub(super) fn tail_is_right(&self, block: &[u8]) -> bool {
        let Some(seed) = self.seed else { return true };
        let tail = block.len() - 4;
        crc32c(crc32c(seed, &block[..tail]), &[0; 4]) == be32(block, tail)
    }

    /// Whether a commit block matches its checksum.
    pub(super) fn commit_is_right(&self, block: &[u8]) -> bool {
        const CHECKSUM_AT: usize = 0x10;
        let Some(seed) = self.seed else { return true };
        let sum = crc32c(crc32c(seed, &block[..CHECKSUM_AT]), &[0; 4]);
        crc32c(sum, &block[CHECKSUM_AT + 4..]) == be32(block, CHECKSUM_AT)
    }

    /// The tags of a descriptor block, in the order of the blocks that follow it.
    pub(super) fn tags_of(&self, block: &[u8]) -> Vec<Tag> {
        let tail = if self.seed.is_some() { 4 } else { 0 };
        let tag_len = match (self.tags, self.wide) {
            (TagFormat::Csum3, _) => 16,
            (TagFormat::Csum2, true) => 14,
            (TagFormat::Csum2, false) => 10,
            (TagFormat::Plain, true) => 12,
            (TagFormat::Plain, false) => 8,
        };
        let mut rest = &block[HEADER_LEN..block.len() - tail];
        let mut tags = Vec::new();
        while let Some((tag, after)) = rest.split_at_checked(tag_len) {
            let (flags, checksum) = match self.tags {
                TagFormat::Csum3 => (be32(tag, 4), be32(tag, 12)),
                TagFormat::Csum2 | TagFormat::Plain => {
                    (u32::from(be16(tag, 6)), u32::from(be16(tag, 4)))
                }
            };
            let high = if self.wide { u64::from(be32(tag, 8)) << 32 } else { 0 };
            tags.push(Tag {
                block: high | u64::from(be32(tag, 0)),
                escaped: flags & FLAG_ESCAPE != 0,
                checksum,
            });
            if flags & FLAG_LAST_TAG != 0 {
                break;
            }
            let uuid_len = if flags & FLAG_SAME_UUID != 0 { 0 } else { 16 };
            rest = after.get(uuid_len..).unwrap_or_default();
        }
        tags
    }

    /// The blocks of the filesystem a revoke block names; `None` when its count is wrong.
    pub(super) fn revoked_by(&self, block: &[u8]) -> Option<Vec<u64>> {
        const RECORDS_AT: usize = HEADER_LEN + 4;
        let tail = if self.seed.is_some() { 4 } else { 0 };
        let end = usize::try_from(be32(block, HEADER_LEN)).ok()?;
        if end > block.len() - tail {
            return None;
        }
        let records = block.get(RECORDS_AT..end)?;
        Some(match self.wide {
            true => records.chunks_exact(8).map(|record| be64(record, 0)).collect(),
            false => records.chunks_exact(4).map(|record| u64::from(be32(record, 0))).collect(),
        })
    }
}
