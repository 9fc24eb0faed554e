//! The bytes of a file: blocks that lie one behind the other, and an end that may lie in a block
//! with those of other files.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use super::Squashfs;
use super::inode::{FileBody, NONE};
use crate::bytes::{le32, le64};
use crate::{Error, FileData, Result};

/// In the length of a block that lies as it is.
const PLAIN: u32 = 1 << 24;
/// Blocks of a file: four million, of which each takes four bytes of memory.
const BLOCKS_MAX: u64 = 1 << 22;
/// Blocks between two of which the place is known.
const STEP: usize = 256;
/// Bytes of an entry of the table of fragments.
const ENTRY: usize = 16;

/// What a file is stored in.
#[derive(Clone, Copy)]
struct Stored {
    /// First byte on the volume.
    at: u64,
    /// Its length as it is stored.
    word: u32,
}

impl Stored {
    fn len(self) -> u32 {
        self.word & !PLAIN
    }
}

/// The bytes of a file.
pub(super) struct Blocks<'a> {
    filesystem: &'a Squashfs,
    len: u64,
    /// Lengths of the blocks.
    words: Vec<u32>,
    /// Where each [`STEP`]th begins.
    starts: Vec<u64>,
    /// What holds the end, and where in it that begins.
    end: Option<(Stored, usize)>,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(filesystem: &'a Squashfs, file: &FileBody) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(format!("a file {what}"), Some(file.start));
        let size = u64::from(filesystem.superblock.block_size);
        let has_fragment = file.fragment != NONE;
        let count = if has_fragment { file.len / size } else { file.len.div_ceil(size) };
        if count > BLOCKS_MAX {
            return Err(damaged("has more blocks than can be read"));
        }
        let mut words = Vec::new();
        let mut starts = Vec::new();
        let mut at = file.start;
        let mut list = filesystem.tables.from(file.blocks);
        for n in 0..count {
            let word = le32(&list.array::<4>()?, 0);
            let len = word & !PLAIN;
            if u64::from(len) > size {
                return Err(damaged("has a block that is too long"));
            }
            if n % STEP as u64 == 0 {
                starts.push(at);
            }
            at = at.checked_add(len.into()).ok_or_else(|| damaged("ends nowhere"))?;
            words.push(word);
        }
        if at > filesystem.tables.volume.len() {
            return Err(damaged("reaches behind the end of the volume"));
        }
        let end = has_fragment.then(|| filesystem.fragment(file.fragment)).transpose()?;
        let offset = usize::try_from(file.offset).unwrap_or(usize::MAX);
        Ok(Self { filesystem, len: file.len, words, starts, end: end.map(|end| (end, offset)) })
    }

    /// Where a block is stored, or the end; `None` for blocks of zeros.
    fn stored(&self, number: u64) -> Option<Stored> {
        let number = usize::try_from(number).ok()?;
        let Some(word) = self.words.get(number) else { return self.end.map(|(end, _)| end) };
        let first = number - number % STEP;
        let before = self.words.get(first..number).unwrap_or_default();
        let skipped: u64 = before.iter().map(|word| u64::from(word & !PLAIN)).sum();
        let at = self.starts.get(number / STEP)? + skipped;
        (word & !PLAIN != 0).then_some(Stored { at, word: *word })
    }

    /// Fills `out` from `within` a block on.
    fn block(&self, number: u64, within: usize, out: &mut [u8]) -> io::Result<()> {
        let Some(stored) = self.stored(number) else {
            out.fill(0);
            return Ok(());
        };
        let is_end = usize::try_from(number).is_ok_and(|number| number >= self.words.len());
        let within = match self.end.filter(|_| is_end) {
            Some((_, offset)) => offset.saturating_add(within),
            None => within,
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a block does not decompress");
        let end = within.checked_add(out.len()).ok_or_else(damaged)?;
        if stored.word & PLAIN != 0 {
            if end > usize::try_from(stored.len()).map_err(io::Error::other)? {
                return Err(damaged());
            }
            let volume = &self.filesystem.tables.volume;
            return volume.data().read_exact_at(out, stored.at + within as u64);
        }
        let bytes = self.filesystem.expanded(stored.at, stored.len())?;
        // What is not the end of a file has the bytes of a block.
        out.copy_from_slice(bytes.get(within..end).ok_or_else(damaged)?);
        Ok(())
    }

    /// Tells `tell` the parts of a range that lie in one block: its number, and bytes of the file.
    fn parts(
        &self,
        range: Extent,
        mut tell: impl FnMut(u64, Extent) -> io::Result<()>,
    ) -> io::Result<()> {
        let size = u64::from(self.filesystem.superblock.block_size);
        let end = range.end().min(self.len);
        let mut at = range.start;
        while at < end {
            let part = Extent::between(at, end.min((at / size + 1).saturating_mul(size)));
            tell(at / size, part)?;
            at = part.end();
        }
        Ok(())
    }
}

