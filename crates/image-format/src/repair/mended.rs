use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use crate::error::{Error, Result, Section};
use crate::layout::{Superblock, Trailer};
use crate::limits::PAGE_SIZE;

/// Pages kept in memory at most: 128 MiB of damage in the metadata of one image.
const PAGES_MAX: usize = 32_768;

/// A damaged file with some of its pages replaced by sound ones.
pub(super) struct Mended {
    file: Arc<dyn ReadAt>,
    /// By byte offset.
    pages: BTreeMap<u64, Box<[u8; PAGE_SIZE]>>,
}

impl Mended {
    /// With a sound superblock, and both trailers.
    pub(super) fn new(file: Arc<dyn ReadAt>, superblock: &Superblock, trailer: &Trailer) -> Self {
        let mut pages = BTreeMap::new();
        let is_sound = |page: &[u8; PAGE_SIZE]| {
            Superblock::from_bytes(page, Section::Superblock, 0).is_ok_and(|s| s == *superblock)
        };
        // The bytes as they are rather than encoded anew: rows of features that this version
        // does not know may be among them.
        let copy = trailer.file_len - 2 * PAGE_SIZE as u64;
        let read = [0, copy].into_iter().find_map(|offset| {
            let mut page = [0; PAGE_SIZE];
            file.read_exact_at(&mut page, offset).ok()?;
            is_sound(&page).then_some(page)
        });
        if let Some(page) = read {
            pages.insert(0, Box::new(page));
            pages.insert(copy, Box::new(page));
        }
        pages.insert(trailer.file_len - PAGE_SIZE as u64, Box::new(trailer.to_bytes(2)));
        Self { file, pages }
    }

    /// Puts `bytes`, whole pages, in place of those at `offset`.
    pub(super) fn put_slots(&mut self, offset: u64, bytes: &[u8]) {
        for (page, at) in bytes.as_chunks().0.iter().zip((offset..).step_by(PAGE_SIZE)) {
            self.pages.insert(at, Box::new(*page));
        }
    }

    /// The file as it is.
    pub(super) fn raw(&self) -> &dyn ReadAt {
        &*self.file
    }

    /// Puts a page in place of the one at `offset`, a multiple of a page.
    pub(super) fn put(&mut self, offset: u64, page: &[u8; PAGE_SIZE]) -> Result<()> {
        if self.pages.len() >= PAGES_MAX {
            return Err(Error::Misuse("a repair of more than 128 MiB of metadata"));
        }
        self.pages.insert(offset, Box::new(*page));
        Ok(())
    }

    pub(super) fn page(&self, offset: u64) -> Result<[u8; PAGE_SIZE]> {
        let mut page = [0; PAGE_SIZE];
        self.read_exact_at(&mut page, offset).map_err(Error::io("read image", offset))?;
        Ok(page)
    }
}

impl ReadAt for Mended {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let page = PAGE_SIZE as u64;
        let end = offset.saturating_add(out.len() as u64);
        let mut at = offset;
        let mut patched = self.pages.range(offset / page * page..end).peekable();
        while at < end {
            let rest = &mut out[in_memory(at - offset)..];
            match patched.peek() {
                Some((place, bytes)) if **place <= at => {
                    let from = in_memory(at - **place);
                    let count = (PAGE_SIZE - from).min(rest.len());
                    rest[..count].copy_from_slice(&bytes[from..from + count]);
                    at += count as u64;
                    patched.next();
                }
                next => {
                    let until = next.map_or(end, |(place, _)| **place);
                    self.file.read_exact_at(&mut rest[..in_memory(until - at)], at)?;
                    at = until;
                }
            }
        }
        Ok(())
    }
}

/// A count inside a buffer.
fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("counts inside a buffer fit the address space")
}
