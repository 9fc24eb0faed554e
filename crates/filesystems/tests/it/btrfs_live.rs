//! Btrfs filesystems that are mounted, frozen, or damaged in one copy of their metadata, and the
//! disasters of other imagers.

use std::fs;
use std::io::Write;
use std::path::Path;

use aiv_filesystems::{BtrfsReason, MapNote, WholeReason, recognise, used_map};
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::btrfs_forge::{
    SUPERBLOCK, add_block_group_tree, block, bytes_at, forge_super_at, places_in, places_of,
    root_of,
};
use crate::btrfs_maps::check_map;
use crate::btrfs_tools::{
    MOUNT, assert_clean, chunks_by_dump, dump_tree, files_in, fill, mkfs, super_field, used_by_dump,
};
use crate::ext_tools::{MIB, churn, copy_of_used, used_bytes, whole_reason};
use crate::tools::{Mounted, Volume, files_below, noise, run};

fn sync_file(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// A volume as it is while it is mounted, and files were synced since the last commit.
pub(crate) fn with_log(options: &str, files: u64) -> Volume {
    let volume = mkfs(120 * MIB, options);
    let mounted = Mounted::new(&volume, MOUNT);
    let home = mounted.path().join("home");
    run("btrfs", &["subvolume", "create", home.to_str().unwrap()]);
    churn(&home, 4 * MIB);
    drop(mounted);
    let mounted = Mounted::new(&volume, MOUNT);
    let root = mounted.path();
    // The first change after a mount, and in a new chunk, commits.
    sync_file(&root.join("first"), &noise(1, 100_000));
    run("btrfs", &["filesystem", "sync", root.to_str().unwrap()]);
    sync_file(&root.join("home/dir1/file1"), &noise(77, 200_000));
    // A file that takes a new chunk makes the sync a commit: until none of them was one.
    let sync_files = || {
        let commits = bytes_at(&volume, SUPERBLOCK + 0x48, 8);
        for n in 0..files {
            sync_file(&root.join(format!("synced{n}")), &noise(n, 9000));
            sync_file(&root.join(format!("home/synced{n}")), &noise(n + 1, 5000));
        }
        commits == bytes_at(&volume, SUPERBLOCK + 0x48, 8)
    };
    assert!((0..20).any(|_| sync_files()), "every round is committed");
    let copy = volume.duplicate();
    drop(mounted);
    assert_ne!(super_field(&copy, "log_root"), 0, "everything was committed");
    copy
}

/// What `btrfs inspect-internal` finds in the log: its blocks, and extents of files.
fn logged_by_dump(volume: &Volume, dump: &str) -> ExtentSet {
    let node_size = super_field(volume, "nodesize");
    let mut extents = Vec::new();
    let chunks = chunks_by_dump(volume);
    let mut in_log = false;
    let mut add = |logical: u64, len: u64| {
        let places = places_in(&chunks, logical);
        extents.extend(places.into_iter().map(|place| Extent::new(place, len)));
    };
    for line in dump.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["leaf" | "node", logical, .., "owner", owner] => {
                in_log = owner == "TREE_LOG";
                if in_log {
                    add(logical.parse().unwrap(), node_size);
                }
            }
            ["extent" | "prealloc", "data", "disk", "byte", logical, "nr", len]
                if in_log && logical != "0" =>
            {
                add(logical.parse().unwrap(), len.parse().unwrap());
            }
            _ => {}
        }
    }
    extents.into_iter().collect()
}

