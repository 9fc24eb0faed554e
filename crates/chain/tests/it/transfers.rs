//! Points in other folders: archived, copied, moved.

use std::time::Duration;

use aiv_chain::{
    ArchiveReport, CopyReport, Depth, Error, LeftReason, MERGE_PART, MergeOptions, MoveReport,
    Result, VerifyOptions, archive, copy_point, copy_set, move_point, move_set, verify_folder,
};
use aiv_image_format::{
    Compression, Error as ImageError, Features, Image, ImageKind, SPECIFICATION,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{DirStorage, Job, Storage};
use proptest::prelude::*;

use crate::common::{BLOCK, damage, verify_all};
use crate::consolidate::{consolidate, ids, keep, line, options, plan};
use crate::described::{Chain, Change, SET, Step, arb_steps, entries, point_id, set_of, wrong};
use crate::wrappers::{Below, Forgetful};

pub(crate) fn archive_point(
    from: &dyn Storage,
    number: usize,
    to: &dyn Storage,
) -> Result<ArchiveReport> {
    let set = set_of(from);
    let point = set.point(point_id(number)).unwrap();
    let how = MergeOptions { parity: false, compression: Compression::Zstd(1), split: None };
    archive(from, &set, point, to, how, &mut ids(0xc0), Job::silent())
}

pub(crate) fn copy_one(from: &dyn Storage, number: usize, to: &dyn Storage) -> Result<CopyReport> {
    let set = set_of(from);
    copy_point(from, &set, set.point(point_id(number)).unwrap(), to, &mut ids(0xc0), Job::silent())
}

pub(crate) fn copy_all(from: &dyn Storage, to: &dyn Storage) -> Result<CopyReport> {
    copy_set(from, &set_of(from), to, &mut ids(0xc0), Job::silent())
}

pub(crate) fn move_one(from: &dyn Storage, number: usize, to: &dyn Storage) -> Result<MoveReport> {
    let set = set_of(from);
    let point = set.point(point_id(number)).unwrap();
    move_point(from, &set, point, to, Duration::ZERO, &mut ids(0xc0), Job::silent())
}

pub(crate) fn move_all(from: &dyn Storage, to: &dyn Storage) -> Result<MoveReport> {
    move_set(from, &set_of(from), to, Duration::ZERO, &mut ids(0xc0), Job::silent())
}

/// Files as they are now.
fn contents(storage: &MemStorage) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = storage.contents(&name).unwrap().to_vec();
        (name, bytes)
    };
    storage.names().into_iter().map(read).collect()
}

fn sound(storage: &dyn Storage) {
    let (images, strays) = verify_all(storage);
    for image in images {
        let report = image.outcome.unwrap();
        assert_eq!((report.damage, report.without_parent), (vec![], false), "{}", image.file);
    }
    assert!(strays.is_empty(), "{strays:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_archive_is_one_full_image_of_the_same_point_and_state(
        steps in arb_steps(), number in 0usize..9,
    ) {
        let chain = Chain::of(&steps);
        let at = number % chain.points.len();
        let to = MemStorage::new();
        let report = archive_point(&chain.storage, at + 1, &to).unwrap();
        prop_assert_eq!(to.names(), std::slice::from_ref(&report.file));
        prop_assert_eq!(wrong(&to, &chain.points[at]), None);
        let image = Image::open(to.open(&report.file).unwrap()).unwrap();
        prop_assert_eq!(image.superblock().kind, ImageKind::Full);
        // It needs no other image; blocks may need others of its own.
        prop_assert_eq!(image.superblock().features.incompat & !Features::LOCAL, 0);
        prop_assert_eq!(&image.meta().specification, SPECIFICATION);
        sound(&to);
        let again = archive_point(&chain.storage, at + 1, &to).unwrap();
        prop_assert!(again.was_there && again.file == report.file);
    }

    #[test]
    fn a_set_that_was_copied_and_moved_back_is_what_it_was(steps in arb_steps()) {
        let chain = Chain::of(&steps);
        let before = contents(&chain.storage);
        let to = MemStorage::new();
        let report = copy_all(&chain.storage, &to).unwrap();
        prop_assert_eq!(report.copied.len(), chain.points.len());
        prop_assert_eq!(contents(&to), before.clone());
        prop_assert_eq!(contents(&chain.storage), before.clone());
        sound(&to);
        let third = MemStorage::new();
        let moved = move_all(&to, &third).unwrap();
        prop_assert_eq!((moved.left, to.names()), (vec![], vec![]));
        prop_assert_eq!(contents(&third), before);
    }
}

