//! Split images with a key in folders: read, listed, copied and merged as wholes, and their key
//! slots, of which the first and the last segment have one copy each, changed safely.

use std::io;
use std::time::Duration;

use aiv_chain::{
    Checked, MERGE_PART, PointState, StrayKind, VerifyOptions, View, archive, copy_set,
    keyed_chains, move_set, unfinished_chains, verify_folder_keyed,
};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{ChainKey, Depth, Digest, Features, Image, Keys, Mode, Seal};
use aiv_keys::{KeyArea, Work};
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{DirStorage, Job, SlotCopy, SlotFile, Storage};

use crate::chain_maker::{Step, point};
use crate::common::BLOCK;
use crate::consolidate::{ids, keep, options};
use crate::described::read_all;
use crate::sealed::{scan, set_of};
use crate::slots::{Unsynced, area, change, crashes_in, key, opens, passphrase};
use crate::wrappers::pass_on;

fn keys() -> Keys {
    Keys::of(key())
}

/// The disk at one time: much of it is new each time.
fn disk(number: u8) -> Vec<u8> {
    let mut bytes = Content::Random(1).bytes(12 * BLOCK);
    for change in 0..number {
        let new = Content::Random(u64::from(change) + 7).bytes(6 * BLOCK);
        let at = usize::from(change % 2) * 5 * BLOCK;
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    bytes
}

fn step(number: u8, mode: Mode) -> Step {
    let slots = Some(area("old").to_bytes().into_boxed_slice());
    let seal = Some(Seal { mode, slots, ..Seal::new(key(), 1) });
    let split = Some(SEGMENT_BYTES_MIN);
    Step { seal, split, ..Step::new(number.into(), disk(number)) }
}

/// Three points, each of two segments or more.
fn chain(mode: Mode, features: u64) -> MemStorage {
    let storage = MemStorage::new();
    for number in 1..=3u8 {
        let parent = (number > 1).then(|| {
            let file = format!("{}.aiv", number - 1);
            View::open_keyed(&storage, &file, &keys(), Job::silent()).unwrap()
        });
        let step = Step { features, ..step(number, mode) };
        step.write(&storage, &format!("{number}.aiv"), parent.as_ref());
        assert!(storage.contents(&format!("{number}.aiv.p002")).is_some());
    }
    storage
}

/// Two full images of two segments or more.
fn two() -> MemStorage {
    let storage = MemStorage::new();
    for (number, mode) in [(1u8, Mode::Sealed), (2, Mode::Authenticated)] {
        step(number, mode).write(&storage, &format!("{number}.aiv"), None);
    }
    storage
}

#[track_caller]
fn reads_as_ever(storage: &MemStorage) {
    let set = set_of(storage, &keys());
    assert_eq!(set.points.len(), 3);
    for (number, point) in (1u8..).zip(&set.points) {
        assert!(!point.segments.is_empty() || point.file.ends_with("001.aiv"), "{}", point.file);
        assert!(read_all(&View::of_point(storage, &set, point).unwrap()) == disk(number));
    }
    verified(storage);
}

/// Every image of the folder is sound, with the key and without.
#[track_caller]
fn verified(storage: &MemStorage) {
    for keys in [keys(), Keys::none()] {
        for image in checked(storage, &keys) {
            assert!(image.is_sound(), "{}: {:?}", image.file, image.outcome);
        }
    }
}

fn checked(storage: &dyn Storage, keys: &Keys) -> Vec<Checked> {
    let depth = Depth::Data;
    let options = VerifyOptions { depth, not_verified_since: None, now_unix_ms: 1, set: None };
    verify_folder_keyed(storage, &options, keys, Job::silent()).unwrap().images
}

#[test]
fn every_point_reads_with_the_key_and_is_listed_as_locked_without_it() {
    for (mode, features) in [
        (Mode::Sealed, 0),
        (Mode::Sealed, Features::PARITY),
        (Mode::Authenticated, Features::PARITY),
    ] {
        let storage = chain(mode, features);
        reads_as_ever(&storage);
        for keys in [Keys::none(), Keys::of(ChainKey::new([9; 32]))] {
            let set = set_of(&storage, &keys);
            assert_eq!(set.name.is_empty(), mode == Mode::Sealed);
            for point in &set.points {
                let key = Digest(key().commitment());
                assert_eq!(point.protection.key(), Some(key));
                let locked = point.state == PointState::Locked { key };
                assert_eq!((locked, point.is_whole()), (mode == Mode::Sealed, true));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_named_with_its_point_with_and_without_the_key() {
    let storage = chain(Mode::Sealed, 0);
    let names = storage.names();
    let own: Vec<&String> = names.iter().filter(|name| name.starts_with("2.aiv")).collect();
    assert!(own.len() >= 2);
    for keys in [Keys::none(), keys()] {
        for (number, gone) in (1..).zip(&own) {
            let folder = storage.fork();
            folder.remove(gone).unwrap();
            let found = scan(&folder, &keys);
            let whys = found.strays.iter().filter_map(|stray| match &stray.kind {
                StrayKind::Unusable(why) => Some(why.as_str()),
                _ => None,
            });
            let whys: Vec<&str> = whys.collect();
            let [why] = whys.as_slice() else { panic!("{:?}", found.strays) };
            assert!(why.contains(&format!("segment {number} is missing")), "{why}");
            assert!(why.contains(&format!("point {} cannot be restored", point(2))), "{why}");
        }
    }
}

#[test]
fn images_are_copied_and_moved_without_the_key_and_merged_with_it() {
    for (mode, features) in [(Mode::Sealed, 0), (Mode::Authenticated, Features::PARITY)] {
        let (storage, to) = (chain(mode, features), MemStorage::new());
        let set = set_of(&storage, &Keys::none());
        copy_set(&storage, &set, &to, &mut ids(0xc0), Job::silent()).unwrap();
        assert_eq!(to.names(), storage.names());
        for name in to.names() {
            assert!(to.contents(&name) == storage.contents(&name), "{name}");
        }
        reads_as_ever(&to);
        let moved = MemStorage::new();
        let set = set_of(&to, &Keys::none());
        let report =
            move_set(&to, &set, &moved, Duration::ZERO, &mut ids(0xc1), Job::silent()).unwrap();
        assert_eq!((report.left.len(), to.names()), (0, vec![]));
        reads_as_ever(&moved);
        // Merged as it was: split, with parity.
        let set = set_of(&moved, &keys());
        let keep = keep(1, &[]);
        let plan = aiv_chain::ConsolidationPlan::new(&moved, &set, &keep, Job::silent()).unwrap();
        let report = plan.apply(&moved, &options(), &mut ids(0xa0), Job::silent()).unwrap();
        let merged = &report.merged[0];
        // The last segment with parity is larger, and what is merged goes by the largest.
        assert!(merged.segments >= 2 || features != 0);
        let view = View::open_keyed(&moved, &merged.file, &keys(), Job::silent()).unwrap();
        assert!(read_all(&view) == disk(3));
        let kept = view.image().superblock().features.incompat;
        assert_eq!(kept & (Features::SPLIT | Features::PARITY), Features::SPLIT | features);
        verified(&moved);
        let (set, archived) = (set_of(&moved, &keys()), MemStorage::new());
        let how = crate::sealed_merges::plainly();
        let newest = set.point(point(3)).unwrap();
        let done = archive(&moved, &set, newest, &archived, how, &mut ids(0xb0), Job::silent());
        assert!(done.unwrap().segments >= 2 || features != 0);
        verified(&archived);
    }
}

#[test]
fn a_change_of_key_slots_reaches_the_first_and_the_last_segment_and_nothing_else() {
    for features in [0, Features::PARITY] {
        let storage = chain(Mode::Sealed, features);
        let names = storage.names();
        let before: Vec<_> = names.iter().map(|name| storage.contents(name).unwrap()).collect();
        let report = change(&storage, "new").unwrap();
        assert_eq!(report.changed, ["1.aiv", "2.aiv", "3.aiv"]);
        assert_eq!(report.unchanged, []);
        assert_eq!(opens(&storage, "old", "new"), [Some(true); 3]);
        let gap = if features == 0 { 69_632 } else { 266_240 };
        for (number, (name, before)) in names.iter().zip(before).enumerate() {
            let after = storage.contents(name).unwrap();
            let is_last = names.get(number + 1).is_none_or(|next| !next.contains(".p0"));
            let mut expected = before.to_vec();
            let bytes = report.area.to_bytes();
            let mut put = |at: usize| expected[at..at + SlotCopy::SIZE].copy_from_slice(&bytes);
            if !name.contains(".p0") {
                put(4096);
            }
            if is_last {
                put(before.len() - gap - 4096);
            }
            assert!(*after == expected, "{name}");
        }
        reads_as_ever(&storage);
    }
}

#[test]
fn a_crash_at_any_operation_leaves_a_working_way_into_split_images() {
    let states = crashes_in(&two(), |crash| crash).unwrap();
    assert!(states > 300, "{states}");
}

/// The copy in the last segment is not durable when the other one is begun.
struct NoSyncInLast(CrashStorage);

impl Storage for NoSyncInLast {
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        let opened = self.0.open_slots(name)?;
        Ok(if name.contains(".p0") { Box::new(Unsynced(opened)) } else { opened })
    }
    pass_on!(0: create, open, publish, remove, list, sync_dir, lease);
}

#[test]
fn without_the_sync_of_the_last_segment_the_crash_test_is_red() {
    let why = crashes_in(&two(), NoSyncInLast).expect_err("the planted bug was not seen");
    assert!(why.contains("no way in"), "{why}");
}

#[test]
fn a_fault_anywhere_leaves_a_way_into_split_images_and_claims_no_change_that_is_not_there() {
    let images = two();
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds] {
        let mut fired = 0;
        for at in 0.. {
            let storage = FaultStorage::failing(images.fork(), FaultPlan::once(at, fault));
            let result = change(&storage, "new");
            if !storage.fired() {
                assert_eq!(result.unwrap().changed.len(), 2);
                break;
            }
            fired += 1;
            let left = opens(storage.inner(), "old", "new");
            assert!(left.iter().all(Option::is_some), "{fault:?} {at}: no way in");
            if let Ok(report) = result {
                for (number, state) in (1..).zip(&left) {
                    let claimed = report.changed.contains(&format!("{number}.aiv"));
                    assert!(!claimed || *state == Some(true), "{fault:?} {at}: claimed");
                }
            }
        }
        assert!(fired >= 2, "{fault:?}");
    }
}

/// A storage in which the last segments may only be read.
struct ReadOnlyLast(MemStorage);

impl Storage for ReadOnlyLast {
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        match name.contains("1.aiv.p0") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => self.0.open_slots(name),
        }
    }
    pass_on!(0: create, open, publish, remove, list, sync_dir, lease);
}

#[test]
fn an_image_one_segment_of_which_may_only_be_read_keeps_its_slots_in_both() {
    let storage = ReadOnlyLast(two());
    let before = storage.0.contents("1.aiv").unwrap();
    let report = change(&storage, "new").unwrap();
    assert_eq!(report.changed, ["2.aiv"]);
    assert_eq!(report.unchanged.len(), 1);
    assert!(storage.0.contents("1.aiv").unwrap() == before);
    assert_eq!(opens(&storage.0, "old", "new"), [Some(false), Some(true)]);
}

#[test]
fn segments_whose_names_mean_nothing_are_changed_all_the_same() {
    let storage = two();
    for (number, name) in storage.names().into_iter().enumerate() {
        let bytes = storage.contents(&name).unwrap();
        storage.remove(&name).unwrap();
        storage.insert(&format!("some/where-{number}"), bytes.to_vec());
    }
    assert_eq!(change(&storage, "new").unwrap().changed.len(), 2);
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 2]);
    verified(&storage);
}

