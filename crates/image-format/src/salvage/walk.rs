//! Block by block what is known, by the best evidence there is.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::covers::{Cover, cover_of};
use super::finds::BlockFrame;
use super::{Evidence, Fate, Loss, Salvage, Sessions, Stretch};
use crate::ids::{BlockIndex, Digest, Geometry};
use crate::layout::{FrameKind, IndexEntry, Kind};
use crate::limits::FRAME_ALIGN;

/// Blocks that are looked at in one go where only frames are left.
const FRAMES_ONLY: u64 = 1 << 16;

/// Frames of one block that are remembered: an image has one, and a merged one a few.
const FRAMES_OF_BLOCK_MAX: usize = 64;
/// Those of them that are alike.
const FRAMES_ALIKE_MAX: u8 = 16;

/// Pages and checkpoints whose entries are kept: those that take turns where a walk goes from
/// one to the other, and some for blocks that are asked for out of order.
const RECENT_MAX: usize = 4;

/// Stretches in block order, without gaps; see [`Salvage::walk`].
pub struct Walk<'s> {
    salvage: &'s Salvage,
    at: BlockIndex,
    limit: BlockIndex,
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
            if self.at >= self.salvage.geometry.blocks().min(self.limit) {
                return None;
            }
            self.queue = self.salvage.segment(self.at, self.limit).into_iter();
        }
    }
}

impl Salvage {
    /// What is known about every block from `first` on.
    #[must_use]
    pub fn walk(&self, first: BlockIndex) -> Walk<'_> {
        self.walk_to(first, BlockIndex::MAX)
    }

    /// What is known about the blocks from `first` on, up to but without `limit`. It costs no more
    /// than these blocks, however many one page or checkpoint decides.
    #[must_use]
    pub fn walk_to(&self, first: BlockIndex, limit: BlockIndex) -> Walk<'_> {
        Walk { salvage: self, at: first, limit, queue: Vec::new().into_iter() }
    }

    /// What is known about `block`; of one beyond the end, nothing.
    #[must_use]
    pub fn fate(&self, block: BlockIndex) -> Fate {
        let found = self.walk_to(block, block.saturating_add(1)).next();
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
            stretches.push(Stretch {
                first: first.block,
                run: 1,
                fate: of_these(same, &self.geometry, &self.wrote),
            });
            at = first.block + 1;
            rest = later;
        }
        if at < to {
            stretches.push(Stretch { first: at, run: to - at, fate: Fate::Lost(Loss::Unknown) });
        }
        stretches
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
        let known = recent.iter().position(|(at, _)| *at == cover.at);
        let found = match known {
            Some(place) => recent.remove(place),
            None => (cover.at, Arc::new(self.parts().entries(cover)?)),
        };
        if recent.len() == RECENT_MAX {
            recent.remove(0);
        }
        recent.push(found.clone());
        Some(found.1)
    }
}

/// Which of several frames with one block is the block. Those of a session that wrote this
/// image are where they were made; others came by merging, and may stand for another block
/// that is equal to what this one was once. Frames that differ are decided by that, and else
/// by nothing.
fn of_these(frames: &[BlockFrame], geometry: &Geometry, wrote: &Sessions) -> Fate {
    let len = |frame: &&BlockFrame| frame.plain_len == geometry.block_len(frame.block);
    let own = |frame: &&BlockFrame| wrote.has(frame.session);
    let fitting: Vec<&BlockFrame> = frames.iter().filter(len).collect();
    let own: Vec<&BlockFrame> = fitting.iter().copied().filter(own).collect();
    let (by, candidates) = match own.is_empty() {
        true => (Evidence::MovedFrame, fitting),
        false => (Evidence::Frame, own),
    };
    let Some(first) = candidates.first() else { return Fate::Lost(Loss::Unknown) };
    let alike = |frame: &&BlockFrame| {
        (frame.leaf_prefix, frame.kind, frame.is_damaged)
            == (first.leaf_prefix, first.kind, first.is_damaged)
    };
    if !candidates.iter().all(alike) {
        return Fate::Lost(Loss::Conflict);
    }
    Fate::Decided(by, entry_of(first))
}

