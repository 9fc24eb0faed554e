//! Floor 0 of Aivory: keys.
//!
//! One secret of 32 random bytes, the [`ChainKey`], belongs to all images of a chain. Everything
//! that encrypts or authenticates is derived from it, each use under a [`Purpose`] of its own.
//! `docs/format.md` section 15 is normative.
//!
//! The crate does no I/O, knows no clock and draws no random bytes: they are arguments. Secrets
//! never appear in `Debug`, `Display` or an error.

mod chain_key;
mod ring;

pub use chain_key::{ChainKey, KEY_SIZE, Purpose, Secret};
pub use ring::Keys;
