//! Merges of images with a key: with which slots, and what is refused before anything is written.

use std::time::Duration;

use aiv_chain::{
    ConsolidateOptions, ConsolidationPlan, Error, Keep, MergeOptions, PointState, Set,
    VerifyOptions, View, archive, archive_as, change_slots, verify_folder_keyed,
};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{
    ChainKey, Compression, Depth, Digest, Error as ImageError, Features, Image, Keys, Mode,
};
use aiv_keys::{KeyArea, KeyFile, NewSlot, Way};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::chain_maker::point;
use crate::consolidate::ids;
use crate::described::read_all;
use crate::sealed::{chain, disk, key, keys, scan, set_of};

/// Another way in for the one there is, in all images but that of point 4, which a cut kept from
/// it. Returns the slots of the others.
pub(crate) fn cut_off_change(storage: &MemStorage) -> Vec<u8> {
    let before = storage.contents("4.aiv").unwrap();
    let change = |area: &KeyArea| {
        let file = KeyFile::new(&[2; 32]).unwrap();
        let (way, random) = (Way::KeyFile(&file), &[9; NewSlot::RANDOM]);
        area.change(&key(), 1, &NewSlot { way, label: "new", created_unix_ms: 1, random })
    };
    let report = change_slots(storage, &key(), &change, Job::silent()).unwrap();
    assert_eq!(report.changed.len(), 4);
    storage.insert("4.aiv", before);
    report.area.to_bytes()
}

#[track_caller]
pub(crate) fn has_slots(storage: &MemStorage, file: &str, slots: &[u8]) {
    let image = Image::open_with(storage.open(file).unwrap(), &keys()).unwrap();
    let copies = image.slot_copies().unwrap().unwrap();
    assert!(copies.iter().all(|copy| **copy == *slots), "{file}");
}

#[test]
fn merges_of_different_images_never_share_a_session_even_where_random_numbers_come_again() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = chain(mode);
        let set = set_of(&storage, &keys());
        let how = MergeOptions { parity: false, compression: Compression::Zstd(1), split: None };
        let session = |number, how: MergeOptions| {
            let (to, wanted) = (MemStorage::new(), set.point(point(number)).unwrap());
            let made = archive(&storage, &set, wanted, &to, how, &mut ids(0xb0), Job::silent());
            let file = made.unwrap().file;
            Image::open(to.open(&file).unwrap()).unwrap().superblock().session
        };
        let first = session(3, how);
        assert_eq!(first, session(3, how), "the same inputs give the same image");
        let other = MergeOptions { compression: Compression::Lz4, ..how };
        let is_sealed = mode == Mode::Sealed;
        assert_eq!(first != session(4, how), is_sealed, "{mode:?}: another point");
        assert_eq!(first != session(3, other), is_sealed, "{mode:?}: stored in another way");
    }
}

#[test]
fn merged_images_have_the_newest_slots_of_the_chain_and_bring_no_removed_ones_back() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let (storage, to) = (chain(mode), MemStorage::new());
        let slots = cut_off_change(&storage);
        let set = set_of(&storage, &keys());
        let how = MergeOptions { parity: false, compression: Compression::Zstd(1), split: None };
        let newest = set.point(point(4)).unwrap();
        let made = archive(&storage, &set, newest, &to, how, &mut ids(0xb0), Job::silent());
        has_slots(&to, &made.unwrap().file, &slots);
        let view = View::of_point(&storage, &set, newest).unwrap();
        let mut new_ids = ids(0xb1);
        archive_as(&storage, &view, &to, "a.aiv", how, new_ids(), Job::silent()).unwrap();
        has_slots(&to, "a.aiv", &slots);
        // Also where they are only in images that the merged one does not need.
        let first = set.point(point(1)).unwrap();
        let view = View::of_point(&storage, &set, first).unwrap();
        archive_as(&storage, &view, &to, "b.aiv", how, new_ids(), Job::silent()).unwrap();
        has_slots(&to, "b.aiv", &slots);
        let keep = Keep { newest: 1, ..Keep::default() };
        let plan = ConsolidationPlan::new(&storage, &set, &keep, Job::silent()).unwrap();
        let options = ConsolidateOptions {
            compression: Compression::Zstd(1),
            patience: Duration::ZERO,
            split: None,
            parity: false,
        };
        let report = plan.apply(&storage, &options, &mut ids(0xa0), Job::silent()).unwrap();
        has_slots(&storage, &report.merged[0].file, &slots);
    }
}

pub(crate) fn plainly() -> MergeOptions {
    MergeOptions { parity: false, compression: Compression::Zstd(1), split: None }
}

