//! Rate limits, the stop button, and two backups at once.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aiv_backup_engine::{BackupOptions, BackupPlan, Basis, Clock, Error, RateLimit, SourceFacts};
use aiv_chain::{Depth, Folder, View};
use aiv_image_format::meta::Inventory;
use aiv_testkit::MemStorage;
use aiv_volume_io::{Cancel, DirStorage, Job, Progress, ReadAt, Step, Storage};

use crate::common::{
    BLOCK, apply, disk, facts, ids, numbered_blocks, options, plan, threads, try_backup,
};

#[derive(Default)]
struct FakeClock(Mutex<Duration>);

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

fn limited(bytes: u64, source: &dyn ReadAt, job: Job<'_>) -> (Result<(), Error>, Duration) {
    let clock = FakeClock::default();
    let limit = RateLimit { bytes_per_second: NonZeroU64::new(bytes).unwrap(), clock: &clock };
    let plan = plan(source, options());
    let storage = MemStorage::new();
    let done = plan.apply(source, &storage, &ids(1), &Inventory::default(), Some(limit), job);
    let time = clock.now();
    (done.map(drop), time)
}

#[test]
fn a_rate_limit_makes_a_backup_take_its_time() {
    let source = disk(&numbered_blocks(640));
    let (done, time) = limited(1 << 20, &source, Job::silent());
    done.unwrap();
    assert!((9.0..10.5).contains(&time.as_secs_f64()), "{time:?} for 10 MiB at 1 MiB/s");
}

/// Cancels at the n-th advance of any step.
struct StopAt<'a> {
    left: AtomicU64,
    cancel: &'a Cancel,
}

impl Progress for StopAt<'_> {
    fn advance(&self, _: Step, _: u64) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.cancel();
        }
    }
}

#[test]
fn canceling_does_not_wait_for_a_rate_limit() {
    let cancel = Cancel::new();
    let progress = StopAt { left: AtomicU64::new(1), cancel: &cancel };
    let source = disk(&numbered_blocks(640));
    let (done, time) = limited(1, &source, Job::new(&progress, &cancel));
    assert!(matches!(done, Err(Error::Canceled(_))), "{done:?}");
    assert!(time < Duration::from_secs(2_000_000), "{time:?}: the first stride only");
}

#[test]
fn canceling_at_any_moment_publishes_nothing_and_leaves_earlier_images_intact() {
    cancel_everywhere(Basis::Nothing);
}

#[test]
fn canceling_an_increment_at_any_moment_publishes_nothing_either() {
    cancel_everywhere(Basis::Newest);
}

fn cancel_everywhere(basis: Basis) {
    let mut bytes = numbered_blocks(600);
    let storage = MemStorage::new();
    let first = try_backup(&disk(&bytes), &storage, options(), 1).unwrap();
    let kept = storage.contents(&first.image).unwrap();
    bytes.chunks_mut(7 * BLOCK).for_each(|part| part[99] ^= 1);
    let source = disk(&bytes);
    let verify = BackupOptions { verify: true, threads: threads(2), basis, ..options() };
    let plan = plan(&source, verify);
    let mut canceled = 0;
    for n in 1.. {
        let cancel = Cancel::new();
        let progress = StopAt { left: AtomicU64::new(n), cancel: &cancel };
        let job = Job::new(&progress, &cancel);
        let storage = storage.fork();
        let done = plan.apply(&source, &storage, &ids(2), &Inventory::default(), None, job);
        assert_eq!(storage.contents(&first.image), Some(Arc::clone(&kept)));
        match done {
            Err(Error::Canceled(_)) => {
                assert_eq!(storage.names(), std::slice::from_ref(&first.image), "at advance {n}");
                canceled += 1;
            }
            Err(error) => panic!("{error:?}"),
            Ok(report) => {
                // Stopped too late to matter: then it is a backup like any other.
                let view = View::open(&storage, &report.image, Job::silent()).unwrap();
                assert!(crate::common::read_all(&view) == bytes);
                let found = view.image().verify(Depth::Data, Job::silent()).unwrap();
                assert_eq!(found.damage, []);
                if cancel.check().is_ok() {
                    break;
                }
            }
        }
    }
    assert!(canceled >= 5, "{canceled} points of cancellation");
}

