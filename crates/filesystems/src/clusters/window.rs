//! The part of a file allocation table that is looked at.

use std::io;

use aiv_volume_io::{Extent, ReadAt};

use crate::reader::VolumeOf;
use crate::{Error, Result};

/// Bytes read where a chain jumps: no more than the smallest cluster it jumps to.
const JUMP: u64 = 512;
/// Most bytes read where it goes straight on.
const STRIDE_MAX: u64 = 1 << 20;
/// Jumps that are worth a page of the cache each; whatever jumps more often finds little there.
const CACHED_JUMPS_MAX: u32 = 256;
/// An entry of 12 bits may begin in the last byte of a window.
const OVERLAP: u64 = 4;

pub(crate) struct Window {
    /// Where the table lies on the volume.
    table: Extent,
    bytes: Vec<u8>,
    /// Offset of `bytes` in the table.
    at: u64,
    stride: u64,
    jumps: u32,
}

impl Window {
    pub(crate) fn new(table: Extent) -> Self {
        Self { table, bytes: Vec::new(), at: 0, stride: 0, jumps: 0 }
    }

    /// The `N` bytes, at most 4, at an offset of the table.
    ///
    /// # Errors
    /// [`Error::Damaged`] behind the end of the table, [`Error::Io`] when the medium fails.
    pub(crate) fn get<const N: usize>(
        &mut self,
        volume: &VolumeOf<'_>,
        offset: u64,
    ) -> Result<[u8; N]> {
        if offset.saturating_add(N as u64) > self.table.len {
            return Err(Error::damaged("a cluster has no entry in the table", None));
        }
        if let Some(bytes) = self.seen(offset) {
            return Ok(bytes);
        }
        let at = self.table.start + offset;
        self.fetch(volume, offset).map_err(Error::io("read file allocation table", at))?;
        self.seen(offset).ok_or_else(|| Error::damaged("a table ends within an entry", Some(at)))
    }

    fn seen<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let from = usize::try_from(offset.checked_sub(self.at)?).ok()?;
        self.bytes.get(from..)?.first_chunk().copied()
    }

    fn fetch(&mut self, volume: &VolumeOf<'_>, offset: u64) -> io::Result<()> {
        let end = self.at + self.bytes.len() as u64;
        let goes_on = (self.at..end + JUMP).contains(&offset);
        self.stride = if goes_on { (self.stride * 2).clamp(JUMP, STRIDE_MAX) } else { JUMP };
        self.jumps = self.jumps.saturating_add(u32::from(!goes_on));
        self.at = offset - offset % JUMP;
        let len = (self.stride + OVERLAP).min(self.table.len - self.at);
        self.bytes.clear();
        self.bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        let place = self.table.start + self.at;
        let read = match self.jumps <= CACHED_JUMPS_MAX {
            true => volume.read_exact_at(&mut self.bytes, place),
            false => volume.data().read_exact_at(&mut self.bytes, place),
        };
        if read.is_err() {
            self.bytes.clear();
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aiv_testkit::Random;
    use aiv_volume_io::MemDisk;

    use super::*;
    use crate::reader::Volume;

    #[test]
    fn every_entry_is_what_the_table_has_forwards_backwards_and_at_random() {
        let mut bytes = vec![0; 3 << 20];
        Random::new(&[1]).fill(&mut bytes);
        let volume = Volume::new(Arc::new(MemDisk::from_bytes(bytes.clone())));
        let table = Extent::new(5000, (3 << 20) - 6001);
        let mut window = Window::new(table);
        let mut check = |offset: u64| {
            let found: [u8; 2] = window.get(&volume, offset).unwrap();
            let at = usize::try_from(offset + table.start).unwrap();
            assert_eq!(found, bytes[at..at + 2], "{offset}");
        };
        (0..table.len - 1).step_by(3).for_each(&mut check);
        (0..table.len - 1).rev().step_by(1001).for_each(&mut check);
        let mut random = Random::new(&[2]);
        (0..5000).for_each(|_| check(random.next() % (table.len - 1)));
        assert!(matches!(window.get::<2>(&volume, table.len - 1), Err(Error::Damaged { .. })));
        assert!(matches!(window.get::<2>(&volume, u64::MAX), Err(Error::Damaged { .. })));
    }
}
