//! What sector 0 says: protective, hybrid and plain MBRs, filesystems, leftovers.

use std::fs;
use std::path::Path;
use std::process::Command;

use aiv_volume_io::partition::{
    DiskId, RegionKind, SectorSize, TableKind, TableProblem, detect_sector_size,
};
use aiv_volume_io::{Extent, MemDisk};

use super::build::{Gpt, mbr, put, put_ebr, put_entry};
use super::tools::run;
use super::{check_regions, extents, has, owners, read};

#[test]
fn a_hybrid_mbr_is_noted_and_the_gpt_used() {
    let mut disk = Gpt::small(512).bytes();
    put_entry(&mut disk, 1, 0x80, 0x83, 20, 40);
    let table = read(&disk, 512);
    assert_eq!(table.kind, TableKind::Gpt);
    assert_eq!(table.problems, [TableProblem::HybridMbr { entries: 1 }]);

    // When both copies are gone, the entries of the MBR are the best that is left.
    disk[512] = 0;
    disk[127 * 512] = 0;
    let table = read(&disk, 512);
    assert_eq!(table.kind, TableKind::Mbr);
    assert_eq!(extents(&table), [(2, Extent::new(20 * 512, 40 * 512))]);
    assert_eq!(table.problems.len(), 2);
}

#[test]
fn a_wrong_protective_entry_is_reported() {
    for (start, sectors, wrong) in [
        (1, 127, false),
        (1, u32::MAX, false),
        (1, 126, true),
        (1, 128, true),
        (2, 126, true),
        (2, 127, true),
    ] {
        let mut disk = Gpt::small(512).bytes();
        put_entry(&mut disk, 0, 0, 0xEE, start, sectors);
        let table = read(&disk, 512);
        assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 3));
        let problem = TableProblem::ProtectiveMbrWrong { start, sectors, expected_sectors: 127 };
        assert_eq!(table.problems.contains(&problem), wrong, "{start} + {sectors}");
        assert_eq!(table.problems.is_empty(), !wrong);
    }
}

#[test]
fn the_protective_entry_may_be_in_any_slot() {
    let mut disk = Gpt::small(512).bytes();
    put_entry(&mut disk, 0, 0, 0, 0, 0);
    put_entry(&mut disk, 3, 0, 0xEE, 1, 127);
    assert_eq!(read(&disk, 512).problems, []);
}

#[test]
fn a_protective_entry_counts_beside_garbage() {
    let mut disk = Gpt::small(512).bytes();
    put_entry(&mut disk, 2, 0x7F, 0x83, 20, 40);
    assert_eq!(read(&disk, 512).kind, TableKind::Gpt);

    // The garbage does not become partitions when the GPT is lost.
    disk[512] = 0;
    disk[127 * 512] = 0;
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
}

#[test]
fn a_primary_gpt_behind_an_erased_mbr_is_used() {
    let mut disk = Gpt::small(512).bytes();
    disk[..512].fill(0);
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 3));
    assert_eq!(table.problems, [TableProblem::ProtectiveMbrMissing]);

    // So it is behind an MBR that was made and never used.
    put(&mut disk, 440, &[1, 2, 3, 4]);
    put(&mut disk, 510, &[0x55, 0xAA]);
    assert_eq!(read(&disk, 512).kind, TableKind::Gpt);
}

#[test]
fn a_backup_gpt_alone_is_a_leftover() {
    let mut disk = Gpt::small(512).bytes();
    disk[..2048].fill(0);
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::None, 0));
    assert_eq!(table.problems, [TableProblem::StaleGpt { lba: 127 }]);
    assert_eq!(owners(&table, disk.len() as u64), [(0, RegionKind::Gap)]);
}

#[test]
fn an_mbr_with_partitions_makes_a_gpt_a_leftover() {
    let mut disk = Gpt::small(512).bytes();
    put_entry(&mut disk, 0, 0x80, 0x83, 8, 100);
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Mbr, 1));
    assert_eq!(table.problems, [TableProblem::StaleGpt { lba: 1 }]);
}

#[test]
fn an_empty_mbr_counts_when_it_has_a_disk_signature() {
    let mut disk = mbr(512, 100, &[]);
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.disk_id), (TableKind::Mbr, Some(DiskId::Mbr(0x1234_ABCD))));
    put(&mut disk, 440, &[0; 4]);
    assert_eq!(read(&disk, 512).kind, TableKind::None);
}

#[test]
fn impossible_status_bytes_are_no_table() {
    for status in [0x01, 0x7F, 0x81, 0xFF, b' '] {
        let mut disk = mbr(512, 100, &[(0x80, 0x83, 10, 10)]);
        put_entry(&mut disk, 3, status, 0, 0, 0);
        assert_eq!(read(&disk, 512).kind, TableKind::None, "{status:#x}");
    }
}

