//! The boot sector, checked. Names of fields are those of `fatgen103`.

use super::reason::FatReason;
use crate::bytes::{le16, le32};

pub(super) const BOOT_SECTOR_SIZE: usize = 512;

/// First cluster number that stands for data.
pub(super) const FIRST_CLUSTER: u32 = 2;

/// Fewest clusters of FAT16 and of FAT32 ("FAT Type Determination").
const FAT16_CLUSTERS_MIN: u64 = 4085;
/// Windows begins FAT16 here (`FatIndexBitSize` of `fastfat`), Linux where the specification does.
const FAT16_CLUSTERS_AGREED: u64 = 4087;
const FAT32_CLUSTERS_MIN: u64 = 65_525;
/// The last cluster has to stay below the mark of bad clusters, 0x0ffffff7.
const FAT32_CLUSTERS_MAX: u64 = 0x0fff_fff5;

/// Width of a table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// Bytes of a table with `entries` entries.
    pub(super) fn table_bytes(self, entries: u64) -> u64 {
        match self {
            Self::Fat12 => entries.saturating_mul(3).div_ceil(2),
            Self::Fat16 => entries.saturating_mul(2),
            Self::Fat32 => entries.saturating_mul(4),
        }
    }

    /// Entries a table of so many bytes has.
    fn entries_in(self, bytes: u64) -> u64 {
        match self {
            Self::Fat12 => bytes * 2 / 3,
            Self::Fat16 => bytes / 2,
            Self::Fat32 => bytes / 4,
        }
    }
}

/// What a boot sector is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A map of a volume of so many bytes, for which nothing may be doubtful.
    Map { volume_len: u64 },
    /// What is left of its files.
    Files,
}

/// Where things are on a FAT volume; for a map all of it lies inside the volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) width: Width,
    pub(super) cluster_size: u32,
    /// Byte offset of the first table.
    pub(super) table_at: u64,
    /// Bytes of one table.
    pub(super) table_len: u64,
    /// For a map 1 or 2, else at least 1.
    pub(super) tables: u8,
    /// The one table that is kept up to date, where not all are; never for a map.
    pub(super) active_table: Option<u8>,
    /// Byte offset of the root directory of FAT12 and FAT16.
    pub(super) root_at: u64,
    /// Byte offset of the first cluster.
    pub(super) data_at: u64,
    /// Number of clusters; the last one is `clusters + 1`.
    pub(super) clusters: u32,
    /// First cluster of the root directory, FAT32 only.
    pub(super) root_cluster: Option<u32>,
    pub(super) media: u8,
    /// The boot sector says that the volume was not unmounted.
    pub(super) marked_dirty: bool,
}

impl Geometry {
    pub(super) fn parse(
        boot: &[u8; BOOT_SECTOR_SIZE],
        purpose: Purpose,
    ) -> Result<Self, FatReason> {
        if boot[510..] != [0x55, 0xaa] {
            return Err(FatReason::NoBootSector);
        }
        let sector_size = u64::from(le16(boot, 11));
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(field("BPB_BytsPerSec", sector_size, "512, 1024, 2048 or 4096"));
        }
        let sectors_per_cluster = u64::from(boot[13]);
        if !sectors_per_cluster.is_power_of_two() {
            return Err(field("BPB_SecPerClus", sectors_per_cluster, "a power of two to 128"));
        }
        let reserved = u64::from(le16(boot, 14));
        if reserved == 0 {
            return Err(field("BPB_RsvdSecCnt", reserved, "1 or more"));
        }
        let tables = boot[16];
        if tables == 0 || (tables > 2 && purpose != Purpose::Files) {
            return Err(field("BPB_NumFATs", tables, "1 or 2"));
        }
        let media = boot[21];
        if media != 0xf0 && media < 0xf8 {
            return Err(field("BPB_Media", media, "240 or 248 to 255"));
        }
        // Every driver goes by this field, whatever the number of clusters.
        let fat32 = le16(boot, 22) == 0;
        let root_sectors = root_sectors(boot, sector_size, fat32)?;
        let sectors = sectors(boot)?;
        let filesystem = sectors * sector_size;
        if let Purpose::Map { volume_len } = purpose
            && filesystem > volume_len
        {
            return Err(FatReason::LargerThanVolume { filesystem, volume: volume_len });
        }
        let (table_sectors, table_field) = match fat32 {
            true => (u64::from(le32(boot, 36)), "BPB_FATSz32"),
            false => (u64::from(le16(boot, 22)), "BPB_FATSz16"),
        };
        let data_sector = reserved + u64::from(tables) * table_sectors + root_sectors;
        if table_sectors == 0 || data_sector >= sectors {
            let allowed = format!("1 or more, of {sectors} sectors in total");
            return Err(field(table_field, table_sectors, allowed));
        }
        let mut clusters = (sectors - data_sector) / sectors_per_cluster;
        let width = match width(fat32, clusters) {
            // Every driver reads it by its layout.
            Err(FatReason::TooFewForFat32 { .. }) if purpose == Purpose::Files => Width::Fat32,
            width => width?,
        };
        let table_len = table_sectors * sector_size;
        if width.table_bytes(clusters + u64::from(FIRST_CLUSTER)) > table_len {
            if purpose != Purpose::Files {
                return Err(FatReason::TableTooSmall { bytes: table_len, clusters });
            }
            // No file has a cluster without an entry.
            clusters = width.entries_in(table_len).saturating_sub(FIRST_CLUSTER.into());
        }
        let clusters = u32::try_from(clusters).expect("the width was just found from a range");
        Ok(Self {
            width,
            cluster_size: u32::try_from(sector_size * sectors_per_cluster)
                .expect("at most 128 sectors of at most 4096 bytes"),
            table_at: reserved * sector_size,
            table_len,
            tables,
            root_at: (data_sector - root_sectors) * sector_size,
            data_at: data_sector * sector_size,
            clusters,
            active_table: if fat32 { active_table(boot, purpose)? } else { None },
            root_cluster: match fat32 {
                true => Some(fat32_fields(boot, reserved, clusters, purpose)?),
                false => None,
            },
            media,
            marked_dirty: marked_dirty(boot, fat32),
        })
    }

    /// Byte offset of a cluster of this volume, or the end of the last one.
    pub(super) fn offset_of(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        self.data_at + index * u64::from(self.cluster_size)
    }
}

