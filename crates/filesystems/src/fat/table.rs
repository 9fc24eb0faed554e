//! From table entries to used bytes.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::boot::{BOOT_SECTOR_SIZE, FIRST_CLUSTER, Geometry, Purpose, Width};
use super::reason::FatReason;
use super::walk::Walk;
use crate::bitmap::Bitmap;
use crate::bytes::{le16, le32};
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{Error, MapNote, UsedMap};

/// Bytes of a table read in one go: whole entries of 16 and 32 bits. A table of 12-bit entries
/// is at most 6 KiB and never cut.
const STRIDE: u32 = 1 << 20;

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let geometry = geometry(volume)?;
    let table = Table::read(volume, &geometry, Links::Any, job)?;
    table.check_links(&geometry)?;
    Walk::new(volume, &geometry, &table).check(job)?;
    let mut runs = RunCollector::new(RUNS_MAX);
    runs.push(Extent::between(0, geometry.data_at));
    for run in table.used.runs() {
        let (start, end) = (run.start + FIRST_CLUSTER, run.end + FIRST_CLUSTER);
        runs.push(Extent::between(geometry.offset_of(start), geometry.offset_of(end)));
    }
    let end = geometry.offset_of(geometry.clusters + FIRST_CLUSTER);
    runs.push(Extent::between(end, volume.len()));
    let mut notes = Vec::new();
    if geometry.marked_dirty || table.marked_dirty {
        notes.push(MapNote::NotUnmounted);
    }
    if table.media_failed {
        notes.push(MapNote::MediaFailed);
    }
    Ok(UsedMap::Used { used: runs.finish(), cluster_size: geometry.cluster_size, notes })
}

pub(super) fn geometry(volume: &dyn ReadAt) -> Result<Geometry, Stop> {
    if volume.len() < BOOT_SECTOR_SIZE as u64 {
        return Err(FatReason::NoBootSector.into());
    }
    let mut boot = [0; BOOT_SECTOR_SIZE];
    volume.read_exact_at(&mut boot, 0).map_err(Error::io("read boot sector", 0))?;
    Ok(Geometry::parse(&boot, Purpose::Map { volume_len: volume.len() })?)
}

/// Whether it matters how many entries lead to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Any,
    Counted,
}

/// What the table says, one bit for each cluster from cluster 2 on: at most 32 MiB
/// each.
pub(super) struct Table {
    /// The entry is not zero.
    pub(super) used: Bitmap,
    /// Some entry leads here.
    pub(super) linked: Bitmap,
    /// Two entries or more lead here; counted on request.
    pub(super) linked_twice: Option<Bitmap>,
    marked_dirty: bool,
    media_failed: bool,
}

impl Table {
    /// Reads the table in strides and compares its copies.
    pub(super) fn read(
        volume: &dyn ReadAt,
        geometry: &Geometry,
        links: Links,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let mut table = Self {
            used: Bitmap::empty(geometry.clusters),
            linked: Bitmap::empty(geometry.clusters),
            linked_twice: (links == Links::Counted).then(|| Bitmap::empty(geometry.clusters)),
            marked_dirty: false,
            media_failed: false,
        };
        let entries = geometry.clusters + FIRST_CLUSTER;
        let per_stride = match geometry.width {
            Width::Fat12 => entries,
            Width::Fat16 => STRIDE / 2,
            Width::Fat32 => STRIDE / 4,
        };
        let mut bytes = Vec::new();
        let mut copy = Vec::new();
        let mut first = 0;
        while first < entries {
            job.check()?;
            let count = per_stride.min(entries - first);
            let len = usize::try_from(geometry.width.table_bytes(count.into()))
                .expect("a stride is small");
            let at = geometry.table_at + geometry.width.table_bytes(first.into());
            read_stride(volume, at, len, &mut bytes)?;
            for n in 1..u64::from(geometry.tables) {
                read_stride(volume, at + n * geometry.table_len, len, &mut copy)?;
                if let Some(byte) = bytes.iter().zip(&copy).position(|(a, b)| a != b) {
                    let cluster = first.saturating_add(entry_of(byte, geometry.width));
                    return Err(FatReason::TablesDiffer { cluster }.into());
                }
            }
            for index in 0..count {
                table.take(first + index, entry(geometry.width, &bytes, index), geometry)?;
            }
            first += count;
        }
        Ok(table)
    }

