//! Maps of healthy ext filesystems: exactly what dumpe2fs calls used, and enough for e2fsck.

use std::fs;

use aiv_filesystems::{FilesystemKind, recognise};
use aiv_volume_io::{Extent, ReadAt};

use crate::ext_tools::{
    MIB, assert_clean, churn, complement, copy_of_used, files_in, free_by_dumpe2fs, mke2fs,
    mke2fs_in, used_bytes,
};
use crate::tools::{Files, Mounted, Volume, files_below, noise, run};

/// The map is what dumpe2fs says, and a volume of noise with only the used bytes in it is a
/// sound filesystem with all its `files`.
fn check_map(volume: &Volume, cluster_size: u32, files: &Files) {
    let source = volume.open();
    recognise(&source).unwrap();
    let read_to_recognise = source.bytes_read();
    assert!(read_to_recognise <= 300 << 10, "{read_to_recognise} bytes to recognise");

    let (used, found_cluster_size, notes) = used_bytes(volume);
    assert_eq!(found_cluster_size, cluster_size);
    assert_eq!(notes, []);
    let free = free_by_dumpe2fs(volume, cluster_size);
    assert_eq!(complement(&used, source.len()), free);
    assert!(!free.is_empty(), "a full volume proves nothing");

    let copy = copy_of_used(volume, &used);
    assert_clean(&copy);
    assert!(files_in(&copy) == *files, "contents differ");
}

/// Makes a filesystem, fills it through the kernel, and checks its map, empty and full.
fn check(mib: u64, options: &str, cluster_size: u32) {
    let volume = mke2fs(mib * MIB, options);
    let free = free_by_dumpe2fs(&volume, cluster_size);
    assert_eq!(complement(&used_bytes(&volume).0, mib * MIB), free, "empty");
    let files = fill(&volume, mib * MIB);
    check_map(&volume, cluster_size, &files);
}

/// Fills a filesystem through the kernel and returns what is then in it.
fn fill(volume: &Volume, bytes: u64) -> Files {
    let mounted = Mounted::new(volume, "rw");
    churn(mounted.path(), bytes);
    files_below(mounted.path())
}

#[test]
fn ext4_as_made_today() {
    check(18, "-t ext4 -b 4096 -g 1024", 4096);
    check(18, "-t ext4 -b 2048 -g 2048", 2048);
    check(18, "-t ext4 -b 1024", 1024);
}

#[test]
fn ext4_of_a_few_years_ago() {
    check(18, "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg", 1024);
    check(18, "-t ext4 -b 1024 -O 64bit,^metadata_csum,uninit_bg", 1024);
    check(18, "-t ext4 -b 4096 -g 1024 -O ^64bit,metadata_csum", 4096);
    check(18, "-t ext4 -b 4096 -g 1024 -O ^64bit,^metadata_csum,^uninit_bg", 4096);
}

#[test]
fn ext3_and_ext2() {
    check(18, "-t ext3 -b 1024", 1024);
    check(18, "-t ext2 -b 1024", 1024);
    check(18, "-t ext2 -b 4096 -g 1024 -O ^sparse_super,^resize_inode", 4096);
    check(8, "-t ext2 -b 1024 -r 0 -O none", 1024);
}

#[test]
fn clusters_of_blocks() {
    check(18, "-t ext4 -b 4096 -O bigalloc -C 16384 -g 4096", 16_384);
    check(18, "-t ext4 -b 1024 -O bigalloc -C 16384", 16_384);
    check(18, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 2048 -g 4096", 2048);
}

#[test]
fn descriptors_spread_over_the_groups() {
    check(18, "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 512", 1024);
    check(18, "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^flex_bg -g 256", 1024);
    check(18, "-t ext4 -b 4096 -O meta_bg,^resize_inode -g 512", 4096);
}

#[test]
fn groups_that_keep_their_metadata_to_themselves() {
    check(18, "-t ext4 -b 1024 -O ^flex_bg", 1024);
    check(18, "-t ext4 -b 1024 -O ^flex_bg,^metadata_csum,uninit_bg", 1024);
}

#[test]
fn few_backups_of_the_superblock() {
    check(18, "-t ext4 -b 1024 -O sparse_super2,^resize_inode", 1024);
    check(18, "-t ext4 -b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=1", 1024);
    check(18, "-t ext4 -b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=0 -G 4", 1024);
}

#[test]
fn odd_sizes_and_few_inodes() {
    let volume = mke2fs(33 * MIB + 7 * 1024, "-t ext4 -b 1024 -N 16");
    check_map(&volume, 1024, &Files::new());
    check(2, "-t ext4 -b 1024 -N 64 -O ^has_journal", 1024);
    check(20, "-t ext4 -b 4096 -g 1024 -I 1024 -O ^has_journal", 4096);
}

#[test]
fn features_that_do_not_touch_free_blocks() {
    let features = "casefold,encrypt,verity,inline_data,ea_inode,large_dir,quota,project,\
                    orphan_file,metadata_csum_seed,stable_inodes,fast_commit,mmp";
    let volume = mke2fs(24 * MIB, &format!("-t ext4 -b 1024 -O {features}"));
    check_map(&volume, 1024, &Files::new());
}

#[test]
fn blocks_larger_than_a_page() {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("a"), noise(1, 3_000_000)).unwrap();
    fs::write(files.path().join("b"), noise(2, 70_000)).unwrap();
    for block_size in [8192, 65_536] {
        let from = files.path().display();
        let volume = mke2fs(48 * MIB, &format!("-t ext4 -b {block_size} -d {from}"));
        check_map(&volume, block_size, &files_below(files.path()));
    }
}

#[test]
fn a_filesystem_that_grew_and_one_that_shrank() {
    for (options, sizes) in [
        ("-t ext4 -b 1024", &["45M", "18M", "61M"][..]),
        ("-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg", &["36M", "26M"]),
        ("-t ext4 -b 1024 -O meta_bg,^resize_inode -g 512", &["36M", "26M"]),
        ("-t ext4 -b 1024 -O sparse_super2,^resize_inode", &["36M", "26M"]),
    ] {
        let volume = mke2fs(26 * MIB, options);
        let files = fill(&volume, 10 * MIB);
        volume.set_len(64 * MIB);
        for size in sizes {
            assert_clean(&volume);
            run("resize2fs", &["-f", volume.path(), size]);
            // The file keeps its length: what lies after the filesystem is kept, see below.
            check_map(&volume, 1024, &files);
        }
    }
}

#[test]
fn what_surrounds_the_filesystem_is_kept() {
    let volume = mke2fs_in(20 * MIB, 10 * MIB, "-t ext4 -b 1024");
    let (used, ..) = used_bytes(&volume);
    for kept in [Extent::new(0, 1024), Extent::new(10 * MIB, 10 * MIB)] {
        assert_eq!(used.within(kept).collect::<Vec<_>>(), [kept]);
    }
}

#[test]
fn the_kinds_are_told_apart() {
    for (options, kind) in [
        ("-t ext2", FilesystemKind::Ext2),
        ("-t ext3", FilesystemKind::Ext3),
        ("-t ext4", FilesystemKind::Ext4),
        ("-t ext4 -O ^has_journal", FilesystemKind::Ext4),
        ("-O journal_dev", FilesystemKind::ExtJournal),
    ] {
        let volume = mke2fs(8 * MIB, options);
        let recognised = recognise(&volume.open()).unwrap();
        assert_eq!(recognised.kind, kind, "{options}");
    }
}
