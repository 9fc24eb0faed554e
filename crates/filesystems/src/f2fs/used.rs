//! The segment table and the node table, and the map that both must agree on.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::checkpoint::{Checkpoint, entries, is_set};
use super::reason::F2fsReason;
use super::superblock::Superblock;
use super::{BLOCK_LEN, SEGMENT_BLOCKS, read_block};
use crate::UsedMap;
use crate::bytes::{le16, le32};
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;

/// Bytes of a segment's bitmap.
const BITMAP: usize = 64;
/// Bytes of an entry of the segment table: count and type, bitmap, time.
const SIT_ENTRY: usize = 2 + BITMAP + 8;
const SIT_PER_BLOCK: u64 = 4096 / SIT_ENTRY as u64;
/// Bytes of an entry of the node table: version, inode, block.
const NAT_ENTRY: usize = 9;
const NAT_PER_BLOCK: u64 = 4096 / NAT_ENTRY as u64;
/// Number, and below it the count of used blocks.
const COUNT_BITS: u16 = 10;
/// Data and nodes, each hot, warm and cold.
const TYPES: u16 = 6;
/// Nodes of the filesystem itself, which lie nowhere.
const RESERVED_NODES: u64 = 3;

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let superblock = Superblock::read(volume)?;
    let checkpoint = Checkpoint::read(volume, &superblock)?;
    let bits = read_segments(volume, &superblock, &checkpoint, job)?;
    check_current(&superblock, &checkpoint, &bits)?;
    check_nodes(volume, &superblock, &checkpoint, &bits, job)?;
    let mut used = RunCollector::new(RUNS_MAX);
    let main = superblock.main;
    used.push(Extent::new(0, main * BLOCK_LEN));
    let mut next: Vec<u64> =
        checkpoint.current().map(|(segment, block)| segment * SEGMENT_BLOCKS + block).collect();
    next.sort_unstable();
    let mut run: Option<(u64, u64)> = None;
    for block in 0..superblock.segments * SEGMENT_BLOCKS {
        // What follows the last written block is where the kernel looks for later writes.
        if !is_set(&bits, block) && next.binary_search(&block).is_err() {
            continue;
        }
        run = match run {
            Some((start, end)) if end == block => Some((start, block + 1)),
            other => {
                push(&mut used, main, other);
                Some((block, block + 1))
            }
        };
        if block.is_multiple_of(1 << 20) {
            job.check()?;
        }
    }
    push(&mut used, main, run);
    let end = (main + superblock.segments * SEGMENT_BLOCKS) * BLOCK_LEN;
    used.push(Extent::between(end, volume.len()));
    let cluster_size = u32::try_from(BLOCK_LEN).unwrap_or(u32::MAX);
    Ok(UsedMap::Used { used: used.finish(), cluster_size, notes: Vec::new() })
}

fn push(used: &mut RunCollector, main: u64, run: Option<(u64, u64)>) {
    if let Some((start, end)) = run {
        used.push(Extent::between((main + start) * BLOCK_LEN, (main + end) * BLOCK_LEN));
    }
}

/// A bit for each block of the main area, from the segment table and its journal.
fn read_segments(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    checkpoint: &Checkpoint,
    job: Job<'_>,
) -> Result<Vec<u8>, Stop> {
    let blocks = superblock.segments.div_ceil(SIT_PER_BLOCK);
    if blocks > superblock.sit_blocks {
        let (section, field) = ("superblock", "segment_count_main");
        let allowed = format!("up to {}", superblock.sit_blocks * SIT_PER_BLOCK);
        let found = superblock.segments;
        return Err(F2fsReason::Field { section, field, found, allowed }.into());
    }
    let newer = entries(&checkpoint.sit_journal, 4 + SIT_ENTRY, "segment")?;
    if newer.last().is_some_and(|entry| entry.0 >= superblock.segments) {
        let what = "it names a segment that there is not";
        return Err(F2fsReason::Journal { journal: "segment", what }.into());
    }
    let mut bits = Vec::new();
    for block in 0..blocks {
        job.check()?;
        let second = if checkpoint.sit_second(block) { superblock.sit_blocks } else { 0 };
        let table = read_block(volume, superblock.sit + block + second)?;
        let first = block * SIT_PER_BLOCK;
        for (segment, entry) in (first..superblock.segments).zip(table.chunks_exact(SIT_ENTRY)) {
            let found = newer.binary_search_by_key(&segment, |entry| entry.0);
            let entry = found.map_or(entry, |at| newer[at].1);
            bits.extend_from_slice(bitmap(segment, entry)?);
        }
    }
    let count = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
    same("valid_block_count", checkpoint.valid_blocks(), count)?;
    Ok(bits)
}

