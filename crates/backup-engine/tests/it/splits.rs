//! Images of several files: whole or not there, whatever happens.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use aiv_backup_engine::{BackupOptions, BackupReport, Basis, Error, Refusal};
use aiv_chain::{Digest, Folder, Keys, StrayKind, Trust, View};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashState, CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage, Op};
use aiv_volume_io::{AppendFile, FileEntry, Job, Lease, ReadAt, Storage};

use crate::common::{BLOCK, all_sectors, disk, read_all, try_backup, try_read_all};
use crate::crashes::InSteps;
use crate::sealed::{key, sealed};

/// The smallest segments: a piece of 64 KiB each.
fn split() -> BackupOptions {
    BackupOptions { split: Some(SEGMENT_BYTES_MIN), ..all_sectors() }
}

/// The disk as of the `n`-th backup: incompressible, of three segments and more.
fn disk_bytes(n: u8) -> Vec<u8> {
    Content::Random(n.into()).bytes(8 * BLOCK + 512)
}

fn check_image(folder: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    let view = View::open(folder, &report.image, Job::silent()).unwrap();
    let found = view.image().verify(aiv_chain::Depth::Data, Job::silent()).unwrap();
    assert_eq!((found.damage, view.image().damage()), (vec![], &[][..]));
    assert_eq!(view.image().trailer().state_root, report.state_root);
    assert!(read_all(&view) == bytes);
}

#[test]
fn a_split_backup_is_one_point_of_several_files_and_increments_build_on_it() {
    let folder = MemStorage::new();
    let mut bytes = disk_bytes(1);
    let full = try_backup(&disk(&bytes), &folder, split(), 1).unwrap();
    assert!(full.segments >= 3, "{}", full.segments);
    assert_eq!(folder.names().len(), full.segments as usize);
    let stored: usize = folder.names().iter().map(|n| folder.contents(n).unwrap().len()).sum();
    assert_eq!(full.bytes_stored, stored as u64);
    check_image(&folder, &full, &bytes);
    bytes[..6 * BLOCK].copy_from_slice(&disk_bytes(2)[..6 * BLOCK]);
    let next = try_backup(&disk(&bytes), &folder, split(), 2).unwrap();
    assert_eq!(next.parent, Some(full.recovery_point));
    assert!(next.segments >= 2, "{}", next.segments);
    check_image(&folder, &next, &bytes);
    let whole = try_backup(&disk(&bytes), &folder, all_sectors(), 3).unwrap();
    assert_eq!((whole.segments, whole.parent), (1, Some(next.recovery_point)));
    let scanned = Folder::scan(&folder, Job::silent()).unwrap();
    assert!(scanned.strays.is_empty(), "{:?}", scanned.strays);
    let counts = scanned.sets[0].points.iter().map(|point| point.segments.len() + 1);
    assert_eq!(counts.collect::<Vec<_>>(), [full.segments as usize, next.segments as usize, 1]);
    let sizes: u64 = scanned.sets[0].points.iter().map(|point| point.size_stored).sum();
    assert_eq!(sizes, full.bytes_stored + next.bytes_stored + whole.bytes_stored);
}

