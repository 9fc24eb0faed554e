//! The boot region, checked. Names of fields are those of the specification.

use std::ops::RangeInclusive;

use aiv_volume_io::ReadAt;

use super::reason::ExFatReason;
use crate::Error;
use crate::bytes::{le16, le32, le64};
use crate::stop::Stop;

/// First cluster number that stands for data.
pub(super) const FIRST_CLUSTER: u32 = 2;

/// Sectors of the boot region; the backup follows.
const REGION_SECTORS: usize = 12;
/// The last sector of the region repeats the checksum of those before it.
const SUMMED_SECTORS: usize = 11;
/// Offsets the checksum leaves out, because drivers change them: `VolumeFlags`, `PercentInUse`.
const VOLATILE: [usize; 3] = [106, 107, 112];
const SECTOR_SHIFTS: RangeInclusive<u8> = 9..=12;
/// Clusters are 32 MiB at most.
const CLUSTER_SHIFT_MAX: u8 = 25;
/// Allowed are four times as many. These, the size of cards and disks in the field, take two
/// bits of memory each: 256 MiB.
const CLUSTERS_MAX: u64 = 1 << 30;

const ACTIVE_FAT: u16 = 0x1;
const VOLUME_DIRTY: u16 = 0x2;
const MEDIA_FAILURE: u16 = 0x4;

/// Where things are on an exFAT volume; all of it lies inside the volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) cluster_size: u32,
    /// Byte offset of the file allocation table.
    pub(super) table_at: u64,
    /// Byte offset of the first cluster.
    pub(super) heap_at: u64,
    /// Number of clusters; the last one is `clusters + 1`.
    pub(super) clusters: u32,
    pub(super) root_cluster: u32,
    pub(super) marked_dirty: bool,
    pub(super) media_failed: bool,
    /// The backup of the boot region is not its equal.
    pub(super) backup_differs: bool,
}

impl Geometry {
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Self, Stop> {
        let mut sector = [0; 512];
        if volume.len() < sector.len() as u64 {
            return Err(ExFatReason::NoBootRegion.into());
        }
        volume.read_exact_at(&mut sector, 0).map_err(Error::io("read boot sector", 0))?;
        let sector_shift = sector[108];
        if !SECTOR_SHIFTS.contains(&sector_shift) {
            return Err(field("BytesPerSectorShift", sector_shift, "9 to 12").into());
        }
        let len = REGION_SECTORS << sector_shift;
        if volume.len() < 2 * len as u64 {
            return Err(ExFatReason::NoBootRegion.into());
        }
        let mut regions = vec![0; 2 * len];
        volume.read_exact_at(&mut regions, 0).map_err(Error::io("read boot region", 0))?;
        let (main, backup) = regions.split_at(len);
        let mut geometry = Self::parse(main, sector_shift, volume.len())?;
        geometry.backup_differs =
            (0..len).any(|at| main[at] != backup[at] && !VOLATILE.contains(&at));
        Ok(geometry)
    }

    /// What the files of a volume lie in, which may be cut off; whether the backup said so, the
    /// main region being damaged.
    pub(super) fn for_files(volume: &dyn ReadAt) -> Result<(Self, bool), Error> {
        const WHOLE: u64 = u64::MAX;
        let region = |sector_shift: u8, first: usize| -> Result<Vec<u8>, Error> {
            let mut region = vec![0; REGION_SECTORS << sector_shift];
            let at = (first << sector_shift) as u64;
            if volume.len().saturating_sub(at) < region.len() as u64 {
                return Err(Error::damaged(ExFatReason::NoBootRegion.to_string(), Some(at)));
            }
            volume.read_exact_at(&mut region, at).map_err(Error::io("read boot region", at))?;
            Ok(region)
        };
        let parsed = |sector_shift: u8, first: usize| {
            let parsed = Self::parse(&region(sector_shift, first)?, sector_shift, WHOLE);
            parsed.map_err(|reason| match reason {
                ExFatReason::TexFat => Error::Unsupported { what: reason.to_string() },
                _ => Error::damaged(reason.to_string(), Some(0)),
            })
        };
        let mut sector_shift = *SECTOR_SHIFTS.start();
        if let Some(&shift) = region(sector_shift, 0)?.get(108)
            && SECTOR_SHIFTS.contains(&shift)
        {
            sector_shift = shift;
        }
        let error = match parsed(sector_shift, 0) {
            Ok(geometry) => return Ok((geometry, false)),
            Err(error) => error,
        };
        // The damage may be in the size of sectors, and so in where the backup is.
        let copies = SECTOR_SHIFTS.filter_map(|shift| parsed(shift, REGION_SECTORS).ok());
        { copies }.next().map(|geometry| (geometry, true)).ok_or(error)
    }

