//! Chains with a key: listed, read, merged, copied and verified, with the key and without.

use std::time::Duration;

use aiv_chain::{
    ConsolidateOptions, ConsolidationPlan, Error, Folder, Keep, MergeOptions, PointState,
    Protection, Selector, Set, Trust, VerifyOptions, View, archive, copy_set, keyed_chains,
    verify_folder_keyed,
};
use aiv_image_format::{
    ChainKey, Compression, Depth, Digest, Error as ImageError, Image, Keys, Mode, Seal,
};
use aiv_keys::{KeyArea, KeyFile, NewSlot, Way};
use aiv_testkit::MemStorage;
use aiv_volume_io::{CATALOGUE_NAME, Job, Storage};

use crate::chain_maker::{Step, point};
use crate::common::BLOCK;
use crate::consolidate::ids;
use crate::described::read_all;

pub(crate) fn key() -> ChainKey {
    ChainKey::new([0x42; 32])
}

pub(crate) fn keys() -> Keys {
    Keys::of(key())
}

pub(crate) fn seal(mode: Mode) -> Option<Seal> {
    let file = KeyFile::new(&[1; 32]).unwrap();
    let new = NewSlot {
        way: Way::KeyFile(&file),
        label: "file",
        created_unix_ms: 0,
        random: &[7; NewSlot::RANDOM],
    };
    let slots = KeyArea::new(&key(), &new).unwrap().to_bytes().into_boxed_slice();
    Some(Seal { mode, slots: Some(slots), ..Seal::new(key(), 3) })
}

/// The bytes of the disk at one time.
pub(crate) fn disk(number: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..6 * BLOCK as u64).map(|at| (at * at / 97).to_le_bytes()[0]).collect();
    for change in 0..number {
        let at = (usize::from(change) + 1) * BLOCK + 100;
        bytes[at..at + 30].fill(change + 1);
        let at = 5 * BLOCK + usize::from(change) * 100;
        bytes[at..at + 50].fill(0xf0 | change);
    }
    bytes
}

/// Four points in a line.
pub(crate) fn chain(mode: Mode) -> MemStorage {
    let storage = MemStorage::new();
    for number in 1..=4u8 {
        let step = Step { seal: seal(mode), ..Step::new(number.into(), disk(number)) };
        let parent = (number > 1).then(|| {
            let file = format!("{}.aiv", number - 1);
            View::open_keyed(&storage, &file, &keys(), Job::silent()).unwrap()
        });
        step.write(&storage, &format!("{number}.aiv"), parent.as_ref());
    }
    storage
}

pub(crate) fn scan(storage: &dyn Storage, keys: &Keys) -> Folder {
    Folder::scan_keyed(storage, keys, Trust::Files, Job::silent()).unwrap().0
}

pub(crate) fn set_of(storage: &dyn Storage, keys: &Keys) -> Set {
    let mut folder = scan(storage, keys);
    assert_eq!((folder.sets.len(), folder.strays.len()), (1, 0), "{:?}", folder.strays);
    folder.sets.remove(0)
}

#[test]
fn every_point_of_a_chain_with_a_key_reads_with_it() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = chain(mode);
        let set = set_of(&storage, &keys());
        assert_eq!((set.name.as_str(), set.host.as_str()), ("set1", "host"));
        for (number, point) in (1u8..).zip(&set.points) {
            assert_eq!(point.state, PointState::Restorable);
            let commitment = Digest(key().commitment());
            assert_eq!(point.protection.key(), Some(commitment));
            let is_sealed = point.protection == Protection::Sealed(commitment);
            assert_eq!(is_sealed, mode == Mode::Sealed);
            let view = View::of_point(&storage, &set, point).unwrap();
            assert!(read_all(&view) == disk(number), "point {number}");
        }
    }
}

