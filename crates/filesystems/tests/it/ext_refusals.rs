//! What is not understood, or contradicts itself, means the whole volume, with the reason.

use aiv_filesystems::{ExtReason, FeatureClass, FilesystemKind, MapNote, WholeReason};
use aiv_volume_io::ReadAt;

use crate::ext_tools::{MIB, mke2fs, used_bytes, whole_reason};
use crate::tools::{Volume, run};

fn ext(volume: &Volume) -> ExtReason {
    match whole_reason(volume) {
        WholeReason::Ext(reason) => reason,
        other => panic!("{other}"),
    }
}

/// A volume without checksums, so that a patched field is judged by its value.
fn plain() -> Volume {
    mke2fs(20 * MIB, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg")
}

/// Byte offset of a structure of group 0, as dumpe2fs names it.
fn block_of(volume: &Volume, structure: &str) -> u64 {
    let dump = run("dumpe2fs", &[volume.path()]);
    let line = dump.lines().find(|line| line.contains(structure)).unwrap();
    let after = line.split(structure).nth(1).unwrap();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().unwrap() * 1024
}

#[test]
fn unknown_features_of_each_class() {
    for (at, class) in [
        (0x5c, FeatureClass::Compat),
        (0x60, FeatureClass::Incompat),
        (0x64, FeatureClass::RoCompat),
    ] {
        let volume = plain();
        let mut bits = [0; 4];
        volume.open().read_exact_at(&mut bits, 1024 + at).unwrap();
        let bits = u32::from_le_bytes(bits) | 0x4000_0000;
        volume.patch(1024 + at, &bits.to_le_bytes());
        let reason = ext(&volume);
        assert_eq!(reason, ExtReason::UnknownFeatures { class, bits: 0x4000_0000 });
        assert!(reason.to_string().contains("0x40000000"), "{reason}");
    }
}

#[test]
fn a_filesystem_with_errors_or_not_unmounted() {
    for state in [0, 2, 3] {
        let volume = plain();
        volume.patch(1024 + 0x3a, &[state, 0]);
        assert_eq!(ext(&volume), ExtReason::NotClean { state: state.into() });
    }
}

#[test]
fn a_filesystem_larger_than_its_volume() {
    let volume = plain();
    volume.set_len(20 * MIB - 1);
    let expected = ExtReason::LargerThanVolume { filesystem: 20 * MIB, volume: 20 * MIB - 1 };
    assert_eq!(ext(&volume), expected);
}

#[test]
fn free_counts_that_disagree_with_the_bitmap() {
    let volume = plain();
    let bitmap = block_of(&volume, "Block bitmap at ");
    // The last clusters of group 0 are free and no metadata.
    volume.patch(bitmap + 1000, &[0x01]);
    match ext(&volume) {
        ExtReason::FreeCount { group: 0, descriptor, bitmap } => {
            assert_eq!(descriptor, bitmap + 1);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_bitmap_that_calls_an_inode_table_free() {
    let volume = plain();
    let bitmap = block_of(&volume, "Block bitmap at ");
    let table = block_of(&volume, "Inode table at ") / 1024 - 1;
    let mut byte = [0];
    volume.open().read_exact_at(&mut byte, bitmap + table / 8).unwrap();
    volume.patch(bitmap + table / 8, &[byte[0] & !(1 << (table % 8))]);
    // One more used elsewhere keeps the count.
    volume.patch(bitmap + 1000, &[0x01]);
    assert_eq!(ext(&volume), ExtReason::MetadataFree { group: 0 });
}

#[test]
fn a_bitmap_without_padding() {
    let volume = plain();
    let dump = run("dumpe2fs", &[volume.path()]);
    let last = dump.rsplit("Block bitmap at ").next().unwrap();
    let digits: String = last.chars().take_while(char::is_ascii_digit).collect();
    volume.patch(digits.parse::<u64>().unwrap() * 1024 + 1023, &[0x7f]);
    assert_eq!(ext(&volume), ExtReason::Padding { group: 2 });
}

#[test]
fn descriptors_that_point_outside_or_at_each_other() {
    let volume = plain();
    let descriptors = 2048;
    volume.patch(descriptors + 4, &(20 * 1024 + 1u32).to_le_bytes());
    let block = 20 * 1024 + 1;
    assert_eq!(ext(&volume), ExtReason::Pointer { section: "inode bitmap", group: 0, block });

    let volume = plain();
    let mut bitmap = [0; 4];
    volume.open().read_exact_at(&mut bitmap, descriptors).unwrap();
    volume.patch(descriptors + 4, &bitmap);
    assert_eq!(ext(&volume), ExtReason::MetadataOverlap);
}

#[test]
fn every_checksum_is_checked() {
    let volume = mke2fs(20 * MIB, "-t ext4 -b 1024");
    let bitmap = block_of(&volume, "Block bitmap at ");
    for (at, section, offset) in [
        (1024 + 0x78, "superblock", 1024),
        (2048 + 64 + 0xc, "group descriptor", 2048 + 64),
        (bitmap + 1000, "block bitmap", bitmap),
    ] {
        let damaged = volume.duplicate();
        damaged.patch(at, &[0x5a]);
        assert_eq!(ext(&damaged), ExtReason::Checksum { section, offset });
    }
    let older = mke2fs(20 * MIB, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg");
    older.patch(2048 + 64 + 0xc, &[0x5a]);
    let offset = 2048 + 64;
    assert_eq!(ext(&older), ExtReason::Checksum { section: "group descriptor", offset });
}

#[test]
fn superblock_fields_out_of_range_are_named() {
    for (at, bytes, field) in [
        (0x18, 9u32, "s_log_cluster_size"),
        (0x20, 8191, "s_blocks_per_group"),
        (0x24, 9000, "s_clusters_per_group"),
        (0x14, 7, "s_first_data_block"),
        (0x28, 0, "s_inodes_per_group"),
        (0x28, 7, "s_inodes_count"),
        (0x58, 100, "s_inode_size"),
        (0xfe, 63, "s_desc_size"),
        (0x04, 0, "s_blocks_count"),
    ] {
        let volume = plain();
        // Sixteen bits where the field has no more.
        let len = if at == 0x58 || at == 0xfe { 2 } else { 4 };
        let at = if at == 0x18 { 0x1c } else { at };
        volume.patch(1024 + at, &bytes.to_le_bytes()[..len]);
        match ext(&volume) {
            ExtReason::Field { field: found, .. } => assert_eq!(found, field),
            other => panic!("{field}: {other}"),
        }
    }
}

#[test]
fn multi_mount_protection_in_use_is_noted() {
    let volume = mke2fs(20 * MIB, "-t ext4 -b 1024 -O mmp");
    assert_eq!(used_bytes(&volume).2, []);
    let dump = run("dumpe2fs", &["-h", volume.path()]);
    let line = dump.lines().find_map(|line| line.strip_prefix("MMP block number:")).unwrap();
    // The sequence number of somebody who has it mounted.
    volume.patch(line.trim().parse::<u64>().unwrap() * 1024 + 4, &17u32.to_le_bytes());
    assert_eq!(used_bytes(&volume).2, [MapNote::MountedElsewhere]);
}

#[test]
fn a_left_over_signature_of_another_kind() {
    let volume = plain();
    volume.patch(0x1_0040, b"_BHRfS_M");
    let (kind, other) = (FilesystemKind::Btrfs, FilesystemKind::Ext4);
    assert_eq!(whole_reason(&volume), WholeReason::Ambiguous { kind, other });
}

#[test]
fn kinds_without_a_map_say_so() {
    let volume = Volume::made_by(128 * MIB, "mkfs.f2fs", "-q");
    assert_eq!(whole_reason(&volume).to_string(), "no used-block map for f2fs yet");
    assert_eq!(whole_reason(&Volume::new(MIB)), WholeReason::UnknownFilesystem);
    assert_eq!(whole_reason(&Volume::new(0)), WholeReason::UnknownFilesystem);
}