/// Returns all trees as `btrfs inspect-internal` prints them.
fn check_log(options: &str, files: u64) -> String {
    let volume = with_log(options, files);
    let (used, _, notes) = used_bytes(&volume);
    assert_eq!(notes, [MapNote::LogPending]);
    let dump = run("btrfs", &["inspect-internal", "dump-tree", volume.path()]);
    let logged = logged_by_dump(&volume, &dump);
    let committed = used_by_dump(&volume);
    let expected: ExtentSet = committed.runs().iter().chain(logged.runs()).copied().collect();
    assert_eq!(used, expected);
    assert!(expected.total_len() > committed.total_len(), "the log holds nothing of its own");

    let copy = copy_of_used(&volume, &used);
    // The kernel replays both.
    let [original, copied] = [&volume, &copy].map(|volume| {
        let mounted = Mounted::new(volume, MOUNT);
        files_below(mounted.path())
    });
    assert_eq!(copied[Path::new("home/synced3")], noise(4, 5000));
    assert_eq!(copied[Path::new("home/dir1/file1")], noise(77, 200_000));
    assert!(original == copied, "contents differ");
    assert_clean(&copy);
    dump
}

#[test]
fn what_was_synced_since_the_last_commit_is_kept() {
    check_log("", 20);
    check_log("-M", 20);
}

#[test]
fn a_log_of_several_levels() {
    let dump = check_log("-n 4096 -m single", 120);
    let nodes = |line: &str| line.starts_with("node ") && line.ends_with("owner TREE_LOG");
    assert!(dump.lines().any(nodes), "no log tree has a node");
}

#[test]
fn a_frozen_filesystem_reads_like_one_that_was_unmounted() {
    let volume = mkfs(128 * MIB, "");
    fill(&volume, MOUNT, 4 * MIB);
    let mounted = Mounted::new(&volume, MOUNT);
    let path = mounted.path().to_str().unwrap();
    sync_file(&mounted.path().join("synced"), &noise(3, 50_000));
    fs::write(mounted.path().join("home/written"), noise(4, 500_000)).unwrap();
    fs::remove_file(mounted.path().join("home/dir1/file1")).unwrap();
    run("fsfreeze", &["-f", path]);
    let frozen = volume.duplicate();
    run("fsfreeze", &["-u", path]);
    let files = files_below(mounted.path());
    drop(mounted);
    assert_eq!(super_field(&frozen, "log_root"), 0);
    check_map(&frozen, &files);
}

/// partclone made images of such filesystems that had lost the root of the chunk tree, and could
/// not be restored.
#[test]
fn a_filesystem_with_a_block_group_tree_keeps_the_root_of_its_chunk_tree() {
    let volume = mkfs(128 * MIB, "");
    add_block_group_tree(&volume);
    assert_eq!(used_bytes(&volume).0, used_by_dump(&volume));
    let files = fill(&volume, MOUNT, 6 * MIB);
    // Now all of it is the kernel's own work.
    assert_eq!(super_field(&volume, "compat_ro_flags"), 0xb);
    assert!(!dump_tree(&volume, "extent").contains("BLOCK_GROUP_ITEM"));

    let (used, _, notes) = used_bytes(&volume);
    assert_eq!(notes, []);
    assert_eq!(used, used_by_dump(&volume));
    for tree in [1, 2, 3, 4, 11] {
        let root = root_of(&volume, tree);
        for place in places_of(&volume, root) {
            let extent = Extent::new(place, 16_384);
            assert_eq!(used.within(extent).next(), Some(extent), "root of tree {tree}");
        }
    }
    let copy = copy_of_used(&volume, &used);
    let root = root_of(&volume, 3);
    assert_eq!(block(&volume, root), block(&copy, root));
    assert!(files_in(&copy) == files, "contents differ");
    // These tools do not check such filesystems; the kernel compares all checksums.
    let mounted = Mounted::new(&copy, MOUNT);
    let report = run("btrfs", &["scrub", "start", "-B", mounted.path().to_str().unwrap()]);
    assert!(report.contains("no errors found"), "{report}");
}

