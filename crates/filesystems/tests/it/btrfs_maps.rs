//! Maps of healthy Btrfs filesystems: exactly what `btrfs inspect-internal` names, and enough
//! for `btrfs check` and the kernel.

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::btrfs_tools::{MOUNT, assert_clean, files_in, fill, mkfs, super_field, used_by_dump};
use crate::ext_tools::{MIB, churn, complement, copy_of_used, used_bytes};
use crate::tools::{Files, Volume, run, try_run};

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
    let files = fill(&volume, mount, 5 * MIB);
    check_map(&volume, &files);
}

#[test]
fn btrfs_as_made_today() {
    check(128, "");
}

#[test]
fn one_copy_of_metadata() {
    check(64, "-m single -d single");
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
    check(64, "-M");
    check(256, "-M -m dup -d dup");
}

/// partclone counts in tree blocks: here as long as sectors, all of them once on the device.
#[test]
fn partclone_finds_the_same_amount_in_use() {
    let volume = mkfs(100 * MIB, "-M -n 4096");
    fill(&volume, MOUNT, 8 * MIB);
    let [image, log] = ["image", "log"].map(|name| volume.dir.path().join(name));
    let [image, log] = [&image, &log].map(|path| path.to_str().unwrap());
    let words = ["-c", "-s", volume.path(), "-o", image, "-L", log];
    let output = try_run("partclone.btrfs", &words);
    assert!(output.status.success(), "{output:?}");
    let said = std::fs::read_to_string(log).unwrap();
    let line = said.lines().find(|line| line.contains("Space in use")).unwrap();
    let blocks: u64 = line.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    // It keeps the first MiB and the superblocks, too, but does not count them.
    let kept = MIB + 4096;
    assert_eq!(used_bytes(&volume).0.total_len(), kept + blocks * 4096, "{line}");
}

#[test]
fn tree_blocks_of_other_sizes() {
    check(64, "-n 4096 -m single");
    check(128, "-n 65536");
}

/// The kernel here mounts sectors of 4 KiB only; mkfs puts files in.
#[test]
fn sectors_of_other_sizes() {
    let content = tempfile::tempdir().unwrap();
    churn(content.path(), 4 * MIB);
    for options in ["-s 8192", "-s 16384 -m single", "-s 65536 -n 65536 -m single"] {
        let from = content.path().display();
        let volume = Volume::new(128 * MIB + 512);
        // The device ends in the middle of a sector.
        let words = format!("-q -f {options} -r {from}");
        run("mkfs.btrfs", &volume.with_path(&words));
        let (used, cluster_size, notes) = used_bytes(&volume);
        assert_eq!(u64::from(cluster_size), super_field(&volume, "sectorsize"));
        assert_eq!(notes, []);
        let sector = u64::from(cluster_size).max(4096);
        let copy = Extent::new(64 * MIB, sector);
        let expected = used_by_dump(&volume);
        let expected: ExtentSet = expected.runs().iter().copied().chain([copy]).collect();
        assert_eq!(used, expected, "{options}");
        assert_clean(&copy_of_used(&volume, &used));
    }
}

#[test]
fn every_checksum() {
    for algorithm in ["xxhash", "sha256", "blake2"] {
        check(64, &format!("--csum {algorithm} -m single"));
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
        check_mounted(64, "-m single", &format!("{MOUNT},compress-force={method}"));
    }
}
