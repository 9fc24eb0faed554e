use super::reason::{ExtReason, JournalReason};
use crate::Error;

/// Why the reading of a map ended early: a reason to keep everything, or a failure.
#[derive(Debug)]
pub(super) enum Stop {
    Whole(ExtReason),
    Failed(Error),
}

impl From<ExtReason> for Stop {
    fn from(reason: ExtReason) -> Self {
        Self::Whole(reason)
    }
}

impl From<JournalReason> for Stop {
    fn from(reason: JournalReason) -> Self {
        Self::Whole(ExtReason::Journal(reason))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<aiv_volume_io::Canceled> for Stop {
    fn from(canceled: aiv_volume_io::Canceled) -> Self {
        Self::Failed(canceled.into())
    }
}
