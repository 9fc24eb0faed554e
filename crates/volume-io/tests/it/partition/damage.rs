//! Damaged and displaced copies of a GPT.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_volume_io::partition::{
    EbrFault, GptCopy, GptFault, PARTITIONS_MAX, PartitionTable, SectorSize, TableAreaKind,
    TableKind, TableProblem, read_table,
};
use aiv_volume_io::{Error, Extent, MemDisk, ReadAt};

use super::build::{Gpt, GptEntry, crc32, index, mbr, put, put_ebr, put_entry, seal_header};
use super::{area, check_regions, extents, has, read};

const PRIMARY: u64 = 512;
const BACKUP: u64 = 127 * 512;

fn fault_of(table: &PartitionTable, wanted: GptCopy) -> Option<GptFault> {
    table.problems.iter().find_map(|problem| match problem {
        TableProblem::GptCopyDamaged { copy, fault, .. } if *copy == wanted => Some(fault.clone()),
        _ => None,
    })
}

/// Damages the copy at `PRIMARY` of a small disk and expects `fault`; the backup must serve.
fn check_primary_fault(damage: impl Fn(&mut [u8]), fault: &GptFault) {
    let sound = read(&Gpt::small(512).bytes(), 512);
    let mut disk = Gpt::small(512).bytes();
    damage(&mut disk);
    let table = read(&disk, 512);
    assert_eq!(fault_of(&table, GptCopy::Primary).as_ref(), Some(fault));
    assert_eq!(table.problems.len(), 1, "{:?}", table.problems);
    assert_eq!((table.kind, &table.partitions), (TableKind::Gpt, &sound.partitions));
    assert_eq!(table.disk_id, sound.disk_id);
    assert_eq!(table.areas, sound.areas);
}

/// As above, for a field of the header, with a checksum that fits.
fn check_primary_field(at: u64, value: &[u8], fault: &GptFault) {
    check_primary_fault(
        |disk| {
            put(disk, PRIMARY + at, value);
            seal_header(disk, PRIMARY);
        },
        fault,
    );
}

#[test]
fn each_fault_of_a_header_is_named_and_the_backup_used() {
    check_primary_fault(|disk| disk[512] = b'X', &GptFault::NoSignature);
    check_primary_fault(|disk| disk[512..2048].fill(0), &GptFault::NoSignature);
    for found in [0, 91, 513, u32::MAX] {
        let fault = GptFault::HeaderSize { found, max: 512 };
        check_primary_field(12, &found.to_le_bytes(), &fault);
    }
    check_primary_field(24, &2u64.to_le_bytes(), &GptFault::MyLba { found: 2 });
    let fault = GptFault::UsableRange { first: u64::MAX, last: 124 };
    check_primary_field(40, &u64::MAX.to_le_bytes(), &fault);
    for found in [0, 64, 127, 129, 384, 0xFFFF_FFFF] {
        check_primary_field(84, &u32::to_le_bytes(found), &GptFault::EntrySize { found });
    }
    let fault = GptFault::EntryArrayTooLarge { found: u64::from(u32::MAX) * 128 };
    check_primary_field(80, &u32::MAX.to_le_bytes(), &fault);
    for lba in [0, 1, 127, 1 << 40, u64::MAX] {
        check_primary_field(72, &lba.to_le_bytes(), &GptFault::EntryArrayPlace { lba, sectors: 2 });
    }
    let sound = Gpt::small(512).bytes();
    let stored = u32::from_le_bytes(sound[600..604].try_into().unwrap());
    let mut entries = sound[1024..2048].to_vec();
    entries[1023] = 1;
    let fault = GptFault::EntryArrayChecksum { found: stored, computed: crc32(&entries) };
    check_primary_fault(|disk| disk[2047] = 1, &fault);
}

