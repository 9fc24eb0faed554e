//! Maps of healthy Btrfs filesystems: exactly what `btrfs inspect-internal` names, and enough
//! for `btrfs check` and the kernel.

use aiv_volume_io::ReadAt;

use crate::btrfs_tools::{MOUNT, assert_clean, files_in, fill, mkfs, super_field, used_by_dump};
use crate::ext_tools::{MIB, complement, copy_of_used, used_bytes};
use crate::tools::{Files, Volume};

/// The map is what btrfs-progs says, and a volume of noise with only the used bytes in it is a
/// sound filesystem with the same files. Returns that volume.
pub(crate) fn check_map(volume: &Volume, files: &Files) -> Volume {
    let (used, cluster_size, notes) = used_bytes(volume);
    assert_eq!(u64::from(cluster_size), super_field(volume, "sectorsize"));
    assert_eq!(notes, []);
    assert_eq!(used, used_by_dump(volume));
    let free = complement(&used, volume.open().len());
    assert!(free.total_len() > MIB, "a full volume proves nothing");
    let copy = copy_of_used(volume, &used);
    assert_clean(&copy);
    assert!(files_in(&copy) == *files, "contents differ");
    copy
}

/// Makes a filesystem, fills it through the kernel, and checks its map, empty and full.
fn check(mib: u64, options: &str) {
    check_mounted(mib, options, MOUNT);
}

fn check_mounted(mib: u64, options: &str, mount: &str) {
    let volume = mkfs(mib * MIB, options);
    assert_eq!(used_bytes(&volume).0, used_by_dump(&volume), "empty");
    let files = fill(&volume, mount, 8 * MIB);
    check_map(&volume, &files);
}

#[test]
fn btrfs_as_made_today() {
    check(160, "");
}

#[test]
fn one_copy_of_metadata() {
    check(100, "-m single -d single");
}

#[test]
fn two_copies_of_everything() {
    check(256, "-m dup -d dup");
}

#[test]
fn raid0_over_one_device() {
    check(128, "-m raid0 -d raid0");
}

#[test]
fn data_and_metadata_in_one_block_group() {
    check(100, "-M");
    check(256, "-M -m dup -d dup");
}

#[test]
fn tree_blocks_of_other_sizes() {
    check(128, "-n 4096 -m single");
    check(160, "-n 65536");
}

#[test]
fn every_checksum() {
    for algorithm in ["xxhash", "sha256", "blake2"] {
        check(128, &format!("--csum {algorithm} -m single"));
    }
}

#[test]
fn the_features_of_ten_years_ago() {
    check_mounted(128, "-O ^skinny-metadata,^no-holes,^extref -R ^free-space-tree", MOUNT);
}

#[test]
fn a_free_space_cache_in_files() {
    check_mounted(128, "-R ^free-space-tree", &format!("{MOUNT},space_cache=v1"));
}

#[test]
fn compressed_files() {
    for method in ["zstd:3", "lzo", "zlib"] {
        check_mounted(128, "-m single", &format!("{MOUNT},compress-force={method}"));
    }
}
