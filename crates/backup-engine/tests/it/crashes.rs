//! The power goes at every operation, and takes with it what a medium may lose.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aiv_backup_engine::{BackupIds, BackupOptions, BackupPlan, Basis, SourceFacts};
use aiv_chain::{Digest, Folder, Image, StrayKind, View};
use aiv_image_format::meta::Inventory;
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashState, CrashStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Job, Lease, ReadAt, Storage};

use crate::common::{BLOCK, disk, facts, ids, options, read_all, try_read_all};

/// A storage whose appends take a few sectors at a time, as a kernel may: more moments for the
/// power to go.
#[derive(Clone)]
pub(crate) struct InSteps<S>(pub(crate) S);

/// Bytes one append takes. Sized so that the 64 KiB gap of the trailer is several steps.
const STEP: usize = 24 << 10;

struct StepFile(Box<dyn AppendFile>);

impl AppendFile for StepFile {
    fn append(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.append(&data[..data.len().min(STEP)])
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }
}

impl<S: Storage> Storage for InSteps<S> {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(StepFile(self.0.create(name)?)))
    }
    fn reopen(&self, name: &str, len: u64) -> std::io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(StepFile(self.0.reopen(name, len)?)))
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn ReadAt>> {
        self.0.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.publish(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> std::io::Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.sync_dir()
    }
    fn lease(&self, name: &str) -> std::io::Result<Box<dyn Lease>> {
        self.0.lease(name)
    }
}

/// The disk as of the `n`-th backup.
fn disk_bytes(n: u8) -> Vec<u8> {
    // Incompressible, so that the frames are a good part of the file.
    Content::Random(n.into()).bytes(2 * BLOCK + 512)
}

/// The same with a copy that is shifted by a page, in another piece of work.
fn repeating(n: u8) -> Vec<u8> {
    let mut bytes = disk_bytes(n);
    bytes.resize(2 << 20, 0);
    bytes.extend_from_within(4096..2 * BLOCK + 512);
    bytes
}

/// What must be true of the points a scenario makes, whatever happens to the folder.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Bytes and state root of each point, by its id as text.
    points: BTreeMap<String, (Vec<u8>, Digest)>,
    /// Whether images have differences to blocks of their own.
    repeats: bool,
    /// How many they have.
    local: u64,
    /// Verdicts by the hash of a file's bytes: most states share most files.
    known: HashMap<blake3::Hash, Verdict>,
}

/// What a file is, judged by its bytes alone.
#[derive(Clone)]
enum Verdict {
    /// Opens, and reads back as this point.
    Right(String),
    /// Does not open as an image.
    NotAnImage,
    /// Opens, and does not read back as any point: never allowed, under any name.
    Wrong(String),
}

impl Oracle {
    /// Backs up the `n`-th state of the source named `source_id`; the mark in the crash history
    /// is the id of the point.
    pub(crate) fn backup(
        &mut self,
        storage: &dyn Storage,
        source_id: &str,
        n: u8,
        ids: &BackupIds,
    ) -> aiv_backup_engine::Result<String> {
        let (bytes, options) = match self.repeats {
            // Every file of a state is judged by itself.
            true => (repeating(n), BackupOptions { basis: Basis::Nothing, ..options() }),
            false => (disk_bytes(n), options()),
        };
        let options = BackupOptions { repeat_distance: Some(0), ..options };
        let facts = SourceFacts { source_id: Some(source_id.to_owned()), ..facts("disk") };
        let source = disk(&bytes);
        let plan = BackupPlan::new(&source, facts, options, Job::silent())?;
        let nothing = Inventory::default();
        // Rehearsed where nothing fails: what a backup that fails leaves must be right, too.
        let rehearsed =
            plan.apply(&source, &MemStorage::new(), ids, &nothing, None, Job::silent())?;
        let id = rehearsed.recovery_point.to_string();
        self.points.insert(id.clone(), (bytes, rehearsed.state_root));
        let report = plan.apply(&source, storage, ids, &nothing, None, Job::silent())?;
        self.local += report.totals.blocks_local;
        Ok(id)
    }

    fn judge(&mut self, bytes: &Arc<Vec<u8>>) -> Verdict {
        let hash = blake3::hash(bytes);
        if let Some(verdict) = self.known.get(&hash) {
            return verdict.clone();
        }
        let verdict = self.judge_bytes(bytes);
        self.known.insert(hash, verdict.clone());
        verdict
    }

    fn judge_bytes(&self, bytes: &Arc<Vec<u8>>) -> Verdict {
        let storage: MemStorage = [("file".to_owned(), Arc::clone(bytes))].into_iter().collect();
        let Ok(image) = Image::open(storage.open("file").unwrap()) else {
            return Verdict::NotAnImage;
        };
        let (id, root) = (image.superblock().point.to_string(), image.trailer().state_root);
        let view = View::of_full(Arc::new(image), "file".to_owned());
        let Some((expected, expected_root)) = self.points.get(&id) else {
            return Verdict::Wrong(format!("a point nobody made: {id}"));
        };
        match try_read_all(&view) {
            Err(error) => Verdict::Wrong(format!("it opens and does not read: {error}")),
            Ok(bytes) if bytes != *expected => Verdict::Wrong("other bytes".to_owned()),
            Ok(_) if root != *expected_root => Verdict::Wrong("another state root".to_owned()),
            Ok(_) => Verdict::Right(id),
        }
    }

