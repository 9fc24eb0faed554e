//! Changes of who can open the images of a chain.

use aiv_chain::{Digest, SlotReport, make_slots};
use aiv_keys::{Cost, Credential, KeyArea, NewSlot, Opened, RecipientKey, RecoveryCode, Way};
use aiv_volume_io::{Job, Storage};

use crate::backup::random;
use crate::error::{Error, Refusal, Result};
use crate::world::World;

/// What becomes a way in.
#[derive(Debug, Clone)]
pub enum NewKey {
    /// Something the user has.
    Credential(Credential),
    /// Whoever has the secret key to this public one.
    Recipient(RecipientKey),
}

impl NewKey {
    /// A recovery code nobody has seen yet.
    ///
    /// # Errors
    /// [`crate::Error::Random`].
    pub fn recovery_code(world: &dyn World) -> Result<RecoveryCode> {
        Ok(RecoveryCode::new(random(world)?))
    }

    /// Slots for a new chain.
    ///
    /// # Errors
    /// [`crate::Error::Random`], [`crate::Error::Key`].
    pub fn first_slot(
        &self,
        key: &aiv_keys::ChainKey,
        label: &str,
        world: &dyn World,
    ) -> Result<KeyArea> {
        let bytes = random(world)?;
        let created_unix_ms = world.now_unix_ms();
        let mut public = None;
        let way = self.way(&mut public)?;
        Ok(KeyArea::new(key, &NewSlot { way, label, created_unix_ms, random: &bytes })?)
    }

    fn way<'a>(
        &'a self,
        public: &'a mut Option<RecipientKey>,
    ) -> std::result::Result<Way<'a>, aiv_keys::Error> {
        match self {
            Self::Credential(credential) => Way::of(credential, Cost::DEFAULT, public),
            Self::Recipient(recipient) => Ok(Way::Recipient(recipient)),
        }
    }
}

/// What changes.
#[derive(Debug, Clone)]
pub enum KeyChange {
    /// One way in more.
    Add(NewKey),
    /// Another one in the place of the one that opened the chain.
    Replace(NewKey),
    /// One less, by its number.
    Remove(u8),
    /// No new image gets the key: the next backup is full, and has a key of its own.
    Retire,
}

/// What became of a change of one or several chains.
#[derive(Debug)]
pub struct KeyChanges {
    /// The chains that were changed, as far as their files could be written.
    pub done: Vec<SlotReport>,
    /// What ended it before it came to all.
    pub failed: Option<Error>,
    /// What stands for the keys of chains that it did not come to.
    pub untouched: Vec<Digest>,
}

/// Changes the slots of all images of the chains that were opened, one after the other; people
/// call a new one `label`.
///
/// # Errors
/// [`Refusal::OneSlotOfMany`], [`Error::Random`], and those of [`make_slots`] when nothing was
/// changed yet: what comes later is in the value.
pub fn change_keys(
    storage: &dyn Storage,
    opened: &[Opened],
    change: &KeyChange,
    label: &str,
    world: &dyn World,
    job: Job<'_>,
) -> Result<KeyChanges> {
    if opened.len() > 1 && matches!(change, KeyChange::Remove(_)) {
        return Err(Refusal::OneSlotOfMany.into());
    }
    let mut changes = KeyChanges { done: Vec::new(), failed: None, untouched: Vec::new() };
    for one in opened {
        if changes.failed.is_some() {
            changes.untouched.push(Digest(one.key.commitment()));
            continue;
        }
        match change_one(storage, one, change, label, world, job) {
            Ok(report) => {
                if report.canceled {
                    changes.failed =
                        job.check().err().map(|canceled| Error::Chain(canceled.into()));
                }
                changes.done.push(report);
            }
            Err(error) if changes.done.is_empty() => return Err(error),
            Err(error) => {
                changes.failed = Some(error);
                changes.untouched.push(Digest(one.key.commitment()));
            }
        }
    }
    Ok(changes)
}

fn change_one(
    storage: &dyn Storage,
    one: &Opened,
    change: &KeyChange,
    label: &str,
    world: &dyn World,
    job: Job<'_>,
) -> Result<SlotReport> {
    let created_unix_ms = world.now_unix_ms();
    let bytes = random(world)?;
    let key = &one.key;
    let apply = |area: std::result::Result<&KeyArea, aiv_keys::Error>| {
        let mut public = None;
        match change {
            KeyChange::Add(new) => {
                let way = new.way(&mut public)?;
                let slot = NewSlot { way, label, created_unix_ms, random: &bytes };
                match area {
                    Ok(area) => area.add(key, &slot).map(|(area, _)| area),
                    // A paper key opened what has no slots any more.
                    Err(_) => KeyArea::anew(key, &slot),
                }
            }
            KeyChange::Replace(new) => {
                let area = area?;
                let number = replaceable(one, area)?;
                let way = new.way(&mut public)?;
                let slot = NewSlot { way, label, created_unix_ms, random: &bytes };
                area.change(key, number, &slot)
            }
            KeyChange::Remove(slot) => area?.remove(key, *slot),
            KeyChange::Retire => area?.retire(key),
        }
    };
    Ok(make_slots(storage, key, &apply, job)?)
}

/// The slot that was opened, where `area`, which has the newest ones, has it still.
fn replaceable(one: &Opened, area: &KeyArea) -> std::result::Result<u8, aiv_keys::Error> {
    let Some((number, opened)) = &one.through else {
        return Err(aiv_keys::Error::Unusable(
            "a paper key is in no slot that could be changed: add another way in, and remove the \
             one that is not to be",
        ));
    };
    // Of an earlier change that did not reach all: by now the slot may be somebody else's.
    if area.slot(*number)? != opened.slot(*number)? {
        return Err(aiv_keys::Error::Unusable(
            "what was given opens older slots only: it is no way in any more that could be replaced",
        ));
    }
    Ok(*number)
}
