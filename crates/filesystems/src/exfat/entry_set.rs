//! Directory entries: a primary one, and the secondary ones that belong to it.

use super::reason::ExFatReason;
use crate::bytes::{le16, le32, le64};

const END: u8 = 0x00;
const IN_USE: u8 = 0x80;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const FILE_NAME: u8 = 0xc1;
const VENDOR_EXTENSION: u8 = 0xe0;
const VENDOR_ALLOCATION: u8 = 0xe1;
/// Allocation bitmap, up-case table, label, GUID: alone, and of the root directory.
const LONE: [u8; 4] = [0x81, 0x82, 0x83, 0xa0];

/// What an entry says that matters for clusters.
pub(super) enum Entry {
    Nothing,
    /// This entry and all after it are unused.
    End,
    Allocation(Allocation),
}

/// Where an entry says that something is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allocation {
    pub(super) first: u32,
    pub(super) len: u64,
    pub(super) in_one_piece: bool,
    pub(super) is_folder: bool,
}

/// A set of which some entries are still to come.
struct Open {
    offset: u64,
    left: u8,
    is_folder: bool,
    stream_seen: bool,
    /// `SetChecksum`, and what it should be so far.
    stored: u16,
    sum: u16,
}

/// Reads the entries of one directory in their order.
#[derive(Default)]
pub(super) struct Reader {
    open: Option<Open>,
}

impl Reader {
    /// Takes the entry at a byte offset of the volume.
    pub(super) fn take(&mut self, entry: &[u8; 32], offset: u64) -> Result<Entry, ExFatReason> {
        if let Some(open) = self.open.take() {
            return self.take_secondary(open, entry, offset);
        }
        match entry[0] {
            END => Ok(Entry::End),
            kind if kind & IN_USE == 0 || LONE.contains(&kind) => Ok(Entry::Nothing),
            FILE if (2..=18).contains(&entry[1]) => {
                const DIRECTORY: u16 = 0x10;
                self.open = Some(Open {
                    offset,
                    left: entry[1],
                    is_folder: le16(entry, 4) & DIRECTORY != 0,
                    stream_seen: false,
                    stored: le16(entry, 2),
                    // The checksum leaves itself out.
                    sum: add(add(0, &entry[..2]), &entry[4..]),
                });
                Ok(Entry::Nothing)
            }
            FILE => Err(wrong(offset, "has a number of further entries it cannot have")),
            _ => Err(wrong(offset, "is of an unknown kind, or belongs to no file")),
        }
    }

    fn take_secondary(
        &mut self,
        mut open: Open,
        entry: &[u8; 32],
        offset: u64,
    ) -> Result<Entry, ExFatReason> {
        const NO_FAT_CHAIN: u8 = 0x2;
        let (kind, flags) = (entry[0], entry[1]);
        if ![STREAM, FILE_NAME, VENDOR_EXTENSION, VENDOR_ALLOCATION].contains(&kind) {
            return Err(wrong(offset, "is not the further entry of a file that it should be"));
        }
        open.sum = add(open.sum, entry);
        open.left -= 1;
        // The stream comes first, and only once: it is the file itself.
        if (kind == STREAM) == open.stream_seen {
            return Err(wrong(open.offset, "has its further entries in a wrong order"));
        }
        open.stream_seen = true;
        let is_folder = open.is_folder && kind == STREAM;
        if open.left > 0 {
            self.open = Some(open);
        } else if open.sum != open.stored {
            return Err(wrong(open.offset, "does not match its checksum"));
        }
        // Not every driver heeds the flag that says whether the fields mean anything; without
        // an allocation both are zero.
        if !matches!(kind, STREAM | VENDOR_ALLOCATION) {
            return Ok(Entry::Nothing);
        }
        Ok(Entry::Allocation(Allocation {
            first: le32(entry, 20),
            len: le64(entry, 24),
            in_one_piece: flags & NO_FAT_CHAIN != 0,
            is_folder,
        }))
    }

    /// Ends a directory without an end mark.
    pub(super) fn finish(&self) -> Result<(), ExFatReason> {
        match &self.open {
            Some(open) => Err(wrong(open.offset, "has further entries behind the end")),
            None => Ok(()),
        }
    }
}

/// Continues the checksum of a set, or the hash of a name.
pub(super) fn add(sum: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(sum, |sum, &byte| sum.rotate_right(1).wrapping_add(byte.into()))
}

fn wrong(offset: u64, what: &'static str) -> ExFatReason {
    ExFatReason::DirectoryEntry { offset, what }
}
