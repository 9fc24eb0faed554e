//! The checkpoint: which of the two is newer, which copy of each table block is valid, and what
//! changed since those were written.

use aiv_volume_io::ReadAt;

use super::reason::F2fsReason;
use super::superblock::Superblock;
use super::{BLOCK, MAGIC, SEGMENT_BLOCKS, read_block};
use crate::bytes::{le16, le32, le64};
use crate::crc32::crc32;
use crate::stop::Stop;

/// Where the checksum is; other places belong to features that are not known here.
const CHECKSUM_AT: usize = BLOCK - 4;
const BITMAPS_AT: usize = 192;
/// A pack is at most one segment, and has two headers and six summaries, or one compact one.
const PACK_MIN: u64 = 3;

const UNMOUNTED: u32 = 0x1;
const COMPACT: u32 = 0x4;
/// Checksums for recovery, a fast way to find free nodes, and "was discarded".
const HARMLESS: u32 = 0x40 | 0x80 | 0x100 | 0x200;

/// Kinds of segments that are written to: three for data, three for nodes.
const CURRENT: usize = 3;
/// Summaries of the current segments, which end an unmounted pack before its last header.
const SUMMARIES: u64 = 6;
/// Where a summary block has its journal, and bytes of it.
const JOURNAL_AT: usize = 7 * 512;
const JOURNAL_LEN: usize = BLOCK - 5 - JOURNAL_AT;

/// The newest checkpoint.
pub(super) struct Checkpoint {
    block: Box<[u8]>,
    /// Newer entries than those of the tables.
    pub(super) sit_journal: Vec<u8>,
    pub(super) nat_journal: Vec<u8>,
    sit_bitmap_len: usize,
}

impl Checkpoint {
    pub(super) fn read(volume: &dyn ReadAt, superblock: &Superblock) -> Result<Self, Stop> {
        let packs = [0, 1].map(|n| superblock.checkpoint + n * SEGMENT_BLOCKS);
        let mut newest: Option<(u64, u64, Box<[u8]>)> = None;
        for start in packs {
            let Some(block) = pack(volume, start)? else { continue };
            let version = le64(&block, 0);
            // Versions go round, as the kernel compares them.
            if newest.as_ref().is_none_or(|other| version.wrapping_sub(other.0).cast_signed() > 0) {
                newest = Some((version, start, block));
            }
        }
        let (_, start, block) = newest.ok_or(F2fsReason::NoCheckpoint)?;
        let flags = le32(&block, 132);
        if flags & UNMOUNTED == 0 || flags & !(UNMOUNTED | COMPACT | HARMLESS) != 0 {
            return Err(F2fsReason::NotClean { flags }.into());
        }
        let sit_bitmap_len = bitmap(&block, 156, "sit_ver_bitmap_bytesize", superblock.sit_blocks)?;
        let nat_bitmap_len = bitmap(&block, 160, "nat_ver_bitmap_bytesize", superblock.nat_blocks)?;
        if BITMAPS_AT + sit_bitmap_len + nat_bitmap_len > CHECKSUM_AT {
            let found = (sit_bitmap_len + nat_bitmap_len) as u64;
            return Err(field("version bitmaps", found, "up to 3900 bytes").into());
        }
        let total = u64::from(le32(&block, 136));
        let [nat_journal, sit_journal] = match flags & COMPACT {
            0 if total < SUMMARIES + 2 => {
                let allowed = "8 or more, with six summaries";
                return Err(field("cp_pack_total_block_count", total, allowed).into());
            }
            0 => {
                let first = start + total - (SUMMARIES + 1);
                // Of hot and of cold data.
                [journal(volume, first)?, journal(volume, first + 2)?]
            }
            _ => {
                let at = u64::from(le32(&block, 140));
                if at == 0 || at >= total {
                    return Err(field("cp_pack_start_sum", at, "inside the pack").into());
                }
                let summaries = read_block(volume, start + at)?;
                let [nat, sit] =
                    [0, JOURNAL_LEN].map(|at| summaries[at..at + JOURNAL_LEN].to_vec());
                [nat, sit]
            }
        };
        Ok(Self { block, sit_journal, nat_journal, sit_bitmap_len })
    }

