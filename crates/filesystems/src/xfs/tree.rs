//! One B+tree of an allocation group, read completely and level by level.
//!
//! Every block is checked against what its parent says about it (place, level, first key) and
//! against its neighbours (sibling links), so a tree that passes is one tree, and each of its
//! blocks was read once. The depth is bounded by the levels the header may state, the width by
//! a limit on blocks; nothing recurses.
//!
//! Facts: `xfs_format.h`, `struct xfs_btree_block` with short pointers, `xfs_alloc_rec`.

use aiv_volume_io::{Job, ReadAt};

use super::checksum;
use super::reason::XfsReason;
use super::superblock::Superblock;
use crate::Error;
use crate::bytes::{array, be16, be32, be64};
use crate::stop::Stop;

/// `XFS_BTREE_MAXLEVELS`.
pub(super) const LEVELS_MAX: u32 = 9;
const NO_SIBLING: u32 = u32::MAX;
const CRC_AT: usize = 52;
const RECORD_LEN: usize = 8;
const POINTER_LEN: usize = 4;

/// What a tree may need of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: usize,
    /// Of one level.
    pub(super) blocks: usize,
}

impl Limits {
    /// 64 MiB of records: the largest group, 1 TiB, may have a free extent every 128 KiB. They
    /// fit many times into that many leaves, however empty.
    pub(super) const DEFAULT: Self = Self { records: 1 << 23, blocks: 1 << 20 };
}

/// A run of free blocks of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreeExtent {
    pub(super) start: u32,
    pub(super) blocks: u32,
}

/// In which order a tree keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `bnobt`: by first block.
    Block,
    /// `cntbt`: by length, then first block.
    Size,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Block => "by-block",
            Self::Size => "by-size",
        }
    }

    fn magic(self, self_describing: bool) -> [u8; 4] {
        match (self, self_describing) {
            (Self::Block, false) => *b"ABTB",
            (Self::Block, true) => *b"AB3B",
            (Self::Size, false) => *b"ABTC",
            (Self::Size, true) => *b"AB3C",
        }
    }

    /// What a record, or the key that stands for it, is sorted by.
    fn key(self, bytes: &[u8]) -> (u32, u32) {
        match self {
            // The length in a key means nothing.
            Self::Block => (be32(bytes, 0), 0),
            Self::Size => (be32(bytes, 4), be32(bytes, 0)),
        }
    }
}

/// Where a tree begins, by the header of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) block: u32,
    /// Levels of the tree: 1 if the root is a leaf. Within `1..=LEVELS_MAX`.
    pub(super) levels: u32,
}

/// What a whole tree holds.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// In the tree's order, all inside the group.
    pub(super) extents: Vec<FreeExtent>,
    /// The tree's own blocks.
    pub(super) blocks: Vec<u32>,
}

/// A child as its parent describes it.
struct Child {
    block: u32,
    /// `None` for the root, which has no parent.
    key: Option<(u32, u32)>,
}

pub(super) struct TreeReader<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) superblock: &'a Superblock,
    pub(super) group: u32,
    pub(super) order: Order,
    pub(super) limits: Limits,
    pub(super) job: Job<'a>,
}

