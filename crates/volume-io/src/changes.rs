use std::io;

use crate::Extent;

/// Runs after which [`ChangeTracker::changed`] stops looking: the rest counts as changed.
pub const CHANGED_RUNS_MAX: usize = 1 << 16;

/// Somebody who watched a source and marked what was written: a dirty bitmap.
///
/// What it says is a hint. It may have been cleared, lost, or switched off for a while, or have
/// missed a write, and none of that shows in its marks.
pub trait ChangeTracker: Send + Sync {
    /// What it may be asked, and when.
    fn watch(&self) -> Watch {
        Watch::GoesOn
    }

    /// Who it is, and whether there is a reason not to ask it.
    fn facts(&self) -> &TrackerFacts;

    /// The parts of `range` that it marked, rounded out to its granularity or further:
    /// ascending, disjoint, inside `range`, and not many more than [`CHANGED_RUNS_MAX`]. What it
    /// cannot tell about counts as marked.
    ///
    /// # Errors
    /// Whatever the medium reports, and marks that contradict themselves.
    fn changed(&self, range: Extent) -> io::Result<Vec<Extent>>;
}

/// Which time the marks of a tracker are about. What was written down once says the same for ever:
/// taken for one that goes on, an old text would hide all that was written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Until now, and it goes on: a bitmap. It is asked now, and again by what builds on this point.
    GoesOn,
    /// It begins now, and knows nothing of before: only what builds on this point may ask it.
    Begins,
    /// It was about what lies behind, and has ended: it is asked now, and never again.
    Ended,
}

/// What is known about a tracker without looking at its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerFacts {
    /// What it is: `qcow2 bitmap`.
    pub kind: &'static str,
    /// Its name among those of its kind.
    pub name: String,
    /// Bytes of the source that one mark stands for.
    pub granularity: u64,
    /// A hash of what the source depends on and the tracker does not watch, such as the files
    /// beneath an overlay; zeros for nothing.
    pub beneath: [u8; 32],
    /// Why its marks mean nothing now, as a sentence without a full stop: it was not closed
    /// properly, it does not record.
    pub unsound: Option<String>,
}
