//! Files of volumes of ISO 9660: as bsdtar reads them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aiv_filesystems::{Error, FileId, FileType, FilesystemKind};
use aiv_testkit::Random;
use aiv_testkit::mutants::changes;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::fat_mutants::Mutant;
use crate::fat_reader::{bytes_of, find, reader};
use crate::fat_tools::bytes_at;
use crate::reader_tools::{Tree, assert_same, exhaust, names, tree_of, tree_of_mount};
use crate::tools::{Volume, noise, run};

fn fill(root: &Path) {
    let deep = (0..12).fold(root.join("deep"), |path, n| path.join(format!("Folder {n}")));
    fs::create_dir_all(&deep).unwrap();
    for len in [0, 1, 2047, 2048, 2049, 70_000] {
        fs::write(root.join(format!("file of {len} bytes")), noise(len as u64, len)).unwrap();
        fs::write(deep.join(format!("file of {len} bytes")), noise(len as u64, len)).unwrap();
    }
    for (n, name) in [
        "UPPER.TXT",
        "lower.txt",
        "two.dots.in it;1",
        "gr\u{fc}\u{df}e \u{65e5}\u{672c}\u{8a9e} \u{1f600}.txt",
        &"x".repeat(250),
        &"\u{e9}".repeat(125),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(root.join(name), noise(100 + n as u64, 100 * n)).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"no UTF-8: \xe9\xff")), b"1").unwrap();
    symlink("lower.txt", root.join("link")).unwrap();
    symlink("/an/absolute/./path/../to/nothing", root.join("absolute")).unwrap();
    symlink("../up/".to_owned() + &"y".repeat(240), deep.join("up")).unwrap();
    symlink("z".repeat(90) + "/" + &"y".repeat(90), root.join("long link")).unwrap();
    run("mkfifo", &["-m", "0640", root.join("pipe").to_str().unwrap()]);
    run("chmod", &["4751", root.join("UPPER.TXT").to_str().unwrap()]);
    run("chown", &["1234:56789", root.join("lower.txt").to_str().unwrap()]);
    for (seconds, name) in [(1, "early"), (951_782_399, "leap day"), (4_000_000_000, "late")] {
        let file = File::create(root.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
}

fn made(tool: &str, options: &str, fill: impl FnOnce(&Path)) -> Volume {
    let files = tempfile::tempdir().unwrap();
    fill(files.path());
    made_of(tool, options, files.path())
}

fn made_of(tool: &str, options: &str, root: &Path) -> Volume {
    let volume = Volume::new(0);
    let mut words: Vec<&str> = options.split_whitespace().collect();
    words.extend(["-o", volume.path(), root.to_str().unwrap()]);
    run(tool, &words);
    volume
}

/// What bsdtar unpacks; hard links and the time of the last change of a record are its own.
fn tree_of_bsdtar(volume: &Volume) -> Tree {
    let out = tempfile::tempdir().unwrap();
    run("bsdtar", &["-xpf", volume.path(), "-C", out.path().to_str().unwrap()]);
    comparable(tree_of_mount(out.path()))
}

fn comparable(mut tree: Tree) -> Tree {
    tree.remove(&b""[..]);
    for seen in tree.values_mut() {
        seen.links = 1;
        seen.times = seen.times.map(|time| time.map(|(seconds, _)| (seconds, 0)));
        seen.times[1] = None;
        // The time of a device or link depends on who unpacks it.
        if seen.file_type == FileType::Link {
            seen.times[0] = None;
        }
    }
    tree
}

fn check(volume: &Volume) -> usize {
    let ours = comparable(tree_of(volume));
    assert_same(&ours, &tree_of_bsdtar(volume));
    ours.len()
}

#[test]
fn rock_ridge_is_read_as_it_was_written_and_as_bsdtar_reads_it() {
    for (tool, options) in [
        ("genisoimage", "-quiet -R -D"),
        ("genisoimage", "-quiet -R -J -joliet-long"),
        ("xorriso", "-as mkisofs -quiet -R"),
    ] {
        let files = tempfile::tempdir().unwrap();
        fill(files.path());
        let has_joliet = options.contains("-J");
        if has_joliet {
            let name = OsStr::from_bytes(b"no UTF-8: \xe9\xff");
            fs::remove_file(files.path().join(name)).unwrap();
        }
        let volume = made_of(tool, options, files.path());
        assert_eq!(reader(&volume).kind(), FilesystemKind::Iso9660);
        let mut ours = comparable(tree_of(&volume));
        let mut theirs = tree_of_bsdtar(&volume);
        // Deep folders are in this one, and shown where they belong.
        let moved = ours.remove(&b"rr_moved"[..]).map(|folder| folder.file_type);
        assert_eq!(moved.is_some(), has_joliet);
        theirs.remove(&b"rr_moved"[..]);
        assert_eq!(ours.len(), 40 - usize::from(has_joliet), "{tool} {options}");
        assert_same(&ours, &comparable(tree_of_mount(files.path())));
        // bsdtar loses the slash where a link is in two parts.
        for tree in [&mut ours, &mut theirs] {
            assert_eq!(tree.remove(&b"long link"[..]).unwrap().file_type, FileType::Link);
        }
        assert_same(&ours, &theirs);
    }
}

#[test]
fn devices_have_their_numbers() {
    for (tool, options) in [("genisoimage", "-quiet -R"), ("xorriso", "-as mkisofs -quiet -R")] {
        let volume = made(tool, options, |root| {
            run("mknod", &[root.join("null").to_str().unwrap(), "c", "1", "3"]);
            run("mknod", &[root.join("disk").to_str().unwrap(), "b", "259", "70000"]);
        });
        let tree = tree_of(&volume);
        let seen = |name: &str| (tree[name.as_bytes()].file_type, tree[name.as_bytes()].device);
        assert_eq!(seen("null"), (FileType::CharDevice, Some((1, 3))), "{tool}");
        assert_eq!(seen("disk"), (FileType::BlockDevice, Some((259, 70_000))), "{tool}");
    }
}

/// Files whose names every kind of volume can hold.
fn fill_plain(root: &Path) {
    fs::create_dir_all(root.join("FOLDER/BELOW")).unwrap();
    for (n, name) in ["AAAA", "AAAB", "B.TXT", "FOLDER/C.X", "FOLDER/BELOW/D"].iter().enumerate() {
        fs::write(root.join(name), noise(n as u64, 3000 * n)).unwrap();
    }
}

#[test]
fn plain_names_lose_version_and_lone_dot() {
    let volume = made("genisoimage", "-quiet", fill_plain);
    let filesystem = reader(&volume);
    let found: Vec<Vec<u8>> = names(&*filesystem, filesystem.root()).into_keys().collect();
    assert_eq!(found, [&b"AAAA"[..], b"AAAB", b"B.TXT", b"FOLDER"]);
    for (n, name) in ["AAAA", "AAAB", "B.TXT", "FOLDER/C.X", "FOLDER/BELOW/D"].iter().enumerate() {
        assert!(bytes_of(&*filesystem, name) == noise(n as u64, 3000 * n), "{name}");
    }
    let metadata = filesystem.metadata(find(&*filesystem, "B.TXT").unwrap()).unwrap();
    assert_eq!((metadata.mode, metadata.owner, metadata.len), (None, None, 6000));
}

#[test]
fn joliet_names_are_utf8() {
    let names_in =
        ["gr\u{fc}\u{df}e \u{65e5}\u{672c}.txt", "A long name with Upper and lower", "x;2"];
    let volume = made("genisoimage", "-quiet -J -input-charset utf-8", |root| {
        for name in names_in {
            fs::write(root.join(name), name.as_bytes()).unwrap();
        }
    });
    let filesystem = reader(&volume);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 3);
    for name in &names_in[..2] {
        assert!(bytes_of(&*filesystem, name) == name.as_bytes(), "{name}");
    }
}

