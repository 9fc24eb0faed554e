//! Frozen XFS: the log is not empty, but a replay of it writes nothing but the superblock.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_filesystems::{UsedMap, XfsLogState, XfsReason};
use aiv_volume_io::ReadAt;

use crate::ext_tools::{MIB, complement, copy_of_used, map, used_bytes};
use crate::tools::{Files, Mounted, Volume, files_below, noise, run, try_run};
use crate::xfs_refusals::{bytes_of, xfs};
use crate::xfs_tools::{MOUNT, assert_clean, fragment, free_by_xfs_db, log_at, mkfs};

/// What is on the medium while `mounted`, which lies on `volume`, is frozen, and the files then.
fn frozen(volume: &Volume, mounted: &Mounted) -> (Volume, Files) {
    let path = mounted.path().to_str().unwrap();
    run("fsfreeze", &["-f", path]);
    let copy = volume.duplicate();
    let files = files_below(mounted.path());
    run("fsfreeze", &["-u", path]);
    (copy, files)
}

/// The map of a frozen filesystem is what xfs_db calls used; with noise in all else, the kernel
/// mounts and replays it, finds the files, and xfs_repair has nothing to say afterwards.
fn check(frozen: &Volume, files: &Files) {
    let (used, _, notes) = used_bytes(frozen);
    assert_eq!(notes, []);
    let free = free_by_xfs_db(frozen);
    assert_eq!(complement(&used, frozen.open().len()), free);
    let copy = copy_of_used(frozen, &used);
    let mounted = Mounted::new(&copy, MOUNT);
    assert!(files_below(mounted.path()) == *files, "contents differ");
    drop(mounted);
    assert_clean(&copy);
}

#[test]
fn a_frozen_filesystem_has_a_map_whatever_its_shape() {
    for (mib, options) in [
        (48, "-d agcount=2"),
        (48, "-b size=1024 -d agcount=3"),
        (48, "-b size=4096 -s size=4096 -d agcount=2"),
        (64, "-l su=32k,size=18m -d agcount=2"),
        (64, "-l su=256k,size=18m -d agcount=2"),
    ] {
        let volume = mkfs(mib * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        for round in 0..3 {
            fragment(mounted.path(), 60 + round * 20);
            fs::write(mounted.path().join("big"), noise(round, 300_000)).unwrap();
            let (copy, files) = frozen(&volume, &mounted);
            check(&copy, &files);
        }
    }
}

#[test]
fn a_filesystem_frozen_while_it_is_written_has_a_map_and_thawed_it_has_none() {
    let volume = mkfs(64 * MIB, "-d agcount=4");
    let mounted = Mounted::new(&volume, MOUNT);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                let path = mounted.path().join(format!("file{}", n % 40));
                fs::write(&path, noise(n, 1000 + usize::try_from(n % 17).unwrap() * 9000)).unwrap();
                if n % 5 == 0 {
                    fs::remove_file(&path).unwrap();
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        // Whatever the map may be, a panic must not leave the writer behind.
        let moments: Vec<_> = (0..8).map(|_| frozen(&volume, &mounted)).collect();
        stop.store(true, Ordering::Relaxed);
        for (copy, files) in &moments {
            check(copy, files);
        }
    });
    fs::write(mounted.path().join("afterwards"), noise(1, 9000)).unwrap();
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    assert_eq!(log_state(&volume.duplicate()), XfsLogState::NotUnmounted);
}

#[test]
fn a_deleted_file_that_is_open_is_kept_and_removed_by_the_next_mount() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    let path = mounted.path().join("deleted");
    fs::write(&path, noise(3, 4_000_000)).unwrap();
    let open = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (copy, files) = frozen(&volume, &mounted);
    drop(open);
    assert!(files.is_empty());
    let (used, _, _) = used_bytes(&copy);
    assert!(used.total_len() > 4_000_000);
    check(&copy, &files);
}

fn log_state(volume: &Volume) -> XfsLogState {
    match xfs(volume) {
        XfsReason::LogDirty(state) => state,
        other => panic!("{other}"),
    }
}

