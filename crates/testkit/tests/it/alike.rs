//! What all storages must do alike, asked of each stand-in: a scenario that works on one of
//! them must mean the same on a real folder.

use std::io;

use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{AppendFile, CATALOGUE_NAME, DirStorage, Storage};

/// Asks the question of a real folder and of everything that stands in for one.
fn of_each(question: impl Fn(&dyn Storage)) {
    let folder = tempfile::tempdir().unwrap();
    question(&DirStorage::open(folder.path()).unwrap());
    question(&MemStorage::new());
    question(&FaultStorage::new(MemStorage::new()));
    question(&CrashStorage::new());
}

fn put(storage: &dyn Storage, name: &str, bytes: &[u8]) {
    let mut file = storage.create(name).unwrap();
    file.append_all(bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn what_is_appended_from_a_file_is_what_was_read_from_it() {
    of_each(|storage| {
        let all: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        put(storage, "a", &all);
        let source = storage.open("a").unwrap();
        let mut file = storage.create("b").unwrap();
        file.append_from(&source, 4096, &all[4096..100_000]).unwrap();
        file.append_from(&source, 1, &all[1..10]).unwrap();
        file.sync().unwrap();
        let copy = storage.open("b").unwrap();
        let mut back = vec![0; usize::try_from(copy.len()).unwrap()];
        copy.read_exact_at(&mut back, 0).unwrap();
        assert!(back == [&all[4096..100_000], &all[1..10]].concat());
    });
}

#[test]
fn what_is_appended_from_a_file_can_be_lost_and_fail_like_any_append() {
    let storage = CrashStorage::new();
    put(&storage, "a", b"data");
    let source = storage.open("a").unwrap();
    storage.create("b").unwrap().append_from(&source, 0, b"data").unwrap();
    storage.sync_dir().unwrap();
    let last = storage.history_len();
    let mut states = storage.all_crash_states().filter(|state| state.prefix == last);
    assert!(states.any(|state| state.storage.contents("b").unwrap().is_empty()));

    let plan = FaultPlan::once(1, Fault::Enospc);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    let mut file = storage.create("b").unwrap();
    file.append_from(&source, 0, b"data").unwrap_err();
    assert!(storage.fired());
}

#[test]
fn every_acquisition_of_a_lease_has_a_larger_token() {
    of_each(|storage| {
        let first = storage.lease("set").unwrap();
        let other = storage.lease("other").unwrap();
        assert_eq!((first.token(), other.token()), (1, 1));
        first.check().unwrap();
        drop(first);
        let second = storage.lease("set").unwrap();
        assert_eq!(second.token(), 2);
        second.check().unwrap();
        other.check().unwrap();
        assert!(storage.list().unwrap().is_empty(), "leases are no files");
    });
}

#[test]
fn neither_a_crash_nor_a_copy_takes_a_token_back() {
    let storage = CrashStorage::new();
    let token = storage.lease("set").unwrap().token();
    storage.create("a").unwrap();
    for state in storage.all_crash_states().chain(storage.crash_states(1, 2)) {
        assert!(state.storage.lease("set").unwrap().token() > token, "{state}");
        let copy = state.storage.fork();
        assert!(copy.lease("set").unwrap().token() > token + 1, "{state}");
    }
}

/// Longer than the clock of a local filesystem takes to tick.
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

#[test]
fn a_catalogue_is_opened_and_published_but_never_listed() {
    of_each(|storage| {
        put(storage, "a", b"");
        put(storage, &format!("{CATALOGUE_NAME}.part"), b"12");
        put(storage, "sub/.aiv-catalogue", b"");
        storage.publish(".aiv-catalogue.part", CATALOGUE_NAME).unwrap();
        put(storage, &format!("{CATALOGUE_NAME}.part"), b"");
        let listed: Vec<_> = storage.list().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(listed, ["a"]);
        assert_eq!(storage.open(CATALOGUE_NAME).unwrap().len(), 2);
        storage.remove(CATALOGUE_NAME).unwrap();
        storage.open(CATALOGUE_NAME).err().unwrap();
    });
}

#[test]
fn a_stamp_stays_while_a_file_stays_and_changes_with_it() {
    of_each(|storage| {
        let entry = || storage.list().unwrap().remove(0);
        put(storage, "a", b"12");
        let made = entry();
        assert!(made.stamp != 0 && made == entry());
        pause();
        storage.publish("a", "b").unwrap();
        let published = entry();
        storage.remove("b").unwrap();
        pause();
        put(storage, "b", b"21");
        let replaced = entry();
        assert_eq!((&replaced.name, replaced.len), (&published.name, published.len));
        assert!(made.stamp != published.stamp && published.stamp != replaced.stamp);
    });
}

#[test]
fn a_stamp_changes_when_a_file_grows() {
    of_each(|storage| {
        let mut file = storage.create("a").unwrap();
        let stamp = || storage.list().unwrap()[0].stamp;
        let empty = stamp();
        pause();
        file.append_all(b"1").unwrap();
        assert_ne!(empty, stamp());
    });
}

#[test]
fn the_free_bytes_a_test_sets_are_seen_through_every_wrapper() {
    let memory = MemStorage::new();
    assert_eq!(memory.free_bytes().unwrap(), None);
    memory.set_free_bytes(Some(7));
    assert_eq!(FaultStorage::new(memory.clone()).free_bytes().unwrap(), Some(7));
    assert_eq!(CrashStorage::starting_from(&memory).free_bytes().unwrap(), Some(7));
    memory.set_free_bytes(None);
    assert_eq!(memory.free_bytes().unwrap(), None);
}

#[test]
fn a_file_that_a_crash_left_whole_keeps_its_stamp_and_a_torn_one_does_not() {
    let storage = CrashStorage::new();
    let mut file = storage.create("a").unwrap();
    storage.sync_dir().unwrap();
    file.append_all(&[7; 600]).unwrap();
    let (live, last) = (storage.list().unwrap(), storage.history_len());
    for state in storage.all_crash_states().filter(|state| state.prefix == last) {
        let whole = *state.storage.contents("a").unwrap() == [7; 600];
        assert_eq!(state.storage.list().unwrap()[0].stamp == live[0].stamp, whole, "{state}");
    }
}

#[test]
fn a_catalogue_survives_a_crash_once_it_is_durable() {
    let storage = CrashStorage::new();
    put(&storage, CATALOGUE_NAME, b"12");
    storage.sync_dir().unwrap();
    storage.mark("durable");
    let durable = storage.all_crash_states().filter(|state| !state.acknowledged.is_empty());
    for state in durable {
        assert_eq!(*state.storage.contents(CATALOGUE_NAME).unwrap(), b"12", "{state}");
        let again = CrashStorage::starting_from(&state.storage);
        assert_eq!(again.open(CATALOGUE_NAME).unwrap().len(), 2, "{state}");
    }
}

#[test]
fn an_unfinished_file_is_cut_and_goes_on_and_no_other_file_is_touched() {
    of_each(|storage| {
        let kind = |result: io::Result<Box<dyn AppendFile>>| result.err().unwrap().kind();
        put(storage, "a.part", b"0123456789");
        put(storage, "b", b"published");
        let mut file = storage.reopen("a.part", 4).unwrap();
        assert_eq!(storage.open("a.part").unwrap().len(), 4, "cut before anything is appended");
        file.append_all(b"xyz").unwrap();
        let mut back = [0; 7];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(&back, b"0123xyz");
        file.sync().unwrap();
        drop(file);
        assert_eq!(kind(storage.reopen("a.part", 8)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.reopen("b", 1)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.reopen("../a.part", 1)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.reopen("c.part", 0)), io::ErrorKind::NotFound);
        assert_eq!(storage.open("b").unwrap().len(), 9);
        // And as a whole, and again.
        storage.reopen("a.part", 7).unwrap().append_all(b"!").unwrap();
        let open = storage.open("a.part").unwrap();
        let mut all = vec![0; usize::try_from(open.len()).unwrap()];
        open.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, b"0123xyz!");
        storage.publish("a.part", "a").unwrap();
        assert_eq!(kind(storage.reopen("a", 0)), io::ErrorKind::InvalidInput);
    });
}
