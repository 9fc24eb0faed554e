//! GUID partition table (UEFI specification 2.10, chapter 5).

use super::{Canvas, DiskLayout, Table, TinyDisk, mbr};
use crate::random::Random;

const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const HEADER_SIZE: u32 = 92;

/// "Linux filesystem data" 0FC63DAF-8483-4772-8E79-3D69D8477DE4 in on-disk byte order.
const LINUX_DATA: [u8; 16] = [
    0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4,
];

pub(super) fn build(layout: &DiskLayout) -> TinyDisk {
    assert!(layout.parts.len() <= ENTRIES as usize, "a GPT has {ENTRIES} entries");
    let mut random = Random::new(&[layout.seed, 3]);
    let disk_guid = guid(&mut random);
    let mut disk = Canvas::new(layout);
    let entry_sectors = disk.sectors(u64::from(ENTRIES * ENTRY_SIZE));
    let first_usable = 2 + entry_sectors;
    disk.end = first_usable;

    let mut entries = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    let mut parts = Vec::new();
    for (entry, (part, number)) in
        entries.chunks_exact_mut(ENTRY_SIZE as usize).zip(layout.parts.iter().zip(1..))
    {
        let first = disk.end + part.gap;
        let mut placed = disk.place(part, first, number);
        placed.guid = guid(&mut random);
        placed.logical = false;
        entry[..16].copy_from_slice(&LINUX_DATA);
        entry[16..32].copy_from_slice(&placed.guid);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(disk.end - 1).to_le_bytes());
        for (unit, place) in format!("part {number}").encode_utf16().zip(entry[56..].chunks_mut(2))
        {
            place.copy_from_slice(&unit.to_le_bytes());
        }
        parts.push(placed);
    }
    let last_usable = disk.end + layout.tail.max(1) - 1;
    let backup_entries = last_usable + 1;
    let backup_header = backup_entries + entry_sectors;

    let header = |own: u64, other: u64, entries_at: u64| {
        let mut header = vec![0; HEADER_SIZE as usize];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&HEADER_SIZE.to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&first_usable.to_le_bytes());
        header[48..56].copy_from_slice(&last_usable.to_le_bytes());
        header[56..72].copy_from_slice(&disk_guid);
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&ENTRIES.to_le_bytes());
        header[84..88].copy_from_slice(&ENTRY_SIZE.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    };
    disk.write(0, &mbr::protective(backup_header));
    disk.write(1, &header(1, backup_header, 2));
    disk.write(2, &entries);
    disk.write(backup_entries, &entries);
    disk.write(backup_header, &header(backup_header, 1, backup_entries));
    TinyDisk { disk_guid, table: Table::Gpt, ..disk.finish(parts) }
}

/// A random GUID (RFC 9562, version 4) in on-disk byte order.
fn guid(random: &mut Random) -> [u8; 16] {
    let mut guid = [0; 16];
    random.fill(&mut guid);
    guid[7] = guid[7] & 0x0F | 0x40;
    guid[8] = guid[8] & 0x3F | 0x80;
    guid
}

/// CRC-32 as in IEEE 802.3, which UEFI uses; slow and short, as the tables are small.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
    }
}
