//! Media that fail and callers that stop: an error for every kind of map, and never a map.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use aiv_filesystems::{Error, Result, UsedMap, recognise, used_map};
use aiv_volume_io::{Cancel, Job, ReadAt};

use crate::btrfs_tools::mkfs;
use crate::exfat_tools::{fill_exfat, mkfs_exfat};
use crate::ext_tools::{MIB, mke2fs, used_bytes};
use crate::fat_tools::{fill_fat, mkfs_fat};
use crate::tools::{FileVolume, Volume, run};
use crate::{ntfs_tools, xfs_refusals};

/// A medium on which a number of reads succeed and no more.
struct Failing {
    volume: FileVolume,
    reads_left: AtomicUsize,
}

impl Failing {
    fn new(volume: &Volume, reads: usize) -> Self {
        Self { volume: volume.open(), reads_left: AtomicUsize::new(reads) }
    }

    fn map(&self) -> Result<UsedMap> {
        used_map(self, &recognise(self)?, Job::silent())
    }
}

impl ReadAt for Failing {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let left = self.reads_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| io::Error::other("bad sector"))?;
        self.volume.read_exact_at(out, offset)
    }
}

/// Each of the reads a map is made of fails, and then none. There are `reads_min` at least, of
/// which `recognise` needs some.
fn check_failing(volume: &Volume, reads_min: usize) {
    let expected = used_bytes(volume).0;
    let limit = 2000;
    let sound = Failing::new(volume, limit);
    sound.map().unwrap();
    let reads = limit - sound.reads_left.into_inner();
    assert!(reads >= reads_min, "{reads} reads");
    for reads in 0..reads {
        let answer = Failing::new(volume, reads).map();
        assert!(matches!(answer, Err(Error::Io { .. })), "after {reads} reads: {answer:?}");
    }
    match Failing::new(volume, reads).map().unwrap() {
        UsedMap::Used { used, .. } => assert_eq!(used, expected),
        whole => panic!("{whole:?}"),
    }
}

fn check_canceled(volume: &Volume) {
    let source = volume.open();
    let recognised = recognise(&source).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let job = Job { cancel: &cancel, ..Job::silent() };
    assert!(matches!(used_map(&source, &recognised, job), Err(Error::Canceled(_))));
}

#[test]
fn ext_with_a_journal_that_waits() {
    let volume = mke2fs(20 * MIB, "-t ext4 -b 1024");
    run("debugfs", &["-w", "-R", "feature needs_recovery", volume.path()]);
    check_failing(&volume, 10);
    check_canceled(&volume);
}

#[test]
fn ntfs() {
    let volume = ntfs_tools::plain();
    check_failing(&volume, 20);
    check_canceled(&volume);
}

#[test]
fn xfs() {
    let volume = xfs_refusals::fragmented();
    check_failing(&volume, 20);
    check_canceled(&volume);
}

#[test]
fn btrfs() {
    // One copy of everything, and two, of which either may fail.
    for (len, options, reads_min) in [(100 * MIB, "-m single", 9), (160 * MIB, "", 9)] {
        let volume = mkfs(len, options);
        check_failing(&volume, reads_min);
        check_canceled(&volume);
    }
}

#[test]
fn fat() {
    for (len, options) in [(4 * MIB, "-F 12"), (20 * MIB, "-F 16"), (36 * MIB, "-F 32 -s 1")] {
        let volume = mkfs_fat(len, options);
        fill_fat(&volume, 4 * MIB);
        check_failing(&volume, 10);
        check_canceled(&volume);
    }
}

#[test]
fn exfat() {
    let volume = mkfs_exfat(16 * MIB, "-c 512");
    fill_exfat(&volume, 8 * MIB);
    check_failing(&volume, 10);
    check_canceled(&volume);
}

/// Its header is one read, too short to be stopped.
#[test]
fn swap() {
    check_failing(&Volume::made_by(8 * MIB, "mkswap", "-q"), 2);
}
