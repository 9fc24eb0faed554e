//! One B+tree of an allocation group, read completely and level by level.
//!
//! Every block is checked against what its parent says about it (place, level, first key) and
//! against its neighbours (sibling links), so a tree that passes is one tree, and each of its
//! blocks was read once. The depth is bounded by the levels the header may state, the width by
//! a limit on blocks; nothing recurses.
//!
//! Facts: `xfs_format.h`, `struct xfs_btree_block` with short pointers, `xfs_alloc_rec`,
//! `xfs_inobt_rec`, `xfs_refcount_rec`, `xfs_rmap_rec`.

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
    /// `inobt`: chunks of 64 inodes, by the first one.
    Inodes,
    /// `finobt`: those of them with free inodes.
    FreeInodes,
    /// `rmapbt`: who owns what, by first block.
    Owners,
    /// `refcountbt`: what several files have, by first block.
    References,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Block => "by-block",
            Self::Size => "by-size",
            Self::Inodes => "inode",
            Self::FreeInodes => "free-inode",
            Self::Owners => "reverse-mapping",
            Self::References => "reference-count",
        }
    }

    fn magic(self, self_describing: bool) -> [u8; 4] {
        match (self, self_describing) {
            (Self::Block, false) => *b"ABTB",
            (Self::Block, true) => *b"AB3B",
            (Self::Size, false) => *b"ABTC",
            (Self::Size, true) => *b"AB3C",
            (Self::Inodes, false) => *b"IABT",
            (Self::Inodes, true) => *b"IAB3",
            (Self::FreeInodes, false) => *b"FIBT",
            (Self::FreeInodes, true) => *b"FIB3",
            (Self::Owners, _) => *b"RMB3",
            (Self::References, _) => *b"R3FC",
        }
    }

    /// Bytes of a record.
    pub(super) fn record_len(self) -> usize {
        match self {
            Self::Block | Self::Size => 8,
            Self::Inodes | Self::FreeInodes => 16,
            Self::Owners => 24,
            Self::References => 12,
        }
    }

    /// Bytes that stand for a child in its parent.
    fn key_len(self) -> usize {
        match self {
            Self::Block | Self::Size => 8,
            Self::Inodes | Self::FreeInodes | Self::References => 4,
            // The lowest and the highest.
            Self::Owners => 40,
        }
    }

    /// What a record, or the key that stands for it, is sorted by.
    fn key(self, bytes: &[u8]) -> (u32, u32) {
        match self {
            Self::Size => (be32(bytes, 4), be32(bytes, 0)),
            // The length in a key means nothing; of owners, one block may have several.
            _ => (be32(bytes, 0), 0),
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

/// A leaf of a tree.
pub(super) struct Leaf<'a> {
    block: u32,
    /// Whole ones.
    pub(super) records: &'a [u8],
    /// It is the whole tree.
    is_alone: bool,
}

impl TreeReader<'_> {
    /// Reads a tree of free space.
    pub(super) fn read(&self, root: Root) -> Result<Tree, Stop> {
        let mut extents = Vec::new();
        let blocks = self.walk(root, &mut |leaf| self.take_records(&leaf, &mut extents))?;
        Ok(Tree { extents, blocks })
    }

    /// Hands the leaves of a tree to `take`, in order, and returns the tree's blocks.
    pub(super) fn walk(
        &self,
        root: Root,
        take: &mut dyn FnMut(Leaf<'_>) -> Result<(), Stop>,
    ) -> Result<Vec<u32>, Stop> {
        let mut all = Vec::new();
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
                all.push(block);
                if level == 0 {
                    let count = usize::from(be16(&bytes, 6));
                    let record_len = self.order.record_len();
                    if count > self.room() / record_len {
                        return Err(self.fault(block, "its number of records is out of range"));
                    }
                    let records = &bytes[self.header_len()..][..count * record_len];
                    take(Leaf { block, records, is_alone: level_blocks.len() == 1 })?;
                } else {
                    self.take_children(block, &bytes, &mut below)?;
                }
            }
            if level > 0 {
                self.check_children(&below)?;
                level_blocks = below;
            }
        }
        Ok(all)
    }

    pub(super) fn fault(&self, block: u32, what: &'static str) -> Stop {
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
    fn take_records(&self, leaf: &Leaf<'_>, extents: &mut Vec<FreeExtent>) -> Result<(), Stop> {
        let block = leaf.block;
        let records = leaf.records.as_chunks::<8>().0;
        if records.is_empty() && !leaf.is_alone {
            return Err(self.fault(block, "its number of records is out of range"));
        }
        if extents.len() + records.len() > self.limits.records {
            return Err(
                XfsReason::TooMany { group: self.group, allowed: self.limits.records }.into()
            );
        }
        let group_blocks = self.superblock.geometry.blocks_of(self.group);
        for record in records {
            let extent = FreeExtent { start: be32(record, 0), blocks: be32(record, 4) };
            let end = extent.start.checked_add(extent.blocks);
            if extent.blocks == 0 || end.is_none_or(|end| end > group_blocks) {
                return Err(self.fault(block, "a free extent lies outside the group"));
            }
            if let Some(last) = extents.last() {
                let in_order = match self.order {
                    // Free extents that touch would be one.
                    Order::Block => last.start + last.blocks < extent.start,
                    _ => (last.blocks, last.start) < (extent.blocks, extent.start),
                };
                if !in_order {
                    return Err(self.fault(block, "its records are out of order or touch"));
                }
            }
            extents.push(extent);
        }
        Ok(())
    }

    /// The children of a node: first all keys that would fit, then as many pointers.
    fn take_children(&self, block: u32, bytes: &[u8], below: &mut Vec<Child>) -> Result<(), Stop> {
        let count = usize::from(be16(bytes, 6));
        let key_len = self.order.key_len();
        let count_max = self.room() / (key_len + POINTER_LEN);
        if count > count_max || count == 0 {
            return Err(self.fault(block, "its number of children is out of range"));
        }
        if below.len() + count > self.limits.blocks {
            return Err(
                XfsReason::TooMany { group: self.group, allowed: self.limits.blocks }.into()
            );
        }
        let keys = &bytes[self.header_len()..];
        let pointers = &keys[count_max * key_len..];
        for n in 0..count {
            let key = self.order.key(&keys[n * key_len..]);
            let is_ordered = |last| last < key || last == key && self.order == Order::Owners;
            if below.last().and_then(|child| child.key).is_some_and(|last| !is_ordered(last)) {
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
