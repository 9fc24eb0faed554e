//! Integers in records that were read into arrays large enough for them.

/// The little-endian integer at `at`; zero where the record ends before it.
pub(crate) fn le16(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(take(record, at))
}

pub(crate) fn le32(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(record, at))
}

pub(crate) fn le64(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(record, at))
}

/// The big-endian integer at `at`; zero where the record ends before it.
pub(crate) fn be16(record: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(take(record, at))
}

pub(crate) fn be32(record: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(take(record, at))
}

pub(crate) fn be64(record: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(take(record, at))
}

/// `N` bytes from `at`, zeros where the record ends before them.
pub(crate) fn take<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = record.get(at..).and_then(|rest| rest.get(..N)) {
        out.copy_from_slice(found);
    }
    out
}

/// Text in UTF-16 up to its first zero; what is no text becomes a replacement character.
pub(crate) fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
