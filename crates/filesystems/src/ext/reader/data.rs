//! The bytes of a file.

use std::io;

use aiv_volume_io::{Extent, ReadAt};

use super::super::blocks::JOURNAL_MAGIC;
use super::super::inode::MAP_LEN;
use super::super::map::{Fault, Piece as MapPiece};
use super::{Node, Reader};
use crate::reader::{Mapped, Piece, Pieces};
use crate::{Error, FileData, Result};

impl Reader {
    /// The bytes of a file, or of what a link says.
    pub(super) fn contents(&self, node: &Node) -> Result<Box<dyn FileData + '_>> {
        let inode = &node.inode;
        if inode.is_encrypted() {
            let what = "the contents of an encrypted file cannot be read".to_owned();
            return Err(Error::Unsupported { what });
        }
        if inode.has_compressed_blocks() {
            let what = "contents that e2compr compressed cannot be read".to_owned();
            return Err(Error::Unsupported { what });
        }
        if inode.is_inline() {
            let mut bytes = inode.map[..MAP_LEN].to_vec();
            bytes.extend(self.inline_rest(node)?);
            return Ok(Box::new(Inline { bytes, len: inode.len }));
        }
        Ok(Box::new(self.mapped(node)?))
    }

    fn mapped(&self, node: &Node) -> Result<Contents<'_>> {
        let block_size = self.block_size();
        let len = node.inode.len;
        let blocks = self.blocks();
        let mut pieces = Pieces::new(&self.volume);
        let mut magics = Vec::new();
        let end = len.div_ceil(block_size);
        let read = self.maps(&blocks).pieces(&node.inode, end, &mut |piece| {
            let MapPiece::Data { logical, physical, count } = piece else { return Ok(()) };
            // What lies behind the end has no place in the file.
            let count = count.min(end.saturating_sub(logical));
            let mut push = |logical: u64, physical: u64, count: u64| {
                let piece =
                    Piece { logical: logical * block_size, physical, len: count * block_size };
                if count > 0 { pieces.push(piece) } else { Ok(()) }
            };
            let mut done = 0;
            for block in self.newer_within(physical, count) {
                let at = block - physical;
                push(logical + done, (physical + done) * block_size, at - done)?;
                if let Some(copy) = self.newer.get(&block) {
                    push(logical + at, copy.offset, 1)?;
                    if copy.escaped {
                        magics.push((logical + at) * block_size);
                    }
                }
                done = at + 1;
            }
            push(logical + done, (physical + done) * block_size, count - done)?;
            Ok(())
        });
        match read {
            Ok(()) => Ok(Contents { mapped: pieces.finish(len, len), magics }),
            Err(fault) => Err(node.fault(fault)),
        }
    }

    /// The blocks of a range that wait in the journal.
    fn newer_within(&self, first: u64, count: u64) -> impl Iterator<Item = u64> + '_ {
        let from = self.newer_blocks.partition_point(|&block| block < first);
        let rest = self.newer_blocks[from..].iter().copied();
        rest.take_while(move |&block| block - first < count)
    }
}

impl Node {
    /// The error that a fault of the map of this inode is.
    pub(super) fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Map(what) => self.damaged(what),
            Fault::TooMany => self.damaged("it claims more blocks than there are"),
            Fault::Failed(error) => error,
        }
    }
}

/// A file in pieces, some of which may be in the journal.
struct Contents<'a> {
    mapped: Mapped<'a>,
    /// Bytes of the file where the log replaced the journal's own magic by zeros.
    magics: Vec<u64>,
}

impl ReadAt for Contents<'_> {
    fn len(&self) -> u64 {
        self.mapped.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.mapped.read_exact_at(out, offset)?;
        let end = offset + out.len() as u64;
        let first = self.magics.partition_point(|&at| at + JOURNAL_MAGIC.len() as u64 <= offset);
        for &at in self.magics[first..].iter().take_while(|&&at| at < end) {
            for (n, byte) in (at..).zip(JOURNAL_MAGIC) {
                let place = n.checked_sub(offset).and_then(|n| usize::try_from(n).ok());
                if let Some(place) = place.and_then(|n| out.get_mut(n)) {
                    *place = byte;
                }
            }
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.mapped.holes(range)
    }
}

impl FileData for Contents<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        self.mapped.extents()
    }
}

/// Bytes within an inode, and zeros up to the length of the file.
struct Inline {
    bytes: Vec<u8>,
    len: u64,
}

impl ReadAt for Inline {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let count = (self.bytes.len() - from).min(out.len());
        out[..count].copy_from_slice(&self.bytes[from..from + count]);
        out[count..].fill(0);
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let start = range.start.max(self.bytes.len() as u64);
        let end = range.end().min(self.len);
        Ok(if start < end { vec![Extent::between(start, end)] } else { Vec::new() })
    }
}

impl FileData for Inline {
    fn extents(&self) -> Result<Vec<Extent>> {
        Ok(Vec::new())
    }
}