impl TreeReader<'_> {
    pub(super) fn read(&self, root: Root) -> Result<Tree, Stop> {
        let mut tree = Tree::default();
        let mut level_blocks = vec![Child { block: root.block, key: None }];
        self.check_children(&level_blocks)?;
        let mut bytes = vec![0; self.superblock.geometry.block_size as usize];
        for level in (0..root.levels).rev() {
            let mut below = Vec::new();
            for n in 0..level_blocks.len() {
                if n.is_multiple_of(64) {
                    self.job.check()?;
                }
                let block = level_blocks[n].block;
                self.read_block(&level_blocks, n, level, &mut bytes)?;
                tree.blocks.push(block);
                if level == 0 {
                    self.take_records(block, &bytes, level_blocks.len() == 1, &mut tree)?;
                } else {
                    self.take_children(block, &bytes, &mut below)?;
                }
            }
            if level > 0 {
                self.check_children(&below)?;
                level_blocks = below;
            }
        }
        Ok(tree)
    }

    fn fault(&self, block: u32, what: &'static str) -> Stop {
        XfsReason::Tree { tree: self.order.name(), group: self.group, block, what }.into()
    }

    fn header_len(&self) -> usize {
        if self.superblock.features.self_describing { 56 } else { 16 }
    }

    fn room(&self) -> usize {
        self.superblock.geometry.block_size as usize - self.header_len()
    }

    /// Children lie inside the group, and none has two parents.
    fn check_children(&self, children: &[Child]) -> Result<(), Stop> {
        let group_blocks = self.superblock.geometry.blocks_of(self.group);
        let mut blocks: Vec<u32> = children.iter().map(|child| child.block).collect();
        blocks.sort_unstable();
        if let Some(&outside) = blocks.iter().find(|&&block| block >= group_blocks) {
            return Err(self.fault(outside, "it lies outside the group"));
        }
        match blocks.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.fault(pair[0], "it is pointed to twice")),
            None => Ok(()),
        }
    }

    fn read_block(
        &self,
        blocks: &[Child],
        n: usize,
        level: u32,
        bytes: &mut [u8],
    ) -> Result<(), Stop> {
        let block = blocks[n].block;
        let geometry = &self.superblock.geometry;
        let offset = geometry.offset_of(self.group, block);
        let failed = Error::io("read free-space tree", offset);
        self.volume.read_exact_at(bytes, offset).map_err(failed)?;
        let self_describing = self.superblock.features.self_describing;
        if array(bytes, 0) != self.order.magic(self_describing) {
            return Err(self.fault(block, "its magic is wrong"));
        }
        if self_describing {
            if !checksum::is_right(bytes, CRC_AT) {
                return Err(XfsReason::Checksum { section: "free-space tree", offset }.into());
            }
            // Addresses in headers count 512 bytes, whatever the sector size.
            if be64(bytes, 16) != offset / 512 {
                return Err(self.fault(block, "it was written for another place"));
            }
            if array(bytes, 32) != self.superblock.meta_uuid {
                return Err(self.fault(block, "it belongs to another filesystem"));
            }
            if be32(bytes, 48) != self.group {
                return Err(self.fault(block, "it belongs to another group"));
            }
        }
        if u32::from(be16(bytes, 4)) != level {
            return Err(self.fault(block, "its level is wrong"));
        }
        let neighbour = |n: Option<usize>| {
            n.and_then(|n| blocks.get(n)).map_or(NO_SIBLING, |child| child.block)
        };
        let siblings = (neighbour(n.checked_sub(1)), neighbour(n.checked_add(1)));
        if (be32(bytes, 8), be32(bytes, 12)) != siblings {
            return Err(self.fault(block, "its sibling links are wrong"));
        }
        // Records and keys begin at the same place and with the same fields.
        let first = self.order.key(&bytes[self.header_len()..]);
        if blocks[n].key.is_some_and(|key| key != first) {
            return Err(self.fault(block, "its first key is not what its parent says"));
        }
        Ok(())
    }

    /// The records of a leaf. Only the leaf of a tree without free space is empty.
    fn take_records(
        &self,
        block: u32,
        bytes: &[u8],
        alone: bool,
        tree: &mut Tree,
    ) -> Result<(), Stop> {
        let count = usize::from(be16(bytes, 6));
        if count > self.room() / RECORD_LEN || count == 0 && !alone {
            return Err(self.fault(block, "its number of records is out of range"));
        }
        if tree.extents.len() + count > self.limits.records {
            return Err(
                XfsReason::TooMany { group: self.group, allowed: self.limits.records }.into()
            );
        }
        let group_blocks = self.superblock.geometry.blocks_of(self.group);
        let records = &bytes[self.header_len()..][..count * RECORD_LEN];
        for record in records.as_chunks::<RECORD_LEN>().0 {
            let extent = FreeExtent { start: be32(record, 0), blocks: be32(record, 4) };
            let end = extent.start.checked_add(extent.blocks);
            if extent.blocks == 0 || end.is_none_or(|end| end > group_blocks) {
                return Err(self.fault(block, "a free extent lies outside the group"));
            }
            if let Some(last) = tree.extents.last() {
                let in_order = match self.order {
                    // Free extents that touch would be one.
                    Order::Block => last.start + last.blocks < extent.start,
                    Order::Size => (last.blocks, last.start) < (extent.blocks, extent.start),
                };
                if !in_order {
                    return Err(self.fault(block, "its records are out of order or touch"));
                }
            }
            tree.extents.push(extent);
        }
        Ok(())
    }

    /// The children of a node: first all keys that would fit, then as many pointers.
    fn take_children(&self, block: u32, bytes: &[u8], below: &mut Vec<Child>) -> Result<(), Stop> {
        let count = usize::from(be16(bytes, 6));
        let count_max = self.room() / (RECORD_LEN + POINTER_LEN);
        if count > count_max || count == 0 {
            return Err(self.fault(block, "its number of children is out of range"));
        }
        if below.len() + count > self.limits.blocks {
            return Err(
                XfsReason::TooMany { group: self.group, allowed: self.limits.blocks }.into()
            );
        }
        let keys = &bytes[self.header_len()..];
        let pointers = &keys[count_max * RECORD_LEN..];
        for n in 0..count {
            let key = self.order.key(&keys[n * RECORD_LEN..]);
            if below.last().and_then(|child| child.key).is_some_and(|last| last >= key) {
                return Err(self.fault(block, "its keys are out of order"));
            }
            below.push(Child { block: be32(pointers, n * POINTER_LEN), key: Some(key) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aiv_volume_io::MemDisk;

    use super::super::features::Features;
    use super::super::superblock::{Geometry, LogPlace};
    use super::*;
    use crate::WholeReason;

    /// A group of version 4 with blocks of 512 bytes: a node in block 4, leaves in 5 and 6 with
    /// three free extents.
    fn read(order: Order, limits: Limits) -> Result<Tree, Stop> {
        let mut disk = vec![0; 64 * 512];
        let mut write = |block: usize, level: u16, siblings: [u32; 2], content: &[(usize, u32)]| {
            let bytes = &mut disk[block * 512..][..512];
            bytes[..4].copy_from_slice(&order.magic(false));
            bytes[4..6].copy_from_slice(&level.to_be_bytes());
            bytes[8..12].copy_from_slice(&siblings[0].to_be_bytes());
            bytes[12..16].copy_from_slice(&siblings[1].to_be_bytes());
            for &(at, value) in content {
                bytes[16 + at..][..4].copy_from_slice(&value.to_be_bytes());
            }
            let records = content.iter().filter(|(at, _)| at % 8 == 0 && *at < 300).count();
            bytes[7] = u8::try_from(records).unwrap();
        };
        let pointers = 496 / 12 * 8;
        let keys = [(0, 10), (4, 2), (8, 30), (12, 4), (pointers, 5), (pointers + 4, 6)];
        write(4, 1, [NO_SIBLING; 2], &keys);
        write(5, 0, [NO_SIBLING, 6], &[(0, 10), (4, 2), (8, 20), (12, 3)]);
        write(6, 0, [5, NO_SIBLING], &[(0, 30), (4, 4)]);
        let superblock = Superblock {
            geometry: Geometry {
                block_size: 512,
                sector_size: 512,
                blocks: 64,
                group_blocks: 64,
                groups: 1,
                log: LogPlace { group: 0, block: 0, blocks: 0 },
                root_inode: (0, 0),
            },
            features: Features {
                self_describing: false,
                lazy_counts: true,
                finobt: false,
                rmapbt: false,
                reflink: false,
                meta_uuid: false,
            },
            uuid: [0; 16],
            meta_uuid: [0; 16],
            free_blocks: 9,
        };
        let (volume, job) = (MemDisk::from_bytes(disk), Job::silent());
        let superblock = &superblock;
        TreeReader { volume: &volume, superblock, group: 0, order, limits, job }
            .read(Root { block: 4, levels: 2 })
    }

    #[test]
    fn a_tree_of_two_levels_names_its_extents_and_its_blocks() {
        for order in [Order::Block, Order::Size] {
            let tree = read(order, Limits::DEFAULT).unwrap();
            let extents: Vec<_> = tree.extents.iter().map(|e| (e.start, e.blocks)).collect();
            assert_eq!(extents, [(10, 2), (20, 3), (30, 4)]);
            assert_eq!(tree.blocks, [4, 5, 6]);
        }
    }

    #[test]
    fn more_records_or_blocks_than_memory_is_set_aside_for() {
        for (records, blocks, allowed) in [(2, 2, 2), (3, 1, 1)] {
            match read(Order::Block, Limits { records, blocks }) {
                Err(Stop::Whole(reason)) => {
                    let expected = XfsReason::TooMany { group: 0, allowed };
                    assert_eq!(reason, WholeReason::Xfs(expected));
                }
                other => panic!("{other:?}"),
            }
        }
        read(Order::Block, Limits { records: 3, blocks: 2 }).unwrap();
    }
}
