//! Records of names: in folders, and of extended attributes.

use super::super::key::{self, Key, kind};
use crate::bytes::{le16, le64};
use crate::reader::{Entry, FileId, FileType};

/// A key, a generation, two lengths and a type.
const FIXED_LEN: usize = key::LEN + 13;
/// Bytes of a name.
const NAME_MAX: usize = 255;
/// Of the folder that is shown where a snapshot has none of the subvolumes of its original.
pub(super) const EMPTY_FOLDER: u64 = 2;

/// A record of a name.
pub(super) struct Record<'a> {
    pub(super) target: Key,
    kind: u8,
    pub(super) name: &'a [u8],
    /// Of an extended attribute.
    pub(super) value: &'a [u8],
}

/// The records of an item, several where hashes are the same; `Err` at the end when the rest is
/// malformed.
pub(super) fn records(mut item: &[u8]) -> impl Iterator<Item = Result<Record<'_>, ()>> {
    std::iter::from_fn(move || {
        if item.is_empty() {
            return None;
        }
        let record = parse(item);
        item = record.as_ref().map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record).ok_or(()))
    })
}

fn parse(item: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (fixed, rest) = item.split_at_checked(FIXED_LEN)?;
    let (value_len, name_len) = (le16(fixed, 25), le16(fixed, 27));
    let (name, rest) = rest.split_at_checked(name_len.into())?;
    let (value, rest) = rest.split_at_checked(value_len.into())?;
    let is_sound = !name.is_empty() && name.len() <= NAME_MAX;
    let record = Record { target: Key::parse(fixed), kind: fixed[29], name, value };
    is_sound.then_some((record, rest))
}

/// Where a subvolume is entered, by its parent's record in the root tree.
pub(super) fn is_reference(item: &[u8], folder: u64, name: &[u8]) -> bool {
    item.len() >= 18
        && le64(item, 0) == folder
        && item.get(18..18 + usize::from(le16(item, 16))) == Some(name)
}

/// The hash by which names are found.
pub(super) fn hash(name: &[u8]) -> u64 {
    // CRC-32C that begins with -2, and is not inverted.
    (!crc32c::crc32c_append(1, name)).into()
}

impl Record<'_> {
    /// The subvolume it leads to.
    pub(super) fn subvolume(&self) -> Option<u64> {
        (self.target.kind == kind::ROOT_ITEM).then_some(self.target.object)
    }

    /// As a name in a folder of the subvolume `space`, where it leads to a file of that.
    pub(super) fn entry(&self, space: u64) -> Option<Entry> {
        let is_sound =
            self.target.kind == kind::INODE_ITEM && self.value.is_empty() && is_name(self.name);
        let id = FileId { space, number: self.target.object };
        is_sound.then(|| Entry {
            name: self.name.to_vec(),
            id,
            file_type: FileType::of_entry(self.kind),
        })
    }
}

pub(super) fn is_name(name: &[u8]) -> bool {
    name != b"." && name != b".." && !name.iter().any(|byte| [0, b'/'].contains(byte))
}
