//! A volume whose metadata is read again and again.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::{Extent, ReadAt};

/// Bytes read at once: the block of an image.
const PAGE: u64 = 64 << 10;
/// Pages kept: 8 MiB.
const PAGES_MAX: usize = 128;

/// A volume as readers of files see it: [`ReadAt`] is for metadata, and remembers; what is read
/// once goes through [`data`](Self::data).
pub(crate) struct VolumeOf<'v> {
    raw: Arc<dyn ReadAt + 'v>,
    pages: Mutex<Pages>,
}

/// A volume of its own.
pub(crate) type Volume = VolumeOf<'static>;

#[derive(Default)]
struct Pages {
    /// By number, with the time of the last use.
    pages: HashMap<u64, (u64, Arc<[u8]>)>,
    now: u64,
}

impl<'v> VolumeOf<'v> {
    pub(crate) fn new(raw: Arc<dyn ReadAt + 'v>) -> Self {
        Self { raw, pages: Mutex::default() }
    }

    /// The volume itself, for the contents of files.
    pub(crate) fn data(&self) -> &(dyn ReadAt + 'v) {
        &*self.raw
    }

    fn page(&self, number: u64) -> io::Result<Arc<[u8]>> {
        {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.now += 1;
            let now = pages.now;
            if let Some((used, page)) = pages.pages.get_mut(&number) {
                *used = now;
                return Ok(page.clone());
            }
        }
        let start = number * PAGE;
        let len = (self.raw.len().saturating_sub(start)).min(PAGE);
        let mut page = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.raw.read_exact_at(&mut page, start)?;
        let page: Arc<[u8]> = page.into();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.pages.len() >= PAGES_MAX {
            let oldest = pages.pages.iter().min_by_key(|(_, (used, _))| *used).map(|(n, _)| *n);
            oldest.map(|oldest| pages.pages.remove(&oldest));
        }
        let now = pages.now;
        pages.pages.insert(number, (now, page.clone()));
        Ok(page)
    }
}

impl ReadAt for VolumeOf<'_> {
    fn len(&self) -> u64 {
        self.raw.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if out.len() as u64 > 4 * PAGE {
            return self.raw.read_exact_at(out, offset);
        }
        let (mut done, mut at) = (0, offset);
        while done < out.len() {
            // A sector nearby may be unreadable: then only what is asked for is read.
            let Ok(page) = self.page(at / PAGE) else {
                return self.raw.read_exact_at(&mut out[done..], at);
            };
            let from = usize::try_from(at % PAGE).map_err(io::Error::other)?;
            let count = (page.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&page[from..from + count]);
            done += count;
            at += count as u64;
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.raw.holes(range)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use aiv_volume_io::MemDisk;

    use super::*;

    struct Counted {
        disk: MemDisk,
        reads: AtomicU64,
        bad: Option<u64>,
    }

    impl ReadAt for Counted {
        fn len(&self) -> u64 {
            self.disk.len()
        }

        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let range = offset..offset + out.len() as u64;
            match self.bad.is_some_and(|bad| range.contains(&bad)) {
                true => Err(io::Error::other("bad sector")),
                false => self.disk.read_exact_at(out, offset),
            }
        }
    }

    fn volume(bad: Option<u64>) -> (Arc<Counted>, Volume, Vec<u8>) {
        let len = usize::try_from(5 * PAGE / 2).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let disk = MemDisk::from_bytes(bytes.clone());
        let counted = Arc::new(Counted { disk, reads: AtomicU64::new(0), bad });
        (counted.clone(), Volume::new(counted), bytes)
    }

    #[test]
    fn what_was_read_is_not_read_again_and_is_right_across_pages_and_at_the_end() {
        let (counted, volume, bytes) = volume(None);
        for (at, len) in [(0, 10), (65_530, 20), (131_060, 30), (163_830, 10), (1, 163_000)] {
            for _ in 0..3 {
                let mut out = vec![0; len];
                volume.read_exact_at(&mut out, at as u64).unwrap();
                assert!(out == bytes[at..at + len], "{at}");
            }
        }
        assert_eq!(counted.reads.load(Ordering::Relaxed), 3);
        assert!(volume.read_exact_at(&mut [0; 2], 5 * PAGE / 2 - 1).is_err());
        assert!(volume.read_exact_at(&mut [0; 2], u64::MAX).is_err());
    }

    #[test]
    fn a_bad_sector_fails_what_lies_in_it_and_nothing_beside_it() {
        let (_, volume, bytes) = volume(Some(70_000));
        let mut out = [0; 512];
        volume.read_exact_at(&mut out, 66_000).unwrap();
        assert!(out[..] == bytes[66_000..66_512]);
        assert!(volume.read_exact_at(&mut out, 69_800).is_err());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let disk = MemDisk::from_bytes(vec![1; usize::try_from(PAGE).unwrap() * 300]);
        let volume = Volume::new(Arc::new(disk));
        for n in 0..300 {
            volume.read_exact_at(&mut [0; 8], n * PAGE).unwrap();
        }
        assert_eq!(volume.pages.lock().unwrap().pages.len(), PAGES_MAX);
    }
}
