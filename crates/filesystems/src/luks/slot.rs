//! One key slot.

use aiv_volume_io::{Extent, ReadAt};
use zeroize::Zeroizing;

use super::cipher::{Cipher, Spec};
use super::hash::Hash;
use super::stretch::{Stretch, Work};
use super::{KEY_MAX, SECTOR, split};
use crate::{Error, Result};

/// Stripes of a key: cryptsetup always makes as many.
const STRIPES_MAX: u32 = 4000;

/// The volume key, for one passphrase.
pub(super) struct Slot {
    pub(super) stretch: Stretch,
    pub(super) cipher: Spec,
    /// Bytes of the key it is encrypted with.
    pub(super) wrapping_len: usize,
    /// Where its stripes begin.
    pub(super) start: u64,
    pub(super) stripes: u32,
    pub(super) hash: Hash,
    /// Bytes of the volume key.
    pub(super) key_len: usize,
}

impl Slot {
    /// The same, when it can be read: its stripes are few, and lie in the volume.
    pub(super) fn checked(self, volume_len: u64) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(format!("a key slot {what}"), Some(self.start));
        if !(1..=STRIPES_MAX).contains(&self.stripes) {
            return Err(damaged("has more or fewer stripes than slots have"));
        }
        if !(1..=KEY_MAX).contains(&self.key_len) {
            return Err(damaged("has a volume key of a length that is none"));
        }
        self.cipher.check(self.wrapping_len)?;
        if self.area().is_none_or(|area| area.end() > volume_len) {
            return Err(damaged("reaches behind the end of the volume"));
        }
        Ok(self)
    }

    /// Bytes of its stripes.
    pub(super) fn len(&self) -> u64 {
        (self.key_len as u64).saturating_mul(self.stripes.into())
    }

    /// Its stripes, in whole sectors.
    fn area(&self) -> Option<Extent> {
        let len = self.len().checked_next_multiple_of(SECTOR)?;
        self.start.checked_add(len)?;
        Some(Extent::new(self.start, len))
    }

    /// What the slot gives for this passphrase: a volume key, maybe the right one.
    pub(super) fn open(
        &self,
        volume: &dyn ReadAt,
        secret: &[u8],
        work: &mut Work,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut key = Zeroizing::new(vec![0; self.wrapping_len]);
        self.stretch.run(secret, &mut key, work)?;
        let cipher = Cipher::new(&self.cipher, &key)?;
        let area = self.area().ok_or_else(|| Error::damaged("a key slot is too long", None))?;
        let mut material = Zeroizing::new(super::record(
            volume,
            area.start,
            usize::try_from(area.len).unwrap_or(usize::MAX),
        )?);
        for (number, sector) in (0..).zip(material.chunks_exact_mut(512)) {
            cipher.decrypt(number, sector);
        }
        let len = usize::try_from(self.len()).unwrap_or(usize::MAX).min(material.len());
        Ok(split::merge(&material[..len], self.key_len, self.hash))
    }
}