/// Sectors of the root directory between the tables and the first cluster.
fn root_sectors(
    boot: &[u8; BOOT_SECTOR_SIZE],
    sector_size: u64,
    fat32: bool,
) -> Result<u64, FatReason> {
    let entries = u64::from(le16(boot, 17));
    if fat32 {
        return match entries {
            0 => Ok(0),
            _ => Err(field("BPB_RootEntCnt", entries, "0 with FAT32")),
        };
    }
    let per_sector = sector_size / 32;
    if entries == 0 || !entries.is_multiple_of(per_sector) {
        let allowed = format!("a multiple of {per_sector}");
        return Err(field("BPB_RootEntCnt", entries, allowed));
    }
    Ok(entries / per_sector)
}

fn sectors(boot: &[u8; BOOT_SECTOR_SIZE]) -> Result<u64, FatReason> {
    match (u32::from(le16(boot, 19)), le32(boot, 32)) {
        (0, 0) => Err(field("BPB_TotSec32", 0u64, "1 or more")),
        (0, sectors) | (sectors, 0) => Ok(sectors.into()),
        (small, large) if small == large => Ok(large.into()),
        (small, large) => Err(FatReason::TwoSizes { small, large }),
    }
}

fn width(fat32: bool, clusters: u64) -> Result<Width, FatReason> {
    match clusters {
        FAT32_CLUSTERS_MIN..=FAT32_CLUSTERS_MAX if fat32 => Ok(Width::Fat32),
        ..FAT32_CLUSTERS_MIN if fat32 => Err(FatReason::TooFewForFat32 { clusters }),
        1..FAT16_CLUSTERS_MIN => Ok(Width::Fat12),
        FAT16_CLUSTERS_MIN..FAT16_CLUSTERS_AGREED => Err(FatReason::TwoWidths { clusters }),
        FAT16_CLUSTERS_AGREED..FAT32_CLUSTERS_MIN => Ok(Width::Fat16),
        _ => {
            let max = if fat32 { FAT32_CLUSTERS_MAX } else { FAT32_CLUSTERS_MIN - 1 };
            Err(field("CountofClusters", clusters, format!("1 to {max}")))
        }
    }
}

/// The table of FAT32 that counts alone.
fn active_table(boot: &[u8; BOOT_SECTOR_SIZE], purpose: Purpose) -> Result<Option<u8>, FatReason> {
    const MIRRORING_OFF: u16 = 0x80;
    let flags = le16(boot, 40);
    let active = boot[40] & 0xf;
    match flags & MIRRORING_OFF != 0 {
        false => Ok(None),
        true if purpose == Purpose::Files && active < boot[16] => Ok(Some(active)),
        true => Err(FatReason::NotMirrored { flags }),
    }
}

/// Checks what only FAT32 has, and returns the first cluster of the root directory.
fn fat32_fields(
    boot: &[u8; BOOT_SECTOR_SIZE],
    reserved: u64,
    clusters: u32,
    purpose: Purpose,
) -> Result<u32, FatReason> {
    if le16(boot, 42) != 0 {
        return Err(field("BPB_FSVer", le16(boot, 42), "0"));
    }
    // Zero and all ones stand for "none".
    for (name, at) in [("BPB_FSInfo", 48), ("BPB_BkBootSec", 50)] {
        let sector = le16(boot, at);
        let is_elsewhere = sector != 0xffff && u64::from(sector) >= reserved;
        if is_elsewhere && purpose != Purpose::Files {
            return Err(field(name, sector, format!("a reserved sector, 0 to {}", reserved - 1)));
        }
    }
    let root = le32(boot, 44);
    if root < FIRST_CLUSTER || root - FIRST_CLUSTER >= clusters {
        return Err(field("BPB_RootClus", root, format!("2 to {}", clusters + 1)));
    }
    Ok(root)
}

/// The mark drivers set while a volume is mounted, in a byte the specification calls reserved
/// (Linux: `FAT_STATE_DIRTY`; it takes the byte for real in the same way).
fn marked_dirty(boot: &[u8; BOOT_SECTOR_SIZE], fat32: bool) -> bool {
    const DIRTY: u8 = 0x1;
    boot[if fat32 { 65 } else { 37 }] & DIRTY != 0
}

fn field(field: &'static str, found: impl Into<u64>, allowed: impl Into<String>) -> FatReason {
    FatReason::Field { field, found: found.into(), allowed: allowed.into() }
}
