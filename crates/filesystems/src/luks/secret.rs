//! What opens a volume: the bytes of a passphrase, or of a key file.

use std::fmt;

use zeroize::Zeroizing;

/// What opens a LUKS volume: a passphrase as its bytes were typed, or the content of a key file.
/// Overwritten when dropped, never shown.
#[derive(Clone)]
pub struct LuksKey(Zeroizing<Vec<u8>>);

impl LuksKey {
    /// Bytes of the longest one: as many of a key file as cryptsetup reads.
    pub const SIZE_MAX: usize = 8 << 20;

    /// The key of these bytes; `None` when there are none, or more than [`SIZE_MAX`](Self::SIZE_MAX).
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (1..=Self::SIZE_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What may open the LUKS volumes of a disk. Each volume is tried with all of them.
#[derive(Debug, Clone, Default)]
pub struct LuksKeys(pub(super) Vec<LuksKey>);

impl LuksKeys {
    /// Nothing: every volume stays closed.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// One more.
    pub fn add(&mut self, key: LuksKey) {
        self.0.push(key);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for LuksKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LuksKey(..)")
    }
}
