use super::TableProblem;
use super::table::{Partition, PartitionTable};

/// Adds the problems that partitions have with each other, the table and the disk. Their
/// number is bounded by a few per partition, however entangled the table is.
pub(super) fn check_partitions(table: &mut PartitionTable, disk_len: u64) {
    let mut problems = Vec::new();
    for partition in &table.partitions {
        let (number, end) = (partition.number, partition.extent.end());
        if end > disk_len {
            problems.push(TableProblem::PastEnd { number, end, disk_len });
        }
        if partition.kind.is_extended() {
            continue;
        }
        let mut shared = table.areas.iter().filter_map(|a| a.extent.intersect(partition.extent));
        if let Some(shared) = shared.next() {
            problems.push(TableProblem::OverlapsTable { number, shared });
        }
    }
    problems.extend(overlaps(&table.partitions));
    table.problems.append(&mut problems);
}

/// One problem for each partition that begins inside an earlier one.
fn overlaps(partitions: &[Partition]) -> Vec<TableProblem> {
    let mut data: Vec<&Partition> = partitions.iter().filter(|p| !p.kind.is_extended()).collect();
    data.sort_by_key(|partition| partition.extent.start);

    let mut problems = Vec::new();
    let mut furthest: Option<&Partition> = None;
    for next in data {
        if let Some(first) = furthest
            && let Some(shared) = first.extent.intersect(next.extent)
        {
            let (first, second) = (first.number, next.number);
            problems.push(TableProblem::PartitionsOverlap { first, second, shared });
        }
        if furthest.is_none_or(|first| next.extent.end() > first.extent.end()) {
            furthest = Some(next);
        }
    }
    problems
}
