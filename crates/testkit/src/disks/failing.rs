use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

/// `EIO` of Linux: what a read of a bad sector returns.
const EIO: i32 = 5;

/// A disk with bad sectors: a read that touches one fails as a whole.
#[derive(Debug)]
pub struct FlakyDisk<R> {
    inner: R,
    bad: ExtentSet,
}

impl<R: ReadAt> FlakyDisk<R> {
    /// `inner` with these byte ranges unreadable.
    pub fn new(inner: R, bad: impl IntoIterator<Item = Extent>) -> Self {
        Self { inner, bad: bad.into_iter().collect() }
    }

    /// The unreadable ranges.
    pub fn bad(&self) -> &ExtentSet {
        &self.bad
    }
}

impl<R: ReadAt> ReadAt for FlakyDisk<R> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.bad.within(Extent::new(offset, out.len() as u64)).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.inner.read_exact_at(out, offset)
    }
}

/// A disk that loses its end while it is being read. Its length, once told, stays what it was.
#[derive(Debug)]
pub struct ShrinkingDisk<R> {
    inner: R,
    whole_reads: u64,
    left: u64,
    reads: AtomicU64,
}

impl<R: ReadAt> ShrinkingDisk<R> {
    /// `inner`, of which only the first `left` bytes can be read after `whole_reads` reads.
    pub fn new(inner: R, whole_reads: u64, left: u64) -> Self {
        Self { inner, whole_reads, left, reads: AtomicU64::new(0) }
    }
}

impl<R: ReadAt> ReadAt for ShrinkingDisk<R> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let shrunk = self.reads.fetch_add(1, Ordering::Relaxed) >= self.whole_reads;
        if shrunk && Extent::new(offset, out.len() as u64).end() > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inner.read_exact_at(out, offset)
    }
}

/// A disk that remembers what was read of it. As it can only be read, handing it to code also
/// proves that the code writes nothing.
#[derive(Debug)]
pub struct CountingDisk<R> {
    inner: R,
    reads: Mutex<Vec<Extent>>,
}

impl<R: ReadAt> CountingDisk<R> {
    /// `inner`, of which nothing was read yet.
    pub fn new(inner: R) -> Self {
        Self { inner, reads: Mutex::default() }
    }

    /// Every read so far, in order.
    pub fn reads(&self) -> Vec<Extent> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes that were read at least once.
    pub fn covered(&self) -> ExtentSet {
        self.reads().into_iter().collect()
    }

    /// Sum of the lengths of all reads: more than was covered if bytes were read twice.
    pub fn bytes_read(&self) -> u64 {
        self.reads().iter().map(|read| read.len).sum()
    }
}

impl<R: ReadAt> ReadAt for CountingDisk<R> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let read = Extent::new(offset, out.len() as u64);
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        self.inner.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.inner.holes(range)
    }
}

#[cfg(test)]
mod tests {
    use aiv_volume_io::MemDisk;

    use super::*;

    #[test]
    fn a_read_fails_only_if_it_touches_a_bad_byte() {
        let disk = FlakyDisk::new(MemDisk::from_bytes(vec![7; 4096]), [Extent::new(1024, 512)]);
        let mut out = [0; 512];
        disk.read_exact_at(&mut out, 512).unwrap();
        disk.read_exact_at(&mut out, 1536).unwrap();
        for offset in [513, 1024, 1535] {
            let error = disk.read_exact_at(&mut out, offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(EIO), "{offset}");
        }
    }

    #[test]
    fn a_shrinking_disk_keeps_its_told_length_and_loses_its_end() {
        let disk = ShrinkingDisk::new(MemDisk::from_bytes(vec![7; 4096]), 1, 1000);
        let mut out = [0; 512];
        disk.read_exact_at(&mut out, 3584).unwrap();
        disk.read_exact_at(&mut out, 488).unwrap();
        let error = disk.read_exact_at(&mut out, 489).unwrap_err();
        assert_eq!((error.kind(), disk.len()), (io::ErrorKind::UnexpectedEof, 4096));
    }

    #[test]
    fn a_counting_disk_tells_bytes_read_from_bytes_covered() {
        let disk = CountingDisk::new(MemDisk::from_bytes(vec![7; 4096]));
        for offset in [0, 256, 2048] {
            disk.read_exact_at(&mut [0; 512], offset).unwrap();
        }
        assert_eq!(disk.bytes_read(), 1536);
        let covered = [Extent::new(0, 768), Extent::new(2048, 512)];
        assert_eq!(disk.covered().runs(), covered);
    }
}