/// Records by where they begin in the log, in bytes, as xfs_logprint lists those to replay.
fn records(volume: &Volume) -> Vec<u64> {
    let printed = try_run("xfs_logprint", &["-t", volume.path()]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let block =
        |line: &str| line.strip_prefix("LOG REC AT LSN cycle")?.split(' ').nth(3)?.parse().ok();
    printed.lines().filter_map(block).map(|block: u64| block * 512).collect()
}

/// Without sums, changed records are only told by what they say.
fn unsummed(volume: &Volume, records: &[u64]) -> Volume {
    let copy = volume.duplicate();
    records.iter().for_each(|at| copy.patch(log_at(volume) + at + 32, &[0; 4]));
    copy
}

#[test]
fn records_that_say_anything_else_are_not_believed() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 50);
    let (frozen, _) = frozen(&volume, &mounted);
    let log = log_at(&frozen);
    let records = records(&frozen);
    let [first, last] = records[..] else { panic!("{records:?}") };
    let plain = unsummed(&frozen, &records);
    used_bytes(&plain);
    // A changed record is noticed by its sum, be it the last one or not.
    for at in [first, last] {
        let changed = frozen.duplicate();
        changed.flip(log + at + 512 + 100);
        let state = log_state(&changed);
        let XfsLogState::Damaged { block, what } = state else { panic!("{state:?}") };
        assert_eq!((u64::from(block) * 512, what), (at, "checksum"));
    }
    // In a record: what the operations begin with, their kinds, the buffer, its place and flags.
    let body = 512;
    let changes: [(&str, u64, &[u8]); 16] = [
        ("big-endian", 300, &[0, 0, 0, 2]),
        ("six operations", 40, &[0, 0, 0, 6]),
        ("no start", body + 9, &[0]),
        ("the client of unmount records", body + 8, &[0xaa]),
        ("an operation beyond the record", body + 4 + 12, &[0x7f, 0, 0, 0]),
        ("another transaction", body + 12, &[1, 2, 3, 4]),
        ("no transaction header", body + 24, &[9]),
        ("an inode", body + 52, &[0x3b, 0x12]),
        ("three parts", body + 54, &[3]),
        ("a cancelation", body + 56, &[2]),
        ("another block", body + 60, &[8]),
        ("another part of it", body + 72, &[6]),
        ("another length of the filesystem", body + 88 + 15, &[9]),
        ("other features", body + 88 + 216, &[0x40]),
        ("a checksum of the superblock of another moment", body + 88 + 224, &[0]),
        ("no commit", body + 88 + 384 + 9, &[0]),
    ];
    for at in [first, last] {
        for (what, place, bytes) in changes {
            let changed = plain.duplicate();
            changed.patch(log + at + place, bytes);
            if what.contains("checksum") {
                used_bytes(&changed);
            } else {
                assert_eq!(log_state(&changed), XfsLogState::NotUnmounted, "{what}");
            }
        }
    }
    // Whatever else may be in them.
    let (right, _, _) = used_bytes(&plain);
    let changed = plain.duplicate();
    for n in 0..400_u64 {
        let at = log + [first, last][usize::try_from(n % 2).unwrap()];
        let place = at + u64::from(noise(n, 2)[1]) * 4;
        let before: [u8; 4] = bytes_of(&changed, place);
        changed.patch(place, &noise(n * 7 + 1, 4));
        if let UsedMap::Used { used, .. } = map(&changed) {
            assert_eq!(used, right, "round {n}");
        }
        changed.patch(place, &before);
    }
    // The newest record asks for more than the two.
    let tail: [u8; 8] = bytes_of(&frozen, log + first + 24);
    let changed = plain.duplicate();
    changed.patch(log + last + 24, &tail);
    assert_eq!(log_state(&changed), XfsLogState::NotUnmounted);
    // The superblock in its place is another one.
    let changed = plain.duplicate();
    changed.patch(108, b"label");
    assert!(xfs(&changed).to_string().contains("superblock"), "{}", xfs(&changed));
}
