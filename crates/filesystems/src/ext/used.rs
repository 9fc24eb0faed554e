//! From bitmaps to used bytes.

use std::collections::HashMap;

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::blocks::{Blocks, JournalCopy, STRIDE};
use super::checksum::crc32c;
use super::groups::{Group, metadata_blocks};
use super::journal;
use super::reason::{ExtReason, JournalReason};
use super::superblock::{Geometry, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock};
use crate::bitmap::Bitmap;
use crate::bytes::{array, le32};
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{Error, MapNote, UsedMap};

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let superblock = superblock_on_disk(volume)?;
    let on_disk = Blocks::on_disk(volume, superblock.geometry.block_size);
    let mut notes = Vec::new();
    if mounted_elsewhere(&on_disk, &superblock)? {
        notes.push(MapNote::MountedElsewhere);
    }
    let used = if superblock.needs_recovery {
        let log = journal::read(&on_disk, &superblock, job)?;
        notes.push(MapNote::JournalPending { transactions: log.transactions });
        let used = after_replay(&on_disk, &superblock, log.newer, job)?;
        // A journal in free blocks would be lost, or is not the journal.
        let kept = |place: &Extent| used.within(*place).next() == Some(*place);
        if !log.places.iter().all(kept) {
            return Err(JournalReason::Inode { what: "blocks of it are free" }.into());
        }
        used
    } else {
        let groups = Group::read_first(superblock.geometry.groups, &on_disk, &superblock, job)?;
        let map = MapReader::new(&on_disk, None, &superblock, &groups)?;
        map.used_bytes(job)?
    };
    Ok(UsedMap::Used { used, cluster_size: superblock.geometry.cluster_size(), notes })
}

pub(super) fn superblock_on_disk(volume: &dyn ReadAt) -> Result<Superblock, Stop> {
    if volume.len() < (SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) as u64 {
        return Err(ExtReason::NoSuperblock.into());
    }
    let mut bytes = [0; SUPERBLOCK_SIZE];
    let offset = SUPERBLOCK_OFFSET as u64;
    volume.read_exact_at(&mut bytes, offset).map_err(Error::io("read superblock", offset))?;
    Ok(Superblock::parse(&bytes, volume.len())?)
}

/// The superblock among blocks that may be those after a replay.
pub(super) fn superblock_in(
    blocks: &Blocks<'_>,
    geometry: &Geometry,
) -> crate::Result<[u8; SUPERBLOCK_SIZE]> {
    let mut block = vec![0; blocks.block_size()];
    blocks.read("read superblock", geometry.superblock_block(), &mut block)?;
    Ok(array(&block, SUPERBLOCK_OFFSET % blocks.block_size()))
}

/// What is used before or after the journal is replayed.
fn after_replay(
    on_disk: &Blocks<'_>,
    before: &Superblock,
    newer: HashMap<u64, JournalCopy>,
    job: Job<'_>,
) -> Result<ExtentSet, Stop> {
    let replayed = on_disk.replayed(newer.into());
    let geometry = &before.geometry;
    let bytes = superblock_in(&replayed, geometry)?;
    let after = Superblock::parse(&bytes, on_disk.volume().len())?;
    if after.geometry != *geometry || after.checksums != before.checksums {
        return Err(JournalReason::GeometryChanged.into());
    }
    let groups = Group::read_first(geometry.groups, &replayed, &after, job)?;
    MapReader::new(&replayed, Some(on_disk), &after, &groups)?.used_bytes(job)
}

/// Whether multi-mount protection says that somebody has the filesystem open.
pub(super) fn mounted_elsewhere(
    blocks: &Blocks<'_>,
    superblock: &Superblock,
) -> Result<bool, Stop> {
    const MAGIC: u32 = 0x004d_4d50;
    const CLEAN: u32 = 0xff4d_4d50;
    let Some(block) = superblock.mmp_block else { return Ok(false) };
    if block >= superblock.geometry.blocks {
        let section = "multi-mount protection";
        return Err(ExtReason::Pointer { section, group: 0, block }.into());
    }
    let mut record = [0; 8];
    blocks.read("read multi-mount protection", block, &mut record)?;
    Ok(le32(&record, 0) == MAGIC && le32(&record, 4) != CLEAN)
}

/// Reads the bitmaps of all groups, each once, in strides.
struct MapReader<'a> {
    blocks: &'a Blocks<'a>,
    /// The volume without the journal, where the two differ.
    on_disk: Option<&'a Blocks<'a>>,
    superblock: &'a Superblock,
    groups: &'a [Group],
    /// Blocks of bitmaps and inode tables.
    metadata: ExtentSet,
}

impl<'a> MapReader<'a> {
    fn new(
        blocks: &'a Blocks<'a>,
        on_disk: Option<&'a Blocks<'a>>,
        superblock: &'a Superblock,
        groups: &'a [Group],
    ) -> Result<Self, ExtReason> {
        let metadata = metadata_blocks(groups, &superblock.geometry)?;
        Ok(Self { blocks, on_disk, superblock, groups, metadata })
    }

