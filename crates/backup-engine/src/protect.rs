//! With which key an image is sealed: that of the chain it builds on, else a new one, else that
//! of the images that are there. A source whose images have a key never gets one without.

use aiv_chain::{Point, PointState, Protection, Set};
use aiv_image_format::{Digest, Image, Mode, Seal, SessionTag};
use aiv_volume_io::Storage;

use crate::error::{Error, Refusal, Result};
use crate::facts::BackupOptions;
use crate::parent::Parent;

impl BackupOptions {
    /// Whether an image can build on a point that is protected like this.
    pub(crate) fn can_build_on(&self, protection: Protection) -> bool {
        let Some(seal) = &self.seal else { return true };
        let key = Digest(seal.key.commitment());
        protection
            == match seal.mode {
                Mode::Sealed => Protection::Sealed(key),
                Mode::Authenticated => Protection::Authenticated(key),
            }
    }

    /// Refuses to go on without the key of what was written last.
    pub(crate) fn refuse_locked(&self, set: Option<&Set>) -> Result<()> {
        let points = set.map_or(&[][..], |set| &set.points);
        // The numbers of locked images are not known. A clock that was wrong refuses at worst.
        let newest = points.iter().max_by_key(|point| point.time_unix_ms);
        match (&self.seal, newest.map(|point| &point.state)) {
            (None, Some(PointState::Locked { key })) => Err(locked(key)),
            _ => Ok(()),
        }
    }

    /// How the image of `session` is sealed that builds on `parent`.
    pub(crate) fn seal_of(
        &self,
        parent: Option<&Parent>,
        set: Option<&Set>,
        storage: &dyn Storage,
        session: SessionTag,
        image: &str,
    ) -> Result<Option<Seal>> {
        // Each session has a key of its own, and no two have one tag: that is where no nonce
        // comes again.
        let [a, b, c, d, ..] = session.0;
        let nonce_salt = u32::from_le_bytes([a, b, c, d]);
        let seal = match (parent, &self.seal) {
            (Some(parent), _) => {
                let found = parent.view.image().seal(nonce_salt);
                found.map_err(|source| Error::of_image(image, source))?
            }
            (None, Some(seal)) => Some(Seal { nonce_salt, ..seal.clone() }),
            (None, None) => self.seal_of_set(set, storage, nonce_salt)?,
        };
        Ok(seal.map(|seal| Seal { padding: self.padding, ..seal }))
    }

    /// The key of the newest image of a set whose key slots can be used.
    fn seal_of_set(
        &self,
        set: Option<&Set>,
        storage: &dyn Storage,
        nonce_salt: u32,
    ) -> Result<Option<Seal>> {
        let points = set.map_or(&[][..], |set| &set.points);
        let keyed = |point: &&Point| point.protection.key().is_some();
        for point in points.iter().rev().filter(keyed) {
            let Ok(file) = storage.open(&point.file) else { continue };
            let seal = Image::open_with(file, &self.keys).and_then(|image| image.seal(nonce_salt));
            if let Ok(Some(seal)) = seal {
                return Ok(Some(seal));
            }
        }
        match points.iter().rev().find(keyed).and_then(|point| point.protection.key()) {
            None => Ok(None),
            Some(key) => Err(locked(&key)),
        }
    }
}

fn locked(key: &Digest) -> Error {
    let key = key.0[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    Refusal::Locked { key }.into()
}
