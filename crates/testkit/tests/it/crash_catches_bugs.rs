//! A toy store with one committed file at a time, right and wrong. The machine is worth its
//! name only if it finds a losing state for every wrong way.

use aiv_testkit::disks::Content;
use aiv_testkit::{CrashState, CrashStates, CrashStorage, MemStorage};
use aiv_volume_io::Storage;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Right,
    NoSyncBeforePublish,
    NoDirectorySync,
    ReplacingPublish,
    ContentAfterPublish,
    OldRemovedBeforeDirectorySync,
}

fn version(number: u64, len: usize) -> Vec<u8> {
    Content::Random(number).bytes(len)
}

fn commit(storage: &CrashStorage, way: Way, number: u64, len: usize) {
    let name = |number| match way {
        Way::ReplacingPublish => "head".to_owned(),
        _ => format!("head-{number}"),
    };
    let (new, old) = (name(number), name(number - 1));
    let content = version(number, len);
    let (front, back) = content.split_at(len / 2);
    let mut file = storage.create("new.tmp").unwrap();
    file.append_all(front).unwrap();
    if way != Way::ContentAfterPublish {
        file.append_all(back).unwrap();
    }
    if way != Way::NoSyncBeforePublish {
        file.sync().unwrap();
    }
    let remove_old = || {
        if number > 1 {
            storage.remove(&old).unwrap();
        }
    };
    if way == Way::ReplacingPublish {
        remove_old();
    }
    storage.publish("new.tmp", &new).unwrap();
    if way == Way::ContentAfterPublish {
        file.append_all(back).unwrap();
        file.sync().unwrap();
    }
    if way == Way::OldRemovedBeforeDirectorySync {
        remove_old();
    }
    if way != Way::NoDirectorySync {
        storage.sync_dir().unwrap();
    }
    storage.mark(number.to_string());
    if !matches!(way, Way::ReplacingPublish | Way::OldRemovedBeforeDirectorySync) {
        remove_old();
    }
}

/// Whether a committed version is lost or a half-written one is visible.
fn is_losing(state: &CrashState, versions: u64, len: usize) -> bool {
    let acknowledged = state.acknowledged.last().map_or(0, |label| label.parse().unwrap());
    let number_of = |name: &String| {
        let bytes = state.storage.contents(name).unwrap();
        (1..=versions).find(|&number| *bytes == version(number, len))
    };
    let names = state.storage.names();
    let visible: Vec<_> =
        names.iter().filter(|name| name.starts_with("head")).map(number_of).collect();
    visible.contains(&None) || visible.into_iter().flatten().max().unwrap_or(0) < acknowledged
}

fn losing_states(
    way: Way,
    versions: u64,
    len: usize,
    states: impl Fn(&CrashStorage) -> CrashStates,
) -> usize {
    let storage = CrashStorage::new();
    (1..=versions).for_each(|number| commit(&storage, way, number, len));
    states(&storage).filter(|state| is_losing(state, versions, len)).count()
}

#[test]
fn the_right_way_survives_every_sampled_state() {
    assert_eq!(losing_states(Way::Right, 4, 20_000, |s| s.crash_states(1, 200)), 0);
}

#[test]
fn the_right_way_survives_every_state_there_is() {
    assert_eq!(losing_states(Way::Right, 2, 1400, CrashStorage::all_crash_states), 0);
}

fn check_caught(way: Way) {
    assert!(losing_states(way, 3, 20_000, |s| s.crash_states(1, 40)) > 0, "sampled: {way:?}");
    assert!(losing_states(way, 2, 1400, CrashStorage::all_crash_states) > 0, "all: {way:?}");
}

#[test]
fn a_missing_sync_before_publish_is_caught() {
    check_caught(Way::NoSyncBeforePublish);
}

#[test]
fn a_missing_directory_sync_is_caught() {
    check_caught(Way::NoDirectorySync);
}

#[test]
fn a_publish_that_replaces_is_caught() {
    check_caught(Way::ReplacingPublish);
}

#[test]
fn content_written_after_publish_is_caught() {
    check_caught(Way::ContentAfterPublish);
}

#[test]
fn an_old_version_removed_too_early_is_caught() {
    check_caught(Way::OldRemovedBeforeDirectorySync);
}

/// What a careful program does first after a crash.
fn recover(storage: &CrashStorage) {
    let tmp = storage.list().unwrap().into_iter().filter(|file| file.name.ends_with(".tmp"));
    tmp.for_each(|file| storage.remove(&file.name).unwrap());
    storage.sync_dir().unwrap();
}

#[test]
fn the_right_way_survives_a_second_crash_during_the_recovery_from_the_first() {
    let storage = CrashStorage::new();
    (1..=2).for_each(|number| commit(&storage, Way::Right, number, 2000));
    let mut second_crashes = 0;
    for first in storage.crash_states(5, 20) {
        let again = CrashStorage::starting_from(&first.storage);
        recover(&again);
        for second in again.crash_states(6, 10) {
            // What the first history had acknowledged holds for all of the second, too.
            let mut state = second;
            state.acknowledged.clone_from(&first.acknowledged);
            assert!(!is_losing(&state, 2, 2000), "{first}, then {state}");
            second_crashes += 1;
        }
    }
    assert!(second_crashes > 500, "{second_crashes}");
}

#[test]
fn a_state_is_a_storage_of_its_own() {
    let start: MemStorage = [("a".to_owned(), vec![1; 10])].into_iter().collect();
    let storage = CrashStorage::starting_from(&start);
    storage.create("b").unwrap();
    for state in storage.crash_states(1, 4) {
        state.storage.remove("a").unwrap();
        state.storage.create("c").unwrap().append_all(b"x").unwrap();
    }
    assert_eq!(start.names(), ["a"]);
    let names: Vec<_> = storage.list().unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["a", "b"]);
}