    fn used_bytes(&self, job: Job<'_>) -> Result<ExtentSet, Stop> {
        let geometry = &self.superblock.geometry;
        let mut runs = RunCollector::new(RUNS_MAX);
        // The boot sector area, and the superblock's place whatever the bitmap says.
        runs.push(Extent::new(0, (SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) as u64));
        let mut now = vec![0; STRIDE];
        let mut before = vec![0; if self.on_disk.is_some() { STRIDE } else { 0 }];
        let mut first = 0;
        while first < self.groups.len() {
            job.check()?;
            if self.groups[first].uninitialised {
                let group = u32::try_from(first).unwrap_or(u32::MAX);
                self.push_runs(group, &self.group_bitmap(group, &[])?, &mut runs);
                first += 1;
                continue;
            }
            let count = self.adjacent_bitmaps(first);
            let len = self.stride_len(count);
            let start = self.groups[first].block_bitmap;
            self.blocks.read("read block bitmap", start, &mut now[..len])?;
            if let Some(on_disk) = self.on_disk {
                on_disk.read("read block bitmap", start, &mut before[..len])?;
            }
            for n in 0..count {
                let group = u32::try_from(first + n).unwrap_or(u32::MAX);
                let at = n * self.blocks.block_size();
                let mut bitmap = self.group_bitmap(group, &now[at..len])?;
                if self.on_disk.is_some() {
                    bitmap.union(&Bitmap::new(&before[at..len], geometry.clusters_of(group)));
                }
                self.push_runs(group, &bitmap, &mut runs);
            }
            first += count;
        }
        let end = geometry.blocks * u64::from(geometry.block_size);
        runs.push(Extent::between(end, self.blocks.volume().len()));
        Ok(runs.finish())
    }

    /// How many groups from `first` on have their bitmaps side by side, within one stride.
    fn adjacent_bitmaps(&self, first: usize) -> usize {
        let start = self.groups[first].block_bitmap;
        let stride_blocks = STRIDE / self.blocks.block_size();
        (start..)
            .zip(&self.groups[first..])
            .take(stride_blocks)
            .take_while(|(block, group)| group.block_bitmap == *block && !group.uninitialised)
            .count()
    }

    /// Bytes of `count` bitmaps side by side; of the last one only what it needs.
    fn stride_len(&self, count: usize) -> usize {
        (count - 1) * self.blocks.block_size() + self.bitmap_bytes()
    }

    fn bitmap_bytes(&self) -> usize {
        self.superblock.geometry.clusters_per_group as usize / 8
    }

    /// The checked bitmap of a group, with everything added that is used in any case. `bytes`
    /// means nothing, and may be missing, where the group is not initialised.
    fn group_bitmap(&self, group: u32, bytes: &[u8]) -> Result<Bitmap, ExtReason> {
        let geometry = &self.superblock.geometry;
        let descriptor = &self.groups[group as usize];
        let clusters = geometry.clusters_of(group);
        let mut bitmap = if descriptor.uninitialised {
            let mut bitmap = Bitmap::empty(clusters);
            self.set_metadata(group, &mut bitmap);
            set_blocks(geometry, group, geometry.copies_in(group, true), &mut bitmap);
            bitmap
        } else {
            self.check_bitmap(group, &bytes[..self.bitmap_bytes()])?;
            Bitmap::new(bytes, clusters)
        };
        let free = bitmap.count_clear();
        if free != descriptor.free_clusters {
            let descriptor = descriptor.free_clusters;
            return Err(ExtReason::FreeCount { group, descriptor, bitmap: free });
        }
        self.set_metadata(group, &mut bitmap);
        if bitmap.count_clear() != free {
            return Err(ExtReason::MetadataFree { group });
        }
        set_blocks(geometry, group, geometry.copies_in(group, false), &mut bitmap);
        Ok(bitmap)
    }

    fn check_bitmap(&self, group: u32, bytes: &[u8]) -> Result<(), ExtReason> {
        let descriptor = &self.groups[group as usize];
        if let Some(seed) = self.superblock.checksums.seed()
            && (crc32c(seed, bytes) ^ descriptor.bitmap_checksum) & descriptor.bitmap_checksum_mask
                != 0
        {
            let offset = self.blocks.offset_of(descriptor.block_bitmap);
            return Err(ExtReason::Checksum { section: "block bitmap", offset });
        }
        let geometry = &self.superblock.geometry;
        let padded = Bitmap::new(bytes, geometry.clusters_per_group);
        let padding = geometry.clusters_of(group)..geometry.clusters_per_group;
        if padding.into_iter().all(|bit| padded.is_set(bit)) {
            Ok(())
        } else {
            Err(ExtReason::Padding { group })
        }
    }

    fn set_metadata(&self, group: u32, bitmap: &mut Bitmap) {
        let geometry = &self.superblock.geometry;
        let blocks = geometry.blocks_of(group);
        for run in self.metadata.within(Extent::between(blocks.start, blocks.end)) {
            set_blocks(geometry, group, run.start..run.end(), bitmap);
        }
    }

    fn push_runs(&self, group: u32, bitmap: &Bitmap, runs: &mut RunCollector) {
        let geometry = &self.superblock.geometry;
        let blocks = geometry.blocks_of(group);
        let block_of = |cluster: u32| {
            let block = blocks.start + u64::from(cluster) * u64::from(geometry.cluster_blocks);
            block.min(blocks.end) * u64::from(geometry.block_size)
        };
        for run in bitmap.runs() {
            // The boot sector area of the first bytes may already reach into this run.
            runs.push(Extent::between(block_of(run.start), block_of(run.end)));
        }
    }
}

/// Sets the clusters of `group` that `blocks`, a range inside the group, touches.
fn set_blocks(geometry: &Geometry, group: u32, blocks: std::ops::Range<u64>, bitmap: &mut Bitmap) {
    let start = geometry.first_block_of(group);
    let ratio = u64::from(geometry.cluster_blocks);
    let cluster = |block: u64| {
        u32::try_from(block).expect("a group has no more clusters than a block has bits")
    };
    if blocks.is_empty() {
        return;
    }
    let first = cluster((blocks.start - start) / ratio);
    let end = cluster((blocks.end - start).div_ceil(ratio));
    bitmap.set(first..end);
}
