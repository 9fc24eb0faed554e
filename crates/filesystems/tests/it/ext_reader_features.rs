//! Files of ext volumes with features that the kernel of the tests does not have, or that it tells
//! nothing of in the files themselves.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aiv_filesystems::{Error, FileFlags, FileId, FileType, Filesystem};
use aiv_volume_io::{Job, ReadAt};

use crate::ext_reader::set;
use crate::ext_tools::{MIB, churn, mke2fs};
use crate::reader_tools::{Tree, assert_same, names, names_of, opened, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

fn open(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

/// The file of a path.
pub(crate) fn at(filesystem: &dyn Filesystem, path: &Path) -> FileId {
    path.iter().fold(filesystem.root(), |folder, name| {
        let found = filesystem.lookup(folder, name.as_bytes(), Job::silent());
        found.unwrap().unwrap_or_else(|| panic!("{} is missing", path.display()))
    })
}

fn debugfs(volume: &Volume, commands: &[&str]) {
    for command in commands {
        run("debugfs", &["-w", "-R", command, volume.path()]);
    }
}

#[test]
fn sizes_on_the_volume_and_times_of_birth_are_those_of_the_kernel() {
    for options in ["-t ext4 -b 1024", "-t ext4 -O bigalloc", "-t ext3 -b 4096"] {
        let volume = mke2fs(32 * MIB, options);
        churn(Mounted::new(&volume, "rw").path(), 6 * MIB);
        let filesystem = open(&volume);
        let mounted = Mounted::new(&volume, "ro");
        let mut todo = vec![mounted.path().to_owned()];
        let mut births = 0;
        while let Some(path) = todo.pop() {
            let theirs = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(mounted.path()).unwrap();
            let ours = filesystem.metadata(at(&*filesystem, relative)).unwrap();
            assert_eq!(ours.allocated, Some(theirs.blocks() * 512), "{}", path.display());
            let accessed = ours.accessed.map(|time| (time.seconds, i64::from(time.nanoseconds)));
            assert_eq!(accessed, Some((theirs.atime(), theirs.atime_nsec())));
            if let Ok(born) = theirs.created() {
                let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
                let time = ours.created.unwrap();
                assert_eq!(time.seconds.unsigned_abs(), born.as_secs());
                assert_eq!(time.nanoseconds, born.subsec_nanos());
                births += 1;
            } else {
                assert_eq!(ours.created, None);
            }
            if theirs.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert!(births > 20 || options.contains("ext3"));
    }
}

#[test]
fn marks_are_those_that_chattr_sets() {
    let volume = mke2fs(16 * MIB, "-t ext4");
    let mounted = Mounted::new(&volume, "rw");
    for letter in ["i", "a", "d", "c"] {
        let path = mounted.path().join(letter);
        fs::write(&path, noise(1, 9000)).unwrap();
        run("chattr", &[&format!("+{letter}"), path.to_str().unwrap()]);
    }
    drop(mounted);
    let filesystem = open(&volume);
    for (name, expected) in [
        ("i", FileFlags::IMMUTABLE),
        ("a", FileFlags::APPEND_ONLY),
        ("d", FileFlags::NO_DUMP),
        // A wish that nobody fulfils: the bytes are plain.
        ("c", FileFlags::default()),
    ] {
        let id = at(&*filesystem, Path::new(name));
        assert_eq!(filesystem.metadata(id).unwrap().flags, expected, "{name}");
        let mut bytes = vec![0; 9000];
        filesystem.open(id).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == noise(1, 9000), "{name}");
    }
}

/// The bytes that letters of base64 for URLs stand for.
fn bytes_of(letters: &[u8]) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        other => panic!("{other} is no letter"),
    };
    let bits = letters.iter().map(|&letter| value(letter));
    let bits: Vec<bool> = bits.flat_map(|v| (0..6).rev().map(move |n| v >> n & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |v, &bit| v << 1 | u8::from(bit))).collect()
}

