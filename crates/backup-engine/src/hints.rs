//! What may stay unread because somebody watched the source, and what is read all the same.
//!
//! A tracker's word is taken for a block only if the point the image builds on saw the tracker
//! record, nothing says that it was cleared, switched off or deceived since, every byte of the
//! block mattered then and matters now, and the block's content is known from then. Of those
//! blocks one in [`SHARES`] is read and compared in each increment, another one in the next: a
//! change that was not marked is found after [`SHARES`] increments at the latest.

use std::sync::atomic::{AtomicU64, Ordering};

use aiv_chain::Stretch;
use aiv_image_format::{BlockIndex, Digest};
use aiv_volume_io::{ChangeTracker, Extent, ExtentSet};

use crate::error::{HintFailure, Result};
use crate::parent::Parent;
use crate::pipeline::blocks_extent;
use crate::plan::BackupPlan;
use crate::section::broken;

/// Increments within which every block is compared.
pub const SHARES: u64 = 30;

/// Bytes whose marks are asked for at once.
pub(crate) const WINDOW: u64 = 1 << 30;

/// What the word of a tracker was worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintReport {
    /// The tracker the caller named.
    pub tracker: String,
    /// Bytes that were not read because it did not mark them.
    pub bytes_skipped: u64,
    /// Bytes that it did not mark and that were read and compared all the same.
    pub bytes_audited: u64,
    /// Why its word was not taken, if it was not: everything that matters was read.
    pub not_used: Option<NotUsed>,
}

/// Why everything was read although a tracker was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotUsed {
    /// A full image builds on nothing.
    #[error("the image is full, and holds all of the source")]
    Full,
    /// Changes while it is read look like changes that were not marked.
    #[error("the source is in use")]
    InUse,
    /// The source has no tracker of this name.
    #[error("the source has none of this name")]
    Missing,
    /// The tracker itself says that its marks mean nothing.
    #[error("{0}")]
    Unsound(String),
    /// Only what builds on this point may ask it.
    #[error("it begins with its own text, which knows nothing of what was written before")]
    Begins,
    /// Nothing says what happened between the point and the beginning of the tracker.
    #[error("the point the image builds on did not see it record")]
    NotSeen,
    /// The source had another size.
    #[error("the source had another size at the point the image builds on")]
    Resized,
    /// It is another tracker of the same name.
    #[error("it is not as the point the image builds on saw it")]
    Other,
    /// Something it does not watch is not as it was.
    #[error("what lies beneath the source and is not watched changed")]
    Beneath,
    /// Marks vanished.
    #[error("it was cleared or made anew since the point the image builds on")]
    Cleared,
    /// Bytes that did not matter then are zeros in the parent, and nobody knows which they were.
    #[error("what mattered at the point the image builds on cannot be worked out again")]
    UsedUnknown,
    /// An earlier backup found a change that was not marked.
    #[error("a change at byte {offset} was not marked; make one backup without it")]
    Distrusted {
        /// Where.
        offset: u64,
    },
    /// This backup found a change that was not marked.
    #[error("the change at byte {offset} was not marked")]
    Lied {
        /// Where.
        offset: u64,
    },
    /// Its marks could not be read.
    #[error("its marks cannot be read: {0}")]
    Failed(String),
}

impl From<HintFailure> for NotUsed {
    fn from(failure: HintFailure) -> Self {
        match failure {
            HintFailure::Lied { offset } => Self::Lied { offset },
            HintFailure::Marks(error) => Self::Failed(error.to_string()),
        }
    }
}

/// The word of a tracker, as long as nothing speaks against it.
pub(crate) struct Hint<'a> {
    tracker: &'a dyn ChangeTracker,
    used_then: ExtentSet,
    /// Blocks with this remainder are compared in any case.
    share: u64,
    lied_at: AtomicU64,
}

impl<'a> Hint<'a> {
    /// `used_then` are the bytes that mattered at the parent.
    pub(crate) fn new(
        tracker: &'a dyn ChangeTracker,
        used_then: ExtentSet,
        increment_number: u32,
    ) -> Self {
        let share = u64::from(increment_number) % SHARES;
        Self { tracker, used_then, share, lied_at: AtomicU64::new(u64::MAX) }
    }

    /// The byte at `offset` is another one, and was not marked.
    pub(crate) fn lied(&self, offset: u64) {
        self.lied_at.fetch_min(offset, Ordering::Relaxed);
    }

