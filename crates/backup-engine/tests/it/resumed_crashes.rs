//! Backups whose power goes, or whose storage fails, and the ones that go on with them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use aiv_backup_engine::{BackupOptions, BackupReport};
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Lease, MemDisk, ReadAt, Storage};

use crate::common::{BLOCK, disk, plan, try_backup};
use crate::crashes::{InSteps, as_it_runs};
use crate::resumed::{assert_image_right, assert_right, content, resuming};

/// Blocks of the disk: a few checkpoints.
const BLOCKS: usize = 26;

fn backup(source: &MemDisk, storage: &dyn Storage, n: u8) -> BackupReport {
    try_backup(source, storage, resuming(), n).unwrap()
}

/// The history of one backup, acknowledged at its end.
fn one_backup(source: &MemDisk) -> CrashStorage {
    let crash = CrashStorage::new();
    let report = backup(source, &InSteps(crash.clone()), 1);
    crash.mark(report.image);
    crash
}

#[test]
fn after_a_power_cut_at_any_moment_the_next_backup_goes_on_to_the_right_image() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let root = backup(&source, &MemStorage::new(), 9).state_root;
    let crash = one_backup(&source);
    let (mut resumed, mut from) = (0, BTreeSet::new());
    let mut states = 0;
    for state in crash.crash_states(11, 60).step_by(3) {
        let report = backup(&source, &state.storage, 2);
        assert_eq!(report.state_root, root, "{state}");
        assert_right(&state.storage, &report, &bytes);
        // An image that was acknowledged is built on.
        assert_eq!(report.parent.is_some(), report.kind.name() != "full");
        assert!(state.acknowledged.is_empty() || report.parent.is_some(), "{state}");
        if let Some(it) = report.resumed {
            resumed += 1;
            from.insert(it.blocks);
        }
        states += 1;
    }
    assert!(states >= 400 && resumed >= 60, "{states} states, {resumed} gone on with");
    assert!(from.len() >= 4 && from.contains(&(BLOCKS as u64)), "{from:?}");
}

#[test]
fn a_second_power_cut_while_it_goes_on_changes_nothing_about_that() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let root = backup(&source, &MemStorage::new(), 9).state_root;
    let crash = one_backup(&source);
    let (mut pairs, mut twice) = (0, 0);
    for (seed, state) in (0u64..).zip(crash.crash_states(12, 30).step_by(23)) {
        let again = CrashStorage::starting_from(&state.storage);
        let first = backup(&source, &InSteps(again.clone()), 2);
        assert_right(&as_it_runs(&again), &first, &bytes);
        for second in again.crash_states(seed, 8).step_by(5) {
            let report = backup(&source, &second.storage, 3);
            assert_eq!(report.state_root, root, "{state}, then {second}");
            assert_right(&second.storage, &report, &bytes);
            pairs += 1;
            twice += u32::from(first.resumed.is_some() && report.resumed.is_some());
        }
    }
    assert!(pairs >= 300 && twice >= 30, "{pairs} pairs, {twice} gone on with twice");
}

#[test]
fn a_source_that_changed_over_a_power_cut_is_backed_up_as_it_is_now() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let crash = one_backup(&source);
    let (mut anew, mut resumed) = (0, 0);
    for (n, state) in crash.crash_states(13, 30).step_by(2).enumerate() {
        let mut bytes = bytes.clone();
        // Anywhere, or where the backup got to last.
        let at = if n % 2 == 0 { n * 7919 % (BLOCKS * BLOCK) } else { BLOCKS * BLOCK - 1 };
        bytes[at] ^= 1;
        let report = backup(&disk(&bytes), &state.storage, 2);
        assert_right(&state.storage, &report, &bytes);
        anew += u32::from(report.not_resumed.is_some());
        resumed += u32::from(report.resumed.is_some());
    }
    assert!(anew >= 20 && resumed >= 5, "{anew} {resumed}");
}

