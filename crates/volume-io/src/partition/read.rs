use super::front::{self, Front};
use super::mbr::{self, BootRecord, RECORD_SIZE};
use super::sectors::Sectors;
use super::table::PartitionTable;
use super::{SectorSize, TableKind, TableProblem, checks, gpt};
use crate::{Error, ReadAt, Result};

/// Reads the partition table of `disk`, whose sectors have `sector_size`.
///
/// Damage is described in [`PartitionTable::problems`]. A GPT is used when either copy is
/// sound: with a protective MBR entry in sector 0 whichever copy it is, without one only the
/// primary, and only when sector 0 holds nothing else. A backup alone at the end of a disk
/// that begins with something else is a leftover, and partitions made of it would hide the
/// data that replaced them.
///
/// The work is bounded whatever the disk says: at most 1,020 extended boot records, and for
/// each sector size the headers and entry arrays of a few places.
///
/// # Errors
/// [`Error::Io`] when the medium fails where it matters: at sector 0 without a primary GPT, or
/// at one copy of a GPT whose other copy is damaged.
pub fn read_table(disk: &dyn ReadAt, sector_size: SectorSize) -> Result<PartitionTable> {
    let mut table = describe(Sectors::new(disk, sector_size))?;
    table.areas.sort_unstable();
    checks::check_partitions(&mut table, disk.len());
    Ok(table)
}

fn describe(disk: Sectors<'_>) -> Result<PartitionTable> {
    if disk.count == 0 {
        return Ok(PartitionTable::empty(TableKind::None, disk.size));
    }
    let mut sector0 = [0; RECORD_SIZE];
    if let Err(error) = disk.disk.read_exact_at(&mut sector0, 0) {
        let unreadable = TableProblem::MbrUnreadable(error.kind());
        return unprotected_gpt(disk, unreadable)
            .ok_or_else(|| Error::io("read partition table", 0)(error));
    }
    match front::judge(&sector0, disk.count) {
        Front::Protective(record) => protected_gpt(disk, &record),
        Front::Mbr(record) if record.used().next().is_some() => {
            let mut table = mbr::read(disk, &record);
            table.problems.extend(leftover_gpt(disk));
            Ok(table)
        }
        Front::Filesystem => Ok(no_table(disk, leftover_gpt(disk))),
        front => {
            let missing = TableProblem::ProtectiveMbrMissing;
            Ok(unprotected_gpt(disk, missing).unwrap_or_else(|| without_gpt(disk, &front)))
        }
    }
}

/// A disk whose sector 0 is an empty MBR or nothing, and that has no primary GPT either.
fn without_gpt(disk: Sectors<'_>, front: &Front) -> PartitionTable {
    let other = other_sector_size(disk, |other| gpt::read_primary(other).is_ok());
    let problem = other.or_else(|| leftover_gpt(disk));
    match front {
        Front::Mbr(record) => {
            let mut table = mbr::read(disk, record);
            table.problems.extend(problem);
            table
        }
        _ => no_table(disk, problem),
    }
}

/// A disk whose sector 0 says that it has a GPT.
fn protected_gpt(disk: Sectors<'_>, record: &BootRecord) -> Result<PartitionTable> {
    let copies = gpt::Copies::find(disk, protective_end(record));
    if let Some(mut table) = gpt::describe(&copies, disk) {
        table.areas.extend(mbr::areas(disk));
        table.problems.extend(protective_problems(disk, record));
        return Ok(table);
    }
    let other = other_sector_size(disk, |other| gpt::Copies::find(other, None).best().is_some());
    if let Some(problem) = other {
        return Ok(no_table(disk, Some(problem)));
    }
    let faults = copies.into_faults()?;
    // The entries of a hybrid MBR are the best that is left.
    let mut table = mbr::read(disk, record);
    if table.partitions.is_empty() || !record.has_valid_status_bytes() {
        table = PartitionTable::empty(TableKind::Gpt, disk.size);
        table.areas.extend(mbr::areas(disk));
    }
    table.problems.extend(faults);
    Ok(table)
}

/// A disk whose sector 0 says nothing, or cannot be read, but whose primary GPT is sound.
fn unprotected_gpt(disk: Sectors<'_>, front: TableProblem) -> Option<PartitionTable> {
    gpt::read_primary(disk).ok()?;
    let mut table = gpt::describe(&gpt::Copies::find(disk, None), disk)?;
    table.areas.extend(mbr::areas(disk));
    table.problems.push(front);
    Some(table)
}

fn no_table(disk: Sectors<'_>, problem: Option<TableProblem>) -> PartitionTable {
    let mut table = PartitionTable::empty(TableKind::None, disk.size);
    table.problems.extend(problem);
    table
}

/// Last sector of the protective entry: where the disk ended when the entry was made.
pub(super) fn protective_end(record: &BootRecord) -> Option<u64> {
    let entry = record.protective()?;
    (u64::from(entry.start) + u64::from(entry.sectors)).checked_sub(1)
}

fn protective_problems(disk: Sectors<'_>, record: &BootRecord) -> Vec<TableProblem> {
    let mut problems = Vec::new();
    let expected_sectors =
        disk.last().and_then(|last| u32::try_from(last).ok()).unwrap_or(u32::MAX);
    if let Some(entry) = record.protective() {
        let (start, sectors) = (entry.start, entry.sectors);
        let covers_disk = sectors == expected_sectors || sectors == u32::MAX;
        if start != 1 || !covers_disk {
            problems.push(TableProblem::ProtectiveMbrWrong { start, sectors, expected_sectors });
        }
    }
    let entries = record.used().filter(|(_, entry)| !entry.is_protective()).count();
    if entries > 0 {
        problems.push(TableProblem::HybridMbr { entries });
    }
    problems
}

/// A sound GPT on a disk whose front says that it has none.
fn leftover_gpt(disk: Sectors<'_>) -> Option<TableProblem> {
    let table = gpt::read_primary(disk).ok().or_else(|| gpt::read_backup_at_end(disk))?;
    Some(TableProblem::StaleGpt { lba: table.lba() })
}

/// Another sector size with which `finds` succeeds.
fn other_sector_size<'a>(
    disk: Sectors<'a>,
    finds: impl Fn(Sectors<'a>) -> bool,
) -> Option<TableProblem> {
    SectorSize::BY_LIKELIHOOD
        .into_iter()
        .filter(|&size| size != disk.size)
        .find(|&size| finds(Sectors::new(disk.disk, size)))
        .map(|sector_size| TableProblem::OtherSectorSize { sector_size })
}