#[test]
fn entries_that_all_lie_behind_the_disk_are_no_table() {
    let disk = mbr(512, 100, &[(0, 0x83, 100, 10), (0, 0x83, 1 << 20, 10)]);
    assert_eq!(read(&disk, 512).kind, TableKind::None);
    let disk = mbr(512, 100, &[(0, 0x83, 99, 10), (0, 0x83, 1 << 20, 10)]);
    let table = read(&disk, 512);
    assert_eq!(table.partitions.len(), 2);
    assert!(table.problems.iter().all(|p| matches!(p, TableProblem::PastEnd { .. })));
    check_regions(&table, 100 * 512);
}

#[test]
fn an_image_of_an_isohybrid_disc_keeps_its_partition_from_sector_0() {
    let disk = mbr(512, 100, &[(0x80, 0x17, 0, 100)]);
    let table = read(&disk, 512);
    let shared = Extent::between(0, 440);
    assert_eq!(table.problems, [TableProblem::OverlapsTable { number: 1, shared }]);
    let expected =
        [(0, RegionKind::BootCode), (440, RegionKind::Table), (512, RegionKind::Partition(1))];
    assert_eq!(owners(&table, 100 * 512), expected);
}

#[test]
fn filesystems_on_a_whole_disk_are_no_table() {
    let dir = tempfile::tempdir().unwrap();
    for (name, options) in [
        ("mkfs.vfat", &["-F", "12"][..]),
        ("mkfs.vfat", &["-F", "16"][..]),
        ("mkfs.vfat", &["-F", "32", "-s", "1"][..]),
        ("mkfs.vfat", &["-F", "32", "-s", "1", "-S", "4096"][..]),
        ("mkfs.vfat", &["--mbr=yes"][..]),
        ("mkfs.ntfs", &["-F", "-f", "-q"][..]),
        ("mkfs.ntfs", &["-F", "-f", "-q", "-s", "4096", "-p", "0", "-H", "1", "-S", "1"][..]),
        ("mkfs.exfat", &[][..]),
        ("mkfs.ext4", &["-q"][..]),
        ("mkfs.xfs", &["-q"][..]),
    ] {
        let path = dir.path().join("volume");
        let len = if name == "mkfs.xfs" { 320 << 20 } else { 64 << 20 };
        let _ = fs::remove_file(&path);
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        run(Command::new(name).args(options).arg(&path));
        for size in [512, 4096] {
            let table = read_file(&path, size);
            assert_eq!(table.kind, TableKind::None, "{name} {options:?}");
            assert_eq!(table.problems, [], "{name} {options:?}");
        }
    }
}

fn read_file(path: &Path, sector_size: u32) -> aiv_volume_io::partition::PartitionTable {
    let disk = aiv_volume_io::FileDisk::open_source(path).unwrap();
    let size = SectorSize::new(sector_size).unwrap();
    aiv_volume_io::partition::read_table(&disk, size).unwrap()
}

/// The start of the boot sector of a FAT volume with sectors of `sector_size`.
fn fat_parameters(sector_size: u32) -> [u8; 22] {
    let mut block = *b"\xEB\x3C\x90mkfs.fat\0\0\x04\x01\0\x02\0\x02\0\0\xF8";
    put(&mut block, 11, &sector_size.to_le_bytes()[..2]);
    block
}

/// Boot sectors of FAT, NTFS, BitLocker and exFAT volumes with sectors of `sector_size`.
fn boot_sectors(sector_size: u32) -> Vec<[u8; 512]> {
    let mut fat = [0; 512];
    put(&mut fat, 0, &fat_parameters(sector_size));
    put(&mut fat, 510, &[0x55, 0xAA]);
    let named = |name: &[u8; 8]| {
        let mut sector = fat;
        put(&mut sector, 1, &[0x52]);
        put(&mut sector, 3, name);
        put(&mut sector, 14, &[0; 7]);
        sector
    };
    let mut exfat = named(b"EXFAT   ");
    put(&mut exfat, 11, &[0; 53]);
    put(&mut exfat, 108, &[u8::try_from(sector_size.ilog2()).unwrap()]);
    vec![fat, named(b"NTFS    "), named(b"-FVE-FS-"), exfat]
}

#[test]
fn a_faultless_table_over_the_parameters_of_an_old_filesystem_is_believed() {
    let mut disk = mbr(512, 100, &[(0x80, 0x83, 10, 20), (0, 0x83, 30, 70)]);
    put(&mut disk, 0, &fat_parameters(512));
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Mbr, 2));

    for (start, sectors) in [(0, 70), (29, 70), (30, 71), (200, 1)] {
        put_entry(&mut disk, 1, 0, 0x83, start, sectors);
        assert_eq!(read(&disk, 512).kind, TableKind::None, "{start} + {sectors}");
    }
}

