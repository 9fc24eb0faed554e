//! A backup goes on with what an interrupted one of the same source and plan has stored.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_backup_engine::{
    BackupOptions, BackupPlan, BackupReport, Basis, Compression, Error, Result, Sectors,
    SourceFacts, SourceStamp,
};
use aiv_chain::{Depth, Folder, View};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, FlakyDisk};
use aiv_volume_io::{Cancel, Extent, Job, MemDisk, Progress, ReadAt, Step, Storage};

use crate::common::{
    BLOCK, all_sectors, apply, disk, facts, numbered_blocks, options, read_all, threads,
};

/// Goes on where it can, from wherever a few blocks were stored.
pub(crate) fn resuming() -> BackupOptions {
    BackupOptions { resume: true, checkpoint_bytes: 5 * BLOCK as u64, ..options() }
}

/// Blocks that cannot be compressed, with zeros and repetitions between them.
pub(crate) fn content(blocks: usize) -> Vec<u8> {
    let mut bytes = Content::Random(7).bytes(blocks * BLOCK);
    for block in 0..blocks {
        let at = block * BLOCK;
        match block % 9 {
            3 | 4 => bytes[at..at + BLOCK].fill(0),
            7 => bytes.copy_within(at - 7 * BLOCK..at - 6 * BLOCK, at),
            _ => {}
        }
    }
    bytes
}

/// A disk that is gone from some byte on.
pub(crate) struct GoneFrom<'a>(pub(crate) &'a dyn ReadAt, pub(crate) u64);

impl ReadAt for GoneFrom<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        // No such device.
        let gone = offset >= self.1;
        if gone { Err(io::Error::from_raw_os_error(19)) } else { self.0.read_exact_at(out, offset) }
    }
}

pub(crate) fn plan_of(
    source: &dyn ReadAt,
    options: BackupOptions,
    stamp: Option<&[u8]>,
) -> BackupPlan {
    let stamp = stamp.map(|stamp| SourceStamp::new(&[stamp]));
    let facts = SourceFacts { stamp, ..facts("disk") };
    BackupPlan::new(source, facts, options, Job::silent()).unwrap()
}

