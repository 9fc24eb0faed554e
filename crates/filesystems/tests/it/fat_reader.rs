//! Files of healthy FAT volumes: the same names, bytes and times that mtools finds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use aiv_filesystems::{FileFlags, FileId, FileType, Filesystem, FilesystemKind, ReaderNote};
use aiv_volume_io::{Job, ReadAt};
use sha2::{Digest, Sha256};

use crate::ext_tools::MIB;
use crate::fat_tools::{fill_fat, mkfs_fat};
use crate::reader_tools::{Tree, digest, names, opened, tree_of};
use crate::tools::{Volume, noise, run};

/// Type, SHA-256 and time of the last change; of folders mtools keeps no time.
pub(crate) type Short = BTreeMap<Vec<u8>, (FileType, Vec<u8>, Option<i64>)>;

pub(crate) fn reader(volume: &Volume) -> Box<dyn Filesystem> {
    opened(std::sync::Arc::new(volume.open())).unwrap()
}

/// The file at a path, looked up name by name.
pub(crate) fn find(filesystem: &dyn Filesystem, path: &str) -> Option<FileId> {
    path.split('/').try_fold(filesystem.root(), |folder, name| {
        filesystem.lookup(folder, name.as_bytes(), Job::silent()).unwrap()
    })
}

pub(crate) fn bytes_of(filesystem: &dyn Filesystem, path: &str) -> Vec<u8> {
    let data = filesystem.open(find(filesystem, path).unwrap()).unwrap();
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
    data.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub(crate) fn short(tree: Tree) -> Short {
    let each = |(path, seen): (Vec<u8>, crate::reader_tools::Seen)| {
        let is_file = seen.file_type == FileType::File;
        let time = seen.times[0].filter(|_| is_file).map(|(seconds, _)| seconds);
        (path, (seen.file_type, seen.content, time))
    };
    tree.into_iter().filter(|(path, _)| !path.is_empty()).map(each).collect()
}

/// Everything mtools copies out of a volume, its times in UTC.
fn tree_of_mtools(volume: &Volume) -> Short {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().to_str().unwrap();
    let words = ["TZ=UTC", "mcopy", "-s", "-n", "-Q", "-m", "-i", volume.path(), "::/*", to];
    run("env", &words);
    let mut tree = Short::new();
    let mut todo = vec![out.path().to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let seen = match path.is_dir() {
                true => (FileType::Folder, Vec::new(), None),
                false => {
                    let sha = Sha256::digest(fs::read(&path).unwrap()).to_vec();
                    (FileType::File, sha, Some(path.metadata().unwrap().mtime()))
                }
            };
            let name = path.strip_prefix(out.path()).unwrap().as_os_str().as_bytes().to_vec();
            if seen.0 == FileType::Folder {
                todo.push(path);
            }
            tree.insert(name, seen);
        }
    }
    tree
}

pub(crate) fn assert_same(ours: &Short, theirs: &Short) {
    for (path, seen) in theirs {
        assert_eq!(ours.get(path), Some(seen), "{}", path.escape_ascii());
    }
    let more = ours.keys().find(|path| !theirs.contains_key(*path));
    assert_eq!(more.map(|path| path.escape_ascii().to_string()), None);
}

fn check(volume: &Volume) -> usize {
    let ours = short(tree_of(volume));
    assert_same(&ours, &tree_of_mtools(volume));
    ours.len()
}

fn copy_in(volume: &Volume, from: &Path) {
    let mut words = vec!["TZ=UTC", "mcopy", "-s", "-m", "-i", volume.path()];
    let paths: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    words.extend(paths.iter().map(|path| path.to_str().unwrap()));
    words.push("::/");
    run("env", &words);
}

/// A file on the volume.
pub(crate) fn put(volume: &Volume, path: &str, bytes: &[u8]) {
    let file = volume.dir.path().join("file to put");
    fs::write(&file, bytes).unwrap();
    run("mcopy", &["-i", volume.path(), file.to_str().unwrap(), &format!("::/{path}")]);
}

