//! The root directory, as far as it tells where the allocation bitmap is.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::boot::Geometry;
use super::chain::Table;
use super::reason::ExFatReason;
use crate::Error;
use crate::bytes::{le32, le64};
use crate::stop::Stop;

/// The specification ends directories here.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a cluster read in one go.
const STRIDE: usize = 64 << 10;
/// One up-case mapping of 16 bits for each of 65,536 characters, and never less than one.
const UPCASE_BYTES_MAX: u64 = 128 << 10;

pub(super) const ROOT: &str = "root directory";
pub(super) const BITMAP: &str = "allocation bitmap";
pub(super) const UPCASE: &str = "up-case table";

/// The structures every exFAT volume has. Extents and sets are of cluster numbers.
pub(super) struct Structures {
    pub(super) bitmap: Extent,
    /// Byte offset of the allocation bitmap.
    pub(super) bitmap_at: u64,
    pub(super) upcase: Extent,
    pub(super) root: ExtentSet,
}

impl Structures {
    pub(super) fn find(
        volume: &dyn ReadAt,
        geometry: &Geometry,
        table: &mut Table<'_>,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let root = Root::read(volume, geometry, table, job)?;
        let bitmap = root.bitmap.one(BITMAP)?;
        let bitmap_bytes = u64::from(geometry.clusters.div_ceil(8));
        bitmap.check_size(BITMAP, bitmap_bytes..=bitmap_bytes)?;
        let upcase = root.upcase.one(UPCASE)?;
        upcase.check_size(UPCASE, 1..=UPCASE_BYTES_MAX)?;
        let place = |section, entry: Allocation| {
            table.one_piece(section, entry.first, entry.clusters(section, geometry)?, job)
        };
        Ok(Self {
            bitmap: place(BITMAP, bitmap)?,
            bitmap_at: geometry.offset_of(bitmap.first),
            upcase: place(UPCASE, upcase)?,
            root: root.clusters.into_iter().collect(),
        })
    }
}

/// Where a directory entry says that something is.
#[derive(Debug, Clone, Copy)]
struct Allocation {
    first: u32,
    len: u64,
}

impl Allocation {
    fn check_size(
        self,
        section: &'static str,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Result<(), ExFatReason> {
        if allowed.contains(&self.len) {
            return Ok(());
        }
        let allowed = format!("{} to {}", allowed.start(), allowed.end());
        Err(ExFatReason::Size { section, found: self.len, allowed })
    }

    fn clusters(self, section: &'static str, geometry: &Geometry) -> Result<u32, ExFatReason> {
        let clusters = self.len.div_ceil(geometry.cluster_size.into());
        u32::try_from(clusters).map_err(|_| ExFatReason::Chain { section, cluster: self.first })
    }
}

/// Entries of one kind: the first, and how many there are.
#[derive(Default)]
struct Entries {
    first: Option<Allocation>,
    count: u32,
}

impl Entries {
    fn take(&mut self, entry: &[u8; 32]) {
        self.first.get_or_insert(Allocation { first: le32(entry, 20), len: le64(entry, 24) });
        self.count = self.count.saturating_add(1);
    }

    fn one(&self, section: &'static str) -> Result<Allocation, ExFatReason> {
        match (self.first, self.count) {
            (Some(entry), 1) => Ok(entry),
            (_, found) => Err(ExFatReason::Entries { section, found }),
        }
    }
}

#[derive(Default)]
struct Root {
    bitmap: Entries,
    upcase: Entries,
    clusters: Vec<Extent>,
}

impl Root {
    /// Follows the chain of the root directory to its end; entries end earlier.
    fn read(
        volume: &dyn ReadAt,
        geometry: &Geometry,
        table: &mut Table<'_>,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let max = DIRECTORY_BYTES_MAX / u64::from(geometry.cluster_size);
        // A chain longer than there are clusters is a loop.
        let max = max.min(geometry.clusters.into());
        let mut root = Self::default();
        let mut next = Some(geometry.root_cluster);
        let mut count = 0;
        let mut ended = false;
        while let Some(cluster) = next {
            job.check()?;
            if count == max {
                return Err(ExFatReason::Chain { section: ROOT, cluster }.into());
            }
            count += 1;
            ended = ended || root.take_cluster(volume, geometry.offset_of(cluster), geometry)?;
            root.add_cluster(cluster);
            next = table.next(ROOT, cluster)?;
        }
        Ok(root)
    }

    /// Takes the entries of a cluster; whether the directory ends in it.
    fn take_cluster(
        &mut self,
        volume: &dyn ReadAt,
        at: u64,
        geometry: &Geometry,
    ) -> Result<bool, Stop> {
        const END: u8 = 0x00;
        const ALLOCATION_BITMAP: u8 = 0x81;
        const UPCASE_TABLE: u8 = 0x82;
        // Strides are powers of two, and so are clusters.
        let stride = STRIDE.min(geometry.cluster_size as usize);
        let mut bytes = vec![0; stride];
        for at in (at..at + u64::from(geometry.cluster_size)).step_by(stride) {
            volume.read_exact_at(&mut bytes, at).map_err(Error::io("read root directory", at))?;
            for entry in bytes.as_chunks::<32>().0 {
                match entry[0] {
                    END => return Ok(true),
                    ALLOCATION_BITMAP => self.bitmap.take(entry),
                    UPCASE_TABLE => self.upcase.take(entry),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    fn add_cluster(&mut self, cluster: u32) {
        let cluster = u64::from(cluster);
        match self.clusters.last_mut() {
            Some(last) if last.end() == cluster => last.len += 1,
            _ => self.clusters.push(Extent::new(cluster, 1)),
        }
    }
}