#[test]
fn keyed_images_of_which_a_segment_is_missing_are_in_doubt() {
    let storage = two();
    let names: Vec<String> = storage.names();
    for gone in names.iter().filter(|name| name.starts_with("1.")) {
        let folder = storage.fork();
        folder.remove(gone).unwrap();
        let found = keyed_chains(&folder, Job::silent()).unwrap();
        assert_eq!(found.chains.iter().map(|chain| chain.files.len()).sum::<usize>(), 1);
        assert!(!found.unsure.is_empty(), "{gone} is missing, and nobody says so");
        assert!(found.unsure.iter().all(|(file, _)| file.starts_with("1.")), "{:?}", found.unsure);
    }
    let found = keyed_chains(&storage, Job::silent()).unwrap();
    assert_eq!(found.unsure, []);
}

#[test]
fn a_second_file_of_a_last_segment_which_no_change_comes_to_is_in_doubt() {
    let storage = two();
    let last_of = |storage: &MemStorage| {
        let name = storage.names().into_iter().rfind(|name| name.starts_with("1.aiv")).unwrap();
        storage.contents(&name).unwrap()
    };
    let last = last_of(&storage);
    storage.insert("kept", last.to_vec());
    assert_eq!(change(&storage, "new").unwrap().changed.len(), 2);
    assert!(storage.contents("kept").unwrap() == last, "it has the slots of before");
    let unsure = keyed_chains(&storage, Job::silent()).unwrap().unsure;
    assert_eq!(unsure.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>(), ["kept"]);
    // One whose key is kept elsewhere has no slots in any segment.
    let without = MemStorage::new();
    let seal = Some(Seal::new(key(), 1));
    Step { seal, ..step(1, Mode::Sealed) }.write(&without, "1.aiv", None);
    without.insert("kept", last_of(&without).to_vec());
    let found = keyed_chains(&without, Job::silent()).unwrap();
    assert_eq!((found.chains.len(), found.unsure), (1, Vec::new()));
    // Beside second files of all others it is of a second image, and changed.
    storage.remove("kept").unwrap();
    for name in storage.names().iter().filter(|name| name.starts_with("1.aiv")) {
        let bytes = storage.contents(name).unwrap().to_vec();
        storage.insert(&name.replace("1.aiv", "again.aiv"), bytes);
    }
    assert_eq!(keyed_chains(&storage, Job::silent()).unwrap().unsure, []);
    assert_eq!(change(&storage, "newer").unwrap().changed.len(), 3);
}