#[test]
fn every_flipped_bit_of_both_headers_and_arrays_is_noticed() {
    let sound = Gpt::small(512).bytes();
    let expected = read(&sound, 512);
    let copies = [
        (GptCopy::Primary, PRIMARY..PRIMARY + 92),
        (GptCopy::Primary, 1024..2048),
        (GptCopy::Backup, BACKUP..BACKUP + 92),
        (GptCopy::Backup, 125 * 512..127 * 512),
    ];
    for (copy, bytes) in copies {
        for at in bytes {
            for bit in 0..8 {
                let mut disk = sound.clone();
                disk[index(at)] ^= 1 << bit;
                let table = read(&disk, 512);
                assert!(fault_of(&table, copy).is_some(), "byte {at} bit {bit}");
                assert_eq!(table.partitions, expected.partitions, "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn a_lost_backup_header_is_reported_and_the_table_still_read() {
    let sound = read(&Gpt::small(512).bytes(), 512);
    let mut disk = Gpt::small(512).bytes();
    disk[index(BACKUP)..].fill(0);
    let table = read(&disk, 512);
    let lost = TableProblem::GptCopyDamaged {
        copy: GptCopy::Backup,
        lba: 127,
        fault: GptFault::NoSignature,
    };
    assert_eq!(table.problems, [lost]);
    assert_eq!(table.partitions, sound.partitions);
    assert_eq!(table.areas, sound.areas, "its place stays part of the table");
}

#[test]
fn a_backup_whose_entries_cover_a_header_or_the_mbr_is_refused() {
    for lba in [0, 1, 126] {
        let mut disk = Gpt::small(512).bytes();
        put(&mut disk, BACKUP + 72, &u64::to_le_bytes(lba));
        // The checksum of the array stays right, so that nothing but its place is wrong.
        let array = disk[index(lba * 512)..][..1024].to_vec();
        put(&mut disk, BACKUP + 88, &crc32(&array).to_le_bytes());
        seal_header(&mut disk, BACKUP);
        let fault = GptFault::EntryArrayPlace { lba, sectors: 2 };
        assert_eq!(fault_of(&read(&disk, 512), GptCopy::Backup), Some(fault));
    }
}

#[test]
fn a_disk_without_usable_sectors_is_sound() {
    let disk = Gpt { sectors: 7, entries: vec![], ..Gpt::small(512) }.bytes();
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.problems.len()), (TableKind::Gpt, 0));
}

#[test]
fn a_damaged_primary_ends_where_the_usable_sectors_begin() {
    let mut disk = Gpt::small(512).bytes();
    disk[512..1024].fill(0);
    put(&mut disk, BACKUP + 40, &3u64.to_le_bytes());
    seal_header(&mut disk, BACKUP);
    let table = read(&disk, 512);
    assert_eq!(area(&table, TableAreaKind::GptEntries), Some(Extent::new(1024, 512)));
}

#[test]
fn a_damaged_copy_takes_no_bytes_of_partitions() {
    // The primary names a backup in the middle of partition 2, where there is none.
    let mut disk = Gpt::small(512).bytes();
    put(&mut disk, PRIMARY + 32, &30u64.to_le_bytes());
    seal_header(&mut disk, PRIMARY);
    disk[index(BACKUP)..].fill(0);
    let table = read(&disk, 512);
    assert!(has(&table, |p| matches!(p, TableProblem::GptCopyDamaged { lba: 30, .. })));
    assert_eq!(area(&table, TableAreaKind::GptBackupHeader), None);
    assert_eq!(table.problems.len(), 1, "{:?}", table.problems);
}

#[test]
fn without_a_sound_copy_the_protective_entry_still_says_gpt() {
    let mut disk = Gpt::small(512).bytes();
    disk[600] ^= 1;
    disk[index(BACKUP) + 88] ^= 1;
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
    for copy in [GptCopy::Primary, GptCopy::Backup] {
        assert!(matches!(fault_of(&table, copy), Some(GptFault::HeaderChecksum { .. })));
    }
    check_regions(&table, disk.len() as u64);
}

#[test]
fn a_grown_disk_has_its_backup_in_the_middle() {
    let mut disk = Gpt::small(512).bytes();
    disk.extend(vec![0; 72 * 512]);
    let expected = TableProblem::BackupNotAtEnd { lba: 127, last_lba: 199 };
    let table = read(&disk, 512);
    assert!(table.problems.contains(&expected));
    assert_eq!(area(&table, TableAreaKind::GptBackupHeader), Some(Extent::new(BACKUP, 512)));

    // With a damaged primary header the backup is found through what that header still says,
    let sound = table.partitions.clone();
    disk[600] ^= 1;
    put_entry(&mut disk, 0, 0, 0xEE, 1, u32::MAX);
    let table = read(&disk, 512);
    assert!(table.problems.contains(&expected));
    assert_eq!(table.partitions, sound);

    // and without any primary header through the size of the protective entry.
    disk[512..2048].fill(0);
    put_entry(&mut disk, 0, 0, 0xEE, 1, 127);
    let table = read(&disk, 512);
    assert!(table.problems.contains(&expected));
    assert_eq!(table.partitions, sound);
}

#[test]
fn a_backup_at_the_end_is_found_although_the_primary_names_another_place() {
    let mut disk = Gpt::small(512).bytes();
    put(&mut disk, PRIMARY + 32, &99u64.to_le_bytes());
    seal_header(&mut disk, PRIMARY);
    let table = read(&disk, 512);
    assert_eq!(table.problems, [TableProblem::BackupNotWhereNamed { named: 99, found: 127 }]);
}

#[test]
fn a_primary_that_names_itself_as_the_backup_is_not_believed() {
    let mut disk = Gpt::small(512).bytes();
    put(&mut disk, PRIMARY + 32, &1u64.to_le_bytes());
    seal_header(&mut disk, PRIMARY);
    disk[index(BACKUP)..].fill(0);
    assert_eq!(fault_of(&read(&disk, 512), GptCopy::Backup), Some(GptFault::NoSignature));
}

#[test]
fn copies_that_disagree_are_reported_and_the_primary_used() {
    let spec = Gpt::small(512);
    let mut other = spec.clone();
    other.entries[1].last -= 1;
    let mut disk = spec.bytes();
    other.put_copy(&mut disk, 127, 1, 125);
    let table = read(&disk, 512);
    let field = "PartitionEntryArrayCRC32";
    assert_eq!(table.problems, [TableProblem::GptCopiesDisagree { field }]);
    assert_eq!(extents(&table), extents(&read(&spec.bytes(), 512)));

    for (at, field) in [(56, "DiskGUID"), (40, "FirstUsableLBA"), (32, "AlternateLBA")] {
        let mut disk = spec.bytes();
        disk[index(BACKUP + at)] += 1;
        seal_header(&mut disk, BACKUP);
        assert_eq!(read(&disk, 512).problems, [TableProblem::GptCopiesDisagree { field }]);
    }
}

#[test]
fn a_truncated_disk_still_lists_its_partitions() {
    let mut disk = Gpt::small(512).bytes();
    disk.truncate(50 * 512);
    let table = read(&disk, 512);
    assert_eq!(table.partitions, read(&Gpt::small(512).bytes(), 512).partitions);
    let outside = GptFault::OutsideDisk { sectors: 50 };
    assert_eq!(fault_of(&table, GptCopy::Backup), Some(outside));
    let past = TableProblem::UsableRangePastEnd { last_usable_lba: 124, last_lba: 49 };
    assert!(table.problems.contains(&past));
    let past = |n: u32| move |p: &TableProblem| matches!(p, TableProblem::PastEnd { number, .. } if *number == n);
    assert!(has(&table, past(2)) && has(&table, past(6)) && !has(&table, past(1)));

    let mut disk = Gpt::small(512).bytes();
    disk.truncate(125 * 512);
    assert_eq!(read(&disk, 512).problems.len(), 2, "every usable sector is still there");
    check_regions(&table, 50 * 512);
}

#[test]
fn entangled_partitions_are_described() {
    let entries = vec![
        GptEntry::new(0, 20, 80),
        GptEntry::new(1, 30, 40),
        GptEntry::new(2, 50, 90),
        GptEntry::new(3, 60, 59),
        GptEntry::new(4, 99, 95),
        GptEntry::new(5, 1, 9),
        GptEntry::new(6, 100, u64::MAX),
    ];
    let disk = Gpt { entries, ..Gpt::small(512) }.bytes();
    let table = read(&disk, 512);
    let sectors = |start: u64, end: u64| Extent::between(start * 512, end * 512);
    let overlap = |first, second, start, end| {
        let shared = sectors(start, end);
        TableProblem::PartitionsOverlap { first, second, shared }
    };
    let reversed =
        |number, first_lba, last_lba| TableProblem::EndsBeforeStart { number, first_lba, last_lba };
    let expected = [
        reversed(4, 60, 59),
        reversed(5, 99, 95),
        TableProblem::OverlapsTable { number: 6, shared: sectors(1, 2) },
        TableProblem::PastEnd { number: 7, end: u64::MAX, disk_len: 128 * 512 },
        TableProblem::OverlapsTable { number: 7, shared: sectors(125, 127) },
        overlap(1, 2, 30, 41),
        overlap(1, 3, 50, 81),
    ];
    assert_eq!(table.problems, expected);
    assert!(table.partitions[3].extent.is_empty());
    check_regions(&table, 128 * 512);
}

#[test]
fn more_partitions_than_we_accept_are_counted_and_the_first_listed() {
    let entries = (0..1_100).map(|index| GptEntry::new(index, 3_000, 3_000)).collect();
    let spec =
        Gpt { sector_size: 512, sectors: 4_000, entry_count: 2_000, entry_size: 128, entries };
    let table = read(&spec.bytes(), 512);
    assert_eq!(table.partitions.len(), PARTITIONS_MAX);
    assert!(table.problems.contains(&TableProblem::TooManyPartitions { found: 1_100 }));
    check_regions(&table, 4_000 * 512);
}

/// Fails reads that touch one range of bytes, or one read by its number.
struct BadDisk {
    disk: MemDisk,
    bad: Extent,
    fail_read: Option<u64>,
    reads: AtomicU64,
}

impl BadDisk {
    fn with_bad_bytes(bytes: Vec<u8>, bad: Extent) -> Self {
        let disk = MemDisk::from_bytes(bytes);
        Self { disk, bad, fail_read: None, reads: AtomicU64::new(0) }
    }
}

impl ReadAt for BadDisk {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        let touched = Extent::new(offset, out.len() as u64).intersect(self.bad).is_some();
        if touched || self.fail_read == Some(read) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.disk.read_exact_at(out, offset)
    }
}

#[test]
fn an_unreadable_copy_is_replaced_by_the_other_one() {
    let sound = read(&Gpt::small(512).bytes(), 512);
    for (copy, bad) in [
        (GptCopy::Primary, Extent::new(512, 512)),
        (GptCopy::Primary, Extent::new(1500, 1)),
        (GptCopy::Backup, Extent::new(BACKUP, 512)),
    ] {
        let disk = BadDisk::with_bad_bytes(Gpt::small(512).bytes(), bad);
        let table = read_table(&disk, SectorSize::B512).unwrap();
        assert!(matches!(fault_of(&table, copy), Some(GptFault::Unreadable(_))));
        assert_eq!(table.partitions, sound.partitions);
    }
}

#[test]
fn an_unreadable_boot_record_ends_the_chain() {
    let mut bytes = mbr(512, 100, &[(0, 0x05, 10, 90)]);
    put_ebr(&mut bytes, 512, 10, (1, 10), (40, 50));
    put_ebr(&mut bytes, 512, 50, (1, 10), (0, 0));
    let disk = BadDisk::with_bad_bytes(bytes, Extent::new(50 * 512, 512));
    let table = read_table(&disk, SectorSize::B512).unwrap();
    assert_eq!(table.partitions.len(), 2);
    let broken = |p: &TableProblem| {
        matches!(p, TableProblem::EbrDamaged { lba: 50, fault: EbrFault::Unreadable(_) })
    };
    assert!(has(&table, broken));
}

#[test]
fn an_unreadable_sector_0_does_not_hide_a_gpt() {
    let disk = BadDisk::with_bad_bytes(Gpt::small(512).bytes(), Extent::new(0, 512));
    let table = read_table(&disk, SectorSize::B512).unwrap();
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 3));
    assert!(has(&table, |p| matches!(p, TableProblem::MbrUnreadable(_))));
}