#[test]
fn encrypted_files_are_listed_and_not_opened() {
    let volume = mke2fs(16 * MIB, "-t ext4 -O encrypt");
    let mounted = Mounted::new(&volume, "rw");
    let root = mounted.path();
    let mut child = Command::new("xfs_io")
        .args(["-c", "add_enckey", root.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&noise(3, 64)).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let key = said.rsplit(' ').next().unwrap().trim().to_owned();
    let secret = root.join("secret");
    fs::create_dir_all(&secret).unwrap();
    run("xfs_io", &["-c", &format!("set_encpolicy {key}"), secret.to_str().unwrap()]);
    fs::create_dir(secret.join("folder")).unwrap();
    fs::write(secret.join("folder/file"), noise(1, 5000)).unwrap();
    symlink("target", secret.join("link")).unwrap();
    for n in 0..100 {
        fs::write(secret.join(format!("file {n} {}", "x".repeat(n))), noise(n as u64, 300))
            .unwrap();
    }
    fs::write(root.join("open"), noise(2, 5000)).unwrap();
    run("xfs_io", &["-c", &format!("rm_enckey {key}"), root.to_str().unwrap()]);
    drop(mounted);

    // The kernel without the key: two hashes and the name as it is on the volume.
    let mounted = Mounted::new(&volume, "ro");
    let listed = fs::read_dir(mounted.path().join("secret")).unwrap();
    let theirs = listed.map(|entry| bytes_of(entry.unwrap().file_name().as_bytes())[8..].to_vec());
    let mut theirs: Vec<Vec<u8>> = theirs.collect();
    theirs.sort();
    let filesystem = open(&volume);
    let secret = at(&*filesystem, Path::new("secret"));
    let ours = names(&*filesystem, secret);
    let mut bytes: Vec<Vec<u8>> = ours.keys().map(|name| bytes_of(name)).collect();
    bytes.sort();
    assert_eq!(bytes, theirs);
    assert_eq!(bytes.len(), 102);

    let unsupported = |read: Result<(), Error>| matches!(read, Err(Error::Unsupported { .. }));
    assert!(filesystem.metadata(secret).unwrap().flags.contains(FileFlags::ENCRYPTED));
    let mut types = std::collections::BTreeMap::new();
    for &id in ours.values() {
        let metadata = filesystem.metadata(id).unwrap();
        *types.entry(metadata.file_type).or_insert(0) += 1;
        match metadata.file_type {
            FileType::File => assert!(unsupported(filesystem.open(id).map(drop))),
            FileType::Link => assert!(unsupported(filesystem.link_target(id).map(drop))),
            _ => assert_eq!(names(&*filesystem, id).len(), 1),
        }
        assert!(filesystem.attributes(id).unwrap().is_empty());
    }
    let expected = [(FileType::File, 100), (FileType::Folder, 1), (FileType::Link, 1)];
    assert_eq!(types.into_iter().collect::<Vec<_>>(), expected);
    assert!(filesystem.open(at(&*filesystem, Path::new("open"))).is_ok());
}

/// A folder with small files, without owners and times that `mke2fs` would not copy.
fn folder(root: &Path) {
    for (n, name) in ["Plain", "\u{c4}rger", "\u{df}", "UPPER", "upper2"].into_iter().enumerate() {
        fs::write(root.join(name), noise(n as u64, 3000 * n)).unwrap();
    }
    fs::write(root.join("large"), noise(9, 500_000)).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    for n in 0..150 {
        fs::write(root.join(format!("sub/name {n} {}", "x".repeat(n % 90))), [7]).unwrap();
    }
    symlink("/target".repeat(20), root.join("sub/link")).unwrap();
    symlink("short", root.join("sub/short link")).unwrap();
    set(&root.join("sub"), "user.name", b"value");
    set(&root.join("large"), "user.name", &noise(3, 900));
}

/// A volume that `mke2fs` fills from a folder, and what is in that.
fn copied(mib: u64, options: &str) -> (Volume, Tree) {
    let source = tempfile::tempdir().unwrap();
    folder(source.path());
    let path = source.path().to_str().unwrap();
    let volume = mke2fs(mib * MIB, &format!("{options} -d {path}"));
    (volume, tree_of_mount(source.path()))
}

/// Without times: some versions of `mke2fs` copy them in part.
fn without_times(mut tree: Tree) -> Tree {
    tree.remove(&b"lost+found"[..]);
    tree.remove(&b""[..]);
    tree.values_mut().for_each(|seen| seen.times = [None; 2]);
    tree
}

#[test]
fn blocks_may_be_larger_than_pages() {
    for options in ["-b 8192", "-b 16384", "-b 65536", "-b 65536 -O ^metadata_csum,^extent,^64bit"]
    {
        let (volume, theirs) = copied(96, &format!("-t ext4 {options}"));
        assert_same(&without_times(tree_of(&volume)), &without_times(theirs));
    }
    // Folders that are larger than a block can have more than one.
    let (volume, _) = copied(96, "-t ext4 -b 8192 -O inline_data");
    assert_eq!(tree_of(&volume).len(), 161);
}

#[test]
fn folders_that_do_not_tell_case_apart_are_looked_up_in_any() {
    let (volume, _) = copied(16, "-t ext4 -O casefold");
    let filesystem = open(&volume);
    let look_up = |filesystem: &dyn Filesystem, name: &str| {
        filesystem.lookup(filesystem.root(), name.as_bytes(), Job::silent()).unwrap()
    };
    assert_eq!(look_up(&*filesystem, "PLAIN"), None);
    debugfs(&volume, &["set_inode_field / flags 0x40080000"]);
    let filesystem = open(&volume);
    let root = names(&*filesystem, filesystem.root());
    for (name, is) in [
        ("PLAIN", Some("Plain")),
        ("plain", Some("Plain")),
        ("\u{e4}RGER", Some("\u{c4}rger")),
        ("Upper2", Some("upper2")),
        ("sub", Some("sub")),
        ("plai", None),
        ("\u{c4}rgern", None),
    ] {
        let is = is.map(|is| root[is.as_bytes()]);
        assert_eq!(look_up(&*filesystem, name), is, "{name}");
    }
    let flags = filesystem.metadata(filesystem.root()).unwrap().flags;
    assert!(flags.contains(FileFlags::CASE_FOLDED));
    assert_eq!(filesystem.lookup(filesystem.root(), b"\xff", Job::silent()).unwrap(), None);
}

#[test]
fn sealed_files_are_read_and_compressed_ones_are_not() {
    let (volume, _) = copied(16, "-t ext4 -O verity");
    debugfs(
        &volume,
        &["set_inode_field /large flags 0x180000", "set_inode_field /UPPER flags 0x80204"],
    );
    let filesystem = open(&volume);
    let [large, upper] = ["large", "UPPER"].map(|name| at(&*filesystem, Path::new(name)));
    assert_eq!(filesystem.metadata(large).unwrap().flags, FileFlags::VERITY);
    let mut bytes = vec![0; 500_000];
    filesystem.open(large).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(9, 500_000));
    assert_eq!(filesystem.metadata(upper).unwrap().flags, FileFlags::COMPRESSED);
    assert!(matches!(filesystem.open(upper), Err(Error::Unsupported { .. })));
}

#[test]
fn removed_files_and_those_of_the_filesystem_itself_are_none() {
    let volume = mke2fs(16 * MIB, "-t ext4");
    let mounted = Mounted::new(&volume, "rw");
    fs::write(mounted.path().join("a"), noise(1, 5000)).unwrap();
    let removed = fs::metadata(mounted.path().join("a")).unwrap().ino();
    fs::write(mounted.path().join("b"), noise(1, 5000)).unwrap();
    let kept = fs::metadata(mounted.path().join("b")).unwrap().ino();
    fs::remove_file(mounted.path().join("a")).unwrap();
    drop(mounted);
    let filesystem = open(&volume);
    assert_eq!(names_of(&*filesystem, filesystem.root()).len(), 2);
    assert!(filesystem.metadata(FileId { space: 0, number: kept }).is_ok());
    for number in [removed, 0, 1, 3, 4, 7, 8, 1 << 20, 1 << 32 | 2, u64::MAX] {
        let read = filesystem.metadata(FileId { space: 0, number });
        assert!(matches!(read, Err(Error::Damaged { .. })), "{number}: {read:?}");
    }
}
