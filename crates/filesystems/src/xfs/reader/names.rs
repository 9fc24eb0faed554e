//! Names as they lie in a block of a folder, or in its inode.
//!
//! Facts: `xfs_da_format.h`, `struct xfs_dir2_sf_hdr`, `xfs_dir2_data_entry`,
//! `xfs_dir2_data_unused`, `xfs_dir2_block_tail`.

use super::layout::{At, Layout, Proof};
use crate::bytes::{be16, be32, be64};
use crate::reader::{Entry, FileId, FileType};
use crate::{Error, Result};

/// What begins a free stretch, in place of an inode's number.
const FREE: u16 = 0xffff;
/// Number of names and of those removed, behind the hashes of a folder of one block.
const TAIL_LEN: usize = 8;
/// Hash and place of a name.
pub(super) const HASH_LEN: usize = 8;

/// A name as it was found, whatever it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    file_type: Option<FileType>,
}

impl Name<'_> {
    /// The folder itself, or the one it is in.
    pub(super) fn is_dots(&self) -> bool {
        self.name == b"." || self.name == b".."
    }

    pub(super) fn is_possible(&self) -> bool {
        !self.name.is_empty() && !self.name.iter().any(|byte| matches!(byte, 0 | b'/'))
    }

    pub(super) fn entry(&self) -> Entry {
        let id = FileId { space: 0, number: self.inode };
        Entry { name: self.name.to_vec(), id, file_type: self.file_type }
    }
}

/// The names of a folder in its inode: count, count of long numbers, the folder it is in; then
/// for each length, two bytes, name, type, number.
pub(super) struct ShortNames<'a> {
    rest: &'a [u8],
    left: u8,
    number_len: usize,
    has_types: bool,
}

impl<'a> ShortNames<'a> {
    /// `None` when there is not even a beginning.
    pub(super) fn new(layout: &Layout<'_>, fork: &'a [u8], len: u64) -> Option<Self> {
        let fork = fork.get(..usize::try_from(len).ok()?)?;
        let (&[count, long], _) = fork.split_first_chunk()?;
        let number_len = if long > 0 { 8 } else { 4 };
        let rest = fork.get(2 + number_len..)?;
        Some(Self { rest, left: count, number_len, has_types: layout.shape.has_types })
    }

    /// The next name; `Err` when there should be one.
    pub(super) fn next(&mut self) -> Option<std::result::Result<Name<'a>, ()>> {
        self.left = self.left.checked_sub(1)?;
        let taken = self.take();
        if taken.is_none() {
            self.left = 0;
        }
        Some(taken.ok_or(()))
    }

    fn take(&mut self) -> Option<Name<'a>> {
        let len = usize::from(*self.rest.first()?);
        let type_len = usize::from(self.has_types);
        let (name, rest) = self.rest.get(3..)?.split_at_checked(len)?;
        let (kind, rest) = rest.split_at_checked(type_len)?;
        let (number, rest) = rest.split_at_checked(self.number_len)?;
        self.rest = rest;
        let inode = match self.number_len {
            8 => be64(number, 0),
            _ => be32(number, 0).into(),
        };
        Some(Name { name, inode, file_type: kind.first().copied().and_then(FileType::of_entry) })
    }
}

/// A block of names that is what it should be.
pub(super) struct NameBlock<'a> {
    bytes: &'a [u8],
    /// First name.
    start: usize,
    /// Behind the last one.
    end: usize,
    has_types: bool,
    offset: u64,
}

impl<'a> NameBlock<'a> {
    /// Checks a block of `folder` that was read at a place.
    pub(super) fn new(layout: &Layout<'_>, folder: u64, bytes: &'a [u8], at: At) -> Result<Self> {
        let offset = at.offset;
        let (is_single, start) = match &bytes[..4] {
            b"XD2D" => (false, 16),
            b"XD2B" => (true, 16),
            b"XDD3" => (false, 64),
            b"XDB3" => (true, 64),
            _ => return Err(fault(folder, offset, "its magic is wrong")),
        };
        if (start == 64) != layout.shape.self_describing {
            return Err(fault(folder, offset, "its magic is wrong"));
        }
        layout.check(bytes, Proof::NAMES, at, folder, "a block of names")?;
        let mut block =
            Self { bytes, start, end: bytes.len(), has_types: layout.shape.has_types, offset };
        if is_single {
            let hashes = be32(bytes, bytes.len() - TAIL_LEN) as usize;
            block.end = hashes
                .checked_mul(HASH_LEN)
                .and_then(|len| (bytes.len() - TAIL_LEN).checked_sub(len))
                .filter(|&end| end >= start)
                .ok_or_else(|| fault(folder, offset, "it has more hashes than room"))?;
        }
        Ok(block)
    }

    /// The hashes of a folder that has one block only.
    pub(super) fn hashes(&self) -> Option<&'a [u8]> {
        (self.end < self.bytes.len()).then(|| &self.bytes[self.end..self.bytes.len() - TAIL_LEN])
    }

    /// The name at a byte of the block, and where the next one is; no name where it is free.
    fn name_at(&self, at: usize) -> Option<(Option<Name<'a>>, usize)> {
        let entry = self.bytes.get(at..self.end).filter(|entry| entry.len() >= 8)?;
        if be16(entry, 0) == FREE {
            let len = usize::from(be16(entry, 2));
            let is_free = len >= 8 && len.is_multiple_of(8) && len <= entry.len();
            return (is_free && usize::from(be16(entry, len - 2)) == at)
                .then_some((None, at + len));
        }
        let name_len = usize::from(*entry.get(8)?);
        let len = (9 + name_len + usize::from(self.has_types) + 2).next_multiple_of(8);
        let entry = entry.get(..len)?;
        // The last two bytes say where it begins.
        if usize::from(be16(entry, len - 2)) != at {
            return None;
        }
        let kind = if self.has_types { FileType::of_entry(entry[9 + name_len]) } else { None };
        let name = &entry[9..9 + name_len];
        Some((Some(Name { name, inode: be64(entry, 0), file_type: kind }), at + len))
    }

    /// The name that an index says is at a byte of the block.
    pub(super) fn indexed(&self, at: usize) -> Option<Name<'a>> {
        if at < self.start || !at.is_multiple_of(8) {
            return None;
        }
        self.name_at(at)?.0
    }

    /// All names; an error is the last.
    pub(super) fn names(&self, folder: u64) -> impl Iterator<Item = Result<Name<'a>>> + '_ {
        let mut next = self.start;
        std::iter::from_fn(move || {
            while next < self.end {
                match self.name_at(next) {
                    None => {
                        next = self.end;
                        return Some(Err(fault(folder, self.offset, "a name in it is damaged")));
                    }
                    Some((name, behind)) => {
                        next = behind;
                        if let Some(name) = name {
                            return Some(Ok(name));
                        }
                    }
                }
            }
            None
        })
    }
}

fn fault(folder: u64, offset: u64, what: &str) -> Error {
    Error::damaged(format!("a block of names of folder {folder}: {what}"), Some(offset))
}
