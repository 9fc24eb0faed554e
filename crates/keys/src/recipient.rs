//! Key pairs of recipients: a machine that has the public key alone can seal, and cannot read.

use std::fmt;

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{Error, KEY_SIZE, Result, TextError, base32};

const PUBLIC_PREFIX: &str = "aiv-public-";
const SECRET_PREFIX: &str = "aiv-secret-";

/// Bytes of the check behind a key in a text.
const CHECK_SIZE: usize = 4;
const CHECKED_SIZE: usize = KEY_SIZE + CHECK_SIZE;
const CHECK_KEY: &[u8; KEY_SIZE] = b"aivory draft: text of a key     ";

/// The public key of a recipient (X25519, RFC 7748).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientKey([u8; KEY_SIZE]);

impl RecipientKey {
    pub(crate) fn from_bytes(bytes: [u8; KEY_SIZE]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    /// The key as text, in one word.
    #[must_use]
    pub fn text(&self) -> String {
        write(PUBLIC_PREFIX, &self.0).to_string()
    }

    /// Finds the key in a text or in the content of a file. Lines that begin with `#` do not
    /// count.
    ///
    /// # Errors
    /// [`Error::Text`] when there is none, when it is mistyped, or when it is the secret key:
    /// that does not belong on a machine that only seals.
    pub fn parse(text: &str) -> Result<Self> {
        if word(text, SECRET_PREFIX).is_some() {
            return Err(TextError::Secret.into());
        }
        Ok(Self(*read(text, PUBLIC_PREFIX)?))
    }

    /// Whether a word looks like a public key and not like the name of a file.
    #[must_use]
    pub fn is_text(word: &str) -> bool {
        word.starts_with(PUBLIC_PREFIX)
    }
}

/// The secret key of a recipient.
#[derive(Clone)]
pub struct RecipientSecret(StaticSecret);

impl RecipientSecret {
    /// The key of these bytes, which must be random.
    #[must_use]
    pub fn new(random: [u8; KEY_SIZE]) -> Self {
        Self(random.into())
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> RecipientKey {
        RecipientKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The secret shared with the owner of another key; `None` when that key makes it one that
    /// everybody knows.
    pub(crate) fn shared_with(&self, other: &RecipientKey) -> Option<Zeroizing<[u8; KEY_SIZE]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(other.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }

    /// The content of the file that keeps the key pair.
    #[must_use]
    pub fn file_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Secret key of a recipient of Aivory backups: whoever has it can read what is sealed to it.\n\
             # Its public key, for machines that back up: {}\n\
             {}\n",
            self.public().text(),
            *write(SECRET_PREFIX, self.0.as_bytes())
        ))
    }

    /// Finds the key in the content of a file. Lines that begin with `#` do not count.
    ///
    /// # Errors
    /// [`Error::Text`] when there is none, when it is mistyped, or when it is a public key.
    pub fn parse(text: &str) -> Result<Self> {
        if word(text, SECRET_PREFIX).is_none() && word(text, PUBLIC_PREFIX).is_some() {
            return Err(TextError::Public.into());
        }
        Ok(Self::new(*read(text, SECRET_PREFIX)?))
    }

    /// Whether the content of a file is meant as a key of a recipient, public or secret.
    #[must_use]
    pub fn is_in(content: &[u8]) -> bool {
        let text = std::str::from_utf8(content);
        text.is_ok_and(|text| {
            word(text, SECRET_PREFIX).or_else(|| word(text, PUBLIC_PREFIX)).is_some()
        })
    }
}

impl fmt::Debug for RecipientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecipientSecret(..)")
    }
}

/// The first line that is such a key; notes are passed over.
fn word<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.find_map(|line| line.strip_prefix(prefix))
}

fn read(text: &str, prefix: &'static str) -> Result<Zeroizing<[u8; KEY_SIZE]>> {
    let word = word(text, prefix).ok_or(Error::Text(TextError::NoKey(prefix)))?;
    let values = Zeroizing::new(word.chars().map(base32::value).collect::<Option<Vec<_>>>());
    let mut checked = Zeroizing::new([0; CHECKED_SIZE]);
    let whole = values
        .as_ref()
        .is_some_and(|values| base32::bytes(values.iter().copied(), checked.as_mut_slice()));
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    key.copy_from_slice(&checked[..KEY_SIZE]);
    if whole && check(prefix, &key) == checked[KEY_SIZE..] {
        Ok(key)
    } else {
        Err(TextError::Key.into())
    }
}

fn write(prefix: &str, key: &[u8; KEY_SIZE]) -> Zeroizing<String> {
    let mut checked = Zeroizing::new([0; CHECKED_SIZE]);
    checked[..KEY_SIZE].copy_from_slice(key);
    checked[KEY_SIZE..].copy_from_slice(&check(prefix, key));
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + CHECKED_SIZE * 2));
    text.push_str(prefix);
    for value in base32::values(checked.as_slice()) {
        text.push(base32::symbol(value).to_ascii_lowercase());
    }
    text
}

/// Finds typing errors; says nothing about the key that helps to find it.
fn check(prefix: &str, key: &[u8; KEY_SIZE]) -> [u8; CHECK_SIZE] {
    let mut hasher = blake3::Hasher::new_keyed(CHECK_KEY);
    hasher.update(prefix.as_bytes()).update(key);
    let mut check = [0; CHECK_SIZE];
    hasher.finalize_xof().fill(&mut check);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> RecipientSecret {
        RecipientSecret::new([7; KEY_SIZE])
    }

    #[test]
    fn both_keys_are_read_as_they_are_written() {
        let file = secret().file_text();
        let again = RecipientSecret::parse(&file).unwrap();
        assert_eq!(again.public(), secret().public());
        assert_eq!(RecipientKey::parse(&secret().public().text()), Ok(secret().public()));
        assert!(RecipientSecret::is_in(file.as_bytes()));
        assert!(!RecipientSecret::is_in(b"just any file, of any content \xFF"));
        assert!(!RecipientSecret::is_in(b"# aiv-secret-0000"));
    }

    #[test]
    fn every_wrong_character_is_found() {
        let text = secret().public().text();
        for at in PUBLIC_PREFIX.len()..text.len() {
            let wrong = if &text[at..=at] == "x" { "y" } else { "x" };
            let typed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
            assert_eq!(RecipientKey::parse(&typed), Err(TextError::Key.into()), "{at}");
        }
        let cut = &text[..text.len() - 1];
        assert_eq!(RecipientKey::parse(cut), Err(TextError::Key.into()));
    }

    #[test]
    fn one_key_never_passes_for_the_other() {
        let public = secret().public().text();
        assert_eq!(RecipientSecret::parse(&public).err(), Some(TextError::Public.into()));
        assert_eq!(RecipientKey::parse(&secret().file_text()), Err(TextError::Secret.into()));
        let renamed = public.replace(PUBLIC_PREFIX, SECRET_PREFIX);
        assert_eq!(RecipientSecret::parse(&renamed).err(), Some(TextError::Key.into()));
        assert_eq!(RecipientKey::parse("x"), Err(TextError::NoKey(PUBLIC_PREFIX).into()));
    }

    #[test]
    fn a_key_that_makes_a_known_secret_is_noticed() {
        // The points of small order of RFC 7748 section 6.1: zero and one among them.
        let mut one = [0; KEY_SIZE];
        one[0] = 1;
        for small in [[0; KEY_SIZE], one] {
            assert!(secret().shared_with(&RecipientKey::from_bytes(small)).is_none());
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        assert_eq!(format!("{:?}", secret()), "RecipientSecret(..)");
    }
}
