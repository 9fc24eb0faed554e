//! Tables of records, in compressed blocks of 8 KiB, which follow each other on the volume.

use std::sync::Arc;

use aiv_volume_io::ReadAt;

use super::method::Method;
use crate::bytes::{le16, le64};
use crate::reader::Volume;
use crate::recent::Recent;
use crate::{Error, Result};

/// Bytes of a block of records.
pub(super) const BLOCK: usize = 8192;
/// A block with this in its length lies as it is.
const PLAIN: u16 = 0x8000;
/// Blocks of records that are kept: 1 MiB.
const KEPT: usize = 128;

/// A place in a table: the first byte of a block on the volume, and a byte of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) offset: usize,
}

impl Place {
    /// Of a reference within the table that begins at `table`.
    pub(super) fn of(reference: u64, table: u64) -> Result<Self> {
        let offset = usize::try_from(reference & 0xffff).unwrap_or(usize::MAX);
        let block = table.checked_add(reference >> 16).filter(|_| offset < BLOCK);
        let block = block.ok_or_else(|| Error::damaged("a reference leads nowhere", None))?;
        Ok(Self { block, offset })
    }
}

/// A block, and where the next one begins.
struct Block {
    bytes: Vec<u8>,
    next: u64,
}

/// All tables of a volume.
pub(super) struct Tables {
    pub(super) volume: Volume,
    method: Method,
    recent: Recent<Block>,
}

impl Tables {
    pub(super) fn new(volume: Volume, method: Method) -> Self {
        Self { volume, method, recent: Recent::new(KEPT) }
    }

    fn block(&self, at: u64) -> Result<Arc<Block>> {
        self.recent.get(at, || {
            let mut head = [0; 2];
            self.read(&mut head, at)?;
            let word = le16(&head, 0);
            let len = usize::from(word & !PLAIN);
            let damaged = || Error::damaged("a block of records is damaged", Some(at));
            if len == 0 || len > BLOCK {
                return Err(damaged());
            }
            let start = at.checked_add(2).ok_or_else(damaged)?;
            let mut stored = vec![0; len];
            self.read(&mut stored, start)?;
            let bytes = if word & PLAIN != 0 {
                stored
            } else {
                let mut out = vec![0; BLOCK];
                let len = self.method.expand(&stored, &mut out).ok_or_else(damaged)?;
                out.truncate(len);
                out
            };
            Ok(Block { bytes, next: start + len as u64 })
        })
    }

    /// Bytes of the volume as they are.
    fn read(&self, out: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.volume.len()) {
            return Err(Error::damaged("a table reaches behind the end", Some(at)));
        }
        self.volume.read_exact_at(out, at).map_err(Error::io("read table", at))
    }

    /// Reads records from a place on.
    pub(super) fn from(&self, place: Place) -> Cursor<'_> {
        Cursor { tables: self, place }
    }

    /// Where record `number` is, of a table that is found by a list of its blocks at `list`.
    pub(super) fn listed(&self, list: u64, number: u64, size: usize) -> Result<Place> {
        let each = (BLOCK / size) as u64;
        let at = (number / each).checked_mul(8).and_then(|at| list.checked_add(at));
        let at = at.ok_or_else(|| Error::damaged("a list of blocks ends nowhere", None))?;
        let mut word = [0; 8];
        self.read(&mut word, at)?;
        let offset = usize::try_from(number % each).unwrap_or(0) * size;
        Ok(Place { block: le64(&word, 0), offset })
    }

    /// Bytes of the volume at a place that is in no block.
    pub(super) fn plain<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.read(&mut out, at).map(|()| out)
    }
}

/// Reads on from a place in a table.
pub(super) struct Cursor<'a> {
    tables: &'a Tables,
    place: Place,
}

impl Cursor<'_> {
    /// Fills `out` with the bytes that follow.
    pub(super) fn fill(&mut self, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let block = self.tables.block(self.place.block)?;
            let rest = block.bytes.get(self.place.offset..).unwrap_or_default();
            if rest.is_empty() {
                // Only behind a whole block there is another one.
                if self.place.offset != block.bytes.len() || block.bytes.len() != BLOCK {
                    let at = Some(self.place.block);
                    return Err(Error::damaged("a record reaches behind its table", at));
                }
                self.place = Place { block: block.next, offset: 0 };
                continue;
            }
            let count = rest.len().min(out.len());
            out[..count].copy_from_slice(&rest[..count]);
            self.place.offset += count;
            out = &mut out[count..];
        }
        Ok(())
    }

    /// Where the next byte is.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out).map(|()| out)
    }

    /// The next `len` bytes, of which the caller knows that they are not many.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        self.fill(&mut out).map(|()| out)
    }
}