#[test]
fn what_a_point_builds_on_is_copied_before_it_and_nothing_else() {
    let chain = line();
    let to = MemStorage::new();
    let report = copy_one(&chain.storage, 3, &to).unwrap();
    let copied: Vec<&str> = report.copied.iter().map(|c| c.file.as_str()).collect();
    assert_eq!(copied, ["p001.aiv", "p002.aii", "p003.aii"]);
    for at in 0..3 {
        assert_eq!(wrong(&to, &chain.points[at]), None);
    }
    let report = copy_one(&chain.storage, 3, &to).unwrap();
    assert_eq!((report.copied, report.were_there), (vec![], vec![point_id(3)]));
}

#[test]
fn a_folder_that_has_half_of_a_chain_gets_the_other_half_whatever_its_files_are_made_of() {
    let chain = line();
    let to = MemStorage::new();
    // The third point as one full image: what comes after it builds on that.
    archive_point(&chain.storage, 3, &to).unwrap();
    let report = copy_one(&chain.storage, 5, &to).unwrap();
    let copied: Vec<&str> = report.copied.iter().map(|c| c.file.as_str()).collect();
    assert_eq!(copied, ["p004.aii", "p005.aii"]);
    for at in 2..5 {
        assert_eq!(wrong(&to, &chain.points[at]), None);
    }
    sound(&to);
}

#[test]
fn a_name_that_is_taken_by_something_else_is_avoided() {
    let chain = line();
    let to = MemStorage::new();
    to.insert("p001.aiv", b"somebody else's".to_vec());
    to.insert(&format!("p002.aii{MERGE_PART}"), b"and this".to_vec());
    let report = copy_one(&chain.storage, 2, &to).unwrap();
    assert_ne!(report.copied[0].file, "p001.aiv");
    assert!(report.copied[0].file.starts_with("host@sda_"), "{}", report.copied[0].file);
    assert_eq!(report.copied[1].file, "p002.aii");
    assert_eq!(to.contents("p001.aiv").unwrap().as_slice(), b"somebody else's");
    assert_eq!(wrong(&to, &chain.points[1]), None);
}

#[test]
fn a_damaged_file_is_not_copied_and_neither_is_what_builds_on_it() {
    let chain = line();
    let entry = entries(&chain.storage, "p002.aii").into_iter().find(|e| e.has_frame()).unwrap();
    damage(&chain.storage, "p002.aii", usize::try_from(entry.address).unwrap() + 80);
    let to = MemStorage::new();
    // Told of the file that is damaged, not of the folder that got a true copy.
    let is_it = |error: &Error| match error {
        Error::Image { file, source } => {
            file == "p002.aii" && matches!(source, ImageError::Corrupt(_))
        }
        _ => false,
    };
    let error = copy_all(&chain.storage, &to).unwrap_err();
    assert!(is_it(&error), "{error:?}");
    assert_eq!(to.names(), ["p001.aiv"]);
    let error = move_all(&chain.storage, &to).unwrap_err();
    assert!(is_it(&error), "{error:?}");
    assert_eq!(chain.storage.names().len(), 5);
    let error = archive_point(&chain.storage, 5, &MemStorage::new()).unwrap_err();
    assert!(matches!(&error, Error::Image { file, .. } if file == "p002.aii"), "{error:?}");
}

#[test]
fn a_folder_that_returns_other_bytes_than_it_was_given_gets_no_copy() {
    let chain = line();
    for leaving in [false, true] {
        let to = Forgetful(MemStorage::new());
        let error = match leaving {
            false => copy_all(&chain.storage, &to).unwrap_err(),
            true => move_all(&chain.storage, &to).unwrap_err(),
        };
        assert!(matches!(&error, Error::ReadBack { file, .. } if file == "p001.aiv"), "{error:?}");
        assert_eq!(to.0.names(), [""; 0]);
        assert_eq!(chain.storage.names().len(), 5);
    }
}

