//! Maps of healthy XFS filesystems: exactly what xfs_db calls used, and enough for xfs_repair
//! and the kernel.

use std::fs;

use aiv_filesystems::{WholeReason, XfsLogState, XfsReason};
use aiv_volume_io::{Extent, ReadAt};

use crate::ext_tools::{MIB, complement, copy_of_used, used_bytes, whole_reason};
use crate::tools::{Files, Mounted, Volume, noise, run};
use crate::xfs_tools::{
    MOUNT, assert_clean, field, files_in, fill, fragment, free_by_xfs_db, mkfs, xfs_db,
};

/// The map is what xfs_db says, and a volume of noise with only the used bytes in it is a sound
/// filesystem. Returns that volume.
fn check_free(volume: &Volume, cluster_size: u32) -> Volume {
    let source = volume.open();
    let (used, found_cluster_size, notes) = used_bytes(volume);
    assert_eq!(found_cluster_size, cluster_size);
    assert_eq!(notes, []);
    let free = free_by_xfs_db(volume);
    // xfs_db knows nothing of what lies behind the filesystem.
    assert_eq!(complement(&used, source.len()), free);
    assert!(!free.is_empty(), "a full volume proves nothing");
    let copy = copy_of_used(volume, &used);
    assert_clean(&copy);
    copy
}

pub(crate) fn check_map(volume: &Volume, cluster_size: u32, files: &Files) {
    let copy = check_free(volume, cluster_size);
    assert!(files_in(&copy) == *files, "contents differ");
}

/// Makes a filesystem, fills it through the kernel, and checks its map, empty and full.
fn check(mib: u64, options: &str, cluster_size: u32) {
    let volume = mkfs(mib * MIB, options);
    let free = free_by_xfs_db(&volume);
    assert_eq!(complement(&used_bytes(&volume).0, mib * MIB), free, "empty");
    let files = fill(&volume, 12 * MIB, !options.contains("reflink=0"));
    check_map(&volume, cluster_size, &files);
}

#[test]
fn xfs_as_made_today() {
    check(48, "-b size=4096 -d agcount=1", 4096);
    check(48, "-b size=4096 -d agcount=3", 4096);
    check(64, "-b size=1024 -d agcount=4", 1024);
    check(48, "-b size=2048 -d agcount=2", 2048);
}

#[test]
fn sectors_of_4096_bytes() {
    check(48, "-b size=4096 -s size=4096 -d agcount=2", 4096);
    check(48, "-b size=1024 -s size=1024 -d agcount=2", 1024);
}

#[test]
fn reverse_mappings_shared_blocks_and_neither() {
    check(48, "-b size=4096 -d agcount=2 -m rmapbt=1,reflink=1", 4096);
    check(48, "-b size=1024 -d agcount=2 -m rmapbt=1,reflink=0", 1024);
    check(48, "-b size=4096 -d agcount=2 -m rmapbt=0,reflink=0,finobt=0,inobtcount=0", 4096);
    check(48, "-b size=4096 -d agcount=2 -m bigtime=1 -i nrext64=1,size=1024", 4096);
}

#[test]
fn stripes_and_wide_log_records() {
    check(64, "-b size=4096 -d agcount=3,su=64k,sw=2 -l su=256k", 4096);
    check(48, "-b size=4096 -d agcount=2 -l su=64k", 4096);
}

#[test]
fn trees_of_several_levels() {
    let volume = mkfs(96 * MIB, "-b size=1024 -d agcount=1 -m rmapbt=1 -l size=6m");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 21_000);
    drop(mounted);
    assert_eq!(field(&volume, "agf 0", "bnolevel"), 3);
    let files = files_in(&volume);
    assert_eq!(files.len(), 10_500);
    check_map(&volume, 1024, &files);
}

