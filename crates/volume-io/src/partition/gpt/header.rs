use crate::partition::crc32::crc32;
use crate::partition::sectors::Sectors;
use crate::partition::{GPT_ENTRY_ARRAY_MAX, GptFault, Guid, field};

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Smallest HeaderSize, and the part all versions share.
const HEADER_SIZE_MIN: usize = 92;
const HEADER_CRC_AT: usize = 16;
const ALTERNATE_LBA_AT: usize = 32;
/// Smallest SizeOfPartitionEntry; all others are this times a power of two.
const ENTRY_SIZE_MIN: u32 = 128;

/// A GPT header that passed every check that needs no other sector.
#[derive(Debug, Clone)]
pub(in crate::partition) struct Header {
    /// Its bytes, as many as it says it has.
    pub(in crate::partition) raw: Vec<u8>,
    pub(super) my_lba: u64,
    pub(super) alternate_lba: u64,
    pub(in crate::partition) first_usable_lba: u64,
    pub(super) last_usable_lba: u64,
    pub(super) disk_guid: Guid,
    pub(in crate::partition) entries_lba: u64,
    pub(super) entry_count: u32,
    pub(in crate::partition) entry_size: u32,
    pub(super) entries_crc32: u32,
}

impl Header {
    /// Reads the header in `sector`, the sector number `lba` of the disk.
    pub(super) fn parse(sector: &[u8], lba: u64, disk: Sectors<'_>) -> Result<Self, GptFault> {
        if field(sector, 0) != SIGNATURE {
            return Err(GptFault::NoSignature);
        }
        let found = u32::from_le_bytes(field(sector, 12));
        let header = usize::try_from(found)
            .ok()
            .filter(|&size| size >= HEADER_SIZE_MIN)
            .and_then(|size| sector.get(..size))
            .ok_or(GptFault::HeaderSize { found, max: disk.size.bytes() })?;
        check_header_crc(header)?;

        let parsed = Self {
            raw: header.to_vec(),
            my_lba: u64::from_le_bytes(field(header, 24)),
            alternate_lba: alternate_lba(header),
            first_usable_lba: u64::from_le_bytes(field(header, 40)),
            last_usable_lba: u64::from_le_bytes(field(header, 48)),
            disk_guid: Guid::from_bytes(field(header, 56)),
            entries_lba: u64::from_le_bytes(field(header, 72)),
            entry_count: u32::from_le_bytes(field(header, 80)),
            entry_size: u32::from_le_bytes(field(header, 84)),
            entries_crc32: u32::from_le_bytes(field(header, 88)),
        };
        parsed.check(lba, disk)?;
        Ok(parsed)
    }

    fn check(&self, lba: u64, disk: Sectors<'_>) -> Result<(), GptFault> {
        if self.my_lba != lba {
            return Err(GptFault::MyLba { found: self.my_lba });
        }
        let (first, last) = (self.first_usable_lba, self.last_usable_lba);
        // A table of a disk too small for partitions has the last sector just before the first.
        if first > last.saturating_add(1) {
            return Err(GptFault::UsableRange { first, last });
        }
        let size = self.entry_size;
        if size < ENTRY_SIZE_MIN || !size.is_power_of_two() {
            return Err(GptFault::EntrySize { found: size });
        }
        let found = self.entries_len();
        if found > GPT_ENTRY_ARRAY_MAX {
            return Err(GptFault::EntryArrayTooLarge { found });
        }
        let (start, sectors) = (self.entries_lba, disk.covering(found));
        let end = start.checked_add(sectors);
        let covers_header = end.is_some_and(|end| (start..end).contains(&lba));
        // Sectors 0 and 1 are the MBR and the primary header.
        if start < 2 || covers_header || end.is_none_or(|end| end > disk.count) {
            return Err(GptFault::EntryArrayPlace { lba: start, sectors });
        }
        Ok(())
    }

    /// Length of the entry array in bytes: below 2^64, as both factors are below 2^32.
    pub(in crate::partition) fn entries_len(&self) -> u64 {
        u64::from(self.entry_count) * u64::from(self.entry_size)
    }

    /// Name of the first field in which the backup contradicts this primary header.
    pub(super) fn disagreement(&self, backup: &Self) -> Option<&'static str> {
        [
            ("DiskGUID", self.disk_guid == backup.disk_guid),
            ("FirstUsableLBA", self.first_usable_lba == backup.first_usable_lba),
            ("LastUsableLBA", self.last_usable_lba == backup.last_usable_lba),
            ("NumberOfPartitionEntries", self.entry_count == backup.entry_count),
            ("SizeOfPartitionEntry", self.entry_size == backup.entry_size),
            ("PartitionEntryArrayCRC32", self.entries_crc32 == backup.entries_crc32),
            ("AlternateLBA", backup.alternate_lba == self.my_lba),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }
}

fn check_header_crc(header: &[u8]) -> Result<(), GptFault> {
    let found = u32::from_le_bytes(field(header, HEADER_CRC_AT));
    let mut zeroed = header.to_vec();
    zeroed[HEADER_CRC_AT..HEADER_CRC_AT + 4].fill(0);
    let computed = crc32(&zeroed);
    if computed == found { Ok(()) } else { Err(GptFault::HeaderChecksum { found, computed }) }
}

/// Where a header that need not be sound says the other copy is: a hint worth following,
/// because the copy found there proves itself.
pub(super) fn alternate_hint(sector: &[u8]) -> Option<u64> {
    (field(sector, 0) == SIGNATURE).then(|| alternate_lba(sector))
}

fn alternate_lba(header: &[u8]) -> u64 {
    u64::from_le_bytes(field(header, ALTERNATE_LBA_AT))
}
