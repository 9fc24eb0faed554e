//! Block maps: where the data of an inode lies, and the map itself.

use super::super::checksum::crc32c;
use super::inode::Inode;
use super::{Filesystem, NoFiles};
use crate::bytes::{le16, le32};

/// Deepest extent tree the kernel builds.
const DEPTH_MAX: u16 = 5;
const ENTRY_LEN: usize = 12;
/// Longer extents are allocated and not yet written.
const WRITTEN_LEN_MAX: u16 = 32_768;

/// Consecutive blocks a map leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Data of the file, from block `logical` of it on.
    Data { logical: u64, physical: u64, count: u64 },
    /// A block of the map itself.
    Map { physical: u64 },
}

/// A map that was not read: its fault, or a failure.
pub(super) enum Fault {
    Map(&'static str),
    Failed(NoFiles),
}

impl<E: Into<NoFiles>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Reads block maps. In a sound filesystem no block has two owners, so that all maps together
/// name no more blocks than there are: this bounds the work on a damaged one.
pub(super) struct Maps<'a> {
    filesystem: &'a Filesystem<'a>,
    left: u64,
    block: Vec<u8>,
}

impl<'a> Maps<'a> {
    pub(super) fn new(filesystem: &'a Filesystem<'a>) -> Self {
        let left = filesystem.superblock.geometry.blocks;
        Self { filesystem, left, block: vec![0; filesystem.blocks.block_size()] }
    }

    /// Tells `visit` all pieces of an inode, in the order of the file.
    pub(super) fn pieces(
        &mut self,
        inode: &Inode,
        visit: &mut dyn FnMut(Piece),
    ) -> Result<(), Fault> {
        match (inode.has_map(), inode.has_extents()) {
            (false, _) => Ok(()),
            (true, true) => self.extents(inode, visit),
            (true, false) => self.indirect(inode, visit),
        }
    }

    fn extents(&mut self, inode: &Inode, visit: &mut dyn FnMut(Piece)) -> Result<(), Fault> {
        let depth = le16(&inode.map, 6);
        if depth > DEPTH_MAX {
            return Err(Fault::Map("depth of the extent tree"));
        }
        // Blocks of the file before this one were told already.
        let mut next = 0;
        // Blocks still to visit, the next one last, with the depth each must have.
        let mut todo = Vec::new();
        self.extent_node(&inode.map, depth, &mut next, &mut todo, visit)?;
        while let Some((block, depth)) = todo.pop() {
            let node = self.read(block, visit)?;
            check_extent_block(&node, inode.seed)?;
            self.extent_node(&node, depth, &mut next, &mut todo, visit)?;
            self.block = node;
        }
        Ok(())
    }

    fn extent_node(
        &mut self,
        node: &[u8],
        depth: u16,
        next: &mut u64,
        todo: &mut Vec<(u64, u16)>,
        visit: &mut dyn FnMut(Piece),
    ) -> Result<(), Fault> {
        let (entries, room) = (usize::from(le16(node, 2)), usize::from(le16(node, 4)));
        let table = node[ENTRY_LEN..].get(..entries * ENTRY_LEN);
        let Some(table) = table.filter(|_| entries <= room) else {
            return Err(Fault::Map("an extent block"));
        };
        if le16(node, 0) != 0xf30a || le16(node, 6) != depth {
            return Err(Fault::Map("an extent block"));
        }
        if depth > 0 {
            todo.extend(table.chunks_exact(ENTRY_LEN).rev().map(|entry| {
                (u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4)), depth - 1)
            }));
            return Ok(());
        }
        for entry in table.chunks_exact(ENTRY_LEN) {
            let len = le16(entry, 4);
            let count = u64::from(if len > WRITTEN_LEN_MAX { len - WRITTEN_LEN_MAX } else { len });
            let logical = u64::from(le32(entry, 0));
            if logical < *next || count == 0 {
                return Err(Fault::Map("extents out of order"));
            }
            *next = logical + count;
            let physical = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
            self.take(physical, count)?;
            visit(Piece::Data { logical, physical, count });
        }
        Ok(())
    }

    /// The classic map: twelve blocks, then trees of one, two and three levels.
    fn indirect(&mut self, inode: &Inode, visit: &mut dyn FnMut(Piece)) -> Result<(), Fault> {
        let per_block = self.block.len() as u64 / 4;
        let level_of = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        let mut logical = 0;
        // Pointers still to follow, the next one last, with the levels below each.
        let mut todo: Vec<(u64, u32)> = pointers(&inode.map).zip(level_of).collect();
        todo.reverse();
        let mut run: Option<(u64, u64, u64)> = None;
        while let Some((block, levels)) = todo.pop() {
            // At most three levels of at most 16,384 pointers.
            let covered = per_block.pow(levels);
            if block == 0 {
                logical += covered;
            } else if levels == 0 {
                self.take(block, 1)?;
                run = match run {
                    Some((l, p, n)) if l + n == logical && p + n == block => Some((l, p, n + 1)),
                    before => {
                        tell(before, visit);
                        Some((logical, block, 1))
                    }
                };
                logical += 1;
            } else {
                let node = self.read(block, visit)?;
                let first = todo.len();
                todo.extend(pointers(&node).map(|block| (block, levels - 1)));
                todo[first..].reverse();
                self.block = node;
            }
        }
        tell(run, visit);
        Ok(())
    }

    /// A block of a map, to be given back.
    fn read(&mut self, block: u64, visit: &mut dyn FnMut(Piece)) -> Result<Vec<u8>, Fault> {
        self.take(block, 1)?;
        visit(Piece::Map { physical: block });
        let mut node = std::mem::take(&mut self.block);
        node.resize(self.filesystem.blocks.block_size(), 0);
        self.filesystem.blocks.read("read block map", block, &mut node)?;
        Ok(node)
    }

    /// Accounts for blocks that a map names.
    fn take(&mut self, first: u64, count: u64) -> Result<(), Fault> {
        let geometry = &self.filesystem.superblock.geometry;
        let inside = u64::from(geometry.first_data_block).max(1)..geometry.blocks;
        if !inside.contains(&first) || count > inside.end - first {
            return Err(Fault::Map("a block outside the filesystem"));
        }
        let left = self.left.checked_sub(count);
        self.left = left.ok_or_else(|| {
            Fault::Failed(NoFiles::Damaged("files claim more blocks than there are".to_owned()))
        })?;
        Ok(())
    }
}

fn tell(run: Option<(u64, u64, u64)>, visit: &mut dyn FnMut(Piece)) {
    if let Some((logical, physical, count)) = run {
        visit(Piece::Data { logical, physical, count });
    }
}

fn pointers(node: &[u8]) -> impl Iterator<Item = u64> + '_ {
    node.as_chunks().0.iter().map(|&pointer| u64::from(u32::from_le_bytes(pointer)))
}

fn check_extent_block(node: &[u8], seed: Option<u32>) -> Result<(), Fault> {
    let Some(seed) = seed else { return Ok(()) };
    // The checksum follows the last entry there is room for.
    let tail = ENTRY_LEN + ENTRY_LEN * usize::from(le16(node, 4));
    match node.get(tail..tail + 4) {
        Some(stored) if crc32c(seed, &node[..tail]) == le32(stored, 0) => Ok(()),
        _ => Err(Fault::Map("checksum of an extent block")),
    }
}
