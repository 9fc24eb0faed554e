//! The key slots of an image: what they are is the business of `aiv-keys`, where they are and
//! that they belong here that of this crate.

use aiv_keys::{ChainKey, KeyArea};
use aiv_volume_io::ReadAt;

use super::{Mode, Seal};
use crate::error::{Error, Fault, Result, Section};
use crate::image::{Image, slot_places};
use crate::layout::Superblock;

impl Image {
    /// Both copies of the key-slot area, 32 KiB each, the one behind the superblock first; `None`
    /// when there is no such area. What they hold is not checked here. One that cannot be read is
    /// damaged as any other, and empty: the image is opened by the other one.
    ///
    /// # Errors
    /// [`Error::Io`] when neither can be read.
    pub fn slot_copies(&self) -> Result<Option<[Box<[u8]>; 2]>> {
        let Ok(len) = usize::try_from(self.superblock().slot_area_len()) else { return Ok(None) };
        if len == 0 {
            return Ok(None);
        }
        let [first, second] = self.slot_places().map(|offset| {
            let mut bytes = vec![0; len].into_boxed_slice();
            let read = self.file.read_exact_at(&mut bytes, offset);
            read.map(|()| bytes).map_err(Error::io("read key slots", offset))
        });
        Ok(Some(match (first, second) {
            (Err(error), Err(_)) => return Err(error),
            (first, second) => [first, second].map(std::result::Result::unwrap_or_default),
        }))
    }

    /// Where the two copies of the key-slot area are: the only bytes of an image that may be
    /// rewritten. Meaningless without such an area.
    #[must_use]
    pub fn slot_places(&self) -> [u64; 2] {
        slot_places(self.superblock().features, self.trailer())
    }

    /// How an image is sealed that builds on this one or takes its place: with the same key, in
    /// the same mode, with the newest key slots that somebody with the key made; `None` for an
    /// image without a key. `nonce_salt` is that of the process; there is no padding.
    ///
    /// # Errors
    /// [`Error::Locked`] when the key was not given; [`Error::Corrupt`] when neither copy of the
    /// key slots can be used: who copied them would lock people out. [`Error::Io`].
    pub fn seal(&self, nonce_salt: u32) -> Result<Option<Seal>> {
        let superblock = self.superblock();
        if !superblock.is_keyed() {
            return Ok(None);
        }
        let Some(key) = &self.key else {
            return Err(Error::Locked { commitment: superblock.key_commitment });
        };
        let mut seal = Seal::new(key.clone(), nonce_salt);
        if !superblock.is_sealed() {
            seal.mode = Mode::Authenticated;
        }
        if let Some([first, second]) = self.slot_copies()? {
            let damaged = |error| fault(error).at(Section::KeySlots, self.slot_places()[0]);
            let areas = KeyArea::sound([&first, &second]).map_err(damaged)?;
            let ours = areas.iter().find(|area| area.prove(key).is_ok());
            let ours = ours.ok_or_else(|| damaged(aiv_keys::Error::Forged))?;
            seal.slots = Some(ours.to_bytes().into_boxed_slice());
        }
        Ok(Some(seal))
    }

    /// What is wrong with the copies of the key-slot area: each is proven by its own checksum
    /// and, where the key is there, by its code. They may differ after a change that was cut off.
    pub(crate) fn check_slots(&self) -> Result<Vec<Error>> {
        let Some(copies) = self.slot_copies()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (bytes, offset) in copies.iter().zip(self.slot_places()) {
            let fault = fault_of_slots(bytes, self.superblock(), self.key.as_ref());
            found.extend(fault.map(|fault| fault.at(Section::KeySlots, offset)));
        }
        Ok(found)
    }
}

/// What is wrong with a copy of the key-slot area of an image.
pub(crate) fn fault_of_slots(
    bytes: &[u8],
    superblock: &Superblock,
    key: Option<&ChainKey>,
) -> Option<Fault> {
    if bytes.is_empty() {
        return Some(Fault::Slots("it cannot be read".to_owned()));
    }
    let checked = KeyArea::parse(bytes).and_then(|area| match key {
        Some(key) => area.prove(key),
        None if *area.commitment() == superblock.key_commitment.0 => Ok(()),
        None => Err(aiv_keys::Error::Forged),
    });
    checked.err().map(fault)
}

/// What is wrong with the key slots, without saying once more that they are damaged.
fn fault(error: aiv_keys::Error) -> Fault {
    Fault::Slots(match error {
        aiv_keys::Error::Damaged(damage) => damage.to_string(),
        other => other.to_string(),
    })
}
