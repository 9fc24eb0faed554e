use super::reason::XfsReason;
use crate::Error;

/// Why the reading of a map ended early: a reason to keep everything, or a failure.
#[derive(Debug)]
pub(super) enum Stop {
    Whole(XfsReason),
    Failed(Error),
}

impl From<XfsReason> for Stop {
    fn from(reason: XfsReason) -> Self {
        Self::Whole(reason)
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
