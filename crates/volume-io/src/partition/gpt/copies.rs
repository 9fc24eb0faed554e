use std::{io, result};

use super::header::{self, Header};
use crate::partition::crc32::crc32;
use crate::partition::sectors::Sectors;
use crate::partition::{GptCopy, GptFault, TableProblem};
use crate::{Error, Result};

/// Sector of the primary header.
pub(super) const PRIMARY_LBA: u64 = 1;

/// One sound copy of a GPT: header and entry array.
#[derive(Debug)]
pub(in crate::partition) struct Table {
    pub(super) header: Header,
    entries: Vec<u8>,
}

impl Table {
    /// Sector of the header.
    pub(in crate::partition) fn lba(&self) -> u64 {
        self.header.my_lba
    }

    /// The header, and the entry array as it is on the disk.
    pub(in crate::partition) fn into_parts(self) -> (Header, Vec<u8>) {
        (self.header, self.entries)
    }

    /// The entries, used or not, each at least 128 bytes.
    pub(super) fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let size = usize::try_from(self.header.entry_size).expect("no larger than the array");
        self.entries.chunks_exact(size)
    }
}

/// A copy that cannot be used.
#[derive(Debug)]
pub(in crate::partition) struct Unusable {
    /// Sector where its header is or must have been.
    pub(super) lba: u64,
    fault: GptFault,
    /// The failure of the medium behind the fault, and its byte.
    io: Option<(u64, io::Error)>,
}

/// Both copies of the GPT of a disk.
#[derive(Debug)]
pub(in crate::partition) struct Copies {
    pub(super) primary: result::Result<Table, Unusable>,
    pub(super) backup: result::Result<Table, Unusable>,
}

impl Copies {
    /// Looks for both copies. The backup is looked for where the primary header says it is,
    /// in the last sector, and at `protective_end`, the last sector the protective MBR entry
    /// covers: where the disk ended before it grew.
    pub(in crate::partition) fn find(disk: Sectors<'_>, protective_end: Option<u64>) -> Self {
        let primary = read_primary(disk);
        let (named, hint) = match &primary {
            Ok(table) => (Some(table.header.alternate_lba), None),
            // What a damaged header says is tried last; a copy found there proves itself.
            Err(_) => (None, alternate_hint(disk)),
        };
        let places = [named, disk.last(), protective_end, hint];
        Self { primary, backup: read_backup(disk, places.into_iter().flatten()) }
    }

    /// The copy to use, the primary before the backup.
    pub(in crate::partition) fn best(&self) -> Option<&Table> {
        self.primary.as_ref().or(self.backup.as_ref()).ok()
    }

    /// The primary copy, when it is sound.
    pub(in crate::partition) fn into_primary(self) -> Option<Table> {
        self.primary.ok()
    }

    /// What is wrong with the copies that cannot be used.
    pub(super) fn faults(&self) -> Vec<TableProblem> {
        let fault = |copy, unusable: &Unusable| TableProblem::GptCopyDamaged {
            copy,
            lba: unusable.lba,
            fault: unusable.fault.clone(),
        };
        let primary = self.primary.as_ref().err().map(|u| fault(GptCopy::Primary, u));
        let backup = self.backup.as_ref().err().map(|u| fault(GptCopy::Backup, u));
        primary.into_iter().chain(backup).collect()
    }

    /// What is wrong with both copies, when none can be used.
    ///
    /// # Errors
    /// [`Error::Io`] when the medium failed at one of them: trying again may find a table.
    pub(in crate::partition) fn into_faults(self) -> Result<Vec<TableProblem>> {
        let faults = self.faults();
        for unusable in [self.primary.err(), self.backup.err()].into_iter().flatten() {
            if let Some((offset, source)) = unusable.io {
                return Err(Error::io("read GPT", offset)(source));
            }
        }
        Ok(faults)
    }
}

/// Reads the primary copy.
pub(in crate::partition) fn read_primary(disk: Sectors<'_>) -> result::Result<Table, Unusable> {
    read_copy(disk, PRIMARY_LBA)
}

/// Reads the backup copy in the last sector, if there is a sound one.
pub(in crate::partition) fn read_backup_at_end(disk: Sectors<'_>) -> Option<Table> {
    read_backup(disk, disk.last()).ok()
}

/// The first sound copy of `places`, else what is wrong at the first of them.
fn read_backup(
    disk: Sectors<'_>,
    places: impl IntoIterator<Item = u64>,
) -> result::Result<Table, Unusable> {
    let mut first_fault = None;
    // Sectors 0 and 1 never hold a backup: from there the primary would answer again.
    let mut asked = vec![0, PRIMARY_LBA];
    for lba in places {
        if asked.contains(&lba) {
            continue;
        }
        asked.push(lba);
        match read_copy(disk, lba) {
            Ok(table) => return Ok(table),
            Err(unusable) => _ = first_fault.get_or_insert(unusable),
        }
    }
    Err(first_fault.unwrap_or(Unusable {
        lba: disk.count,
        fault: GptFault::OutsideDisk { sectors: disk.count },
        io: None,
    }))
}

fn read_copy(disk: Sectors<'_>, lba: u64) -> result::Result<Table, Unusable> {
    let wrong = |fault| Unusable { lba, fault, io: None };
    let unreadable = |at: u64, source: io::Error| Unusable {
        lba,
        fault: GptFault::Unreadable(source.kind()),
        io: Some((disk.size.extent(at, 1).start, source)),
    };
    if lba >= disk.count {
        return Err(wrong(GptFault::OutsideDisk { sectors: disk.count }));
    }
    let sector = disk.read(lba, disk.size.len()).map_err(|e| unreadable(lba, e))?;
    let header = Header::parse(&sector, lba, disk).map_err(wrong)?;

    let len = usize::try_from(header.entries_len()).expect("at most GPT_ENTRY_ARRAY_MAX");
    let at = header.entries_lba;
    let entries = disk.read(at, len).map_err(|e| unreadable(at, e))?;
    let computed = crc32(&entries);
    let found = header.entries_crc32;
    if computed != found {
        return Err(wrong(GptFault::EntryArrayChecksum { found, computed }));
    }
    Ok(Table { header, entries })
}

/// Where the primary header, sound or not, says the backup is.
fn alternate_hint(disk: Sectors<'_>) -> Option<u64> {
    let sector = disk.read(PRIMARY_LBA, disk.size.len()).ok()?;
    header::alternate_hint(&sector)
}
