//! Maps of healthy FAT volumes: what fsck.fat counts, and enough for it and for mtools.

use std::fs;

use aiv_filesystems::{FilesystemKind, MapNote, recognise};
use aiv_volume_io::Extent;

use crate::ext_tools::{MIB, complement, used_bytes};
use crate::fat_tools::{bytes_at, check_fat, fat_files, fill_fat, free_by_fsck_fat, mkfs_fat};
use crate::tools::{noise, run};

fn check(len: u64, options: &str, kind: FilesystemKind, cluster_size: u32) {
    let volume = mkfs_fat(len, options);
    assert_eq!(recognise(&volume.open()).unwrap().kind, kind, "{options}");
    check_fat(&volume, cluster_size);
    fill_fat(&volume, len.min(20 * MIB));
    assert_eq!(fat_files(&volume).len(), 38, "{options}");
    check_fat(&volume, cluster_size);
}

#[test]
fn fat12() {
    check(4 * MIB, "-F 12", FilesystemKind::Fat12, 2048);
    check(2 * MIB, "-F 12 -s 1 -f 1 -r 64", FilesystemKind::Fat12, 512);
    check(30 * MIB, "-F 12 -s 16", FilesystemKind::Fat12, 8192);
    check(12 * MIB, "-F 12 -S 4096 -s 1 -r 256", FilesystemKind::Fat12, 4096);
}

#[test]
fn fat16() {
    check(20 * MIB, "-F 16", FilesystemKind::Fat16, 2048);
    check(3 * MIB, "-F 16 -s 1 -f 1", FilesystemKind::Fat16, 512);
    check(300 * MIB, "-F 16 -s 128", FilesystemKind::Fat16, 65_536);
    check(24 * MIB, "-F 16 -S 1024 -s 2", FilesystemKind::Fat16, 2048);
    check(24 * MIB, "-F 16 -S 4096 -s 1", FilesystemKind::Fat16, 4096);
}

#[test]
fn fat32() {
    check(36 * MIB, "-F 32 -s 1", FilesystemKind::Fat32, 512);
    check(70 * MIB, "-F 32 -s 2 -f 1", FilesystemKind::Fat32, 1024);
    check(600 * MIB, "-F 32 -s 16", FilesystemKind::Fat32, 8192);
    check(140 * MIB, "-F 32 -S 2048 -s 1", FilesystemKind::Fat32, 2048);
    check(270 * MIB, "-F 32 -S 4096 -s 1", FilesystemKind::Fat32, 4096);
}

#[test]
fn a_table_of_several_strides() {
    // 400,000 entries of 32 bits: one and a half mebibytes.
    let volume = mkfs_fat(200 * MIB, "-F 32 -s 1");
    fill_fat(&volume, 30 * MIB);
    let big = volume.dir.path().join("big");
    fs::write(&big, noise(5, 160 << 20)).unwrap();
    run("mcopy", &["-i", volume.path(), big.to_str().unwrap(), "::/"]);
    fs::remove_file(big).unwrap();
    check_fat(&volume, 512);
}

#[test]
fn what_lies_before_the_first_and_after_the_last_cluster_is_kept() {
    let volume = mkfs_fat(5 * MIB, "-F 12");
    volume.set_len(6 * MIB + 100);
    let (used, ..) = used_bytes(&volume);
    let (front, back) = (Extent::new(0, 20_000), Extent::new(5 * MIB, MIB + 100));
    for kept in [front, back] {
        assert_eq!(used.within(kept).collect::<Vec<_>>(), [kept]);
    }
}

#[test]
fn bad_clusters_are_used() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    let free = complement(&used_bytes(&volume).0, 20 * MIB).total_len();
    set_entry16(&volume, 1000, 0xfff7);
    let now = complement(&used_bytes(&volume).0, 20 * MIB).total_len();
    assert_eq!(free - now, 2048);
    assert_eq!(free_by_fsck_fat(&volume) * 2048, now);
}

/// Sets an entry in both tables of a FAT16 volume.
pub(crate) fn set_entry16(volume: &crate::tools::Volume, cluster: u64, value: u16) {
    let boot = bytes_at(volume, Extent::new(0, 512));
    let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (sector, table) = (word(11), word(22));
    for copy in 0..u64::from(boot[16]) {
        let at = (word(14) + copy * table) * sector + cluster * 2;
        volume.patch(at, &value.to_le_bytes());
    }
}

#[test]
fn a_volume_that_was_not_unmounted_is_noted() {
    let volume = mkfs_fat(20 * MIB, "-F 16");
    fill_fat(&volume, 20 * MIB);
    let (clean, ..) = used_bytes(&volume);
    volume.patch(37, &[1]);
    assert_eq!(used_bytes(&volume), (clean.clone(), 2048, vec![MapNote::NotUnmounted]));
    volume.patch(37, &[0]);
    set_entry16(&volume, 1, 0x7fff);
    assert_eq!(used_bytes(&volume), (clean.clone(), 2048, vec![MapNote::NotUnmounted]));
    set_entry16(&volume, 1, 0xbfff);
    assert_eq!(used_bytes(&volume), (clean, 2048, vec![MapNote::MediaFailed]));

    let volume = mkfs_fat(36 * MIB, "-F 32 -s 1");
    volume.patch(65, &[1]);
    assert_eq!(used_bytes(&volume).2, [MapNote::NotUnmounted]);
    volume.patch(65, &[0]);
    for table in [32 * 512, 32 * 512 + u64::from(table_sectors32(&volume)) * 512] {
        volume.patch(table + 4, &0x03ff_ffff_u32.to_le_bytes());
    }
    assert_eq!(used_bytes(&volume).2, [MapNote::NotUnmounted, MapNote::MediaFailed]);
}

fn table_sectors32(volume: &crate::tools::Volume) -> u32 {
    let field = bytes_at(volume, Extent::new(36, 4));
    u32::from_le_bytes(field.try_into().unwrap())
}

#[test]
fn the_free_count_in_fsinfo_is_not_believed() {
    let volume = mkfs_fat(36 * MIB, "-F 32 -s 1");
    let (used, ..) = used_bytes(&volume);
    volume.patch(512 + 488, &7u32.to_le_bytes());
    assert_eq!(used_bytes(&volume).0, used);
}

#[test]
fn reserved_bits_of_an_entry_make_a_cluster_used() {
    let volume = mkfs_fat(36 * MIB, "-F 32 -s 1 -f 1");
    let (used, ..) = used_bytes(&volume);
    volume.patch(32 * 512 + 4 * 1000, &0x1000_0000_u32.to_le_bytes());
    assert_eq!(used_bytes(&volume).0.total_len(), used.total_len() + 512);
}

#[test]
fn a_full_volume_is_used_to_its_last_cluster() {
    for (len, options, cluster_size) in [
        (2 * MIB, "-F 12", 2048),
        (2 * MIB + 4096, "-F 12 -s 1", 512),
        (2 * MIB + 512, "-F 12 -s 1", 512),
        (20 * MIB, "-F 16 -s 4", 2048),
        (36 * MIB, "-F 32 -s 1", 512),
    ] {
        let volume = mkfs_fat(len, options);
        let bytes = free_by_fsck_fat(&volume) * cluster_size;
        let file = volume.dir.path().join("file");
        fs::write(&file, noise(3, usize::try_from(bytes).unwrap())).unwrap();
        run("mcopy", &["-i", volume.path(), file.to_str().unwrap(), "::/"]);
        assert_eq!(free_by_fsck_fat(&volume), 0, "{options}");
        assert_eq!(used_bytes(&volume).0.runs(), [Extent::new(0, len)], "{options}");
    }
}
