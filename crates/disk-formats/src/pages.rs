//! The tables of an image, a page at a time.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::ReadAt;

/// Bytes read at once. Tables are dense, so the neighbours of an entry are wanted next.
const PAGE: u64 = 16 << 10;
/// Pages kept for one file: 1 MiB, whatever the tables say about their size.
const SLOTS: u64 = 64;

type Slot = Mutex<Option<(u64, Arc<[u8]>)>>;

/// A file of which small parts are read often.
pub(crate) struct Pages {
    file: Arc<dyn ReadAt>,
    slots: Vec<Slot>,
}

impl Pages {
    pub(crate) fn new(file: Arc<dyn ReadAt>) -> Self {
        Self { file, slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    pub(crate) fn file(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    /// Fills `out` from `offset`; past the end of the file there is no table.
    pub(crate) fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let at = offset.checked_add(done as u64).ok_or_else(past_the_end)?;
            let page = self.page(at / PAGE)?;
            let from = usize::try_from(at % PAGE).map_err(io::Error::other)?;
            let found = page.get(from..).filter(|found| !found.is_empty());
            let found = found.ok_or_else(past_the_end)?;
            let count = found.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&found[..count]);
            done += count;
        }
        Ok(())
    }

    /// `N` bytes from `offset`.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        self.read(&mut out, offset)?;
        Ok(out)
    }

    fn page(&self, number: u64) -> io::Result<Arc<[u8]>> {
        let slot = usize::try_from(number % SLOTS).ok().and_then(|at| self.slots.get(at));
        let slot = slot.ok_or(io::ErrorKind::InvalidInput)?;
        if let Some((found, page)) = &*slot.lock().unwrap_or_else(PoisonError::into_inner)
            && *found == number
        {
            return Ok(page.clone());
        }
        let start = number.checked_mul(PAGE).ok_or_else(past_the_end)?;
        let count = self.file.len().saturating_sub(start).min(PAGE);
        let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, start)?;
        let page: Arc<[u8]> = bytes.into();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, page.clone()));
        Ok(page)
    }
}

/// The file is as long as it was: what points there is wrong, or the end was cut off before.
fn past_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a table reaches past the end of the file")
}