/// Begins a backup that loses its source at byte `at`, and leaves what it has stored.
pub(crate) fn interrupt(
    source: &dyn ReadAt,
    storage: &dyn Storage,
    plan: &BackupPlan,
    at: u64,
    n: u8,
) -> u64 {
    match apply(plan, &GoneFrom(source, at), storage, n) {
        Err(Error::Interrupted { at, source }) => {
            assert!(matches!(*source, Error::Source { .. }), "{source:?}");
            at / BLOCK as u64
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn parts(storage: &MemStorage) -> Vec<String> {
    storage.names().into_iter().filter(|name| name.ends_with(".part")).collect()
}

/// Whether the image of `report` is sound and holds `bytes`, and nothing unfinished is left.
pub(crate) fn assert_right(storage: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    assert_image_right(storage, report, bytes);
    assert_eq!(parts(storage), [""; 0]);
    let folder = Folder::scan(storage, Job::silent()).unwrap();
    assert!(folder.strays.is_empty(), "{:?}", folder.strays);
}

pub(crate) fn assert_image_right(storage: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    let view = View::open(storage, &report.image, Job::silent()).unwrap();
    let found = match view.parent() {
        None => view.image().verify(Depth::Data, Job::silent()).unwrap(),
        Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()).unwrap(),
    };
    assert_eq!((found.damage, view.image().damage()), (vec![], &[][..]));
    assert_eq!(view.image().trailer().state_root, report.state_root);
    assert!(read_all(&view) == bytes);
}

const MIB: u64 = 1 << 20;

/// A folder with the first two MiB of a backup of three, and the disk.
fn interrupted(options: BackupOptions, stamp: Option<&[u8]>) -> (MemStorage, MemDisk, u64) {
    let source = disk(&content(192));
    let storage = MemStorage::new();
    let blocks = interrupt(&source, &storage, &plan_of(&source, options, stamp), 2 * MIB, 1);
    assert_eq!((blocks, parts(&storage).len()), (128, 1));
    (storage, source, blocks)
}

#[test]
fn a_backup_that_was_interrupted_goes_on_and_is_the_image_it_would_have_been() {
    let (storage, source, blocks) = interrupted(resuming(), None);
    let part = parts(&storage).remove(0);
    let report = apply(&plan_of(&source, resuming(), None), &source, &storage, 2).unwrap();
    let resumed = report.resumed.clone().unwrap();
    assert_eq!((&resumed.file, resumed.blocks), (&part, blocks));
    assert_eq!(resumed.blocks_compared, blocks);
    assert!(resumed.bytes > MIB && report.verified);
    assert_eq!((report.not_resumed.as_deref(), report.leftovers_removed.len()), (None, 0));
    assert_right(&storage, &report, &content(192));
    let whole = apply(&plan_of(&source, options(), None), &source, &MemStorage::new(), 3).unwrap();
    assert_eq!((report.state_root, report.content_root), (whole.state_root, whole.content_root));
    assert_eq!(report.totals.blocks_ref, whole.totals.blocks_ref, "blocks are found again");
    assert_eq!(report.totals.payload_bytes, whole.totals.payload_bytes);
    assert_eq!(report.bytes_read, whole.bytes_read, "all of it, once");
}

#[test]
fn what_the_caller_vouches_for_is_not_read_again() {
    let (storage, source, blocks) = interrupted(resuming(), Some(b"inode 7"));
    let again = plan_of(&source, resuming(), Some(b"inode 7"));
    let report = apply(&again, &source, &storage, 2).unwrap();
    let resumed = report.resumed.clone().unwrap();
    assert_eq!((resumed.blocks, resumed.blocks_compared), (blocks, 0));
    assert_eq!(report.bytes_read, MIB);
    assert!(report.verified, "what others have written is never just believed");
    assert_right(&storage, &report, &content(192));
}

#[test]
fn another_stamp_or_none_means_that_the_blocks_are_compared() {
    for (then, now) in [(Some(&b"a"[..]), Some(&b"b"[..])), (Some(b"a"), None), (None, Some(b"a"))]
    {
        let (storage, source, blocks) = interrupted(resuming(), then);
        let report = apply(&plan_of(&source, resuming(), now), &source, &storage, 2).unwrap();
        assert_eq!(report.resumed.clone().unwrap().blocks_compared, blocks);
        assert_right(&storage, &report, &content(192));
    }
}

#[test]
fn a_source_that_changed_anywhere_in_what_is_stored_is_backed_up_anew() {
    for at in [0, 5 * BLOCK + 99, 3 * BLOCK + 1, 7 * BLOCK, 128 * BLOCK - 1] {
        let (storage, _, _) = interrupted(resuming(), None);
        let part = parts(&storage).remove(0);
        let mut bytes = content(192);
        bytes[at] ^= 1;
        let source = disk(&bytes);
        let report = apply(&plan_of(&source, resuming(), None), &source, &storage, 2).unwrap();
        assert_eq!((&report.resumed, &report.leftovers_removed), (&None, &vec![part]));
        let why = report.not_resumed.clone().unwrap();
        let byte = at / BLOCK * BLOCK;
        assert_eq!(why, format!("the source has changed since, at byte {byte}"));
        assert_right(&storage, &report, &bytes);
    }
    // What is not stored yet may change as it likes.
    let (storage, _, blocks) = interrupted(resuming(), None);
    let mut bytes = content(192);
    bytes[128 * BLOCK] ^= 1;
    let source = disk(&bytes);
    let report = apply(&plan_of(&source, resuming(), None), &source, &storage, 2).unwrap();
    assert_eq!(report.resumed.clone().unwrap().blocks, blocks);
    assert_right(&storage, &report, &bytes);
}

#[test]
fn another_plan_begins_anew() {
    let changes: [fn(&mut BackupOptions); 5] = [
        |options| options.compression = Compression::Zstd(3),
        |options| options.deltas = false,
        |options| options.sectors = Sectors::All,
        |options| options.block_size = aiv_backup_engine::BlockSize::new(32 << 10),
        |options| options.delta_depth = 1,
    ];
    for change in changes {
        let (storage, source, _) = interrupted(resuming(), Some(b"same"));
        let part = parts(&storage).remove(0);
        let mut options = resuming();
        change(&mut options);
        let report =
            apply(&plan_of(&source, options, Some(b"same")), &source, &storage, 2).unwrap();
        assert_eq!((&report.resumed, &report.leftovers_removed), (&None, &vec![part]));
        assert_right(&storage, &report, &content(192));
    }
}

#[test]
fn who_does_not_want_to_go_on_begins_anew() {
    let (storage, source, _) = interrupted(resuming(), None);
    let part = parts(&storage).remove(0);
    let report = apply(&plan_of(&source, options(), None), &source, &storage, 2).unwrap();
    assert_eq!((&report.resumed, &report.leftovers_removed), (&None, &vec![part]));
    assert_right(&storage, &report, &content(192));
}

#[test]
fn a_backup_may_be_interrupted_again_and_again() {
    let bytes = content(320);
    let source = disk(&bytes);
    let storage = MemStorage::new();
    let plan = plan_of(&source, resuming(), None);
    let mut before = 0;
    for n in 1..=4 {
        let blocks = interrupt(&source, &storage, &plan, u64::from(n) * MIB, n);
        assert!(blocks > before);
        before = blocks;
    }
    let report = apply(&plan, &source, &storage, 9).unwrap();
    assert_eq!(report.resumed.clone().unwrap().blocks, before);
    assert_right(&storage, &report, &bytes);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert_eq!(view.image().meta().origins.len(), 5, "one session each");
}

#[test]
fn an_increment_goes_on_too_and_only_on_the_parent_it_was_begun_on() {
    let mut bytes = content(192);
    let first_disk = disk(&bytes);
    let folder = MemStorage::new();
    let first = apply(&plan_of(&first_disk, resuming(), None), &first_disk, &folder, 1).unwrap();
    // Changed, moved, freed, and most of it as it was.
    for block in (5..192).step_by(6) {
        bytes[block * BLOCK + 11] ^= 1;
    }
    bytes.copy_within(0..BLOCK, 60 * BLOCK);
    bytes[90 * BLOCK..100 * BLOCK].fill(0);
    let source = disk(&bytes);
    let plan = plan_of(&source, BackupOptions { checkpoint_bytes: 1, ..resuming() }, None);
    let blocks = interrupt(&source, &folder, &plan, 2 * MIB, 2);
    for stamp in [None, Some(2)] {
        let storage = folder.fork();
        let report = apply(&plan, &source, &storage, 3).unwrap();
        assert_eq!(report.resumed.clone().unwrap().blocks, blocks, "{stamp:?}");
        assert_eq!(report.parent, Some(first.recovery_point));
        assert_right(&storage, &report, &bytes);
        let whole = MemStorage::new();
        let full = apply(&plan_of(&source, options(), None), &source, &whole, 4).unwrap();
        assert_eq!(report.state_root, full.state_root);
    }
    // A difference to what an inherited block was.
    for block in [0, 9, 66] {
        let storage = folder.fork();
        let mut changed = bytes.clone();
        changed[block * BLOCK] ^= 1;
        let source = disk(&changed);
        let plan = plan_of(&source, BackupOptions { checkpoint_bytes: 1, ..resuming() }, None);
        let report = apply(&plan, &source, &storage, 3).unwrap();
        assert!(report.resumed.is_none() && report.not_resumed.is_some());
        assert_right(&storage, &report, &changed);
    }
    // Another point has become the parent.
    let storage = folder.fork();
    let part = parts(&storage).remove(0);
    let unfinished = storage.contents(&part).unwrap();
    apply(&plan_of(&first_disk, resuming(), None), &first_disk, &storage, 5).unwrap();
    storage.insert(&part, unfinished.clone());
    let report = apply(&plan, &source, &storage, 6).unwrap();
    assert!(report.resumed.is_none());
    assert_right(&storage, &report, &bytes);
    // A full image was asked for.
    let storage = folder.fork();
    let full = BackupOptions { basis: Basis::Nothing, checkpoint_bytes: 1, ..resuming() };
    let report = apply(&plan_of(&source, full, None), &source, &storage, 6).unwrap();
    assert!(report.resumed.is_none());
    assert_right(&storage, &report, &bytes);
}

#[test]
fn places_that_could_not_be_read_are_listed_as_if_nothing_had_happened() {
    let bytes = content(192);
    let bad = vec![Extent::new(9 * 512, 512), Extent::new(40 * BLOCK as u64, BLOCK as u64)];
    let more = [bad.clone(), vec![Extent::new(150 * BLOCK as u64 + 512, 1024)]].concat();
    let source = FlakyDisk::new(disk(&bytes), more.clone());
    for stamp in [None, Some(&b"a file with bad sectors"[..])] {
        let storage = MemStorage::new();
        let plan = plan_of(&source, resuming(), stamp);
        let blocks = interrupt(&source, &storage, &plan, 2 * MIB, 1);
        let report = apply(&plan, &source, &storage, 2).unwrap();
        // Also for what is vouched for: only reading tells which bytes of a block were lost.
        assert_eq!(report.resumed.clone().unwrap().blocks_compared, blocks);
        assert_eq!(report.unreadable, more);
        assert_right(&storage, &report, &crate::common::with_fill(bytes.clone(), &more));
    }
    // A sector that has become readable, or has not.
    for (then, now) in [(bad.clone(), vec![]), (vec![], bad)] {
        let storage = MemStorage::new();
        let source = FlakyDisk::new(disk(&bytes), then);
        interrupt(&source, &storage, &plan_of(&source, resuming(), None), 2 * MIB, 1);
        let source = FlakyDisk::new(disk(&bytes), now.clone());
        let report = apply(&plan_of(&source, resuming(), None), &source, &storage, 2).unwrap();
        assert!(report.resumed.is_none() && report.not_resumed.is_some());
        assert_eq!(report.unreadable, now);
        assert_right(&storage, &report, &crate::common::with_fill(bytes.clone(), &now));
    }
}

#[test]
fn a_filesystem_that_uses_other_blocks_than_before_is_backed_up_anew() {
    let bytes = crate::tools::small_ext4();
    let source = disk(&bytes);
    let storage = MemStorage::new();
    let all = BackupOptions { checkpoint_bytes: 1, resume: true, ..all_sectors() };
    let used = BackupOptions { sectors: Sectors::Used, ..all.clone() };
    let at = MIB;
    let begun = plan_of(&source, used.clone(), None);
    interrupt(&source, &storage, &begun, at, 1);
    let report = apply(&plan_of(&source, used, None), &source, &storage.fork(), 2).unwrap();
    assert!(report.resumed.is_some());
    let report = apply(&plan_of(&source, all, None), &source, &storage, 2).unwrap();
    assert!(report.resumed.is_none());
    assert_right(&storage, &report, &bytes);
}

#[test]
fn of_several_unfinished_images_the_longest_that_fits_is_taken_and_the_others_go() {
    let bytes = content(320);
    let source = disk(&bytes);
    let plan = plan_of(&source, resuming(), None);
    let storage = MemStorage::new();
    for n in 1..=3 {
        let alone = MemStorage::new();
        interrupt(&source, &alone, &plan, [1, 3, 2][usize::from(n) - 1] * MIB, n);
        let part = parts(&alone).remove(0);
        storage.insert(&part, alone.contents(&part).unwrap());
    }
    let report = apply(&plan, &source, &storage, 9).unwrap();
    assert_eq!(report.resumed.clone().unwrap().blocks, 192);
    assert_eq!(report.leftovers_removed.len(), 2);
    assert_right(&storage, &report, &bytes);
}

/// Cancels at the n-th advance of a step.
struct StopAt<'a>(AtomicU64, Step, &'a Cancel);

impl Progress for StopAt<'_> {
    fn advance(&self, step: Step, _: u64) {
        if step == self.1 && self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.2.cancel();
        }
    }
}

