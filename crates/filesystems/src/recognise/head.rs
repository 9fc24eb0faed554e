use aiv_volume_io::ReadAt;

use crate::{Error, Result};

/// Every signature at the front of a volume lies in here; the furthest are the uberblocks of
/// the first ZFS label.
const HEAD_LEN: usize = 256 << 10;

/// The front of a volume, and a way to read a little more.
pub(super) struct Head<'a> {
    volume: &'a dyn ReadAt,
    bytes: Vec<u8>,
}

impl<'a> Head<'a> {
    pub(super) fn read(volume: &'a dyn ReadAt) -> Result<Self> {
        let len = usize::try_from(volume.len()).unwrap_or(HEAD_LEN).min(HEAD_LEN);
        let mut bytes = vec![0; len];
        volume.read_exact_at(&mut bytes, 0).map_err(Error::io("read signatures", 0))?;
        Ok(Self { volume, bytes })
    }

    /// Length of the volume in bytes.
    pub(super) fn volume_len(&self) -> u64 {
        self.volume.len()
    }

    /// `len` bytes at `at` near the front, `None` when the volume is too short.
    pub(super) fn get(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// The record at `at` if it starts with `magic` at its byte `magic_at`.
    pub(super) fn with_magic(
        &self,
        at: usize,
        len: usize,
        magic_at: usize,
        magic: &[u8],
    ) -> Option<&[u8]> {
        self.get(at, len).filter(|record| record[magic_at..].starts_with(magic))
    }

    /// Bytes anywhere in the volume, `None` when they are not wholly inside. `len` is the
    /// caller's own small constant, or checked by it.
    pub(super) fn far(&self, at: u64, len: usize) -> Result<Option<Vec<u8>>> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.volume.len() => {
                let mut bytes = vec![0; len];
                let failed = Error::io("read signatures", at);
                self.volume.read_exact_at(&mut bytes, at).map_err(failed)?;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    }
}
