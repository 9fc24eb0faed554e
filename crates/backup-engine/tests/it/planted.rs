//! Bugs planted on purpose: a storage that breaks one promise, or an order of writes with one
//! step missing. The crash tests are worth something only if they see each of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use aiv_backup_engine::BackupIds;
use aiv_image_format::GroupId;
use aiv_testkit::{CrashStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Lease, ReadAt, Storage};

use crate::common::ids;
use crate::crashes::{InSteps, Oracle, check_states, two_backups};

/// Which promise is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Syncs of files do nothing.
    FileSync,
    /// The first sync of each file does nothing: the trailer goes to the medium together with
    /// the data it vouches for, in any order.
    DataSync,
    /// The last sync of each file does nothing: published before the trailer is durable.
    TrailerSync,
    /// Syncs of the folder do nothing.
    DirSync,
    /// Publishing replaces.
    Replace,
}

struct Broken(CrashStorage, Bug);

struct BrokenFile {
    file: Box<dyn AppendFile>,
    bug: Bug,
    syncs: u32,
}

impl AppendFile for BrokenFile {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.append(data)
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        match self.bug {
            Bug::FileSync => Ok(()),
            Bug::DataSync if self.syncs == 1 => Ok(()),
            Bug::TrailerSync if self.syncs == 2 => Ok(()),
            _ => self.file.sync(),
        }
    }
}

impl Storage for Broken {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(BrokenFile { file: self.0.create(name)?, bug: self.1, syncs: 0 }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        if self.1 == Bug::Replace && self.0.list()?.iter().any(|entry| entry.name == to) {
            self.0.remove(to)?;
        }
        self.0.publish(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        if self.1 == Bug::DirSync { Ok(()) } else { self.0.sync_dir() }
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.0.lease(name)
    }
}

/// What the sampled states of two backups in a row say about a bug.
fn sampled(bug: Bug) -> Result<usize, String> {
    let crash = CrashStorage::new();
    let mut oracle = Oracle::default();
    two_backups(&mut oracle, &crash, &InSteps(Broken(crash.clone(), bug)));
    check_states(&mut oracle, crash.crash_states(3, 60), &[])
}

/// What all states of one backup, torn in six pieces, say about a bug.
fn exhaustive(bug: Bug) -> Result<usize, String> {
    let crash = CrashStorage::new();
    let mut oracle = Oracle::default();
    let id = oracle.backup(&Broken(crash.clone(), bug), "source", 1, &ids(1)).unwrap();
    crash.mark(id);
    check_states(&mut oracle, crash.all_crash_states(), &[])
}

#[track_caller]
fn expect_found(found: Result<usize, String>, what: &str) {
    let why = found.expect_err("the planted bug was not seen");
    assert!(why.contains(what), "{why}");
}

#[test]
fn without_a_bug_all_states_are_right() {
    sampled(Bug::None).unwrap();
    let count = exhaustive(Bug::None).unwrap();
    assert!(count > 2_000, "{count} states");
}

#[test]
fn a_storage_that_does_not_sync_files_is_found_out() {
    expect_found(sampled(Bug::FileSync), "is no image");
    expect_found(exhaustive(Bug::FileSync), "opens and does not read");
}

#[test]
fn publishing_before_the_trailer_is_synced_is_found_out() {
    expect_found(sampled(Bug::TrailerSync), "is no image");
}

#[test]
fn writing_the_trailer_before_the_data_is_synced_is_found_out() {
    // The state that betrays it: trailer there, frames not, in a file that opens.
    expect_found(exhaustive(Bug::DataSync), "opens and does not read");
}

#[test]
fn a_storage_that_does_not_sync_its_folder_is_found_out() {
    expect_found(sampled(Bug::DirSync), "is lost");
    expect_found(exhaustive(Bug::DirSync), "is lost");
}

/// All ids differ, and name and time do not.
fn ids_with_suffix(n: u8) -> BackupIds {
    let mut random = [n; BackupIds::RANDOM_LEN];
    random[44..].fill(0);
    BackupIds::new(&random, GroupId([n; 16]), 1_790_000_000_000)
}

fn same_name_twice(bug: Bug) -> Result<usize, String> {
    let (crash, mut oracle) = one_name_twice(bug);
    check_states(&mut oracle, crash.crash_states(4, 30), &[])
}

/// Two disks of one name, backed up at the same second with the same random suffix.
fn one_name_twice(bug: Bug) -> (CrashStorage, Oracle) {
    let crash = CrashStorage::new();
    let mut oracle = Oracle::default();
    let storage = Broken(crash.clone(), bug);
    let id = oracle.backup(&storage, "one", 1, &ids_with_suffix(1)).unwrap();
    crash.mark(id);
    let second = oracle.backup(&storage, "two", 2, &ids_with_suffix(2));
    assert_eq!(second.is_ok(), bug == Bug::Replace);
    (crash, oracle)
}

#[test]
fn a_storage_whose_publish_replaces_is_found_out() {
    same_name_twice(Bug::None).unwrap();
    expect_found(same_name_twice(Bug::Replace), "is lost");
}

/// A storage that publishes the name first and writes the contents afterwards, although the
/// program that uses it sees them at once.
struct NameFirst {
    crash: CrashStorage,
    seen: MemStorage,
    files: Mutex<HashMap<String, Box<dyn AppendFile>>>,
}

impl Storage for NameFirst {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.files.lock().unwrap().insert(name.to_owned(), self.crash.create(name)?);
        self.seen.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.seen.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.seen.publish(from, to)?;
        self.crash.publish(from, to)?;
        let mut file = self.files.lock().unwrap().remove(from).expect("created before");
        file.append_all(&self.seen.contents(to).expect("just published"))?;
        file.sync()
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.seen.remove(name)?;
        self.crash.remove(name)
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

#[test]
fn contents_written_after_the_name_was_published_are_found_out() {
    let crash = CrashStorage::new();
    let mut oracle = Oracle::default();
    let storage =
        NameFirst { crash: crash.clone(), seen: MemStorage::new(), files: Mutex::default() };
    two_backups(&mut oracle, &crash, &storage);
    let found = check_states(&mut oracle, crash.crash_states(5, 20), &[]);
    expect_found(found, "has its final name and is no image");
}