#[test]
fn the_second_copy_of_metadata_stands_in_for_a_damaged_one() {
    let volume = mkfs(128 * MIB, "");
    let files = fill(&volume, MOUNT, 4 * MIB);
    let sound = used_bytes(&volume).0;
    for tree in [1, 2, 3, 4] {
        let root = root_of(&volume, tree);
        let places = places_of(&volume, root);
        assert_eq!(places.len(), 2);
        let damaged = volume.duplicate();
        damaged.patch(places[0] + 5000, b"damage");
        let (used, _, notes) = used_bytes(&damaged);
        assert_eq!(notes, [MapNote::DamagedCopies { blocks: 1 }], "tree {tree}");
        assert_eq!(used, sound);
        // Both copies are in the map, the damaged one as it is.
        for &place in &places {
            let extent = Extent::new(place, 16_384);
            assert_eq!(used.within(extent).next(), Some(extent));
        }
        if tree == 2 {
            let copy = copy_of_used(&damaged, &used);
            assert!(files_in(&copy) == files, "contents differ");
        }

        damaged.patch(places[1] + 5000, b"damage");
        let (section, offset) =
            (["root tree", "extent tree", "chunk tree", "device tree"], places[0]);
        let section = section[usize::try_from(tree).unwrap() - 1];
        let expected = BtrfsReason::Checksum { section, offset };
        assert_eq!(whole_reason(&damaged), WholeReason::Btrfs(expected));
    }
    // The second one of an older commit, the first one sound.
    let damaged = volume.duplicate();
    damaged.patch(places_of(&volume, root_of(&volume, 2))[1], &[0; 16_384]);
    assert_eq!(used_bytes(&damaged), (sound, 4096, Vec::new()));
}

#[test]
fn copies_of_the_superblock_are_kept_and_compared() {
    let volume = mkfs(128 * MIB, "");
    let files = fill(&volume, MOUNT, 4 * MIB);
    let copy_at = 64 * MIB;
    let place = Extent::new(copy_at, 4096);
    let sound = used_bytes(&volume).0;
    assert_eq!(sound.within(place).next(), Some(place));
    let generation = super_field(&volume, "generation");
    let damaged = volume.duplicate();
    damaged.patch(copy_at + 1000, b"damage");
    let old = volume.duplicate();
    forge_super_at(&old, copy_at, 0x48, &(generation - 1).to_le_bytes());
    for volume in [&damaged, &old] {
        let (used, _, notes) = used_bytes(volume);
        assert_eq!(notes, [MapNote::SuperblockCopiesDiffer]);
        assert_eq!(used, sound);
        assert!(files_in(&copy_of_used(volume, &used)) == files, "contents differ");
    }
    forge_super_at(&old, copy_at, 0x48, &(generation + 1).to_le_bytes());
    let (offset, superblock, copy) = (copy_at, generation, generation + 1);
    let expected = BtrfsReason::NewerCopy { offset, superblock, copy };
    assert_eq!(whole_reason(&old), WholeReason::Btrfs(expected));
    // The kernel mounts the first or nothing.
    let lost = volume.duplicate();
    lost.patch(SUPERBLOCK + 1000, b"damage");
    let expected = BtrfsReason::Checksum { section: "superblock", offset: SUPERBLOCK };
    assert_eq!(whole_reason(&lost), WholeReason::Btrfs(expected));
}

/// The copy at 256 GiB is in the middle of free space, like all of the device behind its start.
#[test]
fn a_large_device_has_three_superblocks_and_costs_little() {
    let volume = mkfs(300 << 30, "");
    fill(&volume, MOUNT, 4 * MIB);
    let used = used_bytes(&volume).0;
    assert_eq!(used, used_by_dump(&volume));
    let last = Extent::new(256 << 30, 4096);
    assert_eq!(used.within(last).next(), Some(last));
    let source = volume.open();
    let recognised = recognise(&source).unwrap();
    let before = source.bytes_read();
    used_map(&source, &recognised, Job::silent()).unwrap();
    let read = source.bytes_read() - before;
    assert!(read < MIB, "{read} bytes");
}