#[test]
fn without_the_key_sealed_points_are_listed_as_locked_and_show_what_they_are() {
    let storage = chain(Mode::Sealed);
    for keys in [Keys::none(), Keys::of(ChainKey::new([9; 32]))] {
        let set = set_of(&storage, &keys);
        assert_eq!((set.name.as_str(), set.points.len()), ("", 4));
        for at in &set.points {
            let key = Digest(key().commitment());
            assert_eq!(at.state, PointState::Locked { key });
            assert!(at.is_whole() && !at.is_restorable());
            assert!(at.state.to_string().contains("locked"), "{}", at.state);
            assert_eq!(at.size, disk(1).len() as u64);
            assert_eq!(at.parent.is_some(), at.id != point(1));
            let opened = View::of_point(&storage, &set, at).err().unwrap();
            let locked = matches!(
                opened,
                Error::Image {
                    source: ImageError::Locked { .. } | ImageError::WrongKey { .. },
                    ..
                }
            );
            assert!(locked, "{opened}");
        }
    }
    let error = View::open(&storage, "4.aiv", Job::silent()).err().unwrap();
    assert!(matches!(error, Error::Image { source: ImageError::Locked { .. }, .. }), "{error}");
}

#[test]
fn a_missing_parent_says_more_than_a_missing_key() {
    let storage = chain(Mode::Sealed);
    storage.remove("2.aiv").unwrap();
    let set = set_of(&storage, &Keys::none());
    let last = set.points.iter().find(|p| p.id == point(4)).unwrap();
    assert_eq!(last.state, PointState::MissingParent { point: point(2) });
}

#[test]
fn a_catalogue_knows_no_name_of_a_sealed_image() {
    for (mode, shows) in [(Mode::Sealed, false), (Mode::Authenticated, true)] {
        let storage = chain(mode);
        let (folder, catalogue) =
            Folder::scan_keyed(&storage, &keys(), Trust::Catalogue, Job::silent()).unwrap();
        assert_eq!(folder.sets[0].name, "set1");
        catalogue.write(&storage).unwrap();
        let bytes = storage.contents(CATALOGUE_NAME).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        for text in ["set1", "user:1"] {
            assert_eq!(holds(text), shows, "{text}");
        }
        // Nor does it make anybody believe that there is no key.
        let again = Folder::scan_keyed(&storage, &keys(), Trust::Catalogue, Job::silent());
        let set = &again.unwrap().0.sets[0];
        assert!(set.points.iter().all(|p| p.is_restorable() && p.protection.key().is_some()));
        let without = Folder::scan(&storage, Job::silent()).unwrap();
        let locked = |p: &&aiv_chain::Point| matches!(p.state, PointState::Locked { .. });
        let count = without.sets[0].points.iter().filter(locked).count();
        assert_eq!(count, if shows { 0 } else { 4 });
    }
}

#[test]
fn a_chain_with_a_key_is_merged_into_images_with_that_key_and_the_same_slots() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = chain(mode);
        let set = set_of(&storage, &keys());
        let keep = Keep { newest: 1, points: [point(2)].into() };
        let plan = ConsolidationPlan::new(&storage, &set, &keep, Job::silent()).unwrap();
        let options = ConsolidateOptions {
            compression: Compression::Zstd(1),
            patience: Duration::ZERO,
            split: None,
            parity: false,
        };
        let report = plan.apply(&storage, &options, &mut ids(0xa0), Job::silent()).unwrap();
        assert_eq!((report.merged.len(), report.left.len()), (2, 0));
        let set = set_of(&storage, &keys());
        assert_eq!(set.points.len(), 2);
        for (number, at) in [2, 4].into_iter().zip(&set.points) {
            let view = View::of_point(&storage, &set, at).unwrap();
            assert!(read_all(&view) == disk(number), "point {number}");
            let protection = Protection::of(view.image().superblock());
            assert_eq!(protection.key(), Some(Digest(key().commitment())));
            let slots = view.image().slot_copies().unwrap().unwrap();
            assert!(slots.iter().all(|copy| **copy == *seal(mode).unwrap().slots.unwrap()));
        }
        let chains = keyed_chains(&storage, Job::silent()).unwrap();
        assert_eq!((chains.chains.len(), chains.unsure.len()), (1, 0));
        verified(&storage, &keys(), true);
    }
}