#[test]
fn a_point_that_others_build_on_is_not_moved_and_nothing_is_written() {
    let chain = line();
    let to = MemStorage::new();
    let error = move_one(&chain.storage, 3, &to).unwrap_err();
    let is_it = |e: &Error| matches!(e, Error::Needed { point, by } if (*point, *by) == (point_id(3), point_id(4)));
    assert!(is_it(&error), "{error:?}");
    assert_eq!(to.names(), [""; 0]);
    let report = move_one(&chain.storage, 5, &to).unwrap();
    assert_eq!(report.removed, ["p005.aii"]);
    assert_eq!(report.copy.copied.len(), 5, "it needs the others there, too");
    assert_eq!(chain.storage.names().len(), 4);
    assert_eq!(wrong(&to, &chain.points[4]), None);
}

#[test]
fn while_a_backup_runs_a_move_is_a_copy_and_can_be_ended_later() {
    let chain = line();
    let to = MemStorage::new();
    let backup = chain.storage.lease(&format!("set-{SET}")).unwrap();
    let report = move_all(&chain.storage, &to).unwrap();
    assert!(report.waiting_for_backup && report.removed.is_empty());
    assert!(report.left.iter().all(|left| left.why == LeftReason::Backup));
    drop(backup);
    let report = move_all(&chain.storage, &to).unwrap();
    assert_eq!((report.copy.copied.len(), report.removed.len()), (0, 5));
    assert_eq!(chain.storage.names(), [""; 0]);
}

#[test]
fn a_move_does_not_trust_a_damaged_copy_that_was_there_before() {
    let chain = line();
    let to = MemStorage::new();
    copy_all(&chain.storage, &to).unwrap();
    let entry = entries(&to, "p003.aii").into_iter().find(|e| e.has_frame()).unwrap();
    damage(&to, "p003.aii", usize::try_from(entry.address).unwrap() + 80);
    let error = move_all(&chain.storage, &to).unwrap_err();
    assert!(matches!(&error, Error::Image { file, .. } if file == "p003.aii"), "{error:?}");
    assert_eq!(chain.storage.names().len(), 5);
}

#[test]
fn a_move_does_not_put_a_point_on_a_damaged_one_that_was_there_before() {
    let chain = line();
    let to = MemStorage::new();
    copy_one(&chain.storage, 4, &to).unwrap();
    let entry = entries(&to, "p003.aii").into_iter().find(|e| e.has_frame()).unwrap();
    damage(&to, "p003.aii", usize::try_from(entry.address).unwrap() + 80);
    let error = move_one(&chain.storage, 5, &to).unwrap_err();
    assert!(matches!(&error, Error::Image { file, .. } if file == "p003.aii"), "{error:?}");
    assert_eq!(chain.storage.names().len(), 5);
}

#[test]
fn what_is_known_to_be_damaged_in_the_destination_is_copied_again() {
    let chain = line();
    let to = MemStorage::new();
    copy_all(&chain.storage, &to).unwrap();
    let entry = entries(&to, "p003.aii").into_iter().find(|e| e.has_frame()).unwrap();
    damage(&to, "p003.aii", usize::try_from(entry.address).unwrap() + 80);
    let options =
        VerifyOptions { depth: Depth::Data, not_verified_since: None, now_unix_ms: 1, set: None };
    let verified = verify_folder(&to, &options, Job::silent()).unwrap();
    verified.record(&to, Job::silent()).unwrap();
    let report = copy_one(&chain.storage, 4, &to).unwrap();
    let copied: Vec<&str> = report.copied.iter().map(|c| c.from.as_str()).collect();
    assert_eq!(copied, ["p003.aii", "p004.aii"]);
    assert_eq!(wrong(&to, &chain.points[3]), None);
}