fn apply_stopped(
    plan: &BackupPlan,
    source: &dyn ReadAt,
    storage: &dyn Storage,
    ids: u8,
    (at, step): (u64, Step),
) -> Result<BackupReport> {
    let cancel = Cancel::new();
    let progress = StopAt(AtomicU64::new(at), step, &cancel);
    let job = Job::new(&progress, &cancel);
    plan.apply(source, storage, &crate::common::ids(ids), &Default::default(), None, job)
}

#[test]
fn a_backup_that_is_canceled_keeps_what_is_worth_it_and_loses_nothing_when_it_goes_on() {
    let bytes = content(320);
    let source = disk(&bytes);
    let plan = plan_of(&source, BackupOptions { threads: threads(2), ..resuming() }, None);
    let (mut kept, mut all) = (0, 0);
    for n in 1..=5 {
        let storage = MemStorage::new();
        let stopped = apply_stopped(&plan, &source, &storage, 1, (n, Step::ReadSource));
        let blocks = match stopped {
            Err(Error::Interrupted { at, source }) => {
                assert!(matches!(*source, Error::Canceled(_)), "{source:?}");
                kept += 1;
                at / BLOCK as u64
            }
            Err(Error::Canceled(_)) => {
                assert_eq!(parts(&storage), [""; 0], "nothing to go on with");
                continue;
            }
            other => panic!("{other:?}"),
        };
        // Stopped while it is compared: then nothing of it has been touched.
        let before = storage.contents(&parts(&storage)[0]).unwrap();
        let again = apply_stopped(&plan, &source, &storage, 2, (1, Step::CompareSource));
        // It may have been compared already when the button was pressed.
        match again {
            Err(Error::Canceled(_)) => {
                assert_eq!(storage.contents(&parts(&storage)[0]).unwrap(), before);
                all += 1;
            }
            Err(Error::Interrupted { at, .. }) => assert!(at / BLOCK as u64 >= blocks),
            other => panic!("{other:?}"),
        }
        let report = apply(&plan, &source, &storage, 3).unwrap();
        assert!(report.resumed.clone().unwrap().blocks >= blocks, "not one is lost");
        assert_right(&storage, &report, &bytes);
    }
    assert!(kept >= 3 && all >= 2, "{kept} {all}");
}

