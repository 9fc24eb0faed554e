//! Every operation on the storage fails once, in every way it can.

use std::sync::Arc;

use aiv_backup_engine::{BackupOptions, BackupReport};
use aiv_chain::{Depth, Folder, Point, Stray, StrayKind, View};
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Job, MemDisk};

use crate::common::{disk, numbered_blocks, options, read_all, try_backup};

/// A folder with one image, and the source it is of, changed since.
struct World {
    source: MemDisk,
    bytes: Vec<u8>,
    folder: MemStorage,
    first: BackupReport,
    first_image: Arc<Vec<u8>>,
}

fn world() -> World {
    let mut bytes = numbered_blocks(4);
    let folder = MemStorage::new();
    let first = try_backup(&disk(&bytes), &folder, options(), 1).unwrap();
    let first_image = folder.contents(&first.image).unwrap();
    // And a leftover to remove, so that this step can fail, too.
    folder.insert("crashed.part", first_image[..8192].to_vec());
    bytes[100] ^= 1;
    World { source: disk(&bytes), bytes, folder, first, first_image }
}

fn check_image(folder: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    let view = View::open(folder, &report.image, Job::silent()).unwrap();
    let found = view.image().verify(Depth::Data, Job::silent()).unwrap();
    assert_eq!((found.damage, view.image().damage()), (vec![], &[][..]));
    assert_eq!(view.image().trailer().state_root, report.state_root);
    assert!(read_all(&view) == bytes);
}

/// One backup under one fault; `false` when the fault found nothing to hit.
fn check(world: &World, fault_plan: FaultPlan, verify: bool) -> bool {
    let storage = FaultStorage::failing(world.folder.fork(), fault_plan);
    let options = BackupOptions { verify, ..options() };
    let done = try_backup(&world.source, &storage, options.clone(), 2);
    let folder = storage.inner();
    assert_eq!(folder.contents(&world.first.image).as_ref(), Some(&world.first_image));
    match &done {
        Ok(report) => check_image(folder, report, &world.bytes),
        Err(_) => assert!(storage.fired(), "{done:?}"),
    }
    if storage.fired() && fault_plan.fault.is_harmless() {
        assert!(done.is_ok(), "{done:?}");
    }
    if fault_plan.fault == Fault::SyncFailsThenSucceeds && storage.fired() {
        assert!(done.is_err(), "a failed sync was taken for success");
    }
    // Whatever is published is right, whether or not its backup was said to have failed.
    let scanned = Folder::scan(folder, Job::silent()).unwrap();
    let points: Vec<_> = scanned.sets.iter().flat_map(|s| &s.points).collect();
    assert!(points.iter().any(|p| p.id == world.first.recovery_point));
    for point in points.iter().filter(|p| p.id != world.first.recovery_point) {
        let view = View::open(folder, &point.file, Job::silent()).unwrap();
        assert!(read_all(&view) == world.bytes);
    }
    let unfinished = |s: &aiv_chain::Stray| s.kind == aiv_chain::StrayKind::Unfinished;
    assert!(scanned.strays.iter().all(unfinished), "{:?}", scanned.strays);

    // After healing.
    let report = try_backup(&world.source, folder, options, 3).unwrap();
    check_image(folder, &report, &world.bytes);
    assert_eq!(folder.contents(&world.first.image).as_ref(), Some(&world.first_image));
    let parts = folder.names().into_iter().filter(|name| name.ends_with(".part"));
    for part in parts {
        // Only what holds no superblock may stay: it cannot be told whose it is.
        let bytes = folder.contents(&part).unwrap();
        let blank = bytes.len() < 4096 || bytes[..4096].iter().all(|&b| b == 0);
        assert!(blank, "{part} stays");
    }
    storage.fired()
}

fn check_all(plan: fn(u64, Fault) -> FaultPlan, verify: bool) {
    let world = world();
    for fault in Fault::ALL {
        let hits = (0..).take_while(|&at| check(&world, plan(at, fault), verify)).count();
        assert!(hits > 0, "{fault:?} hit nothing");
    }
}

#[test]
fn no_single_fault_at_any_operation_gives_false_success_or_harms_an_earlier_image() {
    check_all(FaultPlan::once, false);
}

#[test]
fn no_lasting_fault_from_any_operation_on_gives_false_success_or_harms_an_earlier_image() {
    check_all(FaultPlan::persistent, false);
}

#[test]
fn faults_while_every_frame_is_read_back_are_no_success_either() {
    check_all(FaultPlan::once, true);
}

#[test]
fn a_scan_that_cannot_read_an_image_says_so_rather_than_forget_a_point() {
    let world = world();
    let mut n = 0;
    loop {
        let storage = FaultStorage::failing(world.folder.fork(), FaultPlan::once(n, Fault::Eio));
        let scanned = Folder::scan(&storage, Job::silent());
        if !storage.fired() {
            assert_eq!(scanned.unwrap().sets[0].points.len(), 1);
            break;
        }
        if let Ok(folder) = scanned {
            let unreadable = |stray: &Stray| matches!(stray.kind, StrayKind::Unreadable(_));
            // Found all the same: by the other copy, or the fault struck what saves time only.
            let found = folder.sets.iter().flat_map(|set| &set.points).any(Point::is_restorable);
            assert!(folder.strays.iter().any(unreadable) || found, "{folder:?}");
        }
        n += 1;
    }
    assert!(n > 3);
}
