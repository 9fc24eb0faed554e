//! The keys a reader has at hand.

use crate::chain_key::{ChainKey, KEY_SIZE};

/// Chain keys by what stands for them in images: a reader takes the one an image asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<([u8; KEY_SIZE], ChainKey)>,
    is_required: bool,
}

impl Keys {
    /// No key: images that are sealed stay locked.
    #[must_use]
    pub const fn none() -> Self {
        Self { keys: Vec::new(), is_required: false }
    }

    /// One key.
    #[must_use]
    pub fn of(key: ChainKey) -> Self {
        let mut keys = Self::none();
        keys.add(key);
        keys
    }

    /// Adds a key; one that is there already is not added again.
    pub fn add(&mut self, key: ChainKey) {
        let commitment = key.commitment();
        if self.find(&commitment).is_none() {
            self.keys.push((commitment, key));
        }
    }

    /// The same keys for a reader that expects keyed images: it refuses one that is neither
    /// sealed nor authenticated, which somebody may have put in the place of one that was.
    #[must_use]
    pub fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// The same keys for a reader that meets other images, too, which it tells from keyed ones.
    #[must_use]
    pub fn not_required(self) -> Self {
        Self { is_required: false, ..self }
    }

    /// Whether images without a key are refused.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        self.is_required
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &ChainKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// The key of this commitment.
    #[must_use]
    pub fn find(&self, commitment: &[u8; KEY_SIZE]) -> Option<&ChainKey> {
        // Commitments are public: nothing is lost by comparing them quickly.
        self.keys.iter().find(|(of, _)| of == commitment).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_commitment_and_no_other() {
        let key = ChainKey::new([1; 32]);
        let other = ChainKey::new([2; 32]);
        let mut keys = Keys::of(key.clone());
        assert_eq!(keys.find(&key.commitment()), Some(&key));
        assert_eq!(keys.find(&other.commitment()), None);
        keys.add(other.clone());
        keys.add(other.clone());
        assert_eq!(keys.find(&other.commitment()), Some(&other));
        assert_eq!(keys.keys.len(), 2);
        assert!(Keys::none().is_empty() && !keys.is_empty());
        assert!(!keys.is_required() && keys.clone().required().is_required());
        assert_eq!(keys.clone().required().not_required(), keys);
    }

    #[test]
    fn debug_shows_no_key() {
        let keys = Keys::of(ChainKey::new([0xab; 32]));
        let text = format!("{keys:?}");
        assert!(text.contains("ChainKey(..)") && !text.contains("171, 171"), "{text}");
    }
}
