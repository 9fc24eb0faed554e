//! Sources that others write to, and what keeps them from it meanwhile.

use std::sync::Mutex;

use aiv_backup_engine::{
    BackupOptions, BackupPlan, Error, HeldSource, Hold, NotUsed, PlanNote, SourceFacts, set_id,
};
use aiv_chain::View;
use aiv_image_format::meta::{Consistency, Inventory};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use crate::common::{BLOCK, all_sectors, disk, facts, ids, numbered_blocks, options, read_all};
use crate::hints::{Bitmap, not_used, relying_on};

/// Lets go when it is asked, and remembers what the storage held then.
struct Watched<'a> {
    storage: &'a MemStorage,
    seen: Mutex<Vec<Vec<String>>>,
    lost: bool,
}

impl Hold for Watched<'_> {
    fn release(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.seen.lock().unwrap().push(self.storage.names());
        if self.lost { Err("thawed by a test".into()) } else { Ok(()) }
    }
}

fn held() -> SourceFacts {
    let swap = vec!["sda2 is active swap space".to_owned()];
    SourceFacts { held: Some("frozen: /data".to_owned()), swap, ..facts("sda") }
}

#[test]
fn a_held_source_is_let_go_once_before_the_image_is_published() {
    let source = disk(&numbered_blocks(3));
    let plan = BackupPlan::new(&source, held(), options(), Job::silent()).unwrap();
    let storage = MemStorage::new();
    let hold = Watched { storage: &storage, seen: Mutex::default(), lost: false };
    let from = HeldSource { disk: &source, hold: Some(&hold), trackers: &[] };
    let inventory = Inventory::default();
    let report = plan.apply_held(from, &storage, &ids(1), &inventory, None, Job::silent()).unwrap();
    let seen = hold.seen.into_inner().unwrap();
    let set = set_id(&plan.source_id);
    assert_eq!(seen, [[format!("{}.{set}.part", report.image)]]);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert_eq!(view.image().meta().manifest.consistency, Consistency::Crash);
    assert_eq!(report.notes, [PlanNote::Swap("sda2 is active swap space".to_owned())]);
}

#[test]
fn a_source_that_was_not_held_to_the_end_leaves_no_image() {
    let source = disk(&numbered_blocks(3));
    let plan = BackupPlan::new(&source, held(), options(), Job::silent()).unwrap();
    let storage = MemStorage::new();
    let hold = Watched { storage: &storage, seen: Mutex::default(), lost: true };
    let from = HeldSource { disk: &source, hold: Some(&hold), trackers: &[] };
    let inventory = Inventory::default();
    let failed = plan.apply_held(from, &storage, &ids(1), &inventory, None, Job::silent());
    let Err(Error::NotHeld(why)) = failed else { panic!("{failed:?}") };
    assert_eq!(why.to_string(), "thawed by a test");
    assert_eq!(storage.names(), [""; 0]);
}

#[test]
fn a_held_source_is_read_again_after_a_lie_before_it_is_let_go() {
    let mut bytes = aiv_testkit::disks::Content::Random(1).bytes(40 * BLOCK);
    let bitmap = Bitmap::new("b", 65536);
    let storage = MemStorage::new();
    let mut n = 0;
    let mut backup = |bytes: &[u8], options: BackupOptions| {
        n += 1;
        let (source, trackers) = (disk(bytes), bitmap.as_trackers());
        let plan = BackupPlan::new(&source, held(), options, Job::silent()).unwrap();
        let hold = Watched { storage: &storage, seen: Mutex::default(), lost: false };
        let from = HeldSource { disk: &source, hold: Some(&hold), trackers: &trackers };
        let none = Inventory::default();
        let report = plan.apply_held(from, &storage, &ids(n), &none, None, Job::silent()).unwrap();
        assert_eq!(hold.seen.into_inner().unwrap().len(), 1, "let go once");
        report
    };
    backup(&bytes, all_sectors());
    bytes[31 * BLOCK] ^= 1;
    let report = backup(&bytes, relying_on("b"));
    let offset = 31 * BLOCK as u64;
    assert_eq!(not_used(&report), Some(&NotUsed::Lied { offset }));
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == bytes);
}
