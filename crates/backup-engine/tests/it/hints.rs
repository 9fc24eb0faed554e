//! Change trackers that tell the truth, and those that are not asked.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use aiv_backup_engine::{
    BackupOptions, BackupPlan, BackupReport, Basis, HeldSource, HintReport, NotUsed, SHARES,
};
use aiv_chain::View;
use aiv_image_format::ImageKind;
use aiv_image_format::meta::{Inventory, ReliedOn};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, CountingDisk, FlakyDisk};
use aiv_volume_io::{ChangeTracker, Extent, ExtentSet, Job, MemDisk, ReadAt, TrackerFacts, Watch};
use proptest::prelude::*;

use crate::common::{BLOCK, all_sectors, disk, facts, ids, numbered_blocks, options, read_all};
use crate::tools::{Mounted, fill_with_noise, run};

pub(crate) const BLOCK_LEN: u64 = BLOCK as u64;

/// A bitmap in memory.
#[derive(Clone)]
pub(crate) struct Bitmap {
    pub(crate) facts: TrackerFacts,
    /// Granules that are marked.
    pub(crate) marked: BTreeSet<u64>,
    pub(crate) watch: Watch,
    /// Calls it answers before it breaks.
    pub(crate) answers: usize,
}

impl Bitmap {
    pub(crate) fn new(name: &str, granularity: u64) -> Self {
        let facts = TrackerFacts {
            kind: "test bitmap",
            name: name.to_owned(),
            granularity,
            beneath: [0; 32],
            unsound: None,
        };
        let watch = Watch::GoesOn;
        Self { facts, marked: BTreeSet::new(), watch, answers: usize::MAX }
    }

    pub(crate) fn mark(&mut self, range: Extent) {
        let size = self.facts.granularity;
        self.marked.extend(range.start / size..range.end().div_ceil(size));
    }

    /// Marks what differs, and nothing else.
    fn mark_differences(&mut self, before: &[u8], after: &[u8]) {
        let size = usize::try_from(self.facts.granularity).unwrap();
        let pairs = before.chunks(size).zip(after.chunks(size)).zip(0..);
        self.marked.extend(pairs.filter(|((a, b), _)| a != b).map(|(_, granule)| granule));
    }

    pub(crate) fn as_trackers(&self) -> Vec<Box<dyn ChangeTracker>> {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        vec![Box::new(Watching { bitmap: self.clone(), asked })]
    }
}

struct Watching {
    bitmap: Bitmap,
    asked: std::sync::atomic::AtomicUsize,
}

impl ChangeTracker for Watching {
    fn facts(&self) -> &TrackerFacts {
        &self.bitmap.facts
    }
    fn watch(&self) -> Watch {
        self.bitmap.watch
    }
    fn changed(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let asked = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if asked >= self.bitmap.answers {
            return Err(io::Error::other("gone"));
        }
        let size = self.bitmap.facts.granularity;
        let granules = range.start / size..range.end().div_ceil(size);
        let runs = self.bitmap.marked.range(granules).map(|g| Extent::new(g * size, size));
        let runs: ExtentSet = runs.filter_map(|run| run.intersect(range)).collect();
        Ok(runs.runs().to_vec())
    }
}

/// The options of a backup that takes the word of the tracker `name`.
pub(crate) fn relying_on(name: &str) -> BackupOptions {
    BackupOptions { changes: Some(name.to_owned()), ..all_sectors() }
}

pub(crate) fn try_hinted(
    source: &dyn ReadAt,
    trackers: &[Box<dyn ChangeTracker>],
    storage: &MemStorage,
    options: BackupOptions,
    n: u8,
) -> aiv_backup_engine::Result<BackupReport> {
    let plan = BackupPlan::new(source, facts("disk"), options, Job::silent())?;
    let source = HeldSource { disk: source, hold: None, trackers };
    plan.apply_held(source, storage, &ids(n), &Inventory::default(), None, Job::silent())
}

