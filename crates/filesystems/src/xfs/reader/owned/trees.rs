//! What the allocation groups say: places of their records, chunks of inodes, blocks that are
//! shared.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::super::super::group::Group;
use super::super::super::reason::XfsReason;
use super::super::super::superblock::Superblock;
use super::super::super::tree::{LEVELS_MAX, Limits, Order, Root, TreeReader};
use crate::bytes::{be16, be32, be64};
use crate::runs::RUNS_MAX;
use crate::stop::Stop;

/// Inodes in a chunk, and those for which one bit says that they are not there.
pub(super) const CHUNK: u32 = 64;
const PER_HOLE_BIT: u32 = 4;
/// Of the first block of an entry: it belongs to a write that was not finished.
const UNFINISHED: u32 = 1 << 31;
/// Records of chunks: 512 million inodes.
const CHUNKS_MAX: usize = 1 << 23;

/// 64 inodes in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) group: u32,
    /// Number of the first within the group.
    pub(super) first: u32,
    /// A bit for each four that are not there.
    holes: u16,
    /// A bit for each that is not in use.
    free: u64,
}

impl Chunk {
    /// Whether there is room for an inode of this number in the chunk.
    pub(super) fn has(self, n: u32) -> bool {
        self.holes & 1 << (n / PER_HOLE_BIT) == 0
    }

    pub(super) fn is_used(self, n: u32) -> bool {
        self.has(n) && self.free & 1 << n == 0
    }
}

/// What all groups say.
pub(super) struct Trees {
    /// Bytes of headers, trees, blocks set aside and the log: nobody else's.
    pub(super) records: Vec<Extent>,
    pub(super) chunks: Vec<Chunk>,
    /// Bytes that several files have, or a write that was not finished.
    pub(super) shared: ExtentSet,
}

impl Trees {
    pub(super) fn read(
        volume: &dyn ReadAt,
        superblock: &Superblock,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let mut trees = Self { records: Vec::new(), chunks: Vec::new(), shared: ExtentSet::new() };
        let geometry = &superblock.geometry;
        let log = geometry.log;
        let block_size = u64::from(geometry.block_size);
        let log_at = geometry.offset_of(log.group, log.block);
        trees.records.push(Extent::new(log_at, u64::from(log.blocks) * block_size));
        let mut shared = Vec::new();
        for index in 0..geometry.groups {
            job.check()?;
            trees.read_group(volume, superblock, index, &mut shared, job)?;
        }
        trees.shared = shared.into_iter().collect();
        Ok(trees)
    }

    fn read_group(
        &mut self,
        volume: &dyn ReadAt,
        superblock: &Superblock,
        index: u32,
        shared: &mut Vec<Extent>,
        job: Job<'_>,
    ) -> Result<(), Stop> {
        let geometry = &superblock.geometry;
        let group = Group::read(volume, superblock, index)?;
        let place = |block: u32, blocks: u32| {
            let len = u64::from(blocks) * u64::from(geometry.block_size);
            Extent::new(geometry.offset_of(index, block), len)
        };
        let mut records = vec![place(0, geometry.header_blocks())];
        records.extend(group.set_aside.iter().map(|&block| place(block, 1)));
        let free = [(Order::Block, group.by_block), (Order::Size, group.by_size)];
        for (order, root) in free.into_iter().chain(group.other_trees.iter().copied()) {
            let limits = Limits::DEFAULT;
            let reader = TreeReader { volume, superblock, group: index, order, limits, job };
            check_levels(&reader, root)?;
            let blocks = reader.walk(root, &mut |leaf| {
                let records = leaf.records.chunks_exact(order.record_len());
                match order {
                    Order::Inodes => records.for_each(|record| {
                        self.chunks.push(Chunk {
                            group: index,
                            first: be32(record, 0),
                            // Without holes, the upper half of a number that is 64 at most.
                            holes: be16(record, 4),
                            free: be64(record, 8),
                        });
                    }),
                    Order::References => {
                        for record in records {
                            let (start, blocks) = (be32(record, 0) & !UNFINISHED, be32(record, 4));
                            let end = start.checked_add(blocks);
                            if blocks == 0 || end.is_none_or(|e| e > geometry.blocks_of(index)) {
                                return Err(reader.fault(start, "it lies outside the group"));
                            }
                            shared.push(place(start, blocks));
                        }
                    }
                    Order::Block | Order::Size | Order::FreeInodes | Order::Owners => {}
                }
                let allowed = if order == Order::Inodes { CHUNKS_MAX } else { RUNS_MAX };
                match self.chunks.len() > CHUNKS_MAX || shared.len() > RUNS_MAX {
                    true => Err(XfsReason::TooMany { group: index, allowed }.into()),
                    false => Ok(()),
                }
            })?;
            records.extend(blocks.into_iter().map(|block| place(block, 1)));
        }
        self.records.extend(records);
        Ok(())
    }
}

fn check_levels(reader: &TreeReader<'_>, root: Root) -> Result<(), Stop> {
    match (1..=LEVELS_MAX).contains(&root.levels) {
        true => Ok(()),
        false => Err(reader.fault(root.block, "its depth is out of range")),
    }
}
