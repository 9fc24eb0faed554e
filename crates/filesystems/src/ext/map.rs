//! Block maps: where the data of an inode lies, and the map itself.

use std::ops::Range;

use super::blocks::Blocks;
use super::checksum::crc32c;
use super::inode::Inode;
use super::superblock::Geometry;
use crate::Error;
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
    /// The same, allocated and never written: reads as zeros.
    Unwritten { logical: u64, physical: u64, count: u64 },
    /// A block of the map itself.
    Map { physical: u64 },
}

/// A map that was not read: its fault, or a failure.
pub(super) enum Fault {
    Map(&'static str),
    /// Maps name more blocks than there are.
    TooMany,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Reads block maps. In a sound filesystem no block has two owners, so that all maps together
/// name no more blocks than there are: this bounds the work on a damaged one.
pub(super) struct Maps<'a> {
    blocks: &'a Blocks<'a>,
    geometry: &'a Geometry,
    left: u64,
    block: Vec<u8>,
}

/// A node of an extent tree still to visit.
struct Node {
    block: u64,
    depth: u16,
    /// Blocks of the file that it is about.
    logical: Range<u64>,
}

/// Who is told what a map says, and may end the reading of it.
type Visit<'v> = &'v mut dyn FnMut(Piece) -> Result<(), Fault>;

impl<'a> Maps<'a> {
    pub(super) fn new(blocks: &'a Blocks<'a>, geometry: &'a Geometry) -> Self {
        Self { blocks, geometry, left: geometry.blocks, block: vec![0; blocks.block_size()] }
    }

    /// Tells `visit` the pieces of an inode, in the order of the file. What lies behind its first
    /// `end` blocks may be left out.
    pub(super) fn pieces(
        &mut self,
        inode: &Inode,
        end: u64,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        match (inode.has_map(), inode.has_extents()) {
            (false, _) => Ok(()),
            (true, true) => self.extents(inode, end, visit),
            (true, false) => self.indirect(inode, end, visit),
        }
    }

    fn extents(&mut self, inode: &Inode, end: u64, visit: Visit<'_>) -> Result<(), Fault> {
        let depth = le16(&inode.map, 6);
        if depth > DEPTH_MAX {
            return Err(Fault::Map("depth of the extent tree"));
        }
        // Blocks of the file before this one were told already.
        let mut next = 0;
        // The next one last.
        let mut todo = Vec::new();
        let root = Node { block: 0, depth, logical: 0..u64::MAX };
        self.extent_node(&inode.map, root, &mut next, &mut todo, visit)?;
        while let Some(node) = todo.pop().filter(|node| node.logical.start < end) {
            let bytes = self.read(node.block, visit)?;
            check_extent_block(&bytes, inode.seed)?;
            self.extent_node(&bytes, node, &mut next, &mut todo, visit)?;
            self.block = bytes;
        }
        Ok(())
    }

    fn extent_node(
        &mut self,
        bytes: &[u8],
        node: Node,
        next: &mut u64,
        todo: &mut Vec<Node>,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        let Node { depth, logical: range, .. } = node;
        let node = bytes;
        let (entries, room) = (usize::from(le16(node, 2)), usize::from(le16(node, 4)));
        let table = node[ENTRY_LEN..].get(..entries * ENTRY_LEN);
        let Some(table) = table.filter(|_| entries <= room) else {
            return Err(Fault::Map("an extent block"));
        };
        if le16(node, 0) != 0xf30a || le16(node, 6) != depth {
            return Err(Fault::Map("an extent block"));
        }
        if depth > 0 {
            // Each is about what lies between its own first block and that of the next: no node
            // can be come to twice.
            let mut end = range.end;
            for entry in table.chunks_exact(ENTRY_LEN).rev() {
                let start = u64::from(le32(entry, 0));
                if start < range.start || start >= end {
                    return Err(Fault::Map("extents out of order"));
                }
                let block = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
                todo.push(Node { block, depth: depth - 1, logical: start..end });
                end = start;
            }
            return Ok(());
        }
        for entry in table.chunks_exact(ENTRY_LEN) {
            let len = le16(entry, 4);
            let count = u64::from(if len > WRITTEN_LEN_MAX { len - WRITTEN_LEN_MAX } else { len });
            let logical = u64::from(le32(entry, 0));
            if logical < *next || count == 0 || !range.contains(&logical) {
                return Err(Fault::Map("extents out of order"));
            }
            *next = logical + count;
            let physical = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
            self.take(physical, count)?;
            visit(match len > WRITTEN_LEN_MAX {
                true => Piece::Unwritten { logical, physical, count },
                false => Piece::Data { logical, physical, count },
            })?;
        }
        Ok(())
    }

    /// The classic map: twelve blocks, then trees of one, two and three levels.
    fn indirect(&mut self, inode: &Inode, end: u64, visit: Visit<'_>) -> Result<(), Fault> {
        let per_block = self.block.len() as u64 / 4;
        let level_of = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        let mut logical = 0;
        // Pointers still to follow, the next one last, with the levels below each.
        let mut todo: Vec<(u64, u32)> = pointers(&inode.map).zip(level_of).collect();
        todo.reverse();
        let mut run: Option<(u64, u64, u64)> = None;
        while let Some((block, levels)) = todo.pop().filter(|_| logical < end) {
            // At most three levels of at most 16,384 pointers.
            let covered = per_block.pow(levels);
            if block == 0 {
                logical += covered;
            } else if levels == 0 {
                self.take(block, 1)?;
                run = match run {
                    Some((l, p, n)) if l + n == logical && p + n == block => Some((l, p, n + 1)),
                    before => {
                        tell(before, visit)?;
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
        tell(run, visit)
    }

    /// A block of a map, to be given back.
    fn read(&mut self, block: u64, visit: Visit<'_>) -> Result<Vec<u8>, Fault> {
        self.take(block, 1)?;
        visit(Piece::Map { physical: block })?;
        let mut node = std::mem::take(&mut self.block);
        node.resize(self.blocks.block_size(), 0);
        self.blocks.read("read block map", block, &mut node)?;
        Ok(node)
    }

    /// Accounts for blocks that a map names.
    fn take(&mut self, first: u64, count: u64) -> Result<(), Fault> {
        let geometry = self.geometry;
        let inside = u64::from(geometry.first_data_block).max(1)..geometry.blocks;
        if !inside.contains(&first) || count > inside.end - first {
            return Err(Fault::Map("a block outside the filesystem"));
        }
        self.left = self.left.checked_sub(count).ok_or(Fault::TooMany)?;
        Ok(())
    }
}

fn tell(run: Option<(u64, u64, u64)>, visit: Visit<'_>) -> Result<(), Fault> {
    match run {
        Some((logical, physical, count)) => visit(Piece::Data { logical, physical, count }),
        None => Ok(()),
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
