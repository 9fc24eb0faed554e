//! What sector 0 is: the start of a GPT disk, of an MBR disk, of a filesystem, or of nothing.
//!
//! 0x55AA alone proves little: the boot sectors of FAT, exFAT and NTFS end with it too. Taking
//! one of them for a table would cut a filesystem into pieces that do not exist.

use super::field;
use super::mbr::{BootRecord, RECORD_SIZE};

/// What sector 0 is.
pub(super) enum Front {
    /// An MBR with a protective entry: the disk belongs to a GPT.
    Protective(BootRecord),
    /// An MBR without one. May be empty of partitions.
    Mbr(BootRecord),
    /// The boot sector of a filesystem on the whole disk.
    Filesystem,
    /// Nothing that says anything about partitions.
    Unknown,
}

/// Judges the first 512 bytes of a disk of `sectors` sectors.
pub(super) fn judge(bytes: &[u8; RECORD_SIZE], sectors: u64) -> Front {
    let Some(record) = BootRecord::parse(bytes) else { return Front::Unknown };
    if record.protective().is_some() {
        return Front::Protective(record);
    }
    let filesystem = stated_sector_size(bytes).is_some();
    let is_table = record.has_valid_status_bytes()
        && if filesystem {
            // Partitioning tools keep the first 440 bytes, and with them the parameters of a
            // filesystem that once was here: entries without any fault are then believed.
            // mkfs.fat, on the other hand, adds an entry for the whole disk from sector 0.
            record.used().next().is_some() && entries_are_faultless(&record, sectors)
        } else {
            // An empty table has a disk signature. Without one this is the boot sector of a
            // filesystem that keeps none of its own data there, such as ext4 with GRUB.
            let mut used = record.used().peekable();
            match used.peek() {
                None => record.disk_signature != 0,
                Some(_) => used.any(|(_, entry)| u64::from(entry.start) < sectors),
            }
        };
    match (is_table, filesystem) {
        (true, _) => Front::Mbr(record),
        (false, true) => Front::Filesystem,
        (false, false) => Front::Unknown,
    }
}

fn entries_are_faultless(record: &BootRecord, sectors: u64) -> bool {
    let mut ranges: Vec<(u64, u64)> = record
        .used()
        .map(|(_, e)| (u64::from(e.start), u64::from(e.start) + u64::from(e.sectors)))
        .collect();
    ranges.sort_unstable();
    ranges.iter().all(|&(start, end)| start > 0 && end <= sectors)
        && ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0)
}

/// The sector size a boot sector of FAT, exFAT, NTFS or BitLocker states for its volume;
/// `None` when `bytes` are no such boot sector. FAT is known by its parameter block, because
/// its OEM name is free text.
pub(super) fn stated_sector_size(bytes: &[u8; RECORD_SIZE]) -> Option<u32> {
    let jump: [u8; 3] = field(bytes, 0);
    if field(bytes, 510) != [0x55, 0xAA] || !matches!(jump, [0xEB, _, 0x90] | [0xE9, _, _]) {
        return None;
    }
    let name: [u8; 8] = field(bytes, 3);
    if &name == b"EXFAT   " {
        let [shift] = field(bytes, 108);
        return matches!(shift, 9..=12).then(|| 1 << shift);
    }
    let bytes_per_sector = u32::from(u16::from_le_bytes(field(bytes, 11)));
    let [sectors_per_cluster] = field(bytes, 13);
    let reserved_sectors = u16::from_le_bytes(field(bytes, 14));
    let [fat_copies] = field(bytes, 16);
    let [media] = field(bytes, 21);

    let is_fat = sectors_per_cluster.is_power_of_two()
        && reserved_sectors != 0
        && matches!(fat_copies, 1 | 2)
        && matches!(media, 0xF0 | 0xF8..=0xFF);
    let is_named = &name == b"NTFS    " || &name == b"-FVE-FS-";
    ((is_fat || is_named) && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096))
        .then_some(bytes_per_sector)
}
