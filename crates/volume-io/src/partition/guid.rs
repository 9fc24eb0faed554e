use std::fmt;
use std::str::FromStr;

/// A GUID as GPT stores it: 16 bytes, of which the first three groups are little-endian.
///
/// The text form is the usual one, in lower case: `0fc63daf-8483-4772-8e79-3d69d8477de4`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

/// Position on disk of each byte of the text form, left to right.
const TEXT_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// Places of the hyphens in the 36 characters of the text form.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Guid {
    /// All zeros: an unused GPT entry, an identity nobody gave.
    pub const NIL: Self = Self([0; 16]);

    /// The GUID with these bytes, in the order of the disk.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes in the order of the disk.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// This GUID, or `None` for all zeros, which identify nothing.
    pub(super) fn non_nil(self) -> Option<Self> {
        (self != Self::NIL).then_some(self)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, &at) in TEXT_ORDER.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        let text: &[u8; 36] = text.as_bytes().try_into().map_err(|_| ParseGuidError)?;
        let mut bytes = [0; 16];
        let mut places = TEXT_ORDER.iter();
        let mut high = None;
        for (at, &character) in text.iter().enumerate() {
            if HYPHENS.contains(&at) {
                if character != b'-' {
                    return Err(ParseGuidError);
                }
                continue;
            }
            let digit = hex_digit(character).ok_or(ParseGuidError)?;
            match high.take() {
                None => high = Some(digit),
                Some(high) => {
                    let &place = places.next().ok_or(ParseGuidError)?;
                    bytes[place] = high << 4 | digit;
                }
            }
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

/// A text that is no GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: expected 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct ParseGuidError;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_three_groups_are_little_endian_on_disk() {
        // The type of an EFI system partition: UEFI specification 2.10, table 5.7.
        let disk = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, //
            0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
        ];
        let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        assert_eq!(Guid::from_bytes(disk).to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(Guid::from_bytes(disk)));
    }

    #[test]
    fn texts_that_are_no_guid_are_refused() {
        for text in [
            "",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93bb",
            "c12a7328f-81f-11d2-ba4b-00a0c93ec93b",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93g",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec9\u{e9}",
            "{12a7328-f81f-11d2-ba4b-00a0c93ec93}",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(ParseGuidError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_say_the_same(bytes: [u8; 16]) {
            let guid = Guid::from_bytes(bytes);
            prop_assert_eq!(guid.to_string().parse::<Guid>(), Ok(guid));
            prop_assert_eq!(guid.to_bytes(), bytes);
        }
    }
}
