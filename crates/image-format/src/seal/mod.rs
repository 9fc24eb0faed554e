//! Sealed and authenticated images: what is encrypted, under which key, and what a program can
//! do without one. `docs/format.md` section 15 is normative.
//!
//! No pair of key and nonce is used twice: keys follow from the session, which is new for every
//! run of a writer, and nonces from the number of the frame in it or the page in its section.

mod access;
mod padding;
mod queue;
mod slots;

pub(crate) use access::{Access, SealKey};
pub(crate) use padding::padded;
pub(crate) use queue::{Queue, SealJob};
pub(crate) use slots::fault_of_slots;

use aiv_keys::ChainKey;

use crate::error::{Error, Result};
use crate::ids::{Digest, ImageId, SessionTag};
use crate::layout::{Features, Superblock};
use crate::limits::SLOT_AREA_LEN;

/// What the chain key does for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Blocks, index, hashes and META are encrypted and authenticated.
    Sealed,
    /// Everything is clear, and the trailer, which proves every stored byte, is authenticated.
    Authenticated,
}

/// How a new image is sealed or authenticated.
#[derive(Debug, Clone)]
pub struct Seal {
    /// The key of the chain: that of the parent's image, or a fresh random one for a full image.
    pub key: ChainKey,
    /// What the key does.
    pub mode: Mode,
    /// Random for each process that writes: part of every nonce.
    pub nonce_salt: u32,
    /// Whether sizes are rounded up, by at most 12 %, so that they tell less about contents.
    pub padding: bool,
    /// The key-slot area, 32 KiB: the chain key wrapped for those who may open the image.
    /// `None` for an image whose key is kept elsewhere.
    pub slots: Option<Box<[u8]>>,
}

impl Seal {
    /// A sealed image without padding and key slots.
    #[must_use]
    pub const fn new(key: ChainKey, nonce_salt: u32) -> Self {
        Self { key, mode: Mode::Sealed, nonce_salt, padding: false, slots: None }
    }

    /// Marks `superblock` as that of an image of this sort.
    ///
    /// # Errors
    /// [`Error::Misuse`] for key slots of a wrong size.
    pub fn mark(&self, superblock: &mut Superblock) -> Result<()> {
        if self.slots.as_ref().is_some_and(|slots| slots.len() as u64 != SLOT_AREA_LEN) {
            return Err(Error::Misuse("a key-slot area of another size than 32 KiB"));
        }
        superblock.features.incompat |= match self.mode {
            Mode::Sealed => Features::SEALED,
            Mode::Authenticated => Features::AUTHENTICATED,
        };
        if self.slots.is_some() {
            superblock.features.incompat |= Features::KEY_SLOTS;
        }
        superblock.key_commitment = Digest(self.key.commitment());
        Ok(())
    }

    /// What the writer encrypts with.
    pub(crate) fn access(&self, image: ImageId, session: SessionTag) -> Access {
        match self.mode {
            Mode::Sealed => Access::open(&self.key, image, session),
            Mode::Authenticated => Access::Clear,
        }
    }
}

impl SessionTag {
    /// A tag that does not come again even where random numbers do, as in a virtual machine that
    /// was set back or copied: from random bytes, the time in nanoseconds, what names process
    /// and machine start (`place`), the image, and the state it builds on.
    #[must_use]
    pub fn hedged(
        random: &[u8; 32],
        time_ns: u128,
        place: &str,
        image: ImageId,
        parent_root: Option<Digest>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(random);
        hasher.update(&time_ns.to_le_bytes());
        hasher.update(&(place.len() as u64).to_le_bytes());
        hasher.update(place.as_bytes());
        hasher.update(&image.0);
        hasher.update(&parent_root.unwrap_or_default().0);
        let mut tag = Self::default();
        tag.0.copy_from_slice(&hasher.finalize().as_bytes()[..12]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_tag_differs_when_the_random_numbers_come_again() {
        let random = [7; 32];
        let tag = |time, place, image, root| {
            SessionTag::hedged(&random, time, place, ImageId([image; 16]), root)
        };
        let first = tag(1, "1234/boot", 1, None);
        assert_eq!(first, tag(1, "1234/boot", 1, None));
        for other in [
            tag(2, "1234/boot", 1, None),
            tag(1, "1235/boot", 1, None),
            tag(1, "1234/boot", 2, None),
            tag(1, "1234/boot", 1, Some(Digest([1; 32]))),
            SessionTag::hedged(&[8; 32], 1, "1234/boot", ImageId([1; 16]), None),
        ] {
            assert_ne!(first, other);
        }
    }
}
