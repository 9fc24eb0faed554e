//! XFS that was not unmounted: our reader says of it what the kernel says after it replayed the
//! log.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{Filesystem, ReaderNote};
use aiv_testkit::Random;
use rustix::fs::XattrFlags;

use crate::ext_tools::MIB;
use crate::reader_tools::{assert_same, opened, tree_in, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};
use crate::xfs_tools::{MOUNT, log_at, mkfs};

fn file_system(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

/// Some changes of all kinds.
fn change(root: &Path, random: &mut Random, count: usize) {
    for _ in 0..count {
        let folder = root.join(format!("folder {}", random.below(6)));
        let _ = fs::create_dir(&folder);
        let path = folder.join(format!("{0:>1$}", random.below(200), 4 + random.below(2) * 30));
        let other = root.join(format!("folder {}", random.below(6))).join("moved");
        let bytes = noise(random.next(), random.below(9000));
        match random.below(14) {
            0..=3 => drop(fs::write(&path, bytes)),
            4 => {
                let _ = fs::remove_file(&path);
            }
            5 => {
                let _ = fs::rename(&path, &other);
            }
            6 => {
                let mut options = File::options();
                // It may be a link to nowhere.
                if let Ok(file) = options.create(true).truncate(false).write(true).open(&path) {
                    file.write_all_at(&bytes, random.next() % 500_000).unwrap();
                }
            }
            7 => {
                let name = format!("user.{}", random.below(40));
                let value = noise(7, random.below(600));
                let _ = rustix::fs::lsetxattr(&path, name, &value, XattrFlags::empty());
            }
            8 => {
                let _ = rustix::fs::lremovexattr(&path, format!("user.{}", random.below(40)));
            }
            9 => drop(symlink("t".repeat(1 + random.below(900)), &path)),
            10 => {
                if let Ok(file) = File::options().write(true).open(&path) {
                    file.set_len(random.next() % 20_000).unwrap();
                }
            }
            11 if random.below(4) == 0 => {
                let _ = fs::remove_dir_all(&folder);
            }
            12 => {
                let _ = fs::hard_link(&path, &other);
            }
            _ => {
                let names = random.below(30);
                for n in 0..names {
                    let _ = File::create(folder.join(format!("empty {n} {}", random.below(99))));
                }
            }
        }
    }
}

/// What waits in the log of a copy is read as the kernel replays it.
fn check(crashed: &Volume) {
    let filesystem = file_system(crashed);
    assert_eq!(filesystem.notes(), [ReaderNote::Replayed]);
    let ours = tree_in(&*filesystem);
    assert!(ours.len() > 20, "{}", ours.len());
    drop(filesystem);
    let replayed = crashed.duplicate();
    let mounted = Mounted::new(&replayed, MOUNT);
    let mut theirs = tree_of_mount(mounted.path());
    for seen in theirs.values_mut() {
        seen.attributes.retain(|name, _| !name.starts_with(b"trusted.SGI_ACL_"));
    }
    assert_same(&ours, &theirs);
}

#[test]
fn a_log_is_replayed_as_the_kernel_does_whatever_waits_in_it() {
    for (seed, options) in [
        "-b size=4096 -d agcount=2",
        "-b size=1024 -d agcount=3 -n size=4096 -i nrext64=1",
        "-b size=4096 -d agcount=2 -m rmapbt=1 -l su=32k -i size=1024",
        "-b size=1024 -d agcount=2 -n size=16384 -m reflink=0,bigtime=0 -i sparse=0",
        "-b size=65536 -d agcount=1",
    ]
    .into_iter()
    .enumerate()
    {
        let mut random = Random::new(&[seed as u64]);
        let volume = mkfs(64 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        for round in 0..2 {
            change(mounted.path(), &mut random, 150);
            run("sync", &["-f", mounted.path().to_str().unwrap()]);
            change(mounted.path(), &mut random, 10);
            run("sync", &["-f", mounted.path().to_str().unwrap()]);
            check(&volume.duplicate());
            if round == 0 {
                run("fsfreeze", &["-f", mounted.path().to_str().unwrap()]);
                run("fsfreeze", &["-u", mounted.path().to_str().unwrap()]);
            }
        }
    }
}

#[test]
fn what_a_log_cannot_tell_is_said_and_the_rest_is_read() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    fs::write(mounted.path().join("old"), b"old").unwrap();
    run("fsfreeze", &["-f", mounted.path().to_str().unwrap()]);
    run("fsfreeze", &["-u", mounted.path().to_str().unwrap()]);
    fs::write(mounted.path().join("new"), b"new").unwrap();
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let copy = volume.duplicate();
    drop(mounted);
    let both = tree_in(&*file_system(&copy));
    assert!(both.contains_key(&b"old"[..]) && both.contains_key(&b"new"[..]));
    // A byte of every record's body.
    let (medium, at) = (File::open(&copy.path).unwrap(), log_at(&copy));
    for block in 0..2000 {
        let mut word = [0; 4];
        medium.read_exact_at(&mut word, at + block * 512).unwrap();
        if word == [0xfe, 0xed, 0xba, 0xbe] {
            copy.flip(at + (block + 1) * 512 + 100);
        }
    }
    let filesystem = file_system(&copy);
    let [ReaderNote::NotReplayed { why }] = filesystem.notes() else {
        panic!("{:?}", filesystem.notes())
    };
    assert!(why.contains("checksum"), "{why}");
    let old = tree_in(&*filesystem);
    assert!(old.contains_key(&b"old"[..]) && !old.contains_key(&b"new"[..]));
}

/// A snapshot for which the filesystem was frozen has an empty log.
#[test]
fn a_frozen_filesystem_is_read_without_a_note() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    change(mounted.path(), &mut Random::new(&[77]), 300);
    run("fsfreeze", &["-f", mounted.path().to_str().unwrap()]);
    let copy = volume.duplicate();
    let theirs = tree_of_mount(mounted.path());
    run("fsfreeze", &["-u", mounted.path().to_str().unwrap()]);
    drop(mounted);
    let filesystem = file_system(&copy);
    assert_eq!(filesystem.notes(), []);
    assert_same(&tree_in(&*filesystem), &theirs);
}
