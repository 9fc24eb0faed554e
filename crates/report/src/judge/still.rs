//! What an error of holding a source still means.

use super::{failed, refused};
use crate::failure::Verdict;

pub(super) fn judge_snapshot(error: &aiv_jobs::SnapshotError) -> Option<Verdict> {
    use aiv_jobs::SnapshotError;
    match error {
        SnapshotError::NoProvider { .. } => {
            refused("no_snapshots", "freeze its filesystems instead, with --freeze")
        }
        SnapshotError::PartOfVolume { .. } => {
            refused("no_snapshots", "back up the whole volume, or use --freeze")
        }
        SnapshotError::NoProgram { .. } => failed(
            "no_zfs",
            "install them in the version of the running module (package zfsutils-linux on Debian \
             and Ubuntu, zfs elsewhere), or use --freeze",
        ),
        SnapshotError::NoOwner(_) => failed(
            "snapshot_failed",
            "there is no image; mount the /proc of this namespace, or use --freeze",
        ),
        SnapshotError::Lvm(_) => failed(
            "snapshot_failed",
            "there is no image; `vgs` shows what is left, --snapshot-size asks for less or more",
        ),
        SnapshotError::Zfs(_) => failed(
            "snapshot_failed",
            "there is no image; `zfs list -t all -o space` shows what takes up the pool",
        ),
        SnapshotError::Overflow { .. } => failed(
            "snapshot_overflow",
            "there is no image; make room: --snapshot-size for a snapshot with space of its own, \
             else in the pool; or back up when less is written",
        ),
        _ => None,
    }
}

pub(super) fn judge_freeze(error: &aiv_jobs::FreezeError) -> Option<Verdict> {
    use aiv_jobs::FreezeError;
    match error {
        FreezeError::Cannot { .. } => failed(
            "cannot_freeze",
            "everything is thawed again; unmount the filesystem or mount it read-only (FAT and \
             most network filesystems cannot be frozen)",
        ),
        FreezeError::Expired { .. } => failed(
            "freeze_expired",
            "there is no image; allow more time with --freeze-limit, or read less: an increment \
             and a faster destination take less time",
        ),
        FreezeError::ThawedByOthers | FreezeError::GuardEnded => failed(
            "freeze_lost",
            "there is no image, and everything is thawed; find out who thawed it, and try again",
        ),
        FreezeError::MountsChanged => failed("mounts_changed", "run it again"),
        _ => None,
    }
}
