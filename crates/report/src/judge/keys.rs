//! What an error about keys means.

use aiv_keys::{Error, SlotKind};

use super::{failed, refused};
use crate::failure::{Exit, Verdict};

const fn locked(code: &'static str, hint: &'static str) -> Option<Verdict> {
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
        Error::Forged => Some(Verdict {
            code: "key_slots_forged",
            exit: Exit::Damage,
            hint: "somebody without the key changed this file; use another copy, and `aiv verify` \
                   with the key",
        }),
        Error::Damaged(_) => Some(Verdict {
            code: "key_slots_damaged",
            exit: Exit::Damage,
            hint: "every image of the chain has the same slots; another copy of the file has, too",
        }),
        Error::TooMuchWork { .. } | Error::NoMemory { .. } | Error::Cost { .. } => locked(
            "key_too_costly",
            "the file asks for more work than honest ones do; use a key file or the recovery code",
        ),
        Error::LastSlot(_) => refused("last_slot", "add another way in first: `aiv key add`"),
        Error::Full(_) => refused("slots_full", "remove one that is not needed: `aiv key remove`"),
        Error::NoSlot(_) => refused("no_such_slot", "`aiv key list` shows their numbers"),
        Error::Unusable(_) => refused("unusable_key", "nothing was changed"),
        Error::Text(_) => locked("mistyped_key", "compare it with the paper, group by group"),
        _ => failed("key", "the message names the cause"),
    }
}
