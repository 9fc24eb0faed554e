//! Key slots of a chain, changed in all of its images: whole at every moment, and nowhere else.

use std::io;
use std::time::Duration;

use aiv_chain::{Error, KeyedChain, change_slots, keyed_chains};
use aiv_image_format::{ChainKey, Mode, Seal};
use aiv_keys::{Cost, Credential, KeyArea, NewSlot, Passphrase, Way, Work};
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Cancel, DirStorage, Job, SlotCopy, SlotFile, Storage};

use crate::common::Spec;
use crate::wrappers::pass_on;

pub(crate) fn key() -> ChainKey {
    ChainKey::new([0x42; 32])
}

pub(crate) fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Passphrase::new(text).unwrap())
}

/// Slots that this passphrase opens; made by the owner of the key.
pub(crate) fn area(text: &str) -> KeyArea {
    let passphrase = Passphrase::new(text).unwrap();
    let way = Way::Passphrase(&passphrase, Cost::new(8, 1, 1).unwrap());
    let new = NewSlot { way, label: text, created_unix_ms: 0, random: &[7; NewSlot::RANDOM] };
    KeyArea::new(&key(), &new).unwrap()
}

/// The passphrase of slot 1 is another one.
pub(crate) fn to(text: &str) -> impl Fn(&KeyArea) -> aiv_keys::Result<KeyArea> + '_ {
    move |area| {
        let passphrase = Passphrase::new(text)?;
        let way = Way::Passphrase(&passphrase, Cost::new(8, 1, 1)?);
        let new = NewSlot { way, label: text, created_unix_ms: 0, random: &[8; NewSlot::RANDOM] };
        area.change(&key(), 1, &new)
    }
}

fn image(storage: &dyn Storage, point: u8, mode: Mode) {
    let slots = Some(area("old").to_bytes().into_boxed_slice());
    let seal = Seal { mode, slots, ..Seal::new(key(), 1) };
    let spec = Spec::new(1, point);
    spec.write_keyed(storage, &format!("{point}.aiv"), [None, None, None, None], Some(seal));
}

/// Images with a key, and one without.
pub(crate) fn folder(images: u8) -> MemStorage {
    let storage = MemStorage::new();
    for point in 1..=images {
        image(&storage, point, if point == 2 { Mode::Authenticated } else { Mode::Sealed });
    }
    Spec::new(2, 0x77).write(&storage, "plain.aiv");
    storage
}

pub(crate) fn chain(storage: &dyn Storage) -> KeyedChain {
    let mut found = keyed_chains(storage, Job::silent()).unwrap();
    assert_eq!((found.chains.len(), found.unsure.len()), (1, 0));
    found.chains.remove(0)
}

pub(crate) fn change(
    storage: &dyn Storage,
    text: &str,
) -> aiv_chain::Result<aiv_chain::SlotReport> {
    change_slots(storage, &key(), &to(text), Job::silent())
}

/// Which of two passphrases opens each image by itself, tried on its sound copies.
pub(crate) fn opens(storage: &dyn Storage, old: &str, new: &str) -> Vec<Option<bool>> {
    let opens = |file: &aiv_chain::KeyedFile, text: &str| {
        KeyArea::open_any(&file.areas, &passphrase(text), &mut Work::new()).is_ok()
    };
    let state = |file: &aiv_chain::KeyedFile| match (opens(file, old), opens(file, new)) {
        (_, true) => Some(true),
        (true, false) => Some(false),
        (false, false) => None,
    };
    chain(storage).files.iter().map(state).collect()
}

#[test]
fn a_change_reaches_every_image_and_nothing_but_their_slots() {
    let storage = folder(3);
    let before: Vec<_> = storage.names().iter().map(|n| storage.contents(n).unwrap()).collect();
    let report = change(&storage, "new").unwrap();
    assert_eq!(report.changed, ["1.aiv", "2.aiv", "3.aiv"]);
    assert!(report.unchanged.is_empty());
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 3]);
    let chain = chain(&storage);
    assert!(chain.open(&passphrase("old"), &mut Work::new()).is_err());
    assert_eq!(chain.open(&passphrase("new"), &mut Work::new()).unwrap().key, key());
    for (name, before) in storage.names().iter().zip(before) {
        let after = storage.contents(name).unwrap();
        let differs = |(at, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(at);
        let bytes: Vec<usize> =
            before.iter().zip(&*after).enumerate().filter_map(differs).collect();
        let second = before.len() - 69_632 - 4096;
        let is_slot = |at: &usize| {
            [4096, second].iter().any(|from| (*from..*from + SlotCopy::SIZE).contains(at))
        };
        assert!(bytes.iter().all(is_slot), "{name}");
        assert_eq!(bytes.is_empty(), name == "plain.aiv");
    }
}

