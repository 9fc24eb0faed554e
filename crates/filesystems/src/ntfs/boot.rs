//! The boot sector: where everything is.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", `$Boot`; the form of cluster sizes above
//! 64 KiB is that of Windows 10 1709 (a shift stored as a negative byte).

use super::reason::NtfsReason;
use crate::bytes::{array, le16, le32, le64};

pub(super) const BOOT_SECTOR_SIZE: usize = 512;

/// The largest cluster Windows makes: 2 MiB.
const CLUSTER_SIZE_MAX: u32 = 2 << 20;
/// Records are 1 KiB, or 4 KiB on disks with such sectors; other sizes were never seen, but
/// the format allows them.
const RECORD_SIZE_MAX: u32 = 64 << 10;
/// Windows' own limit (Microsoft, "NTFS overview"): 2^32 - 1 clusters.
const CLUSTERS_MAX: u64 = u32::MAX as u64;
/// Records at the start of `$MFT` that `$MFTMirr` repeats at least.
pub(super) const MIRRORED_RECORDS: u64 = 4;

/// Where the parts of a filesystem lie, each value proven to be inside the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    /// A power of two, 256 bytes to 2 MiB.
    pub(super) cluster_size: u32,
    /// Whole clusters; sectors behind the last of them belong to no file.
    pub(super) clusters: u64,
    /// Bytes of a file record: a power of two, 512 to 64 KiB.
    pub(super) record_size: u32,
    pub(super) mft_lcn: u64,
    pub(super) mirror_lcn: u64,
    /// Byte offset of the sector in the middle: NT 3.51 kept the copy of the boot sector there
    /// (ntfsfix still looks for it).
    pub(super) middle: u64,
}

impl Geometry {
    pub(super) fn parse(
        boot: &[u8; BOOT_SECTOR_SIZE],
        volume_len: u64,
    ) -> Result<Self, NtfsReason> {
        if boot[3..11] != *b"NTFS    " || boot[510..] != [0x55, 0xaa] {
            return Err(NtfsReason::NoBootSector);
        }
        // Fields of FAT that NTFS keeps at zero: something else wrote here otherwise.
        let fat = [
            ("reserved sectors", u32::from(le16(boot, 14))),
            ("file allocation tables", u32::from(boot[16])),
            ("root entries", u32::from(le16(boot, 17))),
            ("sectors (16 bits)", u32::from(le16(boot, 19))),
            ("sectors per file allocation table", u32::from(le16(boot, 22))),
            ("sectors (32 bits)", le32(boot, 32)),
        ];
        for (name, found) in fat {
            if found != 0 {
                return Err(field(name, found.into(), "0"));
            }
        }
        let sector_size = u32::from(le16(boot, 11));
        if !sector_size.is_power_of_two() || !(256..=4096).contains(&sector_size) {
            let allowed = "a power of two, 256 to 4096";
            return Err(field("bytes per sector", sector_size.into(), allowed));
        }
        let cluster_size = cluster_size(boot[13], sector_size)?;
        let record_size = record_size(array::<1>(boot, 64)[0], cluster_size)?;
        let sectors = le64(boot, 40);
        let filesystem = sectors.saturating_mul(sector_size.into());
        if filesystem > volume_len {
            return Err(NtfsReason::LargerThanVolume { filesystem, volume: volume_len });
        }
        let clusters = filesystem / u64::from(cluster_size);
        if clusters == 0 || clusters > CLUSTERS_MAX {
            return Err(field("sectors", sectors, "1 to 4294967295 clusters"));
        }
        let geometry = Self {
            cluster_size,
            clusters,
            record_size,
            mft_lcn: le64(boot, 48),
            mirror_lcn: le64(boot, 56),
            middle: sectors / 2 * u64::from(sector_size),
        };
        geometry.check_place("first cluster of $MFT", geometry.mft_lcn)?;
        geometry.check_place("first cluster of $MFTMirr", geometry.mirror_lcn)?;
        Ok(geometry)
    }

    /// Bytes up to the end of the last cluster.
    pub(super) fn end(&self) -> u64 {
        self.clusters * u64::from(self.cluster_size)
    }

    /// Byte offset of a cluster that is inside the filesystem.
    pub(super) fn offset_of(&self, lcn: u64) -> u64 {
        lcn * u64::from(self.cluster_size)
    }