#[test]
fn progress_of_a_backup_that_goes_on_adds_up() {
    #[derive(Default)]
    struct Sums {
        compared: [AtomicU64; 2],
        read: [AtomicU64; 2],
    }
    impl Progress for Sums {
        fn begin(&self, step: Step, total: u64) {
            match step {
                Step::CompareSource => self.compared[0].store(total, Ordering::Relaxed),
                Step::ReadSource => self.read[0].store(total, Ordering::Relaxed),
                _ => {}
            }
        }
        fn advance(&self, step: Step, bytes: u64) {
            match step {
                Step::CompareSource => self.compared[1].fetch_add(bytes, Ordering::Relaxed),
                Step::ReadSource => self.read[1].fetch_add(bytes, Ordering::Relaxed),
                _ => 0,
            };
        }
    }
    let (storage, source, _) = interrupted(resuming(), None);
    let (sums, cancel) = (Sums::default(), Cancel::new());
    let plan = plan_of(&source, resuming(), None);
    let job = Job::new(&sums, &cancel);
    plan.apply(&source, &storage, &crate::common::ids(2), &Default::default(), None, job).unwrap();
    assert_eq!(sums.compared.map(AtomicU64::into_inner), [2 * MIB; 2]);
    assert_eq!(sums.read.map(AtomicU64::into_inner), [3 * MIB; 2]);
}