#[test]
fn images_that_a_change_did_not_reach_are_opened_through_the_others_and_caught_up_with() {
    let storage = folder(3);
    let old = storage.contents("3.aiv").unwrap();
    change(&storage, "new").unwrap();
    // Back from an archive.
    storage.insert("3.aiv", old);
    assert_eq!(opens(&storage, "old", "new"), [Some(true), Some(true), Some(false)]);
    let found = chain(&storage);
    let generations: Vec<u64> = found.areas().iter().map(KeyArea::generation).collect();
    assert_eq!(generations, [2, 1]);
    for text in ["old", "new"] {
        assert_eq!(found.open(&passphrase(text), &mut Work::new()).unwrap().key, key());
    }
    let report = change(&storage, "newest").unwrap();
    assert_eq!((report.area.generation(), report.changed.len()), (3, 3));
    assert_eq!(opens(&storage, "new", "newest"), [Some(true); 3]);
}

#[test]
fn a_damaged_copy_is_made_up_for_and_mended_by_the_next_change() {
    let storage = folder(2);
    let mut bytes = storage.contents("1.aiv").unwrap().to_vec();
    bytes[4096 + 1500] ^= 1;
    storage.insert("1.aiv", bytes.clone());
    assert_eq!(opens(&storage, "old", "new"), [Some(false); 2]);
    let second = bytes.len() - 69_632 - 4096;
    bytes[second + 1500] ^= 1;
    storage.insert("1.aiv", bytes);
    let found = chain(&storage);
    assert!(found.files[0].areas.is_empty() && found.files[0].damage.is_some());
    change(&storage, "new").unwrap();
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 2]);
    assert!(chain(&storage).files[0].damage.is_none());
}

#[test]
fn nobody_changes_slots_while_a_backup_or_a_merge_writes_images() {
    let storage = folder(1);
    let set = chain(&storage).files[0].set;
    for name in [format!("set-{set}"), format!("merge-{set}")] {
        let lease = storage.lease(&name).unwrap();
        assert!(matches!(change(&storage, "new"), Err(Error::Busy { .. })));
        drop(lease);
    }
    assert_eq!(opens(&storage, "old", "new"), [Some(false)]);
    change(&storage, "new").unwrap();
}

#[test]
fn whoever_has_another_key_changes_nothing() {
    let storage = folder(2);
    let before = storage.contents("1.aiv").unwrap();
    let stranger = ChainKey::new([1; 32]);
    let changed = change_slots(&storage, &stranger, &|area| Ok(area.clone()), Job::silent());
    assert!(matches!(changed, Err(Error::Changed { .. })), "{changed:?}");
    let refused = change_slots(&storage, &key(), &|area| area.remove(&key(), 1), Job::silent());
    assert!(matches!(refused, Err(Error::Key(aiv_keys::Error::LastSlot(1)))), "{refused:?}");
    assert_eq!(storage.contents("1.aiv").unwrap(), before);
}

#[test]
fn files_that_cannot_be_written_are_named_and_keep_their_old_slots() {
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds, Fault::ShortRead] {
        let mut fired = 0;
        for at in 0.. {
            let storage = FaultStorage::failing(folder(2), FaultPlan::once(at, fault));
            let result = change(&storage, "new");
            if !storage.fired() {
                assert_eq!(result.unwrap().changed.len(), 2);
                break;
            }
            fired += 1;
            let left = opens(storage.inner(), "old", "new");
            assert!(left.iter().all(Option::is_some), "{fault:?} {at}: no way in");
            // A file that could not be looked into is not known to belong to the chain.
            if let Ok(report) = result {
                let claimed = |n: usize| report.changed.contains(&format!("{}.aiv", n + 1));
                for (n, state) in left.iter().enumerate() {
                    assert!(!claimed(n) || *state == Some(true), "{fault:?} {at}: claimed");
                }
            }
        }
        assert!(fired >= 2, "{fault:?}");
    }
}

/// A storage whose user presses the stop button when slots are opened for the first time.
struct StoppedAtFirst<'a>(MemStorage, &'a Cancel);

impl Storage for StoppedAtFirst<'_> {
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        self.1.cancel();
        self.0.open_slots(name)
    }
    pass_on!(0: create, open, publish, remove, list, sync_dir, lease);
}