#[test]
fn boot_code_is_no_filesystem_for_resembling_one() {
    // Overlapping partitions are believed of an MBR, and not of a boot sector.
    let mut sound = mbr(512, 100, &[(0x80, 0x83, 10, 20), (0, 0x83, 20, 70)]);
    put(&mut sound, 0, &fat_parameters(512));
    assert_eq!(read(&sound, 512).kind, TableKind::None);
    let impossible = [(0, 0x33), (2, 0x91), (12, 3), (13, 3), (13, 0), (14, 0), (16, 0), (16, 3)];
    for (at, value) in impossible.into_iter().chain([(21, 0xF1)]) {
        let mut disk = sound.clone();
        disk[at] = value;
        assert_eq!(read(&disk, 512).kind, TableKind::Mbr, "{value:#x} at byte {at}");
    }
}

#[test]
fn a_leftover_gpt_behind_a_filesystem_is_not_used() {
    let mut disk = Gpt::small(512).bytes();
    disk[446..510].fill(0);
    put(&mut disk, 0, &fat_parameters(512));
    let table = read(&disk, 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::None, 0));
    assert_eq!(table.problems, [TableProblem::StaleGpt { lba: 1 }]);
}

#[test]
fn a_gpt_of_the_other_sector_size_is_pointed_out() {
    for (real, other) in [(512, 4096), (4096, 512), (2048, 512)] {
        let mut disk = Gpt::small(real).bytes();
        let expected =
            TableProblem::OtherSectorSize { sector_size: SectorSize::new(real).unwrap() };
        for front in ["protective", "damaged primary", "erased"] {
            match front {
                "damaged primary" => disk[real as usize] = 0,
                "erased" => {
                    disk = Gpt::small(real).bytes();
                    disk[..512].fill(0);
                }
                _ => {}
            }
            let table = read(&disk, other);
            assert_eq!(table.kind, TableKind::None, "{front}");
            assert_eq!(table.problems, std::slice::from_ref(&expected), "{front}");
            let found = detect_sector_size(&MemDisk::from_bytes(disk.clone()));
            assert_eq!(found, SectorSize::new(real), "{front}");
        }
    }
}

#[test]
fn an_mbr_shows_its_sector_size_by_what_its_partitions_begin_with() {
    for size in [512, 4096] {
        let expected = SectorSize::new(size);
        let entries = [(0x80, 0x0C, 16, 40), (0, 0x05, 64, 64)];
        let blank = mbr(size, 200, &entries);
        assert_eq!(detect_sector_size(&MemDisk::from_bytes(blank.clone())), None);

        for logical in [(0, 10), (64, 10), (0, 0)] {
            let mut chain = blank.clone();
            put_ebr(&mut chain, size, 64, logical, (0, 0));
            assert_eq!(detect_sector_size(&MemDisk::from_bytes(chain)), None);
        }
        let mut chain = blank.clone();
        put_ebr(&mut chain, size, 64, (1, 10), (0, 0));
        assert_eq!(detect_sector_size(&MemDisk::from_bytes(chain)), expected);

        for (place, volume) in boot_sectors(size).iter().enumerate() {
            let mut disk = blank.clone();
            put(&mut disk, u64::from(16 * size), volume);
            let found = detect_sector_size(&MemDisk::from_bytes(disk));
            assert_eq!(found, expected, "boot sector {place}");
        }
        // Proof of two sizes is no proof.
        let mut disk = blank.clone();
        put(&mut disk, 16 * 512, &boot_sectors(512)[0]);
        put(&mut disk, 16 * 4096, &boot_sectors(4096)[0]);
        assert_eq!(detect_sector_size(&MemDisk::from_bytes(disk)), None);

        // What states other sectors than those it is found with proves nothing.
        let mut disk = blank;
        put(&mut disk, u64::from(16 * size), &boot_sectors(size ^ 512 ^ 4096)[0]);
        assert_eq!(detect_sector_size(&MemDisk::from_bytes(disk)), None);
    }
}

#[test]
fn a_boot_sector_is_no_table_although_it_has_a_disk_signature() {
    for sector in boot_sectors(512) {
        let mut disk = vec![0; 100 * 512];
        put(&mut disk, 0, &sector);
        put(&mut disk, 440, &[1, 2, 3, 4]);
        assert_eq!(read(&disk, 512).kind, TableKind::None);
    }
}

#[test]
fn disks_too_small_for_a_table_have_none() {
    for len in [0, 1, 511, 512, 1024, 1536] {
        let table = read(&vec![0; len], 512);
        assert_eq!((table.kind, table.problems.len()), (TableKind::None, 0));
        check_regions(&table, len as u64);
    }
    let mut disk = Gpt::small(512).bytes();
    disk.truncate(512);
    let table = read(&disk, 512);
    assert_eq!(table.kind, TableKind::Gpt);
    assert!(has(&table, |p| matches!(p, TableProblem::GptCopyDamaged { .. })));
    check_regions(&table, 512);
}
