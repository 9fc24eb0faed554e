//! What an error of images in folders means.

use aiv_chain::PointState;
use aiv_image_format::Error as ImageError;

use super::{CANCELED, DISK_FULL, failed, judge, keys, refused, salvage};
use crate::failure::{Exit, Verdict};

/// Whether an image under its temporary name ends before it is one.
fn is_unfinished(file: &str, error: &ImageError) -> bool {
    let is_ours = || file.contains(".aiv.") || file.contains(".aii.");
    file.ends_with(".part")
        && match error {
            ImageError::Incomplete { .. } | ImageError::Segments(_) => true,
            // It has not even a superblock yet.
            ImageError::Foreign(_) => is_ours(),
            _ => false,
        }
}

pub(super) fn judge_chain(error: &aiv_chain::Error) -> Option<Verdict> {
    use aiv_chain::Error;
    match error {
        Error::Canceled(_) => Some(CANCELED),
        Error::File(error) => Some(judge(error)),
        Error::Key(error) => Some(judge(error)),
        Error::Image { file, source } if is_unfinished(file, source) => failed(
            "unfinished",
            "it was never finished: the next backup or merge goes on with it, or removes it and \
                 begins anew",
        ),
        Error::NotRestorable { state: PointState::Locked { .. }, .. } => Some(keys::NEEDS_KEY),
        Error::NotRestorable { .. } => Some(Verdict {
            code: "chain_broken",
            exit: Exit::Damage,
            hint: "put the missing image back into the folder, or use an older point: `aiv list \
                   DIR` shows which can be restored",
        }),
        Error::Busy { .. } => failed("busy", "wait until the other merge or copy is done"),
        Error::NoSpace { .. } => failed(
            DISK_FULL,
            "nothing was removed and nothing was published: make room, or keep more points",
        ),
        Error::SplitSize { .. } => {
            refused("split_size", "nothing was written: give a larger size with --split")
        }
        Error::ReadBack { .. } => failed(
            "read_back",
            "nothing was published; the destination returns other bytes than it was given",
        ),
        Error::NoChain { .. } => Some(salvage::NO_CHAIN),
        Error::Changed { .. } => failed("changed", "run it again"),
        Error::InDoubt { .. } => {
            failed("in_doubt", "nothing was removed: mend or move that file away, then try again")
        }
        Error::Needed { .. } => {
            refused("point_needed", "nothing was written: copy instead, or move the whole folder")
        }
        Error::SameFolder => refused("same_folder", "choose another folder"),
        Error::NoSuchPoint { .. } => {
            failed("no_such_point", "`aiv list DIR` shows what the folder holds")
        }
        Error::Ambiguous { .. } => {
            failed("ambiguous", "name the set, as in DIR@NAME:latest, or give more of the id")
        }
        _ => None,
    }
}