#[test]
fn a_session_tag_that_comes_again_begins_another_image() {
    let (storage, source, _) = interrupted(resuming(), None);
    let report = apply(&plan_of(&source, resuming(), None), &source, &storage, 1).unwrap();
    assert!(report.resumed.is_none());
    assert!(report.not_resumed.clone().unwrap().contains("session"), "{report:?}");
    assert_right(&storage, &report, &content(192));
}

#[test]
fn a_published_image_is_not_cut_when_its_temporary_name_is_still_there() {
    let source = disk(&numbered_blocks(40));
    let plan = plan_of(&source, resuming(), None);
    let folder = tempfile::tempdir().unwrap();
    let storage = aiv_volume_io::DirStorage::open(folder.path()).unwrap();
    let first = apply(&plan, &source, &storage, 1).unwrap();
    let set = aiv_backup_engine::set_id(&plan.source_id);
    let part = format!("{}.{set}.part", first.image);
    let paths = [&first.image, &part].map(|name| folder.path().join(name));
    let before = std::fs::read(&paths[0]).unwrap();
    std::fs::hard_link(&paths[0], &paths[1]).unwrap();
    let full = BackupOptions { basis: Basis::Nothing, ..resuming() };
    let report = apply(&plan_of(&source, full, None), &source, &storage, 2).unwrap();
    assert_eq!((&report.resumed, &report.leftovers_removed), (&None, &vec![part.clone()]));
    assert!(std::fs::read(&paths[0]).unwrap() == before && !paths[1].exists());
    // Nor where nobody can tell that it is one file: the image is there already.
    let storage = MemStorage::new();
    let first = apply(&plan, &source, &storage, 1).unwrap();
    storage.insert(&part, storage.contents(&first.image).unwrap());
    let full = BackupOptions { basis: Basis::Nothing, ..resuming() };
    let report = apply(&plan_of(&source, full, None), &source, &storage, 2).unwrap();
    assert_eq!((report.resumed, report.not_resumed), (None, None));
}

