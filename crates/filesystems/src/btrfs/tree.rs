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
    /// The owner of [`Self::FILES`].
    const ANYBODY: u64 = 0;
    pub(super) const ROOT: Self = Self { name: "root", block_name: "root tree", owner: 1 };
    pub(super) const EXTENT: Self = Self { name: "extent", block_name: "extent tree", owner: 2 };
    pub(super) const CHUNK: Self = Self { name: "chunk", block_name: "chunk tree", owner: 3 };
    pub(super) const DEVICE: Self = Self { name: "device", block_name: "device tree", owner: 4 };
    pub(super) const BLOCK_GROUP: Self =
        Self { name: "block-group", block_name: "block-group tree", owner: 11 };
    pub(super) const FREE_SPACE: Self =
        Self { name: "free-space", block_name: "free-space tree", owner: 10 };
    pub(super) const CHECKSUM: Self =
        Self { name: "checksum", block_name: "checksum tree", owner: 7 };
    /// A subvolume or snapshot: it shares blocks with those it was made of.
    pub(super) const FILES: Self =
        Self { name: "subvolume", block_name: "tree of a subvolume", owner: Self::ANYBODY };
    /// All log trees and the tree of their roots: number -6.
    pub(super) const LOG: Self =
        Self { name: "log", block_name: "log tree", owner: 6u64.wrapping_neg() };

    /// Whether a block of this owner may be in it.
    pub(super) fn may_have(self, owner: u64) -> bool {
        self.owner == Self::ANYBODY || self.owner == owner
    }
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
        self.walk_where(chunks, tree, root, &|_| true, take)
    }

    /// The same, without the blocks that `enter` does not want to enter, and what is below them.
    pub(super) fn walk_where(
        &mut self,
        chunks: &Chunks,
        tree: Tree,
        root: Root,
        enter: &dyn Fn(u64) -> bool,
        take: &mut dyn FnMut(Item<'_>) -> Result<(), Stop>,
    ) -> Result<Vec<u64>, Stop> {
        let mut visited = Vec::new();
        // Blocks from the root down, and the child of each that comes next.
        let mut path: Vec<(Block, usize)> = Vec::new();
        let mut spare = Vec::new();
        let Root { logical, generation, level } = root;
        let root_block = Expected { logical, generation, level, first: None, end: None };
        let mut next = Some(root_block).filter(|root| enter(root.logical));
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
                while next.is_none() && *child < block.entries() {
                    next = Some(block.child(*child)).filter(|child| enter(child.logical));
                    *child += 1;
                }
                if next.is_some() {
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

#[cfg(test)]
mod tests {
    use aiv_volume_io::MemDisk;

    use super::super::checksum::Algorithm;
    use super::super::features::Features;
    use super::super::key::Key;
    use super::super::superblock::Device;
    use super::*;
    use crate::WholeReason;
    use crate::bytes::le64;

    const NODE: u64 = 4096;
    const LEAVES: [u64; 2] = [0x10_2000, 0x10_3000];

    /// A tree block of version 5 of the filesystem, with what follows its header.
    fn block(logical: u64, level: u8, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[0x30..0x38].copy_from_slice(&logical.to_le_bytes());
        bytes[0x50] = 5;
        bytes[0x58..0x60].copy_from_slice(&Tree::DEVICE.owner.to_le_bytes());
        bytes[0x60] = u8::try_from(entries.len()).unwrap();
        bytes[0x64] = level;
        let entries = entries.concat();
        bytes[101..101 + entries.len()].copy_from_slice(&entries);
        let sum = crc32c::crc32c(&bytes[32..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn key(object: u64) -> Vec<u8> {
        let mut bytes = object.to_le_bytes().to_vec();
        bytes.extend([204, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    /// An item without data, at the end of its leaf.
    fn item(object: u64) -> Vec<u8> {
        let end = (NODE - 101).to_le_bytes();
        [&key(object), &end[..4], &[0; 4]].concat()
    }

    fn pointer(object: u64, logical: u64) -> Vec<u8> {
        [key(object), logical.to_le_bytes().to_vec(), 5u64.to_le_bytes().to_vec()].concat()
    }

    /// A device of 2 MiB, whose only chunk lies where its logical address says.
    fn superblock() -> Superblock {
        let root = Root { logical: 0x10_1000, generation: 5, level: 1 };
        let mut device = [0; Device::LEN];
        device[0] = 1;
        device[8..16].copy_from_slice(&(2u64 << 20).to_le_bytes());
        let mut chunk = vec![0; 97];
        chunk[..17].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 228, 0, 0, 0x10, 0, 0, 0, 0, 0]);
        for (at, value) in [(0, 1 << 20), (16, 64 << 10), (24, 2), (44, 1), (48, 1), (56, 1 << 20)]
        {
            chunk[17 + at..][..8].copy_from_slice(&u64::to_le_bytes(value));
        }
        Superblock {
            algorithm: Algorithm::Crc32c,
            features: Features {
                metadata_uuid: false,
                block_group_tree: false,
                free_space_tree: false,
            },
            fsid: [0; 16],
            generation: 5,
            root,
            chunk_root: root,
            log_root: None,
            sector_size: 4096,
            node_size: 4096,
            bytes_used: 0,
            has_error: false,
            device: Device::parse(&device),
            sys_chunks: chunk,
            copies_differ: false,
        }
    }

    fn walk(blocks_max: Option<u64>, second: u64) -> Result<(Vec<Key>, Vec<u64>), Stop> {
        let mut disk = vec![0; 2 << 20];
        for bytes in [
            block(0x10_1000, 1, &[pointer(1, LEAVES[0]), pointer(7, second)]),
            block(LEAVES[0], 0, &[item(1), item(2)]),
            block(LEAVES[1], 0, &[item(7)]),
        ] {
            let place = usize::try_from(le64(&bytes, 0x30)).unwrap();
            disk[place..place + 4096].copy_from_slice(&bytes);
        }
        let (volume, superblock) = (MemDisk::from_bytes(disk), superblock());
        let chunks = Chunks::of_superblock(&superblock).unwrap();
        let mut reader = TreeReader::new(&volume, &superblock, Job::silent());
        reader.blocks_max = blocks_max.unwrap_or(reader.blocks_max);
        let mut keys = Vec::new();
        let blocks = reader.walk(&chunks, Tree::DEVICE, superblock.root, &mut |item| {
            keys.push(item.key);
            Ok(())
        })?;
        Ok((keys, blocks))
    }

    fn reason(read: Result<(Vec<Key>, Vec<u64>), Stop>) -> String {
        match read {
            Err(Stop::Whole(WholeReason::Btrfs(reason))) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tree_of_two_levels_names_its_items_in_order_and_its_blocks() {
        let (keys, blocks) = walk(None, LEAVES[1]).unwrap();
        let objects: Vec<u64> = keys.iter().map(|key| key.object).collect();
        assert_eq!(objects, [1, 2, 7]);
        assert_eq!(blocks, [0x10_1000, LEAVES[0], LEAVES[1]]);
    }

    #[test]
    fn more_blocks_than_memory_is_set_aside_for() {
        assert_eq!(reason(walk(Some(2), LEAVES[1])), "there are more than 2 tree blocks");
        walk(Some(3), LEAVES[1]).unwrap();
    }

    #[test]
    fn a_tree_that_comes_back_to_itself() {
        let again = reason(walk(None, LEAVES[0]));
        assert!(again.ends_with("its first key is not what its parent says"), "{again}");
        let root = reason(walk(None, 0x10_1000));
        assert!(root.ends_with("its level is not what its parent says"), "{root}");
    }
}
