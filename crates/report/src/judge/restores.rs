//! What an error of a restore means, and why a target was refused.

use aiv_restore_engine::{Error, Refusal};

use super::system::judge_io;
use super::{CANCELED, DAMAGED, DISK_FULL, failed, files, judge, refused};
use crate::failure::Verdict;

pub(super) fn judge_restore(error: &Error) -> Option<Verdict> {
    match error {
        Error::Canceled(_) => Some(CANCELED),
        Error::Target(error) => Some(judge(error)),
        Error::View(error) => Some(judge(error)),
        Error::Table(error) => Some(judge(error)),
        Error::PlanFile { .. } => {
            failed("plan_file", "correct the file; the message says what is wrong where")
        }
        Error::Scratch { source, .. } | Error::Copy { source, .. } => Some(judge_io(source)),
        Error::UndoDamaged { .. } | Error::Undecided { .. } => Some(DAMAGED),
        Error::Undo { .. } => {
            failed("undo_log", "choose a new file for the undo log; the target was not touched")
        }
        Error::Mismatch { .. } => {
            failed("read_back", "the target returns other bytes than it was given; use another")
        }
        Error::Refused(refusal) => judge_refusal(refusal),
        Error::Browse(error) => Some(judge(error)),
        Error::File(error) => Some(judge(error)),
        Error::FileBytes(_) => Some(DAMAGED),
        Error::Output { source, .. } => Some(files::judge_output(source)),
        _ => None,
    }
}

fn judge_refusal(refusal: &Refusal) -> Option<Verdict> {
    match refusal {
        Refusal::NoSuchPartition { .. } | Refusal::NoTable { .. } => {
            failed("no_such_partition", "`aiv info IMAGE` lists the partitions")
        }
        Refusal::OverlappingPartition { .. } => {
            refused("partition_overlap", "restore the whole disk to a file, and look there")
        }
        Refusal::HoldsImage { .. } | Refusal::IsImage { .. } => {
            refused("target_is_image", "choose another target")
        }
        Refusal::VirtualDisk { .. } => refused(
            "target_is_virtual",
            "restore into a file called .raw or .img, and make a virtual disk of it: \
             `qemu-img convert -f raw -O FORMAT`",
        ),
        Refusal::HoldsVirtualDisk { .. } => refused(
            "target_is_virtual",
            "name a new file; or, where nobody needs the virtual disk any more, remove it first",
        ),
        Refusal::InUse { .. } => {
            refused("target_in_use", "unmount the target, and stop what else uses it")
        }
        Refusal::ReadOnly { .. } => {
            refused("target_read_only", "make the target writable, or choose another one")
        }
        Refusal::TooSmall { .. } | Refusal::CannotShrink { .. } => {
            refused("target_too_small", "choose a target of at least that size")
        }
        Refusal::PartitionTooFar { .. } => refused(
            "target_too_small",
            "choose a target of that size; --shrink DIR makes a filesystem smaller if it can",
        ),
        Refusal::SameTarget { .. } => refused("same_target", "give each restore its own target"),
        Refusal::OtherCopy { .. } => refused("plan_changed", "start again"),
        Refusal::OtherTarget { .. } => {
            refused("other_target", "the undo log goes only to the target it names")
        }
        Refusal::NoNewIdentity(_) => refused("no_new_identity", "leave the option away"),
        Refusal::NothingToGrow(_) => refused("nothing_to_grow", "leave the option away"),
        Refusal::Table { unfit: aiv_restore_engine::Unfit::TooFar { .. }, .. } => {
            refused("table_unfit", "--table gpt makes the MBR a GPT, which has no such limit")
        }
        Refusal::SameIdentity { .. } => {
            refused("same_identity", "remove the other disk, or give this one --identity new")
        }
        Refusal::Table { .. } => {
            refused("table_unfit", "choose a target like the source disk, or restore partitions")
        }
        Refusal::SameName { .. } => refused("same_name", "recover them one after the other"),
        Refusal::TooManyFiles { .. } | Refusal::PathsTooLong { .. } => {
            refused("too_many_files", "recover some folders at a time")
        }
        Refusal::Exists { .. } => refused(
            "exists",
            "nothing was written: choose another place; in a folder, --existing skip goes on with \
             an interrupted job, and --existing replace overwrites files",
        ),
        Refusal::NoRoom { .. } => refused(DISK_FULL, "choose a place with more room"),
        Refusal::OtherLength { .. } => {
            refused("target_changed", "the target changed its size meanwhile: start again")
        }
        Refusal::SectorSize { .. } | Refusal::Sectors { .. } => {
            refused("sector_size", "choose a target with sectors of that size")
        }
        _ => refused("refused", "the message names the cause"),
    }
}
