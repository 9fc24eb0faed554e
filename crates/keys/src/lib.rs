//! Floor 0 of Aivory: keys.
//!
//! One secret of 32 random bytes, the [`ChainKey`], belongs to all images of a chain. Everything
//! that encrypts or authenticates is derived from it, each use under a [`Purpose`] of its own.
//! Nobody remembers such a key: every image carries it in a [`KeyArea`], wrapped once for each
//! way in - a passphrase, a key file, a recovery code, the public key of a recipient.
//! `docs/format.md` section 15 is normative.
//!
//! The crate does no I/O, knows no clock and draws no random bytes: they are arguments. Secrets
//! are overwritten when dropped, and never appear in `Debug`, `Display` or an error.
//!
//! ```
//! use aiv_keys::{ChainKey, Cost, Credential, KeyArea, NewSlot, Passphrase, Way, Work};
//!
//! let (chain_key, random) = ([7; 32], [9; 64]); // From the system's generator.
//! let key = ChainKey::new(chain_key);
//! let passphrase = Passphrase::new("correct horse battery staple")?;
//! let way = Way::Passphrase(&passphrase, Cost::new(64, 1, 1)?);
//! let first = NewSlot { way, label: "laptop", created_unix_ms: 0, random: &random };
//! let area = KeyArea::parse(&KeyArea::new(&key, &first)?.to_bytes())?;
//! let opened = area.open(&Credential::Passphrase(passphrase), &mut Work::new())?;
//! assert_eq!(opened.key, key);
//! # Ok::<(), aiv_keys::Error>(())
//! ```

mod area;
mod base32;
mod chain_key;
mod cost;
mod credential;
mod error;
pub mod gcm;
mod groups;
mod layout;
mod paper;
mod recipient;
mod recovery;
mod ring;
mod slot;

pub use area::{KeyArea, Opened};
pub use chain_key::{ChainKey, KEY_SIZE, Purpose, Secret};
pub use cost::{Argon2, Cost, Work};
pub use credential::{Credential, KeyFile, Passphrase};
pub use error::{Damage, Error, Result, TextError};
pub use paper::PaperKey;
pub use recipient::{RecipientKey, RecipientSecret};
pub use recovery::RecoveryCode;
pub use ring::Keys;
pub use slot::{NewSlot, Slot, SlotKind, Way};
