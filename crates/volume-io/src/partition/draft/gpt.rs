//! The bytes of a GPT on another disk.

use super::{Draft, Patch, Unfit};
use crate::partition::crc32::crc32;
use crate::partition::gpt::Copies;
use crate::partition::mbr::{BootRecord, RECORD_SIZE};
use crate::partition::read::protective_end;
use crate::partition::sectors::Sectors;
use crate::partition::table::{DiskId, TableAreaKind};
use crate::partition::{SectorSize, mbr};
use crate::{Error, Extent, ExtentSet, ReadAt, Result};

/// First sector behind MBR and primary header.
const ENTRIES_LBA: u64 = 2;

/// Bytes at the front of any disk that a table with sectors of any size may need.
const FRONT_LEN: u64 = 2 * 4096;

/// A GPT whose primary copy is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpt {
    boot: [u8; RECORD_SIZE],
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_size: usize,
    entries_lba: u64,
    first_usable_lba: u64,
    /// The bytes in front of all partitions, as far as a table may need them.
    front: Vec<u8>,
}

/// Where the parts of a GPT go, in sectors.
pub(super) struct Places {
    size: SectorSize,
    entries: u64,
    entry_sectors: u64,
    first_usable: u64,
    last_usable: u64,
    backup_entries: u64,
    backup: u64,
}

impl Places {
    pub(super) fn on(draft: &Draft, gpt: &Gpt) -> std::result::Result<Self, Unfit> {
        let size = draft.sector_size;
        let len = draft.disk_len;
        let too_small = Unfit::TooSmall { len };
        let entry_sectors = gpt.entry_sectors(size);
        let backup = (len / draft.unit()).checked_sub(1).ok_or(too_small.clone())?;
        let backup_entries = backup.checked_sub(entry_sectors).ok_or(too_small.clone())?;
        let last_usable = backup_entries.checked_sub(1).ok_or(too_small.clone())?;
        let (entries, first_usable) = if draft.changes_sectors() {
            let first_byte = draft.before.sector_size.extent(gpt.first_usable_lba, 0).start;
            let first = (ENTRIES_LBA + entry_sectors).max(first_byte.div_ceil(draft.unit()));
            (ENTRIES_LBA, first)
        } else {
            (gpt.entries_lba, gpt.first_usable_lba)
        };
        let front = (entries + entry_sectors).max(first_usable);
        if front > last_usable.saturating_add(1) {
            return Err(too_small);
        }
        Ok(Self { size, entries, entry_sectors, first_usable, last_usable, backup_entries, backup })
    }

    pub(super) fn usable(&self) -> Extent {
        Extent::between(
            self.size.extent(self.first_usable, 0).start,
            self.size.extent(self.last_usable, 1).end(),
        )
    }
}

impl Gpt {
    /// A table for a disk that had none of this kind.
    pub(super) fn new(
        boot: [u8; RECORD_SIZE],
        header: Vec<u8>,
        entries: Vec<u8>,
        entry_size: usize,
        size: SectorSize,
    ) -> Self {
        let entry_sectors = (entries.len() as u64).div_ceil(size.bytes().into());
        let first_usable_lba = ENTRIES_LBA + entry_sectors;
        let (entries_lba, front) = (ENTRIES_LBA, Vec::new());
        Self { boot, header, entries, entry_size, entries_lba, first_usable_lba, front }
    }

    /// `None` when the disk has no protective MBR or no sound primary copy.
    pub(super) fn read(disk: &dyn ReadAt, size: SectorSize) -> Result<Option<Self>> {
        let sectors = Sectors::new(disk, size);
        let mut boot = [0; RECORD_SIZE];
        disk.read_exact_at(&mut boot, 0).map_err(Error::io("read partition table", 0))?;
        let Some(record) = BootRecord::parse(&boot) else { return Ok(None) };
        let copies = Copies::find(sectors, protective_end(&record));
        let Some(table) = copies.into_primary() else { return Ok(None) };
        let (header, entries) = table.into_parts();
        let (Ok(entry_size), len) = (usize::try_from(header.entry_size), header.entries_len())
        else {
            return Ok(None);
        };
        let front_len = disk.len().min(FRONT_LEN + len);
        let mut front = vec![0; usize::try_from(front_len).unwrap_or(0)];
        disk.read_exact_at(&mut front, 0).map_err(Error::io("read partition table", 0))?;
        Ok(Some(Self {
            boot,
            entries,
            entry_size,
            entries_lba: header.entries_lba,
            first_usable_lba: header.first_usable_lba,
            header: header.raw,
            front,
        }))
    }

    fn entry_sectors(&self, size: SectorSize) -> u64 {
        (self.entries.len() as u64).div_ceil(size.bytes().into())
    }

    /// Bytes of the backup copy.
    pub(super) fn backup_len(&self, size: SectorSize) -> u64 {
        size.extent(0, self.entry_sectors(size) + 1).len
    }