#[test]
fn a_damaged_copy_of_the_slots_is_made_up_for_and_mended_by_the_next_change() {
    let storage = two();
    for (name, at) in [("1.aiv", 4096 + 1500), ("1.aiv", 4096)] {
        let mut bytes = storage.contents(name).unwrap().to_vec();
        bytes[at] ^= 1;
        storage.insert(name, bytes);
    }
    assert_eq!(opens(&storage, "old", "new"), [Some(false); 2]);
    change(&storage, "new").unwrap();
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 2]);
    verified(&storage);
    let image = View::open_keyed(&storage, "1.aiv", &keys(), Job::silent()).unwrap();
    let copies = Image::slot_copies(image.image()).unwrap().unwrap();
    for copy in copies {
        let area = KeyArea::parse(&copy).unwrap();
        assert!(KeyArea::open_any(&[area], &passphrase("new"), &mut Work::new()).is_ok());
    }
}

#[test]
fn a_change_works_on_a_disk_as_it_does_in_memory() {
    let images = two();
    let dir = tempfile::tempdir().unwrap();
    for name in images.names() {
        std::fs::write(dir.path().join(&name), &*images.contents(&name).unwrap()).unwrap();
    }
    let storage = DirStorage::open(dir.path()).unwrap();
    assert_eq!(change(&storage, "new").unwrap().changed.len(), 2);
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 2]);
    assert!(checked(&storage, &keys()).iter().all(Checked::is_sound));
    assert!(images.names().iter().all(|name| !name.ends_with(MERGE_PART)));
}

#[test]
fn the_key_of_an_unfinished_split_image_is_found_however_many_segments_it_has() {
    let (whole, storage) = (two(), MemStorage::new());
    let (first, second) = (whole.contents("1.aiv").unwrap(), whole.contents("1.aiv.p002").unwrap());
    storage.insert("1.aiv.part", first.to_vec());
    // Their names sort before that of the first, and none of them has key slots.
    for no in 2..=120 {
        storage.insert(&format!("1.aiv.p{no:03}.part"), second.to_vec());
    }
    let found = unfinished_chains(&storage, Job::silent()).unwrap();
    let files: Vec<_> = found.iter().flat_map(|chain| &chain.files).map(|it| &it.file).collect();
    assert_eq!(files, ["1.aiv.part"]);
}