#[test]
fn a_medium_that_fails_at_the_last_hope_is_an_error() {
    let disk = BadDisk::with_bad_bytes(vec![0; 4096], Extent::new(0, 512));
    let error = read_table(&disk, SectorSize::B512).unwrap_err();
    assert!(matches!(error, Error::Io { offset: 0, .. }), "{error:?}");

    let mut bytes = Gpt::small(512).bytes();
    bytes[index(BACKUP)] = 0;
    let disk = BadDisk::with_bad_bytes(bytes, Extent::new(1024, 1));
    let error = read_table(&disk, SectorSize::B512).unwrap_err();
    assert!(matches!(error, Error::Io { offset: 1024, .. }), "{error:?}");
}

#[test]
fn any_single_failing_read_is_an_error_or_a_reported_problem() {
    let sound = read(&Gpt::small(512).bytes(), 512);
    let mut failed = 0;
    loop {
        let mut disk = BadDisk::with_bad_bytes(Gpt::small(512).bytes(), Extent::new(0, 0));
        disk.fail_read = Some(failed);
        let result = read_table(&disk, SectorSize::B512);
        if disk.reads.into_inner() <= failed {
            break;
        }
        let table = result.expect("one failing read leaves a copy");
        assert_eq!(table.partitions, sound.partitions);
        assert_eq!(table.problems.len(), 1, "read {failed}");
        failed += 1;
    }
    assert_eq!(failed, 5, "sector 0, two headers, two arrays");
}