#[test]
fn a_change_that_is_stopped_tells_which_images_have_it() {
    let cancel = Cancel::new();
    let storage = StoppedAtFirst(folder(3), &cancel);
    let job = Job::new(Job::silent().progress, &cancel);
    let report = change_slots(&storage, &key(), &to("new"), job).unwrap();
    assert!(report.canceled);
    assert_eq!(report.changed, ["1.aiv"]);
    let unchanged: Vec<&str> = report.unchanged.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(unchanged, ["2.aiv", "3.aiv"]);
    assert_eq!(opens(&storage.0, "old", "new"), [Some(true), Some(false), Some(false)]);
    let error = change_slots(&storage.0, &key(), &to("newer"), job).unwrap_err();
    assert!(matches!(error, Error::Canceled(_)), "{error}");
}

/// What a change through a storage leaves after a crash at any operation: how many states, or
/// what is wrong with one.
fn crashes<S: Storage>(wrap: impl FnOnce(CrashStorage) -> S) -> Result<usize, String> {
    crashes_in(&folder(2), wrap)
}

/// The same in a folder of two images.
pub(crate) fn crashes_in<S: Storage>(
    folder: &MemStorage,
    wrap: impl FnOnce(CrashStorage) -> S,
) -> Result<usize, String> {
    let crash = CrashStorage::starting_from(folder);
    let storage = wrap(crash.clone());
    change(&storage, "new").map_err(|e| e.to_string())?;
    crash.mark("changed");
    let mut states = 0;
    for state in crash.crash_states(5, 80) {
        states += 1;
        let left = opens(&state.storage, "old", "new");
        if left.len() != 2 || left.iter().any(Option::is_none) {
            return Err(format!("no way in: {state}"));
        }
        if !state.acknowledged.is_empty() && left != [Some(true); 2] {
            return Err(format!("the old passphrase opens what was changed: {state}"));
        }
        // A crash of the recovery is one more crash; here, the change is done again.
        change(&state.storage, "newest").map_err(|e| format!("{state}: {e}"))?;
        if opens(&state.storage, "new", "newest") != [Some(true); 2] {
            return Err(format!("not changed after a crash: {state}"));
        }
    }
    Ok(states)
}

#[test]
fn a_crash_at_any_operation_leaves_a_working_way_into_every_image() {
    let states = crashes(|crash| crash).unwrap();
    assert!(states > 300, "{states}");
}

/// Syncs of key slots do nothing: the second copy is begun while the first is not durable.
struct NoSlotSync(CrashStorage);

pub(crate) struct Unsynced(pub(crate) Box<dyn SlotFile>);

impl SlotFile for Unsynced {
    fn write(&mut self, copy: SlotCopy<'_>) -> io::Result<()> {
        self.0.write(copy)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for NoSlotSync {
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        Ok(Box::new(Unsynced(self.0.open_slots(name)?)))
    }
    pass_on!(0: create, open, publish, remove, list, sync_dir, lease);
}

#[test]
fn without_the_sync_between_the_copies_the_crash_test_is_red() {
    let why = crashes(NoSlotSync).expect_err("the planted bug was not seen");
    assert!(why.contains("no way in"), "{why}");
}

/// The only sync comes after both copies.
struct LateSync(CrashStorage);

struct Late(Box<dyn SlotFile>, usize);

impl SlotFile for Late {
    fn write(&mut self, copy: SlotCopy<'_>) -> io::Result<()> {
        self.0.write(copy)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.1 += 1;
        if self.1 == 1 { Ok(()) } else { self.0.sync() }
    }
}

impl Storage for LateSync {
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        Ok(Box::new(Late(self.0.open_slots(name)?, 0)))
    }
    pass_on!(0: create, open, publish, remove, list, sync_dir, lease);
}

#[test]
fn with_one_sync_after_both_copies_the_crash_test_is_red() {
    let why = crashes(LateSync).expect_err("the planted bug was not seen");
    assert!(why.contains("no way in"), "{why}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about time")]
fn a_hundred_images_are_changed_in_less_than_five_seconds() {
    let images = folder(100);
    // In memory: every image is synced, and others may keep the disk busy.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    for name in images.names() {
        std::fs::write(dir.path().join(&name), &*images.contents(&name).unwrap()).unwrap();
    }
    let storage = DirStorage::open(dir.path()).unwrap();
    let started = std::time::Instant::now();
    let report = change(&storage, "new").unwrap();
    let took = started.elapsed();
    assert_eq!((report.changed.len(), report.unchanged.len()), (100, 0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}
