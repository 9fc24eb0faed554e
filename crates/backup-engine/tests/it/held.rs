//! Sources that others write to, and what keeps them from it meanwhile.

use std::sync::Mutex;

use aiv_backup_engine::{BackupPlan, Error, HeldSource, Hold, PlanNote, SourceFacts};
use aiv_chain::View;
use aiv_image_format::meta::{Consistency, Inventory};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use crate::common::{disk, facts, ids, numbered_blocks, options};

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
    assert_eq!(seen, [[format!("{}.part", report.image)]]);
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
