//! FAT volumes that are not understood, or contradict themselves, are kept whole.

use aiv_filesystems::{FatReason, FilesystemKind, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::{Extent, Job, MemDisk};

use crate::ext_tools::{MIB, whole_reason};
use crate::fat_maps::set_entry16;
use crate::fat_tools::{bytes_at, fill_fat, mkfs_fat};
use crate::tools::{Volume, run};

fn fat(volume: &Volume) -> FatReason {
    match whole_reason(volume) {
        WholeReason::Fat(reason) => reason,
        other => panic!("{other}"),
    }
}

fn fat16() -> Volume {
    mkfs_fat(20 * MIB, "-F 16 -s 4")
}

fn fat32() -> Volume {
    mkfs_fat(36 * MIB, "-F 32 -s 1")
}

/// The reason for a boot sector that `recognise` itself would not take for FAT.
fn reason_of_bytes(change: impl FnOnce(&mut [u8])) -> FatReason {
    let volume = mkfs_fat(2 * MIB, "-F 12");
    let recognised = recognise(&volume.open()).unwrap();
    assert_eq!(recognised.kind, FilesystemKind::Fat12);
    let mut bytes = bytes_at(&volume, Extent::new(0, 2 * MIB));
    change(&mut bytes);
    match used_map(&MemDisk::from_bytes(bytes), &recognised, Job::silent()).unwrap() {
        UsedMap::Whole { reason: WholeReason::Fat(reason) } => reason,
        other => panic!("{other:?}"),
    }
}

fn field(reason: FatReason) -> &'static str {
    match reason {
        FatReason::Field { field, .. } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn a_volume_without_a_boot_sector() {
    assert_eq!(reason_of_bytes(|bytes| bytes[510] = 0), FatReason::NoBootSector);
    let recognised = recognise(&fat16().open()).unwrap();
    let short = MemDisk::from_bytes(vec![0; 511]);
    let map = used_map(&short, &recognised, Job::silent()).unwrap();
    let reason = WholeReason::Fat(FatReason::NoBootSector);
    assert_eq!(map, UsedMap::Whole { reason });
}

#[test]
fn boot_sector_fields_out_of_range_are_named() {
    for (at, value, name) in [
        (11, &[0, 1][..], "BPB_BytsPerSec"),
        (11, &[0, 0x20], "BPB_BytsPerSec"),
        (13, &[0], "BPB_SecPerClus"),
        (13, &[3], "BPB_SecPerClus"),
        (14, &[0, 0], "BPB_RsvdSecCnt"),
        (16, &[0], "BPB_NumFATs"),
        (16, &[3], "BPB_NumFATs"),
        (17, &[0, 0], "BPB_RootEntCnt"),
        (17, &[1, 2], "BPB_RootEntCnt"),
        (19, &[0, 0], "BPB_TotSec32"),
        (21, &[0xf1], "BPB_Media"),
        (22, &[0xff, 0x7f], "BPB_FATSz16"),
    ] {
        let reason = reason_of_bytes(|bytes| bytes[at..at + value.len()].copy_from_slice(value));
        assert_eq!(field(reason), name);
    }
}

#[test]
fn too_many_clusters_for_16_bits() {
    // Clusters of one sector instead of four.
    let volume = mkfs_fat(120 * MIB, "-F 16 -s 4");
    let recognised = recognise(&volume.open()).unwrap();
    volume.patch(13, &[1]);
    match used_map(&volume.open(), &recognised, Job::silent()).unwrap() {
        UsedMap::Whole { reason: WholeReason::Fat(reason) } => {
            assert_eq!(field(reason), "CountofClusters");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_of_fat32_out_of_range_are_named() {
    for (at, value, name) in [
        (17, &[0, 2][..], "BPB_RootEntCnt"),
        (36, &[0, 0, 0, 0], "BPB_FATSz32"),
        (42, &[1, 0], "BPB_FSVer"),
        (44, &[1, 0, 0, 0], "BPB_RootClus"),
        (44, &[0, 0, 0xff, 0], "BPB_RootClus"),
        (48, &[32, 0], "BPB_FSInfo"),
        (50, &[200, 0], "BPB_BkBootSec"),
    ] {
        let volume = fat32();
        let recognised = recognise(&volume.open()).unwrap();
        volume.patch(at, value);
        match used_map(&volume.open(), &recognised, Job::silent()).unwrap() {
            UsedMap::Whole { reason: WholeReason::Fat(reason) } => assert_eq!(field(reason), name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn two_different_numbers_of_sectors() {
    let reason = reason_of_bytes(|bytes| bytes[32] = 9);
    assert_eq!(reason, FatReason::TwoSizes { small: 4096, large: 9 });
}

#[test]
fn a_filesystem_larger_than_its_volume() {
    let volume = fat16();
    volume.set_len(20 * MIB - 512);
    let (filesystem, volume_len) = (20 * MIB, 20 * MIB - 512);
    let expected = FatReason::LargerThanVolume { filesystem, volume: volume_len };
    assert_eq!(fat(&volume), expected);
}

#[test]
fn fat32_with_the_number_of_clusters_of_fat16() {
    let volume = mkfs_fat(36 * MIB, "-F 32 -s 8");
    match fat(&volume) {
        FatReason::TooFewForFat32 { clusters } => assert!(clusters < 10_000),
        other => panic!("{other}"),
    }
}

#[test]
fn numbers_of_clusters_that_drivers_read_with_entries_of_different_widths() {
    let volume = mkfs_fat(3 * MIB, "-F 16 -s 1 -f 1");
    let boot = bytes_at(&volume, Extent::new(0, 512));
    let word = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
    let first = word(14) + word(22) + word(17) / 16;
    let map = |clusters: u16| {
        volume.patch(19, &(first + clusters).to_le_bytes());
        let recognised = recognise(&volume.open()).unwrap();
        used_map(&volume.open(), &recognised, Job::silent()).unwrap()
    };
    for clusters in [4085, 4086] {
        let reason = FatReason::TwoWidths { clusters: clusters.into() };
        assert_eq!(map(clusters), UsedMap::Whole { reason: WholeReason::Fat(reason) });
    }
    assert!(matches!(map(4087), UsedMap::Used { .. }));
    // An empty table reads the same either way, but for the mark at its front.
    volume.patch(u64::from(word(14)) * 512, &[0xf8, 0xff, 0xff, 0]);
    assert!(matches!(map(4084), UsedMap::Used { .. }));
}

#[test]
fn a_table_too_small_for_its_clusters() {
    let volume = fat16();
    volume.patch(22, &[9, 0]);
    match fat(&volume) {
        FatReason::TableTooSmall { bytes: 4608, clusters } => assert!(clusters > 10_000),
        other => panic!("{other}"),
    }
}

#[test]
fn tables_that_are_not_mirrored() {
    let volume = fat32();
    volume.patch(40, &[0x81, 0]);
    assert_eq!(fat(&volume), FatReason::NotMirrored { flags: 0x81 });
}

#[test]
fn tables_that_differ() {
    let volume = fat16();
    volume.patch(4 * 512 + 2 * 700, &[0xff, 0xff]);
    assert_eq!(fat(&volume), FatReason::TablesDiffer { cluster: 700 });

    let volume = fat32();
    volume.patch(32 * 512 + 4 * 60_000, &[0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(fat(&volume), FatReason::TablesDiffer { cluster: 60_000 });

    let reason = reason_of_bytes(|bytes| bytes[512 + 3 * 50] = 1);
    assert_eq!(reason, FatReason::TablesDiffer { cluster: 100 });
}

#[test]
fn a_table_that_begins_with_something_else() {
    let volume = fat16();
    set_entry16(&volume, 0, 0xfff0);
    assert_eq!(fat(&volume), FatReason::FirstEntry { found: 0xfff0, expected: 0xfff8 });
    set_entry16(&volume, 0, 0);
    assert_eq!(fat(&volume), FatReason::FirstEntry { found: 0, expected: 0xfff8 });
}

#[test]
fn entries_that_are_nothing() {
    for value in [1, 0x7fff, 0xfff0, 0xfff6] {
        let volume = fat16();
        set_entry16(&volume, 900, value);
        assert_eq!(fat(&volume), FatReason::Entry { cluster: 900, value: value.into() });
    }
}

#[test]
fn a_chain_that_leads_to_a_free_cluster() {
    let volume = fat16();
    fill_fat(&volume, 20 * MIB);
    set_entry16(&volume, 9000, 9001);
    assert_eq!(fat(&volume), FatReason::LinkToFree { cluster: 9001 });
}

#[test]
fn a_root_directory_that_is_free() {
    let volume = mkfs_fat(36 * MIB, "-F 32 -s 1 -f 1");
    volume.patch(32 * 512 + 8, &[0; 4]);
    assert_eq!(fat(&volume), FatReason::RootFree { cluster: 2 });
}

/// A FAT16 volume, where a directory entry of its root is, and the entry.
fn with_folder() -> (Volume, u64, [u8; 32]) {
    let volume = fat16();
    run("mmd", &["-i", volume.path(), "::/FOLDER"]);
    let boot = bytes_at(&volume, Extent::new(0, 512));
    let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let root = (word(14) + 2 * word(22)) * 512;
    let entry = bytes_at(&volume, Extent::new(root, 32));
    (volume, root, entry.try_into().unwrap())
}

#[test]
fn a_file_or_folder_whose_first_cluster_is_free() {
    for attributes in [0x20, 0x10] {
        let (volume, root, mut entry) = with_folder();
        entry[0] = b'X';
        entry[11] = attributes;
        entry[26..28].copy_from_slice(&777u16.to_le_bytes());
        volume.patch(root + 32, &entry);
        assert_eq!(fat(&volume), FatReason::FileFree { cluster: 777 });
        // In a folder as well, whether the volume was unmounted or not.
        volume.patch(root + 32, &[0; 32]);
        let folder = u32::from(u16::from_le_bytes([with_folder().2[26], with_folder().2[27]]));
        let boot_sectors = root + 512 * 32;
        volume.patch(boot_sectors + u64::from(folder - 2) * 2048 + 64, &entry);
        volume.patch(37, &[1]);
        assert_eq!(fat(&volume), FatReason::FileFree { cluster: 777 });
    }
}

#[test]
fn a_directory_entry_that_names_no_cluster() {
    for (attributes, cluster) in [(0x20, 1), (0x20, 0xffff), (0x10, 0), (0x10, 0xfff8)] {
        let (volume, root, mut entry) = with_folder();
        entry[0] = b'X';
        entry[11] = attributes;
        entry[26..28].copy_from_slice(&u16::to_le_bytes(cluster));
        volume.patch(root + 32, &entry);
        let (offset, cluster) = (root + 32, cluster.into());
        assert_eq!(fat(&volume), FatReason::DirectoryEntry { offset, cluster });
    }
}

#[test]
fn two_folders_in_one_place_and_one_that_does_not_end() {
    let (volume, root, mut entry) = with_folder();
    let cluster = u16::from_le_bytes([entry[26], entry[27]]);
    entry[0] = b'X';
    volume.patch(root + 32, &entry);
    assert_eq!(fat(&volume), FatReason::SharedFolder { cluster: cluster.into() });

    let (volume, ..) = with_folder();
    set_entry16(&volume, cluster.into(), cluster);
    assert_eq!(fat(&volume), FatReason::SharedFolder { cluster: cluster.into() });
}
