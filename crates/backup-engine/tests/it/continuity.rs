//! A chain goes on whatever happened to its files, and says what was lost.

use std::sync::Arc;

use aiv_backup_engine::{BackupOptions, BackupReport, Basis, Error};
use aiv_chain::{Folder, ImageKind, PointState, View};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::CountingDisk;
use aiv_volume_io::{Job, Storage};

use crate::common::{BLOCK, all_sectors, disk, numbered_blocks, read_all, try_backup};

/// A full image and three increments of a disk that changes a little each time.
fn chain() -> (MemStorage, Vec<BackupReport>, Vec<u8>) {
    chain_of(200)
}

/// As [`chain`], of a disk of so many blocks; what lies behind the first 128 never changes.
fn chain_of(blocks: usize) -> (MemStorage, Vec<BackupReport>, Vec<u8>) {
    let storage = MemStorage::new();
    let mut bytes = numbered_blocks(blocks);
    let mut reports = Vec::new();
    for n in 1..5 {
        bytes[usize::from(n) * 10 * BLOCK + 50] ^= 0x80;
        reports.push(try_backup(&disk(&bytes), &storage, all_sectors(), n).unwrap());
    }
    (storage, reports, bytes)
}

fn damage(storage: &MemStorage, file: &str, at: usize) {
    let mut bytes = storage.contents(file).unwrap().to_vec();
    bytes[at] ^= 1;
    storage.insert(file, bytes);
}

fn restores(storage: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    let view = View::open(storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == bytes, "{}", report.image);
}

#[test]
fn a_missing_newest_image_is_continued_from_the_one_before() {
    let (storage, reports, bytes) = chain();
    storage.remove(&reports[3].image).unwrap();
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.parent, Some(reports[2].recovery_point));
    restores(&storage, &report, &bytes);
}

#[test]
fn a_missing_image_in_the_middle_costs_the_points_behind_it_and_no_more() {
    let (storage, reports, bytes) = chain();
    storage.remove(&reports[2].image).unwrap();
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.parent, Some(reports[1].recovery_point));
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.id, lost.file.clone())).collect();
    assert_eq!(lost, [(Some(reports[3].recovery_point), reports[3].image.clone())]);
    let missing = format!("point {}, which no file provides", reports[2].recovery_point);
    assert!(report.lost[0].why.contains(&missing), "{}", report.lost[0].why);
    restores(&storage, &report, &bytes);
    // It is the newest one, although the lost one has a number too.
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(folder.sets[0].points.last().unwrap().id, report.recovery_point);
    // And that loss is not told again.
    let next = try_backup(&disk(&bytes), &storage, all_sectors(), 10).unwrap();
    assert_eq!((next.parent, next.lost), (Some(report.recovery_point), vec![]));
}

#[test]
fn damage_anywhere_in_the_newest_image_is_noticed_before_anything_builds_on_it() {
    let (storage, reports, bytes) = chain();
    let len = storage.contents(&reports[3].image).unwrap().len();
    for at in (0..len).step_by(len / 60 + 1).chain([len - 1]) {
        let storage = storage.fork();
        damage(&storage, &reports[3].image, at);
        let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
        assert_eq!(report.parent, Some(reports[2].recovery_point), "byte {at}");
        let lost: Vec<_> = report.lost.iter().map(|lost| lost.id).collect();
        assert_eq!(lost, [Some(reports[3].recovery_point)], "byte {at}");
        restores(&storage, &report, &bytes);
    }
}

#[test]
fn a_newest_image_that_was_cut_off_is_a_lost_point() {
    let (storage, reports, bytes) = chain();
    for len in [0, 5000, 90_000] {
        let storage = storage.fork();
        let cut = storage.contents(&reports[3].image).unwrap()[..len].to_vec();
        storage.insert(&reports[3].image, cut);
        let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
        assert_eq!(report.parent, Some(reports[2].recovery_point), "{len}");
        let named = report.lost.iter().any(|lost| lost.id == Some(reports[3].recovery_point));
        assert_eq!(named, len >= 4096, "a superblock tells which point it was");
        restores(&storage, &report, &bytes);
    }
}

