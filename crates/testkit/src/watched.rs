use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_volume_io::AppendFile;

/// A file that shows all it is given, also what it has no place for, and takes only so many bytes.
pub struct WatchedFile<F> {
    inner: Box<dyn AppendFile>,
    at: u64,
    left: Arc<AtomicU64>,
    see: F,
}

impl<F: FnMut(u64, &[u8]) + Send + Sync> WatchedFile<F> {
    /// `inner` with `at` bytes in it so far. `left` is how many more go in until the machine stops,
    /// counted down for all files that share it; `see` is called with an offset and the bytes that are
    /// to be appended there.
    #[must_use]
    pub fn new(inner: Box<dyn AppendFile>, at: u64, left: Arc<AtomicU64>, see: F) -> Self {
        Self { inner, at, left, see }
    }
}

impl<F: FnMut(u64, &[u8]) + Send + Sync> AppendFile for WatchedFile<F> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.see)(self.at, bytes);
        let left = self.left.load(Ordering::Relaxed);
        let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.inner.append_all(&bytes[..now])?;
        self.at += now as u64;
        self.left.fetch_sub(now as u64, Ordering::Relaxed);
        if now < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(now) }
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(out, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aiv_volume_io::Storage;

    use super::*;
    use crate::MemStorage;

    #[test]
    fn all_is_seen_and_what_fits_is_kept() {
        let (storage, seen) = (MemStorage::new(), Mutex::new(Vec::new()));
        let see = |at, bytes: &[u8]| seen.lock().unwrap().push((at, bytes.to_vec()));
        let left = Arc::new(AtomicU64::new(7));
        let mut file = WatchedFile::new(storage.create("a").unwrap(), 0, left, see);
        assert_eq!(file.append(b"abcde").unwrap(), 5);
        assert_eq!(file.append(b"fghij").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(**storage.contents("a").unwrap(), *b"abcdefg");
        assert_eq!(*seen.lock().unwrap(), [(0, b"abcde".to_vec()), (5, b"fghij".to_vec())]);
    }
}
