//! The secret of a chain, and the one way anything is derived from it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a chain key and of everything derived from one.
pub const KEY_SIZE: usize = 32;

/// What a derived value is for: no value of one purpose ever stands for one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Stands in the superblock and proves that a key is the right one; not secret.
    KeyCommitment,
    /// Key of the frames of one session.
    SessionFrames,
    /// Key of the index and tree pages of one image.
    IndexPages,
    /// Authenticates the trailer.
    TrailerMac,
    /// Stands in clear fields instead of a root.
    ClearRoot,
    /// Authenticates the key-slot area.
    SlotAreaMac,
    /// Lets a writer recognise an image it began.
    SourceToken,
}

impl Purpose {
    /// The 32 ASCII bytes in front of what is hashed.
    #[must_use]
    pub const fn bytes(self) -> &'static [u8; KEY_SIZE] {
        match self {
            Self::KeyCommitment => b"aivory draft: key commitment    ",
            Self::SessionFrames => b"aivory draft: session frame key ",
            Self::IndexPages => b"aivory draft: index page key    ",
            Self::TrailerMac => b"aivory draft: trailer mac       ",
            Self::ClearRoot => b"aivory draft: clear root        ",
            Self::SlotAreaMac => b"aivory draft: slot area mac     ",
            Self::SourceToken => b"aivory draft: source token      ",
        }
    }
}

/// 32 secret bytes: overwritten when dropped, never shown, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; KEY_SIZE]);

impl Secret {
    /// The bytes as a secret. The caller's own copy is the caller's to overwrite.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_SIZE]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves: for ciphers, never for people.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }
}

impl PartialEq for Secret {
    /// In a time that does not depend on the bytes: that is how BLAKE3 compares its hashes.
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The secret of a chain: 32 random bytes, kept by its increments, merges and copies.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChainKey(Secret);

impl ChainKey {
    /// The key of these bytes, which must be random.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_SIZE]) -> Self {
        Self(Secret(bytes))
    }

    /// The bytes themselves: to be wrapped into a key slot, never for people.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_SIZE] {
        self.0.expose()
    }

    /// What follows from this key for `purpose` and `info`: BLAKE3, keyed with the chain key,
    /// over the purpose and the parts of `info` one behind the other. For one purpose `info`
    /// must have one length, or one unambiguous form.
    #[must_use]
    pub fn derive(&self, purpose: Purpose, info: &[&[u8]]) -> Secret {
        let mut hasher = blake3::Hasher::new_keyed(self.expose());
        hasher.update(purpose.bytes());
        for part in info {
            hasher.update(part);
        }
        let secret = Secret(*hasher.finalize().as_bytes());
        hasher.zeroize();
        secret
    }

    /// What stands in the superblock of every image of the chain: proves that a key is the right
    /// one before anything is decrypted with it, and says nothing about the key.
    #[must_use]
    pub fn commitment(&self) -> [u8; KEY_SIZE] {
        *self.derive(Purpose::KeyCommitment, &[]).expose()
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Purpose; 6] = [
        Purpose::KeyCommitment,
        Purpose::SessionFrames,
        Purpose::IndexPages,
        Purpose::TrailerMac,
        Purpose::ClearRoot,
        Purpose::SlotAreaMac,
    ];

    fn key() -> ChainKey {
        ChainKey::new(*b"0123456789abcdef0123456789ABCDEF")
    }

    #[test]
    fn a_derived_value_is_keyed_blake3_over_purpose_and_info() {
        let derived = key().derive(Purpose::SessionFrames, &[b"tag", b"number"]);
        let mut input = b"aivory draft: session frame key ".to_vec();
        input.extend_from_slice(b"tagnumber");
        let expected = blake3::keyed_hash(key().expose(), &input);
        assert_eq!(derived.expose(), expected.as_bytes());
        let commitment = blake3::keyed_hash(key().expose(), b"aivory draft: key commitment    ");
        assert_eq!(&key().commitment(), commitment.as_bytes());
    }

    #[test]
    fn no_two_purposes_give_the_same_value() {
        for (i, one) in ALL.iter().enumerate() {
            for other in &ALL[i + 1..] {
                assert_ne!(key().derive(*one, &[b"x"]), key().derive(*other, &[b"x"]));
            }
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", key()), "ChainKey(..)");
        assert_eq!(format!("{:?}", key().derive(Purpose::TrailerMac, &[])), "Secret(..)");
    }

    #[test]
    fn keys_are_equal_exactly_when_all_bytes_are() {
        assert_eq!(key(), key());
        for at in 0..KEY_SIZE {
            let mut bytes = *key().expose();
            bytes[at] ^= 1;
            assert_ne!(ChainKey::new(bytes), key());
        }
    }

    #[test]
    fn a_zeroed_key_holds_zeros() {
        let mut key = key();
        key.zeroize();
        assert_eq!(key.expose(), &[0; KEY_SIZE]);
    }
}