/// The `n`-th backup; it names the state as a full image of the same source does.
pub(crate) fn hinted(
    source: &dyn ReadAt,
    bitmap: &Bitmap,
    storage: &MemStorage,
    options: BackupOptions,
    n: u8,
) -> BackupReport {
    let report = try_hinted(source, &bitmap.as_trackers(), storage, options.clone(), n).unwrap();
    let whole = BackupOptions { basis: Basis::Nothing, changes: None, ..options };
    let whole = try_hinted(source, &[], &MemStorage::new(), whole, n).unwrap();
    assert_eq!(report.state_root, whole.state_root, "the state is as without a hint");
    report
}

pub(crate) fn hint(report: &BackupReport) -> &HintReport {
    report.hint.as_ref().expect("a tracker was named")
}

pub(crate) fn not_used(report: &BackupReport) -> Option<&NotUsed> {
    hint(report).not_used.as_ref()
}

fn noise(count: usize) -> Vec<u8> {
    Content::Random(5).bytes(count * BLOCK)
}

#[test]
fn what_was_not_marked_is_not_read_but_for_a_thirtieth() {
    let (mut bytes, storage) = (noise(600), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 65536);
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    bytes[100 * BLOCK + 7] ^= 1;
    bitmap.mark(Extent::new(100 * BLOCK_LEN + 7, 1));
    let source = CountingDisk::new(disk(&bytes));
    let plan = BackupPlan::new(&source, facts("disk"), relying_on("b"), Job::silent()).unwrap();
    let looked = source.bytes_read();
    let trackers = bitmap.as_trackers();
    let held = HeldSource { disk: &source, hold: None, trackers: &trackers };
    let report =
        plan.apply_held(held, &storage, &ids(2), &Inventory::default(), None, Job::silent());
    let report = report.unwrap();
    // One granule of four blocks, and of the other 596 every thirtieth.
    let audited = (0..600).filter(|b| b % SHARES == 1 && !(100..104).contains(b)).count() as u64;
    assert_eq!((report.kind, not_used(&report)), (ImageKind::Incremental, None));
    assert_eq!(hint(&report).bytes_audited, audited * BLOCK_LEN);
    assert_eq!(hint(&report).bytes_skipped, (596 - audited) * BLOCK_LEN);
    assert_eq!(report.bytes_read, (4 + audited) * BLOCK_LEN);
    assert_eq!(source.bytes_read() - looked, report.bytes_read, "as the disk itself counted");
    assert_eq!(report.totals.blocks_decided(), 1);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == bytes);
    let trackers = &view.image().meta().trackers;
    let HintReport { bytes_skipped, bytes_audited, .. } = *hint(&report);
    let relied = ReliedOn { name: "b".to_owned(), bytes_skipped, bytes_audited };
    assert_eq!(trackers.relied_on, Some(relied));
    assert_eq!((trackers.seen.len(), trackers.seen[0].marked), (1, 65536));
}

/// A program of changes: blocks `from ..` get new content.
#[derive(Debug, Clone)]
struct Step {
    writes: Vec<(usize, usize, u8)>,
    relies: bool,
    differential: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0usize..300 * BLOCK, 1usize..100_000, 0u8..4);
    (prop::collection::vec(write, 0..4), prop::bool::weighted(0.8), prop::bool::weighted(0.2))
        .prop_map(|(writes, relies, differential)| Step { writes, relies, differential })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    /// The root is compared in `hinted`.
    #[test]
    fn with_an_honest_tracker_every_state_is_as_without(
        steps in prop::collection::vec(step(), 1..8), shift in 9u32..18,
    ) {
        let (mut bytes, storage) = (numbered_blocks(300), MemStorage::new());
        let mut bitmap = Bitmap::new("b", 1 << shift);
        hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
        for (step, n) in steps.iter().zip(2..) {
            for &(at, len, value) in &step.writes {
                let end = (at + len).min(bytes.len());
                bytes[at..end].fill(value);
                bitmap.mark(Extent::between(at as u64, end as u64));
            }
            let options = if step.relies { relying_on("b") } else { all_sectors() };
            let basis = if step.differential { Basis::NewestFull } else { Basis::Newest };
            let options = BackupOptions { basis, ..options };
            let report = hinted(&disk(&bytes), &bitmap, &storage, options, n);
            if step.relies {
                prop_assert_eq!(not_used(&report), None);
            }
        }
    }
}

