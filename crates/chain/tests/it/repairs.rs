//! Damaged images made whole in another folder: published when every byte is proven, or not.

use std::io;

use aiv_chain::{Error, Folder, MERGE_PART, MergeOptions, Repaired, Result, archive, repair};
use aiv_image_format::{Compression, Depth, Features, Image, Keys};
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage, Op};
use aiv_volume_io::{AppendFile, FileEntry, Job, Storage};

use crate::common::{BLOCK, Spec};
use crate::consolidate::ids;
use crate::merge_crashes::check_states;
use crate::wrappers::{Forgetful, pass_on};

const PIECE: usize = 64 << 10;

fn spec(features: u64) -> Spec {
    Spec { bytes: Content::Random(9).bytes(30 * BLOCK + 512), features, ..Spec::new(1, 1) }
}

/// A folder with `sub/a.aiv`.
fn folder(features: u64) -> MemStorage {
    let storage = MemStorage::new();
    spec(features).write(&storage, "sub/a.aiv");
    storage
}

/// Destroys pieces of `sub/a.aiv`; returns what the file was.
fn destroy(storage: &MemStorage, pieces: std::ops::Range<usize>) -> Vec<u8> {
    let good = storage.contents("sub/a.aiv").unwrap().to_vec();
    let mut bytes = good.clone();
    bytes[pieces.start * PIECE..pieces.end * PIECE].fill(0x55);
    storage.insert("sub/a.aiv", bytes);
    good
}

fn repaired(from: &MemStorage, copies: &[&dyn Storage], to: &dyn Storage) -> Result<Repaired> {
    repair(from, "sub/a.aiv", copies, to, &Keys::none(), Job::silent())
}

#[test]
fn a_damaged_image_is_made_whole_in_another_folder_and_stays_as_it_is_in_its_own() {
    let (from, to) = (folder(Features::PARITY), MemStorage::new());
    let good = destroy(&from, 1..4);
    let damaged = from.contents("sub/a.aiv").unwrap();
    let done = repaired(&from, &[], &to).unwrap();
    assert_eq!(done.file.as_deref(), Some("a.aiv"));
    assert_eq!((done.report.pieces_by_parity, done.bytes), (3, good.len() as u64));
    assert_eq!(to.names(), ["a.aiv"]);
    assert!(*to.contents("a.aiv").unwrap() == good);
    assert!(*from.contents("sub/a.aiv").unwrap() == *damaged);
    assert_eq!(from.names(), ["sub/a.aiv"]);
    let image = Image::open(to.open("a.aiv").unwrap()).unwrap();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn nothing_is_published_for_a_sound_image_nor_for_one_that_stays_incomplete() {
    let (from, to) = (folder(Features::PARITY), MemStorage::new());
    let done = repaired(&from, &[], &to).unwrap();
    assert!(done.file.is_none() && done.report.is_sound());
    destroy(&from, 0..5);
    let done = repaired(&from, &[], &to).unwrap();
    assert!(done.file.is_none() && !done.report.is_complete());
    assert!(done.report.pieces_lost == 5 && !done.report.lost_blocks.is_empty(), "{done:?}");
    assert!(to.names().is_empty());
}

#[test]
fn of_a_file_without_trailers_nothing_can_be_told_and_that_is_no_error() {
    let (from, to) = (folder(Features::PARITY), MemStorage::new());
    let mut bytes = from.contents("sub/a.aiv").unwrap().to_vec();
    bytes.truncate(bytes.len() - PIECE);
    from.insert("sub/a.aiv", bytes);
    let done = repaired(&from, &[], &to).unwrap();
    assert!(done.beyond.is_some() && done.file.is_none(), "{done:?}");
    assert!(to.names().is_empty());
}

#[test]
fn another_folder_with_the_same_image_helps_and_one_with_other_images_does_not() {
    for features in [0, Features::PARITY] {
        let (from, copy, to) = (folder(features), MemStorage::new(), MemStorage::new());
        let good = destroy(&from, 0..6);
        // Another image of the same length and set.
        let other = Spec { point: aiv_image_format::PointId([7; 16]), ..spec(features) };
        other.write(&copy, "other.aiv");
        assert!(repaired(&from, &[&copy], &to).unwrap().file.is_none());
        // A copy under another name, itself damaged elsewhere.
        let mut bytes = good.clone();
        bytes[6 * PIECE + 5] ^= 1;
        copy.insert("moved/b.aiv", bytes);
        let done = repaired(&from, &[&copy], &to).unwrap();
        assert!(done.report.pieces_from_copies >= 5, "{done:?}");
        assert!(*to.contents("a.aiv").unwrap() == good);
    }
}

#[test]
fn a_file_of_the_same_name_is_never_replaced() {
    let (from, to) = (folder(Features::PARITY), MemStorage::new());
    destroy(&from, 1..2);
    to.insert("a.aiv", b"somebody else's".to_vec());
    let done = repaired(&from, &[], &to).unwrap();
    assert!(done.is_taken && done.file.is_none(), "{done:?}");
    assert_eq!(*to.contents("a.aiv").unwrap(), b"somebody else's");
    assert_eq!(to.names(), ["a.aiv"]);
    // In the folder of the damaged file itself.
    let same = from.contents("sub/a.aiv").unwrap();
    from.insert("a.aiv", same.to_vec());
    let done = repair(&from, "a.aiv", &[], &from, &Keys::none(), Job::silent()).unwrap();
    assert!(done.is_taken && done.file.is_none(), "{done:?}");
    assert!(*from.contents("a.aiv").unwrap() == *same);
}

/// A folder that does not list what it has: as one where a file appears meanwhile.
struct Unlisted(MemStorage);

impl Storage for Unlisted {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        Ok(Vec::new())
    }
    pass_on!(0: create, open, publish, remove, sync_dir, lease);
}

