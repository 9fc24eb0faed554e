//! What is encrypted, as bytes at offsets.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use super::SECTOR;
use super::cipher::Cipher;

/// The decrypted bytes of a part of a volume. Holes of the volume are none here: zeros that were
/// never encrypted mean nothing.
pub(super) struct View {
    volume: Arc<dyn ReadAt>,
    start: u64,
    len: u64,
    cipher: Cipher,
    /// Bytes of a sector: 512 to 4096.
    sector: u64,
    /// Number of the first one, in sectors of 512 bytes.
    first: u64,
}

impl View {
    /// Of `extent`, which lies in the volume; what is no whole sector at its end is left out.
    pub(super) fn new(
        volume: Arc<dyn ReadAt>,
        extent: Extent,
        cipher: Cipher,
        sector: u32,
        first: u64,
    ) -> Self {
        let sector = u64::from(sector);
        let len = extent.len - extent.len % sector;
        Self { volume, start: extent.start, len, cipher, sector, first }
    }

    /// Reads whole sectors.
    fn sectors(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.volume.read_exact_at(out, self.start + offset)?;
        let size = usize::try_from(self.sector).map_err(io::Error::other)?;
        let mut number = self.first.wrapping_add(offset / SECTOR);
        for sector in out.chunks_exact_mut(size) {
            self.cipher.decrypt(number, sector);
            number = number.wrapping_add(self.sector / SECTOR);
        }
        Ok(())
    }

    /// Reads a part of one sector.
    fn part(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut sector = [0; 4096];
        let size = usize::try_from(self.sector).map_err(io::Error::other)?;
        let within = usize::try_from(offset % self.sector).map_err(io::Error::other)?;
        self.sectors(&mut sector[..size], offset - offset % self.sector)?;
        out.copy_from_slice(&sector[within..within + out.len()]);
        Ok(())
    }
}

impl ReadAt for View {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::try_from(self.sector).map_err(io::Error::other)?;
        let within = usize::try_from(offset % self.sector).map_err(io::Error::other)?;
        let head = if within == 0 { 0 } else { (size - within).min(out.len()) };
        let (head, rest) = out.split_at_mut(head);
        let (whole, tail) = rest.split_at_mut(rest.len() - rest.len() % size);
        let whole_at = offset + head.len() as u64;
        let tail_at = whole_at + whole.len() as u64;
        if !head.is_empty() {
            self.part(head, offset)?;
        }
        if !whole.is_empty() {
            self.sectors(whole, whole_at)?;
        }
        if !tail.is_empty() {
            self.part(tail, tail_at)?;
        }
        Ok(())
    }
}