#[test]
fn a_locked_chain_is_not_merged_and_nothing_is_lost() {
    let storage = chain(Mode::Sealed);
    let set = set_of(&storage, &Keys::none());
    let plan = ConsolidationPlan::new(&storage, &set, &Keep::default(), Job::silent());
    assert!(plan.is_err() || plan.unwrap().is_empty());
    assert_eq!(set_of(&storage, &keys()).points.iter().filter(|p| p.is_restorable()).count(), 4);
}

#[test]
fn an_archived_point_of_a_sealed_chain_is_a_sealed_full_image() {
    let (from, to) = (chain(Mode::Sealed), MemStorage::new());
    let set = set_of(&from, &keys());
    let how = MergeOptions { parity: false, compression: Compression::Zstd(1), split: None };
    let newest = set.point(point(4)).unwrap();
    let made = archive(&from, &set, newest, &to, how, &mut ids(0xb0), Job::silent()).unwrap();
    let image = Image::open_with(to.open(&made.file).unwrap(), &keys()).unwrap();
    assert!(image.superblock().is_sealed() && image.superblock().parent.is_none());
    let set = set_of(&to, &keys());
    assert!(read_all(&View::of_point(&to, &set, &set.points[0]).unwrap()) == disk(4));
}

/// Verifies all; `proven` when there is nothing that a key would add.
#[track_caller]
fn verified(storage: &dyn Storage, keys: &Keys, proven: bool) {
    let options =
        VerifyOptions { depth: Depth::Data, not_verified_since: None, now_unix_ms: 1, set: None };
    let found = verify_folder_keyed(storage, &options, keys, Job::silent()).unwrap();
    assert!(!found.images.is_empty());
    for image in &found.images {
        assert!(image.is_sound(), "{image:?}");
        assert_eq!(image.is_proven(), proven, "{image:?}");
        assert_eq!(image.outcome.as_ref().unwrap().locked, !proven);
    }
}

#[test]
fn a_locked_chain_is_copied_and_verified_without_its_key_and_reads_with_it() {
    let (from, to) = (chain(Mode::Sealed), MemStorage::new());
    verified(&from, &keys(), true);
    verified(&from, &Keys::none(), false);
    let set = set_of(&from, &Keys::none());
    let report = copy_set(&from, &set, &to, &mut ids(0xc0), Job::silent()).unwrap();
    assert_eq!((report.copied.len(), report.left_out.len()), (4, 0));
    verified(&to, &Keys::none(), false);
    let set = set_of(&to, &keys());
    for (number, point) in (1u8..).zip(&set.points) {
        assert!(read_all(&View::of_point(&to, &set, point).unwrap()) == disk(number));
    }
}

#[test]
fn damage_of_a_locked_chain_is_found_without_its_key() {
    let storage = chain(Mode::Sealed);
    crate::common::damage(&storage, "3.aiv", 40_000);
    let options =
        VerifyOptions { depth: Depth::Data, not_verified_since: None, now_unix_ms: 1, set: None };
    let found = verify_folder_keyed(&storage, &options, &Keys::none(), Job::silent()).unwrap();
    let bad: Vec<&str> =
        found.images.iter().filter(|i| !i.is_sound()).map(|i| i.file.as_str()).collect();
    assert_eq!(bad, ["3.aiv"]);
}

