use std::collections::BTreeSet;

use super::table::{PartitionTable, TableAreaKind};
use crate::Extent;

/// A range of bytes of a disk and its one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region {
    /// The bytes; never empty.
    pub extent: Extent,
    /// Their owner.
    pub kind: RegionKind,
}

/// Who owns a range of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Boot code of the MBR.
    BootCode,
    /// The partition table itself: MBR, extended boot records, GPT headers and entry arrays.
    Table,
    /// Bytes no entry of the table mentions, such as the space after the MBR where boot
    /// loaders live. All of a disk without a table.
    Gap,
    /// The partition of this number. In a sound table a partition is one region; one that
    /// covers other things loses their bytes and may fall apart.
    Partition(u32),
}

/// Gives every byte of a disk of `disk_len` bytes to exactly one region, ascending, whatever
/// the table says.
///
/// Where the table contradicts itself, its own bytes come before partitions, and of two
/// partitions the one that begins first comes first. Extended partitions own nothing: what no
/// logical partition or boot record covers is a gap. Neighbours of one owner are one region.
#[must_use]
pub fn regions(table: &PartitionTable, disk_len: u64) -> Vec<Region> {
    let claims = claims_by_rank(table, disk_len);
    let mut edges: Vec<(u64, usize)> = Vec::with_capacity(claims.len() * 2);
    for (rank, claim) in claims.iter().enumerate() {
        edges.push((claim.extent.start, rank));
        edges.push((claim.extent.end(), rank));
    }
    edges.sort_unstable();

    let mut regions = Vec::new();
    let mut open = BTreeSet::new();
    let mut at = 0;
    for (edge, rank) in edges {
        let owner = open.first().map_or(RegionKind::Gap, |&best: &usize| claims[best].kind);
        append(&mut regions, Extent::between(at, edge), owner);
        at = edge;
        // A claim's first edge opens it, its second one closes it.
        if !open.remove(&rank) {
            open.insert(rank);
        }
    }
    append(&mut regions, Extent::between(at, disk_len), RegionKind::Gap);
    regions
}

fn append(regions: &mut Vec<Region>, extent: Extent, kind: RegionKind) {
    match regions.last_mut() {
        _ if extent.is_empty() => {}
        Some(last) if last.kind == kind => {
            last.extent = Extent::between(last.extent.start, extent.end());
        }
        _ => regions.push(Region { extent, kind }),
    }
}

/// What the table claims of the disk, the strongest claim first.
fn claims_by_rank(table: &PartitionTable, disk_len: u64) -> Vec<Region> {
    let areas = table.areas.iter().map(|area| Region {
        extent: area.extent,
        kind: match area.kind {
            TableAreaKind::BootCode => RegionKind::BootCode,
            _ => RegionKind::Table,
        },
    });
    let mut partitions: Vec<Region> = table
        .partitions
        .iter()
        .filter(|partition| !partition.kind.is_extended())
        .map(|p| Region { extent: p.extent, kind: RegionKind::Partition(p.number) })
        .collect();
    // Stable: of two that begin together, the lower number comes first.
    partitions.sort_by_key(|claim| claim.extent.start);

    let disk = Extent::between(0, disk_len);
    let on_disk = |claim: Region| {
        claim.extent.intersect(disk).map(|extent| Region { extent, kind: claim.kind })
    };
    areas.chain(partitions).filter_map(on_disk).collect()
}
