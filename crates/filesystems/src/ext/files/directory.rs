//! The names in a block of a folder.

use super::super::checksum::crc32c;
use crate::bytes::{le16, le32};

/// Kinds of entries that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    Other,
    /// The filesystem does not keep kinds beside names.
    Unknown,
}

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'b> {
    pub(super) inode: u32,
    pub(super) kind: EntryKind,
    pub(super) name: &'b [u8],
}

/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// The last entry of a block with a checksum: no name, and this kind.
const TAIL_LEN: usize = 12;
const TAIL_KIND: u8 = 0xde;

/// The names of a block, without `.` and `..`. Blocks of an index of names look as if they had
/// none. `seed` is the folder's, where blocks have checksums; a block with names must match its
/// own.
pub(super) fn entries<'b>(
    block: &'b [u8],
    has_kinds: bool,
    seed: Option<u32>,
) -> Result<Vec<Entry<'b>>, &'static str> {
    const CUT_OFF: &str = "an entry does not fit its block";
    let mut entries = Vec::new();
    let mut rest = block;
    let mut sealed = false;
    while !rest.is_empty() {
        if rest.len() < HEAD {
            return Err(CUT_OFF);
        }
        let len = record_len(le16(rest, 4), block.len());
        let name_len = usize::from(rest[6]);
        if len < HEAD + name_len || !len.is_multiple_of(4) || len > rest.len() {
            return Err(CUT_OFF);
        }
        let (inode, kind) = (le32(rest, 0), rest[7]);
        let name = &rest[HEAD..HEAD + name_len];
        if inode == 0 && (len, rest.len(), name_len, kind) == (TAIL_LEN, TAIL_LEN, 0, TAIL_KIND) {
            sealed = true;
            let before = &block[..block.len() - TAIL_LEN];
            if seed.is_some_and(|seed| crc32c(seed, before) != le32(rest, HEAD)) {
                return Err("a checksum is wrong");
            }
        } else if inode != 0 && name != b"." && name != b".." {
            let kind = match kind {
                _ if !has_kinds => EntryKind::Unknown,
                0 => EntryKind::Unknown,
                1 => EntryKind::File,
                2 => EntryKind::Folder,
                _ => EntryKind::Other,
            };
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return Err("a name is none");
            }
            entries.push(Entry { inode, kind, name });
        }
        rest = &rest[len..];
    }
    if seed.is_some() && !sealed && !entries.is_empty() {
        return Err("a checksum is missing");
    }
    Ok(entries)
}

/// Blocks of 64 KiB are longer than their field can say.
fn record_len(stored: u16, block_size: usize) -> usize {
    match usize::from(stored) {
        0 | 0xffff if block_size == 0x1_0000 => block_size,
        len if block_size == 0x1_0000 => len & 0xfffc | (len & 3) << 16,
        len => len,
    }
}