#[test]
fn a_folder_is_not_moved_into_itself_or_around_itself() {
    let chain = line();
    let names = chain.storage.names();
    for (from, to) in [
        (&chain.storage as &dyn Storage, &chain.storage.clone() as &dyn Storage),
        (&chain.storage, &Below(&chain.storage, "sub/")),
    ] {
        let error = move_all(from, to).unwrap_err();
        assert!(matches!(error, Error::SameFolder), "{error:?}");
        assert_eq!(chain.storage.names(), names);
    }
    // The other way round: what is moved lies below.
    let outer = MemStorage::new();
    for name in &names {
        outer.insert(&format!("sub/{name}"), chain.storage.contents(name).unwrap());
    }
    let before = outer.names();
    assert!(matches!(move_all(&Below(&outer, "sub/"), &outer), Err(Error::SameFolder)));
    assert_eq!(outer.names(), before);
}

#[test]
fn too_little_room_is_known_before_the_first_copy() {
    let chain = line();
    let to = MemStorage::new();
    to.set_free_bytes(Some(1000));
    assert!(matches!(copy_all(&chain.storage, &to), Err(Error::NoSpace { free: 1000, .. })));
    assert!(matches!(archive_point(&chain.storage, 5, &to), Err(Error::NoSpace { .. })));
    assert!(matches!(move_all(&chain.storage, &to), Err(Error::NoSpace { .. })));
    assert_eq!((to.names().len(), chain.storage.names().len()), (0, 5));
}

#[test]
fn copies_and_merges_of_one_set_exclude_each_other() {
    let chain = line();
    let to = MemStorage::new();
    let held = to.lease(&format!("merge-{SET}")).unwrap();
    assert!(matches!(copy_all(&chain.storage, &to), Err(Error::Busy { .. })));
    assert!(matches!(archive_point(&chain.storage, 5, &to), Err(Error::Busy { .. })));
    assert!(matches!(move_all(&chain.storage, &to), Err(Error::Busy { .. })));
    drop(held);
    copy_all(&chain.storage, &to).unwrap();
}

#[test]
fn points_that_cannot_be_restored_are_left_out_of_a_copy() {
    let mut chain = line();
    chain.add(&Step::full(BLOCK as u64, &[(Change::New(1), 1)]));
    chain.storage.remove("p001.aiv").unwrap();
    let to = MemStorage::new();
    let report = copy_all(&chain.storage, &to).unwrap();
    assert_eq!(report.left_out, [2, 3, 4, 5].map(point_id));
    assert_eq!(to.names(), ["p006.aiv"]);
    // Nor are they moved, which is no error where there is nothing else.
    chain.storage.remove("p006.aiv").unwrap();
    let report = move_all(&chain.storage, &MemStorage::new()).unwrap();
    assert_eq!((report.removed, report.copy.left_out.len()), (vec![], 4));
    assert_eq!(chain.storage.names().len(), 4);
}

#[test]
fn real_folders_share_and_copy_and_everything_reads_as_before() {
    let len = 40 << 20;
    let chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 200), (Change::Unused, 9), (Change::New(2), 200)]),
        Step::on(1, len, &[(Change::Keep, 100), (Change::New(3), 150), (Change::Patch(4), 20)]),
        Step::on(1, len, &[(Change::Keep, 240), (Change::Patch(5), 40), (Change::Moved(7), 3)]),
    ]);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [0, 1].map(|at: usize| DirStorage::open(dirs[at].path()).unwrap());
    copy_all(&chain.storage, &one).unwrap();
    move_all(&one, &two).unwrap();
    assert!(one.list().unwrap().is_empty());
    let planned = plan(&two, &keep(1, &[])).unwrap();
    let max = planned.runs[0].bytes_max;
    let report = planned.apply(&two, &options(), &mut ids(1), Job::silent()).unwrap();
    assert!(report.merged[0].bytes <= max);
    assert_eq!(two.list().unwrap().len(), 1);
    assert_eq!(wrong(&two, &chain.points[2]), None);
    sound(&two);
    archive_point(&two, 3, &one).unwrap();
    assert_eq!(wrong(&one, &chain.points[2]), None);
    assert_eq!(consolidate(&one, &keep(1, &[])).unwrap().removed, [""; 0]);
}