pub(crate) fn consolidating(how: MergeOptions) -> ConsolidateOptions {
    let MergeOptions { compression, parity, split } = how;
    ConsolidateOptions { compression, patience: Duration::ZERO, split, parity }
}

/// What keeps points of `set` from being merged as `how` says, each way of merging; nothing may
/// have been written for it.
fn refusals(storage: &MemStorage, set: &Set, how: MergeOptions) -> Vec<Error> {
    let (before, to) = (storage.names(), MemStorage::new());
    let newest = set.point(point(4)).unwrap();
    let view = View::of_point(storage, set, newest).unwrap();
    let mut new_ids = ids(0xd0);
    let plan = ConsolidationPlan::new(storage, set, &Keep::default(), Job::silent()).unwrap();
    let errors = vec![
        archive(storage, set, newest, &to, how, &mut new_ids, Job::silent()).unwrap_err(),
        archive_as(storage, &view, &to, "a.aiv", how, new_ids(), Job::silent()).unwrap_err(),
        plan.apply(storage, &consolidating(how), &mut new_ids, Job::silent()).unwrap_err(),
    ];
    assert_eq!((storage.names(), to.names()), (before, Vec::new()));
    errors
}

/// A merged image has these features, reads as the point, and is proven with and without its key.
#[track_caller]
fn is_sound(storage: &MemStorage, file: &str, features: u64, number: u8) {
    let view = View::open_keyed(storage, file, &keys(), Job::silent()).unwrap();
    assert_eq!(view.image().superblock().features.incompat & features, features, "{file}");
    assert!(read_all(&view) == disk(number), "{file}");
    for keys in [keys(), Keys::none()] {
        let options = VerifyOptions {
            depth: Depth::Data,
            not_verified_since: None,
            now_unix_ms: 1,
            set: None,
        };
        let found = verify_folder_keyed(storage, &options, &keys, Job::silent()).unwrap();
        for image in &found.images {
            assert!(image.is_sound(), "{}: {:?}", image.file, image.outcome);
        }
    }
}

#[test]
fn images_with_a_key_are_merged_with_parity_and_into_segments_where_it_is_asked_for_or_was_there() {
    let split = Some(SEGMENT_BYTES_MIN);
    for (mode, parity, split, features) in [
        (Mode::Sealed, true, None, Features::PARITY),
        (Mode::Sealed, false, split, Features::SPLIT),
        (Mode::Authenticated, true, split, Features::PARITY | Features::SPLIT),
    ] {
        let (storage, to) = (chain(mode), MemStorage::new());
        let set = set_of(&storage, &keys());
        let how = MergeOptions { parity, split, ..plainly() };
        let newest = set.point(point(4)).unwrap();
        let made = archive(&storage, &set, newest, &to, how, &mut ids(0xb0), Job::silent());
        is_sound(&to, &made.unwrap().file, features, 4);
        let keep = Keep { newest: 2, ..Keep::default() };
        let plan = ConsolidationPlan::new(&storage, &set, &keep, Job::silent()).unwrap();
        let report = plan.apply(&storage, &consolidating(how), &mut ids(0xa0), Job::silent());
        let merged = report.unwrap().merged.remove(0);
        is_sound(&storage, &merged.file, features, 3);
        // What has it keeps it.
        let set = set_of(&storage, &keys());
        let plan =
            ConsolidationPlan::new(&storage, &set, &Keep { newest: 1, ..keep }, Job::silent());
        let options = consolidating(plainly());
        let report = plan.unwrap().apply(&storage, &options, &mut ids(0xa1), Job::silent());
        is_sound(&storage, &report.unwrap().merged[0].file, features, 4);
    }
}

#[test]
fn a_chain_that_everybody_can_read_is_merged_with_its_key_only_and_says_so_first() {
    let storage = chain(Mode::Authenticated);
    for keys in [Keys::none(), Keys::of(ChainKey::new([9; 32]))] {
        let folder = scan(&storage, &keys);
        let mut errors = vec![folder.check_unlocked().unwrap_err()];
        if keys == Keys::none() {
            errors.extend(refusals(&storage, &folder.sets[0], plainly()));
        }
        for error in errors {
            let state = PointState::Locked { key: Digest(key().commitment()) };
            match error {
                Error::NotRestorable { state: found, .. } => assert_eq!(found, state),
                Error::Image { source: ImageError::Locked { .. }, .. } => {}
                error => panic!("{error}"),
            }
        }
    }
    scan(&storage, &keys()).check_unlocked().unwrap();
}
