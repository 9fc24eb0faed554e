//! The hashes a header may name.

use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::{shown, unsupported};
use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "sha1" => Self::Sha1,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            other => return Err(unsupported(format!("the hash {} is not known", shown(other)))),
        })
    }

    /// Bytes of a digest.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of some parts one behind the other.
    pub(super) fn digest(self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        fn of<D: Digest>(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
            let mut hash = D::new();
            parts.iter().for_each(|part| hash.update(part));
            Zeroizing::new(hash.finalize().to_vec())
        }
        match self {
            Self::Sha1 => of::<Sha1>(parts),
            Self::Sha256 => of::<Sha256>(parts),
            Self::Sha384 => of::<Sha384>(parts),
            Self::Sha512 => of::<Sha512>(parts),
        }
    }

    /// PBKDF2 with HMAC of this hash (RFC 8018).
    pub(super) fn pbkdf2(self, secret: &[u8], salt: &[u8], rounds: u32, out: &mut [u8]) {
        match self {
            Self::Sha1 => pbkdf2_hmac::<Sha1>(secret, salt, rounds, out),
            Self::Sha256 => pbkdf2_hmac::<Sha256>(secret, salt, rounds, out),
            Self::Sha384 => pbkdf2_hmac::<Sha384>(secret, salt, rounds, out),
            Self::Sha512 => pbkdf2_hmac::<Sha512>(secret, salt, rounds, out),
        }
    }
}
