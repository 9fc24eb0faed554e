use super::sectors::Sectors;
use super::table::{DiskId, Partition, PartitionKind, PartitionTable, TableArea, TableAreaKind};
use super::{TableKind, ebr, field};
use crate::Extent;

/// Bytes of an MBR or EBR whatever the sector size; larger sectors are padded.
pub(super) const RECORD_SIZE: usize = 512;

/// Boot code ends where the disk signature begins.
const BOOT_CODE_SIZE: u64 = 440;
const DISK_SIGNATURE_AT: usize = 440;
const ENTRIES_AT: usize = 446;
const ENTRY_SIZE: usize = 16;
const BOOT_SIGNATURE_AT: usize = 510;

/// Type of the protective entry of a GPT disk.
const GPT_PROTECTIVE: u8 = 0xEE;

/// The four entries and the identity in a boot record that ends with 0x55AA. Nothing else is
/// checked: see [`super::front`] for whether it is a partition table at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct BootRecord {
    pub(super) disk_signature: u32,
    pub(super) entries: [Entry; 4],
}

/// One entry of a boot record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) status: u8,
    pub(super) kind: u8,
    /// First sector, relative to something that depends on the record.
    pub(super) start: u32,
    /// Length in sectors.
    pub(super) sectors: u32,
}

impl BootRecord {
    pub(super) fn parse(record: &[u8; RECORD_SIZE]) -> Option<Self> {
        (field(record, BOOT_SIGNATURE_AT) == [0x55, 0xAA]).then(|| Self {
            disk_signature: u32::from_le_bytes(field(record, DISK_SIGNATURE_AT)),
            entries: [0, 1, 2, 3].map(|slot| Entry::parse(record, ENTRIES_AT + slot * ENTRY_SIZE)),
        })
    }

    /// Entries with their slots, without the unused ones.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, Entry)> {
        (1..).zip(self.entries).filter(|(_, entry)| entry.is_used())
    }

    /// Whether every status byte is one of the two allowed ones.
    pub(super) fn has_valid_status_bytes(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.status, 0x00 | 0x80))
    }

    /// The protective entry of a GPT disk.
    pub(super) fn protective(&self) -> Option<Entry> {
        let valid = self.has_valid_status_bytes();
        self.entries.into_iter().find(|e| e.is_protective() && (e.start == 1 || valid))
    }
}

impl Entry {
    fn parse(record: &[u8; RECORD_SIZE], at: usize) -> Self {
        let [status] = field(record, at);
        let [kind] = field(record, at + 4);
        Self {
            status,
            kind,
            start: u32::from_le_bytes(field(record, at + 8)),
            sectors: u32::from_le_bytes(field(record, at + 12)),
        }
    }

    /// An entry with sectors is a partition whatever its type, zero included: so the kernel
    /// numbers them, and bytes somebody set aside are not ours to ignore.
    pub(super) fn is_used(self) -> bool {
        self.sectors != 0
    }

    pub(super) fn is_protective(self) -> bool {
        self.kind == GPT_PROTECTIVE
    }

    pub(super) fn is_extended(self) -> bool {
        PartitionKind::Mbr(self.kind).is_extended()
    }

    pub(super) fn partition(self, number: u32, extent: Extent) -> Partition {
        Partition {
            number,
            extent,
            kind: PartitionKind::Mbr(self.kind),
            unique_id: None,
            name: String::new(),
            attributes: 0,
            bootable: self.status == 0x80,
        }
    }
}

/// Gives the partition in `slot`, counted from 1, another first sector and length. Its addresses
/// in cylinders, heads and sectors stay: see [`put_end_chs`].
pub(super) fn put_range(record: &mut [u8; RECORD_SIZE], slot: u32, start: u32, sectors: u32) {
    let at = entry_at(slot);
    record[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
    record[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
}

/// Makes the last address in cylinders, heads and sectors that of sector `last`, for 255 heads
/// and 63 sectors as all tools have it. What needs more bits takes the largest value.
pub(super) fn put_end_chs(record: &mut [u8; RECORD_SIZE], slot: u32, last: u64) {
    let at = entry_at(slot);
    record[at + 5..at + 8].copy_from_slice(&cylinder_head_sector(last));
}

/// First byte of the entry in `slot`, counted from 1; there are four.
fn entry_at(slot: u32) -> usize {
    ENTRIES_AT + ENTRY_SIZE * usize::try_from(slot.saturating_sub(1).min(3)).unwrap_or(0)
}

/// Makes an empty record the protective one of a GPT, for a disk of any length.
pub(super) fn put_protective(record: &mut [u8; RECORD_SIZE]) {
    let at = entry_at(1);
    record[at + 1..at + 8].copy_from_slice(&[0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF]);
    put_range(record, 1, 1, 1);
    record[RECORD_SIZE - 2..].copy_from_slice(&[0x55, 0xAA]);
}

/// Gives the disk another signature.
pub(super) fn put_signature(record: &mut [u8; RECORD_SIZE], signature: u32) {
    let field = DISK_SIGNATURE_AT..DISK_SIGNATURE_AT + 4;
    record[field].copy_from_slice(&signature.to_le_bytes());
}

fn cylinder_head_sector(lba: u64) -> [u8; 3] {
    let (cylinder, rest) = (lba / (255 * 63), lba % (255 * 63));
    if cylinder > 1023 {
        return [0xFE, 0xFF, 0xFF];
    }
    let (head, sector) = (rest / 63, rest % 63 + 1);
    // Bits 8 and 9 of the cylinder share a byte with the sector.
    [head, sector | cylinder >> 8 << 6, cylinder & 0xFF].map(|v| u8::try_from(v).unwrap_or(0xFF))
}

/// The areas of sector 0.
pub(super) fn areas(sectors: Sectors<'_>) -> [TableArea; 2] {
    let sector = sectors.size.extent(0, 1).end();
    [
        TableArea { extent: Extent::between(0, BOOT_CODE_SIZE), kind: TableAreaKind::BootCode },
        TableArea { extent: Extent::between(BOOT_CODE_SIZE, sector), kind: TableAreaKind::Mbr },
    ]
}

/// Reads the table that `record` in sector 0 begins, with its chains of logical partitions.
/// Protective entries, left over in a hybrid MBR whose GPT is gone, are no partitions.
pub(super) fn read(sectors: Sectors<'_>, record: &BootRecord) -> PartitionTable {
    let mut table = PartitionTable::empty(TableKind::Mbr, sectors.size);
    let signature = record.disk_signature;
    table.disk_id = (signature != 0).then_some(DiskId::Mbr(signature));
    table.areas.extend(areas(sectors));

    let primaries = record.used().filter(|(_, entry)| !entry.is_protective());
    let mut chains = ebr::Chains::new(sectors);
    for (number, entry) in primaries {
        let (start, count) = (u64::from(entry.start), u64::from(entry.sectors));
        table.partitions.push(entry.partition(number, sectors.size.extent(start, count)));
        if entry.is_extended() {
            chains.follow(start, count);
        }
    }
    chains.finish(&mut table);
    table
}
