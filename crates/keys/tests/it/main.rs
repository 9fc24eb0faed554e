//! The crate from outside: official vectors, slot areas of friends, and of enemies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod areas;
mod hostile;
mod vectors;

use aiv_keys::{ChainKey, Cost, Credential, NewSlot, Passphrase, Way};

/// Random bytes of a slot, another number other bytes.
pub(crate) fn random(seed: u8) -> [u8; NewSlot::RANDOM] {
    std::array::from_fn(|i| u8::try_from(i).unwrap().wrapping_mul(29) ^ seed)
}

pub(crate) fn chain_key() -> ChainKey {
    ChainKey::new(*b"0123456789abcdef0123456789ABCDEF")
}

/// Tried in no time.
pub(crate) fn cheap() -> Cost {
    Cost::new(8, 1, 1).unwrap()
}

pub(crate) fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Passphrase::new(text).unwrap())
}

/// A slot that this opens.
pub(crate) fn add(
    area: &aiv_keys::KeyArea,
    credential: &Credential,
    seed: u8,
) -> aiv_keys::Result<(aiv_keys::KeyArea, u8)> {
    let mut public = None;
    let way = Way::of(credential, cheap(), &mut public).unwrap();
    let new = NewSlot { way, label: "one more", created_unix_ms: 7, random: &random(seed) };
    area.add(&chain_key(), &new)
}

/// An area that this opens.
pub(crate) fn area_for(credential: &Credential) -> aiv_keys::KeyArea {
    let mut public = None;
    let way = Way::of(credential, cheap(), &mut public).unwrap();
    let new = NewSlot { way, label: "the first", created_unix_ms: 7, random: &random(0) };
    aiv_keys::KeyArea::new(&chain_key(), &new).unwrap()
}
