//! Which bytes of the source disk are restored.

use aiv_chain::meta::{DiskInfo, PartitionInfo, RegionInfo};
use aiv_volume_io::Extent;

use crate::error::Refusal;

/// The word META uses for a disk without a partition table.
const NO_TABLE: &str = "none";

/// The partition of this number, and its bytes on the source disk.
pub(crate) fn partition(disk: &DiskInfo, number: u32) -> Result<(PartitionInfo, Extent), Refusal> {
    let entry = |region: &RegionInfo| Some((region.partition.clone()?, region.extent));
    let mut found = disk.regions.iter().filter_map(entry).filter(|(p, _)| p.number == number);
    let Some(first) = found.next() else { return Err(missing(disk, number)) };
    // A sound partition is one region. What fell apart lost its missing bytes to other
    // entries, and nobody knows whose they are.
    if found.next().is_some() || first.1.is_empty() {
        return Err(Refusal::OverlappingPartition { number });
    }
    Ok(first)
}

fn missing(disk: &DiskInfo, number: u32) -> Refusal {
    let numbers = disk.regions.iter().filter_map(|r| Some(r.partition.as_ref()?.number));
    let mut existing: Vec<u32> = numbers.collect();
    existing.sort_unstable();
    existing.dedup();
    if existing.is_empty() && (disk.table == NO_TABLE || !disk.table_problems.is_empty()) {
        return Refusal::NoTable { problems: disk.table_problems.clone() };
    }
    Refusal::NoSuchPartition { number, existing }
}
