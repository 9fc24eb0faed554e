//! Whether what a partition holds can live on sectors of another size.

use std::fmt;
use std::io;

use aiv_chain::meta::DiskInfo;
use aiv_volume_io::{Extent, ReadAt};

/// Type GUID of the partition Windows reserves for itself, which holds nothing.
const MICROSOFT_RESERVED: &str = "e3c9e316-0b5c-4db8-817d-f92df00215ae";

/// Bytes of a page of memory, the unit of Linux swap space.
const SWAP_PAGE: u32 = 4096;

/// Why a partition cannot be used on sectors of another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unusable {
    /// It works in units smaller than a sector.
    Unit {
        /// Bytes of its smallest unit.
        bytes: u32,
    },
    /// It has the size of a sector written down, and works with no other.
    Stated,
    /// Nobody here knows in what units it works.
    Unknown,
    /// Its own records cannot be read.
    Unreadable,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { bytes } => write!(f, "works in units of {bytes} bytes"),
            Self::Stated => f.write_str("is made for sectors of one size"),
            Self::Unknown => f.write_str("may count in sectors of the old size"),
            Self::Unreadable => f.write_str("cannot be read"),
        }
    }
}

/// The first partition that could not be used on sectors of `target` bytes, what it holds, and
/// why.
pub(crate) fn first_unusable(
    point: &dyn ReadAt,
    disk: &DiskInfo,
    source: u32,
    target: u32,
) -> Option<(u32, String, Unusable)> {
    disk.regions.iter().find_map(|region| {
        let partition = region.partition.as_ref()?;
        let name = region.volume.as_ref().map_or("", |volume| volume.filesystem.as_str());
        let volume = Volume { point, extent: region.extent };
        let holds_nothing = partition.type_id == MICROSOFT_RESERVED;
        let why = if holds_nothing { None } else { volume.judge(name, source, target) }?;
        let name = if name.is_empty() { "something unknown" } else { name };
        Some((partition.number, name.to_owned(), why))
    })
}

struct Volume<'a> {
    point: &'a dyn ReadAt,
    extent: Extent,
}

impl Volume<'_> {
    fn judge(&self, name: &str, source: u32, target: u32) -> Option<Unusable> {
        let unit = match name {
            "vfat" | "exfat" | "ntfs" => return Some(Unusable::Stated),
            // Whatever works on large sectors works on smaller ones.
            _ if target <= source => return None,
            "ext2" | "ext3" | "ext4" => self.ext_block(),
            "xfs" => self.xfs_sector(),
            "btrfs" => self.btrfs_sector(),
            "swap" => Ok(SWAP_PAGE),
            _ => return Some(Unusable::Unknown),
        };
        match unit {
            Ok(bytes) if bytes >= target => None,
            Ok(bytes) => Some(Unusable::Unit { bytes }),
            Err(_) => Some(Unusable::Unreadable),
        }
    }

    fn field<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if at + N as u64 > self.extent.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.point.read_exact_at(&mut bytes, self.extent.start + at)?;
        Ok(bytes)
    }

    /// Bytes per block, from the superblock at byte 1024.
    fn ext_block(&self) -> io::Result<u32> {
        let log = u32::from_le_bytes(self.field(1024 + 24)?);
        // At most 64 KiB; anything else is no such filesystem.
        Ok(1024u32.checked_shl(log.min(32)).unwrap_or(0))
    }

    /// Bytes per sector of the data, or of the log if those are smaller.
    fn xfs_sector(&self) -> io::Result<u32> {
        let data = u16::from_be_bytes(self.field(102)?);
        let log = u16::from_be_bytes(self.field(194)?);
        // Zero where the log has the 512 bytes it always had.
        let log = if log == 0 { 512 } else { log };
        Ok(data.min(log).into())
    }

    /// Bytes per sector, from the superblock at 64 KiB.
    fn btrfs_sector(&self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.field((64 << 10) + 0x90)?))
    }
}
