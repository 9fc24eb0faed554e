//! Changes of who can open images, over several chains.

use std::fs;

use aiv_chain::{KeyedChain, keyed_chains};
use aiv_jobs::{BackupJob, Error, KeyChange, NewKey, SealJob, change_keys};
use aiv_keys::{Credential, KeyFile, Opened, PaperKey, Work};
use aiv_volume_io::{DirStorage, Job, Storage};

use crate::outside::{Outside, plain_job};

fn credential(byte: u8) -> Credential {
    Credential::KeyFile(KeyFile::new(&[byte; 32]).unwrap())
}

/// A folder with the images of two disks, each with a key of its own that key file 1 opens.
fn two_chains(dir: &tempfile::TempDir, world: &Outside) -> (DirStorage, Vec<KeyedChain>) {
    let to = dir.path().join("images");
    for name in ["first", "second"] {
        let disk = dir.path().join(name);
        fs::write(&disk, name.repeat(4096)).unwrap();
        let new = NewKey::Credential(credential(1));
        let (opened, begun, recovery_code) = (Vec::new(), Vec::new(), None);
        let seal = SealJob { mode: None, padding: false, opened, begun, new, recovery_code };
        let job = BackupJob { seal: Some(seal), ..plain_job() };
        let done = job.run(&[disk], &to, world, Job::silent()).unwrap();
        assert!(done.begins_a_key(), "{done:?}");
    }
    let storage = DirStorage::open(&to).unwrap();
    let chains = keyed_chains(&storage, Job::silent()).unwrap().chains;
    (storage, chains)
}

fn open(chains: &[KeyedChain], byte: u8) -> Vec<Opened> {
    let open = |chain: &KeyedChain| chain.open(&credential(byte), &mut Work::new()).ok();
    chains.iter().filter_map(open).collect()
}

#[test]
fn a_change_that_fails_in_the_middle_tells_what_was_changed_and_what_was_not() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Outside::new());
    let (storage, chains) = two_chains(&dir, &world);
    let opened = open(&chains, 1);
    let add = |byte| KeyChange::Add(NewKey::Credential(credential(byte)));
    let change =
        |change: &KeyChange| change_keys(&storage, &opened, change, "", &world, Job::silent());
    let lease = storage.lease(&format!("set-{}", chains[1].files[0].set)).unwrap();
    let changes = change(&add(2)).unwrap();
    let busy = |error: &Error| matches!(error, Error::Chain(aiv_chain::Error::Busy { .. }));
    assert_eq!(changes.done.len(), 1);
    assert_eq!(changes.done[0].changed, [chains[0].files[0].file.clone()]);
    assert!(changes.failed.as_ref().is_some_and(busy), "{changes:?}");
    assert_eq!(changes.untouched, [chains[1].commitment]);
    drop(lease);
    // Where nothing was changed, there is nothing to tell.
    let lease = storage.lease(&format!("set-{}", chains[0].files[0].set)).unwrap();
    assert!(busy(&change(&add(3)).unwrap_err()));
    drop(lease);
    let changes = change(&add(3)).unwrap();
    assert!(changes.done.len() == 2 && changes.failed.is_none(), "{changes:?}");
    let now = keyed_chains(&storage, Job::silent()).unwrap().chains;
    assert_eq!((open(&now, 2).len(), open(&now, 3).len()), (1, 2));
}

#[test]
fn what_opens_only_older_slots_replaces_no_newer_one() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Outside::new());
    let (storage, chains) = two_chains(&dir, &world);
    let old = open(&chains, 1);
    let to = |byte| KeyChange::Replace(NewKey::Credential(credential(byte)));
    let change = |opened: &[Opened], to: &KeyChange| {
        change_keys(&storage, opened, to, "", &world, Job::silent())
    };
    assert_eq!(change(&old, &to(2)).unwrap().done.len(), 2);
    // As if the first change had not reached an image, through which the old one still opens.
    let error = change(&old, &to(3)).unwrap_err();
    assert!(error.to_string().contains("older slots"), "{error}");
    let now = keyed_chains(&storage, Job::silent()).unwrap().chains;
    assert_eq!((open(&now, 2).len(), open(&now, 3).len()), (2, 0));
    assert_eq!(change(&open(&now, 2), &to(3)).unwrap().done.len(), 2);
}

#[test]
fn a_paper_key_adds_and_removes_ways_in_and_replaces_none() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Outside::new());
    let (storage, chains) = two_chains(&dir, &world);
    let paper = PaperKey::new(open(&chains[..1], 1)[0].key.clone());
    let with = Credential::PaperKey(paper);
    let opened: Vec<Opened> =
        chains.iter().filter_map(|chain| chain.open(&with, &mut Work::new()).ok()).collect();
    assert_eq!(opened.len(), 1, "the other chain has another key");
    let change =
        |change: &KeyChange| change_keys(&storage, &opened, change, "", &world, Job::silent());
    let new = |byte| NewKey::Credential(credential(byte));
    for refused in [KeyChange::Replace(new(2)), KeyChange::Add(NewKey::Credential(with))] {
        let error = change(&refused).unwrap_err();
        assert!(error.to_string().contains("paper key"), "{error}");
    }
    assert_eq!(change(&KeyChange::Add(new(2))).unwrap().done.len(), 1);
    assert_eq!(change(&KeyChange::Remove(1)).unwrap().done.len(), 1);
    let now = keyed_chains(&storage, Job::silent()).unwrap().chains;
    assert_eq!((open(&now[..1], 1).len(), open(&now[..1], 2).len()), (0, 1));
    // Where nobody can get in any more, they are made anew.
    for file in &chains[0].files {
        let path = dir.path().join("images").join(&file.file);
        let mut bytes = fs::read(&path).unwrap();
        let second = bytes.len() - 69_632 - 4096;
        for at in [4096, second] {
            bytes[at + 2000] ^= 1;
        }
        fs::write(path, bytes).unwrap();
    }
    for lost in [KeyChange::Replace(new(3)), KeyChange::Remove(1), KeyChange::Retire] {
        assert!(change(&lost).is_err());
    }
    assert_eq!(change(&KeyChange::Add(new(3))).unwrap().done[0].changed.len(), 1);
    let now = keyed_chains(&storage, Job::silent()).unwrap().chains;
    assert_eq!((open(&now[..1], 2).len(), open(&now[..1], 3).len()), (0, 1));
}
