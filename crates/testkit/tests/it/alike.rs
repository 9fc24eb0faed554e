//! What all storages must do alike, asked of each stand-in: a scenario that works on one of
//! them must mean the same on a real folder.

use aiv_testkit::{CrashStorage, FaultStorage, MemStorage};
use aiv_volume_io::{CATALOGUE_NAME, DirStorage, Storage};

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
