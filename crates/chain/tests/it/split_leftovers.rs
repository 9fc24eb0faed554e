//! What an interruption left of split images goes, and nothing else does.

use std::time::Duration;

use aiv_chain::{MERGE_PART, move_set, remove_interrupted};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::segment_name;
use aiv_testkit::{CrashState, CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Job, Storage};

use crate::common::BLOCK;
use crate::consolidate::ids;
use crate::described::{Chain, Change, Step, scan, set_of, wrong};
use crate::merge_crashes::check_states;
use crate::transfers::{copy_all, move_all};

/// One point of several segments.
fn chain() -> Chain {
    let len = 12 * BLOCK as u64 + 512;
    Chain::split(SEGMENT_BYTES_MIN, &[Step::full(len, &[(Change::New(1), 12)])])
}

/// All files with their bytes.
fn files(storage: &MemStorage) -> Vec<(String, Vec<u8>)> {
    let names = storage.names().into_iter();
    names.map(|name| (name.clone(), storage.contents(&name).unwrap().to_vec())).collect()
}

fn clean(chain: &Chain, folder: &MemStorage) -> Vec<String> {
    let set = set_of(&chain.storage).id;
    remove_interrupted(folder, set, &|name| name.ends_with(MERGE_PART)).unwrap()
}

/// A folder with the image whose first segment is gone, or is damaged so that it does not say any
/// more what it is: its others are all that is left of it.
fn headless(chain: &Chain) -> [MemStorage; 2] {
    let file = &chain.points[0].file;
    let (gone, damaged) = (chain.storage.fork(), chain.storage.fork());
    gone.remove(file).unwrap();
    let mut bytes = chain.storage.contents(file).unwrap().to_vec();
    bytes[..8192].fill(0);
    damaged.insert(file, bytes);
    [gone, damaged]
}

#[test]
fn a_copy_that_was_interrupted_takes_no_published_segment_along() {
    let chain = chain();
    let file = &chain.points[0].file;
    for folder in headless(&chain) {
        let before = files(&folder);
        let first = chain.storage.contents(file).unwrap().to_vec();
        // Under the name of that image, and under another.
        for part in [format!("{file}{MERGE_PART}"), format!("other.aiv{MERGE_PART}")] {
            folder.insert(&part, first.clone());
            assert_eq!(clean(&chain, &folder), [part]);
            assert!(files(&folder) == before, "{:?}", folder.names());
        }
        // Nor when it was interrupted while its segments got their names.
        let marker = format!("other.aiv.publishing{MERGE_PART}");
        folder.insert(&marker, first.clone());
        let second = segment_name("other.aiv", 1);
        let bytes = chain.storage.contents(&segment_name(file, 1)).unwrap();
        folder.insert(&second, bytes.to_vec());
        assert_eq!(clean(&chain, &folder), [second, marker]);
        assert!(files(&folder) == before, "{:?}", folder.names());
    }
}

#[test]
fn a_marker_beside_a_first_segment_or_beside_segments_of_others_takes_nothing_along() {
    let chain = chain();
    let file = &chain.points[0].file;
    let folder = chain.storage.fork();
    let before = files(&folder);
    let first = chain.storage.contents(file).unwrap().to_vec();
    // A rename by link and unlink that was interrupted, at the end of publishing and at the
    // beginning of a removal.
    for what in ["publishing", "removed"] {
        let marker = format!("{file}.{what}{MERGE_PART}");
        folder.insert(&marker, first.clone());
        assert_eq!(clean(&chain, &folder), [marker]);
        assert!(files(&folder) == before, "{:?}", folder.names());
    }
    // A file under such a name that is something else.
    folder.remove(file).unwrap();
    let marker = format!("{file}.publishing{MERGE_PART}");
    folder.insert(&marker, first);
    let second = segment_name(file, 1);
    folder.insert(&second, b"somebody else's".to_vec());
    let removed = clean(&chain, &folder);
    assert!(!removed.contains(&second), "{removed:?}");
    assert_eq!(folder.names(), [second]);
}

#[test]
fn no_fault_while_an_image_is_copied_beside_its_damaged_self_takes_what_is_left_of_that() {
    let chain = chain();
    for folder in headless(&chain) {
        let before = files(&folder);
        let kept = |folder: &MemStorage| {
            before
                .iter()
                .all(|(name, bytes)| folder.contents(name).is_some_and(|found| *found == *bytes))
        };
        for fault in [Fault::Eio, Fault::SyncFailsThenSucceeds, Fault::RenameFails] {
            let mut fired = 0;
            for at in 0.. {
                let to = FaultStorage::failing(folder.fork(), FaultPlan::once(at * 2, fault));
                let done = copy_all(&chain.storage, &to);
                let what = format!("{fault:?} {at}: {done:?}, {:?}", to.inner().names());
                assert!(kept(to.inner()), "{what}");
                if !to.fired() {
                    break;
                }
                fired += 1;
                copy_all(&chain.storage, to.inner()).unwrap();
                assert!(kept(to.inner()), "{what}");
                assert_eq!(wrong(to.inner(), &chain.points[0]), None, "{what}");
                // Only what does not tell whose it is may stay.
                let stays = |name: &String| {
                    let head = aiv_image_format::peek_set(&*to.inner().open(name).unwrap());
                    name.ends_with(".part") && head.is_some()
                };
                assert!(!to.inner().names().iter().any(stays), "{what}");
            }
            assert!(fired > 0, "{fault:?} hit nothing");
        }
    }
}

#[test]
fn no_power_cut_while_an_image_is_copied_beside_its_damaged_self_takes_what_is_left_of_that() {
    let chain = chain();
    for folder in headless(&chain) {
        let before = files(&folder);
        let crash = CrashStorage::starting_from(&folder);
        copy_all(&chain.storage, &crash).unwrap();
        crash.mark("copied");
        let count = check_states(crash.crash_states(23, 8), |state: &CrashState| {
            let to = &state.storage;
            copy_all(&chain.storage, to).map_err(|e| format!("again: {e:?}"))?;
            for (name, bytes) in &before {
                if to.contents(name).is_none_or(|found| *found != *bytes) {
                    return Err(format!("{name} is gone, of {:?}", to.names()));
                }
            }
            wrong(to, &chain.points[0]).map_or(Ok(()), Err)
        });
        assert!(count.unwrap() > 100);
    }
}

#[test]
fn a_move_that_was_interrupted_while_it_removed_leaves_nothing_behind_when_it_is_run_again() {
    let len = 12 * BLOCK as u64;
    let steps =
        [Step::full(len, &[(Change::New(1), 12)]), Step::on(1, len, &[(Change::New(2), 6)])];
    let chain = Chain::split(SEGMENT_BYTES_MIN, &steps);
    let crash = CrashStorage::starting_from(&chain.storage);
    let to = MemStorage::new();
    move_all(&crash, &to).unwrap();
    crash.mark("moved");
    let (mut again, mut gone) = (0, 0);
    check_states(crash.crash_states(24, 20), |state: &CrashState| {
        let (from, to) = (&state.storage, to.fork());
        if scan(from).sets.is_empty() {
            gone += 1;
            return Ok(());
        }
        again += 1;
        let (set, ids) = (set_of(from), &mut ids(0xc5));
        let moved = move_set(from, &set, &to, Duration::ZERO, ids, Job::silent());
        moved.map_err(|e| format!("again: {e:?}"))?;
        match from.names() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?} are left")),
        }
    })
    .unwrap();
    assert!(again > 10 && gone > 0, "{again} {gone}");
}
