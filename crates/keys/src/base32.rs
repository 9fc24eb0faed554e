//! Crockford's base 32: digits and capital letters without I, L, O and U, so that what is
//! printed can be read aloud and typed.

const SYMBOLS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The symbol of a value below 32.
pub(crate) fn symbol(value: u8) -> char {
    SYMBOLS[usize::from(value & 31)].into()
}

/// The value of a symbol, whatever its case; I and L are read as 1, O as 0.
pub(crate) fn value(symbol: char) -> Option<u8> {
    let symbol = match symbol.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    let at = SYMBOLS.iter().position(|&known| char::from(known) == symbol)?;
    u8::try_from(at).ok()
}

/// The values of `bytes`, five bits each from the top; the last is filled up with zeros.
pub(crate) fn values(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    (0..(bytes.len() * 8).div_ceil(5)).map(|at| {
        let bit = at * 5;
        let high = u16::from(bytes[bit / 8]) << 8;
        let low = bytes.get(bit / 8 + 1).map_or(0, |&byte| u16::from(byte));
        let window = (high | low) << (bit % 8);
        window.to_be_bytes()[0] >> 3
    })
}

/// Puts values back together into `out`; `false` unless there are exactly as many as
/// [`values`] makes of it, the filling zero.
pub(crate) fn bytes(values: impl Iterator<Item = u8>, out: &mut [u8]) -> bool {
    let expected = (out.len() * 8).div_ceil(5);
    out.fill(0);
    let mut count = 0;
    for value in values {
        for bit in 0..5 {
            let at = count * 5 + bit;
            let is_set = value >> (4 - bit) & 1 == 1;
            match out.get_mut(at / 8) {
                Some(byte) => *byte |= u8::from(is_set) << (7 - at % 8),
                None if is_set => return false,
                None => {}
            }
        }
        count += 1;
        if count > expected {
            return false;
        }
    }
    count == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_filling_must_be_zero() {
        for len in 0..40_u8 {
            let data: Vec<u8> = (0..len).map(|i| i.wrapping_mul(77) ^ 0xA5).collect();
            let mut out = vec![0; data.len()];
            assert!(bytes(values(&data), &mut out));
            assert_eq!(out, data);
        }
        let mut out = [0; 1];
        assert!(bytes([31, 28].into_iter(), &mut out) && out == [255]);
        assert!(!bytes([31, 29].into_iter(), &mut out));
        assert!(!bytes([31].into_iter(), &mut out));
        assert!(!bytes([31, 28, 0].into_iter(), &mut out));
    }

    #[test]
    fn letters_that_look_like_digits_are_read_as_digits() {
        assert_eq!(
            "0oO1iIlLzZ".chars().filter_map(value).collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1, 1, 1, 31, 31]
        );
        assert_eq!(value('U'), None);
        assert!((0..32).all(|v| value(symbol(v)) == Some(v)));
    }
}
