//! The journal as a file: an inode and its block map.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::super::blocks::Blocks;
use super::super::checksum::crc32c;
use super::super::groups::Group;
use super::super::reason::JournalReason;
use super::super::superblock::Superblock;
use crate::Error;
use crate::bytes::{array, le16, le32};
use crate::stop::Stop;

/// 16 GiB of journal with 4 KiB blocks; `mke2fs` makes at most 40 GiB on request and 1 GiB by
/// itself. Bounds the memory for what the journal holds to about 200 MiB.
const JOURNAL_BLOCKS_MAX: u64 = 1 << 22;
/// Deepest extent tree the kernel builds.
const EXTENT_DEPTH_MAX: u16 = 5;
/// Pieces a journal may be in. It is allocated in one go, so a handful is usual.
const PIECES_MAX: usize = 1 << 16;
/// Bytes read ahead: records are small and follow each other.
const READ_AHEAD: usize = 256 << 10;

const EXTENTS_FLAG: u32 = 0x8_0000;
/// Place and size of the block map in an inode.
const BLOCK_MAP_AT: usize = 0x28;
const BLOCK_MAP_LEN: usize = 60;

/// Consecutive blocks of the file that are consecutive on the volume.
#[derive(Debug, Clone, Copy)]
struct Piece {
    logical: u64,
    physical: u64,
    count: u64,
}

/// The blocks of the journal, by their number in the journal.
pub(super) struct JournalFile<'a> {
    volume: &'a dyn ReadAt,
    block_size: usize,
    /// Ascending and without a hole.
    pieces: Vec<Piece>,
    /// Blocks that hold the map of the file.
    map_blocks: Vec<u64>,
    len: u32,
    window_at: u32,
    window: Vec<u8>,
}

impl<'a> JournalFile<'a> {
    pub(super) fn open(
        blocks: &Blocks<'a>,
        filesystem: &Superblock,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let geometry = &filesystem.geometry;
        // Reserved inodes, of which the journal's is one, are in the first group.
        let first_group = Group::read_first(1, blocks, filesystem, job)?;
        let Some(group) = first_group.first() else { return Err(fault("no group").into()) };
        let index = u64::from(geometry.journal_inode - 1);
        let table_len = u64::from(geometry.inode_table_blocks) * u64::from(geometry.block_size);
        let at = index * u64::from(geometry.inode_size);
        if at + u64::from(geometry.inode_size) > table_len {
            return Err(fault("inode number outside the first group").into());
        }
        let offset = blocks.offset_of(group.inode_table) + at;
        let mut inode = vec![0; usize::from(geometry.inode_size)];
        let failed = Error::io("read journal inode", offset);
        blocks.volume().read_exact_at(&mut inode, offset).map_err(failed)?;

        let mut map = MapReader {
            blocks,
            filesystem_blocks: geometry.blocks,
            seed: inode_seed(filesystem, &inode),
            len: 0,
            pieces: Vec::new(),
            map_blocks: Vec::new(),
        };
        map.check_inode(&inode)?;
        let size = u64::from(le32(&inode, 0x6c)) << 32 | u64::from(le32(&inode, 0x4));
        map.len = size / u64::from(geometry.block_size);
        if !(1..=JOURNAL_BLOCKS_MAX).contains(&map.len) {
            return Err(fault("size of the file").into());
        }
        let root = &inode[BLOCK_MAP_AT..BLOCK_MAP_AT + BLOCK_MAP_LEN];
        if le32(&inode, 0x20) & EXTENTS_FLAG != 0 {
            map.extent_tree(root, job)?;
        } else {
            map.indirect(root, job)?;
        }
        let mapped = map.pieces.last().map_or(0, |last| last.logical + last.count);
        if mapped < map.len {
            return Err(fault("a hole in the file").into());
        }
        Ok(Self {
            volume: blocks.volume(),
            block_size: blocks.block_size(),
            len: u32::try_from(map.len).expect("the length was compared to its limit"),
            pieces: map.pieces,
            map_blocks: map.map_blocks,
            window_at: 0,
            window: Vec::new(),
        })
    }

    /// Blocks of the file.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Bytes of the volume that the file and its map take.
    pub(super) fn places(&self) -> Vec<Extent> {
        let block_size = self.block_size as u64;
        let file = self.pieces.iter().map(|piece| (piece.physical, piece.count));
        let all = file.chain(self.map_blocks.iter().map(|&block| (block, 1)));
        all.map(|(block, count)| Extent::new(block * block_size, count * block_size)).collect()
    }

