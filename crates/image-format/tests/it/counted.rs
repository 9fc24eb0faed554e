//! A file that counts what is read of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aiv_volume_io::ReadAt;

/// The bytes of a file, and how many of them were asked for.
pub(crate) struct Counted {
    bytes: Arc<Vec<u8>>,
    read: AtomicU64,
}

impl Counted {
    pub(crate) fn new(bytes: &Arc<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.clone(), read: AtomicU64::new(0) })
    }

    /// Bytes read since the last time this was asked.
    pub(crate) fn take(&self) -> u64 {
        self.read.swap(0, Relaxed)
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(out.len() as u64, Relaxed);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len());
        let found = end.and_then(|end| self.bytes.get(start..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