    /// `$MFT` and its mirror begin inside the filesystem, behind the boot sector, and have
    /// room for the records both hold.
    fn check_place(&self, name: &'static str, lcn: u64) -> Result<(), NtfsReason> {
        let room = MIRRORED_RECORDS * u64::from(self.record_size);
        let end =
            lcn.checked_mul(self.cluster_size.into()).and_then(|offset| offset.checked_add(room));
        if lcn != 0 && end.is_some_and(|end| end <= self.end()) {
            Ok(())
        } else {
            Err(field(name, lcn, "a cluster of the filesystem"))
        }
    }
}

fn cluster_size(byte: u8, sector_size: u32) -> Result<u32, NtfsReason> {
    let sectors = match byte {
        n @ 1..=128 => u32::from(n),
        n => 1u32.checked_shl(256 - u32::from(n)).unwrap_or(0),
    };
    match sectors.checked_mul(sector_size) {
        Some(size) if size.is_power_of_two() && size <= CLUSTER_SIZE_MAX => Ok(size),
        _ => Err(field("sectors per cluster", byte.into(), "a power of two, at most 2 MiB")),
    }
}

/// Positive: clusters of a record. Negative: the power of two.
fn record_size(byte: u8, cluster_size: u32) -> Result<u32, NtfsReason> {
    let size = match byte.cast_signed() {
        clusters @ 1.. => u32::from(clusters.unsigned_abs()).checked_mul(cluster_size),
        log => 1u32.checked_shl(log.unsigned_abs().into()),
    };
    match size {
        Some(size @ 512..=RECORD_SIZE_MAX) if size.is_power_of_two() => Ok(size),
        _ => Err(field("clusters per file record", byte.into(), "512 bytes to 64 KiB")),
    }
}

fn field(field: &'static str, found: u64, allowed: &str) -> NtfsReason {
    NtfsReason::Field { field, found, allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> [u8; BOOT_SECTOR_SIZE] {
        let mut boot = [0; BOOT_SECTOR_SIZE];
        boot[3..11].copy_from_slice(b"NTFS    ");
        boot[11..13].copy_from_slice(&512u16.to_le_bytes());
        boot[13] = 8;
        boot[40..48].copy_from_slice(&((64u64 << 20) / 512 - 1).to_le_bytes());
        boot[48..56].copy_from_slice(&4u64.to_le_bytes());
        boot[56..64].copy_from_slice(&8000u64.to_le_bytes());
        boot[64] = 0xf6;
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    #[test]
    fn both_forms_of_cluster_and_record_sizes() {
        let geometry = Geometry::parse(&boot(), 64 << 20).unwrap();
        assert_eq!((geometry.cluster_size, geometry.record_size), (4096, 1024));
        assert_eq!(geometry.clusters, (64 << 20) / 4096 - 1);
        for (byte, size) in [(1, 512), (128, 64 << 10), (0xf8, 128 << 10), (0xf4, 2 << 20)] {
            assert_eq!(cluster_size(byte, 512), Ok(size));
        }
        for (byte, sector_size) in [(0, 512), (3, 512), (0xf3, 512), (0xf4, 4096), (129, 512)] {
            assert!(cluster_size(byte, sector_size).is_err(), "{byte} {sector_size}");
        }
        for (byte, cluster_size, size) in
            [(0xf6, 4096, 1024), (0xf4, 4096, 4096), (1, 4096, 4096), (2, 512, 1024)]
        {
            assert_eq!(record_size(byte, cluster_size), Ok(size));
        }
        for (byte, cluster_size) in [(0, 512), (0xf8, 512), (0xef, 512), (0x80, 512), (3, 512)] {
            assert!(record_size(byte, cluster_size).is_err(), "{byte}");
        }
        assert!(record_size(1, 2 << 20).is_err());
    }

    #[test]
    fn a_file_table_that_would_reach_past_the_end_has_no_place() {
        let last = (64u64 << 20) / 4096 - 2;
        for (lcn, fine) in [(last, true), (last + 1, false), (0, false), (u64::MAX / 2, false)] {
            let mut boot = boot();
            boot[48..56].copy_from_slice(&lcn.to_le_bytes());
            assert_eq!(Geometry::parse(&boot, 64 << 20).is_ok(), fine, "{lcn}");
        }
    }
}
