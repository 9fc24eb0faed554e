//! The recovery code: a key for paper.

use std::fmt;

use zeroize::Zeroizing;

use crate::{Error, Result, TextError, base32};

/// A key of 160 random bits that people write down: eight groups of five symbols, the fifth of
/// each a check that finds any one wrong symbol, any two symbols of a group exchanged, and
/// groups in the wrong order.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(Zeroizing<[u8; Self::SIZE]>);

const GROUP: usize = 5;
const DATA: usize = GROUP - 1;

impl RecoveryCode {
    /// Bytes of a code.
    pub const SIZE: usize = 20;
    /// Symbols of a code as text, without the dashes.
    pub const SYMBOLS: usize = 40;

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
        let mut text = Zeroizing::new(String::with_capacity(Self::SYMBOLS + Self::SYMBOLS / GROUP));
        let values = Zeroizing::new(base32::values(self.bytes()).collect::<Vec<_>>());
        for (number, group) in values.chunks(DATA).enumerate() {
            if number > 0 {
                text.push('-');
            }
            group.iter().for_each(|&value| text.push(base32::symbol(value)));
            text.push(base32::symbol(check_symbol(number, group)));
        }
        text
    }

    /// Reads a code as people type it: in any case, with any dashes and spaces, with I and L for
    /// 1 and O for 0. Lines that begin with `#` are left out, so a file with notes will do.
    ///
    /// # Errors
    /// [`Error::Text`], which names the group that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = || text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let is_gap = |c: char| c == '-' || c.is_whitespace();
        let groups = || lines().flat_map(|line| line.split(is_gap)).filter(|g| !g.is_empty());
        let found = groups().map(|group| group.chars().count()).sum();
        if groups().count() == Self::SYMBOLS / GROUP {
            // As it was printed, so the group that a symbol is missing in can be named.
            for (number, group) in groups().enumerate() {
                let found = group.chars().count();
                if found != GROUP {
                    return Err(TextError::GroupLength { group: number + 1, found }.into());
                }
            }
        } else if found != Self::SYMBOLS {
            return Err(TextError::Symbols { found }.into());
        }
        let mut values = Zeroizing::new(Vec::with_capacity(Self::SYMBOLS));
        for symbol in groups().flat_map(str::chars) {
            let group = values.len() / GROUP + 1;
            values.push(base32::value(symbol).ok_or(TextError::Character { group })?);
        }
        for (number, group) in values.chunks(GROUP).enumerate() {
            if check_symbol(number, &group[..DATA]) != group[DATA] {
                return Err(TextError::Mistyped { group: number + 1 }.into());
            }
        }
        let mut code = Zeroizing::new([0; Self::SIZE]);
        let data = values.chunks(GROUP).flat_map(|group| group[..DATA].iter().copied());
        if base32::bytes(data, code.as_mut_slice()) {
            Ok(Self(code))
        } else {
            Err(Error::Text(TextError::Symbols { found }))
        }
    }
}

/// Over GF(32): the sum of the symbols, the i-th times the i-th power of x, plus the number of
/// the group. All weights differ, and differ from the 1 of the check symbol itself, so exchanging
/// two different symbols of a group changes the sum.
fn check_symbol(group: usize, data: &[u8]) -> u8 {
    let number = u8::try_from(group % 32).unwrap_or(0);
    data.iter().rev().fold(0, |sum, &value| times_x(sum ^ value)) ^ number
}

/// Multiplies by x modulo x^5 + x^2 + 1.
fn times_x(value: u8) -> u8 {
    let doubled = value << 1;
    if doubled & 32 == 0 { doubled } else { doubled ^ 0b10_0101 }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
