//! One slot: the chain key, wrapped for one way in.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Fault;
use crate::layout::KeySlot;
use crate::{
    ChainKey, Cost, Credential, Error, KEY_SIZE, KeyFile, Passphrase, RecipientKey,
    RecipientSecret, RecoveryCode, Result, gcm,
};

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A text somebody remembers.
    Passphrase,
    /// The content of a file.
    KeyFile,
    /// A code from paper.
    RecoveryCode,
    /// The secret key of a recipient, whose public key is in the slot.
    Recipient,
}

impl SlotKind {
    const ALL: [Self; 4] = [Self::Passphrase, Self::KeyFile, Self::RecoveryCode, Self::Recipient];

    fn code(self) -> u8 {
        match self {
            Self::Passphrase => 1,
            Self::KeyFile => 2,
            Self::RecoveryCode => 3,
            Self::Recipient => 4,
        }
    }
}

/// The words of `docs/format.md`, of lists and of JSON.
impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::RecoveryCode => "recovery code",
            Self::Recipient => "recipient",
        })
    }
}

/// What a new slot is to be opened by.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// This passphrase, tried at this cost.
    Passphrase(&'a Passphrase, Cost),
    /// This file.
    KeyFile(&'a KeyFile),
    /// This code.
    RecoveryCode(&'a RecoveryCode),
    /// Whoever has the secret key to this public one.
    Recipient(&'a RecipientKey),
}

impl<'a> Way<'a> {
    /// A slot that this opens, passphrases at this cost. For a recipient's secret key, `public`
    /// is where its public key is kept meanwhile.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a paper key, which is the key of a chain that exists.
    pub fn of(
        credential: &'a Credential,
        cost: Cost,
        public: &'a mut Option<RecipientKey>,
    ) -> Result<Self> {
        Ok(match credential {
            Credential::Passphrase(passphrase) => Self::Passphrase(passphrase, cost),
            Credential::KeyFile(file) => Self::KeyFile(file),
            Credential::RecoveryCode(code) => Self::RecoveryCode(code),
            Credential::Recipient(secret) => Self::Recipient(public.insert(secret.public())),
            Credential::PaperKey(_) => {
                return Err(Error::Unusable(
                    "a paper key opens the chain that it is the key of, and makes no new way in",
                ));
            }
        })
    }
}

/// A slot to be made.
#[derive(Debug)]
pub struct NewSlot<'a> {
    /// What opens it.
    pub way: Way<'a>,
    /// What people call it: at most 64 bytes, no control characters.
    pub label: &'a str,
    /// Milliseconds since 1970 UTC; decides nothing.
    pub created_unix_ms: u64,
    /// Random bytes that never come again: the salt, and the key that a recipient's slot is made
    /// with.
    pub random: &'a [u8; NewSlot::RANDOM],
}

impl NewSlot<'_> {
    /// Random bytes a slot takes.
    pub const RANDOM: usize = 64;
}

/// A slot as it stands in an image. Its label is an attacker's until the chain key has proven it.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    kind: SlotKind,
    label: String,
    created_unix_ms: u64,
    cost: Option<Cost>,
    recipient: Option<RecipientKey>,
    raw: KeySlot,
}

const KEK: &[u8; KEY_SIZE] = b"aivory draft: key-encryption key";
const RECOVERY: &[u8; KEY_SIZE] = b"aivory draft: recovery code     ";
/// Each key-encryption key encrypts once: its salt is new.
const NONCE: [u8; gcm::NONCE_SIZE] = [0; gcm::NONCE_SIZE];

impl Slot {
    /// Bytes of the longest label.
    pub const LABEL_MAX: usize = 64;