/// A folder with the beginning of a backup.
fn unfinished(source: &MemDisk) -> MemStorage {
    let finished = MemStorage::new();
    let report = backup(source, &finished, 1);
    let bytes = finished.contents(&report.image).unwrap();
    let part = format!("{}.part", report.image);
    [(part, bytes[..bytes.len() * 3 / 5].to_vec())].into_iter().collect()
}

fn check_faults(plan_of: fn(u64, Fault) -> FaultPlan) {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let folder = unfinished(&source);
    let mut gone_on = 0;
    for fault in Fault::ALL {
        for at in 0.. {
            let storage = FaultStorage::failing(folder.fork(), plan_of(at, fault));
            let done = try_backup(&source, &storage, resuming(), 2);
            let memory = storage.inner();
            match &done {
                // What could not be looked at stays.
                Ok(report) => assert_image_right(memory, report, &bytes),
                Err(_) => assert!(storage.fired(), "{done:?}"),
            }
            if storage.fired() && fault.is_harmless() {
                assert!(done.is_ok(), "{done:?}");
            }
            gone_on += u32::from(done.is_ok_and(|report| report.resumed.is_some()));
            // After healing.
            let report = backup(&source, memory, 3);
            assert_right(memory, &report, &bytes);
            if !storage.fired() {
                assert!(at > 0, "{fault:?} hit nothing");
                break;
            }
        }
    }
    assert!(gone_on >= 8, "{gone_on}");
}

#[test]
fn no_single_fault_while_a_backup_goes_on_gives_false_success_or_a_wrong_image() {
    check_faults(FaultPlan::once);
}

#[test]
fn no_lasting_fault_while_a_backup_goes_on_does_either() {
    check_faults(FaultPlan::persistent);
}

/// What a storage does wrong when a file is reopened.
#[derive(Clone, Copy)]
pub(crate) enum Bug {
    /// It cannot.
    Cannot,
    /// It does not cut.
    Whole,
    /// It cuts off too much.
    Short,
    /// It gives out another file.
    Other,
    /// It loses a byte in the middle, and says nothing.
    Loses,
}

pub(crate) struct Broken(pub(crate) MemStorage, pub(crate) Bug);

impl Storage for Broken {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.0.create(name)
    }
    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        match self.1 {
            Bug::Cannot => Err(io::ErrorKind::Unsupported.into()),
            Bug::Whole => self.0.reopen(name, self.0.open(name)?.len()),
            Bug::Short => self.0.reopen(name, len - 64),
            Bug::Other => {
                self.0.insert("other.part", vec![0; usize::try_from(len).unwrap()]);
                self.0.reopen("other.part", len)
            }
            Bug::Loses => {
                let mut bytes = self.0.contents(name).unwrap().to_vec();
                bytes[40_000] ^= 1;
                self.0.insert(name, bytes);
                self.0.reopen(name, len)
            }
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

#[test]
fn a_storage_that_reopens_wrongly_costs_what_was_stored_and_nothing_else() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    for (bug, why) in [
        (Bug::Cannot, "it cannot be gone on with: unsupported"),
        (Bug::Whole, "not where it was cut"),
        (Bug::Short, "read unfinished image failed"),
        (Bug::Other, "not an Aivory image"),
        (Bug::Loses, "did not read back as it was written"),
    ] {
        let storage = Broken(unfinished(&source), bug);
        let report = backup(&source, &storage, 2);
        let not_resumed = report.not_resumed.clone().unwrap();
        assert!(report.resumed.is_none() && not_resumed.contains(why), "{not_resumed}");
        storage.0.remove("other.part").ok();
        assert_right(&storage.0, &report, &bytes);
    }
}

#[test]
fn an_image_that_is_gone_on_with_does_not_depend_on_the_number_of_threads() {
    let source = disk(&content(BLOCKS));
    let image = |threads: usize| {
        let storage = unfinished(&source);
        let options = BackupOptions { threads: crate::common::threads(threads), ..resuming() };
        let report = crate::common::apply(&plan(&source, options), &source, &storage, 2).unwrap();
        assert!(report.resumed.is_some());
        storage.contents(&report.image).unwrap()
    };
    assert!(image(1) == image(4));
}
