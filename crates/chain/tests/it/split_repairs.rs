//! Damaged split images made whole in another folder: all segments are published, or none.

use aiv_chain::{Error, MERGE_PART, Repaired, Result, repair};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{Features, Keys, Mode, Seal};
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashState, CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Job, Storage};

use crate::chain_maker::Step;
use crate::common::BLOCK;
use crate::merge_crashes::check_states;
use crate::repairs::NeverSynced;
use crate::sealed::scan;
use crate::slots::{area, key};
use crate::wrappers::{Forgetful, InSteps};

const PAGE: usize = 4096;

/// A folder with `sub/a.aiv` and its other segments.
fn folder(features: u64, mode: Option<Mode>) -> MemStorage {
    let storage = MemStorage::new();
    let slots = Some(area("old").to_bytes().into_boxed_slice());
    let seal = mode.map(|mode| Seal { mode, slots, ..Seal::new(key(), 1) });
    let bytes = Content::Random(9).bytes(14 * BLOCK + 512);
    let split = Some(SEGMENT_BYTES_MIN);
    Step { seal, split, features, ..Step::new(1, bytes) }.write(&storage, "sub/a.aiv", None);
    assert!(storage.contents("sub/a.aiv.p003").is_some());
    storage
}

fn repaired(from: &MemStorage, copies: &[&dyn Storage], to: &dyn Storage) -> Result<Repaired> {
    repair(from, "sub/a.aiv", copies, to, &Keys::none(), Job::silent())
}

fn damage(storage: &MemStorage, name: &str, places: std::ops::Range<usize>) {
    let mut bytes = storage.contents(name).unwrap().to_vec();
    bytes[places].fill(0x5a);
    storage.insert(name, bytes);
}

/// The files of the repaired image are those of the one in `good`.
#[track_caller]
fn is_made(to: &MemStorage, good: &MemStorage) {
    let names: Vec<String> = good.names();
    let made: Vec<String> = names.iter().map(|name| name.replace("sub/", "")).collect();
    assert_eq!(to.names(), made);
    for (name, made) in names.iter().zip(&made) {
        assert!(to.contents(made) == good.contents(name), "{made}");
    }
}

#[test]
fn a_damaged_split_image_is_made_whole_in_another_folder_and_stays_as_it_is_in_its_own() {
    for (features, mode) in [
        (Features::PARITY, None),
        (Features::PARITY, Some(Mode::Sealed)),
        (Features::PARITY, Some(Mode::Authenticated)),
    ] {
        let good = folder(features, mode);
        let from = good.fork();
        damage(&from, "sub/a.aiv", 50_000..60_000);
        damage(&from, "sub/a.aiv.p002", 0..PAGE);
        let len = good.contents("sub/a.aiv.p002").unwrap().len();
        damage(&from, "sub/a.aiv.p002", len - 2 * PAGE..len);
        let damaged = from.fork();
        let to = MemStorage::new();
        let done = repaired(&from, &[], &to).unwrap();
        assert_eq!(
            (done.file.as_deref(), done.segments.len()),
            (Some("a.aiv"), from.names().len())
        );
        assert_eq!((done.report.segments, done.report.pieces_by_parity), (1, 1));
        assert_eq!(done.is_sealed, mode == Some(Mode::Sealed));
        is_made(&to, &good);
        assert!(from.names().iter().all(|name| from.contents(name) == damaged.contents(name)));
        // Any segment stands for the image, whatever all of them are called.
        let (renamed, to) = (MemStorage::new(), MemStorage::new());
        for (number, name) in from.names().iter().enumerate() {
            renamed.insert(&format!("x{}", number * 7 % 10), from.contents(name).unwrap().to_vec());
        }
        let second = |name: &String| renamed.contents(name).unwrap()[..PAGE] == [0x5a; PAGE];
        let name = renamed.names().into_iter().find(second).unwrap();
        // It has lost both of its superblocks and a trailer; the other trailer tells.
        let done = repair(&renamed, &name, &[], &to, &Keys::none(), Job::silent()).unwrap();
        assert_eq!(done.file.as_deref(), Some("x0"));
        assert!(to.contents("x0") == good.contents("sub/a.aiv"));
        assert!(to.contents("x0.p002") == good.contents("sub/a.aiv.p002"));
    }
}

#[test]
fn a_missing_segment_comes_from_another_folder_or_is_told_by_its_number() {
    for mode in [None, Some(Mode::Sealed)] {
        let good = folder(0, mode);
        for gone in good.names() {
            let (from, to) = (good.fork(), MemStorage::new());
            from.remove(&gone).unwrap();
            let name = from.names().remove(0);
            let none = repair(&from, &name, &[], &to, &Keys::none(), Job::silent()).unwrap();
            assert!(none.file.is_none() && to.names().is_empty(), "{gone}: {none:?}");
            assert!(none.beyond.is_some() || none.report.pieces_lost > 0, "{gone}: {none:?}");
            let is_last = good.names().last() == Some(&gone);
            assert_eq!(none.beyond.is_some(), is_last, "{gone}: {none:?}");
            let copy = MemStorage::new();
            copy.insert("elsewhere/piece", good.contents(&gone).unwrap().to_vec());
            let copies: [&dyn Storage; 1] = [&copy];
            let done = repair(&from, &name, &copies, &to, &Keys::none(), Job::silent()).unwrap();
            assert_eq!(done.report.segments, 1, "{gone}");
            is_made(&to, &good);
        }
    }
}

