//! The bytes of an MBR, and of the records of its logical partitions, on another disk.

use super::{Draft, Patch, Unfit};
use crate::partition::mbr::{self, BootRecord, RECORD_SIZE};
use crate::partition::table::{DiskId, PartitionTable, TableAreaKind};
use crate::{Error, Extent, ReadAt, Result};

/// Primary partitions have numbers up to this one.
pub(super) const PRIMARIES: u32 = 4;

/// Sectors an MBR can count.
const SECTORS_MAX: u64 = 1 << 32;

/// Sector 0 and all extended boot records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mbr {
    /// First byte on the disk, and the record.
    records: Vec<(u64, [u8; RECORD_SIZE])>,
}

impl Mbr {
    pub(super) fn read(disk: &dyn ReadAt, table: &PartitionTable) -> Result<Self> {
        let chain = table.areas.iter().filter(|area| area.kind == TableAreaKind::Ebr);
        let places = std::iter::once(0).chain(chain.map(|area| area.extent.start));
        let read = |at| {
            let mut record = [0; RECORD_SIZE];
            disk.read_exact_at(&mut record, at).map_err(Error::io("read partition table", at))?;
            Ok((at, record))
        };
        Ok(Self { records: places.map(read).collect::<Result<_>>()? })
    }

    pub(super) fn patches(&self, draft: &Draft) -> std::result::Result<Vec<Patch>, Unfit> {
        let mut patches = Vec::new();
        for (number, &(offset, before)) in self.records.iter().enumerate() {
            let mut record = before;
            if draft.changes_sectors() {
                convert(draft, offset, &mut record)?;
            }
            if number == 0 {
                set_primaries(draft, &mut record)?;
                if let Some(DiskId::Mbr(id)) = draft.disk_id {
                    mbr::put_signature(&mut record, id);
                }
            }
            if record != before {
                patches.push(Patch { offset, bytes: record.to_vec(), is_backup: false });
            }
        }
        Ok(patches)
    }
}

/// Counts all entries of a record in the sectors of the new disk.
fn convert(
    draft: &Draft,
    offset: u64,
    record: &mut [u8; RECORD_SIZE],
) -> std::result::Result<(), Unfit> {
    let Some(parsed) = BootRecord::parse(record) else { return Ok(()) };
    let old = u64::from(draft.before.sector_size.bytes());
    let in_new = |sectors: u32, number| {
        let at = u64::from(sectors) * old;
        if !at.is_multiple_of(draft.unit()) {
            return Err(Unfit::Misaligned { number, at, sector: draft.unit() });
        }
        let end = at / draft.unit();
        u32::try_from(end).map_err(|_| Unfit::TooFar { number, end, max: SECTORS_MAX })
    };
    for (slot, entry) in parsed.used() {
        let number = number_at(draft, offset, slot);
        let (start, sectors) = (in_new(entry.start, number)?, in_new(entry.sectors, number)?);
        mbr::put_range(record, slot, start, sectors);
    }
    Ok(())
}

/// The partition to name when something is wrong with an entry: the first one behind its record.
fn number_at(draft: &Draft, offset: u64, slot: u32) -> u32 {
    if offset == 0 {
        return slot;
    }
    let behind = draft.partitions.iter().filter(|p| p.number > PRIMARIES);
    behind.filter(|p| p.extent.start >= offset).map(|p| p.number).min().unwrap_or(slot)
}

fn set_primaries(draft: &Draft, record: &mut [u8; RECORD_SIZE]) -> std::result::Result<(), Unfit> {
    for (partition, before) in draft.partitions.iter().zip(&draft.before.partitions) {
        let number = partition.number;
        if number > PRIMARIES || partition.extent == before.extent {
            continue;
        }
        let Extent { start, len } = partition.extent;
        let end = partition.extent.end() / draft.unit();
        let too_far = Unfit::TooFar { number, end, max: SECTORS_MAX };
        if end > SECTORS_MAX {
            return Err(too_far);
        }
        let start = u32::try_from(start / draft.unit()).map_err(|_| too_far.clone())?;
        let sectors = u32::try_from(len / draft.unit()).map_err(|_| too_far)?;
        mbr::put_range(record, number, start, sectors);
        mbr::put_end_chs(record, number, end.saturating_sub(1));
    }
    Ok(())
}
