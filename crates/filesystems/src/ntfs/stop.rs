use super::reason::{NtfsLogReason, NtfsReason};
use crate::Error;

/// Why the reading of a map ended early: a reason to keep everything, or a failure.
#[derive(Debug)]
pub(super) enum Stop {
    Whole(NtfsReason),
    Failed(Error),
}

impl From<NtfsReason> for Stop {
    fn from(reason: NtfsReason) -> Self {
        Self::Whole(reason)
    }
}

impl From<NtfsLogReason> for Stop {
    fn from(reason: NtfsLogReason) -> Self {
        Self::Whole(NtfsReason::Log(reason))
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