#[test]
fn nothing_is_published_for_sound_segments_nor_over_any_name_of_the_image() {
    let good = folder(Features::PARITY, None);
    let to = MemStorage::new();
    let done = repaired(&good, &[], &to).unwrap();
    assert!(done.file.is_none() && done.report.is_sound() && to.names().is_empty());
    let from = good.fork();
    damage(&from, "sub/a.aiv", 50_000..60_000);
    for taken in ["a.aiv", "a.aiv.p002", "a.aiv.p007"] {
        let to = MemStorage::new();
        to.insert(taken, b"somebody else's".to_vec());
        let done = repaired(&from, &[], &to).unwrap();
        assert!(done.is_taken && done.file.is_none(), "{done:?}");
        assert_eq!(to.names(), [taken]);
    }
}

#[test]
fn no_fault_publishes_a_part_of_an_image_or_gives_false_success() {
    let good = folder(Features::PARITY, Some(Mode::Authenticated));
    let from = good.fork();
    damage(&from, "sub/a.aiv", 50_000..60_000);
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds, Fault::RenameFails] {
        let mut fired = 0;
        for at in 0.. {
            let plan = FaultPlan::once(at * 5, fault);
            let storage = FaultStorage::failing(MemStorage::new(), plan);
            let done = repaired(&from, &[], &storage);
            let to = storage.inner();
            if done.as_ref().is_ok_and(|done| done.file.is_some()) {
                is_made(to, &good);
            }
            check(to, &good).unwrap_or_else(|why| panic!("{fault:?} {at}: {why}"));
            if !storage.fired() {
                assert!(done.unwrap().file.is_some());
                break;
            }
            fired += 1;
            if !to.names().iter().any(|name| name == "a.aiv") {
                repaired(&from, &[], to).unwrap();
                check(to, &good).unwrap_or_else(|why| panic!("{fault:?} {at}: {why}"));
            }
        }
        assert!(fired > 0, "{fault:?} hit nothing");
    }
}

/// What may be in the folder: the whole image, or nothing but what is unfinished.
fn check(to: &MemStorage, good: &MemStorage) -> std::result::Result<(), String> {
    let has_first = to.names().iter().any(|name| name == "a.aiv");
    for name in good.names() {
        let made = name.replace("sub/", "");
        match to.contents(&made) {
            None if has_first => return Err(format!("{made} is missing: {:?}", to.names())),
            Some(file) if Some(&file) != good.contents(&name).as_ref() => {
                return Err(format!("{made} is another file"));
            }
            _ => {}
        }
    }
    let found = scan(to, &Keys::none());
    match found.strays.iter().find(|stray| stray.kind != aiv_chain::StrayKind::Unfinished) {
        Some(stray) => Err(format!("{stray:?}")),
        None => Ok(()),
    }
}

/// Every state a power cut may leave of a repair into `storage`, which records in `crash`.
fn check_crashes(
    crash: &CrashStorage,
    storage: &dyn Storage,
) -> std::result::Result<usize, String> {
    let good = folder(Features::PARITY, Some(Mode::Authenticated));
    let from = good.fork();
    damage(&from, "sub/a.aiv", 50_000..60_000);
    damage(&from, "sub/a.aiv.p002", 0..PAGE);
    repaired(&from, &[], storage).map_err(|error| error.to_string())?;
    crash.mark("repaired");
    let mut number = 0;
    check_states(crash.crash_states(3, 12), |state: &CrashState| {
        let to = &state.storage;
        check(to, &good)?;
        let is_there = to.names().iter().any(|name| name == "a.aiv");
        if !is_there && !state.acknowledged.is_empty() {
            return Err("the repaired image is lost".to_owned());
        }
        number += 1;
        if !is_there && number % 9 == 0 {
            // What was left goes, but for files that do not say whose they are.
            let is_blank = |name: &String| {
                let file = to.open(name).unwrap();
                name.ends_with(MERGE_PART) && aiv_image_format::peek(&*file).is_none()
            };
            let blank: Vec<String> = to.names().into_iter().filter(is_blank).collect();
            blank.iter().for_each(|name| to.remove(name).unwrap());
            let done = repaired(&from, &[], to).map_err(|error| format!("again: {error}"))?;
            if done.file.is_none() {
                return Err(format!("again: {done:?}"));
            }
            is_made(to, &good);
        }
        Ok(())
    })
}

#[test]
fn a_power_cut_during_a_repair_leaves_the_whole_image_or_none_of_it() {
    let crash = CrashStorage::new();
    let count = check_crashes(&crash, &InSteps(crash.clone())).unwrap();
    assert!(count > 400, "{count}");
}

#[test]
fn a_repair_of_segments_without_a_sync_would_be_caught() {
    let crash = CrashStorage::new();
    let found = check_crashes(&crash, &NeverSynced(crash.clone()));
    assert!(found.is_err(), "{found:?}");
}

#[test]
fn a_folder_that_keeps_other_bytes_gets_no_repaired_segment() {
    let from = folder(Features::PARITY, Some(Mode::Sealed));
    damage(&from, "sub/a.aiv", 50_000..60_000);
    let to = MemStorage::new();
    let error = repaired(&from, &[], &Forgetful(to.clone())).unwrap_err();
    assert!(matches!(error, Error::ReadBack { .. } | Error::Image { .. }), "{error}");
    assert!(to.names().is_empty(), "{:?}", to.names());
    assert!(to.names().iter().all(|name| !name.ends_with(MERGE_PART)));
}