    /// `region` is the main boot region, of sectors of the given size.
    fn parse(region: &[u8], sector_shift: u8, volume_len: u64) -> Result<Self, ExFatReason> {
        let jump = region.starts_with(b"\xeb\x76\x90EXFAT   ");
        if !jump || region[510..512] != [0x55, 0xaa] {
            return Err(ExFatReason::NoBootRegion);
        }
        if !checksum_is_right(region, sector_shift) {
            return Err(ExFatReason::Checksum);
        }
        // What FAT has here; a driver of FAT must not take the volume for its own.
        if let Some(&byte) = region[11..64].iter().find(|&&byte| byte != 0) {
            return Err(field("MustBeZero", byte, "0"));
        }
        let revision = le16(region, 104);
        if revision >> 8 != 1 {
            return Err(field("FileSystemRevision", revision, "256 to 511"));
        }
        let flags = le16(region, 106);
        match region[110] {
            1 if flags & ACTIVE_FAT == 0 => {}
            1 | 2 => return Err(ExFatReason::TexFat),
            tables => return Err(field("NumberOfFats", tables, "1")),
        }
        let cluster_shift = region[109];
        if cluster_shift > CLUSTER_SHIFT_MAX - sector_shift {
            let allowed = format!("0 to {}", CLUSTER_SHIFT_MAX - sector_shift);
            return Err(field("SectorsPerClusterShift", cluster_shift, allowed));
        }
        let geometry = Self::areas(region, sector_shift, cluster_shift, volume_len)?;
        Ok(Self {
            marked_dirty: flags & VOLUME_DIRTY != 0,
            media_failed: flags & MEDIA_FAILURE != 0,
            ..geometry
        })
    }

    fn areas(
        region: &[u8],
        sector_shift: u8,
        cluster_shift: u8,
        volume_len: u64,
    ) -> Result<Self, ExFatReason> {
        let sectors = le64(region, 72);
        let filesystem = sectors.saturating_mul(1 << sector_shift);
        if filesystem > volume_len {
            return Err(ExFatReason::LargerThanVolume { filesystem, volume: volume_len });
        }
        let clusters = u64::from(le32(region, 92));
        if !(1..=CLUSTERS_MAX).contains(&clusters) {
            return Err(field("ClusterCount", clusters, format!("1 to {CLUSTERS_MAX}")));
        }
        let table_first = u64::from(le32(region, 80));
        if table_first < 2 * REGION_SECTORS as u64 {
            return Err(field("FatOffset", table_first, "24 or more"));
        }
        let table_sectors = u64::from(le32(region, 84));
        let table_min = ((clusters + u64::from(FIRST_CLUSTER)) * 4).div_ceil(1 << sector_shift);
        if table_sectors < table_min {
            return Err(field("FatLength", table_sectors, format!("{table_min} or more")));
        }
        let heap_first = u64::from(le32(region, 88));
        let heap_sectors = clusters << cluster_shift;
        let heap_min = table_first + table_sectors;
        if heap_first < heap_min || heap_first + heap_sectors > sectors {
            let allowed =
                format!("{heap_min} or more, and {heap_sectors} less than the {sectors} sectors");
            return Err(field("ClusterHeapOffset", heap_first, allowed));
        }
        let root_cluster = le32(region, 96);
        if !(2..clusters + 2).contains(&u64::from(root_cluster)) {
            let allowed = format!("2 to {}", clusters + 1);
            return Err(field("FirstClusterOfRootDirectory", root_cluster, allowed));
        }
        Ok(Self {
            cluster_size: 1 << (sector_shift + cluster_shift),
            table_at: table_first << sector_shift,
            heap_at: heap_first << sector_shift,
            clusters: u32::try_from(clusters).expect("it was read from 32 bits"),
            root_cluster,
            marked_dirty: false,
            media_failed: false,
            backup_differs: false,
        })
    }

    /// Byte offset of a cluster of this volume.
    pub(super) fn offset_of(&self, cluster: u32) -> u64 {
        self.offset_of_index(cluster.saturating_sub(FIRST_CLUSTER))
    }

    /// Byte offset of the cluster with a bit of the bitmap, or the end of the last one.
    pub(super) fn offset_of_index(&self, bit: u32) -> u64 {
        self.heap_at + u64::from(bit) * u64::from(self.cluster_size)
    }

    pub(super) fn has(&self, cluster: u32) -> bool {
        cluster >= FIRST_CLUSTER && cluster - FIRST_CLUSTER < self.clusters
    }
}

fn checksum_is_right(region: &[u8], sector_shift: u8) -> bool {
    let (summed, sums) = region.split_at(SUMMED_SECTORS << sector_shift);
    let sum = summed
        .iter()
        .enumerate()
        .filter(|(at, _)| !VOLATILE.contains(at))
        .fold(0u32, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()));
    sums.as_chunks::<4>().0.iter().all(|stored| *stored == sum.to_le_bytes())
}

fn field(field: &'static str, found: impl Into<u64>, allowed: impl Into<String>) -> ExFatReason {
    ExFatReason::Field { field, found: found.into(), allowed: allowed.into() }
}
