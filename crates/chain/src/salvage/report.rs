//! What was salvaged and what is lost, to the block.

use aiv_image_format::salvage::{Evidence, Loss};
use aiv_image_format::{BlockIndex, Geometry, PointId};
use aiv_volume_io::{Extent, Job};

use super::laid::Piece;
use super::run::{Block, Sink};
use super::{Salvaged, SalvagedImage};
use crate::error::Result;

/// Consecutive blocks that are lost for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRun {
    /// The first of them.
    pub first: BlockIndex,
    /// How many.
    pub count: u64,
    /// Why.
    pub loss: Loss,
}

/// What was salvaged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Length, block size and sector size of the disk.
    pub geometry: Geometry,
    /// Blocks that came back by the index, and those that sound older images gave.
    pub by_index: u64,
    /// By checkpoints.
    pub by_checkpoint: u64,
    /// By their frames alone.
    pub by_frame: u64,
    /// What is lost, ascending.
    pub lost: Vec<LostRun>,
    /// Blocks, as first and count, that came back by frames that a merge moved, or from a parent
    /// of which only a superblock tells that the key does not prove: nothing proves that they are
    /// not what was there earlier.
    pub unproven: Vec<(BlockIndex, u64)>,
    /// The point the files build on and nobody provides.
    pub missing_parent: Option<PointId>,
    /// Whether all of it is, to the bit, the state the trailer named; `None` where that was not
    /// compared, or there is no trailer.
    pub is_proven: Option<bool>,
    /// The new image.
    pub image: Option<SalvagedImage>,
}

impl SalvageReport {
    pub(super) fn new(salvaged: &Salvaged) -> Self {
        Self {
            geometry: *salvaged.geometry(),
            by_index: 0,
            by_checkpoint: 0,
            by_frame: 0,
            lost: Vec::new(),
            unproven: Vec::new(),
            missing_parent: salvaged.missing_parent().map(|link| link.point),
            is_proven: None,
            image: None,
        }
    }

    pub(super) fn count(&mut self, piece: &Piece, blocks: u64) {
        *match piece.evidence() {
            Some(Evidence::Checkpoint) => &mut self.by_checkpoint,
            Some(Evidence::Frame | Evidence::MovedFrame) => &mut self.by_frame,
            _ => &mut self.by_index,
        } += blocks;
    }

    pub(super) fn lose(&mut self, first: BlockIndex, count: u64, loss: Loss) {
        match self.lost.last_mut() {
            Some(last) if last.loss == loss && last.first + last.count == first => {
                last.count += count;
            }
            _ => self.lost.push(LostRun { first, count, loss }),
        }
    }

    pub(super) fn doubt(&mut self, block: BlockIndex, blocks: u64) {
        match self.unproven.last_mut() {
            Some((first, count)) if *first + *count == block => *count += blocks,
            _ => self.unproven.push((block, blocks)),
        }
    }

    /// Blocks that came back.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.by_index + self.by_checkpoint + self.by_frame
    }

    /// Blocks that did not.
    #[must_use]
    pub fn blocks_lost(&self) -> u64 {
        self.lost.iter().map(|run| run.count).sum()
    }

    /// Bytes of the disk that blocks are; the last one may be short.
    #[must_use]
    pub fn bytes_of(&self, first: BlockIndex, count: u64) -> Extent {
        let start = self.geometry.offset_of(first);
        let end = self.geometry.offset_of(first.saturating_add(count)).min(self.geometry.len());
        Extent::between(start, end)
    }

    /// Bytes of the disk that are lost.
    #[must_use]
    pub fn bytes_lost(&self) -> u64 {
        self.lost.iter().map(|run| self.bytes_of(run.first, run.count).len).sum()
    }

    /// Bytes of `range` of the disk that are lost.
    #[must_use]
    pub fn lost_within(&self, range: Extent) -> u64 {
        // Runs ascend: those before the range are skipped.
        let end = |run: &LostRun| self.bytes_of(run.first, run.count).end();
        let from = self.lost.partition_point(|run| end(run) <= range.start);
        let runs = self.lost[from..].iter().map(|run| self.bytes_of(run.first, run.count));
        let within = runs.take_while(|run| run.start < range.end());
        within.filter_map(|run| run.intersect(range)).map(|part| part.len).sum()
    }

    /// Whether everything came back, and nothing is in doubt.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.unproven.is_empty() && self.is_proven != Some(false)
    }
}

impl Salvaged {
    /// Reads everything that is left, and says what is lost. Writes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Canceled`].
    pub fn check(&self, job: Job<'_>) -> Result<SalvageReport> {
        struct Nowhere;
        impl Sink for Nowhere {
            fn compression(&self) -> Option<aiv_image_format::Compression> {
                None
            }
            fn run(&mut self, _: aiv_image_format::Kind, _: BlockIndex, _: u64) -> Result<()> {
                Ok(())
            }
            fn block(&mut self, _: BlockIndex, _: aiv_image_format::Kind, _: &Block) -> Result<()> {
                Ok(())
            }
            fn lost(&mut self, _: BlockIndex, _: u64) -> Result<()> {
                Ok(())
            }
        }
        self.run(&mut Nowhere, job)
    }
}
