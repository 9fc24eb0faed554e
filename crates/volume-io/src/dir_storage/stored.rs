use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::ReadAt;
use crate::read_at::check_range;

/// A finished file, opened for reading.
#[derive(Debug)]
pub(super) struct StoredFile {
    file: File,
    len: u64,
}

impl StoredFile {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl ReadAt for StoredFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(out.len(), offset, self.len)?;
        self.file.read_exact_at(out, offset)
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// What every filesystem accepts as a place, a length and an address in memory: a page.
const ALIGN: usize = 4096;

/// Fewer bytes than this are read through the cache: what is read in small parts is read again.
const DIRECT_BYTES_MIN: usize = 1 << 20;

/// A file of which long reads show what the medium has, not what the page cache has of it. They
/// leave nothing there either, and bytes are not copied from there.
#[derive(Debug)]
pub(super) struct PastCache {
    /// The rest is read through the cache.
    cached: StoredFile,
    direct: File,
    /// Cleared when the filesystem refuses after all.
    works: AtomicBool,
}

impl PastCache {
    /// # Errors
    /// When the two are not one file: somebody has put another one in its place.
    pub(super) fn new(cached: StoredFile, direct: File) -> io::Result<Self> {
        let (a, b) = (cached.file.metadata()?, direct.metadata()?);
        if (a.dev(), a.ino()) != (b.dev(), b.ino()) {
            return Err(io::Error::other("somebody else writes this file, too"));
        }
        Ok(Self { cached, direct, works: AtomicBool::new(true) })
    }

    /// How many bytes at the beginning of `out` can be read past the cache.
    fn direct_part(&self, out: &[u8], offset: u64) -> usize {
        let is_aligned =
            offset.is_multiple_of(ALIGN as u64) && out.as_ptr().align_offset(ALIGN) == 0;
        let can = is_aligned && out.len() >= DIRECT_BYTES_MIN && self.works.load(Ordering::Relaxed);
        if can { out.len() - out.len() % ALIGN } else { 0 }
    }
}

impl ReadAt for PastCache {
    fn len(&self) -> u64 {
        self.cached.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(out.len(), offset, self.len())?;
        let count = self.direct_part(out, offset);
        let (direct, rest) = out.split_at_mut(count);
        match self.direct.read_exact_at(direct, offset) {
            Ok(()) => self.cached.read_exact_at(rest, offset + count as u64),
            // Sectors larger than a page, or a filesystem that cannot for this file.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.works.store(false, Ordering::Relaxed);
                self.cached.read_exact_at(out, offset)
            }
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> Option<&File> {
        self.cached.file()
    }
}
