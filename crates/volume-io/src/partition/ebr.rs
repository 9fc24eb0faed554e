use std::collections::HashSet;

use super::mbr::{BootRecord, RECORD_SIZE};
use super::sectors::Sectors;
use super::table::{Partition, PartitionTable, TableArea, TableAreaKind};
use super::{EbrFault, PARTITIONS_MAX, TableProblem};

/// Extended boot records per disk: what remains of [`PARTITIONS_MAX`] beside four primaries.
/// Linux follows 100.
pub(super) const CHAIN_MAX: usize = PARTITIONS_MAX - 4;

/// Number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;

/// The chains of extended boot records of one disk, usually a single one.
///
/// Each record holds at most one logical partition, placed relative to the record, and a link
/// to the next record, placed relative to the extended partition. Links lie: all chains
/// together visit a sector once and stop after [`CHAIN_MAX`] records. Start and length on disk
/// have 32 bits, so that no sum here comes near the end of 64.
pub(super) struct Chains<'a> {
    sectors: Sectors<'a>,
    visited: HashSet<u64>,
    next_number: u32,
    partitions: Vec<Partition>,
    areas: Vec<TableArea>,
    problems: Vec<TableProblem>,
}

impl<'a> Chains<'a> {
    pub(super) fn new(sectors: Sectors<'a>) -> Self {
        Self {
            sectors,
            visited: HashSet::new(),
            next_number: FIRST_LOGICAL,
            partitions: Vec::new(),
            areas: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Follows the chain of the extended partition of `count` sectors from `start`.
    pub(super) fn follow(&mut self, start: u64, count: u64) {
        let end = start + count;
        let reachable = start..end.min(self.sectors.count);
        let mut next = Some(start);
        while let Some(lba) = next {
            let record =
                if reachable.contains(&lba) { self.visit(lba) } else { Err(EbrFault::OutOfBounds) };
            next = match record {
                Ok(record) => {
                    self.list(&record, lba, end);
                    let link = record.used().map(|(_, entry)| entry).find(|e| e.is_extended());
                    link.map(|link| start + u64::from(link.start))
                }
                Err(fault) => {
                    self.problems.push(TableProblem::EbrDamaged { lba, fault });
                    None
                }
            };
        }
    }

    fn visit(&mut self, lba: u64) -> Result<BootRecord, EbrFault> {
        if self.visited.contains(&lba) {
            return Err(EbrFault::Loop);
        }
        if self.visited.len() == CHAIN_MAX {
            return Err(EbrFault::TooLong);
        }
        self.visited.insert(lba);
        let mut bytes = [0; RECORD_SIZE];
        self.sectors
            .disk
            .read_exact_at(&mut bytes, self.sectors.size.extent(lba, 1).start)
            .map_err(|e| EbrFault::Unreadable(e.kind()))?;
        let record = BootRecord::parse(&bytes).ok_or(EbrFault::NoSignature)?;
        let extent = self.sectors.size.extent(lba, 1);
        self.areas.push(TableArea { extent, kind: TableAreaKind::Ebr });
        Ok(record)
    }

    /// Lists the logical partition of the record at `lba`, if it has one. Its extended
    /// partition ends before sector `end`.
    fn list(&mut self, record: &BootRecord, lba: u64, end: u64) {
        let mut data = record.used().map(|(_, entry)| entry).filter(|e| !e.is_extended());
        let Some(entry) = data.next() else { return };
        let (start, count) = (lba + u64::from(entry.start), u64::from(entry.sectors));
        let number = self.next_number;
        self.next_number += 1;
        if start + count > end {
            self.problems.push(TableProblem::OutsideExtended { number });
        }
        self.partitions.push(entry.partition(number, self.sectors.size.extent(start, count)));
        if data.next().is_some() {
            self.problems.push(TableProblem::EbrDamaged { lba, fault: EbrFault::ExtraPartition });
        }
    }

    /// Adds what was found to the table of the primaries.
    pub(super) fn finish(self, table: &mut PartitionTable) {
        table.partitions.extend(self.partitions);
        table.areas.extend(self.areas);
        table.problems.extend(self.problems);
    }
}
