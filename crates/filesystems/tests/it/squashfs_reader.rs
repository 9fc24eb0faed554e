//! Files of SquashFS: as the kernel and unsquashfs read them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aiv_filesystems::{Error, FileId, FileType, FilesystemKind};
use aiv_testkit::Random;
use aiv_testkit::mutants::changes;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::fat_mutants::Mutant;
use crate::fat_reader::{bytes_of, find, reader};
use crate::reader_tools::{Tree, assert_same, exhaust, names, opened, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

/// A text that compresses.
fn text(len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|n: usize| format!("line {} of many\n", n * n % 977).into_bytes());
    lines.take(len).collect()
}

/// Files with everything that is kept of one.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("deep/er/and/deeper")).unwrap();
    fs::create_dir(at("empty folder")).unwrap();
    for len in [0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073, 700_000] {
        fs::write(at(&format!("noise of {len}")), noise(len as u64, len)).unwrap();
        fs::write(at(&format!("deep/text of {len}")), text(len)).unwrap();
    }
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(9 << 20).unwrap();
    sparse.write_all_at(&noise(3, 5000), 3 << 20).unwrap();
    sparse.write_all_at(b"end", (9 << 20) - 3).unwrap();
    File::create(at("only holes")).unwrap().set_len(1 << 20).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"no UTF-8: \xe9\xff")), b"1").unwrap();
    fs::write(at(&"x".repeat(255)), b"long").unwrap();
    fs::hard_link(at("noise of 4097"), at("deep/again")).unwrap();
    symlink("deep/text of 1", at("link")).unwrap();
    symlink("/".to_owned() + &"y/".repeat(2000), at("deep/long link")).unwrap();
    run("mkfifo", &["-m", "0640", at("pipe").to_str().unwrap()]);
    drop(UnixListener::bind(at("socket")).unwrap());
    run("mknod", &[at("null").to_str().unwrap(), "c", "1", "3"]);
    run("mknod", &[at("disk").to_str().unwrap(), "b", "259", "70000"]);
    run("chmod", &["4751", at("noise of 1").to_str().unwrap()]);
    run("chown", &["1234:56789", at("noise of 4095").to_str().unwrap()]);
    run("chown", &["-h", "4000000000:7", at("link").to_str().unwrap()]);
    for (seconds, name) in [(1, "noise of 0"), (4_000_000_000, "noise of 4096")] {
        let file = File::open(at(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
    let big = "v".repeat(3000);
    for (name, attribute, value) in [
        ("noise of 1", "user.comment", "short"),
        ("noise of 4096", "user.big", &big),
        ("deep", "user.big", &big),
        ("deep/er", "trusted.of a folder", "x"),
        ("deep/text of 0", "security.some", ""),
        ("deep/text of 0", "user.comment", "short"),
    ] {
        run("setfattr", &["-n", attribute, "-v", value, at(name).to_str().unwrap()]);
    }
    for name in ["link", "pipe", "null", "socket"] {
        let path = at(name);
        run("setfattr", &["-h", "-n", "trusted.of", "-v", name, path.to_str().unwrap()]);
    }
}

fn made_of(options: &str, root: &Path) -> Volume {
    let volume = Volume::new(0);
    let mut words = vec![root.to_str().unwrap(), volume.path()];
    words.extend(options.split_whitespace());
    words.extend(["-noappend", "-quiet", "-no-progress", "-processors", "2"]);
    run("mksquashfs", &words);
    volume
}

fn made(options: &str, fill: impl FnOnce(&Path)) -> Volume {
    let files = tempfile::tempdir().unwrap();
    fill(files.path());
    made_of(options, files.path())
}

/// The kernel shows one time for three.
fn comparable(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|seen| seen.times[1] = None);
    tree
}

#[test]
fn everything_is_read_as_the_kernel_reads_it_whatever_it_is_compressed_with() {
    let files = tempfile::tempdir().unwrap();
    fill(files.path());
    for options in [
        "-comp gzip",
        "-comp gzip -Xcompression-level 1 -Xwindow-size 8 -b 4096",
        "-comp lzo",
        "-comp lz4 -always-use-fragments",
        "-comp lz4 -Xhc -no-fragments",
        "-comp xz -tailends",
        "-comp xz -Xbcj x86 -Xdict-size 50% -b 1M",
        "-comp zstd -b 1M -no-duplicates",
        "-comp zstd -noI -noId -no-exports",
        "-noD -noF -noX -noI",
        "-no-sparse -no-hardlinks",
    ] {
        let volume = made_of(options, files.path());
        assert_eq!(reader(&volume).kind(), FilesystemKind::Squashfs);
        let ours = comparable(tree_of(&volume));
        assert_eq!(ours.len(), 35, "{options}");
        let mounted = Mounted::new(&volume, "ro");
        assert_same(&ours, &comparable(tree_of_mount(mounted.path())));
    }
}

#[test]
fn what_unsquashfs_unpacks_is_the_same() {
    let files = tempfile::tempdir().unwrap();
    fill(files.path());
    // No kernel knows LZMA.
    for options in ["-comp zstd -b 16384", "-comp lzma -b 4096", "-comp lzma -b 1M -tailends"] {
        let volume = made_of(options, files.path());
        let out = tempfile::tempdir().unwrap();
        let to = out.path().join("out");
        run("unsquashfs", &["-quiet", "-no-progress", "-d", to.to_str().unwrap(), volume.path()]);
        let mut theirs = comparable(tree_of_mount(&to));
        let mut ours = comparable(tree_of(&volume));
        for tree in [&mut ours, &mut theirs] {
            // The tool sets no attributes of links and others.
            tree.values_mut()
                .filter(|seen| !matches!(seen.file_type, FileType::File | FileType::Folder))
                .for_each(|seen| seen.attributes.clear());
        }
        assert_same(&ours, &theirs);
    }
}

#[test]
fn large_folders_and_many_owners_have_all_names() {
    let volume = made("-comp lz4", |root| {
        for n in 0..2500_u32 {
            let path = root.join(format!("a file with the number {n}"));
            fs::write(&path, n.to_string()).unwrap();
            std::os::unix::fs::chown(&path, Some(n), Some(n + 10_000)).unwrap();
            if n % 3 == 0 {
                let value = format!("value {n}");
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(&path, "user.n", value.as_bytes(), flags).unwrap();
            }
        }
    });
    let ours = comparable(tree_of(&volume));
    assert_eq!(ours.len(), 2501);
    let mounted = Mounted::new(&volume, "ro");
    assert_same(&ours, &comparable(tree_of_mount(mounted.path())));
}

#[test]
fn hard_links_are_one_file_and_its_bytes_are_where_it_says() {
    let volume = made("-noD -no-fragments", fill);
    let filesystem = reader(&volume);
    let [one, other] =
        ["noise of 4097", "deep/again"].map(|name| find(&*filesystem, name).unwrap());
    assert_eq!(one, other);
    assert_eq!(filesystem.metadata(one).unwrap().links, 2);
    // Noise is stored as it is.
    let extents = filesystem.open(one).unwrap().extents().unwrap();
    let all = fs::read(&volume.path).unwrap();
    let stored: Vec<u8> = extents
        .iter()
        .flat_map(|extent| {
            let start = usize::try_from(extent.start).unwrap();
            all[start..start + usize::try_from(extent.len).unwrap()].to_vec()
        })
        .collect();
    assert!(stored == noise(4097, 4097));
    let sparse = filesystem.open(find(&*filesystem, "sparse").unwrap()).unwrap();
    let holes = sparse.holes(Extent::new(0, sparse.len())).unwrap();
    let zeros: u64 = holes.iter().map(|hole| hole.len).sum();
    assert_eq!((holes.len(), zeros), (2, (9 << 20) - 2 * (128 << 10)));
    assert_eq!(sparse.extents().unwrap().len(), 1);
}

#[test]
fn what_is_not_known_or_damaged_is_told_and_hides_nothing_else() {
    let refused = |volume: &Volume| opened(Arc::new(volume.open())).map(|_| ()).unwrap_err();
    let volume = made("-comp gzip -no-fragments", fill);
    for (at, bytes) in [(20, &[9, 0][..]), (28, &[5, 0]), (30, &[1, 0])] {
        let changed = volume.duplicate();
        changed.patch(at, bytes);
        assert!(matches!(refused(&changed), Error::Unsupported { .. }), "{at}");
    }
    for (at, bytes) in [
        (12, &[0, 0, 0, 1][..]),
        (22, &[11, 0]),
        (32, &[0xff; 8]),
        (48, &[0xff; 8]),
        (64, &[0xff; 8]),
        (72, &[0xff; 8]),
    ] {
        let changed = volume.duplicate();
        changed.patch(at, bytes);
        assert!(matches!(refused(&changed), Error::Damaged { .. }), "{at}");
    }
    // A block of a file: it alone is lost.
    let filesystem = reader(&volume);
    let text_at = |name: &str| {
        let data = filesystem.open(find(&*filesystem, name).unwrap()).unwrap();
        data.extents().unwrap()[0]
    };
    let first = text_at("deep/text of 700000");
    let changed = volume.duplicate();
    changed.patch(first.start + 5, &[0xff; 64]);
    let filesystem = reader(&changed);
    let data = filesystem.open(find(&*filesystem, "deep/text of 700000").unwrap()).unwrap();
    let error = data.read_exact_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let mut out = vec![0; 100_000];
    data.read_exact_at(&mut out, 131_072).unwrap();
    assert!(out == text(700_000)[131_072..231_072]);
    assert!(bytes_of(&*filesystem, "noise of 131073") == noise(131_073, 131_073));
    for number in [u64::MAX, 1, 0xffff, 1 << 40, filesystem.root().number + 1] {
        let any = FileId { space: 0, number };
        assert!(filesystem.metadata(any).is_err() || number < 1 << 20, "{number}");
        assert!(filesystem.metadata(FileId { space: 1, ..filesystem.root() }).is_err());
    }
}

#[test]
fn names_that_are_none_are_left_out_and_told() {
    let volume = made("-noI -no-exports", |root| {
        for name in ["aaaa", "bbbb", "cccc", "dddd"] {
            fs::write(root.join(name), "1").unwrap();
        }
    });
    let all = fs::read(&volume.path).unwrap();
    let at = all.windows(4).position(|name| name == b"bbbb").unwrap() as u64;
    for wrong in [b"b/bb", b"b\0bb", b"aaaa", b"aaa!"] {
        let changed = volume.duplicate();
        changed.patch(at, wrong);
        let filesystem = reader(&changed);
        let mut found = Vec::new();
        let read = filesystem.entries(filesystem.root(), Job::silent(), &mut |entry| {
            found.push(entry.name);
            ControlFlow::Continue(())
        });
        assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
        assert_eq!(found, [&b"aaaa"[..], b"cccc", b"dddd"]);
    }
    assert_eq!(names(&*reader(&volume), reader(&volume).root()).len(), 4);
}

fn attack(volume: &Volume, cases: std::ops::Range<u64>) {
    let bytes = Arc::new(fs::read(&volume.path).unwrap());
    let disk = MemDisk::from_bytes(bytes.to_vec());
    // The superblock, and the tables at the end.
    let tables = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
    let mut records = vec![Extent::new(0, 96), Extent::new(0, 96)];
    let blocks = (tables..bytes.len() as u64).step_by(128);
    records.extend(blocks.map(|at| Extent::new(at, 128.min(bytes.len() as u64 - at))));
    records.push(Extent::new(96, tables - 96));
    let mut counts = std::collections::BTreeSet::new();
    for seed in cases {
        let changes = changes(&mut Random::new(&[seed]), &disk, &records);
        counts.insert(exhaust(Arc::new(Mutant { bytes: bytes.clone(), changes })));
    }
    assert!(counts.len() > 2 && counts.last() > Some(&20), "{counts:?}");
}

/// So many of each kind.
const CASES: u64 = 60;

#[test]
fn changed_volumes_neither_panic_nor_last() {
    let files = tempfile::tempdir().unwrap();
    fill(files.path());
    for options in [
        "-noI -noX -noId",
        "-comp gzip",
        "-comp xz",
        "-comp lzma",
        "-comp lz4 -noF",
        "-comp lzo",
        "-comp zstd",
    ] {
        attack(&made_of(options, files.path()), 0..CASES);
    }
}
