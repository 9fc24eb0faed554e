//! Partition tables: made by the tools of other people, made here, and broken here.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod build;
mod damage;
mod draft;
mod front;
mod hostile;
mod logical;
mod round_trip;
mod tools;

use aiv_volume_io::partition::{
    PartitionTable, Region, RegionKind, SectorSize, TableAreaKind, TableProblem, read_table,
    regions,
};
use aiv_volume_io::{Extent, MemDisk};

/// Reads the table of a disk in memory; such a disk has no I/O errors.
fn read(bytes: &[u8], sector_size: u32) -> PartitionTable {
    let size = SectorSize::new(sector_size).expect("a valid sector size");
    let disk = MemDisk::from_bytes(bytes.to_vec());
    read_table(&disk, size).expect("memory does not fail")
}

/// The extents of the partitions with their numbers.
fn extents(table: &PartitionTable) -> Vec<(u32, Extent)> {
    table.partitions.iter().map(|p| (p.number, p.extent)).collect()
}

/// The bytes of one kind of table area.
fn area(table: &PartitionTable, kind: TableAreaKind) -> Option<Extent> {
    table.areas.iter().find(|area| area.kind == kind).map(|area| area.extent)
}

/// Checks the promise of the region map: in order, no byte twice, none left out.
fn check_regions(table: &PartitionTable, disk_len: u64) -> Vec<Region> {
    let map = regions(table, disk_len);
    let mut at = 0;
    for region in &map {
        assert_eq!(region.extent.start, at, "{map:?}");
        assert!(region.extent.len > 0, "{map:?}");
        at = region.extent.end();
    }
    assert_eq!(at, disk_len, "{map:?}");
    for pair in map.windows(2) {
        assert_ne!(pair[0].kind, pair[1].kind, "{map:?}");
    }
    map
}

/// The regions in short: where each begins, and whose it is.
fn owners(table: &PartitionTable, disk_len: u64) -> Vec<(u64, RegionKind)> {
    check_regions(table, disk_len).iter().map(|r| (r.extent.start, r.kind)).collect()
}

fn has(table: &PartitionTable, wanted: impl Fn(&TableProblem) -> bool) -> bool {
    table.problems.iter().any(wanted)
}
