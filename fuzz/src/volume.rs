//! Disks and volumes: partition tables, used-block maps, files, virtual disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_disk_formats::{DiskImage, Format};
use aiv_filesystems::{
    Filesystem, Pattern, UsedMap, find_files, open_filesystem, recognise, used_map,
};
use aiv_testkit::files::read_all;
use aiv_testkit::mutants::{Changes, Mutated};
use aiv_volume_io::partition::{SectorSize, detect_sector_size, read_table, regions};
use aiv_volume_io::{Extent, Job, ReadAt};

use crate::SparseDisk;
use crate::mend::mend;

/// Bytes that may be read to answer about one volume of a few hundred MiB.
const READ_MAX: u64 = 64 << 20;

/// A partition table in a [`SparseDisk`], read with sectors of either size.
pub fn partitions(data: &[u8]) -> bool {
    let disk = SparseDisk::from_bytes(data);
    let mut reached = detect_sector_size(&disk).is_some();
    for size in [SectorSize::B512, SectorSize::B4096] {
        let Ok(table) = read_table(&disk, size) else { continue };
        let mut end = 0;
        for region in regions(&table, disk.len()) {
            assert!(region.extent.start == end && !region.extent.is_empty());
            end = region.extent.end();
        }
        assert_eq!(end, disk.len(), "every byte has an owner");
        reached |= !table.partitions.is_empty();
    }
    reached
}

/// A volume in a [`SparseDisk`]: what it is, its used blocks, its files.
pub fn volume(data: &[u8]) -> bool {
    let disk = SparseDisk::from_bytes(data);
    let unchanged = Changes::new();
    let disk = Mutated::with_budget(&disk, &unchanged, READ_MAX);
    let Ok(recognised) = recognise(&disk) else { return false };
    let Ok(map) = used_map(&disk, &recognised, Job::silent()) else { return false };
    if let UsedMap::Used { used, .. } = &map {
        assert!(used.runs().last().is_none_or(|last| last.end() <= disk.len()));
    }
    let pattern: Pattern = "**/*.txt".parse().expect("a pattern");
    let _ = find_files(&disk, &recognised, &map, &[pattern], Job::silent());
    matches!(map, UsedMap::Used { .. })
}

/// A volume in a [`SparseDisk`], and everything that is in it, as far as a budget goes. Of eight inputs
/// seven get their checksums mended.
pub fn files(data: &[u8]) -> bool {
    let mut disk = SparseDisk::from_bytes(data);
    if data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) & 7 != 0 {
        mend(&mut disk);
    }
    let disk = Arc::new(disk);
    let Ok(recognised) = recognise(&disk) else { return false };
    let disk = Arc::new(Budget { disk, left: AtomicU64::new(READ_MAX) });
    let Ok(filesystem) = open_filesystem(disk, &recognised, Job::silent()) else { return false };
    read_tree(&*filesystem) > 0
}

/// As much of a filesystem as a target reads.
pub(crate) fn read_tree(filesystem: &dyn Filesystem) -> usize {
    read_all(filesystem, 500, 256 << 10)
}

/// A volume that gives no more once so many bytes were read.
struct Budget {
    disk: Arc<SparseDisk>,
    left: AtomicU64,
}

impl ReadAt for Budget {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        let len = out.len() as u64;
        let take = |left: u64| left.checked_sub(len);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(std::io::Error::other("read more than the budget"));
        }
        self.disk.read_exact_at(out, offset)
    }
}

/// A file that says it is a disk.
pub fn virtual_disk(data: &[u8]) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(SparseDisk::from_bytes(data));
    let Ok(format) = Format::of_content(&*file) else { return false };
    let Ok(disk) = DiskImage::of_bytes(file, format) else { return false };
    let mut out = [0; 4096];
    for at in [0, disk.len() / 2, disk.len().saturating_sub(4096)] {
        let _ = disk.read_exact_at(&mut out, at);
    }
    let asked = Extent::new(0, disk.len().min(64 << 20));
    if let Ok(holes) = disk.holes(asked) {
        assert!(holes.iter().all(|hole| hole.end() <= asked.end()));
    }
    true
}