/// Names, sizes and times of many kinds.
fn fill_tree(root: &Path, cluster_size: usize) {
    let deep = (0..12).fold(root.join("deep"), |path, n| path.join(format!("Folder {n}")));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(root.join("empty folder")).unwrap();
    for (n, len) in
        [0, 1, cluster_size - 1, cluster_size, cluster_size + 1, 5 * cluster_size, 70_000]
            .into_iter()
            .enumerate()
    {
        fs::write(root.join(format!("file of {len} bytes")), noise(n as u64, len)).unwrap();
    }
    for (n, name) in [
        "UPPER.TXT",
        "lower.txt",
        "Mixed.Txt",
        "lower.EXT",
        "UPPER.ext",
        "two.dots.in it",
        ".hidden",
        "no extension at all",
        "gr\u{fc}\u{df}e \u{2014} \u{65e5}\u{672c}\u{8a9e}.txt",
        "a+b,c;d=e[f]",
        &"x".repeat(255),
        &"\u{e9}".repeat(127),
        "thirteen unit",
        "twenty-six units of a name",
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(root.join(name), noise(100 + n as u64, 100 * n)).unwrap();
        fs::write(deep.join(name), noise(200 + n as u64, 50 * n)).unwrap();
    }
    for (seconds, name) in [
        (315_532_800, "the first day"),
        (951_782_398, "leap day 2000"),
        (1_709_164_800, "leap day 2024"),
        (4_102_444_798, "before mtools thinks that 2100 is a leap year"),
    ] {
        let file = File::create(root.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
}

fn check_tree(len: u64, options: &str, kind: FilesystemKind, cluster_size: usize) {
    let volume = mkfs_fat(len, options);
    let files = tempfile::tempdir().unwrap();
    fill_tree(files.path(), cluster_size);
    copy_in(&volume, files.path());
    let filesystem = reader(&volume);
    assert_eq!(filesystem.kind(), kind, "{options}");
    assert_eq!(filesystem.notes(), []);
    assert_eq!(check(&volume), 53, "{options}");
    fill_fat(&volume, (len / 2).min(4 * MIB));
    check(&volume);
}

#[test]
fn fat12_is_read_as_mtools_reads_it() {
    check_tree(4 * MIB, "-F 12", FilesystemKind::Fat12, 2048);
    check_tree(2 * MIB, "-F 12 -s 1 -f 1 -r 512", FilesystemKind::Fat12, 512);
    check_tree(30 * MIB, "-F 12 -s 16", FilesystemKind::Fat12, 8192);
    check_tree(12 * MIB, "-F 12 -S 4096 -s 1 -r 512", FilesystemKind::Fat12, 4096);
}

#[test]
fn fat16_is_read_as_mtools_reads_it() {
    check_tree(20 * MIB, "-F 16", FilesystemKind::Fat16, 2048);
    check_tree(3 * MIB, "-F 16 -s 1 -f 1", FilesystemKind::Fat16, 512);
    check_tree(300 * MIB, "-F 16 -s 128", FilesystemKind::Fat16, 65_536);
    check_tree(24 * MIB, "-F 16 -S 1024 -s 2", FilesystemKind::Fat16, 2048);
    check_tree(24 * MIB, "-F 16 -S 4096 -s 1", FilesystemKind::Fat16, 4096);
}

#[test]
fn fat32_is_read_as_mtools_reads_it() {
    check_tree(36 * MIB, "-F 32 -s 1", FilesystemKind::Fat32, 512);
    check_tree(70 * MIB, "-F 32 -s 2 -f 1", FilesystemKind::Fat32, 1024);
    check_tree(600 * MIB, "-F 32 -s 16", FilesystemKind::Fat32, 8192);
    check_tree(270 * MIB, "-F 32 -S 4096 -s 1", FilesystemKind::Fat32, 4096);
}

#[test]
fn a_file_in_hundreds_of_pieces_is_read_in_order() {
    let volume = mkfs_fat(5 * MIB / 2, "-F 16 -s 1");
    let files = tempfile::tempdir().unwrap();
    let paths: Vec<String> = (0..1300)
        .map(|n| {
            let path = files.path().join(format!("P{n}"));
            fs::write(&path, noise(n, 512)).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    run("mmd", &["-i", volume.path(), "::/pieces"]);
    let mut words = vec!["-i", volume.path()];
    words.extend(paths.iter().map(String::as_str));
    words.push("::/pieces/");
    run("mcopy", &words);
    put(&volume, "filler", &noise(4, 1_060_000));
    run("mdel", &["-i", volume.path(), "::/pieces/P*[13579]"]);
    let big = noise(5, 320_000);
    put(&volume, "big", &big);
    let filesystem = reader(&volume);
    let data = filesystem.open(find(&*filesystem, "big").unwrap()).unwrap();
    let extents = data.extents().unwrap();
    assert!(extents.len() > 500, "{}", extents.len());
    assert_eq!(digest(&*data), Sha256::digest(&big).to_vec());
    assert_eq!(extents.iter().map(|extent| extent.len).sum::<u64>(), 320_000);
    check(&volume);
}

#[test]
fn a_large_folder_with_deletions_has_the_names_that_are_left() {
    let volume = mkfs_fat(60 * MIB, "-F 32 -s 1");
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("folder");
    fs::create_dir(&folder).unwrap();
    for n in 0..4000 {
        fs::write(folder.join(format!("{n:04} is a file")), n.to_string()).unwrap();
    }
    copy_in(&volume, files.path());
    run("mdel", &["-i", volume.path(), "::/folder/???7*", "::/folder/??[13]1*"]);
    let filesystem = reader(&volume);
    let folder = find(&*filesystem, "folder").unwrap();
    assert_eq!(names(&*filesystem, folder).len(), 4000 - 400 - 80);
    assert_eq!(find(&*filesystem, "folder/1327 is a file"), None);
    check(&volume);
}

#[test]
fn names_are_found_in_any_case_and_by_their_short_name() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    for (n, name) in ["Some long Name.text", "\u{c4}rger \u{3a9}", "SHORT.TXT"].iter().enumerate() {
        put(&volume, name, &noise(n as u64, 100));
    }
    let filesystem = reader(&volume);
    let same = |path: &str, other: &str| {
        let file = find(&*filesystem, path);
        assert!(file.is_some() && file == find(&*filesystem, other), "{path} {other}");
    };
    same("Some long Name.text", "sOME LONG nAME.TEXT");
    same("\u{c4}rger \u{3a9}", "\u{e4}RGER \u{3c9}");
    same("SHORT.TXT", "short.txt");
    let alias = run("mshortname", &["-i", volume.path(), "::/Some long Name.text"]);
    assert!(alias.contains('~'), "{alias}");
    same("Some long Name.text", alias.trim().trim_start_matches("::/"));
    assert_eq!(find(&*filesystem, "Some long Name"), None);
    assert_eq!(find(&*filesystem, "."), None);
}

#[test]
fn attributes_are_flags_and_the_label_is_no_file() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4 -n LABEL");
    put(&volume, "plain", b"1");
    put(&volume, "special", b"2");
    run("mattrib", &["-i", volume.path(), "-a", "::/plain"]);
    run("mattrib", &["-i", volume.path(), "+r", "+h", "+s", "+a", "::/special"]);
    let filesystem = reader(&volume);
    let flags = |name| filesystem.metadata(find(&*filesystem, name).unwrap()).unwrap().flags;
    assert_eq!(flags("plain"), FileFlags::default());
    let all = FileFlags::READ_ONLY | FileFlags::HIDDEN | FileFlags::SYSTEM | FileFlags::ARCHIVE;
    assert_eq!(flags("special"), all);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 2);
    assert_eq!(find(&*filesystem, "LABEL"), None);
}

#[test]
fn times_are_local_and_made_to_the_hundredth_of_a_second() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    put(&volume, "file", b"1");
    let at = find(&*reader(&volume), "file").unwrap().number;
    // 2021-03-04 05:06:08, and 1.23 seconds more.
    let (date, time) = (41u16 << 9 | 3 << 5 | 4, 5u16 << 11 | 6 << 5 | 4);
    let words = [time, date, date, 0, time, date].map(u16::to_le_bytes).concat();
    volume.patch(at + 13, &[123]);
    volume.patch(at + 14, &words);
    let filesystem = reader(&volume);
    let metadata = filesystem.metadata(find(&*filesystem, "file").unwrap()).unwrap();
    let made = metadata.created.unwrap();
    assert_eq!((made.seconds, made.nanoseconds), (1_614_834_369, 230_000_000));
    let changed = metadata.modified.unwrap();
    assert_eq!((changed.seconds, changed.nanoseconds), (1_614_834_368, 0));
    let read = metadata.accessed.unwrap();
    assert_eq!((read.seconds, read.nanoseconds), (1_614_816_000, 0));
    assert!(made.is_local && changed.is_local && read.is_local);
    assert_eq!((metadata.changed, metadata.mode, metadata.links), (None, None, 1));
    // No date at all.
    volume.patch(at + 13, &[0; 13]);
    let metadata = reader(&volume).metadata(FileId { space: 0, number: at }).unwrap();
    assert_eq!((metadata.modified, metadata.accessed, metadata.created), (None, None, None));
}