#[test]
fn an_image_that_was_complete_but_not_published_is_only_finished_again() {
    let source = disk(&content(192));
    let finished = MemStorage::new();
    let plan = plan_of(&source, resuming(), None);
    let first = apply(&plan, &source, &finished, 1).unwrap();
    let storage = MemStorage::new();
    storage.insert("any.part", finished.contents(&first.image).unwrap());
    let report = apply(&plan, &source, &storage, 2).unwrap();
    assert_eq!(report.resumed.clone().unwrap().blocks, 192);
    assert_right(&storage, &report, &content(192));
}

#[test]
fn what_has_no_superblock_is_removed_if_its_name_says_that_it_is_ours() {
    let source = disk(&numbered_blocks(3));
    let plan = plan_of(&source, resuming(), None);
    let (ours, other) = [plan.source_id.as_str(), "another source"]
        .map(|id| format!("sub/host@disk_b00001-abcd.aiv.{}.part", aiv_backup_engine::set_id(id)))
        .into();
    let storage = MemStorage::new();
    for name in [&ours, &other, &"host@disk_b00001-abcd.aiv.part".to_owned()] {
        storage.insert(name, vec![0; 5000]);
    }
    let report = apply(&plan, &source, &storage, 1).unwrap();
    assert_eq!(report.leftovers_removed, [ours]);
    assert_eq!(parts(&storage), ["host@disk_b00001-abcd.aiv.part".to_owned(), other]);
}

/// A disk at some byte of which something happens, once.
struct Meanwhile<'a> {
    disk: &'a dyn ReadAt,
    at: u64,
    did: std::sync::atomic::AtomicBool,
    does: &'a (dyn Fn() + Sync),
}

impl ReadAt for Meanwhile<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset >= self.at && !self.did.swap(true, Ordering::SeqCst) {
            (self.does)();
        }
        self.disk.read_exact_at(out, offset)
    }
}

#[test]
fn a_backup_that_lost_its_lease_writes_nothing_into_what_another_one_went_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let storage = aiv_volume_io::DirStorage::open(dir.path()).unwrap();
    let source = disk(&content(800));
    let plan = plan_of(&source, resuming(), None);
    let second = std::sync::Mutex::new(None);
    let stored = || -> u64 {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let parts = entries.filter(|path| path.extension().is_some_and(|end| end == "part"));
        parts.map(|part| part.metadata().unwrap().len()).sum()
    };
    let other = || {
        // Until what was read is stored.
        let mut before = 0;
        while before < 40 * BLOCK as u64 || stored() > before {
            before = stored();
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        // The lock is lost, as on a network filesystem.
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("aiv-lease-set") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let storage = aiv_volume_io::DirStorage::open(dir.path()).unwrap();
        let report = apply(&plan, &source, &storage, 2).unwrap();
        *second.lock().unwrap() = Some(report);
    };
    let slow = Meanwhile { disk: &source, at: 9 * MIB, did: false.into(), does: &other };
    let first = apply(&plan, &slow, &storage, 1);
    let report = second.lock().unwrap().take().unwrap();
    assert!(first.is_err() && report.resumed.is_some(), "{first:?}");
    let view = View::open(&storage, &report.image, Job::silent());
    let view = view.unwrap();
    let found = view.image().verify(Depth::Data, Job::silent()).unwrap();
    assert_eq!(found.damage, vec![]);
}
