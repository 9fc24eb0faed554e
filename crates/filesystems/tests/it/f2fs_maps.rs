//! F2FS volumes: the map is what dump.f2fs says, and a copy of the used blocks is sound, with
//! all files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::ext_tools::{MIB, copy_of_used, used_bytes};
use crate::tools::{Volume, noise, run};

pub(crate) fn mkfs_f2fs(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkfs.f2fs", &format!("-q -f {options}"))
}

/// Puts files into a volume, some of them deep, some long; returns their contents.
pub(crate) fn fill_f2fs(volume: &Volume, files: u64) -> BTreeSet<Vec<u8>> {
    let from = tempfile::tempdir().unwrap();
    let mut contents = BTreeSet::new();
    for n in 0..files {
        let dir = from.path().join(format!("dir{}/deep", n % 4));
        fs::create_dir_all(&dir).unwrap();
        let len = match n % 4 {
            0 => 17,
            1 => 4096 * 3,
            2 => 50_001,
            _ => 300_000,
        };
        let bytes = noise(n, len);
        fs::write(dir.join(format!("file{n}")), &bytes).unwrap();
        contents.insert(bytes);
    }
    run("sload.f2fs", &["-f", from.path().to_str().unwrap(), volume.path()]);
    contents
}

/// `fsck.f2fs` finds nothing to complain about, and changes nothing.
fn assert_clean(volume: &Volume) {
    let said = run("fsck.f2fs", &["--dry-run", volume.path()]);
    assert!(said.contains("[FSCK] other corrupted bugs"), "{said}");
    assert!(!said.contains("[Fail]") && !said.contains("[ASSERT]"), "{said}");
}

/// Contents of all files, by inode, as dump.f2fs writes them out.
fn files_by_dump(volume: &Volume, inodes: u64) -> BTreeSet<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(&volume.path).unwrap();
    for inode in 4..4 + inodes {
        let mut dump = Command::new("dump.f2fs")
            .args(["-i", &format!("0x{inode:x}")])
            .arg(&path)
            .current_dir(dir.path())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Directories are not asked about; then nobody reads the answer.
        let _ = dump.stdin.take().unwrap().write_all(b"y\n");
        dump.wait().unwrap();
    }
    let mut contents = BTreeSet::new();
    let mut todo = vec![dir.path().to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                contents.insert(fs::read(path).unwrap());
            }
        }
    }
    contents
}

/// A number of the superblock or the checkpoint, by its name.
pub(crate) fn field(volume: &Volume, name: &str) -> u64 {
    let dump = run("dump.f2fs", &["-d", "1", volume.path()]);
    let line = dump.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    let number = line.rsplit(": ").next().unwrap();
    number.trim_end_matches(']').parse().unwrap()
}

/// The used blocks of the main area by the segment table, as dump.f2fs prints it.
fn used_by_dump(volume: &Volume) -> ExtentSet {
    let dir = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(&volume.path).unwrap();
    let segments = field(volume, "segment_count_main");
    let status = Command::new("dump.f2fs")
        .args(["-s", &format!("0~{segments}")])
        .arg(path)
        .current_dir(dir.path())
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(dir.path().join("dump_sit")).unwrap();
    let main = field(volume, "main_blkaddr");
    let mut used = ExtentSet::new();
    let mut block = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("segno:") {
            let number: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
            block = main + number * 512;
        } else if line.starts_with("  ") && !line.trim().is_empty() {
            for byte in line.split_whitespace() {
                let byte = u8::from_str_radix(byte, 16).unwrap();
                for bit in 0..8 {
                    if byte << bit & 0x80 != 0 {
                        used.push(Extent::new(block * 4096, 4096));
                    }
                    block += 1;
                }
            }
        }
    }
    used
}

/// The map is the segment table's, with everything around and the places where writing would go
/// on, and a volume of noise with only the used bytes in it is sound.
fn check(volume: &Volume, files: &BTreeSet<Vec<u8>>) {
    assert_clean(volume);
    let (used, cluster_size, notes) = used_bytes(volume);
    assert_eq!((cluster_size, notes), (4096, vec![]));
    let main = field(volume, "main_blkaddr") * 4096;
    let end = main + field(volume, "segment_count_main") * 512 * 4096;
    let len = volume.open().len();
    let mut expected: Vec<Extent> = used_by_dump(volume).runs().to_vec();
    expected.extend([Extent::between(0, main), Extent::between(end, len)]);
    for kind in ["node", "data"] {
        for n in 0..3 {
            let segment = field(volume, &format!("cur_{kind}_segno[{n}]"));
            let block = field(volume, &format!("cur_{kind}_blkoff[{n}]"));
            expected.push(Extent::new(main + (segment * 512 + block) * 4096, 4096));
        }
    }
    assert_eq!(used, expected.into_iter().collect());
    assert!(used.total_len() < len / 10 * 9, "a full volume proves nothing");

    let copy = copy_of_used(volume, &used);
    assert_clean(&copy);
    assert_eq!(used_by_dump(&copy), used_by_dump(volume));
    let inodes = field(volume, "valid_inode_count") + 2;
    let found = files_by_dump(&copy, inodes);
    assert!(found == files_by_dump(volume, inodes), "contents differ");
    assert!(files.is_subset(&found), "{} of {} files", found.len(), files.len());
}

#[test]
fn a_fresh_filesystem_whose_checkpoint_is_compact() {
    check(&mkfs_f2fs(100 * MIB, ""), &BTreeSet::new());
}

#[test]
fn a_filesystem_with_files() {
    let volume = mkfs_f2fs(100 * MIB, "");
    let files = fill_f2fs(&volume, 60);
    check(&volume, &files);
}

#[test]
fn a_filesystem_with_every_feature_that_changes_files_only() {
    let all = "-O encrypt,extra_attr,project_quota,inode_checksum,flexible_inline_xattr,quota,\
               inode_crtime,lost_found,verity,sb_checksum,casefold,compression -C utf8";
    check(&mkfs_f2fs(120 * MIB, all), &BTreeSet::new());
    // Those with which sload.f2fs can fill it.
    let some = "-O encrypt,extra_attr,inode_crtime,lost_found,verity,sb_checksum";
    let volume = mkfs_f2fs(120 * MIB, some);
    let mut files = fill_f2fs(&volume, 20);
    // dump.f2fs looks for the contents of tiny files in the wrong place then.
    files.retain(|contents| contents.len() > 17);
    check(&volume, &files);
}

#[test]
fn a_filesystem_of_many_table_blocks_that_is_smaller_than_its_volume() {
    let volume = mkfs_f2fs(5000 * MIB + 4096 * 77, "");
    let files = fill_f2fs(&volume, 30);
    volume.set_len(5000 * MIB + 4096 * 80 + 5);
    check(&volume, &files);
}

#[test]
fn tables_of_which_either_copy_is_valid() {
    let volume = mkfs_f2fs(300 * MIB, "");
    let mut files = BTreeSet::new();
    for round in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let bytes = noise(round, 2_000_000);
        fs::write(dir.path().join(format!("round{round}")), &bytes).unwrap();
        run("sload.f2fs", &["-f", dir.path().to_str().unwrap(), volume.path()]);
        files.insert(bytes);
        check(&volume, &files);
    }
}