    /// Checks one state; the error says what was lost.
    pub(crate) fn check(&mut self, folder: &MemStorage, promised: &[String]) -> Result<(), String> {
        let mut right = BTreeMap::new();
        for name in folder.names() {
            let verdict = self.judge(&folder.contents(&name).unwrap());
            match verdict {
                Verdict::Wrong(why) => return Err(format!("{name}: {why}")),
                Verdict::NotAnImage if !name.ends_with(".part") => {
                    return Err(format!("{name} has its final name and is no image"));
                }
                Verdict::Right(id) if !name.ends_with(".part") => drop(right.insert(id, name)),
                _ => {}
            }
        }
        let scanned = Folder::scan(folder, Job::silent()).map_err(|e| format!("scan: {e}"))?;
        for stray in &scanned.strays {
            if !matches!(stray.kind, StrayKind::Unfinished | StrayKind::Duplicate(_)) {
                return Err(format!("{stray:?}"));
            }
        }
        let found: BTreeMap<String, String> = scanned
            .sets
            .into_iter()
            .flat_map(|set| set.points)
            .map(|point| (point.id.to_string(), point.file))
            .collect();
        if found != right {
            return Err(format!("the scan finds {found:?}, there are {right:?}"));
        }
        match promised.iter().find(|id| !found.contains_key(*id)) {
            Some(lost) => Err(format!("the acknowledged point {lost} is lost")),
            None => Ok(()),
        }
    }
}

/// Counts the states and stops at the first that breaks a promise.
pub(crate) fn check_states(
    oracle: &mut Oracle,
    states: impl Iterator<Item = CrashState>,
    also: &[String],
) -> Result<usize, String> {
    let mut count = 0;
    for state in states {
        let promised = [also, &state.acknowledged].concat();
        oracle.check(&state.storage, &promised).map_err(|why| format!("{state}: {why}"))?;
        count += 1;
    }
    Ok(count)
}

/// Two backups in a row, each acknowledged, in a folder that begins with the leftover of an
/// interrupted one. `storage` writes into `crash`.
pub(crate) fn two_backups(oracle: &mut Oracle, crash: &CrashStorage, storage: &dyn Storage) {
    for n in 1..=2 {
        let id = oracle.backup(storage, "source", n, &ids(n)).unwrap();
        crash.mark(id);
    }
}

fn with_a_leftover() -> CrashStorage {
    let mut oracle = Oracle::default();
    let finished = MemStorage::new();
    oracle.backup(&finished, "source", 9, &ids(9)).unwrap();
    let name = finished.names().remove(0);
    let bytes = finished.contents(&name).unwrap();
    let start: MemStorage =
        [(format!("{name}.part"), bytes[..bytes.len() / 2].to_vec())].into_iter().collect();
    CrashStorage::starting_from(&start)
}

#[test]
fn after_a_power_cut_at_any_moment_every_acknowledged_point_is_there_and_right() {
    let crash = with_a_leftover();
    let mut oracle = Oracle::default();
    two_backups(&mut oracle, &crash, &InSteps(crash.clone()));
    let count = check_states(&mut oracle, crash.crash_states(1, 1200), &[]).unwrap();
    assert!(count >= 10_000, "{count} states of {}", crash.history_text());
}

#[test]
fn nor_does_one_harm_images_with_differences_to_blocks_of_their_own() {
    let crash = with_a_leftover();
    let mut oracle = Oracle { repeats: true, ..Oracle::default() };
    two_backups(&mut oracle, &crash, &InSteps(crash.clone()));
    assert!(oracle.local >= 2, "at least one in each image: {}", oracle.local);
    let count = check_states(&mut oracle, crash.crash_states(3, 150), &[]).unwrap();
    assert!(count >= 1000, "{count} states of {}", crash.history_text());
}

#[test]
fn a_backup_after_a_power_cut_works_and_survives_another_one() {
    let crash = with_a_leftover();
    let mut oracle = Oracle::default();
    two_backups(&mut oracle, &crash, &InSteps(crash.clone()));
    let mut pairs = 0;
    // Every tenth state of a few per prefix: prefixes and kinds of loss mix.
    for (random, state) in (10..).zip(crash.crash_states(2, 14).step_by(9)) {
        let again = CrashStorage::starting_from(&state.storage);
        let id = oracle.backup(&again, "source", 3, &ids(random)).unwrap();
        again.mark(id.clone());
        let promised = [state.acknowledged.clone(), vec![id]].concat();
        oracle.check(&as_it_runs(&again), &promised).unwrap();
        let states = again.crash_states(random.into(), 6);
        pairs += check_states(&mut oracle, states, &state.acknowledged)
            .unwrap_or_else(|why| panic!("first crash: {state}, second crash: {why}"));
    }
    assert!(pairs >= 300, "{pairs} pairs of crashes");
}

/// The folder as the running machine sees it.
pub(crate) fn as_it_runs(storage: &CrashStorage) -> MemStorage {
    let entries = storage.list().unwrap().into_iter();
    let read = |entry: FileEntry| {
        let bytes = read_all(&storage.open(&entry.name).unwrap());
        (entry.name, bytes)
    };
    entries.map(read).collect()
}