#[test]
fn without_the_full_image_a_new_one_is_made_and_every_increment_is_lost() {
    let (storage, reports, bytes) = chain();
    storage.remove(&reports[0].image).unwrap();
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!((report.kind, report.parent), (ImageKind::Full, None));
    assert_eq!(report.lost.len(), 3);
    assert!(report.image.contains("_b00002-"), "{}", report.image);
    restores(&storage, &report, &bytes);
}

#[test]
fn damage_of_an_older_image_met_while_comparing_starts_a_new_chain() {
    let (storage, reports, mut bytes) = chain();
    // An index page of the full image: nothing that builds on it can be compared.
    let view = View::open(&storage, &reports[0].image, Job::silent()).unwrap();
    let index = usize::try_from(view.image().trailer().index_offset).unwrap();
    damage(&storage, &reports[0].image, index + 100);
    bytes[150 * BLOCK] ^= 1;
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.kind, ImageKind::Full);
    assert_eq!(report.lost.len(), 4, "{:?}", report.lost);
    restores(&storage, &report, &bytes);
}

#[test]
fn damage_that_only_the_comparison_of_a_block_meets_starts_a_new_chain_too() {
    let (storage, reports, mut bytes) = chain_of(600);
    // The index page with block 500 of the full image. No increment touched its group, so
    // looking at them does not read it.
    let view = View::open(&storage, &reports[0].image, Job::silent()).unwrap();
    let page = usize::try_from(view.image().trailer().index_offset).unwrap() + 500 / 84 * 4096;
    damage(&storage, &reports[0].image, page + 100);
    bytes[500 * BLOCK] ^= 1;
    for count in [1, 3] {
        let storage = storage.fork();
        let options = BackupOptions { threads: crate::common::threads(count), ..all_sectors() };
        let source = CountingDisk::new(disk(&bytes));
        let report = try_backup(&source, &storage, options, 9).unwrap();
        assert_eq!(report.kind, ImageKind::Full);
        // Not once for every point that is read through the damaged file.
        let len = bytes.len() as u64;
        assert!(source.bytes_read() < len * 5 / 2, "{} of {len}", source.bytes_read());
        let lost: Vec<_> = report.lost.iter().map(|lost| lost.id).collect();
        let points: Vec<_> = reports.iter().rev().map(|made| Some(made.recovery_point)).collect();
        assert_eq!(lost, points);
        assert!(report.lost[0].why.contains(&reports[0].image), "{}", report.lost[0].why);
        // The image that was begun and given up had frames of a session already.
        let view = View::open(&storage, &report.image, Job::silent()).unwrap();
        assert_ne!(view.image().superblock().session.0, [9; 12]);
        restores(&storage, &report, &bytes);
    }
}

#[test]
fn a_damaged_block_of_the_parent_is_mended_by_the_next_change_of_it() {
    let (storage, reports, mut bytes) = chain();
    // The frame of block 150 in the full image.
    let view = View::open(&storage, &reports[0].image, Job::silent()).unwrap();
    let entry = view.image().entry(150).unwrap().unwrap();
    damage(&storage, &reports[0].image, usize::try_from(entry.address).unwrap() + 70);
    bytes[150 * BLOCK + 9] ^= 1;
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.parent, Some(reports[3].recovery_point));
    assert!(report.parent_damage.as_ref().is_some_and(|what| what.contains("frame")));
    restores(&storage, &report, &bytes);
}

#[test]
fn after_a_restore_of_an_older_point_the_chain_goes_on() {
    let (storage, reports, _) = chain();
    let older = View::open(&storage, &reports[1].image, Job::silent()).unwrap();
    let mut bytes = read_all(&older);
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.parent, Some(reports[3].recovery_point));
    assert_eq!(report.state_root, reports[1].state_root, "the same state again");
    restores(&storage, &report, &bytes);
    bytes[7] ^= 1;
    let next = try_backup(&disk(&bytes), &storage, all_sectors(), 10).unwrap();
    assert_eq!(next.parent, Some(report.recovery_point));
    restores(&storage, &next, &bytes);
}