#[test]
fn a_volume_that_was_not_unmounted_is_read_and_says_so() {
    for (len, options, in_boot_sector, in_table) in [
        (4 * MIB, "-F 12", 37, None),
        (20 * MIB, "-F 16 -s 4", 37, Some((3, 0x7f))),
        (36 * MIB, "-F 32 -s 1", 65, Some((7, 0x07))),
    ] {
        let volume = mkfs_fat(len, options);
        put(&volume, "file", b"content");
        assert_eq!(reader(&volume).notes(), []);
        let mut reserved = [0; 2];
        volume.open().read_exact_at(&mut reserved, 14).unwrap();
        let table = u64::from(u16::from_le_bytes(reserved)) * 512;
        let places = in_table.map(|(at, value)| (table + at, value));
        for (at, value) in [Some((in_boot_sector, 1)), places].into_iter().flatten() {
            let dirty = volume.duplicate();
            dirty.patch(at, &[value]);
            let filesystem = reader(&dirty);
            assert_eq!(filesystem.notes(), [ReaderNote::NotUnmounted], "{options}");
            assert_eq!(bytes_of(&*filesystem, "file"), b"content");
        }
    }
}

#[test]
fn the_first_listing_reads_little() {
    let volume = mkfs_fat(2 << 30, "-F 32 -s 8");
    put(&volume, "file", &noise(1, 100_000));
    let source = std::sync::Arc::new(volume.open());
    let filesystem = opened(source.clone()).unwrap();
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 1);
    assert!(source.bytes_read() < MIB, "{}", source.bytes_read());
}
