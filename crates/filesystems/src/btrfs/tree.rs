//! A whole tree, walked from its root to its leaves in the order of its keys.
//!
//! Levels fall and keys rise on the way, so that no block is met twice and nothing goes round;
//! all trees together have no more blocks than the device has room for. Nothing recurses.

use aiv_volume_io::{Job, ReadAt};

use super::block::{Block, Expected};
use super::chunks::Chunks;
use super::key::Item;
use super::reason::BtrfsReason;
use super::superblock::{Root, Superblock};
use crate::stop::Stop;

/// Tree blocks a map is made of, and the addresses of which are held: 64 MiB of memory. The
/// extent tree of a device of many tebibytes stays below.
pub(super) const BLOCKS_MAX: u64 = 1 << 23;

/// A tree as messages call it, and as its blocks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) name: &'static str,
    pub(super) block_name: &'static str,
    pub(super) owner: u64,
}

impl Tree {
    pub(super) const ROOT: Self = Self { name: "root", block_name: "root tree", owner: 1 };
    pub(super) const EXTENT: Self = Self { name: "extent", block_name: "extent tree", owner: 2 };
    pub(super) const CHUNK: Self = Self { name: "chunk", block_name: "chunk tree", owner: 3 };
    pub(super) const DEVICE: Self = Self { name: "device", block_name: "device tree", owner: 4 };
    pub(super) const BLOCK_GROUP: Self =
        Self { name: "block-group", block_name: "block-group tree", owner: 11 };
    pub(super) const FREE_SPACE: Self =
        Self { name: "free-space", block_name: "free-space tree", owner: 10 };
    /// All log trees and the tree of their roots: number -6.
    pub(super) const LOG: Self =
        Self { name: "log", block_name: "log tree", owner: 6u64.wrapping_neg() };
}

pub(super) struct TreeReader<'a> {
    volume: &'a dyn ReadAt,
    superblock: &'a Superblock,
    job: Job<'a>,
    blocks_max: u64,
    blocks: u64,
    /// Blocks whose first copy is damaged.
    pub(super) damaged_copies: u64,
}

impl<'a> TreeReader<'a> {
    pub(super) fn new(volume: &'a dyn ReadAt, superblock: &'a Superblock, job: Job<'a>) -> Self {
        let room = superblock.device.total_bytes / u64::from(superblock.node_size);
        let blocks_max = room.min(BLOCKS_MAX);
        Self { volume, superblock, job, blocks_max, blocks: 0, damaged_copies: 0 }
    }

    /// Hands every item of a tree to `take`, in order, and returns the tree's blocks.
    pub(super) fn walk(
        &mut self,
        chunks: &Chunks,
        tree: Tree,
        root: Root,
        take: &mut dyn FnMut(Item<'_>) -> Result<(), Stop>,
    ) -> Result<Vec<u64>, Stop> {
        let mut visited = Vec::new();
        // Blocks from the root down, and the child of each that comes next.
        let mut path: Vec<(Block, usize)> = Vec::new();
        let mut spare = Vec::new();
        let Root { logical, generation, level } = root;
        let mut next = Some(Expected { logical, generation, level, first: None, end: None });
        while let Some(expected) = next {
            if expected.generation > root.generation {
                let what = "it is newer than its root";
                return Err(
                    BtrfsReason::Tree { tree: tree.name, block: expected.logical, what }.into()
                );
            }
            let mut block = spare.pop().unwrap_or_else(|| Block::new(self.superblock.node_size));
            self.read(&mut block, chunks, tree, expected)?;
            visited.push(expected.logical);
            if expected.level == 0 {
                (0..block.entries()).try_for_each(|n| take(block.item(n)))?;
                spare.push(block);
            } else {
                path.push((block, 0));
            }
            next = None;
            while let Some((block, child)) = path.last_mut() {
                if *child < block.entries() {
                    next = Some(block.child(*child));
                    *child += 1;
                    break;
                }
                spare.extend(path.pop().map(|(block, _)| block));
            }
        }
        Ok(visited)
    }

    fn read(
        &mut self,
        block: &mut Block,
        chunks: &Chunks,
        tree: Tree,
        expected: Expected,
    ) -> Result<(), Stop> {
        if self.blocks.is_multiple_of(64) {
            self.job.check()?;
        }
        if self.blocks == self.blocks_max {
            let allowed = self.blocks_max;
            return Err(BtrfsReason::TooMany { what: "tree blocks", allowed }.into());
        }
        self.blocks += 1;
        let found = block.read(self.volume, self.superblock, chunks, tree, expected)?;
        self.damaged_copies += u64::from(found.after_damage);
        Ok(())
    }
}