    /// What opens it.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        self.kind
    }

    /// What people call it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Milliseconds since 1970 UTC at which it was made, as that machine's clock had it.
    #[must_use]
    pub fn created_unix_ms(&self) -> u64 {
        self.created_unix_ms
    }

    /// What trying a passphrase costs.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        self.cost
    }

    /// Whose secret key opens it.
    #[must_use]
    pub fn recipient(&self) -> Option<RecipientKey> {
        self.recipient
    }

    /// Wraps the chain key.
    pub(crate) fn make(key: &ChainKey, new: &NewSlot<'_>) -> Result<Self> {
        let mut label = [0; Self::LABEL_MAX];
        let text = new.label.as_bytes();
        let room = label.get_mut(..text.len());
        room.ok_or(Error::Unusable("a label has at most 64 bytes"))?.copy_from_slice(text);
        if text_of(&label).as_deref() != Some(new.label) {
            return Err(Error::Unusable("a label has no control characters"));
        }
        let mut salt = [0; KEY_SIZE];
        salt.copy_from_slice(&new.random[..KEY_SIZE]);
        let mut seed = Zeroizing::new([0; KEY_SIZE]);
        seed.copy_from_slice(&new.random[KEY_SIZE..]);
        let (kind, cost, recipient) = match new.way {
            Way::Passphrase(_, cost) => (SlotKind::Passphrase, Some(cost), None),
            Way::KeyFile(_) => (SlotKind::KeyFile, None, None),
            Way::RecoveryCode(_) => (SlotKind::RecoveryCode, None, None),
            Way::Recipient(recipient) => (SlotKind::Recipient, None, Some(*recipient)),
        };
        let once = recipient.map(|_| RecipientSecret::new(*seed));
        let raw = KeySlot {
            kind: kind.code(),
            memory_kib: cost.map_or(0, Cost::memory_kib),
            passes: cost.map_or(0, Cost::passes),
            lanes: cost.map_or(0, Cost::lanes),
            created_unix_ms: new.created_unix_ms,
            label,
            salt,
            ephemeral: once.as_ref().map_or([0; KEY_SIZE], |once| *once.public().as_bytes()),
            recipient: recipient.map_or([0; KEY_SIZE], |recipient| *recipient.as_bytes()),
            wrapped: [0; KEY_SIZE + gcm::TAG_SIZE],
        };
        let created_unix_ms = new.created_unix_ms;
        let label = new.label.to_owned();
        let mut slot = Self { kind, label, created_unix_ms, cost, recipient, raw };
        let secret = match new.way {
            Way::Passphrase(passphrase, cost) => cost.stretch(passphrase.bytes(), &salt)?,
            Way::KeyFile(file) => Zeroizing::new(*file.bytes()),
            Way::RecoveryCode(code) => recovery_secret(code),
            Way::Recipient(recipient) => once
                .and_then(|once| once.shared_with(recipient))
                .ok_or(Error::Unusable("the recipient's public key is one that hides nothing"))?,
        };
        slot.wrap(key, &secret);
        Ok(slot)
    }

    fn wrap(&mut self, key: &ChainKey, secret: &[u8; KEY_SIZE]) {
        let aad = self.proven(&key.commitment());
        let mut text = Zeroizing::new(*key.expose());
        let tag = gcm::encrypt(&self.wrapping_key(secret), &NONCE, &aad, text.as_mut_slice());
        self.raw.wrapped[..KEY_SIZE].copy_from_slice(text.as_slice());
        self.raw.wrapped[KEY_SIZE..].copy_from_slice(&tag);
    }

    /// The chain key, if this is what the slot is opened by and the key is the one of the
    /// commitment. `number` and `work` bound what a passphrase may cost.
    pub(crate) fn open(
        &self,
        credential: &Credential,
        commitment: &[u8; KEY_SIZE],
        number: u8,
        work: &mut crate::Work,
    ) -> Result<Option<ChainKey>> {
        let secret = match (credential, self.cost) {
            (Credential::Passphrase(passphrase), Some(cost)) => {
                work.take(number, cost)?;
                Some(cost.stretch(passphrase.bytes(), &self.raw.salt)?)
            }
            (Credential::KeyFile(file), None) => Some(Zeroizing::new(*file.bytes())),
            (Credential::RecoveryCode(code), None) => Some(recovery_secret(code)),
            (Credential::Recipient(secret), None) if self.recipient == Some(secret.public()) => {
                secret.shared_with(&RecipientKey::from_bytes(self.raw.ephemeral))
            }
            _ => None,
        };
        Ok(secret.and_then(|secret| self.unwrap(&secret, commitment)))
    }

    fn unwrap(&self, secret: &[u8; KEY_SIZE], commitment: &[u8; KEY_SIZE]) -> Option<ChainKey> {
        let mut text = Zeroizing::new([0; KEY_SIZE]);
        text.copy_from_slice(&self.raw.wrapped[..KEY_SIZE]);
        let mut tag = [0; gcm::TAG_SIZE];
        tag.copy_from_slice(&self.raw.wrapped[KEY_SIZE..]);
        let aad = self.proven(commitment);
        let kek = self.wrapping_key(secret);
        if !gcm::decrypt(&kek, &NONCE, &aad, text.as_mut_slice(), &tag) {
            return None;
        }
        // GCM binds a text to a key no better than its tag does: two keys may open one text. The
        // commitment binds it.
        let key = ChainKey::new(*text);
        (key.commitment() == *commitment).then_some(key)
    }

    /// What the tag proves beside the key.
    fn proven(&self, commitment: &[u8; KEY_SIZE]) -> [u8; KeySlot::PROVEN + KEY_SIZE] {
        let mut proven = [0; KeySlot::PROVEN + KEY_SIZE];
        proven[..KeySlot::PROVEN].copy_from_slice(&self.raw.encode()[..KeySlot::PROVEN]);
        proven[KeySlot::PROVEN..].copy_from_slice(commitment);
        proven
    }

    fn wrapping_key(&self, secret: &[u8; KEY_SIZE]) -> Zeroizing<[u8; KEY_SIZE]> {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(secret));
        hasher.update(KEK).update(&[self.raw.kind]).update(&self.raw.salt);
        hasher.update(&self.raw.ephemeral).update(&self.raw.recipient);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// `None` for an empty slot.
    pub(crate) fn decode(
        bytes: &[u8; KeySlot::SIZE],
        number: u8,
    ) -> std::result::Result<Option<Self>, Fault> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let raw = KeySlot::decode(bytes);
        let kind = SlotKind::ALL.into_iter().find(|kind| kind.code() == raw.kind);
        let kind = kind.ok_or(Fault::Kind { slot: number, kind: raw.kind })?;
        if !KeySlot::reserved_is_zero(bytes) {
            return Err(Fault::ReservedSlot(number));
        }
        let label = text_of(&raw.label).ok_or(Fault::Label(number))?;
        let cost = match (kind, raw.memory_kib, raw.passes, raw.lanes) {
            (SlotKind::Passphrase, memory, passes, lanes) => Some(
                Cost::new(memory, passes, lanes)
                    .map_err(|cost| Fault::Cost { slot: number, cost: cost.into() })?,
            ),
            (_, 0, 0, 0) => None,
            _ => return Err(Fault::Fields(number)),
        };
        let recipient =
            (kind == SlotKind::Recipient).then(|| RecipientKey::from_bytes(raw.recipient));
        if recipient.is_none() && [raw.ephemeral, raw.recipient] != [[0; KEY_SIZE]; 2] {
            return Err(Fault::Fields(number));
        }
        let created_unix_ms = raw.created_unix_ms;
        Ok(Some(Self { kind, label, created_unix_ms, cost, recipient, raw }))
    }

    pub(crate) fn encode(&self) -> [u8; KeySlot::SIZE] {
        self.raw.encode()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("kind", &self.kind)
            .field("label", &self.label)
            .field("created_unix_ms", &self.created_unix_ms)
            .field("cost", &self.cost)
            .field("recipient", &self.recipient)
            .finish_non_exhaustive()
    }
}

fn recovery_secret(code: &RecoveryCode) -> Zeroizing<[u8; KEY_SIZE]> {
    Zeroizing::new(*blake3::keyed_hash(RECOVERY, code.bytes()).as_bytes())
}

/// The zero-padded text in `bytes`, `None` when it is not UTF-8, or when zeros or control
/// characters stand inside.
fn text_of(bytes: &[u8; Slot::LABEL_MAX]) -> Option<String> {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}
