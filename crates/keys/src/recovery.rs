//! The recovery code: a key for paper.

use std::fmt;

use zeroize::Zeroizing;

use crate::{Result, groups};

/// A key of 160 random bits that people write down: eight groups of five symbols, the fifth of
/// each a check that finds any one wrong symbol, any two symbols of a group exchanged, and
/// groups in the wrong order.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(Zeroizing<[u8; Self::SIZE]>);

impl RecoveryCode {
    /// Bytes of a code.
    pub const SIZE: usize = 20;
    /// Symbols of a code as text, without the dashes.
    pub const SYMBOLS: usize = groups::symbols(Self::SIZE);

    /// The code of these bytes, which must be random.
    #[must_use]
    pub fn new(random: [u8; Self::SIZE]) -> Self {
        Self(Zeroizing::new(random))
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// The code as people write it: `XXXXX-XXXXX-` and so on, eight groups.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        groups::text(self.bytes())
    }

    /// Reads a code as people type it: in any case, with any dashes and spaces, with I and L for
    /// 1 and O for 0. Lines that begin with `#` are left out, so a file with notes will do.
    ///
    /// # Errors
    /// [`crate::Error::Text`], which names the group that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut code = Zeroizing::new([0; Self::SIZE]);
        groups::parse(text, code.as_mut_slice())?;
        Ok(Self(code))
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, TextError, base32};

    fn code() -> RecoveryCode {
        RecoveryCode::new(*b"0123456789abcdefghij")
    }

    fn refused(text: &str) -> TextError {
        match RecoveryCode::parse(text) {
            Err(Error::Text(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_code_is_read_as_it_is_written_and_as_people_type_it() {
        let text = code().text();
        assert_eq!(text.len(), 47);
        assert_eq!(RecoveryCode::parse(&text), Ok(code()));
        let sloppy = text.to_lowercase().replace('-', "  ").replace('0', "o").replace('1', "l");
        assert_eq!(RecoveryCode::parse(&format!("# kept in the safe\n {sloppy}\n")), Ok(code()));
        assert_eq!(RecoveryCode::parse(&text.replace('-', "")), Ok(code()));
    }

    #[test]
    fn every_wrong_symbol_is_found_and_its_group_named() {
        let text: Vec<char> = code().text().chars().collect();
        for at in (0..text.len()).filter(|at| text[*at] != '-') {
            for wrong in (0..32).map(base32::symbol).filter(|&symbol| symbol != text[at]) {
                let mut typed = text.clone();
                typed[at] = wrong;
                let group = at / 6 + 1;
                let error = refused(&typed.iter().collect::<String>());
                assert_eq!(error, TextError::Mistyped { group });
            }
        }
    }

    #[test]
    fn exchanged_symbols_and_groups_are_found() {
        let text: Vec<char> = code().text().chars().collect();
        for a in 0..text.len() {
            for b in a + 1..text.len() {
                if text[a] != text[b] && text[a] != '-' && text[b] != '-' && a / 6 == b / 6 {
                    let mut typed = text.clone();
                    typed.swap(a, b);
                    let error = refused(&typed.iter().collect::<String>());
                    assert_eq!(error, TextError::Mistyped { group: a / 6 + 1 });
                }
            }
        }
        let text = code().text();
        let mut groups: Vec<&str> = text.split('-').collect();
        groups.swap(2, 6);
        assert_eq!(refused(&groups.join("-")), TextError::Mistyped { group: 3 });
    }

    #[test]
    fn a_group_that_is_too_short_is_named() {
        let text = code().text();
        let missing = format!("{}{}", &text[..8], &text[9..]);
        assert_eq!(refused(&missing), TextError::GroupLength { group: 2, found: 4 });
        assert_eq!(refused("ABCDE"), TextError::Symbols { found: 5 });
        let strange = text.replacen(&text[12..13], "U", 1);
        assert!(matches!(refused(&strange), TextError::Character { .. }), "{strange}");
        assert_eq!(refused(""), TextError::Symbols { found: 0 });
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", code()), "RecoveryCode(..)");
    }
}
