use std::io;

use crate::{Extent, ReadAt};

/// Size of a logical sector: the unit all tables count in.
///
/// A power of two from 512 to 4,096 bytes: 512 nearly everywhere, 4,096 on 4Kn disks, the
/// others on optical and old magneto-optical media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SectorSize(u16);

impl SectorSize {
    /// 512 bytes.
    pub const B512: Self = Self(512);
    /// 4,096 bytes.
    pub const B4096: Self = Self(4096);

    /// Every size, the likeliest first.
    pub(super) const BY_LIKELIHOOD: [Self; 4] = [Self::B512, Self::B4096, Self(2048), Self(1024)];

    /// The size of `bytes`, `None` unless that is 512, 1,024, 2,048 or 4,096.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self(512)),
            1024 => Some(Self(1024)),
            2048 => Some(Self(2048)),
            4096 => Some(Self(4096)),
            _ => None,
        }
    }

    /// Bytes per sector.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0 as u32
    }

    /// Bytes per sector as a length in memory.
    pub(super) fn len(self) -> usize {
        usize::from(self.0)
    }

    /// The bytes of `count` sectors from `lba`, clipped at the largest offset: a table may
    /// name sectors no disk can have.
    pub(super) fn extent(self, lba: u64, count: u64) -> Extent {
        let size = u64::from(self.0);
        let end = lba.saturating_add(count);
        Extent::between(lba.saturating_mul(size), end.saturating_mul(size))
    }
}

/// A disk seen as sectors of one size.
#[derive(Clone, Copy)]
pub(super) struct Sectors<'a> {
    pub(super) disk: &'a dyn ReadAt,
    pub(super) size: SectorSize,
    /// Whole sectors; bytes after the last whole one belong to no sector.
    pub(super) count: u64,
}

impl<'a> Sectors<'a> {
    pub(super) fn new(disk: &'a dyn ReadAt, size: SectorSize) -> Self {
        Self { disk, size, count: disk.len() / u64::from(size.bytes()) }
    }

    /// Number of the last sector; `None` on a disk without one.
    pub(super) fn last(&self) -> Option<u64> {
        self.count.checked_sub(1)
    }

    /// Sectors needed for `bytes`.
    pub(super) fn covering(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.size.bytes()))
    }

    /// The first `len` bytes from sector `lba`, which must exist.
    pub(super) fn read(&self, lba: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.disk.read_exact_at(&mut bytes, self.size.extent(lba, 0).start)?;
        Ok(bytes)
    }
}