#[test]
fn a_large_folder_has_all_names() {
    let volume = made("genisoimage", "-quiet -R", |root| {
        for n in 0..2000 {
            fs::write(root.join(format!("a file with number {n}")), n.to_string()).unwrap();
        }
    });
    assert_eq!(check(&volume), 2000);
}

#[test]
fn sections_of_a_file_are_read_in_order() {
    let volume = made("genisoimage", "-quiet", fill_plain);
    let filesystem = reader(&volume);
    let [first, second] = ["AAAB", "B.TXT"].map(|name| find(&*filesystem, name).unwrap().number);
    let expected = [noise(1, 3000), noise(2, 6000)].concat();
    // The second becomes a section of the first: flags, length of its name, name.
    volume.patch(first + 25, &[0x80]);
    let name = bytes_at(&volume, Extent::new(first + 32, u64::from(7 + 1u8)));
    volume.patch(second + 32, &name);
    let filesystem = reader(&volume);
    assert!(bytes_of(&*filesystem, "AAAB") == expected);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 3);
    // Without an end.
    volume.patch(second + 25, &[0x80]);
    assert!(matches!(
        reader(&volume).open(FileId { space: 0, number: first }),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn damaged_records_hide_no_others() {
    let volume = made("genisoimage", "-quiet -R", fill_plain);
    let filesystem = reader(&volume);
    let root = filesystem.root();
    let at = find(&*filesystem, "AAAB").unwrap().number;
    let system = bytes_at(&volume, Extent::new(at, 200));
    let px = at + system.windows(2).position(|two| two == b"PX").unwrap() as u64;
    let nm = at + system.windows(2).position(|two| two == b"NM").unwrap() as u64;
    for (place, byte) in [(px + 2, 0xff), (px + 2, 1), (nm + 5, b'/'), (nm + 5, 0)] {
        let changed = volume.duplicate();
        changed.patch(place, &[byte]);
        let filesystem = reader(&changed);
        let mut found = Vec::new();
        let read = filesystem.entries(root, Job::silent(), &mut |entry| {
            found.push(entry.name);
            ControlFlow::Continue(())
        });
        assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
        assert_eq!(found, [&b"AAAA"[..], b"B.TXT", b"FOLDER"]);
    }
    // A link that breaks off is one that says nothing.
    let volume = made("genisoimage", "-quiet -R", |root| symlink("to", root.join("link")).unwrap());
    let link = find(&*reader(&volume), "link").unwrap();
    let system = bytes_at(&volume, Extent::new(link.number, 200));
    let sl = link.number + system.windows(2).position(|two| two == b"SL").unwrap() as u64;
    assert_eq!(reader(&volume).link_target(link).unwrap(), b"to");
    volume.patch(sl + 6, &[3]);
    assert_eq!(find(&*reader(&volume), "link"), Some(link));
    assert!(matches!(reader(&volume).link_target(link), Err(Error::Damaged { .. })));
}

#[test]
fn what_lies_outside_is_not_read() {
    let volume = made("genisoimage", "-quiet -R", fill_plain);
    let at = find(&*reader(&volume), "AAAB").unwrap().number;
    // A file behind the end.
    volume.patch(at + 2, &[0, 0, 0, 0x7f]);
    let filesystem = reader(&volume);
    let data = filesystem.open(FileId { space: 0, number: at }).unwrap();
    let error = data.read_exact_at(&mut [0; 1], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(bytes_of(&*filesystem, "B.TXT") == noise(2, 6000));
    for number in [1, 7, 32_768, 40_001, u64::MAX, u64::MAX - 1] {
        assert!(filesystem.metadata(FileId { space: 0, number }).is_err(), "{number}");
    }
}

fn attack(volume: &Volume, cases: std::ops::Range<u64>) {
    let bytes = Arc::new(fs::read(&volume.path).unwrap());
    let disk = MemDisk::from_bytes(bytes.to_vec());
    let blocks = bytes.chunks(512).zip((0..).step_by(512)).skip(64);
    let blocks = blocks
        .filter(|(block, _)| block.contains(&0) && block.iter().any(|byte| *byte != block[0]));
    let records: Vec<Extent> =
        blocks.map(|(block, at)| Extent::new(at, block.len() as u64)).collect();
    let mut counts = std::collections::BTreeSet::new();
    for seed in cases {
        let changes = changes(&mut Random::new(&[seed]), &disk, &records);
        counts.insert(exhaust(Arc::new(Mutant { bytes: bytes.clone(), changes })));
    }
    assert!(counts.len() > 3 && counts.last() > Some(&5), "{counts:?}");
}

#[test]
fn changed_volumes_neither_panic_nor_last() {
    for (tool, options) in
        [("genisoimage", "-quiet -R"), ("genisoimage", "-quiet -J"), ("genisoimage", "-quiet")]
    {
        let volume = made(tool, options, if options.contains('R') { fill } else { fill_plain });
        attack(&volume, 0..500);
    }
}