    fn take(&mut self, cluster: u32, value: u32, geometry: &Geometry) -> Result<(), FatReason> {
        let marks = Marks::of(geometry.width);
        match cluster {
            0 => marks.check_first(value, geometry.media),
            1 => {
                self.marked_dirty = value & marks.clean == 0 && marks.clean != 0;
                self.media_failed = value & marks.no_errors == 0 && marks.no_errors != 0;
                Ok(())
            }
            _ => {
                let masked = value & marks.mask;
                let bit = cluster - FIRST_CLUSTER;
                let target = masked.wrapping_sub(FIRST_CLUSTER);
                if value != 0 {
                    self.used.set(bit..bit + 1);
                }
                if masked == 0 || masked >= marks.bad {
                    Ok(())
                } else if target < geometry.clusters {
                    if let Some(twice) = &mut self.linked_twice
                        && self.linked.is_set(target)
                    {
                        twice.set(target..target + 1);
                    }
                    self.linked.set(target..target + 1);
                    Ok(())
                } else {
                    Err(FatReason::Entry { cluster, value })
                }
            }
        }
    }

    /// Whoever is linked to is used, and so is the root directory.
    fn check_links(&self, geometry: &Geometry) -> Result<(), FatReason> {
        if let Some(cluster) = geometry.root_cluster
            && !self.used.is_set(cluster - FIRST_CLUSTER)
        {
            return Err(FatReason::RootFree { cluster });
        }
        match self.linked.first_not_in(&self.used) {
            Some(bit) => Err(FatReason::LinkToFree { cluster: bit + FIRST_CLUSTER }),
            None => Ok(()),
        }
    }
}

/// Values with a meaning of their own.
pub(super) struct Marks {
    /// The bits of an entry; the upper four of FAT32 are reserved.
    pub(super) mask: u32,
    /// A bad cluster. What is larger ends a chain.
    pub(super) bad: u32,
    /// Of entry 1: set when the volume was unmounted. FAT12 has no such bit.
    pub(super) clean: u32,
    /// Of entry 1: set when no disk errors were met.
    no_errors: u32,
}

impl Marks {
    pub(super) const fn of(width: Width) -> Self {
        match width {
            Width::Fat12 => Self { mask: 0xfff, bad: 0xff7, clean: 0, no_errors: 0 },
            Width::Fat16 => Self { mask: 0xffff, bad: 0xfff7, clean: 0x8000, no_errors: 0x4000 },
            Width::Fat32 => Self {
                mask: 0x0fff_ffff,
                bad: 0x0fff_fff7,
                clean: 0x0800_0000,
                no_errors: 0x0400_0000,
            },
        }
    }

    /// Entry 0 repeats the media byte below ones: it tells a table from anything else.
    pub(super) fn check_first(&self, value: u32, media: u8) -> Result<(), FatReason> {
        let expected = (self.mask & !0xff) | u32::from(media);
        match value & self.mask == expected {
            true => Ok(()),
            false => Err(FatReason::FirstEntry { found: value, expected }),
        }
    }
}

fn read_stride(volume: &dyn ReadAt, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    out.resize(len, 0);
    volume.read_exact_at(out, at).map_err(Error::io("read file allocation table", at))
}

/// Entry `index` of a stride that begins with a whole entry.
pub(super) fn entry(width: Width, bytes: &[u8], index: u32) -> u32 {
    let index = index as usize;
    match width {
        // Three bytes hold two entries, the lower one first.
        Width::Fat12 => {
            let pair = u32::from(le16(bytes, index + index / 2));
            if index.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
        }
        Width::Fat16 => le16(bytes, index * 2).into(),
        Width::Fat32 => le32(bytes, index * 4),
    }
}

/// The entry that begins in, or reaches into, byte `at` of a stride.
fn entry_of(at: usize, width: Width) -> u32 {
    let entry = match width {
        Width::Fat12 => at * 2 / 3,
        Width::Fat16 => at / 2,
        Width::Fat32 => at / 4,
    };
    u32::try_from(entry).unwrap_or(u32::MAX)
}
