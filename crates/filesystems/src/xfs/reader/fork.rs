//! A fork of a file: what its record has of it, and the extents it is made of.
//!
//! Extents lie in the inode, or in a B+tree whose root does. The tree is walked in order, with
//! its levels going down by one and its extents going up, so that no block counts twice and a walk
//! ends. Facts: `xfs_format.h`, `struct xfs_bmbt_rec`, `xfs_bmdr_block`, `xfs_btree_block`.

use super::layout::{At, Layout, Proof};
use crate::bytes::{be16, be32, be64};
use crate::reader::EXTENTS_MAX;
use crate::{Error, Result};

const RECORD_LEN: usize = 16;
/// Keys and pointers.
const WORD: usize = 8;
/// Level and count of a root in an inode.
const ROOT_HEADER: usize = 4;
/// `XFS_BM_MAXLEVELS` is 8 with 2^48 extents.
const LEVELS_MAX: u16 = 12;

/// Where an inode says that a fork is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The number of a device.
    Device(&'a [u8]),
    /// All of it, here.
    Local(&'a [u8]),
    Extents {
        bytes: &'a [u8],
        extents: u64,
    },
    /// The root of a tree of extents.
    Tree {
        bytes: &'a [u8],
        extents: u64,
    },
}

/// Blocks of a fork that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the fork.
    pub(super) logical: u64,
    /// Byte offset on the volume.
    pub(super) physical: u64,
    pub(super) blocks: u32,
    /// Allocated and never written.
    pub(super) is_unwritten: bool,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.logical + u64::from(self.blocks)
    }
}

/// The extents of a fork, in its order.
#[derive(Debug)]
pub(super) struct Fork {
    /// Inode it belongs to.
    pub(super) owner: u64,
    /// Ascending and disjoint, inside groups.
    pub(super) runs: Vec<Run>,
    /// Byte offsets of the blocks of their tree, where they have one.
    pub(super) tree_blocks: Vec<u64>,
}

impl Fork {
    /// Reads the extents of a fork that has any.
    pub(super) fn read(layout: &Layout<'_>, place: Place<'_>, owner: u64) -> Result<Self> {
        let mut fork = Self { owner, runs: Vec::new(), tree_blocks: Vec::new() };
        let (Place::Extents { extents, .. } | Place::Tree { extents, .. }) = place else {
            return Err(fork.damaged("has no extents", None));
        };
        let extents = usize::try_from(extents).ok().filter(|&extents| extents <= EXTENTS_MAX);
        let Some(extents) = extents else {
            return Err(fork.damaged("is in more pieces than can be read", None));
        };
        match place {
            Place::Tree { bytes, .. } => fork.read_tree(layout, bytes, extents)?,
            Place::Extents { bytes, .. } => {
                let records = bytes.get(..extents * RECORD_LEN);
                let records =
                    records.ok_or_else(|| fork.damaged("has more extents than room", None))?;
                fork.take(layout, records, extents, None)?;
            }
            _ => {}
        }
        if fork.runs.len() != extents {
            return Err(fork.damaged("has another number of extents than its inode says", None));
        }
        Ok(fork)
    }

