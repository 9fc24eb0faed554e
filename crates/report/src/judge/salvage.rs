//! What it means when nothing can be salvaged.

use aiv_image_format::Unsalvageable;

use super::failed;
use crate::failure::{Exit, Verdict};

/// Files that are no chain.
pub(super) const NO_CHAIN: Verdict = Verdict {
    code: "no_chain",
    exit: Exit::Failed,
    hint: "name the files of one chain, or salvage them one by one",
};

pub(super) fn judge_salvage(error: &Unsalvageable) -> Option<Verdict> {
    match error {
        Unsalvageable::Length { .. } => {
            failed("size_needed", "give the size of the disk with --size, if it is known")
        }
        Unsalvageable::BlockSize => {
            failed("size_needed", "give the size of a block with --block-size; 64K is usual")
        }
        Unsalvageable::Nothing => failed("nothing_left", "look for another copy of the file"),
        _ => None,
    }
}