impl ReadAt for Blocks<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = u64::from(self.filesystem.superblock.block_size);
        self.parts(Extent::new(offset, out.len() as u64), |number, part| {
            let at = usize::try_from(part.start - offset).map_err(io::Error::other)?;
            let len = usize::try_from(part.len).map_err(io::Error::other)?;
            let within = usize::try_from(part.start % size).map_err(io::Error::other)?;
            self.block(number, within, &mut out[at..at + len])
        })
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let mut holes: Vec<Extent> = Vec::new();
        self.parts(range, |number, part| {
            if self.stored(number).is_none() {
                match holes.last_mut().filter(|last| last.end() == part.start) {
                    Some(last) => last.len += part.len,
                    None => holes.push(part),
                }
            }
            Ok(())
        })?;
        Ok(holes)
    }
}

impl FileData for Blocks<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = self.starts.first().copied().unwrap_or(0);
        let blocks = self.words.iter().map(|word| {
            let stored = Stored { at, word: *word };
            at = at.saturating_add(stored.len().into());
            stored
        });
        for stored in blocks.chain(self.end.map(|(end, _)| end)) {
            let touches = extents.last().is_some_and(|last| last.end() == stored.at);
            match extents.last_mut().filter(|_| touches) {
                Some(last) => last.len += u64::from(stored.len()),
                None if stored.len() == 0 => {}
                None => extents.push(Extent::new(stored.at, stored.len().into())),
            }
        }
        Ok(extents)
    }
}

impl Squashfs {
    /// Where a block of ends of files is stored.
    fn fragment(&self, number: u32) -> Result<Stored> {
        let damaged = |what: &str| Error::damaged(format!("the end of a file {what}"), None);
        if number >= self.superblock.fragments {
            return Err(damaged("is in no block"));
        }
        let place = self.tables.listed(self.superblock.fragment_table, number.into(), ENTRY)?;
        let entry: [u8; ENTRY] = self.tables.from(place).array()?;
        let stored = Stored { at: le64(&entry, 0), word: le32(&entry, 8) };
        let end = stored.at.checked_add(stored.len().into());
        let is_inside = end.is_some_and(|end| end <= self.tables.volume.len());
        match is_inside && (1..=self.superblock.block_size).contains(&stored.len()) {
            true => Ok(stored),
            false => Err(damaged("is in a block that lies outside")),
        }
    }

    /// What a compressed block holds.
    fn expanded(&self, at: u64, len: u32) -> io::Result<Arc<Vec<u8>>> {
        let mut failed = None;
        let found = self.blocks.get(at, || {
            let mut stored = vec![0; usize::try_from(len).unwrap_or(0)];
            if let Err(error) = self.tables.volume.data().read_exact_at(&mut stored, at) {
                failed = Some(error);
                return Err(Error::damaged("a block cannot be read", Some(at)));
            }
            let mut out = vec![0; usize::try_from(self.superblock.block_size).unwrap_or(0)];
            let len = self.superblock.method.expand(&stored, &mut out);
            let len = len.ok_or_else(|| Error::damaged("a block does not decompress", Some(at)))?;
            out.truncate(len);
            Ok(out)
        });
        match (found, failed) {
            (_, Some(error)) => Err(error),
            (Ok(found), None) => Ok(found),
            (Err(error), None) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}