    /// Reads the extents of a folder or of attributes, whose blocks are written and have one place
    /// each.
    pub(super) fn read_records(layout: &Layout<'_>, place: Place<'_>, owner: u64) -> Result<Self> {
        let fork = Self::read(layout, place, owner)?;
        let mut places: Vec<(u64, u64)> = fork
            .runs
            .iter()
            .map(|run| (run.physical, u64::from(run.blocks) * layout.block_size()))
            .collect();
        places.sort_unstable();
        if let Some(pair) = places.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            return Err(fork.damaged("uses a block twice", Some(pair[1].0)));
        }
        Ok(fork)
    }

    fn damaged(&self, what: &str, offset: Option<u64>) -> Error {
        Error::damaged(format!("a fork of inode {} {what}", self.owner), offset)
    }

    fn read_tree(&mut self, layout: &Layout<'_>, root: &[u8], extents: usize) -> Result<()> {
        let level = root.get(..ROOT_HEADER).map_or(0, |root| be16(root, 0));
        if !(1..=LEVELS_MAX).contains(&level) {
            return Err(self.damaged("has a tree of an unknown depth", None));
        }
        let mut todo = self.children(root, ROOT_HEADER, level, None)?;
        let mut block = vec![0; layout.shape.geometry.block_size as usize];
        while let Some((level, address)) = todo.pop() {
            let Some(offset) = layout.block_offset(address, 1) else {
                return Err(self.damaged("has a tree that leads outside the filesystem", None));
            };
            let at = layout.read(&mut block, offset, "read extent tree")?;
            let header = self.check_block(layout, &block, at, level)?;
            self.tree_blocks.push(offset);
            if level > 0 {
                todo.extend(self.children(&block, header, level, Some(offset))?);
            } else {
                let count = usize::from(be16(&block, 6));
                let records = block.get(header..header + count * RECORD_LEN);
                let records = records.filter(|records| !records.is_empty()).ok_or_else(|| {
                    self.damaged("has a leaf of an impossible size", Some(offset))
                })?;
                self.take(layout, records, extents, Some(offset))?;
            }
        }
        Ok(())
    }

    /// Checks a block of the tree; where its records begin.
    fn check_block(&self, layout: &Layout<'_>, block: &[u8], at: At, level: u16) -> Result<usize> {
        let (magic, header) =
            if layout.shape.self_describing { (b"BMA3", 72) } else { (b"BMAP", 24) };
        if block[..4] != *magic || be16(block, 4) != level {
            return Err(self.damaged("has a tree with a wrong block", Some(at.offset)));
        }
        layout.check(block, Proof::TREE, at, self.owner, "a block of an extent tree")?;
        Ok(header)
    }

    /// The children of a node, last first: behind its header come all keys that fit, then as many
    /// pointers.
    fn children(
        &self,
        node: &[u8],
        header: usize,
        level: u16,
        offset: Option<u64>,
    ) -> Result<Vec<(u16, u64)>> {
        let room = node.len().saturating_sub(header) / (2 * WORD);
        // A root in an inode has its count behind the level, a block behind magic and level.
        let count = usize::from(be16(node, if header == ROOT_HEADER { 2 } else { 6 }));
        if count == 0 || count > room {
            return Err(self.damaged("has a node of an impossible size", offset));
        }
        let pointers = node[header + room * WORD..].as_chunks::<WORD>().0.iter().take(count);
        Ok(pointers.rev().map(|pointer| (level - 1, u64::from_be_bytes(*pointer))).collect())
    }

    /// Adds extents, of which there are at most so many in all.
    fn take(
        &mut self,
        layout: &Layout<'_>,
        records: &[u8],
        extents: usize,
        offset: Option<u64>,
    ) -> Result<()> {
        for record in records.as_chunks::<RECORD_LEN>().0 {
            if self.runs.len() == extents {
                return Err(self.damaged("has more extents than its inode says", offset));
            }
            let (high, low) = (be64(record, 0), be64(record, 8));
            let blocks = be32(record, 12) & 0x1f_ffff;
            let logical = high << 1 >> 10;
            let physical = layout.block_offset((high & 0x1ff) << 43 | low >> 21, blocks);
            let last = self.runs.last().map_or(0, Run::end);
            let physical = physical.filter(|_| blocks > 0 && logical >= last).ok_or_else(|| {
                self.damaged("has an extent out of order or outside the filesystem", offset)
            })?;
            self.runs.push(Run { logical, physical, blocks, is_unwritten: high >> 63 != 0 });
        }
        Ok(())
    }

    /// The run that has a block.
    fn run_at(&self, logical: u64) -> Option<&Run> {
        let n = self.runs.partition_point(|run| run.end() <= logical);
        self.runs.get(n).filter(|run| run.logical <= logical)
    }

    /// Fills `out` from a block of the fork on, all of which has to be there, and returns where
    /// that was.
    pub(super) fn read_at(&self, layout: &Layout<'_>, logical: u64, out: &mut [u8]) -> Result<At> {
        let mut all: Option<At> = None;
        let (mut done, mut at) = (0, logical);
        while done < out.len() {
            let run = self.run_at(at).filter(|run| !run.is_unwritten);
            let Some(run) = run else {
                return Err(self.damaged(&format!("lacks its block {at}"), None));
            };
            let physical = run.physical + (at - run.logical) * layout.block_size();
            let room = (run.end() - at) * layout.block_size();
            let len = usize::try_from(room).unwrap_or(usize::MAX).min(out.len() - done);
            let part = &mut out[done..done + len];
            let part = layout.read(part, physical, "read records of a file")?;
            all.get_or_insert(part).is_replayed |= part.is_replayed;
            done += len;
            at = run.end();
        }
        all.ok_or_else(|| self.damaged("was asked for nothing", None))
    }
}
