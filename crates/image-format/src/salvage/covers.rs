//! What index pages and checkpoints say about which blocks.

use super::finds::{CheckpointFrame, Finds, LeafPage};
use super::{Evidence, Identity, Sessions};
use crate::ids::{BlockIndex, Geometry};
use crate::limits::PAGE_SIZE;

/// Blocks that one page or checkpoint decides: what it does not list of them is inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cover {
    pub from: BlockIndex,
    pub to: BlockIndex,
    /// Offset of the page, or of the checkpoint's frame.
    pub at: u64,
    pub by: Evidence,
}

/// The cover of `covers`, which ascend, that has `block`, or else where the next one begins.
pub(super) fn cover_of(covers: &[Cover], block: BlockIndex) -> Result<Cover, BlockIndex> {
    let after = covers.partition_point(|cover| cover.to <= block);
    match covers.get(after) {
        Some(cover) if cover.from <= block => Ok(*cover),
        next => Err(next.map_or(BlockIndex::MAX, |cover| cover.from)),
    }
}

/// Covers of the index pages of the image. Pages lie one behind the other, so each says where
/// its section begins; those that do not agree with the trailer, or with most, are of something
/// else.
pub(super) fn of_pages(finds: &Finds, identity: &Identity, geometry: &Geometry) -> Vec<Cover> {
    let is_ours = |page: &&LeafPage| Some(page.image) == identity.image;
    let begin = |page: &LeafPage| page.at.checked_sub(page.page_no.checked_mul(PAGE_SIZE as u64)?);
    let said = identity.trailer.as_ref().and_then(|t| t.index_offset.checked_sub(identity.shift));
    let Some(offset) = said.or_else(|| most(finds.pages.iter().filter(is_ours).filter_map(begin)))
    else {
        return Vec::new();
    };
    let mut pages: Vec<&LeafPage> = finds
        .pages
        .iter()
        .filter(is_ours)
        .filter(|page| begin(page) == Some(offset) && page.end <= geometry.blocks())
        .collect();
    pages.sort_by_key(|page| page.page_no);
    let leaf_pages = identity.trailer.as_ref().map(|trailer| trailer.index_leaf_pages);
    let spans = pages.iter().map(|page| (page.first, page.end));
    let sound = without_overlap(&spans.collect::<Vec<_>>());
    let pages: Vec<&LeafPage> =
        pages.into_iter().zip(sound).filter(|(_, is_sound)| *is_sound).map(|(p, _)| p).collect();
    let mut covers: Vec<Cover> = Vec::with_capacity(pages.len());
    for (i, page) in pages.iter().enumerate() {
        let is_last = leaf_pages == Some(page.page_no + 1);
        let next = pages.get(i + 1).filter(|next| next.page_no == page.page_no + 1);
        let to = match next {
            Some(next) => next.first,
            None if is_last => geometry.blocks(),
            None => page.end,
        };
        let from = if page.page_no == 0 { 0 } else { page.first };
        covers.push(Cover { from, to, at: page.at, by: Evidence::Index });
    }
    covers
}

/// Covers of the checkpoints of the image.
pub(super) fn of_checkpoints(finds: &Finds, ours: &Sessions, geometry: &Geometry) -> Vec<Cover> {
    let is_ours = |c: &&CheckpointFrame| {
        ours.has(c.session) && c.names_first && c.next_block <= geometry.blocks()
    };
    let mut checkpoints: Vec<&CheckpointFrame> = finds.checkpoints.iter().filter(is_ours).collect();
    checkpoints.sort_by_key(|c| (c.number, c.at));
    // The same bytes twice, as in an image of the disk it was written to, are one.
    checkpoints.dedup_by_key(|c| (c.number, c.payload_crc, c.next_block));
    let twice = |i: usize, of: &[&CheckpointFrame]| {
        let number = of[i].number;
        [i.checked_sub(1), Some(i + 1)]
            .into_iter()
            .flatten()
            .any(|other| of.get(other).is_some_and(|c| c.number == number))
    };
    let single: Vec<&CheckpointFrame> = (0..checkpoints.len())
        .filter(|&i| !twice(i, &checkpoints))
        .map(|i| checkpoints[i])
        .collect();
    let spans: Vec<(u64, u64)> = single.iter().map(|c| (c.first, c.next_block)).collect();
    let sound = without_overlap(&spans);
    let mut covers: Vec<Cover> = Vec::new();
    let mut before: Option<&CheckpointFrame> = None;
    for (checkpoint, is_sound) in single.iter().zip(sound) {
        if !is_sound {
            continue;
        }
        let from = match before {
            _ if checkpoint.number == 0 => 0,
            Some(before) if before.number.checked_add(1) == Some(checkpoint.number) => {
                before.next_block
            }
            _ => checkpoint.first,
        };
        let (to, at) = (checkpoint.next_block, checkpoint.at);
        covers.push(Cover { from, to, at, by: Evidence::Checkpoint });
        before = Some(checkpoint);
    }
    covers.retain(|cover| cover.from < cover.to);
    covers
}

/// Which of the spans neither begin before the end of one in front of them, nor reach over one
/// behind them: evidence that contradicts itself is none.
fn without_overlap(spans: &[(u64, u64)]) -> Vec<bool> {
    let mut sound = vec![true; spans.len()];
    let mut end = 0;
    for (i, &(first, to)) in spans.iter().enumerate() {
        sound[i] &= first >= end && first <= to;
        end = end.max(to);
    }
    let mut begin = u64::MAX;
    for (i, &(first, to)) in spans.iter().enumerate().rev() {
        sound[i] &= to <= begin;
        begin = begin.min(first);
    }
    sound
}

fn most(offsets: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts = std::collections::BTreeMap::new();
    offsets.for_each(|offset| *counts.entry(offset).or_insert(0u64) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(offset, _)| offset)
}