#[test]
fn a_full_filesystem_and_one_emptied_again() {
    let volume = mkfs(40 * MIB, "-b size=4096 -d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    let full = (0..200)
        .find(|n| fs::write(mounted.path().join(n.to_string()), noise(*n, 400_000)).is_err());
    assert!(full.is_some());
    drop(mounted);
    check_map(&volume, 4096, &files_in(&volume));
    let mounted = Mounted::new(&volume, MOUNT);
    for n in 0..full.unwrap() {
        fs::remove_file(mounted.path().join(n.to_string())).unwrap();
    }
    drop(mounted);
    check_map(&volume, 4096, &files_in(&volume));
}

#[test]
fn a_filesystem_that_grew_by_a_tiny_group() {
    let volume = mkfs(32 * MIB, "-b size=4096 -d agcount=2");
    let files = fill(&volume, 8 * MIB, true);
    volume.set_len(32 * MIB + 100 * 4096 + 512);
    let mounted = Mounted::new(&volume, MOUNT);
    run("xfs_growfs", &[mounted.path().to_str().unwrap()]);
    drop(mounted);
    assert_eq!(field(&volume, "sb 0", "agcount"), 3);
    assert_eq!(field(&volume, "agf 2", "length"), 100);
    check_map(&volume, 4096, &files);
}

#[test]
fn what_follows_the_filesystem_is_kept() {
    let volume = mkfs(32 * MIB, "-d agcount=2");
    volume.set_len(40 * MIB);
    let (used, ..) = used_bytes(&volume);
    let kept = Extent::new(32 * MIB, 8 * MIB);
    assert_eq!(used.within(kept).collect::<Vec<_>>(), [kept]);
    check_free(&volume, 4096);
}

#[test]
fn a_filesystem_with_a_new_identity() {
    let volume = mkfs(32 * MIB, "-d agcount=2");
    let files = fill(&volume, 8 * MIB, true);
    run("xfs_admin", &["-U", "generate", volume.path()]);
    assert_ne!(field(&volume, "sb 0", "features_incompat") & 4, 0, "no meta_uuid");
    // xfs_admin leaves a log that looks like one with a hole, until it is used again.
    let reason = whole_reason(&volume);
    let expected = XfsReason::LogDirty(XfsLogState::Cycles { block: 341 });
    assert_eq!(reason, WholeReason::Xfs(expected));
    drop(Mounted::new(&volume, "rw"));
    check_map(&volume, 4096, &files);
}

/// The kernel here has no version 4. mkfs puts files in, xfs_db says where they lie.
#[test]
fn version_4() {
    let content = tempfile::tempdir().unwrap();
    let mut proto = "nothing\n1 1\nd--755 0 0\n".to_owned();
    let mut files = Vec::new();
    for n in 0..30u64 {
        let path = content.path().join(format!("file{n}"));
        fs::write(&path, noise(n, usize::try_from(n * 7777).unwrap() + 1)).unwrap();
        proto += &format!("file{n} ---644 0 0 {}\n", path.display());
        files.push(path);
    }
    proto += "$\n$\n";
    let proto_path = content.path().join("proto");
    fs::write(&proto_path, proto).unwrap();
    for (options, cluster_size) in [
        ("-m crc=0 -b size=512 -d agcount=2", 512),
        ("-m crc=0 -b size=1024 -d agcount=3 -l lazy-count=0", 1024),
        ("-m crc=0 -b size=4096 -d agcount=2 -l version=1", 4096),
        ("-m crc=0 -b size=4096 -s size=4096 -d agcount=2 -n ftype=1", 4096),
        ("-m crc=0 -b size=32768 -d agcount=2", 32_768),
    ] {
        let volume = mkfs(64 * MIB, &format!("{options} -p {}", proto_path.display()));
        let copy = check_free(&volume, cluster_size);
        for path in &files {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(read_by_xfs_db(&copy, name), fs::read(path).unwrap(), "{options}: {name}");
        }
    }
}

/// A file of the root directory, by the places xfs_db names.
fn read_by_xfs_db(volume: &Volume, name: &str) -> Vec<u8> {
    let [block_size, group_blocks] =
        ["blocksize", "agblocks"].map(|name| field(volume, "sb 0", name));
    let path = format!("path /{name}");
    let size = field(volume, &path, "core.size");
    let mut bytes = Vec::new();
    // "data offset 0 startblock 12 (0/12) count 3 flag 0"
    for line in xfs_db(volume, &[&path, "bmap -d"]).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (group, block) = words[5].trim_matches(['(', ')']).split_once('/').unwrap();
        let number = |text: &str| text.parse::<u64>().unwrap();
        let count = if words[6] == "count" { number(words[7]) } else { 1 };
        let start = bytes.len();
        bytes.resize(start + usize::try_from(count * block_size).unwrap(), 0);
        let at = (number(group) * group_blocks + number(block)) * block_size;
        volume.open().read_exact_at(&mut bytes[start..], at).unwrap();
    }
    bytes.truncate(usize::try_from(size).unwrap());
    bytes
}
