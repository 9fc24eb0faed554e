//! Files of XFS by name: their blocks are what xfs_db says, what anybody shares stays, and a
//! volume without them is sound and has every other file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use aiv_filesystems::{KeptReason, Matching};
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::ext_files::{found, look_for, paths};
use crate::ext_tools::{MIB, copy_of_used, used_bytes};
use crate::left_out::{Judges, check};
use crate::reader_tools::opened;
use crate::tools::{Mounted, Volume, noise, run};
use crate::xfs_forge::{Forged, sum_of};
use crate::xfs_reader_v4::Content;
use crate::xfs_tools::{MOUNT, assert_clean, field, files_in, fill, mkfs, xfs_db};

const XFS: Judges = Judges { assert_clean, files_in };

/// Size of a block, blocks of a group, and bits of a block in its group.
fn geometry(volume: &Volume) -> [u64; 3] {
    ["blocksize", "agblocks", "agblklog"].map(|name| field(volume, "sb 0", name))
}

/// Where xfs_db says that the data of an inode lie.
fn by_xfs_db(
    volume: &Volume,
    [block_size, group_blocks, log]: [u64; 3],
    inode: u64,
) -> Vec<Extent> {
    let said = xfs_db(volume, &[&format!("inode {inode}"), "bmap -d"]);
    let extents = said.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "startblock").unwrap() + 1;
        let block: u64 = words[at].parse().unwrap();
        let at = words.iter().position(|word| *word == "count").unwrap() + 1;
        let count: u64 = words[at].parse().unwrap();
        let place = (block >> log) * group_blocks + (block & ((1 << log) - 1));
        Extent::new(place * block_size, count * block_size)
    });
    extents.collect::<ExtentSet>().runs().to_vec()
}

/// All files without any that share blocks are found where xfs_db has them; without some the
/// volume is sound and has all others.
fn check_volume(len: u64, options: &str, reflink: bool) {
    let volume = mkfs(len, options);
    fill(&volume, 6 * MIB, reflink);
    let mut inodes = BTreeMap::new();
    {
        let mounted = Mounted::new(&volume, MOUNT);
        let root = mounted.path();
        // An extent tree of its own, and a list of access that takes a block.
        let holes = File::create(root.join("holes.iso")).unwrap();
        for n in 0..400 {
            holes.write_all_at(&noise(n, 1024), n * 16_384).unwrap();
        }
        run("fallocate", &["-l", "2M", root.join("set aside").to_str().unwrap()]);
        let value = "v".repeat(3000);
        let path = root.join("dir0/file20");
        run("setfattr", &["-n", "user.large", "-v", &value, path.to_str().unwrap()]);
        run("sync", &["-f", root.to_str().unwrap()]);
        for path in crate::tools::files_below(root).into_keys() {
            let inode = root.join(&path).metadata().unwrap().ino();
            inodes.insert(path.to_str().unwrap().to_owned(), inode);
        }
    }
    let all = found(&volume, &["*"]);
    // Every block of the file that others are copies of is theirs, too.
    let kept: Vec<_> = all.kept.iter().map(|kept| (&*kept.path, kept.reason)).collect();
    let source = [("dir1/file1", KeptReason::Common)];
    assert_eq!(kept, source[..usize::from(reflink)], "{options}");
    assert!(all.files.len() > 200, "{options}");
    let geometry = geometry(&volume);
    for file in all.files.iter().filter(|file| file.path != "dir1/file1") {
        let is_shared = file.path.starts_with("shared");
        if !is_shared {
            assert_eq!(
                file.extents,
                by_xfs_db(&volume, geometry, inodes[&file.path]),
                "{}",
                file.path
            );
        }
    }
    let out = check(&volume, &["*[02468]", "*.iso", "/dir1/"], &XFS);
    assert!(out.len() > 20 && out.contains(&"holes.iso".to_owned()), "{out:?}");
}

#[test]
fn files_are_where_xfs_db_says_and_missed_by_nothing_else() {
    check_volume(64 * MIB, "-m reflink=0 -d agcount=3 -b size=1024", false);
    check_volume(300 * MIB, "-d agcount=4", true);
}

#[test]
fn so_are_those_of_a_filesystem_that_records_owners() {
    check_volume(64 * MIB, "-m rmapbt=1,reflink=1,finobt=1 -d agcount=2 -b size=1024", true);
}

#[test]
fn of_version_4_files_are_where_xfs_db_says_and_the_rest_is_sound() {
    let volume = Content::new().made("-m crc=0 -d agcount=2 -b size=512");
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    let said = found(&volume, &["/File*"]);
    assert_eq!((said.files.len(), said.kept_count), (9, 0));
    for file in &said.files {
        let root = filesystem.root();
        let found = filesystem.lookup(root, file.path.as_bytes(), Job::silent()).unwrap();
        assert_eq!(
            file.extents,
            by_xfs_db(&volume, geometry(&volume), found.unwrap().number),
            "{}",
            file.path
        );
    }
    let left_out: ExtentSet = said.files.into_iter().flat_map(|file| file.extents).collect();
    let (used, ..) = used_bytes(&volume);
    let rest = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    assert_clean(&copy_of_used(&volume, &rest));
}

