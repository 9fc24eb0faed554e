//! Split backups, and those with parity, whose power goes, and the ones that go on with them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use aiv_backup_engine::{BackupOptions, BackupReport};
use aiv_testkit::{CrashStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Lease, MemDisk, ReadAt, Storage};

use crate::common::{disk, try_backup};
use crate::crashes::{InSteps, as_it_runs};
use crate::resumed::{assert_image_right, content};
use crate::resumed_crashes::{Broken, Bug};
use crate::resumed_split::{assert_right_but_blanks, both, killed, split, with_parity};

/// Blocks of the disk: a few checkpoints, and half a dozen of the smallest segments.
const BLOCKS: usize = 26;

fn backup(source: &MemDisk, storage: &dyn Storage, options: &BackupOptions, n: u8) -> BackupReport {
    try_backup(source, storage, options.clone(), n).unwrap()
}

/// The history of one backup, acknowledged at its end.
fn one_backup(source: &MemDisk, options: &BackupOptions) -> CrashStorage {
    let crash = CrashStorage::new();
    let report = backup(source, &InSteps(crash.clone()), options, 1);
    crash.mark(report.image);
    crash
}

/// After a power cut at any moment the next backup goes on, or begins anew, and is right.
fn check_power_cuts(options: &BackupOptions, every: usize) {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let root = backup(&source, &MemStorage::new(), options, 9).state_root;
    let crash = one_backup(&source, options);
    let (mut states, mut resumed, mut from) = (0, 0, BTreeSet::new());
    for state in crash.crash_states(11, 60).step_by(every) {
        let report = backup(&source, &state.storage, options, 2);
        assert_eq!(report.state_root, root, "{state}");
        assert_right_but_blanks(&state.storage, &report, &bytes);
        assert_eq!(report.parent.is_some(), report.kind.name() != "full");
        assert!(state.acknowledged.is_empty() || report.parent.is_some(), "{state}");
        if let Some(it) = report.resumed {
            resumed += 1;
            from.insert(it.blocks);
        }
        states += 1;
    }
    assert!(states >= 150 && resumed >= 30, "{states} states, {resumed} gone on with");
    assert!(from.len() >= 4 && from.contains(&(BLOCKS as u64)), "{from:?}");
}

#[test]
fn after_a_power_cut_at_any_moment_a_split_backup_goes_on_to_the_right_image() {
    check_power_cuts(&split(), 29);
}

#[test]
fn after_a_power_cut_at_any_moment_one_with_parity_does_too() {
    check_power_cuts(&with_parity(), 11);
}

#[test]
fn after_a_power_cut_at_any_moment_one_with_both_does_too() {
    check_power_cuts(&both(), 31);
}

#[test]
fn a_second_power_cut_while_it_goes_on_costs_no_point_and_changes_nothing() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let options = both();
    let root = backup(&source, &MemStorage::new(), &options, 9).state_root;
    let crash = one_backup(&source, &options);
    let (mut pairs, mut twice) = (0, 0);
    for (seed, state) in (0u64..).zip(crash.crash_states(12, 30).step_by(409)) {
        let again = CrashStorage::starting_from(&state.storage);
        let first = backup(&source, &InSteps(again.clone()), &options, 2);
        assert_right_but_blanks(&as_it_runs(&again), &first, &bytes);
        again.mark(first.image);
        for second in again.crash_states(seed, 8).step_by(31) {
            let report = backup(&source, &second.storage, &options, 3);
            assert_eq!(report.state_root, root, "{state}, then {second}");
            assert_right_but_blanks(&second.storage, &report, &bytes);
            assert!(second.acknowledged.is_empty() || report.parent.is_some(), "{state}, {second}");
            pairs += 1;
            twice += u32::from(first.resumed.is_some() && report.resumed.is_some());
        }
    }
    assert!(pairs >= 100 && twice >= 20, "{pairs} pairs, {twice} gone on with twice");
}

/// A storage whose complete segments are opened again without being made durable.
struct Unsynced(CrashStorage);

struct Nothing;

impl AppendFile for Nothing {
    fn append(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Unsynced {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.0.create(name)
    }
    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        match self.0.open(name)?.len() == len {
            true => Ok(Box::new(Nothing)),
            false => self.0.reopen(name, len),
        }
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.publish(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.0.lease(name)
    }
}

/// A backup goes on with files that somebody has copied there and nobody made durable, is
/// acknowledged, and the power goes: in how many of the states its point is lost.
fn lost_after_a_copy(storage_of: impl Fn(CrashStorage) -> Box<dyn Storage>) -> usize {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let left = killed(&source, &split(), 3);
    let crash = CrashStorage::new();
    for name in left.names() {
        crash.create(&name).unwrap().append_all(&left.contents(&name).unwrap()).unwrap();
    }
    let report = backup(&source, &*storage_of(crash.clone()), &split(), 2);
    assert!(report.resumed.is_some());
    crash.mark(report.image.clone());
    let mut lost = 0;
    for state in crash.crash_states(3, 40).filter(|state| !state.acknowledged.is_empty()) {
        let is_right = std::panic::catch_unwind(|| {
            assert_image_right(&state.storage, &report, &bytes);
        });
        lost += usize::from(is_right.is_err());
    }
    lost
}

#[test]
fn segments_that_nobody_made_durable_are_when_a_backup_has_gone_on_with_them() {
    assert_eq!(lost_after_a_copy(|crash| Box::new(crash)), 0);
    let lost = lost_after_a_copy(|crash| Box::new(Unsynced(crash)));
    assert!(lost > 0, "the planted bug was not seen");
}

#[test]
fn a_storage_that_reopens_segments_wrongly_costs_what_was_stored_and_nothing_else() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    for (bug, why) in [
        (Bug::Cannot, "it cannot be gone on with: unsupported"),
        (Bug::Whole, "not where it was cut"),
        (Bug::Short, ""),
        (Bug::Other, "another segment"),
        (Bug::Loses, "did not read back as it was written"),
    ] {
        let storage = Broken(killed(&source, &split(), 3), bug);
        let report = backup(&source, &storage, &split(), 2);
        let not_resumed = report.not_resumed.clone().unwrap();
        assert!(report.resumed.is_none() && not_resumed.contains(why), "{not_resumed}");
        storage.0.remove("other.part").ok();
        assert_right_but_blanks(&storage.0, &report, &bytes);
    }
}
