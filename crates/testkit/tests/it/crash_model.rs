//! The rules of the crash model, one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use aiv_testkit::{CrashStorage, MemStorage};
use aiv_volume_io::Storage;

fn holding(files: &[(&str, &[u8])]) -> CrashStorage {
    let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
    CrashStorage::starting_from(&files.collect())
}

/// All sets of names that a crash after the last operation may leave.
fn final_names(storage: &CrashStorage) -> BTreeSet<Vec<String>> {
    let last = storage.history_len();
    let states = storage.all_crash_states().filter(|state| state.prefix == last);
    states.map(|state| state.storage.names()).collect()
}

fn names(sets: &[&[&str]]) -> BTreeSet<Vec<String>> {
    sets.iter().map(|set| set.iter().map(|name| (*name).to_owned()).collect()).collect()
}

#[test]
fn a_file_whose_entry_was_never_synced_may_vanish_although_its_data_was() {
    let storage = CrashStorage::new();
    let mut file = storage.create("a").unwrap();
    file.append_all(b"data").unwrap();
    file.sync().unwrap();
    assert_eq!(final_names(&storage), names(&[&[], &["a"]]));
    storage.sync_dir().unwrap();
    assert_eq!(final_names(&storage), names(&[&["a"]]));
}

#[test]
fn a_durable_file_being_published_is_there_under_one_name_or_both() {
    let storage = holding(&[("a", b"1")]);
    storage.publish("a", "b").unwrap();
    assert_eq!(final_names(&storage), names(&[&["a"], &["b"], &["a", "b"]]));
}

#[test]
fn operations_on_different_files_happen_in_any_order() {
    let storage = holding(&[("old", b"1")]);
    storage.create("new").unwrap();
    storage.remove("old").unwrap();
    let expected = names(&[&[], &["new"], &["new", "old"], &["old"]]);
    assert_eq!(final_names(&storage), expected);
}

#[test]
fn a_name_given_again_is_free_of_its_first_file() {
    let storage = holding(&[("head", b"old")]);
    storage.create("tmp").unwrap().append_all(b"new").unwrap();
    storage.publish("head", "kept").unwrap();
    storage.publish("tmp", "head").unwrap();
    for state in storage.all_crash_states() {
        let holds = |name: &str| state.storage.contents(name).is_some_and(|b| *b == b"old");
        assert!(holds("head") || holds("kept"), "{state}");
    }
}

#[test]
fn nothing_is_uncertain_after_both_syncs() {
    let storage = CrashStorage::new();
    let mut file = storage.create("a").unwrap();
    file.append_all(b"data").unwrap();
    file.sync().unwrap();
    storage.sync_dir().unwrap();
    let last = storage.history_len();
    let states: Vec<_> = storage.crash_states(1, 50).filter(|s| s.prefix == last).collect();
    assert_eq!(states.len(), 1);
    assert_eq!(*states[0].storage.contents("a").unwrap(), b"data");
}

/// Contents of `a`, of which 700 bytes are synced and 1348 more are not, in all states.
fn tails() -> Vec<Arc<Vec<u8>>> {
    let storage = holding(&[]);
    let mut file = storage.create("a").unwrap();
    storage.sync_dir().unwrap();
    file.append_all(&[1; 700]).unwrap();
    file.sync().unwrap();
    file.append_all(&[2; 1348]).unwrap();
    let last = storage.history_len();
    let states = storage.all_crash_states().filter(|state| state.prefix == last);
    states.map(|state| state.storage.contents("a").unwrap()).collect()
}

#[test]
fn synced_bytes_survive_even_in_a_sector_shared_with_unsynced_ones() {
    for bytes in tails() {
        assert!(bytes.len() >= 700 && bytes[..700] == [1; 700]);
    }
}

