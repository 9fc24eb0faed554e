//! Changes of who can open the images of a chain.

use aiv_chain::{SlotReport, change_slots};
use aiv_keys::{Cost, Credential, KeyArea, NewSlot, Opened, RecipientKey, RecoveryCode, Way};
use aiv_volume_io::{Job, Storage};

use crate::backup::random;
use crate::error::{Refusal, Result};
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
        let way = self.way(&mut public);
        Ok(KeyArea::new(key, &NewSlot { way, label, created_unix_ms, random: &bytes })?)
    }

    fn way<'a>(&'a self, public: &'a mut Option<RecipientKey>) -> Way<'a> {
        match self {
            Self::Credential(credential) => Way::of(credential, Cost::DEFAULT, public),
            Self::Recipient(recipient) => Way::Recipient(recipient),
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

/// Changes the slots of all images of the chains that were opened; people call a new one `label`.
///
/// # Errors
/// [`Refusal::OneSlotOfMany`], [`crate::Error::Random`], and those of
/// [`change_slots`] for the first chain that cannot be changed at all.
pub fn change_keys(
    storage: &dyn Storage,
    opened: &[Opened],
    change: &KeyChange,
    label: &str,
    world: &dyn World,
    job: Job<'_>,
) -> Result<Vec<SlotReport>> {
    if opened.len() > 1 && matches!(change, KeyChange::Remove(_)) {
        return Err(Refusal::OneSlotOfMany.into());
    }
    let created_unix_ms = world.now_unix_ms();
    let mut reports = Vec::new();
    for one in opened {
        let bytes = random(world)?;
        let key = &one.key;
        let apply = |area: &KeyArea| {
            let mut public = None;
            match change {
                KeyChange::Add(new) | KeyChange::Replace(new) => {
                    let way = new.way(&mut public);
                    let slot = NewSlot { way, label, created_unix_ms, random: &bytes };
                    match change {
                        KeyChange::Replace(_) => area.change(key, one.slot, &slot),
                        _ => area.add(key, &slot).map(|(area, _)| area),
                    }
                }
                KeyChange::Remove(slot) => area.remove(key, *slot),
                KeyChange::Retire => area.retire(key),
            }
        };
        reports.push(change_slots(storage, key, &apply, job)?);
    }
    Ok(reports)
}