#[test]
fn what_another_file_shares_stays_and_the_rest_does_not() {
    let volume = mkfs(64 * MIB, "-d agcount=2 -m reflink=1");
    {
        let mounted = Mounted::new(&volume, MOUNT);
        let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("a.iso"), noise(1, 400 << 10)).unwrap();
        run("sync", &["-f", &at("")]);
        run("cp", &["--reflink=always", &at("a.iso"), &at("copy")]);
        // A part of it is the copy's own, and one the original's.
        for (name, offset) in [("copy", 64 << 10), ("a.iso", 200 << 10)] {
            let file = File::options().write(true).open(at(name)).unwrap();
            file.write_all_at(&noise(5, 40 << 10), offset).unwrap();
        }
    }
    let bytes_of = |patterns: &[&str]| -> u64 {
        let extents = found(&volume, patterns).files.into_iter().flat_map(|file| file.extents);
        extents.map(|extent| extent.len).sum()
    };
    // The original has 40 KiB that the copy lost, and 40 KiB that it changed itself.
    assert_eq!(bytes_of(&["*.iso"]), 80 << 10);
    assert_eq!(check(&volume, &["*.iso"], &XFS), ["a.iso"]);
    // Both of those that share are meant: the blocks stay all the same.
    assert_eq!(bytes_of(&["a.iso", "copy"]), 160 << 10);
    {
        let mounted = Mounted::new(&volume, MOUNT);
        let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
        fs::hard_link(at("a.iso"), at("other.iso")).unwrap();
        fs::write(at("linked.iso"), noise(2, 50_000)).unwrap();
        fs::hard_link(at("linked.iso"), at("linked.txt")).unwrap();
    }
    let said = found(&volume, &["*.iso"]);
    assert_eq!(paths(&said), ["a.iso"]);
    let kept: Vec<_> = said.kept.iter().map(|kept| (&*kept.path, kept.reason)).collect();
    assert_eq!(kept, [("linked.iso", KeptReason::OtherName)]);
}

#[test]
fn a_file_of_which_something_else_claims_a_block_is_kept() {
    const FORK: usize = 176;
    let volume = mkfs(64 * MIB, "-d agcount=2");
    {
        let mounted = Mounted::new(&volume, MOUNT);
        for (n, name) in ["a.iso", "b.txt", "c.iso"].into_iter().enumerate() {
            fs::write(mounted.path().join(name), noise(n as u64, 40_000)).unwrap();
        }
    }
    let sound = Forged::new(&volume);
    let [a, b] = ["a.iso", "b.txt"].map(|name| sound.inode_at(sound.find(name)));
    // With `bytes` in an inode, whose checksum is made right again.
    let forged = |inode: usize, at: usize, bytes: &[u8]| {
        let mut record = sound.bytes[inode..inode + sound.inode].to_vec();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = sum_of(&mut record, 100);
        record[100..104].copy_from_slice(&sum);
        let other = volume.duplicate();
        other.patch(inode as u64, &record);
        other
    };
    let extent = &sound.bytes[a + FORK..][..16];
    let kept = |volume: &Volume| -> Vec<_> {
        let said = found(volume, &["*.iso"]);
        assert_eq!(paths(&said), ["c.iso"]);
        said.kept.into_iter().map(|kept| (kept.path, kept.reason)).collect()
    };
    let shared = [("a.iso".to_owned(), KeptReason::Shared)];
    // The extent of another file is that of the first, and no tree says so.
    assert_eq!(kept(&forged(b, FORK, extent)), shared);
    // A file whose extent is where inodes are, or in the log.
    for block in [field(&volume, "sb 0", "rootino") / 8, field(&volume, "sb 0", "logstart")] {
        let bits = u128::from_be_bytes(extent.try_into().unwrap());
        let mask = ((1u128 << 52) - 1) << 21;
        let bits = bits & !mask | u128::from(block) << 21;
        assert_eq!(kept(&forged(a, FORK, &bits.to_be_bytes())), shared, "{block}");
    }
    // An inode that cannot be read may claim anything.
    let Matching::Nothing { reason } = look_for(&forged(b, 0, b"XX"), &["*.iso"]) else { panic!() };
    assert!(reason.to_string().contains("its magic is wrong"), "{reason}");
}

#[test]
fn swap_space_keeps_its_first_page_and_a_dirty_log_keeps_everything() {
    let volume = mkfs(64 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    let mut swap = noise(7, 80 << 10);
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    fs::write(mounted.path().join("swap"), swap).unwrap();
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let hot = volume.duplicate();
    drop(mounted);
    let said = found(&volume, &["swap"]);
    assert_eq!(paths(&said), ["swap"]);
    let bytes: u64 = said.files[0].extents.iter().map(|extent| extent.len).sum();
    assert_eq!(bytes, (80 << 10) - 4096);
    let Matching::Nothing { reason } = look_for(&hot, &["swap"]) else { panic!() };
    assert_eq!(reason.to_string(), "the volume is kept in full");
}
