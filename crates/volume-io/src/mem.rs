use std::io;
use std::sync::{PoisonError, RwLock};

use crate::read_at::check_range;
use crate::{Extent, ReadAt, WriteAt};

/// A disk in memory, for tests and for small things that must look like a disk.
#[derive(Debug, Default)]
pub struct MemDisk {
    bytes: RwLock<Vec<u8>>,
}

impl MemDisk {
    /// A disk that holds `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// The bytes as they are now.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_mut(&self, len: u64, offset: u64, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let too_far = || io::Error::new(io::ErrorKind::WriteZero, "write past the end of the disk");
        let start = usize::try_from(offset).map_err(|_| too_far())?;
        let count = usize::try_from(len).map_err(|_| too_far())?;
        let end = start.checked_add(count).ok_or_else(too_far)?;
        change(bytes.get_mut(start..end).ok_or_else(too_far)?);
        Ok(())
    }
}

impl ReadAt for MemDisk {
    fn len(&self) -> u64 {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        check_range(out.len(), offset, bytes.len() as u64)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        out.copy_from_slice(&bytes[start..start + out.len()]);
        Ok(())
    }
}

impl WriteAt for MemDisk {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.with_mut(data.len() as u64, offset, |at| at.copy_from_slice(data))
    }

    fn zero_range(&self, range: Extent) -> io::Result<()> {
        self.with_mut(range.len, range.start, |at| at.fill(0))
    }

    fn discard_range(&self, range: Extent) -> io::Result<()> {
        self.zero_range(range)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