    /// Byte offset in the volume of a block of the journal.
    pub(super) fn offset_of(&self, block: u32) -> Result<u64, JournalReason> {
        Ok(self.place(block)?.0)
    }

    /// Offset of a block, and how many follow it on the volume, itself included.
    fn place(&self, block: u32) -> Result<(u64, u64), JournalReason> {
        let block = u64::from(block);
        let after = self.pieces.partition_point(|piece| piece.logical <= block);
        let piece = after.checked_sub(1).and_then(|n| self.pieces.get(n));
        let into = piece.map_or(0, |piece| block - piece.logical);
        match piece {
            Some(piece) if into < piece.count => {
                Ok(((piece.physical + into) * self.block_size as u64, piece.count - into))
            }
            _ => Err(fault("a block outside the file")),
        }
    }

    /// Fills `out` with one block of the journal.
    pub(super) fn read(&mut self, block: u32, out: &mut [u8]) -> Result<(), Stop> {
        let cached = |file: &Self| {
            let n = block.checked_sub(file.window_at)? as usize;
            let start = n.checked_mul(file.block_size)?;
            Some(start..start.checked_add(file.block_size)?)
        };
        if cached(self).and_then(|range| self.window.get(range)).is_none() {
            let (offset, run) = self.place(block)?;
            let count =
                usize::try_from(run).unwrap_or(usize::MAX).min(READ_AHEAD / self.block_size);
            self.window.resize(count * self.block_size, 0);
            self.window_at = block;
            self.volume
                .read_exact_at(&mut self.window, offset)
                .map_err(Error::io("read journal", offset))?;
        }
        let window = cached(self).and_then(|range| self.window.get(range));
        out.copy_from_slice(window.expect("the window was just filled from this block on"));
        Ok(())
    }
}

fn fault(what: &'static str) -> JournalReason {
    JournalReason::Inode { what }
}

/// Where checksums of the inode and its extent blocks start from.
fn inode_seed(filesystem: &Superblock, inode: &[u8]) -> Option<u32> {
    let number = filesystem.geometry.journal_inode.to_le_bytes();
    let generation: [u8; 4] = array(inode, 0x64);
    let seed = filesystem.checksums.seed()?;
    Some(crc32c(crc32c(seed, &number), &generation))
}

/// Collects the pieces of a file in the order of the file.
struct MapReader<'a, 'b> {
    blocks: &'b Blocks<'a>,
    filesystem_blocks: u64,
    seed: Option<u32>,
    /// Blocks the file should have.
    len: u64,
    pieces: Vec<Piece>,
    /// Blocks that were read for it, at most one for each block of the file and a few.
    map_blocks: Vec<u64>,
}

impl MapReader<'_, '_> {
    fn check_inode(&self, inode: &[u8]) -> Result<(), JournalReason> {
        const LOW_AT: usize = 0x7c;
        const HIGH_AT: usize = 0x82;
        let Some(seed) = self.seed else { return Ok(()) };
        let has_high = inode.len() > 128 && le16(inode, 0x80) >= 4;
        let mut bare = inode.to_vec();
        bare[LOW_AT..LOW_AT + 2].fill(0);
        let mut stored = u32::from(le16(inode, LOW_AT));
        let mut mask = 0xffff;
        if has_high {
            bare[HIGH_AT..HIGH_AT + 2].fill(0);
            stored |= u32::from(le16(inode, HIGH_AT)) << 16;
            mask = u32::MAX;
        }
        if (crc32c(seed, &bare) ^ stored) & mask == 0 {
            Ok(())
        } else {
            Err(fault("checksum of the inode"))
        }
    }

    /// Adds the next piece, which must continue the file.
    fn push(&mut self, logical: u64, physical: u64, count: u64) -> Result<(), JournalReason> {
        let expected = self.pieces.last().map_or(0, |last| last.logical + last.count);
        let end = physical.checked_add(count);
        if logical != expected || physical == 0 || count == 0 {
            return Err(fault("a hole in the file"));
        }
        if end.is_none_or(|end| end > self.filesystem_blocks) {
            return Err(fault("a block outside the filesystem"));
        }
        if let Some(last) = self.pieces.last_mut()
            && last.physical + last.count == physical
        {
            last.count += count;
        } else if self.pieces.len() == PIECES_MAX {
            return Err(fault("too many pieces"));
        } else {
            self.pieces.push(Piece { logical, physical, count });
        }
        Ok(())
    }