#[test]
fn a_file_that_appears_under_the_name_meanwhile_is_not_replaced_either() {
    let (from, to) = (folder(Features::PARITY), MemStorage::new());
    destroy(&from, 1..2);
    to.insert("a.aiv", b"somebody else's".to_vec());
    let done = repaired(&from, &[], &Unlisted(to.clone())).unwrap();
    assert!(done.is_taken && done.file.is_none() && done.report.pieces_by_parity == 1, "{done:?}");
    assert_eq!(*to.contents("a.aiv").unwrap(), b"somebody else's");
    assert_eq!(to.names(), ["a.aiv"]);
}

#[test]
fn no_fault_while_an_image_is_repaired_gives_false_success_or_a_wrong_file() {
    let from = folder(Features::PARITY);
    let good = destroy(&from, 1..3);
    for fault in Fault::ALL {
        let mut fired = 0;
        let mut at = 0;
        loop {
            let to = FaultStorage::failing(MemStorage::new(), FaultPlan::once(at, fault));
            let done = repaired(&from, &[], &to);
            let trace = to.trace();
            let Some(hit) = trace.iter().find(|operation| operation.failed) else { break };
            fired += 1;
            let what = format!("{fault:?} at {hit:?}: {done:?}");
            let file = to.inner().contents("a.aiv");
            if let Some(file) = &file {
                assert!(**file == good, "{what}");
            }
            match &done {
                Ok(done) => assert!(done.file.is_some() && file.is_some(), "{what}"),
                Err(_) => assert!(!fault.is_harmless(), "{what}"),
            }
            if fault == Fault::SyncFailsThenSucceeds {
                assert!(done.is_err(), "a failed sync was taken for success: {what}");
            }
            // After healing.
            if file.is_none() {
                repaired(&from, &[], to.inner()).unwrap();
            }
            assert!(*to.inner().contents("a.aiv").unwrap() == good, "{what}");
            let parts = to.inner().names().into_iter().filter(|name| name.ends_with(MERGE_PART));
            assert_eq!(parts.count(), 0, "{what}");
            at += if hit.op == Op::Read { 7 } else { 1 };
        }
        assert!(fired > 0, "{fault:?} hit nothing");
    }
}

#[test]
fn a_full_image_made_of_one_with_parity_has_parity_of_its_own_and_any_can_ask_for_it() {
    for features in [0, Features::PARITY] {
        let from = folder(features);
        let folder = Folder::scan(&from, Job::silent()).unwrap();
        let set = &folder.sets[0];
        let point = &set.points[0];
        for parity in [false, true] {
            let to = MemStorage::new();
            let how = MergeOptions { compression: Compression::Lz4, parity, split: None };
            let report = archive(&from, set, point, &to, how, &mut ids(3), Job::silent()).unwrap();
            let image = Image::open(to.open(&report.file).unwrap()).unwrap();
            let expected = if parity { Features::PARITY } else { features };
            assert_eq!(image.superblock().features.incompat, expected);
            assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
        }
    }
}

/// Every state a power cut may leave of a repair into `storage`, which records in `crash`.
fn check_crashes(
    crash: &CrashStorage,
    storage: &dyn Storage,
) -> std::result::Result<usize, String> {
    let from = folder(Features::PARITY);
    let good = destroy(&from, 1..3);
    repaired(&from, &[], storage).unwrap();
    crash.mark("repaired");
    check_states(crash.crash_states(1, 60), |state| match state.storage.contents("a.aiv") {
        Some(file) if *file != good => Err("another file under the final name".to_owned()),
        None if !state.acknowledged.is_empty() => Err("the repaired file is lost".to_owned()),
        _ => Ok(()),
    })
}

#[test]
fn a_power_cut_during_a_repair_leaves_the_whole_file_or_none() {
    let crash = CrashStorage::new();
    let count = check_crashes(&crash, &crash.clone()).unwrap();
    assert!(count > 500, "{count}");
}

/// A folder that says its files are durable, and does nothing for it.
pub(crate) struct NeverSynced<S>(pub(crate) S);

struct NeverSyncedFile(Box<dyn AppendFile>);

impl AppendFile for NeverSyncedFile {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.append(data)
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Storage> Storage for NeverSynced<S> {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(NeverSyncedFile(self.0.create(name)?)))
    }
    pass_on!(0: open, publish, remove, list, sync_dir, lease);
}

#[test]
fn a_repair_without_a_sync_would_be_caught() {
    let crash = CrashStorage::new();
    let found = check_crashes(&crash, &NeverSynced(crash.clone()));
    assert!(found.is_err(), "{found:?}");
}

#[test]
fn a_folder_that_keeps_other_bytes_gets_no_repaired_file() {
    let from = folder(Features::PARITY);
    destroy(&from, 1..3);
    let to = MemStorage::new();
    let error = repaired(&from, &[], &Forgetful(to.clone())).unwrap_err();
    assert!(matches!(error, Error::ReadBack { .. }), "{error}");
    assert!(to.names().is_empty());
}
