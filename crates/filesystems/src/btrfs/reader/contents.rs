//! The bytes of a file.
//!
//! Extents are looked up with each read: a file may have any number of them.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::{Extent, Job, ReadAt};

use super::super::key::{Key, kind};
use super::super::superblock::Root;
use super::super::tree::Tree;
use super::compressed::Method;
use super::extent::{Content, FileExtent, Packed};
use super::search::Trees;
use super::sums::{SumsRoot, invalid};
use crate::{EXTENTS_MAX, Error, FileData, Result};

/// A file that is open.
pub(super) struct Contents<'a> {
    pub(super) trees: &'a Trees<'a>,
    /// Of its subvolume.
    pub(super) root: Root,
    pub(super) number: u64,
    pub(super) len: u64,
    /// Where its checksums are, when it has any.
    pub(super) sums: Option<SumsRoot>,
    /// The compressed extent that was read last, expanded.
    pub(super) expanded: Mutex<Option<(Packed, Arc<[u8]>)>>,
}

impl Contents<'_> {
    /// Hands the parts of the file that have bytes of `range` to `take`, in order, until it
    /// breaks off. What is between them is zeros.
    fn parts(
        &self,
        range: Extent,
        take: &mut dyn FnMut(FileExtent<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let tree = (Tree::FILES, self.root);
        let first = Key::new(self.number, kind::EXTENT_DATA, range.start);
        let floor = self
            .trees
            .floor(tree, first)?
            .filter(|key| key.object == self.number && key.kind == kind::EXTENT_DATA);
        let to = Key { offset: range.end() - 1, ..first };
        let sector_size = self.trees.superblock.sector_size.into();
        let mut end = 0;
        let mut taken = Ok(ControlFlow::Continue(()));
        self.trees.scan(tree, floor.unwrap_or(first), to, Job::silent(), &mut |item| {
            taken = FileExtent::parse(item, sector_size).and_then(|part| {
                if part.start < end {
                    return Err(Error::damaged("extents of a file overlap", None));
                }
                end = part.end();
                if end <= range.start { Ok(ControlFlow::Continue(())) } else { take(part) }
            });
            match taken {
                Ok(flow) => flow,
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        taken.map(|_| ())
    }

    /// Fills `out` from `skip` bytes within a part.
    fn read_part(&self, part: &FileExtent<'_>, skip: u64, out: &mut [u8]) -> io::Result<()> {
        match part.content {
            Content::Zeros => out.fill(0),
            Content::Plain { logical } => {
                self.trees.read_data(self.sums, logical + skip, out)?;
            }
            Content::Packed { packed, offset } => {
                let expanded = self.expanded(packed)?;
                copy(&expanded, offset + skip, out)?;
            }
            Content::Inline { stored, method: None } => copy(stored, skip, out)?,
            Content::Inline { stored, method: Some(method) } => {
                copy(&self.expand(method, stored, part.len)?, skip, out)?;
            }
        }
        Ok(())
    }

    fn expanded(&self, packed: Packed) -> io::Result<Arc<[u8]>> {
        {
            let last = self.expanded.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, bytes)) = last.as_ref().filter(|(last, _)| *last == packed) {
                return Ok(bytes.clone());
            }
        }
        let mut stored = vec![0; usize::try_from(packed.stored_len).map_err(io::Error::other)?];
        self.trees.read_data(self.sums, packed.logical, &mut stored)?;
        let bytes: Arc<[u8]> = self.expand(packed.method, &stored, packed.len)?.into();
        let mut last = self.expanded.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((packed, bytes.clone()));
        Ok(bytes)
    }

    /// `len` bytes, no more than a compressed extent has.
    fn expand(&self, method: Method, stored: &[u8], len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let sector_size = self.trees.superblock.sector_size as usize;
        let expanded = method.expand(stored, sector_size, &mut bytes);
        expanded.map(|()| bytes).ok_or_else(|| {
            let what = format!("compressed data ({method:?}) is damaged");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}

fn copy(bytes: &[u8], from: u64, out: &mut [u8]) -> io::Result<()> {
    let from = usize::try_from(from).map_err(io::Error::other)?;
    let bytes = bytes.get(from..).and_then(|rest| rest.get(..out.len()));
    out.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidData)?);
    Ok(())
}

impl ReadAt for Contents<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut done = 0;
        let mut read = Ok(());
        let found = self.parts(Extent::between(offset, end), &mut |part| {
            let (start, end) = (part.start.max(offset), part.end().min(end));
            let part = usize::try_from(start - offset)
                .and_then(|at| Ok((at, usize::try_from(end - offset)?)))
                .map_err(io::Error::other)
                .and_then(|(at, until)| {
                    out[done..at].fill(0);
                    done = until;
                    self.read_part(&part, start - part.start, &mut out[at..until])
                });
            read = part;
            Ok(if read.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        read?;
        found.map_err(invalid)?;
        out[done..].fill(0);
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let end = range.start.saturating_add(range.len).min(self.len);
        if range.start >= end {
            return Ok(Vec::new());
        }
        let mut holes = Vec::new();
        let mut at = range.start;
        let mut is_full = false;
        let found = self.parts(Extent::between(at, end), &mut |part| {
            if matches!(part.content, Content::Zeros) {
                return Ok(ControlFlow::Continue(()));
            }
            if at < part.start {
                holes.push(Extent::between(at, part.start));
            }
            at = part.end();
            // Holes may be missing from the answer.
            is_full = holes.len() == EXTENTS_MAX;
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        found.map_err(invalid)?;
        if at < end && !is_full {
            holes.push(Extent::between(at, end));
        }
        Ok(holes)
    }
}

impl FileData for Contents<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        self.parts(Extent::new(0, self.len), &mut |part| {
            let logical = match part.content {
                Content::Zeros | Content::Inline { .. } => return Ok(ControlFlow::Continue(())),
                Content::Plain { logical } => {
                    Extent::new(logical, part.len.min(self.len - part.start))
                }
                Content::Packed { packed, .. } => Extent::new(packed.logical, packed.stored_len),
            };
            let places = self.trees.data_places(logical)?;
            let Some(&place) = places.first() else { return Ok(ControlFlow::Continue(())) };
            if let Some(last) = extents.last_mut().filter(|last| last.end() == place.start) {
                last.len += place.len;
            } else if extents.len() == EXTENTS_MAX {
                return Err(Error::damaged("a file is in more pieces than can be told", None));
            } else {
                extents.push(place);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(extents)
    }
}
