//! Records of a covered log: one transaction each, which logs the superblock and nothing else.
//!
//! A record's body is a row of operations: a header of 12 bytes, then what it says of its
//! length. This transaction has five: a start, its own header, the description of the buffer that
//! changed, what is in it now, and a commit. What is inside the operations has the byte order of
//! the machine that wrote it; only little-endian ones are read here.
//!
//! The superblock in the log has to be the one in its place, but for its counters: a filesystem
//! that was being grown logs another one.

use std::ops::Range;

use super::BLOCK;
use crate::bytes::{be32, le16, le32, le64};

/// Bytes of an operation's header.
pub(in crate::xfs) const OPERATION: usize = 12;
const OPERATIONS: u32 = 5;
/// Cycle words that the first header block saves.
pub(in crate::xfs) const SAVED_WORDS: usize = 64;
pub(in crate::xfs) const SAVED_AT: usize = 44;
pub(in crate::xfs) const FORMAT_AT: usize = 300;
/// `XLOG_FMT_LINUX_LE`.
pub(in crate::xfs) const LITTLE_ENDIAN: u32 = 1;
/// `XFS_TRANSACTION`: the client of every transaction.
pub(in crate::xfs) const CLIENT: u8 = 0x69;
pub(in crate::xfs) const START: u8 = 0x01;
pub(in crate::xfs) const COMMIT: u8 = 0x02;
/// `XFS_TRANS_HEADER_MAGIC`, and the size of such a header.
pub(in crate::xfs) const TRANSACTION_MAGIC: u32 = 0x5452_414e;
pub(in crate::xfs) const TRANSACTION_HEADER: usize = 16;
/// `XFS_LI_BUF`: the description of a changed buffer, at least this long.
pub(in crate::xfs) const BUFFER: u16 = 0x123c;
const BUFFER_MIN: usize = 24;
/// `XFS_BLF_CANCEL`: the buffer is not to be replayed, which nobody does to the superblock.
pub(in crate::xfs) const CANCEL: u16 = 0x02;
/// Bytes that one bit of the description stands for.
pub(in crate::xfs) const CHUNK: usize = 128;
/// What the superblock says of shape and features; between them are counters, behind them its
/// checksum and the number of the record that changed it.
const SHAPE: Range<usize> = 0..128;
const FEATURES: Range<usize> = 192..224;

/// Whether the record with this `header` and `body`, as they lie in the log, is one whole
/// transaction that writes the `superblock` once more and nothing else. Anything not understood
/// is a no.
pub(super) fn logs_superblock_only(
    header: &[u8; BLOCK],
    body: &[u8],
    superblock: &[u8; BLOCK],
) -> bool {
    if be32(header, FORMAT_AT) != LITTLE_ENDIAN || be32(header, 40) != OPERATIONS {
        return false;
    }
    // The words that cycle numbers took the places of. Operations further away are not read.
    let mut body = body[..body.len().min(SAVED_WORDS * BLOCK)].to_vec();
    for (block, saved) in body.chunks_mut(BLOCK).zip(header[SAVED_AT..].chunks(4)) {
        block[..4].copy_from_slice(saved);
    }
    let mut operations = Operations { rest: &body, transaction: None };
    let logged = logged_superblock(&mut operations);
    logged.is_some_and(|logged| {
        [SHAPE, FEATURES].into_iter().all(|part| logged[part.clone()] == superblock[part])
    })
}

/// The superblock as far as it is logged, at least to the end of [`FEATURES`]; `None` where it is
/// anything else.
fn logged_superblock<'a>(operations: &mut Operations<'a>) -> Option<&'a [u8]> {
    operations.next(START)?.is_empty().then_some(())?;
    let head = operations.next(0)?;
    (head.len() == TRANSACTION_HEADER && le32(head, 0) == TRANSACTION_MAGIC).then_some(())?;
    let buffer = operations.next(0)?;
    (buffer.len() >= BUFFER_MIN && le16(buffer, 0) == BUFFER).then_some(())?;
    let (parts, flags, place, map) =
        (le16(buffer, 2), le16(buffer, 4), le64(buffer, 8), le32(buffer, 20));
    (parts == 2 && flags & CANCEL == 0 && place == 0).then_some(())?;
    let logged = operations.next(0)?;
    let chunks = logged.len() / CHUNK;
    let is_from_the_start = logged.len() % CHUNK == 0 && map == (1_u32 << chunks.min(31)) - 1;
    (is_from_the_start && logged.len() >= FEATURES.end).then_some(())?;
    operations.next(COMMIT)?.is_empty().then_some(logged)
}

/// The operations of one record.
struct Operations<'a> {
    rest: &'a [u8],
    /// All have to be of the same transaction.
    transaction: Option<u32>,
}

impl<'a> Operations<'a> {
    /// What the next operation carries, if it has these flags and no others.
    fn next(&mut self, flags: u8) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(OPERATION)?;
        let (id, len) = (be32(head, 0), usize::try_from(be32(head, 4)).ok()?);
        let is_ours = *self.transaction.get_or_insert(id) == id;
        (is_ours && head[8] == CLIENT && head[9] == flags).then_some(())?;
        let (content, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(content)
    }
}