    /// Walks an extent tree depth first. Each leaf adds to the file and each index block is one
    /// step, so a tree that runs in circles soon fails to continue the file.
    fn extent_tree(&mut self, root: &[u8], job: Job<'_>) -> Result<(), Stop> {
        let depth = le16(root, 6);
        if depth > EXTENT_DEPTH_MAX {
            return Err(fault("depth of the extent tree").into());
        }
        // Blocks still to visit, the next one last, with the depth each must have.
        let mut todo = Vec::new();
        self.extent_node(root, depth, &mut todo)?;
        let mut node = vec![0; self.blocks.block_size()];
        let mut visited = 0;
        while let Some((block, depth)) = todo.pop() {
            job.check()?;
            visited += 1;
            if visited > PIECES_MAX {
                return Err(fault("too many extent blocks").into());
            }
            self.read_map_block(block, &mut node)?;
            self.check_extent_block(&node)?;
            self.extent_node(&node, depth, &mut todo)?;
        }
        Ok(())
    }

    fn extent_node(
        &mut self,
        node: &[u8],
        depth: u16,
        todo: &mut Vec<(u64, u16)>,
    ) -> Result<(), JournalReason> {
        const ENTRY_LEN: usize = 12;
        /// Longer extents are allocated and not written, which a journal never is.
        const LEN_MAX: u16 = 32_768;
        let entries = usize::from(le16(node, 2));
        let Some(table) = node[ENTRY_LEN..].get(..entries * ENTRY_LEN) else {
            return Err(fault("an extent block"));
        };
        if le16(node, 0) != 0xf30a || le16(node, 6) != depth {
            return Err(fault("an extent block"));
        }
        for entry in table.chunks_exact(ENTRY_LEN) {
            if depth == 0 {
                let len = le16(entry, 4);
                if len > LEN_MAX {
                    return Err(fault("an unwritten extent"));
                }
                let physical = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
                self.push(u64::from(le32(entry, 0)), physical, u64::from(len))?;
            }
        }
        if depth > 0 {
            todo.extend(table.chunks_exact(ENTRY_LEN).rev().map(|entry| {
                let block = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
                (block, depth - 1)
            }));
        }
        Ok(())
    }

    fn check_extent_block(&self, node: &[u8]) -> Result<(), JournalReason> {
        let Some(seed) = self.seed else { return Ok(()) };
        // The checksum follows the last entry there is room for.
        let tail = 12 + 12 * usize::from(le16(node, 4));
        match node.get(tail..tail + 4) {
            Some(stored) if crc32c(seed, &node[..tail]) == le32(stored, 0) => Ok(()),
            _ => Err(fault("checksum of an extent block")),
        }
    }

    /// Walks the classic map: twelve blocks, then trees of one, two and three levels.
    fn indirect(&mut self, root: &[u8], job: Job<'_>) -> Result<(), Stop> {
        // Pointers still to follow, the next one last, with the levels below each.
        let level_of = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        let mut todo: Vec<(u64, u8)> = pointers(root).zip(level_of).collect();
        todo.reverse();
        let mut node = vec![0; self.blocks.block_size()];
        let mut mapped = 0;
        // Every pointer followed adds a block or leads to pointers that do, or fails.
        while mapped < self.len
            && let Some((block, levels)) = todo.pop()
        {
            if levels == 0 {
                self.push(mapped, block, 1)?;
                mapped += 1;
                continue;
            }
            job.check()?;
            self.read_map_block(block, &mut node)?;
            let first = todo.len();
            todo.extend(pointers(&node).map(|block| (block, levels - 1)));
            todo[first..].reverse();
        }
        Ok(())
    }

    fn read_map_block(&mut self, block: u64, out: &mut [u8]) -> Result<(), Stop> {
        if block == 0 || block >= self.filesystem_blocks {
            return Err(fault("a map block outside the filesystem").into());
        }
        self.map_blocks.push(block);
        Ok(self.blocks.read("read journal block map", block, out)?)
    }
}

fn pointers(node: &[u8]) -> impl Iterator<Item = u64> + '_ {
    node.as_chunks().0.iter().map(|&pointer| u64::from(u32::from_le_bytes(pointer)))
}
