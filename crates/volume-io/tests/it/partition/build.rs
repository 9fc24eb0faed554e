//! Builds tables byte by byte from the specification, sharing no code with the parser.

use aiv_volume_io::partition::Guid;

/// A Linux filesystem partition.
pub(super) const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
/// An EFI system partition.
pub(super) const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
pub(super) const DISK_GUID: &str = "6e3a1d43-2b57-4f8e-9c64-51f0a7d8b912";

pub(super) fn guid(text: &str) -> Guid {
    text.parse().expect("a GUID")
}

#[derive(Debug, Clone)]
pub(super) struct GptEntry {
    /// Position in the array, from 0.
    pub(super) index: usize,
    pub(super) kind: Guid,
    pub(super) id: Guid,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) attributes: u64,
    pub(super) name: String,
}

impl GptEntry {
    pub(super) fn new(index: usize, first: u64, last: u64) -> Self {
        let mut id = [0xA5; 16];
        id[0] = u8::try_from(index % 256).unwrap();
        Self {
            index,
            kind: guid(LINUX),
            id: Guid::from_bytes(id),
            first,
            last,
            attributes: 0,
            name: format!("part {index}"),
        }
    }
}

/// A disk with a GPT.
#[derive(Debug, Clone)]
pub(super) struct Gpt {
    pub(super) sector_size: u32,
    pub(super) sectors: u64,
    pub(super) entry_count: u32,
    pub(super) entry_size: u32,
    pub(super) entries: Vec<GptEntry>,
}

impl Gpt {
    /// 128 sectors, eight entries, three partitions.
    pub(super) fn small(sector_size: u32) -> Self {
        Self {
            sector_size,
            sectors: 128,
            entry_count: 8,
            entry_size: 128,
            entries: vec![
                GptEntry { kind: guid(ESP), ..GptEntry::new(0, 10, 19) },
                GptEntry { attributes: 4, ..GptEntry::new(1, 20, 59) },
                GptEntry { name: "größer".to_owned(), ..GptEntry::new(5, 70, 99) },
            ],
        }
    }

    pub(super) fn entry_sectors(&self) -> u64 {
        let bytes = u64::from(self.entry_count) * u64::from(self.entry_size);
        bytes.div_ceil(u64::from(self.sector_size))
    }

    pub(super) fn first_usable(&self) -> u64 {
        2 + self.entry_sectors()
    }

    pub(super) fn last_usable(&self) -> u64 {
        self.sectors - 2 - self.entry_sectors()
    }

    /// The disk, with zeros where there is no table.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut disk = vec![0; index(self.sectors * u64::from(self.sector_size))];
        let sectors = u32::try_from(self.sectors - 1).unwrap();
        put_entry(&mut disk, 0, 0x00, 0xEE, 1, sectors);
        put(&mut disk, 510, &[0x55, 0xAA]);
        let last = self.sectors - 1;
        self.put_copy(&mut disk, 1, last, 2);
        self.put_copy(&mut disk, last, 1, last - self.entry_sectors());
        disk
    }

    /// Writes one copy whose header is in sector `lba` and whose entries begin at
    /// `entries_lba`.
    pub(super) fn put_copy(&self, disk: &mut [u8], lba: u64, alternate: u64, entries_lba: u64) {
        let array = self.entry_array();
        let size = u64::from(self.sector_size);
        put(disk, entries_lba * size, &array);
        let at = lba * size;
        put(disk, at, b"EFI PART");
        put(disk, at + 8, &0x0001_0000u32.to_le_bytes());
        put(disk, at + 12, &92u32.to_le_bytes());
        put(disk, at + 24, &lba.to_le_bytes());
        put(disk, at + 32, &alternate.to_le_bytes());
        put(disk, at + 40, &self.first_usable().to_le_bytes());
        put(disk, at + 48, &self.last_usable().to_le_bytes());
        put(disk, at + 56, &guid(DISK_GUID).to_bytes());
        put(disk, at + 72, &entries_lba.to_le_bytes());
        put(disk, at + 80, &self.entry_count.to_le_bytes());
        put(disk, at + 84, &self.entry_size.to_le_bytes());
        put(disk, at + 88, &crc32(&array).to_le_bytes());
        seal_header(disk, at);
    }

    fn entry_array(&self) -> Vec<u8> {
        let entry_size = usize::try_from(self.entry_size).unwrap();
        let mut array = vec![0; usize::try_from(self.entry_count).unwrap() * entry_size];
        for entry in &self.entries {
            let at = u64::try_from(entry.index * entry_size).unwrap();
            put(&mut array, at, &entry.kind.to_bytes());
            put(&mut array, at + 16, &entry.id.to_bytes());
            put(&mut array, at + 32, &entry.first.to_le_bytes());
            put(&mut array, at + 40, &entry.last.to_le_bytes());
            put(&mut array, at + 48, &entry.attributes.to_le_bytes());
            for (unit, place) in entry.name.encode_utf16().take(36).zip(0..) {
                put(&mut array, at + 56 + place * 2, &unit.to_le_bytes());
            }
        }
        array
    }
}

/// Makes the checksum of the header at byte `at` match its first 92 bytes.
pub(super) fn seal_header(disk: &mut [u8], at: u64) {
    put(disk, at + 16, &[0; 4]);
    let sum = crc32(&disk[index(at)..index(at + 92)]);
    put(disk, at + 16, &sum.to_le_bytes());
}

/// Writes an entry of the boot record at the start of `record`.
pub(super) fn put_entry(
    record: &mut [u8],
    slot: u64,
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
) {
    let at = 446 + slot * 16;
    put(record, at, &[status, 0, 0, 0, kind, 0, 0, 0]);
    put(record, at + 8, &start.to_le_bytes());
    put(record, at + 12, &sectors.to_le_bytes());
}

/// An MBR disk: `entries` are (status, type, start, sectors) in slots from 1 on.
pub(super) fn mbr(sector_size: u32, sectors: u64, entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; index(sectors * u64::from(sector_size))];
    put(&mut disk, 440, &0x1234_ABCDu32.to_le_bytes());
    put(&mut disk, 510, &[0x55, 0xAA]);
    for (&(status, kind, start, count), slot) in entries.iter().zip(0..) {
        put_entry(&mut disk, slot, status, kind, start, count);
    }
    disk
}

/// Writes an extended boot record into sector `lba`: the logical partition relative to the
/// record, the link relative to the extended partition; lengths of zero leave them out.
pub(super) fn put_ebr(
    disk: &mut [u8],
    sector_size: u32,
    lba: u64,
    logical: (u32, u32),
    link: (u32, u32),
) {
    let record = &mut disk[index(lba * u64::from(sector_size))..];
    put(record, 510, &[0x55, 0xAA]);
    if logical.1 > 0 {
        put_entry(record, 0, 0, 0x83, logical.0, logical.1);
    }
    if link.1 > 0 {
        put_entry(record, 1, 0, 0x05, link.0, link.1);
    }
}

pub(super) fn put(bytes: &mut [u8], at: u64, value: &[u8]) {
    bytes[index(at)..index(at) + value.len()].copy_from_slice(value);
}

pub(super) fn index(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

/// CRC-32 bit by bit.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    !crc
}