#[test]
fn a_filesystem_that_changed_is_captured_as_without_a_hint_on_ground_that_is_not_blank() {
    const LEN: u64 = 48 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    fill_with_noise(&fs::File::create_new(&path).unwrap(), LEN);
    run("mkfs.ext4", &["-q", "-E", "nodiscard", path.to_str().unwrap()]);
    let change = |change: &dyn Fn(&std::path::Path)| {
        change(Mounted::new(&path, 0, LEN, "rw").path());
    };
    change(&|root| {
        for n in 0..8u64 {
            fs::write(root.join(format!("old{n}")), Content::Random(n).bytes(3 << 20)).unwrap();
        }
    });
    let storage = MemStorage::new();
    let mut bitmap = Bitmap::new("b", 4096);
    let mut before = fs::read(&path).unwrap();
    hinted(&disk(&before), &bitmap, &storage, options(), 1);
    let relying = BackupOptions { changes: Some("b".to_owned()), ..options() };
    let changes: [&dyn Fn(&std::path::Path); 4] = [
        // Free before, and used without being written: what lies there is old noise.
        &|root| {
            let file = root.join("reserved");
            run("fallocate", &["-l", "5M", file.to_str().unwrap()]);
        },
        // Used before, and free.
        &|root| fs::remove_file(root.join("old3")).unwrap(),
        // Used again, as it was.
        &|root| {
            let file = root.join("again");
            run("fallocate", &["-l", "2900K", file.to_str().unwrap()]);
        },
        &|root| fs::write(root.join("old5"), "short now").unwrap(),
    ];
    let mut skipped = 0;
    for (work, n) in changes.into_iter().zip(2..) {
        change(work);
        let after = fs::read(&path).unwrap();
        bitmap.mark_differences(&before, &after);
        let report = hinted(&disk(&after), &bitmap, &storage, relying.clone(), n);
        assert_eq!(not_used(&report), None);
        skipped += hint(&report).bytes_skipped;
        before = after;
    }
    assert!(skipped > 40 << 20, "{skipped} bytes were not read in four backups");
}

/// A full image, a change to the tracker, and what the next backup says to it.
fn refused(change: impl FnOnce(&mut Bitmap), options: BackupOptions, expected: &NotUsed) {
    let (mut bytes, storage) = (noise(64), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 65536);
    bitmap.mark(Extent::new(40 * BLOCK_LEN, 1));
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    // Not marked, and stored all the same: nothing is taken on trust.
    bytes[0] ^= 1;
    change(&mut bitmap);
    let report = hinted(&disk(&bytes), &bitmap, &storage, options, 2);
    assert_eq!(not_used(&report), Some(expected));
    assert_eq!((hint(&report).bytes_skipped, hint(&report).bytes_audited), (0, 0));
    assert_eq!(report.bytes_read, bytes.len() as u64);
}

#[test]
fn a_tracker_that_is_not_the_one_the_parent_saw_is_not_believed() {
    let rename = |b: &mut Bitmap| b.facts.name = "other".to_owned();
    refused(rename, relying_on("other"), &NotUsed::NotSeen);
    refused(rename, relying_on("b"), &NotUsed::Missing);
    refused(|b| b.facts.kind = "sundial", relying_on("b"), &NotUsed::NotSeen);
    refused(|b| b.facts.granularity = 4096, relying_on("b"), &NotUsed::Other);
    refused(|b| b.facts.beneath = [1; 32], relying_on("b"), &NotUsed::Beneath);
}

