//! Block by block what is known, by the best evidence there is.

use std::sync::{Arc, PoisonError};

use super::covers::{Cover, cover_of, entries};
use super::finds::BlockFrame;
use super::{Evidence, Fate, Loss, Salvage, Stretch};
use crate::ids::{BlockIndex, Digest};
use crate::layout::{IndexEntry, Kind};
use crate::limits::FRAME_ALIGN;

/// Blocks that are looked at in one go where only frames are left.
const FRAMES_ONLY: u64 = 1 << 16;

/// Stretches in block order, without gaps; see [`Salvage::walk`].
pub struct Walk<'s> {
    salvage: &'s Salvage,
    at: BlockIndex,
    queue: std::vec::IntoIter<Stretch>,
}

impl Iterator for Walk<'_> {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        loop {
            if let Some(stretch) = self.queue.next() {
                self.at = stretch.end();
                return Some(stretch);
            }
            if self.at >= self.salvage.geometry.blocks() {
                return None;
            }
            self.queue = self.salvage.segment(self.at, BlockIndex::MAX).into_iter();
        }
    }
}

impl Salvage {
    /// What is known about every block from `first` on.
    #[must_use]
    pub fn walk(&self, first: BlockIndex) -> Walk<'_> {
        Walk { salvage: self, at: first, queue: Vec::new().into_iter() }
    }

    /// What is known about `block`; of one beyond the end, nothing.
    #[must_use]
    pub fn fate(&self, block: BlockIndex) -> Fate {
        let found = self.segment(block, block.saturating_add(1)).into_iter().next();
        found.map_or(Fate::Lost(Loss::Unknown), |stretch| stretch.fate)
    }

    /// Stretches from `at` to where the evidence changes, at most to `limit`; at least one.
    fn segment(&self, at: BlockIndex, limit: BlockIndex) -> Vec<Stretch> {
        let blocks = self.geometry.blocks().min(limit);
        let next_page = match cover_of(&self.pages, at) {
            Ok(cover) => return self.of_cover(&cover, at, cover.to.min(blocks)),
            Err(next) => next.min(blocks),
        };
        match cover_of(&self.checkpoints, at) {
            Ok(cover) => self.of_cover(&cover, at, cover.to.min(next_page)),
            Err(next) => self.of_frames(at, next.min(next_page).min(at + FRAMES_ONLY)),
        }
    }

    /// What a page or checkpoint says about `from .. to`.
    fn of_cover(&self, cover: &Cover, from: BlockIndex, to: BlockIndex) -> Vec<Stretch> {
        let lost =
            |first, end| Stretch { first, run: end - first, fate: Fate::Lost(Loss::Unknown) };
        let Some(entries) = self.entries_of(cover) else {
            // It was sound when the file was scanned.
            return vec![lost(from, to)];
        };
        // What a full image does not decide is an error of whoever wrote it.
        let left = |first, end| match self.inherits {
            true => Stretch { first, run: end - first, fate: Fate::Inherited(cover.by) },
            false => lost(first, end),
        };
        let mut stretches = Vec::new();
        let mut at = from;
        let begin = entries.partition_point(|entry| entry.end() <= from);
        for entry in &entries[begin..] {
            if entry.block >= to {
                break;
            }
            if entry.block > at {
                stretches.push(left(at, entry.block));
            }
            let part = entry.cut(entry.block.max(at), entry.end().min(to));
            at = part.end();
            stretches.push(Stretch {
                first: part.block,
                run: part.run,
                fate: self.decided(cover.by, part),
            });
        }
        if at < to {
            stretches.push(left(at, to));
        }
        stretches
    }

    /// An entry whose address is that in this file.
    fn decided(&self, by: Evidence, entry: IndexEntry) -> Fate {
        if !entry.has_frame() {
            return Fate::Decided(by, entry);
        }
        // What lay in the part that is missing is not found where it would be, or is another
        // block: the leaf tells.
        let address = entry.address.saturating_sub(self.identity.shift);
        Fate::Decided(by, IndexEntry { address: address.max(FRAME_ALIGN), ..entry })
    }

    /// What frames alone tell about `from .. to`.
    fn of_frames(&self, from: BlockIndex, to: BlockIndex) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut at = from;
        let begin = self.frames.partition_point(|frame| frame.block < from);
        let mut rest = &self.frames[begin..];
        while let Some(first) = rest.first().filter(|frame| frame.block < to) {
            let count = rest.iter().take_while(|frame| frame.block == first.block).count();
            let (same, later) = rest.split_at(count);
            if first.block > at {
                let (run, fate) = (first.block - at, Fate::Lost(Loss::Unknown));
                stretches.push(Stretch { first: at, run, fate });
            }
            stretches.push(Stretch { first: first.block, run: 1, fate: self.of_these(same) });
            at = first.block + 1;
            rest = later;
        }
        if at < to {
            stretches.push(Stretch { first: at, run: to - at, fate: Fate::Lost(Loss::Unknown) });
        }
        stretches
    }

    /// Which of several frames with one block is the block. Those of a session that wrote this
    /// image are where they were made; others came by merging, and may stand for another block
    /// that is equal to what this one was once. Frames that differ are decided by that, and else
    /// by nothing.
    fn of_these(&self, frames: &[BlockFrame]) -> Fate {
        let len = |frame: &&BlockFrame| frame.plain_len == self.geometry.block_len(frame.block);
        let wrote = |frame: &&BlockFrame| self.wrote.has(frame.session);
        let fitting: Vec<&BlockFrame> = frames.iter().filter(len).collect();
        let own: Vec<&BlockFrame> = fitting.iter().copied().filter(wrote).collect();
        let (by, candidates) = match own.is_empty() {
            true => (Evidence::MovedFrame, fitting),
            false => (Evidence::Frame, own),
        };
        let Some(first) = candidates.first() else { return Fate::Lost(Loss::Unknown) };
        let alike = |frame: &&BlockFrame| {
            (frame.leaf_prefix, frame.is_delta, frame.is_damaged)
                == (first.leaf_prefix, first.is_delta, first.is_damaged)
        };
        if !candidates.iter().all(alike) {
            return Fate::Lost(Loss::Conflict);
        }
        Fate::Decided(by, entry_of(first))
    }

    /// Frames, wherever they lie, whose block and leaf may be those of `entry`.
    pub(super) fn lookalikes(&self, entry: &IndexEntry) -> impl Iterator<Item = IndexEntry> + '_ {
        let (block, prefix) = (entry.block, *entry.leaf.0.first_chunk::<8>().unwrap_or(&[0; 8]));
        let (leaf, kind) = (entry.leaf, entry.kind);
        let begin = self.frames.partition_point(|frame| frame.block < block);
        let same = self.frames[begin..].iter().take_while(move |frame| frame.block == block);
        same.filter(move |frame| frame.leaf_prefix == prefix).map(move |frame| IndexEntry {
            leaf,
            kind,
            ..entry_of(frame)
        })
    }

    fn entries_of(&self, cover: &Cover) -> Option<Arc<Vec<IndexEntry>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, entries)) = &*recent
            && *at == cover.at
        {
            return Some(Arc::clone(entries));
        }
        let entries = Arc::new(entries(&*self.file, cover)?);
        *recent = Some((cover.at, Arc::clone(&entries)));
        Some(entries)
    }
}

/// The entry an index may have had for a frame, with as much of the leaf as its header has.
fn entry_of(frame: &BlockFrame) -> IndexEntry {
    let kind = match (frame.is_delta, frame.is_damaged) {
        (true, _) => Kind::Delta,
        (false, true) => Kind::Unreadable,
        (false, false) => Kind::Data,
    };
    let mut leaf = Digest::default();
    leaf.0[..8].copy_from_slice(&frame.leaf_prefix);
    IndexEntry { address: frame.at, leaf, ..IndexEntry::run(frame.block, 1, kind) }
}
