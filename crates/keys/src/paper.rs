//! The paper key: the key of a chain itself, for paper.

use std::fmt;

use zeroize::Zeroizing;

use crate::{ChainKey, KEY_SIZE, RecoveryCode, Result, groups};

/// A chain key as people write it down: thirteen groups of five symbols, made as those of a
/// [`RecoveryCode`](crate::RecoveryCode).
///
/// It needs no key slot: it opens what is left of any image of its chain, also where all slots are
/// lost. So it cannot be taken back: who has it reads all images of the chain, those to come too.
#[derive(Clone, PartialEq, Eq)]
pub struct PaperKey(ChainKey);

impl PaperKey {
    /// Symbols of one as text, without the dashes.
    pub const SYMBOLS: usize = groups::symbols(KEY_SIZE);

    /// That of a chain.
    #[must_use]
    pub const fn new(key: ChainKey) -> Self {
        Self(key)
    }

    /// The key it is.
    #[must_use]
    pub const fn key(&self) -> &ChainKey {
        &self.0
    }

    /// The key as people write it: `XXXXX-XXXXX-` and so on, thirteen groups.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        groups::text(self.0.expose())
    }

    /// Reads a key as people type it, by the rules for a recovery code.
    ///
    /// # Errors
    /// [`crate::Error::Text`], which names the group that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        groups::parse(text, key.as_mut_slice())?;
        Ok(Self(ChainKey::new(*key)))
    }

    /// Whether a text is as long as one, and not as a recovery code.
    pub(crate) fn is_in(text: &str) -> bool {
        groups::is_of(text, KEY_SIZE, RecoveryCode::SIZE)
    }
}

impl fmt::Debug for PaperKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaperKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, TextError, base32};

    fn paper() -> PaperKey {
        PaperKey::new(ChainKey::new(*b"0123456789abcdef0123456789ABCDEF"))
    }

    fn refused(text: &str) -> TextError {
        match PaperKey::parse(text) {
            Err(Error::Text(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_paper_key_is_read_as_it_is_written_and_as_people_type_it() {
        let text = paper().text();
        assert_eq!((text.len(), PaperKey::SYMBOLS), (77, 65));
        assert_eq!(PaperKey::parse(&text), Ok(paper()));
        let sloppy = text.to_lowercase().replace('-', "  ").replace('0', "o").replace('1', "l");
        assert_eq!(PaperKey::parse(&format!("# kept in the safe\n {sloppy}\n")), Ok(paper()));
        assert_eq!(PaperKey::parse(&text.replace('-', "")), Ok(paper()));
    }

    #[test]
    fn every_wrong_symbol_and_any_bit_too_much_is_found() {
        let text: Vec<char> = paper().text().chars().collect();
        for at in (0..text.len()).filter(|at| text[*at] != '-') {
            for wrong in (0..32).map(base32::symbol).filter(|&symbol| symbol != text[at]) {
                let mut typed = text.clone();
                typed[at] = wrong;
                let error = refused(&typed.iter().collect::<String>());
                assert_eq!(error, TextError::Mistyped { group: at / 6 + 1 });
            }
        }
        // The last group has room for four bits that no key has, and its check may be right.
        let mut values: Vec<u8> = base32::values(paper().key().expose()).collect();
        values[51] |= 1;
        let right: Vec<String> = (0..32)
            .map(|check| {
                let last = values[48..].iter().chain([&check]).map(|&value| base32::symbol(value));
                text[..72].iter().copied().chain(last).collect()
            })
            .collect();
        assert!(right.iter().all(|text| refused(text) == TextError::Mistyped { group: 13 }));
    }

    #[test]
    fn a_key_that_is_too_short_is_told_from_a_code() {
        let text = paper().text();
        assert_eq!(refused(&text[..47]), TextError::Symbols { found: 40 });
        assert_eq!(refused(&text[1..]), TextError::GroupLength { group: 1, found: 4 });
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", paper()), "PaperKey(..)");
    }
}