#[test]
fn one_that_only_begins_is_asked_later_and_one_that_has_ended_never_again() {
    refused(|b| b.watch = Watch::Begins, relying_on("b"), &NotUsed::Begins);
    let (bytes, storage) = (disk(&noise(64)), MemStorage::new());
    let mut bitmap = Bitmap { watch: Watch::Begins, ..Bitmap::new("b", 65536) };
    hinted(&bytes, &bitmap, &storage, all_sectors(), 1);
    bitmap.watch = Watch::Ended;
    assert_eq!(not_used(&hinted(&bytes, &bitmap, &storage, relying_on("b"), 2)), None);
    // The same text again, whatever was written meanwhile.
    let again = hinted(&bytes, &bitmap, &storage, relying_on("b"), 3);
    assert_eq!(not_used(&again), Some(&NotUsed::NotSeen));
}

#[test]
fn a_tracker_that_was_cleared_or_cannot_tell_is_not_believed() {
    refused(|b| b.marked.clear(), relying_on("b"), &NotUsed::Cleared);
    // As much is marked as before, in another place.
    let moved = |b: &mut Bitmap| b.marked = BTreeSet::from([3]);
    refused(moved, relying_on("b"), &NotUsed::Cleared);
    let why = "it was not closed properly".to_owned();
    refused(
        |b| b.facts.unsound = Some(why.clone()),
        relying_on("b"),
        &NotUsed::Unsound(why.clone()),
    );
    let full = BackupOptions { basis: Basis::Nothing, ..relying_on("b") };
    refused(|_| {}, full, &NotUsed::Full);
    let gone = "they contradict themselves".to_owned();
    refused(|b| b.answers = 0, relying_on("b"), &NotUsed::Failed(gone));
    refused(|b| b.answers = 1, relying_on("b"), &NotUsed::Failed("gone".to_owned()));
    // In the middle of the backup.
    refused(|b| b.answers = 2, relying_on("b"), &NotUsed::Failed("gone".to_owned()));
}

#[test]
fn of_many_marks_none_may_vanish() {
    let (bytes, storage) = (noise(64), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 512);
    (0..500).for_each(|n| bitmap.mark(Extent::new(n * 1024, 1)));
    let first = hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    let view = View::open(&storage, &first.image, Job::silent()).unwrap();
    let seen = &view.image().meta().trackers.seen[0];
    assert!((32..=64).contains(&seen.witnesses.len()), "{seen:?}");
    assert!(seen.witnesses.last().is_some_and(|at| *at > 400 * 1024), "{seen:?}");
    // One that nobody remembers, and one that is remembered while another one is new.
    for n in [1, seen.witnesses[3] / 1024] {
        let mut fewer = bitmap.clone();
        fewer.marked.remove(&(n * 2));
        if seen.witnesses.contains(&(n * 1024)) {
            fewer.mark(Extent::new(600 * 1024, 1));
        }
        let report = hinted(&disk(&bytes), &fewer, &storage.fork(), relying_on("b"), 2);
        assert_eq!(not_used(&report), Some(&NotUsed::Cleared), "{n}");
    }
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 2);
    assert_eq!(not_used(&report), None);
}

#[test]
fn blocks_that_could_not_be_read_then_are_read_now_though_nobody_wrote_to_them() {
    let (bytes, storage) = (noise(64), MemStorage::new());
    let bitmap = Bitmap::new("b", 65536);
    // A sector of one block, and all of another.
    let bad = [Extent::new(3 * BLOCK_LEN + 512, 512), Extent::new(40 * BLOCK_LEN, BLOCK_LEN)];
    let source = FlakyDisk::new(disk(&bytes), bad);
    let trackers = bitmap.as_trackers();
    let first = try_hinted(&source, &trackers, &storage, all_sectors(), 1).unwrap();
    assert_eq!(first.unreadable.len(), 2);
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 2);
    assert_eq!((not_used(&report), report.unreadable.len()), (None, 0));
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == bytes);
}