#[test]
fn an_image_with_another_key_or_mode_than_its_parent_is_no_part_of_the_chain() {
    // An authenticated image names the root of its parent as a plain one does: it could be
    // written on top of either.
    let storage = MemStorage::new();
    Step::new(1, disk(1)).write(&storage, "1.aiv", None);
    let parent = View::open(&storage, "1.aiv", Job::silent()).unwrap();
    let other = Some(Seal { mode: Mode::Authenticated, ..Seal::new(ChainKey::new([8; 32]), 1) });
    for seal in [seal(Mode::Authenticated), other] {
        let step = Step { seal, ..Step::new(2, disk(2)) };
        step.write(&storage, "2.aiv", Some(&parent));
        let mut keys = keys();
        keys.add(ChainKey::new([8; 32]));
        let set = set_of(&storage, &keys);
        let child = set.points.iter().find(|p| p.id == point(2)).unwrap();
        assert_eq!(child.state, PointState::ParentDiffers { point: point(1) });
        let opened = View::open_keyed(&storage, "2.aiv", &keys, Job::silent());
        assert!(matches!(opened.err(), Some(Error::NotRestorable { .. })));
        storage.remove("2.aiv").unwrap();
    }
}

#[test]
fn a_reader_that_requires_a_key_calls_a_plain_image_unusable() {
    let storage = MemStorage::new();
    Step::new(1, disk(1)).write(&storage, "1.aiv", None);
    let folder = scan(&storage, &keys().required());
    assert!(folder.sets.is_empty());
    let kind = &folder.strays[0].kind;
    let text = format!("{kind:?}");
    assert!(text.contains("neither sealed nor authenticated"), "{text}");
}

/// The point that `words` name.
fn find(folder: &Folder, words: &str) -> Result<aiv_image_format::PointId, Error> {
    words.parse::<Selector>().unwrap().find(folder).map(|(_, point)| point.id)
}

#[test]
fn no_point_is_the_newest_of_a_set_in_which_one_is_locked() {
    // Two chains of one source: one that opens without a key, and a sealed one.
    let storage = chain(Mode::Sealed);
    Step { full_number: 9, ..Step::new(9, disk(2)) }.write(&storage, "9.aiv", None);
    let (locked, opened) = (scan(&storage, &Keys::none()), scan(&storage, &keys()));
    for words in ["latest", "latest~0", "latest~2", "set1:latest", "set1:latest~4"] {
        let error = find(&locked, words).unwrap_err();
        assert!(matches!(error, Error::AgeUnknown { .. }), "{words}: {error}");
    }
    for number in [1, 4, 9] {
        let words = point(number).to_string();
        assert_eq!(find(&locked, &words).unwrap(), point(number));
    }
    assert_eq!(find(&opened, "latest").unwrap(), point(9));
    assert_eq!(find(&opened, "latest~1").unwrap(), point(4));
    // Nor where something else is wrong with the locked ones, too.
    storage.remove("1.aiv").unwrap();
    let broken = scan(&storage, &Keys::none());
    assert!(broken.sets[0].points.iter().all(|p| !matches!(p.state, PointState::Locked { .. })));
    assert!(matches!(find(&broken, "latest"), Err(Error::AgeUnknown { .. })));
}

#[test]
fn chains_of_several_keys_in_one_set_are_told_apart_by_time() {
    // Whoever could not open the chain began to count anew.
    let storage = chain(Mode::Sealed);
    let other = ChainKey::new([8; 32]);
    for (number, seal) in [
        (5, Some(Seal::new(other.clone(), 1))),
        (6, Some(Seal { mode: Mode::Authenticated, ..Seal::new(key(), 1) })),
        (7, None),
    ] {
        let step = Step { seal, full_number: 0, ..Step::new(number, disk(1)) };
        step.write(&storage, &format!("{number}.aiv"), None);
    }
    let mut keys = keys();
    keys.add(other);
    let set = set_of(&storage, &keys);
    let order: Vec<_> = set.points.iter().map(|p| p.id).collect();
    assert_eq!(order, (1..=7).map(point).collect::<Vec<_>>());
    assert_eq!(find(&scan(&storage, &keys), "latest").unwrap(), point(7));
}