    /// Whether the second copy of a block of the segment table is the valid one.
    pub(super) fn sit_second(&self, block: u64) -> bool {
        is_set(&self.block[BITMAPS_AT..], block)
    }

    /// Whether the second copy of a block of the node table is the valid one.
    pub(super) fn nat_second(&self, block: u64) -> bool {
        is_set(&self.block[BITMAPS_AT + self.sit_bitmap_len..], block)
    }

    pub(super) fn valid_blocks(&self) -> u64 {
        le64(&self.block, 16)
    }

    pub(super) fn free_segments(&self) -> u64 {
        le32(&self.block, 32).into()
    }

    pub(super) fn valid_nodes(&self) -> u64 {
        le32(&self.block, 144).into()
    }

    /// Segments that are being filled, and the next block of each.
    pub(super) fn current(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        [(36, 68), (84, 116)].into_iter().flat_map(move |(segments, blocks)| {
            (0..CURRENT).map(move |n| {
                let segment = le32(&self.block, segments + 4 * n);
                (segment.into(), le16(&self.block, blocks + 2 * n).into())
            })
        })
    }
}

fn field(field: &'static str, found: u64, allowed: &str) -> F2fsReason {
    F2fsReason::Field { section: "checkpoint", field, found, allowed: allowed.to_owned() }
}

/// The bytes of a bitmap with a bit for each block of one copy of a table.
fn bitmap(block: &[u8], at: usize, name: &'static str, blocks: u64) -> Result<usize, F2fsReason> {
    let found = u64::from(le32(block, at));
    match usize::try_from(found) {
        Ok(len) if found == blocks / 8 => Ok(len),
        _ => Err(field(name, found, &(blocks / 8).to_string())),
    }
}

/// The first bit of a byte is its highest.
pub(super) fn is_set(bits: &[u8], at: u64) -> bool {
    let byte = usize::try_from(at / 8).ok().and_then(|byte| bits.get(byte));
    byte.is_some_and(|byte| byte << (at % 8) & 0x80 != 0)
}

/// The header of a pack, if its first and last block are sound and of one version.
fn pack(volume: &dyn ReadAt, start: u64) -> Result<Option<Box<[u8]>>, Stop> {
    let first = read_block(volume, start)?;
    let total = u64::from(le32(&first, 136));
    if !is_sound(&first) || !(PACK_MIN..=SEGMENT_BLOCKS).contains(&total) {
        return Ok(None);
    }
    let last = read_block(volume, start + total - 1)?;
    let agrees = is_sound(&last) && last[..8] == first[..8];
    Ok(agrees.then_some(first))
}

fn is_sound(block: &[u8]) -> bool {
    le32(block, 164) as usize == CHECKSUM_AT
        && crc32(MAGIC, &block[..CHECKSUM_AT]) == le32(block, CHECKSUM_AT)
}

fn journal(volume: &dyn ReadAt, summary: u64) -> Result<Vec<u8>, Stop> {
    Ok(read_block(volume, summary)?[JOURNAL_AT..JOURNAL_AT + JOURNAL_LEN].to_vec())
}

/// The entries of a journal: its key, and the rest of an entry of `len` bytes in all.
pub(super) fn entries<'a>(
    journal: &'a [u8],
    len: usize,
    name: &'static str,
) -> Result<Vec<(u64, &'a [u8])>, F2fsReason> {
    let count = usize::from(le16(journal, 0));
    let entries = journal[2..].chunks_exact(len);
    if count > entries.len() {
        return Err(F2fsReason::Journal { journal: name, what: "it has more entries than room" });
    }
    let mut found: Vec<(u64, &'a [u8])> =
        entries.take(count).map(|entry| (le32(entry, 0).into(), &entry[4..])).collect();
    found.sort_unstable_by_key(|entry| entry.0);
    if found.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(F2fsReason::Journal { journal: name, what: "it has an entry twice" });
    }
    Ok(found)
}
