//! Bugs planted on purpose: a storage that breaks one promise, an order of removals that is wrong,
//! a reader that looks at one file only. The crash tests are worth something only if they see each
//! of them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_testkit::{CrashStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Lease, ReadAt, Storage};

use crate::consolidate::{consolidate, keep};
use crate::described::{Change, Step, wrong};
use crate::merge_crashes::{Oracle, Rule, Tier, check_states, moving};
use crate::merge_faults::{KEPT, small, small_named};
use crate::wrappers::{InSteps, pass_on};

const TIER: Tier = Tier { seed: 3, per_prefix: 40 };

/// What a consolidation of the small chain through a storage leaves after a crash.
fn with_storage<S: Storage>(wrap: impl FnOnce(CrashStorage) -> S) -> Result<usize, String> {
    let chain = small();
    let crash = CrashStorage::starting_from(&chain.storage);
    let storage = InSteps(wrap(crash.clone()));
    consolidate(&storage, &keep(1, &[2])).unwrap();
    let mut oracle = Oracle::new(&chain, &KEPT);
    check_states(crash.crash_states(TIER.seed, TIER.per_prefix), |state| {
        oracle.check(&state.storage)
    })
}

#[track_caller]
fn expect_found(found: Result<usize, String>, what: &[&str]) {
    let why = found.expect_err("the planted bug was not seen");
    assert!(what.iter().any(|what| why.contains(what)), "{why}");
}

#[test]
fn without_a_bug_all_states_are_right() {
    with_storage(|crash| crash).unwrap();
}

/// Syncs of files do nothing.
struct NoFileSync(CrashStorage);

struct NoSync(Box<dyn AppendFile>);

impl AppendFile for NoSync {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.append(data)
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for NoFileSync {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(NoSync(self.0.create(name)?)))
    }
    pass_on!(0: open, publish, remove, list, sync_dir, lease);
}

#[test]
fn a_storage_that_does_not_sync_files_is_found_out() {
    expect_found(with_storage(NoFileSync), &["is gone", "does not", "MissingParent"]);
    expect_found(
        moving(TIER, |crash| Box::new(InSteps(NoFileSync(crash)))),
        &["is gone", "does not", "MissingParent"],
    );
}

/// The folder is not synced between a publish and the first removal after it.
struct LateDirSync {
    crash: CrashStorage,
    published: AtomicBool,
}

impl Storage for LateDirSync {
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.published.store(true, Ordering::Relaxed);
        self.crash.publish(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.published.store(false, Ordering::Relaxed);
        self.crash.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        if self.published.load(Ordering::Relaxed) { Ok(()) } else { self.crash.sync_dir() }
    }
    pass_on!(crash: create, open, list, lease);
}

#[test]
fn removing_before_the_folder_was_synced_is_found_out() {
    let late = |crash| LateDirSync { crash, published: AtomicBool::new(false) };
    expect_found(with_storage(late), &["is gone", "MissingParent"]);
    let found = moving(TIER, |crash| Box::new(InSteps(late(crash))));
    expect_found(found, &["in neither folder", "MissingParent"]);
}

/// Images are removed in another order than the program means: it sees its own.
struct Reordered {
    crash: CrashStorage,
    seen: MemStorage,
    /// Which file goes in place of which.
    instead: HashMap<String, String>,
}

/// Appends to both.
struct Both(Box<dyn AppendFile>, Box<dyn AppendFile>);

impl AppendFile for Both {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.append_all(data)?;
        self.1.append_all(data)?;
        Ok(data.len())
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

impl Storage for Reordered {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(Both(self.crash.create(name)?, self.seen.create(name)?)))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.seen.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.seen.publish(from, to)?;
        self.crash.publish(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.seen.remove(name)?;
        self.crash.remove(self.instead.get(name).map_or(name, String::as_str))
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.seen.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.crash.sync_dir()
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.seen.lease(name)
    }
}

/// A consolidation of everything into the newest point, with the removals from the oldest on. By
/// their names the old files come before the merged one.
fn oldest_first(own_files: bool, rule: Rule) -> Result<usize, String> {
    let chain = small_named("a");
    let rehearsed = consolidate(&chain.storage.fork(), &keep(1, &[])).unwrap().removed;
    let instead = rehearsed.iter().cloned().zip(rehearsed.iter().rev().cloned()).collect();
    let crash = CrashStorage::starting_from(&chain.storage);
    let storage = Reordered { crash: crash.clone(), seen: chain.storage.fork(), instead };
    consolidate(&storage, &keep(1, &[])).unwrap();
    let mut oracle = Oracle::new(&chain, &[3]);
    (oracle.own_files, oracle.rule) = (own_files, rule);
    check_states(crash.crash_states(TIER.seed, TIER.per_prefix), |state| {
        oracle.check(&state.storage)
    })
}

#[test]
fn removing_the_oldest_file_first_is_found_out() {
    expect_found(oldest_first(true, Rule::Scan), &["MissingParent"]);
}

#[test]
fn a_reader_that_looks_at_the_first_provider_only_is_found_out() {
    // The kept point itself survives the wrong order, because a scan tries every file.
    oldest_first(false, Rule::Scan).unwrap();
    expect_found(oldest_first(false, Rule::FirstProvider), &["which is lost"]);
}

/// Somebody else publishes a file under the very name a merged image is to get, and publishing
/// replaces it.
struct Replacing {
    crash: CrashStorage,
    replaces: bool,
    rival: Vec<u8>,
}

const RIVAL: &str = "the rival is safe";

impl Storage for Replacing {
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        let mut file = self.crash.create("rival.part")?;
        file.append_all(&self.rival)?;
        file.sync()?;
        self.crash.publish("rival.part", to)?;
        self.crash.sync_dir()?;
        self.crash.mark(RIVAL);
        if self.replaces {
            self.crash.remove(to)?;
        }
        self.crash.publish(from, to)
    }
    pass_on!(crash: create, open, remove, list, sync_dir, lease);
}

fn against_a_rival(replaces: bool) -> Result<usize, String> {
    let mut chain = small();
    let side = MemStorage::new();
    let step = Step::full(600, &[(Change::New(9), 1)]);
    chain.add_to(&side, "rival", &step);
    let rival = side.contents("rival").unwrap().to_vec();
    let crash = CrashStorage::starting_from(&chain.storage);
    let storage = Replacing { crash: crash.clone(), replaces, rival };
    let done = consolidate(&storage, &keep(2, &[2]));
    if done.is_ok() != replaces {
        return Err(format!("not as planted: {done:?}"));
    }
    let rival = chain.points.last().unwrap();
    let mut known: HashMap<Vec<String>, Option<String>> = HashMap::new();
    check_states(crash.crash_states(TIER.seed, TIER.per_prefix), |state| {
        if !state.acknowledged.contains(&RIVAL.to_owned()) {
            return Ok(());
        }
        let names = state.storage.names();
        let found = known.entry(names).or_insert_with(|| wrong(&state.storage, rival));
        found.clone().map_or(Ok(()), Err)
    })
}

#[test]
fn publishing_over_a_file_of_somebody_else_is_found_out() {
    against_a_rival(false).unwrap();
    expect_found(against_a_rival(true), &["is gone"]);
}