    pub(super) fn patches(&self, draft: &Draft) -> std::result::Result<Vec<Patch>, Unfit> {
        let places = Places::on(draft, self)?;
        let entries = self.entries_for(draft);
        let header = |lba, alternate, entries_lba| {
            let places = [(24, lba), (32, alternate), (72, entries_lba)];
            self.header_for(draft, &entries, places)
        };
        let in_sectors = |lba: u64, count: u64, bytes: &[u8], is_backup| {
            let extent = draft.sector_size.extent(lba, count);
            let mut padded = bytes.to_vec();
            padded.resize(usize::try_from(extent.len).unwrap_or(0), 0);
            Patch { offset: extent.start, bytes: padded, is_backup }
        };
        let (p, n) = (&places, places.entry_sectors);
        let numbered = |h: Vec<u8>| sealed(&h, p.first_usable, p.last_usable);
        let primary = numbered(header(1, p.backup, p.entries));
        let backup = numbered(header(p.backup, 1, p.backup_entries));
        let mut patches = vec![
            Patch { offset: 0, bytes: self.boot_for(draft)?.to_vec(), is_backup: false },
            in_sectors(1, 1, &primary, false),
            in_sectors(p.entries, n, &entries, false),
            in_sectors(p.backup_entries, n, &entries, true),
            in_sectors(p.backup, 1, &backup, true),
        ];
        let new: ExtentSet = patches.iter().map(Patch::extent).collect();
        self.check_gaps(draft, &new)?;
        patches.extend(leftovers(draft, &new));
        Ok(patches)
    }

    fn entries_for(&self, draft: &Draft) -> Vec<u8> {
        let mut entries = self.entries.clone();
        for partition in &draft.partitions {
            let index = usize::try_from(partition.number).unwrap_or(usize::MAX).saturating_sub(1);
            let Some(entry) = entries.chunks_exact_mut(self.entry_size).nth(index) else {
                continue;
            };
            let (first, end) = (partition.extent.start, partition.extent.end());
            put(entry, 32, &(first / draft.unit()).to_le_bytes());
            put(entry, 40, &(end / draft.unit()).saturating_sub(1).to_le_bytes());
            if let Some(id) = partition.unique_id {
                put(entry, 16, &id.to_bytes());
            }
        }
        entries
    }

    /// A header without the numbers of its usable sectors and without a checksum.
    fn header_for(&self, draft: &Draft, entries: &[u8], places: [(usize, u64); 3]) -> Vec<u8> {
        let mut header = self.header.clone();
        for (at, lba) in places {
            put(&mut header, at, &lba.to_le_bytes());
        }
        if let Some(DiskId::Gpt(id)) = draft.disk_id {
            put(&mut header, 56, &id.to_bytes());
        }
        put(&mut header, 88, &crc32(entries).to_le_bytes());
        header
    }

    /// Sector 0, whose protective entry covers the disk.
    fn boot_for(&self, draft: &Draft) -> std::result::Result<[u8; RECORD_SIZE], Unfit> {
        let mut boot = self.boot;
        let Some(record) = BootRecord::parse(&boot) else { return Ok(boot) };
        if record.used().any(|(_, entry)| !entry.is_protective()) {
            // Its entries are other people's business, and may cover less than the disk.
            return if draft.changes_sectors() { Err(Unfit::Hybrid) } else { Ok(boot) };
        }
        let last = (draft.disk_len / draft.unit()).saturating_sub(1);
        for (slot, entry) in record.used() {
            // Windows always says "to the end of everything", which is as right.
            if entry.start == 1 && entry.sectors != u32::MAX {
                let sectors = u32::try_from(last).unwrap_or(u32::MAX);
                mbr::put_range(&mut boot, slot, 1, sectors);
            }
        }
        Ok(boot)
    }

    /// Refuses to overwrite what somebody keeps between the table and the first partition.
    fn check_gaps(&self, draft: &Draft, new: &ExtentSet) -> std::result::Result<(), Unfit> {
        if !draft.changes_sectors() {
            return Ok(());
        }
        let sector0 = [Extent::new(0, draft.before.sector_size.bytes().into())];
        let known: ExtentSet = old_places(draft).chain(sector0).collect();
        for run in new.within(Extent::new(0, self.front.len() as u64)) {
            for gap in known.gaps_within(run) {
                let bytes = (usize::try_from(gap.start), usize::try_from(gap.end()));
                let (Ok(start), Ok(end)) = bytes else { continue };
                let bytes = self.front.get(start..end);
                if bytes.is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                    return Err(Unfit::GapInUse(gap));
                }
            }
        }
        Ok(())
    }
}

/// Where the disk the table came from has it.
fn old_places(draft: &Draft) -> impl Iterator<Item = Extent> {
    let is_gpt = |kind| {
        matches!(
            kind,
            TableAreaKind::GptHeader
                | TableAreaKind::GptEntries
                | TableAreaKind::GptBackupHeader
                | TableAreaKind::GptBackupEntries
        )
    };
    draft.before.areas.iter().filter(move |area| is_gpt(area.kind)).map(|area| area.extent)
}

/// Zeros for the old places of the table, as far as the disk has them and the table does not.
fn leftovers(draft: &Draft, new: &ExtentSet) -> Vec<Patch> {
    let disk = Extent::new(0, draft.disk_len);
    let old = old_places(draft).filter_map(|extent| extent.intersect(disk));
    let zeros = |gap: Extent| Patch {
        offset: gap.start,
        bytes: vec![0; usize::try_from(gap.len).unwrap_or(0)],
        is_backup: false,
    };
    // Two damaged copies may claim the same bytes.
    let old: ExtentSet = old.collect();
    old.runs().iter().flat_map(|run| new.gaps_within(*run)).map(zeros).collect()
}

/// The header with its usable sectors and its checksum.
fn sealed(header: &[u8], first_usable: u64, last_usable: u64) -> Vec<u8> {
    let mut header = header.to_vec();
    put(&mut header, 40, &first_usable.to_le_bytes());
    put(&mut header, 48, &last_usable.to_le_bytes());
    put(&mut header, 16, &[0; 4]);
    let sum = crc32(&header);
    put(&mut header, 16, &sum.to_le_bytes());
    header
}

/// Writes a field of a record whose length was checked when it was read.
fn put(record: &mut [u8], at: usize, field: &[u8]) {
    record[at..at + field.len()].copy_from_slice(field);
}
