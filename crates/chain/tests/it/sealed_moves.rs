//! Chains with a key on their way to another folder, mostly without it.

use std::time::Duration;

use aiv_chain::{Error, MoveReport, View, archive, copy_set, move_point, move_set};
use aiv_image_format::{Error as ImageError, Keys, Mode};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use crate::chain_maker::point;
use crate::consolidate::ids;
use crate::described::read_all;
use crate::sealed::{chain, disk, keys, set_of};
use crate::sealed_merges::{cut_off_change, has_slots, plainly};

fn move_all(from: &MemStorage, keys: &Keys, to: &MemStorage) -> Result<MoveReport, Error> {
    let set = set_of(from, keys);
    move_set(from, &set, to, Duration::ZERO, &mut ids(0xc1), Job::silent())
}

#[track_caller]
fn reads_as_ever(storage: &MemStorage) {
    let set = set_of(storage, &keys());
    assert_eq!(set.points.len(), 4);
    for (number, point) in (1u8..).zip(&set.points) {
        assert!(read_all(&View::of_point(storage, &set, point).unwrap()) == disk(number));
    }
}

#[test]
fn a_locked_chain_moves_without_its_key_also_where_it_is_there_already() {
    for copied_before in [false, true] {
        let (from, to) = (chain(Mode::Sealed), MemStorage::new());
        if copied_before {
            let set = set_of(&from, &Keys::none());
            copy_set(&from, &set, &to, &mut ids(0xc0), Job::silent()).unwrap();
        }
        let report = move_all(&from, &Keys::none(), &to).unwrap();
        assert_eq!((report.removed.len(), report.left.len()), (4, 0));
        let there = if copied_before { 4 } else { 0 };
        assert_eq!((report.copy.were_there.len(), report.copy.left_out.len()), (there, 0));
        assert_eq!(from.names(), Vec::<String>::new());
        reads_as_ever(&to);
    }
    let (from, to) = (chain(Mode::Sealed), MemStorage::new());
    let set = set_of(&from, &Keys::none());
    let newest = set.point(point(4)).unwrap();
    let mut ids = ids(0xc2);
    let report = move_point(&from, &set, newest, &to, Duration::ZERO, &mut ids, Job::silent());
    assert_eq!(report.unwrap().removed, ["4.aiv"]);
    reads_as_ever(&to);
}

#[test]
fn a_locked_image_never_goes_for_one_that_only_says_that_it_is_the_same() {
    let (from, to) = (chain(Mode::Sealed), MemStorage::new());
    let set = set_of(&from, &keys());
    let newest = set.point(point(4)).unwrap();
    archive(&from, &set, newest, &to, plainly(), &mut ids(0xc3), Job::silent()).unwrap();
    let error = move_all(&from, &Keys::none(), &to).unwrap_err();
    assert!(matches!(error, Error::LockedThere { point: of, .. } if of == point(4)), "{error}");
    reads_as_ever(&from);
    move_all(&from, &keys(), &to).unwrap();
    assert_eq!(from.names(), Vec::<String>::new());
    reads_as_ever(&to);
}

#[test]
fn a_damaged_locked_image_is_not_moved_and_neither_is_one_whose_copy_is_damaged() {
    for in_destination in [false, true] {
        let (from, to) = (chain(Mode::Sealed), MemStorage::new());
        let set = set_of(&from, &Keys::none());
        if in_destination {
            copy_set(&from, &set, &to, &mut ids(0xc0), Job::silent()).unwrap();
        }
        crate::common::damage(if in_destination { &to } else { &from }, "3.aiv", 40_000);
        let error = move_all(&from, &Keys::none(), &to).unwrap_err();
        let corrupt = |e: &Error| matches!(e, Error::Image { source: ImageError::Corrupt(_), .. });
        assert!(corrupt(&error), "{error}");
        assert_eq!(from.names().len(), 4);
    }
}

#[test]
fn images_do_not_go_where_only_old_key_slots_would_be_left() {
    for keys in [Keys::none(), keys()] {
        let (from, to) = (chain(Mode::Sealed), MemStorage::new());
        let set = set_of(&from, &keys);
        copy_set(&from, &set, &to, &mut ids(0xc0), Job::silent()).unwrap();
        let slots = cut_off_change(&from);
        let error = move_all(&from, &keys, &to).unwrap_err();
        assert!(matches!(error, Error::SlotsBehind { .. }), "{error}");
        reads_as_ever(&from);
        // One image with them is enough: all are opened through any of them.
        to.insert("again.aiv", from.contents("1.aiv").unwrap().to_vec());
        assert_eq!(move_all(&from, &keys, &to).unwrap().removed.len(), 4);
        has_slots(&to, "again.aiv", &slots);
    }
}