/// The bitmap of a segment, which must have as many bits as its entry says.
fn bitmap(segment: u64, entry: &[u8]) -> Result<&[u8], F2fsReason> {
    let head = le16(entry, 0);
    let bitmap = &entry[2..2 + BITMAP];
    let bits: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
    if u32::from(head & ((1 << COUNT_BITS) - 1)) != bits {
        let what = "its count of used blocks is not that of its bitmap";
        return Err(F2fsReason::Segment { segment, what });
    }
    if head >> COUNT_BITS >= TYPES {
        return Err(F2fsReason::Segment { segment, what: "it is of an unknown type" });
    }
    Ok(bitmap)
}

/// The segments that are being filled exist, and all others without a block are free.
fn check_current(
    superblock: &Superblock,
    checkpoint: &Checkpoint,
    bits: &[u8],
) -> Result<(), F2fsReason> {
    let mut current: Vec<u64> = Vec::new();
    for (segment, block) in checkpoint.current() {
        if segment >= superblock.segments || block >= SEGMENT_BLOCKS {
            let what = "it is written to at a block that there is not";
            return Err(F2fsReason::Segment { segment, what });
        }
        if is_set(bits, segment * SEGMENT_BLOCKS + block) {
            return Err(F2fsReason::Segment { segment, what: "its next block is used" });
        }
        if current.contains(&segment) {
            return Err(F2fsReason::Segment { segment, what: "it is written to twice" });
        }
        current.push(segment);
    }
    let empty = (0u64..).zip(bits.chunks_exact(BITMAP)).filter(|(segment, bitmap)| {
        bitmap.iter().all(|&byte| byte == 0) && !current.contains(segment)
    });
    same("free_segment_count", checkpoint.free_segments(), empty.count() as u64)
}

/// Every node lies in a used block, and there are as many as the checkpoint says.
fn check_nodes(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    checkpoint: &Checkpoint,
    bits: &[u8],
    job: Job<'_>,
) -> Result<(), Stop> {
    let newer = entries(&checkpoint.nat_journal, 4 + NAT_ENTRY, "node")?;
    if newer.last().is_some_and(|entry| entry.0 >= superblock.nat_blocks * NAT_PER_BLOCK) {
        let what = "it names a node that there is not";
        return Err(F2fsReason::Journal { journal: "node", what }.into());
    }
    let mut count = 0;
    for block in 0..superblock.nat_blocks {
        job.check()?;
        // Copies lie beside each other, segment by segment.
        let (pair, within) = (block / SEGMENT_BLOCKS, block % SEGMENT_BLOCKS);
        let second = if checkpoint.nat_second(block) { SEGMENT_BLOCKS } else { 0 };
        let at = superblock.nat + pair * 2 * SEGMENT_BLOCKS + within + second;
        let table = read_block(volume, at)?;
        for (node, entry) in (block * NAT_PER_BLOCK..).zip(table.chunks_exact(NAT_ENTRY)) {
            if node < RESERVED_NODES {
                continue;
            }
            let found = newer.binary_search_by_key(&node, |entry| entry.0);
            let entry = found.map_or(entry, |at| newer[at].1);
            let block = u64::from(le32(entry, 5));
            if block == 0 {
                continue;
            }
            count += 1;
            let inside = block.checked_sub(superblock.main);
            let inside = inside.filter(|&at| at < superblock.segments * SEGMENT_BLOCKS);
            match inside {
                Some(at) if is_set(bits, at) => {}
                Some(_) => return Err(F2fsReason::Node { node, block, what: "free" }.into()),
                None => {
                    let what = "outside of the main area";
                    return Err(F2fsReason::Node { node, block, what }.into());
                }
            }
        }
    }
    Ok(same("valid_node_count", checkpoint.valid_nodes(), count)?)
}

fn same(field: &'static str, checkpoint: u64, tables: u64) -> Result<(), F2fsReason> {
    match checkpoint == tables {
        true => Ok(()),
        false => Err(F2fsReason::Count { field, checkpoint, tables }),
    }
}
