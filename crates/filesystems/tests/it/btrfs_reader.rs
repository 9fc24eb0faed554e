//! Files of Btrfs volumes, as the kernel has them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{FileFlags, FileId, FileType, Filesystem, ReaderNote};
use aiv_volume_io::{Extent, Job};

use crate::btrfs_forge::add_block_group_tree;
use crate::btrfs_live::with_log;
use crate::btrfs_tools::{MOUNT, extents_by_dump, fill, mkfs};
use crate::ext_tools::MIB;
use crate::reader_tools::{Tree, assert_same, names, opened, tree_in, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

/// Our tree, which is the kernel's. Folders that the kernel makes up are of the moment they are
/// looked at, and belong to whom it likes.
pub(crate) fn check(volume: &Volume) -> Tree {
    let mounted = Mounted::new(volume, "ro,rescue=nologreplay,subvolid=5");
    let mut theirs = tree_of_mount(mounted.path());
    let ours = tree_of(volume);
    for (path, seen) in &mut theirs {
        if ours.get(path).is_some_and(|ours| ours.owner.is_none()) {
            (seen.owner, seen.times) = (None, [None; 2]);
        }
    }
    assert_same(&ours, &theirs);
    ours
}

pub(crate) fn open(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

/// The file of a path.
pub(crate) fn find(filesystem: &dyn Filesystem, path: &str) -> FileId {
    let mut file = filesystem.root();
    for name in path.split('/') {
        let found = filesystem.lookup(file, name.as_bytes(), Job::silent()).unwrap();
        file = found.unwrap_or_else(|| panic!("no {path}"));
    }
    file
}

fn text(len: usize) -> Vec<u8> {
    (0..len / 12 + 1).flat_map(|n| format!("line {n:6}\n").into_bytes()).take(len).collect()
}

/// Bytes that compress in some places.
fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = noise(seed, len);
    for part in bytes.chunks_mut(3000).step_by(2) {
        part.fill(7);
    }
    bytes
}

fn reflink(from: &Path, to: &Path, numbers: &str) {
    let command = format!("reflink {} {numbers}", from.display());
    run("xfs_io", &["-f", "-c", &command, to.to_str().unwrap()]);
}

/// Contents in all the ways an extent may be.
fn plant_contents(root: &Path) {
    for len in [0, 1, 100, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 100_000, 131_071, 131_073] {
        fs::write(root.join(format!("noise{len}")), noise(len as u64, len)).unwrap();
        fs::write(root.join(format!("zeros{len}")), vec![0; len]).unwrap();
        fs::write(root.join(format!("text{len}")), text(len)).unwrap();
        fs::write(root.join(format!("mixed{len}")), mixed(len as u64, len)).unwrap();
    }
    fs::write(root.join("text"), text(1_000_000)).unwrap();
    run("sync", &["-f", root.to_str().unwrap()]);
    let text = File::options().write(true).open(root.join("text")).unwrap();
    for n in 0..9 {
        text.write_all_at(&noise(n, 5000), n * 77_777).unwrap();
    }
    for (n, numbers) in ["8192 0 65536", "131072 4096 262144", "0 20480 4096"].iter().enumerate() {
        for name in ["text", "mixed131073"] {
            let len = fs::metadata(root.join(name)).unwrap().len();
            let last: u64 = numbers.split(' ').next_back().unwrap().parse().unwrap();
            if last < len {
                reflink(&root.join(name), &root.join(format!("part{n} of {name}")), numbers);
            }
        }
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    for n in 0..40 {
        sparse
            .write_all_at(&noise(n, 100 + 300 * usize::try_from(n).unwrap()), n * n * 5000)
            .unwrap();
    }
    sparse.set_len(20_000_000).unwrap();
    let in_pieces = File::create(root.join("in pieces")).unwrap();
    for n in 0..1500 {
        in_pieces.write_all_at(&noise(n, 4096), n * 8192).unwrap();
    }
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    run("fallocate", &["-l", "300K", &path("set aside")]);
    fs::write(root.join("behind the end"), noise(6, 10_000)).unwrap();
    run("fallocate", &["-n", "-l", "300K", &path("behind the end")]);
    let set_aside = File::options().write(true).open(root.join("set aside")).unwrap();
    set_aside.write_all_at(&noise(7, 10_000), 100_000).unwrap();
    fs::write(root.join("punched"), noise(8, 200_000)).unwrap();
    run("fallocate", &["-p", "-o", "50000", "-l", "60000", &path("punched")]);
    fs::write(root.join("cut"), noise(9, 200_000)).unwrap();
    File::options().write(true).open(root.join("cut")).unwrap().set_len(70_001).unwrap();
    File::options().write(true).open(root.join("cut")).unwrap().set_len(90_000).unwrap();
}

/// Everything but contents.
fn plant_names(root: &Path) {
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    run("mknod", &[&path("char"), "c", "4095", "1048575"]);
    run("mknod", &[&path("block"), "b", "7", "260"]);
    run("mkfifo", &["-m", "600", &path("pipe")]);
    drop(UnixListener::bind(root.join("socket")).unwrap());
    symlink("x", root.join("short link")).unwrap();
    symlink("d/".repeat(1900), root.join("long link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::write(root.join("file"), b"contents").unwrap();
    fs::create_dir_all(root.join("names/sub")).unwrap();
    for n in 0..5 {
        fs::hard_link(root.join("file"), root.join(format!("names/link{n}"))).unwrap();
    }
    for name in [
        "gr\u{fc}\u{df}e \u{1f600} \u{65e5}\u{672c}".as_bytes(),
        b"\xff\xfe not UTF-8 \x80",
        b"new\nline",
        b"-",
        b"...",
        &[b'n'; 255],
        &[0xe4; 255],
    ] {
        fs::write(root.join("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mut deep = root.join("deep");
    for n in 0..60 {
        deep.push(format!("folder {n}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), b"deep").unwrap();
    for (name, time) in [
        ("old", "1901-01-01 00:00:00.000000001 UTC"),
        ("before", "1969-12-31 23:59:59.999999999 UTC"),
        ("late", "2040-02-03 04:05:06.789012345 UTC"),
        ("very late", "2500-01-01 00:00:00.5 UTC"),
    ] {
        fs::write(root.join(name), name).unwrap();
        run("touch", &["-d", time, &path(name)]);
    }
    for n in 0..30 {
        let value = "v".repeat(n * 100);
        run("setfattr", &["-n", &format!("user.number{n}"), "-v", &value, &path("file")]);
    }
    run("setfattr", &["-n", "user.none", &path("names/sub")]);
    run("setfattr", &["-n", "trusted.t", "-v", "trusted", &path("names/sub")]);
    run("setfattr", &["-h", "-n", "trusted.link", "-v", "link", &path("short link")]);
    run("setfacl", &["-m", "u:1000:rwx,g:2000:r-x", &path("file")]);
    run("setfacl", &["-d", "-m", "u:1000:rwx", &path("names/sub")]);
    run("btrfs", &["property", "set", &path("late"), "compression", "zstd"]);
    run("chown", &["4294967294:1000000", &path("old")]);
    run("chmod", &["7755", &path("old")]);
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..4000 {
        File::create(many.join(format!("a name of many {n}"))).unwrap();
    }
    for n in (0..4000).filter(|n| n % 3 != 0) {
        fs::remove_file(many.join(format!("a name of many {n}"))).unwrap();
    }
}

#[test]
fn names_and_metadata_are_those_of_the_kernel() {
    for (options, mount) in
        [("", MOUNT), ("-n 4096 -m single", "rw"), ("-n 65536", "rw"), ("-M", "rw")]
    {
        let volume = mkfs(144 * MIB, options);
        let mounted = Mounted::new(&volume, mount);
        plant_names(mounted.path());
        drop(mounted);
        let tree = check(&volume);
        assert_eq!(tree[&b"char"[..]].device, Some((4095, 1_048_575)));
        assert!(tree[&b"file"[..]].attributes.contains_key(&b"system.posix_acl_access"[..]));
        assert_eq!(tree[&b"late"[..]].attributes[&b"btrfs.compression"[..]], b"zstd");
    }
}

fn check_contents(options: &str, mount: &str) {
    let volume = mkfs(300 * MIB, options);
    let mounted = Mounted::new(&volume, mount);
    plant_contents(mounted.path());
    drop(mounted);
    check(&volume);
}

#[test]
fn plain_contents_are_those_of_the_kernel() {
    check_contents("", "rw");
    check_contents("-O ^no-holes --csum xxhash", "rw,nodatacow");
}

#[test]
fn contents_packed_with_zlib_are_those_of_the_kernel() {
    let options = "-n 65536 -O ^no-holes,^skinny-metadata -R ^free-space-tree";
    check_contents(options, "rw,compress-force=zlib:3");
    check_contents("-m single -n 4096", "rw,compress=zlib,max_inline=4095");
}

#[test]
fn contents_packed_with_lzo_are_those_of_the_kernel() {
    check_contents("--csum blake2 -m dup -d dup", "rw,compress-force=lzo");
    check_contents("--csum xxhash -R quota", "rw,compress-force=lzo,max_inline=0");
}

#[test]
fn contents_packed_with_zstd_are_those_of_the_kernel() {
    check_contents("-M -n 4096 --csum sha256", "rw,compress-force=zstd:9");
    check_contents("-n 8192", "rw,nodatasum,compress-force=zstd,max_inline=2048");
}

#[test]
fn subvolumes_and_snapshots_are_folders() {
    let volume = mkfs(128 * MIB, "");
    fill(&volume, MOUNT, 4 * MIB);
    let mounted = Mounted::new(&volume, MOUNT);
    let path = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
    run("btrfs", &["subvolume", "create", &path("home/inner")]);
    fs::write(path("home/inner/file"), b"inner").unwrap();
    run("btrfs", &["subvolume", "snapshot", &path("home"), &path("later")]);
    fs::remove_file(path("later/dir1/file1")).unwrap();
    fs::write(path("later/only here"), b"new").unwrap();
    // What is mounted by default is something else.
    run("btrfs", &["subvolume", "set-default", &path("later")]);
    fs::rename(path("home/inner"), path("moved")).unwrap();
    run("btrfs", &["subvolume", "snapshot", &path("home"), &path("latest")]);
    drop(mounted);
    let tree = check(&volume);
    assert!(tree.contains_key(&b"moved/file"[..]) && tree.contains_key(&b"later/inner"[..]));
    assert!(!tree.contains_key(&b"later/inner/file"[..]), "a snapshot has no inner subvolume");
    let filesystem = open(&volume);
    let [home, later] = ["home", "later"].map(|name| find(&*filesystem, name));
    assert_ne!(home.space, later.space);
    assert_eq!(home.number, later.number);
}

#[test]
fn a_filesystem_with_a_block_group_tree_has_files() {
    let volume = mkfs(128 * MIB, "");
    add_block_group_tree(&volume);
    fill(&volume, MOUNT, MIB);
    check(&volume);
}

#[test]
fn many_threads_read_the_same() {
    let volume = mkfs(128 * MIB, "-n 4096");
    fill(&volume, "rw,compress-force=zstd", MIB);
    let expected = check(&volume);
    let filesystem = open(&volume);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_same(&tree_in(&*filesystem), &expected));
        }
    });
}

#[test]
fn marks_are_told() {
    let volume = mkfs(128 * MIB, "");
    let mounted = Mounted::new(&volume, MOUNT);
    let marks = [
        ("i", FileFlags::IMMUTABLE),
        ("a", FileFlags::APPEND_ONLY),
        ("d", FileFlags::NO_DUMP),
        ("c", FileFlags::COMPRESSED),
    ];
    for (letter, _) in marks {
        fs::write(mounted.path().join(letter), b"").unwrap();
        let path = mounted.path().join(letter);
        run("chattr", &[&format!("+{letter}"), path.to_str().unwrap()]);
    }
    fs::write(mounted.path().join("none"), b"").unwrap();
    drop(mounted);
    let filesystem = open(&volume);
    let flags = |name| filesystem.metadata(find(&*filesystem, name)).unwrap().flags;
    assert_eq!(flags("none"), FileFlags::default());
    for (letter, mark) in marks {
        assert_eq!(flags(letter), mark, "{letter}");
    }
    assert!(filesystem.notes().is_empty());
    let none = filesystem.metadata(find(&*filesystem, "none")).unwrap();
    assert!(none.created.is_some() && none.accessed.is_some());
    assert_eq!(none.file_type, FileType::File);
}

#[test]
fn extents_are_where_the_extent_tree_has_them() {
    for mount in [MOUNT, "rw,compress-force=zstd"] {
        let volume = mkfs(128 * MIB, "");
        let mounted = Mounted::new(&volume, mount);
        fs::write(mounted.path().join("noise"), noise(1, 3_000_001)).unwrap();
        fs::write(mounted.path().join("text"), text(1_000_000)).unwrap();
        fs::write(mounted.path().join("small"), b"inline").unwrap();
        drop(mounted);
        let known = extents_by_dump(&volume);
        let filesystem = open(&volume);
        for name in ["noise", "text", "small"] {
            let extents = filesystem.open(find(&*filesystem, name)).unwrap().extents().unwrap();
            for &extent in &extents {
                assert_eq!(known.within(extent).next(), Some(extent));
            }
            let total: u64 = extents.iter().map(|extent| extent.len).sum();
            match name {
                "text" if mount != MOUNT => assert!((4096..500_000).contains(&total), "{total}"),
                "noise" if mount != MOUNT => assert!(total > 2_000_000, "{total}"),
                "noise" => assert_eq!(total, 3_000_001),
                "text" => assert_eq!(total, 1_000_000),
                _ => assert_eq!(total, 0),
            }
        }
    }
}

#[test]
fn the_end_of_an_absurdly_long_file_is_read_at_once() {
    const LEN: u64 = 1 << 60;
    let volume = mkfs(128 * MIB, "");
    let mounted = Mounted::new(&volume, MOUNT);
    let file = File::create(mounted.path().join("long")).unwrap();
    file.write_all_at(&noise(1, 5000), LEN / 2).unwrap();
    file.set_len(LEN).unwrap();
    drop(file);
    drop(mounted);
    let filesystem = open(&volume);
    let data = filesystem.open(find(&*filesystem, "long")).unwrap();
    assert_eq!(data.len(), LEN);
    let mut bytes = vec![1; 5100];
    data.read_exact_at(&mut bytes, LEN / 2 - 100).unwrap();
    assert!(bytes[..100] == [0; 100] && bytes[100..] == noise(1, 5000));
    data.read_exact_at(&mut bytes, LEN - 5100).unwrap();
    assert!(bytes == [0; 5100]);
    let holes = data.holes(Extent::new(0, u64::MAX)).unwrap();
    let behind = LEN / 2 + 8192;
    assert_eq!(holes, [Extent::between(0, LEN / 2), Extent::between(behind, LEN)]);
    assert!(data.read_exact_at(&mut bytes, LEN - 5099).is_err());
    assert!(data.read_exact_at(&mut bytes, u64::MAX).is_err());
}

#[test]
fn a_log_is_not_read_and_that_is_said() {
    let volume = with_log("", 5);
    let filesystem = open(&volume);
    assert!(matches!(filesystem.notes(), [ReaderNote::NotReplayed { .. }]));
    check(&volume);
}

#[test]
fn a_name_of_a_large_folder_is_found_at_little_cost() {
    let volume = mkfs(160 * MIB, "");
    let mounted = Mounted::new(&volume, MOUNT);
    let many = mounted.path().join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..20_000 {
        File::create(many.join(format!("a name that takes some room {n}"))).unwrap();
    }
    drop(mounted);
    let source = Arc::new(volume.open());
    let filesystem = opened(source.clone()).unwrap();
    let folder = find(&*filesystem, "many");
    let before = source.bytes_read();
    for n in (0..20_000).step_by(5000) {
        find(&*filesystem, &format!("many/a name that takes some room {n}"));
    }
    let read = source.bytes_read() - before;
    assert!(read < 2 * MIB, "{read} bytes");
    assert_eq!(names(&*filesystem, folder).len(), 20_000);
}
