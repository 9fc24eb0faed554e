//! GUID partition table: two copies, each a header and an entry array with checksums.

mod areas;
mod copies;
mod header;

use super::sectors::Sectors;
use super::table::{DiskId, Partition, PartitionKind, PartitionTable};
use super::{GptCopy, Guid, PARTITIONS_MAX, TableKind, TableProblem, field};
use crate::Extent;
use copies::Table;

pub(super) use copies::{Copies, read_backup_at_end, read_primary};

/// Attribute bit "legacy BIOS bootable".
const LEGACY_BOOTABLE: u64 = 1 << 2;

/// Bytes of a name: 36 units of UTF-16.
const NAME_SIZE: usize = 72;

/// Describes the disk from the better one of two copies; `None` when neither is sound.
pub(super) fn describe(copies: &Copies, disk: Sectors<'_>) -> Option<PartitionTable> {
    let best = copies.best()?;
    let mut table = PartitionTable::empty(TableKind::Gpt, disk.size);
    table.disk_id = best.header.disk_guid.non_nil().map(DiskId::Gpt);
    table.areas = areas::of_both_copies(copies, best, disk);
    table.problems = copy_problems(copies, best, disk);
    list_partitions(best, disk, &mut table);
    Some(table)
}

fn copy_problems(copies: &Copies, best: &Table, disk: Sectors<'_>) -> Vec<TableProblem> {
    let mut problems = copies.faults();
    let last_lba = disk.last().unwrap_or(0);
    if let Ok(backup) = &copies.backup {
        let lba = backup.lba();
        if lba != last_lba {
            problems.push(TableProblem::BackupNotAtEnd { lba, last_lba });
        }
        if let Ok(primary) = &copies.primary {
            let named = primary.header.alternate_lba;
            if lba != named {
                problems.push(TableProblem::BackupNotWhereNamed { named, found: lba });
            }
            if let Some(field) = primary.header.disagreement(&backup.header) {
                problems.push(TableProblem::GptCopiesDisagree { field });
            }
        }
    }
    let last_usable_lba = best.header.last_usable_lba;
    if last_usable_lba > last_lba {
        problems.push(TableProblem::UsableRangePastEnd { last_usable_lba, last_lba });
    }
    problems
}

fn list_partitions(gpt: &Table, disk: Sectors<'_>, table: &mut PartitionTable) {
    let mut found = 0;
    for (number, entry) in (1..).zip(gpt.entries()) {
        let kind = Guid::from_bytes(field(entry, 0));
        if kind == Guid::NIL {
            continue;
        }
        found += 1;
        if found > PARTITIONS_MAX {
            continue;
        }
        let first_lba = u64::from_le_bytes(field(entry, 32));
        let last_lba = u64::from_le_bytes(field(entry, 40));
        if last_lba < first_lba {
            table.problems.push(TableProblem::EndsBeforeStart { number, first_lba, last_lba });
        }
        let end = disk.size.extent(last_lba, 1).end();
        let attributes = u64::from_le_bytes(field(entry, 48));
        table.partitions.push(Partition {
            number,
            extent: Extent::between(disk.size.extent(first_lba, 0).start, end),
            kind: PartitionKind::Gpt(kind),
            unique_id: Guid::from_bytes(field(entry, 16)).non_nil(),
            name: name(field(entry, 56)),
            attributes,
            bootable: attributes & LEGACY_BOOTABLE != 0,
        });
    }
    if found > PARTITIONS_MAX {
        table.problems.push(TableProblem::TooManyPartitions { found });
    }
}

fn name(bytes: [u8; NAME_SIZE]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