#[test]
fn a_tracker_that_was_unsound_when_the_parent_was_read_was_not_seen() {
    let (bytes, storage) = (noise(64), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 65536);
    bitmap.facts.unsound = Some("it does not record".to_owned());
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    bitmap.facts.unsound = None;
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 2);
    assert_eq!(not_used(&report), Some(&NotUsed::NotSeen));
    // From now on it is known.
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 3);
    assert_eq!(not_used(&report), None);
}

#[test]
fn a_source_of_another_size_or_in_use_is_read_in_full() {
    let (bytes, storage) = (noise(64), MemStorage::new());
    let bitmap = Bitmap::new("b", 65536);
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    let larger = noise(65);
    let report = hinted(&disk(&larger), &bitmap, &storage.fork(), relying_on("b"), 2);
    assert_eq!(not_used(&report), Some(&NotUsed::Resized));
    let mut used = facts("disk");
    used.writers.push("mounted".to_owned());
    let options = BackupOptions { live: true, ..relying_on("b") };
    let source = disk(&bytes);
    let plan = BackupPlan::new(&source, used, options, Job::silent()).unwrap();
    let trackers = bitmap.as_trackers();
    let held = HeldSource { disk: &source, hold: None, trackers: &trackers };
    let report =
        plan.apply_held(held, &storage, &ids(2), &Inventory::default(), None, Job::silent());
    assert_eq!(not_used(&report.unwrap()), Some(&NotUsed::InUse));
}

#[test]
fn without_hints_holes_are_read_like_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    fs::File::create_new(&path).unwrap().set_len(1 << 20).unwrap();
    let source = aiv_volume_io::FileDisk::open_source(&path).unwrap();
    for (read_holes, bytes) in [(false, 0), (true, 1 << 20)] {
        let options = BackupOptions { read_holes, ..all_sectors() };
        let report = try_hinted(&source, &[], &MemStorage::new(), options, 1).unwrap();
        assert_eq!((report.bytes_read, report.totals.blocks_zero), (bytes, 64));
    }
    let source = MemDisk::from_bytes(noise(4));
    let report = try_hinted(&source, &[], &MemStorage::new(), relying_on("b"), 1).unwrap();
    assert_eq!(not_used(&report), Some(&NotUsed::Missing));
}

#[test]
fn no_tracker_is_believed_on_top_of_a_salvaged_point() {
    use aiv_chain::salvage::{Hints, SalvageIds, SalvageOptions, Salvaged};
    use aiv_volume_io::Storage;
    let (bytes, storage) = (noise(600), MemStorage::new());
    let bitmap = Bitmap::new("b", 65536);
    let first = hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    let file = storage.open(&first.image).unwrap();
    let to = MemStorage::new();
    let salvaged = Salvaged::open(
        vec![("x".to_owned(), file)],
        &[],
        &aiv_chain::Keys::none(),
        &Hints::default(),
        Job::silent(),
    )
    .unwrap();
    let ids = SalvageIds {
        file: aiv_chain::MergeIds::new(&[9; 32], 5),
        point: aiv_image_format::PointId([9; 16]),
    };
    let done = salvaged
        .write_image(
            &to,
            &SalvageOptions { compression: aiv_backup_engine::Compression::Zstd(1), plain: false },
            &ids,
            Job::silent(),
        )
        .unwrap();
    let name = done.image.unwrap().file;
    let view = View::open(&to, &name, Job::silent()).unwrap();
    assert_eq!(view.image().meta().trackers, Default::default());
    let report = hinted(&disk(&bytes), &bitmap, &to, relying_on("b"), 2);
    assert!(report.parent.is_some() && not_used(&report).is_some(), "{report:?}");
}