/// Leaves few frames of a block that has many, so that asking for it again and again is cheap:
/// what [`Salvage::fate`] says of it stays the same. `frames` are in order of block and address.
pub(super) fn leave_few_of_each(
    frames: &mut Vec<BlockFrame>,
    geometry: &Geometry,
    wrote: &Sessions,
) {
    let class = |frame: &BlockFrame| match wrote.has(frame.session) {
        _ if frame.plain_len != geometry.block_len(frame.block) => 2,
        true => 0,
        false => 1,
    };
    let is_many = |group: &[BlockFrame]| group.len() > FRAMES_OF_BLOCK_MAX;
    if !frames.chunk_by(|a, b| a.block == b.block).any(is_many) {
        return;
    }
    let mut left = Vec::new();
    for group in frames.chunk_by_mut(|a, b| a.block == b.block) {
        if !is_many(group) {
            left.extend_from_slice(group);
            continue;
        }
        group.sort_by_key(class);
        let mut alike: HashMap<_, u8> = HashMap::new();
        let few = group.iter().filter(|frame| {
            let about = (frame.leaf_prefix, frame.kind.name(), frame.is_damaged, class(frame));
            let count = alike.entry(about).or_default();
            *count = count.saturating_add(1);
            *count <= FRAMES_ALIKE_MAX
        });
        left.extend(few.take(FRAMES_OF_BLOCK_MAX));
    }
    *frames = left;
}

/// The entry an index may have had for a frame, with as much of the leaf as its header has.
fn entry_of(frame: &BlockFrame) -> IndexEntry {
    let kind = match frame.kind {
        FrameKind::Delta => Kind::Delta,
        FrameKind::Local => Kind::Local,
        _ if frame.is_damaged => Kind::Unreadable,
        _ => Kind::Data,
    };
    let mut leaf = Digest::default();
    leaf.0[..8].copy_from_slice(&frame.leaf_prefix);
    IndexEntry { address: frame.at, leaf, ..IndexEntry::run(frame.block, 1, kind) }
}

#[cfg(test)]
mod tests {
    use aiv_testkit::Random;

    use super::*;
    use crate::ids::BlockSize;

    #[test]
    fn leaving_few_frames_of_a_block_changes_nothing_that_is_said_of_it() {
        let size = BlockSize::new(16384).unwrap();
        let geometry = Geometry::new(10 << 14, size, 512).unwrap();
        let wrote = Sessions(vec![true, false]);
        let (mut conflicts, mut cut) = (0, 0);
        for seed in 0..400 {
            let mut random = Random::new(&[seed]);
            // Of many frames that are alike, sometimes one is not.
            let odd = [2, 50, 100_000][random.below(3)];
            let mut frames = Vec::new();
            for block in 0..10 {
                for at in 0..random.below(300) as u64 {
                    let mut one_in = |n: usize| random.below(n) == 0;
                    frames.push(BlockFrame {
                        block,
                        at: at * 64,
                        leaf_prefix: [u8::from(one_in(odd)); 8],
                        plain_len: if one_in(3) { 100 } else { 16384 },
                        session: u16::from(!one_in(2 + odd)),
                        kind: match one_in(odd * 2) {
                            true => FrameKind::Delta,
                            false => FrameKind::Data,
                        },
                        is_damaged: false,
                    });
                }
            }
            let mut few = frames.clone();
            leave_few_of_each(&mut few, &geometry, &wrote);
            for block in 0..10 {
                let of = |all: &[BlockFrame]| -> Vec<BlockFrame> {
                    all.iter().copied().filter(|frame| frame.block == block).collect()
                };
                let (all, left) = (of(&frames), of(&few));
                assert!(left.len() <= FRAMES_OF_BLOCK_MAX);
                assert_eq!(of_these(&left, &geometry, &wrote), of_these(&all, &geometry, &wrote));
                conflicts +=
                    usize::from(of_these(&all, &geometry, &wrote) == Fate::Lost(Loss::Conflict));
                cut += usize::from(left.len() < all.len());
            }
        }
        assert!(conflicts > 500 && cut > 2000, "{conflicts} {cut}");
    }
}
