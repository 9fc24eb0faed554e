//! Maps of healthy exFAT volumes: what dump.exfat counts, and enough for fsck.exfat and for
//! exfat-fuse.

use aiv_filesystems::MapNote;
use aiv_volume_io::{Extent, ReadAt};

use crate::exfat_tools::{
    Fused, check_exfat, exfat_files, field_by_dump_exfat, fill_exfat, free_by_dump_exfat,
    mkfs_exfat, patch_boot, patch_region,
};
use crate::ext_tools::{MIB, used_bytes};
use crate::tools::noise;

fn check(len: u64, options: &str, cluster_size: u32) {
    let volume = mkfs_exfat(len, options);
    check_exfat(&volume, cluster_size);
    fill_exfat(&volume, len.min(12 * MIB));
    assert_eq!(exfat_files(&volume).len(), 27);
    check_exfat(&volume, cluster_size);
}

#[test]
fn clusters_of_all_sizes() {
    check(16 * MIB, "-c 512", 512);
    check(16 * MIB, "", 4096);
    check(40 * MIB, "-c 32768", 32_768);
    check(200 * MIB, "-c 1048576", 1 << 20);
    check(3000 * MIB, "-c 32M", 32 << 20);
}

#[test]
fn a_bitmap_of_several_clusters_and_strides() {
    // Nine million clusters: a bitmap of more than one mebibyte.
    check(4608 * MIB, "-c 512", 512);
}

#[test]
fn a_root_directory_of_several_clusters_that_are_not_neighbours() {
    let volume = mkfs_exfat(16 * MIB, "-c 512");
    let mounted = Fused::new(&volume, "rw");
    for n in 0..60 {
        let name = format!("a long name for a file in the root directory {n}");
        std::fs::write(mounted.path().join(name), [7; 600]).unwrap();
    }
    drop(mounted);
    check_exfat(&volume, 512);
}

#[test]
fn sectors_of_4096_bytes() {
    let volume = on_large_sectors();
    check_exfat(&volume, 4096);
}

/// What mkfs.exfat makes of a file has sectors of 512 bytes; a loop device has what it is told.
pub(crate) fn on_large_sectors() -> crate::tools::Volume {
    let volume = crate::tools::Volume::new(16 * MIB);
    let device =
        crate::tools::run("losetup", &["--find", "--show", "--sector-size", "4096", volume.path()]);
    let made = crate::tools::try_run("mkfs.exfat", &["-c", "4096", device.trim()]);
    crate::tools::run("losetup", &["--detach", device.trim()]);
    assert!(made.status.success(), "{made:?}");
    let mut shift = [0];
    volume.open().read_exact_at(&mut shift, 108).unwrap();
    assert_eq!(shift, [12]);
    volume
}

#[test]
fn what_lies_before_the_first_and_after_the_last_cluster_is_kept() {
    let volume = mkfs_exfat(16 * MIB, "");
    volume.set_len(17 * MIB + 100);
    let (used, ..) = used_bytes(&volume);
    let heap = field_by_dump_exfat(&volume, "Cluster Heap Offset (sector offset):") * 512;
    for kept in [Extent::new(0, heap), Extent::new(16 * MIB, MIB + 100)] {
        assert_eq!(used.within(kept).collect::<Vec<_>>(), [kept]);
    }
}

#[test]
fn a_bitmap_that_is_not_in_the_table_lies_in_one_piece() {
    let volume = mkfs_exfat(16 * MIB, "-c 512");
    let (used, ..) = used_bytes(&volume);
    let table = field_by_dump_exfat(&volume, "FAT Offset(sector offset):") * 512;
    let first = field_by_dump_exfat(&volume, "Bitmap start cluster:");
    let clusters = field_by_dump_exfat(&volume, "Bitmap size:").div_ceil(512);
    assert!(clusters > 1);
    let none = vec![0; usize::try_from(clusters).unwrap() * 4];
    volume.patch(table + first * 4, &none);
    assert_eq!(used_bytes(&volume).0, used);
}

#[test]
fn a_backup_that_differs_and_failures_of_the_medium_are_noted() {
    let volume = mkfs_exfat(16 * MIB, "");
    let (used, cluster_size, _) = used_bytes(&volume);
    // A serial number only the backup has.
    patch_region(&volume, 12, 100, &[1, 2, 3, 4]);
    let notes = vec![MapNote::BackupBootDiffers];
    assert_eq!(used_bytes(&volume), (used.clone(), cluster_size, notes));

    let volume = mkfs_exfat(16 * MIB, "");
    patch_boot(&volume, 106, &[4, 0]);
    assert_eq!(used_bytes(&volume), (used, cluster_size, vec![MapNote::MediaFailed]));
}

#[test]
fn flags_and_percentage_that_only_the_main_boot_sector_has_are_no_difference() {
    let volume = mkfs_exfat(16 * MIB, "");
    volume.patch(106, &[8, 0]);
    volume.patch(112, &[77]);
    assert_eq!(used_bytes(&volume).2, []);
}

#[test]
fn a_volume_that_was_not_unmounted_is_noted() {
    let volume = mkfs_exfat(16 * MIB, "");
    fill_exfat(&volume, 12 * MIB);
    let (used, cluster_size, _) = used_bytes(&volume);
    volume.patch(106, &[2, 0]);
    assert_eq!(used_bytes(&volume), (used, cluster_size, vec![MapNote::NotUnmounted]));
}

#[test]
fn a_full_volume_is_used_to_its_last_cluster() {
    for (len, options) in [(16 * MIB, "-c 512"), (16 * MIB + 5 * 4096, "-c 4096")] {
        let volume = mkfs_exfat(len, options);
        let (used, cluster_size, _) = used_bytes(&volume);
        let bytes = free_by_dump_exfat(&volume) * u64::from(cluster_size);
        assert_eq!(bytes, len - used.total_len());
        let mounted = Fused::new(&volume, "rw");
        let file = noise(3, usize::try_from(bytes).unwrap());
        std::fs::write(mounted.path().join("file"), file).unwrap();
        drop(mounted);
        assert_eq!(free_by_dump_exfat(&volume), 0, "{options}");
        assert_eq!(used_bytes(&volume).0.runs(), [Extent::new(0, len)], "{options}");
    }
}
