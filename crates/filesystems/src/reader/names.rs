//! Names of UTF-16 as bytes.

/// UTF-8 of units of UTF-16. A half of a pair becomes the three bytes its number would have in
/// UTF-8 (WTF-8): nothing is lost, and different names stay different.
pub(crate) fn wtf8(units: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for decoded in char::decode_utf16(units) {
        match decoded {
            Ok(character) => {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Err(half) => {
                let [high, low] = half.unpaired_surrogate().to_be_bytes();
                let (middle, last) = ((high & 0xf) << 2 | low >> 6, low & 0x3f);
                bytes.extend([0xe0 | high >> 4, 0x80 | middle, 0x80 | last]);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::wtf8;

    #[test]
    fn characters_are_utf8_and_halves_of_pairs_stay_different() {
        assert_eq!(wtf8("a\u{f6}\u{1f600}".encode_utf16()), "a\u{f6}\u{1f600}".as_bytes());
        assert_eq!(wtf8([0xd83d]), [0xed, 0xa0, 0xbd]);
        assert_eq!(wtf8([0xde00, 0x61]), [0xed, 0xb8, 0x80, 0x61]);
        assert_ne!(wtf8([0xd800]), wtf8([0xd801]));
    }
}
