//! What an error about keys means.

use aiv_chain::PointState;
use aiv_image_format::Error as ImageError;
use aiv_keys::{Error, SlotKind, TextError};

use super::{LOCKED, failed, refused};
use crate::failure::{Exit, Verdict};

/// For what a key would open.
const NEEDS_KEY: Verdict = Verdict {
    code: LOCKED,
    exit: Exit::Locked,
    hint: "name a file with --password-file, --key-file or --recovery-code-file",
};

/// For a point that was named by its age where points are locked.
const AGE_UNKNOWN: Verdict = Verdict {
    hint: "give what opens them (--password-file, --key-file, --recovery-code-file), or name a \
           point by its id: `aiv list DIR --json`",
    ..NEEDS_KEY
};

/// For a move that would have to tell two locked files apart.
const LOCKED_THERE: Verdict = Verdict {
    hint: "nothing was removed; give what opens it: --password-file, --key-file or \
           --recovery-code-file",
    ..NEEDS_KEY
};

/// For a move to where only older key slots are.
const SLOTS_BEHIND: Verdict = Verdict {
    code: "slots_behind",
    exit: Exit::Refused,
    hint: "nothing was removed: make the change in both folders with `aiv key`, or copy an image file \
           with the newest slots into the destination under another name, then try again",
};

pub(super) fn judge_chain(error: &aiv_chain::Error) -> Option<Verdict> {
    use aiv_chain::Error;
    match error {
        Error::NotRestorable { state: PointState::Locked { .. }, .. } => Some(NEEDS_KEY),
        Error::AgeUnknown { .. } => Some(AGE_UNKNOWN),
        Error::LockedThere { .. } => Some(LOCKED_THERE),
        Error::SlotsBehind { .. } => Some(SLOTS_BEHIND),
        _ => None,
    }
}

pub(super) fn judge_image(error: &ImageError) -> Option<Verdict> {
    match error {
        ImageError::Locked { .. } => Some(NEEDS_KEY),
        ImageError::WrongKey { .. } => {
            locked("wrong_key", "`aiv key list` shows which images have which key")
        }
        ImageError::Forged { .. } => Some(Verdict {
            code: "forged",
            exit: Exit::Damage,
            hint: "do not use this file; another copy of it may be sound",
        }),
        ImageError::NotKeyed => Some(Verdict {
            code: "not_keyed",
            exit: Exit::Damage,
            hint: "if this image never was sealed or authenticated, give no key for it",
        }),
        _ => None,
    }
}

pub(super) const fn locked(code: &'static str, hint: &'static str) -> Option<Verdict> {
    Some(Verdict { code, exit: Exit::Locked, hint })
}

pub(super) fn judge_key(error: &Error) -> Option<Verdict> {
    match error {
        Error::WrongKey { kind: SlotKind::Passphrase, .. } => locked(
            "wrong_key",
            "nothing was changed; mind Caps Lock and the keyboard's layout, or use another way in: \
             a key file or the recovery code",
        ),
        Error::WrongKey { .. } => {
            locked("wrong_key", "nothing was changed; `aiv key list` shows the ways in")
        }
        Error::OtherChain => locked(
            "wrong_key",
            "nothing was changed; the sheet says of which key it is, `aiv key list` which images have it; \
             if they have, compare what was typed with the paper, group by group",
        ),
        Error::NoSlots => Some(Verdict {
            code: "key_slots_lost",
            exit: Exit::Damage,
            hint: "make them anew first: `aiv key add DIR --recovery-code-file FILE`, with the paper key",
        }),
        Error::Forged => Some(Verdict {
            code: "key_slots_forged",
            exit: Exit::Damage,
            hint: "somebody without the key changed this file; use another copy, and `aiv verify` \
                   with the key",
        }),
        Error::Damaged(_) => Some(Verdict {
            code: "key_slots_damaged",
            exit: Exit::Damage,
            hint: "every image of the chain has the same slots; of another copy of the file they are taken \
                   by `aiv verify FILE --repair --to DIR --from DIR`, for which no key is needed; who has \
                   the paper key makes them anew: `aiv key add DIR --recovery-code-file FILE`",
        }),
        Error::TooMuchWork { .. } | Error::NoMemory { .. } | Error::Cost { .. } => locked(
            "key_too_costly",
            "the file asks for more work than honest ones do; use a key file or the recovery code",
        ),
        Error::LastSlot(_) => refused("last_slot", "add another way in first: `aiv key add`"),
        Error::Full(_) => refused("slots_full", "remove one that is not needed: `aiv key remove`"),
        Error::NoSlot(_) => refused("no_such_slot", "`aiv key list` shows their numbers"),
        Error::Unusable(_) => refused("unusable_key", "nothing was changed"),
        Error::Text(TextError::Secret) => locked(
            "mistyped_key",
            "give the public key instead, which begins with aiv-public-: the file with the secret \
             one names it, and it stays with its owner",
        ),
        Error::Text(TextError::Public) => locked(
            "mistyped_key",
            "give the file with the secret key, as `aiv key new-recipient` made it",
        ),
        Error::Text(_) => locked("mistyped_key", "compare it with the paper, group by group"),
        _ => failed("key", "the message names the cause"),
    }
}
