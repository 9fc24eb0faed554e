//! Integers out of records whose size the caller has just established.
//!
//! Each function panics when the record is shorter than the field: records are read into
//! buffers of their full, constant size before any field is looked at.

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    *record[at..].first_chunk().expect("records are read in full before their fields")
}

pub(crate) fn le16(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(record, at))
}

pub(crate) fn le32(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(record, at))
}

pub(crate) fn le64(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(record, at))
}

pub(crate) fn be16(record: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(record, at))
}

pub(crate) fn be32(record: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(record, at))
}

pub(crate) fn be64(record: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(record, at))
}