#[test]
fn an_unsynced_tail_meets_every_fate() {
    let tails = tails();
    let any = |is: &dyn Fn(&[u8]) -> bool| tails.iter().any(|bytes| is(&bytes[700..]));
    let garbage = |part: &[u8]| part.iter().any(|&byte| byte != 2 && byte != 0);
    assert!(any(&|tail| tail == [2; 1348]), "kept");
    assert!(any(&<[u8]>::is_empty), "lost");
    assert!(any(&|tail| tail == [0; 1348]), "length without data");
    assert!(any(&|tail| tail.len() == 1348 && garbage(&tail[..324]) && garbage(&tail[324..])));
    assert!(any(&|tail| tail.len() == 324 && tail == [2; 324]), "cut at a sector");
    assert!(
        any(&|tail| {
            tail.len() == 1348
                && tail[..324] == [0; 324]
                && tail[324..836] == [2; 512]
                && garbage(&tail[836..])
        }),
        "each sector by itself"
    );
}

#[test]
fn a_seed_stands_for_its_states() {
    let storage = CrashStorage::new();
    let mut file = storage.create("a").unwrap();
    file.append_all(&[3; 9000]).unwrap();
    storage.publish("a", "b").unwrap();
    let all = |seed| -> Vec<_> {
        let files = |storage: &MemStorage| {
            storage.names().iter().map(|name| storage.contents(name).unwrap()).collect::<Vec<_>>()
        };
        storage
            .crash_states(seed, 30)
            .map(|s| (s.prefix, s.storage.names(), files(&s.storage)))
            .collect()
    };
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
}

#[test]
fn marks_are_seen_by_the_states_after_them_only() {
    let storage = CrashStorage::new();
    storage.create("a").unwrap();
    storage.mark("made");
    storage.sync_dir().unwrap();
    for state in storage.crash_states(1, 3) {
        assert_eq!(!state.acknowledged.is_empty(), state.prefix >= 2, "{state}");
    }
}

#[test]
fn operations_that_fail_leave_no_trace_in_the_history() {
    let storage = holding(&[("a", b"")]);
    storage.create("a").err().unwrap();
    storage.publish("x", "y").unwrap_err();
    storage.remove("x").unwrap_err();
    assert_eq!(storage.history_len(), 0);
}

/// Contents of `a.part` in all states after each operation from the `from`-th on.
fn contents_from(storage: &CrashStorage, from: usize) -> Vec<BTreeSet<Vec<u8>>> {
    let mut found: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(); storage.history_len() + 1];
    for state in storage.all_crash_states().filter(|state| state.prefix >= from) {
        found[state.prefix].insert(state.storage.contents("a.part").unwrap().to_vec());
    }
    found.split_off(from)
}

#[test]
fn a_cut_happened_or_did_not_until_it_is_synced_and_what_is_appended_comes_after_it() {
    let storage = holding(&[("a.part", b"0123456789")]);
    let mut file = storage.reopen("a.part", 4).unwrap();
    file.append_all(b"xy").unwrap();
    let set = |list: &[&[u8]]| list.iter().map(|bytes| bytes.to_vec()).collect::<BTreeSet<_>>();
    let found = contents_from(&storage, 1);
    assert_eq!(found[0], set(&[b"0123456789", b"0123"]), "cut, not synced");
    assert_eq!(found[1], set(&[b"0123"]), "cut and synced");
    assert!(found[2].is_superset(&set(&[b"0123", b"0123xy", b"0123\0\0"])));
    assert!(found[2].iter().all(|bytes| bytes.starts_with(b"0123") && bytes.len() <= 6));
}

#[test]
fn what_an_earlier_writer_left_unsynced_may_be_lost_until_the_file_is_reopened() {
    let storage = CrashStorage::new();
    let mut first = storage.create("a.part").unwrap();
    storage.sync_dir().unwrap();
    first.append_all(b"01234567").unwrap();
    drop(first);
    storage.reopen("a.part", 6).unwrap();
    let found = contents_from(&storage, 4);
    // The cut is the fourth operation, its sync the fifth.
    assert!(found[0].contains(&b""[..]) && found[0].contains(&b"\0\0\0\0\0\0"[..]));
    assert!(found[0].contains(&b"01234567"[..]) && found[0].contains(&b"012345"[..]));
    assert_eq!(found[1].iter().map(Vec::as_slice).collect::<Vec<_>>(), [b"012345"]);
}