    /// Ends the attempt once a lie was found.
    pub(crate) fn check(&self) -> Result<()> {
        match self.lied_at.load(Ordering::Relaxed) {
            u64::MAX => Ok(()),
            offset => Err(HintFailure::Lied { offset }.into()),
        }
    }
}

/// What the word of a tracker means for a row of blocks.
pub(crate) enum Trust {
    /// Nothing: they are read.
    No,
    /// They are as the parent has them, with these leaves, unless the tracker lied.
    Yes(Vec<Digest>),
}

pub(crate) struct Trusted {
    pub first: BlockIndex,
    pub count: u64,
    pub trust: Trust,
}

/// Asks for the marks of the source from its beginning to its end.
pub(crate) struct Hinted<'h> {
    hint: &'h Hint<'h>,
    plan: &'h BackupPlan,
    parent: &'h Parent,
    window: Extent,
    marked: ExtentSet,
}

impl<'h> Hinted<'h> {
    pub(crate) fn new(hint: &'h Hint<'h>, plan: &'h BackupPlan, parent: &'h Parent) -> Self {
        let (window, marked) = (Extent::new(0, 0), ExtentSet::new());
        Self { hint, plan, parent, window, marked }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.hint.check()
    }

    pub(crate) fn lied(&self, block: BlockIndex) {
        self.hint.lied(self.parent.view.geometry().offset_of(block));
    }

    /// Whether a block is compared although it may be skipped.
    pub(crate) fn is_audited(&self, block: BlockIndex) -> bool {
        block % SHARES == self.hint.share
    }

    /// The blocks `from .. to` in rows: those that may be skipped, and those that may not.
    pub(crate) fn trusted(&mut self, from: BlockIndex, to: BlockIndex) -> Result<Vec<Trusted>> {
        let geometry = *self.parent.view.geometry();
        let mut rows: Vec<Trusted> = Vec::new();
        let stretches = self.parent.stretches(from, to).map_err(broken)?;
        let mut at = 0;
        for block in from..to {
            while stretches.get(at).is_some_and(|s| s.block() + s.run() <= block) {
                at += 1;
            }
            let old = stretches.get(at).filter(|_| block < self.parent.shared());
            let here = blocks_extent(&geometry, block, 1);
            let leaf = match known(old) {
                Some(leaf) if self.is_unmarked(here)? => Some(leaf),
                _ => None,
            };
            match (rows.last_mut(), leaf) {
                (Some(Trusted { count, trust: Trust::Yes(leaves), .. }), Some(leaf)) => {
                    *count += 1;
                    leaves.push(leaf);
                }
                (Some(Trusted { count, trust: Trust::No, .. }), None) => *count += 1,
                (_, leaf) => {
                    let trust = leaf.map_or(Trust::No, |leaf| Trust::Yes(vec![leaf]));
                    rows.push(Trusted { first: block, count: 1, trust });
                }
            }
        }
        Ok(rows)
    }

    /// Whether all of a block mattered then and matters now, and none of it was marked.
    fn is_unmarked(&mut self, block: Extent) -> Result<bool> {
        let covers = |set: &ExtentSet| set.within(block).next() == Some(block);
        if !covers(&self.plan.used) || !covers(&self.hint.used_then) {
            return Ok(false);
        }
        // Blocks are at most 4 MiB and lie on multiples of their size, like windows.
        if block.start < self.window.start || block.end() > self.window.end() {
            let start = block.start / WINDOW * WINDOW;
            let end = start.saturating_add(WINDOW).min(self.plan.geometry.len());
            self.window = Extent::between(start, end);
            self.marked = changed(self.hint.tracker, self.window).map_err(HintFailure::Marks)?;
        }
        Ok(self.marked.within(block).next().is_none())
    }
}

/// The leaf of a block whose bytes the parent has, all of them.
fn known(old: Option<&Stretch>) -> Option<Digest> {
    old.filter(|old| old.kind().map_state() == 0).and_then(Stretch::leaf)
}

/// The marks of a window, in the order that was promised, whoever wrote the tracker.
pub(crate) fn changed(tracker: &dyn ChangeTracker, window: Extent) -> std::io::Result<ExtentSet> {
    let runs = tracker.changed(window)?;
    Ok(runs.into_iter().filter_map(|run| run.intersect(window)).collect())
}
