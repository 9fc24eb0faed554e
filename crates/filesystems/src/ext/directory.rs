//! The names in a block of a folder.

use super::checksum::crc32c;
use crate::FileType;
use crate::bytes::{le16, le32};

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'b> {
    pub(super) inode: u32,
    /// Nothing where the filesystem does not keep kinds beside names.
    pub(super) kind: Option<FileType>,
    pub(super) name: &'b [u8],
}

/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// The last entry of a block with a checksum: no name, and this kind.
const TAIL_LEN: usize = 12;
const TAIL_KIND: u8 = 0xde;

const CUT_OFF: &str = "an entry does not fit its block";
const BAD_NAME: &str = "a name is none";

/// The names of a block, without `.` and `..`, whatever they are. Blocks of an index of names look
/// as if they had none. Goes on after a name that is none; any other error is the last item.
pub(super) struct Entries<'b> {
    rest: &'b [u8],
    block_len: usize,
    has_kinds: bool,
    /// The checksum is right, or there need not be one.
    is_sealed: bool,
    /// The names are encrypted: any bytes are one.
    any_bytes: bool,
}

impl<'b> Entries<'b> {
    /// `seed` is the folder's, where blocks have checksums; a block with names must match its own.
    pub(super) fn new(
        block: &'b [u8],
        has_kinds: bool,
        seed: Option<u32>,
    ) -> Result<Self, &'static str> {
        let stored = seed.and_then(|_| stored_sum(block));
        if let (Some(seed), Some(stored)) = (seed, stored)
            && crc32c(seed, &block[..block.len() - TAIL_LEN]) != stored
        {
            return Err("a checksum is wrong");
        }
        let is_sealed = seed.is_none() || stored.is_some();
        Ok(Self { rest: block, block_len: block.len(), has_kinds, is_sealed, any_bytes: false })
    }

    /// Names may have any bytes.
    pub(super) fn encrypted(self) -> Self {
        Self { any_bytes: true, ..self }
    }

    fn stop(&mut self, what: &'static str) -> Option<Result<Entry<'b>, &'static str>> {
        self.rest = &[];
        Some(Err(what))
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<Entry<'b>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            if self.rest.len() < HEAD {
                return self.stop(CUT_OFF);
            }
            let len = record_len(le16(self.rest, 4), self.block_len);
            let (inode, name_len, kind) = (le32(self.rest, 0), self.rest[6], self.rest[7]);
            let name_len = usize::from(name_len);
            if len < HEAD + name_len || !len.is_multiple_of(4) || len > self.rest.len() {
                return self.stop(CUT_OFF);
            }
            let (record, rest) = self.rest.split_at(len);
            self.rest = rest;
            let name = &record[HEAD..HEAD + name_len];
            if inode == 0 || name == b"." || name == b".." {
                continue;
            }
            if !self.is_sealed {
                return self.stop("a checksum is missing");
            }
            let is_plain = !name.contains(&b'/') && !name.contains(&0);
            if name.is_empty() || !(self.any_bytes || is_plain) {
                return Some(Err(BAD_NAME));
            }
            let kind = if self.has_kinds { FileType::of_entry(kind) } else { None };
            return Some(Ok(Entry { inode, kind, name }));
        }
        None
    }
}

/// What the last entry of a block says its checksum is, if it is one that does. Blocks of an index
/// may have what looks like one in the middle of an entry.
fn stored_sum(block: &[u8]) -> Option<u32> {
    let mut rest = block;
    while rest.len() > TAIL_LEN {
        let len = record_len(le16(rest, 4), block.len());
        match rest.get(len..) {
            Some(after) if len >= HEAD => rest = after,
            // The block is damaged; then so is its checksum.
            _ => rest = &block[block.len() - TAIL_LEN..],
        }
    }
    if rest.len() < TAIL_LEN {
        return None;
    }
    let tail = rest;
    let is_tail = le32(tail, 0) == 0
        && usize::from(le16(tail, 4)) == TAIL_LEN
        && (tail[6], tail[7]) == (0, TAIL_KIND);
    is_tail.then(|| le32(tail, HEAD))
}

/// Blocks of 64 KiB are longer than their field can say.
fn record_len(stored: u16, block_size: usize) -> usize {
    match usize::from(stored) {
        0 | 0xffff if block_size == 0x1_0000 => block_size,
        len if block_size == 0x1_0000 => len & 0xfffc | (len & 3) << 16,
        len => len,
    }
}
