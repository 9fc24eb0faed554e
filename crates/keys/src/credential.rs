//! What somebody has or knows that opens a slot.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{Error, KEY_SIZE, PaperKey, RecipientSecret, RecoveryCode, Result, SlotKind, groups};

/// A text somebody remembers.
///
/// It counts in Unicode's normalisation form C, so that an `é` typed on another machine is the
/// same one.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Bytes of the longest one, as UTF-8 in normalisation form C.
    pub const SIZE_MAX: usize = 1024;

    /// The passphrase of this text.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is empty or too long.
    pub fn new(text: &str) -> Result<Self> {
        // Room for the longest, so that nothing is left behind where the text outgrew a buffer.
        let mut normal = Zeroizing::new(String::with_capacity(Self::SIZE_MAX + 4));
        for c in text.nfc() {
            if normal.len() + c.len_utf8() > Self::SIZE_MAX {
                return Err(Error::Unusable("a passphrase has at most 1,024 bytes"));
            }
            normal.push(c);
        }
        if normal.is_empty() {
            return Err(Error::Unusable("an empty passphrase protects nothing"));
        }
        Ok(Self(normal))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A file whose content is the key. Any will do that nobody else has and that never changes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile(Zeroizing<[u8; KEY_SIZE]>);

const KEY_FILE: &[u8; KEY_SIZE] = b"aivory draft: content of keyfile";

impl KeyFile {
    /// Bytes of the shortest one.
    pub const SIZE_MIN: usize = 32;
    /// Bytes of the longest one.
    pub const SIZE_MAX: usize = 64 * 1024;

    /// The key file of this content.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is too short to be a secret, or longer than is read.
    pub fn new(content: &[u8]) -> Result<Self> {
        if !(Self::SIZE_MIN..=Self::SIZE_MAX).contains(&content.len()) {
            return Err(Error::Unusable("a key file has from 32 bytes to 64 KiB"));
        }
        Ok(Self(Zeroizing::new(*blake3::keyed_hash(KEY_FILE, content).as_bytes())))
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }
}

/// One of the things that open a chain: a slot of it, or, for a paper key, all of it.
#[derive(Clone)]
pub enum Credential {
    /// A text somebody remembers.
    Passphrase(Passphrase),
    /// The content of a file.
    KeyFile(KeyFile),
    /// A code from paper.
    RecoveryCode(RecoveryCode),
    /// The secret key of a recipient.
    Recipient(RecipientSecret),
    /// The key of the chain itself, from paper.
    PaperKey(PaperKey),
}

impl Credential {
    /// What the content of a key file is: the secret key of a recipient where it is one, else a
    /// key file.
    ///
    /// # Errors
    /// [`Error::Unusable`] and [`Error::Text`]: neither.
    pub fn from_key_file(content: &[u8]) -> Result<Self> {
        if !RecipientSecret::is_in(content) {
            return Ok(Self::KeyFile(KeyFile::new(content)?));
        }
        let text = std::str::from_utf8(content).map_err(|_| Error::Unusable("not a text"))?;
        Ok(Self::Recipient(RecipientSecret::parse(text)?))
    }

    /// What was typed from paper: a recovery code or a paper key, which is longer.
    ///
    /// # Errors
    /// [`Error::Text`]: neither.
    pub fn from_paper(text: &str) -> Result<Self> {
        if PaperKey::is_in(text) {
            return Ok(Self::PaperKey(PaperKey::parse(text)?));
        }
        Ok(Self::RecoveryCode(RecoveryCode::parse(text)?))
    }

    /// Whether a text looks like a recovery code or a paper key that was printed, right or not, and
    /// like nothing else: who finds one where everybody can see it does not show it.
    #[must_use]
    pub fn is_printed(text: &str) -> bool {
        [RecoveryCode::SIZE, KEY_SIZE].iter().any(|&bytes| groups::is_printed(text, bytes))
    }

    /// The slots it may open; a paper key needs none.
    #[must_use]
    pub fn kind(&self) -> Option<SlotKind> {
        self.slot_kind().ok()
    }

    /// The slots it may open, or else the paper key that it is.
    pub(crate) fn slot_kind(&self) -> std::result::Result<SlotKind, &PaperKey> {
        match self {
            Self::Passphrase(_) => Ok(SlotKind::Passphrase),
            Self::KeyFile(_) => Ok(SlotKind::KeyFile),
            Self::RecoveryCode(_) => Ok(SlotKind::RecoveryCode),
            Self::Recipient(_) => Ok(SlotKind::Recipient),
            Self::PaperKey(paper) => Err(paper),
        }
    }
}

macro_rules! shows_nothing {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
shows_nothing!(Passphrase, KeyFile, Credential);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_same_however_its_letters_are_composed() {
        let composed = Passphrase::new("Z\u{fc}rich \u{1e69}").unwrap();
        let decomposed = Passphrase::new("Zu\u{308}rich s\u{323}\u{307}").unwrap();
        assert!(composed == decomposed);
        assert!(composed != Passphrase::new("Zurich s").unwrap());
        // Compatibility forms stay apart: form C is not form KC.
        assert!(Passphrase::new("\u{fb01}").unwrap() != Passphrase::new("fi").unwrap());
        assert!(Passphrase::new(" a").unwrap() != Passphrase::new("a").unwrap());
    }

    #[test]
    fn empty_and_endless_passphrases_are_refused() {
        assert!(Passphrase::new("").is_err());
        assert!(Passphrase::new(&"x".repeat(1024)).is_ok());
        assert!(Passphrase::new(&"x".repeat(1025)).is_err());
        assert!(Passphrase::new(&"\u{fc}".repeat(513)).is_err());
    }

    #[test]
    fn a_key_file_is_neither_guessable_nor_a_disk() {
        assert!(KeyFile::new(&[1; 31]).is_err());
        assert!(KeyFile::new(&[1; 32]).is_ok());
        assert!(KeyFile::new(&vec![1; 65_536]).is_ok());
        assert!(KeyFile::new(&vec![1; 65_537]).is_err());
    }

    #[test]
    fn a_file_with_a_secret_key_in_it_is_that_key() {
        let secret = RecipientSecret::new([3; 32]);
        let found = Credential::from_key_file(secret.file_text().as_bytes()).unwrap();
        assert_eq!(found.kind(), Some(SlotKind::Recipient));
        let public = secret.public().text();
        assert!(Credential::from_key_file(public.as_bytes()).is_err());
        assert_eq!(Credential::from_key_file(&[9; 40]).unwrap().kind(), Some(SlotKind::KeyFile));
    }

    #[test]
    fn what_is_typed_from_paper_is_told_apart_by_its_length() {
        let code = RecoveryCode::new([7; 20]);
        let paper = PaperKey::new(crate::ChainKey::new([8; 32]));
        for (text, is_code) in [(code.text(), true), (paper.text(), false)] {
            for text in [text.to_string(), text.replace('-', " ")] {
                let found = Credential::from_paper(&format!("# a sheet\n{text}\n")).unwrap();
                assert_eq!(matches!(found, Credential::RecoveryCode(_)), is_code);
                assert_eq!(matches!(found, Credential::PaperKey(_)), !is_code);
            }
        }
        let cut = Credential::from_paper(&paper.text()[..76]);
        assert_eq!(cut.unwrap_err(), crate::TextError::GroupLength { group: 13, found: 4 }.into());
        let message = Credential::from_paper("ABCDE").unwrap_err().to_string();
        assert_eq!(message, "5 symbols: a recovery code has 40, a paper key 65");
    }

    #[test]
    fn debug_shows_nothing() {
        let passphrase = Passphrase::new("correct horse").unwrap();
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
        assert_eq!(format!("{:?}", Credential::Passphrase(passphrase)), "Credential(..)");
        assert_eq!(format!("{:?}", KeyFile::new(&[1; 32])), "Ok(KeyFile(..))");
    }
}
