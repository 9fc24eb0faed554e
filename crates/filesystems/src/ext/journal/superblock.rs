//! The superblock of the journal, block 0 of its file. Big-endian, as the whole journal.

use super::super::blocks::JOURNAL_MAGIC;
use super::super::checksum::crc32c;
use super::super::reason::{FeatureClass, JournalReason};
use crate::bytes::{array, be32};

const BLOCK_TYPE_SUPERBLOCK_V1: u32 = 3;
const BLOCK_TYPE_SUPERBLOCK_V2: u32 = 4;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
/// Commit blocks may reach the disk before what they commit; checksums tell.
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 =
    INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_ASYNC_COMMIT | INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3;

/// How blocks are named and protected in descriptor blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagFormat {
    /// No checksums.
    Plain,
    /// The low 16 bits of a CRC-32C.
    Csum2,
    /// A full CRC-32C.
    Csum3,
}

/// A journal superblock that holds together.
#[derive(Debug, Clone)]
pub(super) struct JournalSuperblock {
    /// First block of the log, 1 or more.
    pub(super) first: u32,
    /// Blocks of the journal; the log wraps here.
    pub(super) len: u32,
    /// Block of the oldest transaction to replay, zero for none.
    pub(super) start: u32,
    /// Its number.
    pub(super) sequence: u32,
    pub(super) tags: TagFormat,
    /// Block numbers have 64 bits.
    pub(super) wide: bool,
    /// Where checksums start from; `None` without them.
    pub(super) seed: Option<u32>,
}

impl JournalSuperblock {
    /// Checks block 0 of a journal file of `file_blocks` blocks.
    pub(super) fn parse(block: &[u8], file_blocks: u32) -> Result<Self, JournalReason> {
        let damaged = |what| JournalReason::Damaged { what, block: 0 };
        if !block.starts_with(&JOURNAL_MAGIC) {
            return Err(damaged("no superblock"));
        }
        let (compat, incompat, ro_compat) = match be32(block, 4) {
            BLOCK_TYPE_SUPERBLOCK_V1 => (0, 0, 0),
            BLOCK_TYPE_SUPERBLOCK_V2 => (be32(block, 0x24), be32(block, 0x28), be32(block, 0x2c)),
            _ => return Err(damaged("no superblock")),
        };
        if incompat & INCOMPAT_FAST_COMMIT != 0 {
            return Err(JournalReason::FastCommits);
        }
        for (class, bits) in [
            (FeatureClass::Incompat, incompat & !INCOMPAT_KNOWN),
            (FeatureClass::RoCompat, ro_compat),
            // The one bit there is means checksums of version 1, which only an option of old
            // kernels turned on.
            (FeatureClass::Compat, compat),
        ] {
            if bits != 0 {
                return Err(JournalReason::UnknownFeatures { class, bits });
            }
        }
        let tags = match (incompat & INCOMPAT_CSUM_V2 != 0, incompat & INCOMPAT_CSUM_V3 != 0) {
            (false, false) if incompat & INCOMPAT_ASYNC_COMMIT != 0 => {
                return Err(damaged("asynchronous commits without checksums"));
            }
            (false, false) => TagFormat::Plain,
            (true, false) => TagFormat::Csum2,
            (false, true) => TagFormat::Csum3,
            (true, true) => return Err(damaged("checksums of versions 2 and 3 at once")),
        };
        let seed = (tags != TagFormat::Plain).then(|| crc32c(!0, &block[0x30..0x40]));
        if seed.is_some() {
            Self::check_sum(block)?;
        }
        Self::check_errno(block)?;
        let (block_size, len, first) = (be32(block, 0xc), be32(block, 0x10), be32(block, 0x14));
        let (sequence, start) = (be32(block, 0x18), be32(block, 0x1c));
        if block_size as usize != block.len() {
            return Err(damaged("block size differs from the filesystem's"));
        }
        if len > file_blocks || first == 0 || first >= len {
            return Err(damaged("length and first block of the log"));
        }
        if start != 0 && !(first..len).contains(&start) {
            return Err(damaged("start of the log"));
        }
        let wide = incompat & INCOMPAT_64BIT != 0;
        Ok(Self { first, len, start, sequence, tags, wide, seed })
    }

    fn check_sum(block: &[u8]) -> Result<(), JournalReason> {
        const CRC32C: u8 = 4;
        const CHECKSUM_AT: usize = 0xfc;
        let sum = crc32c(!0, &block[..CHECKSUM_AT]);
        let sum = crc32c(crc32c(sum, &[0; 4]), &block[CHECKSUM_AT + 4..1024]);
        if block[0x50] != CRC32C || sum != be32(block, CHECKSUM_AT) {
            let what = "checksum of the superblock";
            return Err(JournalReason::Damaged { what, block: 0 });
        }
        Ok(())
    }

    fn check_errno(block: &[u8]) -> Result<(), JournalReason> {
        match i32::from_be_bytes(array(block, 0x20)) {
            0 => Ok(()),
            errno => Err(JournalReason::Aborted { errno }),
        }
    }

    /// The block `count` after `block` in the log, which is a ring.
    pub(super) fn advance(&self, block: u32, count: u32) -> u32 {
        let ring = self.len - self.first;
        let at = (u64::from(block - self.first) + u64::from(count)) % u64::from(ring);
        self.first + u32::try_from(at).expect("a remainder is smaller than its divisor")
    }
}
