//! Volumes copied while they were mounted: the journal waits to be replayed.

use std::fs::{self, File};
use std::path::Path;

use aiv_filesystems::{ExtReason, JournalReason, MapNote, WholeReason};
use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::ext_tools::{
    MIB, churn, complement, copy_of_used, files_in, free_by_dumpe2fs, mke2fs, used_bytes,
    whole_reason,
};
use crate::tools::{Files, Mounted, Volume, files_below, noise, run, try_run};

/// A copy of a volume whose filesystem is mounted and stands still.
pub(crate) fn hot_copy(volume: &Volume) -> Volume {
    for _ in 0..10 {
        let (one, two) = (volume.duplicate(), volume.duplicate());
        if fs::read(&one.path).unwrap() == fs::read(&two.path).unwrap() {
            return one;
        }
    }
    panic!("the volume does not stand still");
}

/// Fills a filesystem, commits, and copies it before it is unmounted. The second half of the
/// work is in the journal only.
fn hot_volume(options: &str, mount_options: &str) -> (Volume, Files) {
    let volume = mke2fs(24 * MIB, options);
    // A long commit interval: only what is synced here is committed.
    let mounted = Mounted::new(&volume, &format!("rw,commit=600{mount_options}"));
    churn(mounted.path(), 12 * MIB);
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    // Synced one by one: syncing the filesystem would also write its bitmaps to their places.
    for n in 0..8 {
        write_synced(&mounted.path().join(format!("late{n}")), &noise(500 + n, 200_000));
    }
    fs::remove_dir_all(mounted.path().join("dir2")).unwrap();
    // Data blocks that begin with the journal's own magic must come back as they were.
    write_synced(&mounted.path().join("magic"), &[0xc0, 0x3b, 0x39, 0x98].repeat(20_000));
    let committed = files_below(mounted.path());
    // After the last commit: may or may not survive, and must not disturb.
    fs::write(mounted.path().join("uncommitted"), noise(7, 50_000)).unwrap();
    (hot_copy(&volume), committed)
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn used_by_dumpe2fs(volume: &Volume, cluster_size: u32) -> ExtentSet {
    complement(&free_by_dumpe2fs(volume, cluster_size), volume.open().len())
}

/// The map is the union of the bitmaps before and after a replay by debugfs, and a volume of
/// noise with only the used bytes in it comes back with everything that was committed.
fn check_hot(options: &str, mount_options: &str) {
    let after_replay = |volume: &Volume, cluster_size| {
        let replayed = volume.duplicate();
        run("debugfs", &["-w", "-R", "journal_run", replayed.path()]);
        used_by_dumpe2fs(&replayed, cluster_size)
    };
    let (mut volume, mut committed) = hot_volume(options, mount_options);
    // Anybody's `sync` writes the bitmaps to their places; such a volume would prove nothing.
    for _ in 0..5 {
        let cluster_size = used_bytes(&volume).1;
        if used_by_dumpe2fs(&volume, cluster_size) != after_replay(&volume, cluster_size) {
            break;
        }
        (volume, committed) = hot_volume(options, mount_options);
    }
    let (used, cluster_size, notes) = used_bytes(&volume);
    let transactions = log_by_debugfs(&volume).commits;
    assert_eq!(notes, [MapNote::JournalPending { transactions }]);
    let before = used_by_dumpe2fs(&volume, cluster_size);
    let after = after_replay(&volume, cluster_size);
    let both: ExtentSet = before.runs().iter().chain(after.runs()).copied().collect();
    assert_eq!(used, both);
    let all = Extent::new(0, volume.open().len());
    assert_ne!(before.gaps_within(all), both.gaps_within(all), "the bitmaps in place suffice");

    let copy = copy_of_used(&volume, &used);
    let checked = try_run("e2fsck", &["-fy", copy.path()]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{said}");
    let mut found = files_in(&copy);
    found.retain(|path, _| !path.ends_with("uncommitted"));
    assert_eq!(found.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>());
    assert!(found == committed, "contents differ");
}

#[test]
fn a_journal_with_full_checksums() {
    check_hot("-t ext4 -b 4096 -g 1024", "");
    check_hot("-t ext4 -b 1024 -O ^64bit", "");
}

#[test]
fn a_journal_without_checksums() {
    check_hot("-t ext3 -b 1024", "");
    check_hot("-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,64bit", "");
}

#[test]
fn a_journal_that_holds_file_data_too() {
    check_hot("-t ext4 -b 1024", ",data=journal");
    check_hot("-t ext3 -b 4096 -g 1024", ",data=journal");
}

#[test]
fn a_journal_of_a_filesystem_with_clusters() {
    check_hot("-t ext4 -b 1024 -O bigalloc -C 4096", "");
}

#[test]
fn a_journal_that_went_round_its_ring() {
    let volume = mke2fs(24 * MIB, "-t ext4 -b 1024 -J size=1");
    let mounted = Mounted::new(&volume, "rw,commit=600");
    let mut copies = Vec::new();
    for round in 0..30u64 {
        let dir = mounted.path().join(format!("dir{round}"));
        fs::create_dir(&dir).unwrap();
        for n in 0..10 {
            write_synced(&dir.join(format!("file{n}")), &noise(round * 100 + n, 3000));
        }
        if round >= 15 {
            fs::remove_dir_all(mounted.path().join(format!("dir{}", round - 15))).unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            write_synced(&dir.join("last"), b"the removal is committed");
        }
        if round % 4 == 3 {
            copies.push((hot_copy(&volume), files_below(mounted.path())));
        }
    }
    drop(mounted);
    let mut wrapped = 0;
    for (volume, files) in copies {
        let (used, _, notes) = used_bytes(&volume);
        let log = log_by_debugfs(&volume);
        assert_eq!(notes, [MapNote::JournalPending { transactions: log.commits }]);
        wrapped += u32::from(log.wraps);
        let copy = copy_of_used(&volume, &used);
        let checked = try_run("e2fsck", &["-fy", copy.path()]);
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        assert!(files_in(&copy) == files, "contents differ");
    }
    assert!(wrapped > 0, "no log went round");
}

/// What debugfs finds in the log of a volume.
struct LogDump {
    commits: u32,
    wraps: bool,
}

fn log_by_debugfs(volume: &Volume) -> LogDump {
    // Without the bitmaps: those on the volume need not match their checksums before a replay.
    let dump = run("debugfs", &["-c", "-R", "logdump", volume.path()]);
    assert!(dump.contains("Journal starts at block"), "{dump}");
    let commits: Vec<u32> = dump
        .lines()
        .filter(|line| line.starts_with("Found expected") && line.contains("(commit block)"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    let wraps = !commits.is_sorted();
    LogDump { commits: u32::try_from(commits.len()).unwrap(), wraps }
}

#[test]
fn a_journal_of_the_classic_block_map() {
    // Made as ext2 without extents, so that the journal's inode has indirect blocks.
    let volume = mke2fs(32 * MIB, "-t ext4 -b 1024 -O ^extents,^64bit -J size=4");
    let map = run("debugfs", &["-R", "stat <8>", volume.path()]);
    assert!(map.contains("IND"), "{map}");
    let mounted = Mounted::new(&volume, "rw,commit=600");
    fs::write(mounted.path().join("file"), noise(1, 200_000)).unwrap();
    File::open(mounted.path().join("file")).unwrap().sync_all().unwrap();
    let hot = hot_copy(&volume);
    drop(mounted);
    let (used, _, notes) = used_bytes(&hot);
    assert!(matches!(notes[..], [MapNote::JournalPending { transactions: 1.. }]), "{notes:?}");
    let copy = copy_of_used(&hot, &used);
    assert!(matches!(try_run("e2fsck", &["-fy", copy.path()]).status.code(), Some(0 | 1)));
    assert_eq!(files_in(&copy).values().collect::<Vec<_>>(), [&noise(1, 200_000)]);
}

#[test]
fn revoked_blocks_are_not_replayed() {
    // The log of debugfs: write a block of a bitmap, then revoke it.
    let volume = mke2fs(8 * MIB, "-t ext4 -b 1024");
    let dump = run("dumpe2fs", &[volume.path()]);
    let bitmap = dump.lines().find_map(|line| line.strip_prefix("  Block bitmap at ")).unwrap();
    let bitmap = bitmap.split([' ', ',']).next().unwrap();
    let bogus = volume.dir.path().join("bogus");
    fs::write(&bogus, noise(3, 1024)).unwrap();
    let script = |revoke: &str| format!("jo\njw -b {bitmap} {}\n{revoke}jc\n", bogus.display());
    let log = |script: String| {
        let copy = volume.duplicate();
        let file = copy.dir.path().join("script");
        fs::write(&file, script).unwrap();
        run("debugfs", &["-w", "-f", file.to_str().unwrap(), copy.path()]);
        copy
    };
    let written = log(script(""));
    assert!(matches!(
        whole_reason(&written),
        WholeReason::Ext(ExtReason::Checksum { section: "block bitmap", .. })
    ));
    let revoked = log(script(&format!("jw -r {bitmap}\n")));
    let (used, _, notes) = used_bytes(&revoked);
    assert_eq!(notes, [MapNote::JournalPending { transactions: 2 }]);
    assert_eq!(used, used_bytes(&volume).0);
}

/// Where the first record of type `kind` lies in a journal, as a byte offset in the volume.
fn record(volume: &Volume, kind: u8) -> u64 {
    let bytes = fs::read(&volume.path).unwrap();
    let start = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, kind];
    let found = bytes.chunks(1024).position(|block| block.starts_with(&start));
    found.unwrap() as u64 * 1024
}

#[test]
fn a_damaged_journal_means_the_whole_volume() {
    let (volume, _) = hot_volume("-t ext4 -b 1024", "");
    const DESCRIPTOR: u8 = 1;
    const COMMIT: u8 = 2;
    const SUPERBLOCK: u8 = 4;
    for (kind, at, what) in [
        (DESCRIPTOR, 30, "checksum of a descriptor block"),
        (COMMIT, 60, "checksum of a commit block"),
        (SUPERBLOCK, 0x20, "checksum of the superblock"),
        (SUPERBLOCK, 0x1, "no superblock"),
    ] {
        let damaged = volume.duplicate();
        damaged.flip(first_in_log(&volume, kind) + at);
        match whole_reason(&damaged) {
            WholeReason::Ext(ExtReason::Journal(JournalReason::Damaged {
                what: found, ..
            })) => {
                assert_eq!(found, what);
            }
            other => panic!("{what}: {other}"),
        }
    }
}

/// As [`record`], but for the log only what lies at or after its start.
fn first_in_log(volume: &Volume, kind: u8) -> u64 {
    let superblock = record(volume, 4);
    if kind == 4 {
        return superblock;
    }
    let source = volume.open();
    let mut start = [0; 4];
    source.read_exact_at(&mut start, superblock + 0x1c).unwrap();
    let bytes = fs::read(&volume.path).unwrap();
    let from = usize::try_from(superblock).unwrap() / 1024 + u32::from_be_bytes(start) as usize;
    let magic = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, kind];
    let n = bytes.chunks(1024).skip(from).position(|block| block.starts_with(&magic)).unwrap();
    (from + n) as u64 * 1024
}

#[test]
fn a_logged_block_that_changed_means_the_whole_volume() {
    let (volume, _) = hot_volume("-t ext4 -b 1024", "");
    // The block after the first descriptor is the first one logged.
    volume.patch(first_in_log(&volume, 1) + 1024 + 77, &noise(1, 8));
    match whole_reason(&volume) {
        WholeReason::Ext(ExtReason::Journal(JournalReason::Damaged { what, .. })) => {
            assert_eq!(what, "checksum of a logged block");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_journal_elsewhere_or_with_fast_commits_means_the_whole_volume() {
    let volume = mke2fs(16 * MIB, "-t ext4 -b 1024 -O ^metadata_csum");
    // needs_recovery, and an inode number of zero as with an external journal.
    set_recover(&volume);
    let external = volume.duplicate();
    external.patch(1024 + 0xe0, &[0; 4]);
    assert_eq!(
        whole_reason(&external),
        WholeReason::Ext(ExtReason::Journal(JournalReason::External))
    );
    volume.patch(record(&volume, 4) + 0x28, &0x20u32.to_be_bytes());
    assert_eq!(
        whole_reason(&volume),
        WholeReason::Ext(ExtReason::Journal(JournalReason::FastCommits))
    );
}

pub(crate) fn set_recover(volume: &Volume) {
    run("debugfs", &["-w", "-R", "feature needs_recovery", volume.path()]);
}

#[test]
fn an_empty_journal_changes_nothing() {
    let volume = mke2fs(16 * MIB, "-t ext4 -b 1024");
    let (clean, ..) = used_bytes(&volume);
    set_recover(&volume);
    let (used, _, notes) = used_bytes(&volume);
    assert_eq!(notes, [MapNote::JournalPending { transactions: 0 }]);
    assert_eq!(used, clean);
}

/// Found by `cargo xtask prove maps`: a pointer of the journal's inode led into free space, and
/// the map left out what had been read as a part of the journal.
#[test]
fn a_journal_that_lies_in_free_blocks_means_the_whole_volume() {
    let volume = mke2fs(16 * MIB, "-t ext3 -b 1024 -O ^resize_inode");
    set_recover(&volume);
    let map = run("debugfs", &["-R", "stat <8>", volume.path()]);
    let indirect = map.split("(IND):").nth(1).unwrap();
    let indirect: String = indirect.chars().take_while(char::is_ascii_digit).collect();
    let mut pointers = [0; 1024];
    volume.open().read_exact_at(&mut pointers, indirect.parse::<u64>().unwrap() * 1024).unwrap();
    let free = run("debugfs", &["-R", "find_free_block 1 12000", volume.path()]);
    let free: u64 = free.split_whitespace().last().unwrap().parse().unwrap();
    volume.patch(free * 1024, &pointers);
    for pointer in ["block[11]", "block[IND]"] {
        let damaged = volume.duplicate();
        let command = format!("set_inode_field <8> {pointer} {free}");
        run("debugfs", &["-w", "-R", &command, damaged.path()]);
        let what = "blocks of it are free";
        let reason = ExtReason::Journal(JournalReason::Inode { what });
        assert_eq!(whole_reason(&damaged), WholeReason::Ext(reason), "{pointer}");
    }
}