#[test]
fn an_image_that_cannot_be_split_so_finely_is_refused_before_it_is_begun() {
    let folder = MemStorage::new();
    let options = BackupOptions { split: Some(SEGMENT_BYTES_MIN - 1), ..all_sectors() };
    let refused = try_backup(&disk(&disk_bytes(1)), &folder, options, 1);
    assert!(matches!(refused, Err(Error::Refused(Refusal::SplitSize { .. }))), "{refused:?}");
    // Sparse: of a disk that is used in full.
    let huge = aiv_testkit::disks::CountingDisk::new(Zeros(1 << 40));
    let options = BackupOptions { split: Some(64 << 20), ..all_sectors() };
    let refused = try_backup(&huge, &folder, options, 1);
    let Err(Error::Refused(Refusal::SplitSize { needed, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert!((1 << 29..1 << 31).contains(&needed), "{needed}");
    assert!(folder.names().is_empty());
}

struct Zeros(u64);

impl ReadAt for Zeros {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_exact_at(&self, out: &mut [u8], _: u64) -> io::Result<()> {
        out.fill(0);
        Ok(())
    }
}

/// A folder with one split image, and what it is of.
struct World {
    bytes: Vec<u8>,
    folder: MemStorage,
    first: BackupReport,
}

fn world() -> World {
    let (bytes, folder) = (disk_bytes(1), MemStorage::new());
    let first = try_backup(&disk(&bytes), &folder, split(), 1).unwrap();
    World { bytes, folder, first }
}

/// One backup under one fault; returns what it hit, if anything.
fn check_fault(world: &World, fault_plan: FaultPlan) -> Option<Op> {
    let storage = FaultStorage::failing(world.folder.fork(), fault_plan);
    let options = BackupOptions { basis: Basis::Nothing, ..split() };
    let bytes = disk_bytes(2);
    let done = try_backup(&disk(&bytes), &storage, options.clone(), 2);
    let folder = storage.inner();
    match &done {
        Ok(report) => check_image(folder, report, &bytes),
        Err(_) => assert!(storage.fired(), "{done:?}"),
    }
    if storage.fired() && fault_plan.fault.is_harmless() {
        assert!(done.is_ok(), "{done:?}");
    }
    if fault_plan.fault == Fault::SyncFailsThenSucceeds && storage.fired() {
        assert!(done.is_err(), "a failed sync was taken for success");
    }
    check_image(folder, &world.first, &world.bytes);
    let scanned = Folder::scan(folder, Job::silent()).unwrap();
    let unfinished = |s: &aiv_chain::Stray| s.kind == StrayKind::Unfinished;
    assert!(scanned.strays.iter().all(unfinished), "{:?}", scanned.strays);
    for point in scanned.sets.iter().flat_map(|set| &set.points) {
        let is_first = point.id == world.first.recovery_point;
        let wanted = if is_first { &world.bytes } else { &bytes };
        let view = View::open(folder, &point.file, Job::silent()).unwrap();
        assert!(read_all(&view) == *wanted);
    }
    // After healing nothing is left over.
    let report = try_backup(&disk(&bytes), folder, options, 3).unwrap();
    check_image(folder, &report, &bytes);
    check_image(folder, &world.first, &world.bytes);
    let scanned = Folder::scan(folder, Job::silent()).unwrap();
    for stray in &scanned.strays {
        let bytes = folder.contents(&stray.file).unwrap();
        let blank = bytes.len() < 4096 || bytes[..4096].iter().all(|&b| b == 0);
        assert!(stray.file.ends_with(".part") && blank, "{stray:?} stays");
    }
    storage.trace().iter().find(|operation| operation.failed).map(|operation| operation.op)
}

#[test]
fn no_fault_at_any_operation_leaves_half_a_split_image_or_gives_false_success() {
    let world = world();
    for plan in [FaultPlan::once, FaultPlan::persistent] {
        for fault in Fault::ALL {
            let (mut at, mut hits) = (0, 0);
            // All operations but reads, and of those one in 13.
            while let Some(op) = check_fault(&world, plan(at, fault)) {
                at += if op == Op::Read { 13 } else { 1 };
                hits += 1;
            }
            assert!(hits > 3, "{fault:?} hit {hits}");
        }
    }
}

/// What must be true of a folder after a crash.
struct Oracle {
    /// How backups are made, and what opens them.
    options: BackupOptions,
    keys: Keys,
    /// Bytes and state root of each point, by its id as text.
    points: BTreeMap<String, (Vec<u8>, Digest)>,
    /// Verdicts by the hash of all files: many states are alike.
    known: BTreeMap<[u8; 32], Result<Vec<String>, String>>,
}

impl Default for Oracle {
    fn default() -> Self {
        let (points, known) = (BTreeMap::new(), BTreeMap::new());
        Self { options: split(), keys: Keys::none(), points, known }
    }
}

impl Oracle {
    fn backup(&mut self, storage: &dyn Storage, n: u8) -> aiv_backup_engine::Result<String> {
        let bytes = disk_bytes(n);
        let options = BackupOptions { basis: Basis::Nothing, ..self.options.clone() };
        let rehearsed = try_backup(&disk(&bytes), &MemStorage::new(), options.clone(), n)?;
        let id = rehearsed.recovery_point.to_string();
        self.points.insert(id.clone(), (bytes.clone(), rehearsed.state_root));
        try_backup(&disk(&bytes), storage, options, n).map(|_| id)
    }

    fn check(&mut self, folder: &MemStorage, promised: &[String]) -> Result<(), String> {
        let mut hasher = blake3::Hasher::new();
        for name in folder.names() {
            hasher.update(name.as_bytes()).update(&folder.contents(&name).unwrap());
        }
        let key = *hasher.finalize().as_bytes();
        let found = match self.known.get(&key) {
            Some(known) => known.clone(),
            None => {
                let judged = self.judge(folder);
                self.known.insert(key, judged.clone());
                judged
            }
        }?;
        match promised.iter().find(|id| !found.contains(id)) {
            Some(lost) => Err(format!("the acknowledged point {lost} is lost")),
            None => Ok(()),
        }
    }

    /// The points that are there. Each is whole and right, and whatever else is there is said to
    /// be unfinished.
    fn judge(&self, folder: &MemStorage) -> Result<Vec<String>, String> {
        let scanned = Folder::scan_keyed(folder, &self.keys, Trust::Files, Job::silent());
        let scanned = scanned.map_err(|e| format!("scan: {e}"))?.0;
        for stray in &scanned.strays {
            if !matches!(stray.kind, StrayKind::Unfinished | StrayKind::Duplicate(_)) {
                return Err(format!("{stray:?}"));
            }
        }
        let mut found = Vec::new();
        for point in scanned.sets.iter().flat_map(|set| &set.points) {
            let id = point.id.to_string();
            let Some((bytes, root)) = self.points.get(&id) else {
                return Err(format!("a point nobody made: {id}"));
            };
            let view = View::open_keyed(folder, &point.file, &self.keys, Job::silent());
            let view = view.map_err(|e| format!("{} does not open: {e}", point.file))?;
            match try_read_all(&view) {
                Err(error) => return Err(format!("{}: {error}", point.file)),
                Ok(read) if read != *bytes || state_of(&view) != Some(*root) => {
                    return Err(format!("{} reads as something else", point.file));
                }
                Ok(_) => found.push(id),
            }
        }
        Ok(found)
    }

    fn check_states(
        &mut self,
        states: impl Iterator<Item = CrashState>,
        also: &[String],
    ) -> Result<usize, String> {
        let mut count = 0;
        for state in states {
            let promised = [also, &state.acknowledged].concat();
            self.check(&state.storage, &promised).map_err(|why| format!("{state}: {why}"))?;
            count += 1;
        }
        Ok(count)
    }
}

fn state_of(view: &View) -> Option<Digest> {
    view.image().roots().map(|roots| roots.state)
}

#[test]
fn after_a_power_cut_at_any_moment_a_split_image_with_a_key_is_there_as_a_whole_or_not_at_all() {
    let options = BackupOptions { split: split().split, ..sealed(1, &[1]) };
    let (keys, crash) = (Keys::of(key(1)), CrashStorage::new());
    let mut oracle = Oracle { options, keys, ..Oracle::default() };
    two_backups(&mut oracle, &crash, &InSteps(crash.clone()));
    let count = oracle.check_states(crash.crash_states(15, 20), &[]).unwrap();
    assert!(count >= 1_000, "{count} states of {}", crash.history_text());
}

fn two_backups(oracle: &mut Oracle, crash: &CrashStorage, storage: &dyn Storage) {
    for n in 1..=2 {
        let id = oracle.backup(storage, n).unwrap();
        crash.mark(id);
    }
}

#[test]
fn after_a_power_cut_at_any_moment_a_split_image_is_there_as_a_whole_or_not_at_all() {
    let (crash, mut oracle) = (CrashStorage::new(), Oracle::default());
    two_backups(&mut oracle, &crash, &InSteps(crash.clone()));
    let count = oracle.check_states(crash.crash_states(11, 60), &[]).unwrap();
    assert!(count >= 3_000, "{count} states of {}", crash.history_text());
}

#[test]
fn a_backup_after_a_power_cut_removes_every_file_of_the_one_that_was_cut_off() {
    let (crash, mut oracle) = (CrashStorage::new(), Oracle::default());
    two_backups(&mut oracle, &crash, &crash.clone());
    let mut cleaned = 0;
    for state in crash.crash_states(12, 12).step_by(5) {
        let folder = state.storage.fork();
        let before = Folder::scan(&folder, Job::silent()).unwrap();
        let id = oracle.backup(&folder, 3).unwrap();
        let promised = [state.acknowledged.clone(), vec![id]].concat();
        oracle.check(&folder, &promised).map_err(|why| format!("{state}: {why}")).unwrap();
        let published =
            |s: &&aiv_chain::Stray| s.kind == StrayKind::Unfinished && !s.file.ends_with(".part");
        cleaned += before.strays.iter().filter(published).count();
        let after = Folder::scan(&folder, Job::silent()).unwrap();
        assert!(!after.strays.iter().any(|s| published(&s)), "{state}: {:?}", after.strays);
    }
    assert!(cleaned > 3, "only {cleaned} segments had their final names when the power went");
}

#[test]
fn a_second_power_cut_while_the_first_is_cleaned_up_costs_nothing_either() {
    let (crash, mut oracle) = (CrashStorage::new(), Oracle::default());
    let id = oracle.backup(&crash, 1).unwrap();
    crash.mark(id);
    let mut pairs = 0;
    for (random, state) in (0..).zip(crash.crash_states(13, 8).step_by(7)) {
        let again = CrashStorage::starting_from(&state.storage);
        let id = oracle.backup(&again, 2).unwrap();
        again.mark(id);
        let states = again.crash_states(random, 4);
        pairs += oracle
            .check_states(states, &state.acknowledged)
            .unwrap_or_else(|why| panic!("first crash: {state}, second crash: {why}"));
    }
    assert!(pairs >= 500, "{pairs} pairs of crashes");
}

/// Which promise is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// The first segment is published first, and the others behind it.
    FirstFirst,
    /// The names of the others are not made durable before that of the first.
    NoSyncBetween,
    /// Segments that are complete are not synced.
    NoSegmentSync,
}

struct Broken {
    storage: CrashStorage,
    bug: Bug,
    /// Publishings that wait for that of the first segment.
    waiting: Mutex<Vec<(String, String)>>,
}

struct Unsynced(Box<dyn AppendFile>);

impl AppendFile for Unsynced {
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

impl Storage for Broken {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        let file = self.storage.create(name)?;
        let is_middle = name.ends_with(".p002.part");
        match self.bug {
            Bug::NoSegmentSync if is_middle => Ok(Box::new(Unsynced(file))),
            _ => Ok(file),
        }
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.storage.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        if self.bug != Bug::FirstFirst {
            return self.storage.publish(from, to);
        }
        let mut waiting = self.waiting.lock().unwrap();
        if to.contains(".aiv.p0") {
            waiting.push((from.to_owned(), to.to_owned()));
            return Ok(());
        }
        self.storage.publish(from, to)?;
        waiting.drain(..).try_for_each(|(from, to)| self.storage.publish(&from, &to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.storage.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        let names: Vec<String> = self.storage.list()?.into_iter().map(|e| e.name).collect();
        let between = names.iter().any(|name| name.contains(".aiv.p0") && !name.ends_with(".part"))
            && names.iter().any(|name| name.ends_with(".publishing.part"));
        if self.bug == Bug::NoSyncBetween && between {
            return Ok(());
        }
        self.storage.sync_dir()
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.storage.lease(name)
    }
}

fn sampled(bug: Bug) -> Result<usize, String> {
    let (crash, mut oracle) = (CrashStorage::new(), Oracle::default());
    let storage = Broken { storage: crash.clone(), bug, waiting: Mutex::default() };
    let id = oracle.backup(&storage, 1).unwrap();
    crash.mark(id);
    oracle.check_states(crash.crash_states(14, 150), &[])
}

#[test]
fn a_first_segment_that_is_published_first_is_found_out() {
    sampled(Bug::None).unwrap();
    let why = sampled(Bug::FirstFirst).expect_err("the planted bug was not seen");
    assert!(why.contains("is missing"), "{why}");
}

#[test]
fn segments_whose_names_are_not_durable_before_that_of_the_first_are_found_out() {
    let why = sampled(Bug::NoSyncBetween).expect_err("the planted bug was not seen");
    assert!(why.contains("is missing"), "{why}");
}

#[test]
fn a_segment_that_is_not_synced_is_found_out() {
    let why = sampled(Bug::NoSegmentSync).expect_err("the planted bug was not seen");
    assert!(why.contains(".p002") || why.contains("does not") || why.contains("Unusable"), "{why}");
}
