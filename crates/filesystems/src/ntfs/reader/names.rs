//! Names in folders, and how NTFS sorts them.

use std::cmp::Ordering;

use super::index::IndexEntry;
use crate::bytes::le32;
use crate::ntfs::record::number_of;
use crate::reader::wtf8;
use crate::{Entry, FileId, FileType};

/// Records below are the filesystem's own files, or reserved for them (as ntfs-3g has it).
const FIRST_OF_USERS: u64 = 24;

/// A name a folder has for a file.
pub(super) struct FolderName {
    pub(super) reference: u64,
    pub(super) units: Vec<u16>,
    /// The short form beside another name of the same file.
    pub(super) is_short: bool,
    flags: u32,
}

impl FolderName {
    /// What a key of a folder's index says: a copy of the `$FILE_NAME` of the file.
    pub(super) fn of(entry: &IndexEntry<'_>) -> Option<Self> {
        const SHORT: u8 = 2;
        const HEAD: usize = 66;
        let head = entry.key.get(..HEAD)?;
        let units = entry.key.get(HEAD..HEAD + 2 * usize::from(head[64]))?.as_chunks().0;
        Some(Self {
            reference: entry.head,
            units: units.iter().map(|&unit| u16::from_le_bytes(unit)).collect(),
            is_short: head[65] == SHORT,
            flags: le32(head, 56),
        })
    }

    /// Whether it is that of one of the filesystem's own files, or of the folder itself.
    pub(super) const fn is_of_system(&self) -> bool {
        number_of(self.reference) < FIRST_OF_USERS
    }

    /// Whether it can be a name of something else than the folder or what is above it.
    pub(super) fn is_name(&self) -> bool {
        let is_dots = matches!(self.units.as_slice(), [0x2e] | [0x2e, 0x2e]);
        let cannot = |unit: &u16| matches!(*unit, 0 | 0x2f);
        !self.units.is_empty() && !is_dots && !self.units.iter().any(cannot)
    }

    pub(super) const fn id(&self) -> FileId {
        FileId { space: 0, number: self.reference }
    }

    pub(super) fn entry(&self) -> Entry {
        const SYSTEM: u32 = 4;
        const REPARSE: u32 = 0x400;
        const FOLDER: u32 = 0x1000_0000;
        let file_type = match self.flags {
            flags if flags & REPARSE != 0 => None,
            flags if flags & FOLDER != 0 => Some(FileType::Folder),
            // May be a device or link of Interix.
            flags if flags & SYSTEM != 0 => None,
            _ => Some(FileType::File),
        };
        Entry { name: wtf8(self.units.iter().copied()), id: self.id(), file_type }
    }
}

/// Upper case of each unit of UTF-16, by the volume's own table.
pub(super) struct UpCase(Vec<u16>);

impl UpCase {
    /// Bytes of the table.
    pub(super) const SIZE: u64 = 128 << 10;

    /// The table as it is stored; units it has not are their own upper case.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit)).collect())
    }

    /// Of ASCII alone, where the volume has no table that can be read.
    pub(super) fn of_ascii() -> Self {
        Self((0..128_u8).map(|byte| byte.to_ascii_uppercase().into()).collect())
    }

    fn of(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// How names are sorted but for their case.
    pub(super) fn compare(&self, a: &[u16], b: &[u16]) -> Ordering {
        let upper = |units: &[u16]| units.iter().map(|&unit| self.of(unit)).collect::<Vec<_>>();
        upper(a).cmp(&upper(b))
    }
}

/// UTF-16 of what [`wtf8`] made; `None` when it did not make it.
pub(super) fn units_of(name: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::new();
    let mut left = name;
    while let Some((&first, rest)) = left.split_first() {
        let more = match first {
            0..0x80 => 0,
            0xc2..0xe0 => 1,
            0xe0..0xf0 => 2,
            0xf0..0xf5 => 3,
            _ => return None,
        };
        let (tail, rest) = rest.split_at_checked(more)?;
        let mut number = u32::from(first) & (0x7f >> if more == 0 { 0 } else { more + 1 });
        for &byte in tail {
            if byte & 0xc0 != 0x80 {
                return None;
            }
            number = number << 6 | u32::from(byte & 0x3f);
        }
        match u16::try_from(number) {
            Ok(unit) => units.push(unit),
            Err(_) => units.extend_from_slice(char::from_u32(number)?.encode_utf16(&mut [0; 2])),
        }
        left = rest;
    }
    // Only one way to say it.
    (wtf8(units.iter().copied()) == name).then_some(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_units_again_and_other_bytes_are_none() {
        for units in [vec![0x61, 0xf6, 0x20ac], vec![0xd83d, 0xde00], vec![0xde00, 0xd83d, 0x7a]] {
            assert_eq!(units_of(&wtf8(units.iter().copied())), Some(units));
        }
        let pair_of_halves = [0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80];
        let wrong: [&[u8]; 7] = [
            b"\xff",
            b"\xc3",
            b"\xc3a",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            &pair_of_halves,
            b"\xf4\x90\x80\x80",
        ];
        for wrong in wrong {
            assert_eq!(units_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn case_is_that_of_the_table_and_what_it_has_not_is_itself() {
        let mut table: Vec<u16> = (0..0x100).collect();
        table[0xf6] = 0xd6;
        let bytes: Vec<u8> = table.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let case = UpCase::new(&bytes);
        assert_eq!(case.compare(&[0xf6, 0x3b1], &[0xd6, 0x3b1]), Ordering::Equal);
        assert_eq!(case.compare(&[0x61], &[0x41]), Ordering::Greater);
        assert_eq!(UpCase::of_ascii().compare(&[0x61], &[0x41, 0x42]), Ordering::Less);
    }
}
