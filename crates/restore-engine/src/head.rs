//! The beginning of the target, which tells what the disk is: cleared first, written last.
//! What tells it at the end of the disk, a backup GPT, is cleared with it and written just
//! before it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aiv_volume_io::{Canceled, Extent};

use crate::apply::Task;
use crate::batch::{Action, Batch};
use crate::error::{Error, Result};
use crate::plan::RestorePlan;

/// Bytes at the beginning of a disk or partition that tell what it is: every partition table
/// with its entries, boot sectors, and the first superblock of every filesystem in the field
/// (Btrfs has its own at 64 KiB).
const HEAD_LEN: u64 = 1 << 20;

impl RestorePlan {
    /// The head of the region: at least its first MiB, up to the end of a block.
    pub(crate) fn head(&self) -> Extent {
        let end = self.region.start.saturating_add(HEAD_LEN);
        let end = end.checked_next_multiple_of(self.block_size).unwrap_or(u64::MAX);
        Extent::between(self.region.start, end.min(self.region.end()))
    }

    /// Whether the head of the target holds nothing that must be cleared.
    pub(crate) fn head_is_blank(&self) -> bool {
        self.target.zeros_from() == 0
    }
}

/// What became of the old contents of the head.
pub(crate) struct Head {
    state: Mutex<State>,
}

enum State {
    /// As found.
    Intact,
    /// Zeros, durably; or nothing that needed clearing.
    Cleared,
    /// Unknown. The error is taken by whoever ends the restore.
    Failed(Option<Error>),
}

impl Head {
    pub(crate) fn new(is_blank: bool) -> Self {
        Self { state: Mutex::new(if is_blank { State::Cleared } else { State::Intact }) }
    }

    /// Clears the head unless that was done: called before anything else is written.
    ///
    /// Lazily, because a restore that fails before its first write, or a delta restore that
    /// finds nothing to write, then leaves the target as it was.
    ///
    /// # Errors
    /// [`Error::Canceled`] in place of the real error, which one caller of
    /// [`Head::explain`] gets: several threads may wait here for one attempt.
    pub(crate) fn clear(&self, task: &Task<'_>) -> Result<()> {
        let mut state = self.lock();
        if matches!(*state, State::Intact) {
            *state = match clear(task) {
                Ok(()) => State::Cleared,
                Err(error) => State::Failed(Some(error)),
            };
        }
        if matches!(*state, State::Cleared) { Ok(()) } else { Err(Canceled.into()) }
    }

    /// Records that the head holds what it should, so that nothing needs to be cleared.
    pub(crate) fn settle(&self) {
        *self.lock() = State::Cleared;
    }

    /// The reason behind `error`, if that was clearing the head.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match &mut *self.lock() {
            State::Failed(reason) => reason.take().unwrap_or(error),
            _ => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Zeros whatever of the head will be overwritten, and of what else tells what the disk is, and
/// makes that durable before anything else reaches the medium. Free space is not cleared: it
/// tells nobody what the disk is.
fn clear(task: &Task<'_>) -> Result<()> {
    let ranges = task.plan.ranges();
    for batch in task.batches(&ranges.head).chain(task.batches(&ranges.late)) {
        let batch = batch?;
        if !matches!(batch, Batch::Run { action: Action::Leave | Action::Discard, .. }) {
            let extent = task.in_target(batch.extent());
            let failed = Error::io("clearing the head", extent.start);
            task.target.zero_range(extent).map_err(failed)?;
        }
    }
    task.target.sync().map_err(Error::io("syncing the cleared head", 0))
}
