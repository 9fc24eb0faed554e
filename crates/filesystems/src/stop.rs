use crate::btrfs::BtrfsReason;
use crate::exfat::ExFatReason;
use crate::ext::{ExtReason, JournalReason};
use crate::fat::FatReason;
use crate::lvm::LvmReason;
use crate::ntfs::{NtfsLogReason, NtfsReason};
use crate::swap::SwapReason;
use crate::xfs::XfsReason;
use crate::{Error, Result, UsedMap, WholeReason};

/// Why the reading of a map ended early: a reason to keep everything, or a failure.
#[derive(Debug)]
pub(crate) enum Stop {
    Whole(WholeReason),
    Failed(Error),
}

impl Stop {
    /// What the caller of the crate gets to see.
    pub(crate) fn answer(read: std::result::Result<UsedMap, Self>) -> Result<UsedMap> {
        match read {
            Ok(map) => Ok(map),
            Err(Self::Whole(reason)) => Ok(UsedMap::Whole { reason }),
            Err(Self::Failed(error)) => Err(error),
        }
    }
}

impl From<ExtReason> for Stop {
    fn from(reason: ExtReason) -> Self {
        Self::Whole(WholeReason::Ext(reason))
    }
}

impl From<JournalReason> for Stop {
    fn from(reason: JournalReason) -> Self {
        ExtReason::Journal(reason).into()
    }
}

impl From<FatReason> for Stop {
    fn from(reason: FatReason) -> Self {
        Self::Whole(WholeReason::Fat(reason))
    }
}

impl From<ExFatReason> for Stop {
    fn from(reason: ExFatReason) -> Self {
        Self::Whole(WholeReason::ExFat(reason))
    }
}

impl From<NtfsReason> for Stop {
    fn from(reason: NtfsReason) -> Self {
        Self::Whole(WholeReason::Ntfs(reason))
    }
}

impl From<NtfsLogReason> for Stop {
    fn from(reason: NtfsLogReason) -> Self {
        NtfsReason::Log(reason).into()
    }
}

impl From<XfsReason> for Stop {
    fn from(reason: XfsReason) -> Self {
        Self::Whole(WholeReason::Xfs(reason))
    }
}

impl From<BtrfsReason> for Stop {
    fn from(reason: BtrfsReason) -> Self {
        Self::Whole(WholeReason::Btrfs(reason))
    }
}

impl From<LvmReason> for Stop {
    fn from(reason: LvmReason) -> Self {
        Self::Whole(WholeReason::Lvm(reason))
    }
}

impl From<SwapReason> for Stop {
    fn from(reason: SwapReason) -> Self {
        Self::Whole(WholeReason::Swap(reason))
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
