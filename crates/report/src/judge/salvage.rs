//! What it means when nothing can be salvaged.

use aiv_image_format::Unsalvageable;

use super::{SEALED, failed};
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
        Unsalvageable::Sealed | Unsalvageable::SealedFrames { .. } => Some(Verdict {
            code: SEALED,
            exit: Exit::Locked,
            hint: "give what opens it: --password-file, --key-file or --recovery-code-file; without \
                   its key `aiv verify --repair --to DIR` makes it whole again where its parity or \
                   another copy (`--from DIR`) has what is lost",
        }),
        Unsalvageable::NoSlots => Some(Verdict {
            code: "no_slots",
            exit: Exit::Locked,
            hint: "the key slots of any other image of the chain do: lay it beside the file, or name \
                   its folder with --parent; the paper key (--recovery-code-file) needs none, but for \
                   a new image, which takes them from there or is written with --plain",
        }),
        Unsalvageable::Nothing => failed("nothing_left", "look for another copy of the file"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_image_ends_as_everything_that_lacks_a_key_and_with_a_way_on() {
        for error in [Unsalvageable::Sealed, Unsalvageable::SealedFrames { count: 3 }] {
            let verdict = judge_salvage(&error).unwrap();
            assert_eq!((verdict.code, verdict.exit.status()), ("sealed", 6));
            assert!(verdict.hint.contains("--repair") && verdict.hint.contains("--key-file"));
        }
        let verdict = judge_salvage(&Unsalvageable::NoSlots).unwrap();
        assert_eq!((verdict.code, verdict.exit.status()), ("no_slots", 6));
        assert_eq!(judge_salvage(&Unsalvageable::Nothing).unwrap().exit.status(), 1);
    }
}