#[test]
fn canceling_before_the_first_byte_creates_no_file() {
    let source = disk(&numbered_blocks(3));
    let cancel = Cancel::new();
    let plan = plan(&source, options());
    cancel.cancel();
    let storage = MemStorage::new();
    struct Quiet;
    impl Progress for Quiet {}
    let job = Job::new(&Quiet, &cancel);
    let done = plan.apply(&source, &storage, &ids(1), &Inventory::default(), None, job);
    assert!(matches!(done, Err(Error::Canceled(_))));
    assert_eq!(storage.names(), [""; 0]);
    let planned = BackupPlan::new(&source, facts("disk"), options(), job);
    assert!(matches!(planned, Err(Error::Canceled(_))));
}

/// A disk whose second read waits until it is let go.
struct Waiting<'a> {
    inner: &'a dyn ReadAt,
    reached: Mutex<Option<mpsc::Sender<()>>>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl ReadAt for Waiting<'_> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        if let Some(reached) = self.reached.lock().unwrap().take() {
            reached.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
        self.inner.read_exact_at(out, offset)
    }
}

fn two_at_once(storage: &(dyn Storage + Sync)) {
    let source = disk(&numbered_blocks(4));
    let plan_of = |name: &str| {
        let facts = SourceFacts { source_id: Some(name.to_owned()), ..facts(name) };
        BackupPlan::new(&source, facts, options(), Job::silent()).unwrap()
    };
    let (same, other) = (plan_of("same"), plan_of("other"));
    let (reached, has_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let waiting =
        Waiting { inner: &source, reached: Mutex::new(Some(reached)), go: Mutex::new(go) };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| apply(&same, &waiting, storage, 1));
        has_reached.recv().unwrap();
        let second = apply(&same, &source, storage, 2);
        let third = apply(&other, &source, storage, 3);
        let_go.send(()).unwrap();
        let Err(Error::Busy { source_id }) = &second else { panic!("{second:?}") };
        assert_eq!(source_id, "user:same");
        third.expect("another disk is no reason to wait");
        first.join().unwrap().expect("the first is not disturbed");
    });
    let folder = Folder::scan(storage, Job::silent()).unwrap();
    assert_eq!((folder.sets.len(), folder.strays.len()), (2, 0));
    apply(&same, &source, storage, 4).expect("the lease was given back");
}

#[test]
fn of_two_backups_of_one_source_at_once_in_memory_one_is_told_busy() {
    two_at_once(&MemStorage::new());
}

#[test]
fn of_two_backups_of_one_source_at_once_in_a_folder_one_is_told_busy() {
    let folder = tempfile::tempdir().unwrap();
    two_at_once(&DirStorage::open(folder.path()).unwrap());
}

#[test]
fn leftovers_of_this_source_are_removed_and_those_of_others_are_not() {
    let source = disk(&numbered_blocks(4));
    let other = SourceFacts { source_id: Some("other".to_owned()), ..facts("other") };
    let other = BackupPlan::new(&source, other, options(), Job::silent()).unwrap();
    let finished = MemStorage::new();
    let own = try_backup(&source, &finished, options(), 1).unwrap().image;
    let others = apply(&other, &source, &finished, 2).unwrap().image;

    let storage = MemStorage::new();
    let cut = |name: &str, len: usize| finished.contents(name).unwrap()[..len].to_vec();
    let (own_part, others_part) = (format!("old/{own}.part"), format!("{others}.part"));
    storage.insert(&own_part, cut(&own, 2 * BLOCK));
    storage.insert("whole.part", cut(&own, finished.contents(&own).unwrap().len()));
    storage.insert(&others_part, cut(&others, 2 * BLOCK));
    storage.insert("stranger.part", b"somebody else's download".to_vec());
    let report = try_backup(&source, &storage, options(), 3).unwrap();
    assert_eq!(report.leftovers_removed, [own_part, "whole.part".to_owned()]);
    assert_eq!(storage.names(), [report.image, others_part, "stranger.part".to_owned()]);
}

#[test]
fn progress_adds_up_to_what_was_promised() {
    #[derive(Default)]
    struct Sum {
        total: AtomicU64,
        done: AtomicU64,
    }
    impl Progress for Sum {
        fn begin(&self, step: Step, total: u64) {
            if step == Step::ReadSource {
                self.total.store(total, Ordering::Relaxed);
            }
        }
        fn advance(&self, step: Step, bytes: u64) {
            if step == Step::ReadSource {
                self.done.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
    let (sum, cancel) = (Sum::default(), Cancel::new());
    let source = disk(&crate::tools::small_ext4());
    let plan = plan(&source, options());
    let (storage, job) = (MemStorage::new(), Job::new(&sum, &cancel));
    let report = plan.apply(&source, &storage, &ids(1), &Inventory::default(), None, job).unwrap();
    assert_eq!(sum.total.into_inner(), report.bytes_used);
    assert_eq!(sum.done.into_inner(), report.bytes_used);
}