#[test]
fn a_parent_that_is_another_state_than_its_child_says_is_not_built_on() {
    let (storage, reports, bytes) = chain();
    // Somebody put an image of another set of bytes under the same point.
    let other = MemStorage::new();
    let mut changed = bytes.clone();
    changed[3] ^= 1;
    let forged = try_backup(&disk(&changed), &other, all_sectors(), 1).unwrap();
    storage.insert(&reports[0].image, Arc::clone(&other.contents(&forged.image).unwrap()));
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    let states: Vec<_> = folder.sets[0].points.iter().map(|p| p.state.clone()).collect();
    let differs = PointState::ParentDiffers { point: reports[0].recovery_point };
    assert_eq!(states.iter().filter(|state| **state == differs).count(), 3, "{states:?}");
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    assert_eq!(report.parent, Some(forged.recovery_point));
    restores(&storage, &report, &bytes);
}

#[test]
fn a_lease_that_was_taken_over_stops_the_backup_before_it_publishes() {
    struct Thief<'s>(&'s MemStorage, String);
    impl aiv_volume_io::Progress for Thief<'_> {
        fn begin(&self, _: aiv_volume_io::Step, _: u64) {
            self.0.steal_lease(&self.1);
        }
    }
    let (storage, reports, bytes) = chain();
    let set = Folder::scan(&storage, Job::silent()).unwrap().sets[0].id;
    let before = storage.names();
    let thief = Thief(&storage, format!("set-{set}"));
    let cancel = aiv_volume_io::Cancel::new();
    let plan = crate::common::plan(&disk(&bytes), all_sectors());
    let done = plan.apply(
        &disk(&bytes),
        &storage,
        &crate::common::ids(9),
        &aiv_image_format::meta::Inventory::default(),
        None,
        Job::new(&thief, &cancel),
    );
    assert!(
        matches!(&done, Err(Error::Destination { op, .. }) if op.contains("lease")),
        "{done:?}"
    );
    // What was begun stays: the thief may have found it, and gone on with it.
    let (begun, published): (Vec<_>, Vec<_>) =
        storage.names().into_iter().partition(|name| name.ends_with(".part"));
    assert_eq!((published, begun.len()), (before, 1), "nothing was published");
    assert_eq!(reports.len(), 4);
    // The lease is free again, and what stayed is in nobody's way.
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 9).unwrap();
    restores(&storage, &report, &bytes);
    assert!(!storage.names().iter().any(|name| name.ends_with(".part")));
}

#[test]
fn a_full_backup_on_request_loses_nothing_and_starts_the_next_chain() {
    let (storage, _, bytes) = chain();
    let full = BackupOptions { basis: Basis::Nothing, ..all_sectors() };
    let report = try_backup(&disk(&bytes), &storage, full, 9).unwrap();
    assert_eq!((report.kind, report.lost), (ImageKind::Full, vec![]));
    let next = try_backup(&disk(&bytes), &storage, all_sectors(), 10).unwrap();
    assert_eq!(next.parent, Some(report.recovery_point));
}

#[test]
fn a_lease_that_is_held_for_a_moment_is_waited_for_and_one_held_longer_is_busy() {
    let (storage, _, bytes) = chain();
    let set = Folder::scan(&storage, Job::silent()).unwrap().sets[0].id;
    let patient = |ms| {
        let patience = std::time::Duration::from_millis(ms);
        BackupOptions { patience, ..all_sectors() }
    };
    let held = storage.lease(&format!("set-{set}")).unwrap();
    let busy = try_backup(&disk(&bytes), &storage, patient(150), 9);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    let done = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| try_backup(&disk(&bytes), &storage, patient(60_000), 9));
        std::thread::sleep(std::time::Duration::from_millis(250));
        drop(held);
        waiting.join().unwrap()
    });
    assert!(done.is_ok(), "{done:?}");
}
