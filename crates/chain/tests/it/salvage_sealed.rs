//! What is left of damaged chains with a key: read with it, and sealed with it again.

use std::sync::Arc;

use aiv_chain::salvage::{
    Fill, Hints, Loss, SalvageOptions, SalvageReport, Salvaged, salvage_chains,
};
use aiv_chain::{Error, Protection, Result, View, change_slots};
use aiv_image_format::{ChainKey, Unsalvageable};
use aiv_image_format::{Compression, Depth, Digest, Error as ImageError, Image, Keys, Mode};
use aiv_keys::{Credential, KeyArea, KeyFile, NewSlot, Way, Work};
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, ReadAt, Storage};

use crate::common::BLOCK;
use crate::described::read_all;
use crate::salvage::{Files, files, ids, raw, wipe};
use crate::sealed::{chain, disk, key, keys};

fn open_with(files: Files, parents: &[&dyn Storage], keys: &Keys) -> Result<Salvaged> {
    Salvaged::open(files, parents, keys, &Hints::default(), Job::silent())
}

fn open(files: Files, parents: &[&dyn Storage]) -> Result<Salvaged> {
    open_with(files, parents, &keys())
}

fn write(salvaged: &Salvaged, to: &dyn Storage, plain: bool) -> Result<SalvageReport> {
    let options = SalvageOptions { compression: Compression::Zstd(1), plain };
    salvaged.write_image(to, &options, &ids(9), Job::silent())
}

/// The new image is sound, protected like this, and every block of it is true or lost.
fn check(storage: &MemStorage, report: &SalvageReport, keys: &Keys, truth: &[u8]) -> Image {
    let made = report.image.as_ref().unwrap();
    let image = Image::open_with(storage.open(&made.file).unwrap(), keys).unwrap();
    assert_eq!(Protection::of(image.superblock()), made.protection);
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let view = View::open_keyed(storage, &made.file, keys, Job::silent()).unwrap();
    for (block, truth) in (0..).zip(truth.chunks(BLOCK)) {
        let mut out = vec![0; truth.len()];
        view.reader().read(block, &mut out).unwrap();
        let is_lost = report.lost.iter().any(|r| (r.first..r.first + r.count).contains(&block));
        assert!(is_lost || out == truth, "block {block} is made up");
    }
    image
}

fn sealed() -> Protection {
    Protection::Sealed(Digest(key().commitment()))
}

const NAMES: [&str; 4] = ["1.aiv", "2.aiv", "3.aiv", "4.aiv"];

#[test]
fn what_had_a_key_has_it_again_with_the_ways_in_it_had() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = chain(mode);
        let salvaged = open(files(&storage, &["4.aiv"], |_, _| {}), &[&storage]).unwrap();
        let to = MemStorage::new();
        let report = write(&salvaged, &to, false).unwrap();
        assert!(report.is_whole() && report.is_proven == Some(true), "{mode:?}: {report:?}");
        let image = check(&to, &report, &keys().required(), &disk(4));
        assert_eq!(report.image.as_ref().unwrap().protection.mode(), Some(mode));
        let [a, b] = image.slot_copies().unwrap().unwrap();
        let before = Image::open(storage.open("1.aiv").unwrap()).unwrap();
        let [old, _] = before.slot_copies().unwrap().unwrap();
        assert!(a == b && a == old);
        let opened = KeyArea::parse(&a).unwrap();
        let credential = Credential::KeyFile(KeyFile::new(&[1; 32]).unwrap());
        assert_eq!(opened.open(&credential, &mut Work::new()).unwrap().key, key());
        // No session writes twice with one key.
        let sessions: Vec<_> = NAMES.iter().map(|name| storage.contents(name).unwrap()).collect();
        let new = image.superblock().session;
        assert!(sessions.iter().all(|bytes| bytes[176..188] != new.0));
        // Nothing of the disk is in it.
        let bytes = to.contents(&report.image.unwrap().file).unwrap();
        let some = &disk(4)[2000..2032];
        let holds = bytes.windows(32).any(|window| window == some);
        assert!(mode == Mode::Authenticated || !holds);
    }
}

#[test]
fn without_a_key_it_is_written_only_when_asked_for_and_never_beside_images_with_one() {
    let storage = chain(Mode::Sealed);
    let salvaged = open(files(&storage, &["4.aiv"], |_, _| {}), &[&storage]).unwrap();
    let names = storage.names();
    match write(&salvaged, &storage, true) {
        Err(Error::PlainBesideKeyed { file }) => assert!(names.contains(&file)),
        other => panic!("{other:?}"),
    }
    assert_eq!(storage.names(), names);
    let to = MemStorage::new();
    let report = write(&salvaged, &to, true).unwrap();
    assert_eq!(report.image.as_ref().unwrap().protection, Protection::None);
    assert_eq!(report.is_proven, Some(true), "the true root, not what stands for it");
    check(&to, &report, &Keys::none(), &disk(4));
    // Beside them it is sealed.
    let report = write(&salvaged, &storage, false).unwrap();
    assert_eq!(report.image.as_ref().unwrap().protection, sealed());
    check(&storage, &report, &keys(), &disk(4));
}

#[test]
fn damage_anywhere_in_a_sealed_chain_makes_up_nothing() {
    let storage = chain(Mode::Sealed);
    let (mut lost, mut found) = (0, 0);
    for seed in 0..60 {
        let given = files(&storage, &NAMES, |name, bytes| {
            let mut random = Random::new(&[seed, u64::from(name.as_bytes()[0])]);
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len() / 64) * 64;
                wipe(bytes, at, 64 << random.below(10));
            }
        });
        // Where both superblocks of a file are gone, its parent is not known any more.
        let Ok(salvaged) = open(given, &[]) else { continue };
        let to = MemStorage::new();
        let report = write(&salvaged, &to, false).unwrap();
        assert_ne!(report.is_proven, Some(false), "seed {seed}");
        check(&to, &report, &keys(), &disk(4));
        lost += report.blocks_lost();
        found += report.blocks();
    }
    assert!(lost > 5 && found > 150, "{lost} lost, {found} found");
}

#[test]
fn the_way_to_the_key_is_found_wherever_one_is_left() {
    let storage = chain(Mode::Sealed);
    let credential = Credential::KeyFile(KeyFile::new(&[1; 32]).unwrap());
    let opens = |files: &Files, folders: &[&dyn Storage]| -> Result<bool> {
        let chains = salvage_chains(files, folders, Job::silent())?;
        let ours = chains.iter().find(|chain| chain.commitment.0 == key().commitment());
        Ok(ours
            .is_some_and(|c| c.open(&credential, &mut Work::new()).is_ok_and(|o| o.key == key())))
    };
    let slots = 4096..36_864;
    let damaged = |wipes: &[(usize, usize)], cut: usize, front: usize| {
        files(&storage, &["1.aiv"], |_, bytes| {
            wipes.iter().for_each(|&(at, len)| wipe(bytes, at, len));
            bytes.truncate(bytes.len() - cut);
            bytes.drain(..front);
        })
    };
    let len = storage.contents("1.aiv").unwrap().len();
    let second = len - 8192 - (64 << 10);
    for (wipes, cut, front) in [
        (vec![], 0, 0),
        (vec![(slots.start, slots.len())], 0, 0),
        (vec![(second, slots.len())], 0, 0),
        (vec![(0, 4096)], 0, 0),
        (vec![(0, 4096)], 100 << 10, 0),
        // One copy lies elsewhere than a whole file would have it.
        (vec![(0, 4096), (slots.start + 512, 64)], 5000, 0),
        (vec![], 0, 4096 + 64),
    ] {
        let given = damaged(&wipes, cut, front);
        assert!(opens(&given, &[]).unwrap(), "{wipes:?} {cut} {front}");
    }
    // Both are lost: another image of the chain does.
    let none = || damaged(&[(slots.start, slots.len()), (second, slots.len())], 0, 0);
    match opens(&none(), &[]) {
        Err(Error::Image { source: ImageError::Unsalvageable(Unsalvageable::NoSlots), .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(opens(&none(), &[&storage]).unwrap());
    // And the new image gets them.
    let salvaged = open(none(), &[&storage]).unwrap();
    let to = MemStorage::new();
    let report = write(&salvaged, &to, false).unwrap();
    let image = check(&to, &report, &keys(), &disk(1));
    assert!(image.slot_copies().unwrap().is_some());
    // So does one that is damaged itself, or was never finished.
    let left = storage.contents("3.aiv").unwrap();
    for name in ["3.aiv", "3.aiv.part"] {
        let beside = MemStorage::new();
        beside.insert(name, left[..left.len() / 2].to_vec());
        assert!(opens(&none(), &[&beside]).unwrap(), "{name}");
    }
    // Slots of another chain are none of it, however sound.
    let other = ChainKey::new([5; 32]);
    let file = KeyFile::new(&[1; 32]).unwrap();
    let new = NewSlot {
        way: Way::KeyFile(&file),
        label: "",
        created_unix_ms: 0,
        random: &[8; NewSlot::RANDOM],
    };
    let foreign = KeyArea::new(&other, &new).unwrap().to_bytes();
    let exchanged = files(&storage, &["1.aiv"], |_, bytes| {
        bytes[slots.clone()].copy_from_slice(&foreign);
        bytes[second..second + slots.len()].copy_from_slice(&foreign);
    });
    assert!(opens(&exchanged, &[]).is_err());
    // An image without a key needs none.
    let clear = crate::consolidate::line();
    let given = files(&clear.storage, &["p001.aiv"], |_, _| {});
    assert!(salvage_chains(&given, &[&storage], Job::silent()).unwrap().is_empty());
}

#[test]
fn the_new_image_gets_the_newest_slots_that_are_left_of_the_chain() {
    let storage = chain(Mode::Sealed);
    let old = storage.contents("4.aiv").unwrap();
    let add = |area: &KeyArea| {
        let file = KeyFile::new(&[10; 32]).unwrap();
        let (way, random) = (Way::KeyFile(&file), &[8; NewSlot::RANDOM]);
        Ok(area.add(&key(), &NewSlot { way, label: "", created_unix_ms: 0, random })?.0)
    };
    let changed = change_slots(&storage, &key(), &add, Job::silent()).unwrap().area;
    let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(old.to_vec()));
    let salvaged = open(vec![("old".to_owned(), file)], &[&storage]).unwrap();
    let to = MemStorage::new();
    let report = write(&salvaged, &to, false).unwrap();
    let [a, _] = check(&to, &report, &keys(), &disk(4)).slot_copies().unwrap().unwrap();
    assert!(*a == *changed.to_bytes());
}

#[test]
fn a_parent_that_only_an_unproven_superblock_names_is_told_to_be_in_doubt() {
    let storage = chain(Mode::Sealed);
    // The tail is gone: nothing proves which parent the image had.
    let given = || files(&storage, &["4.aiv"], |_, bytes| bytes.truncate(bytes.len() - 90_000));
    let salvaged = open(given(), &[&storage]).unwrap();
    let (bytes, report) = raw(&salvaged, Fill::Hole);
    assert!(bytes == disk(4) && report.lost.is_empty());
    let doubted: u64 = report.unproven.iter().map(|(_, count)| count).sum();
    assert!(doubted >= 4 && doubted < report.blocks() && !report.is_whole(), "{report:?}");
    // With it, nothing is; and an older state of the chain is not taken for the parent.
    let whole = files(&storage, &["4.aiv"], |_, _| {});
    assert!(open(whole, &[&storage]).unwrap().check(Job::silent()).unwrap().is_whole());
}

#[test]
fn files_of_two_chains_and_parents_with_another_key_or_none_do_not_go_together() {
    let storage = chain(Mode::Sealed);
    let authenticated = chain(Mode::Authenticated);
    let mut given = files(&storage, &["4.aiv"], |_, _| {});
    given.extend(files(&authenticated, &["3.aiv"], |_, _| {}));
    assert!(matches!(open(given, &[]), Err(Error::NoChain { .. })));
    // Whoever lays a chain in clear beside it gets nothing of that into it.
    let salvaged = open(files(&storage, &["4.aiv"], |_, _| {}), &[&authenticated]).unwrap();
    assert!(salvaged.missing_parent().is_some());
    let report = salvaged.check(Job::silent()).unwrap();
    assert!(report.lost.iter().all(|run| run.loss == Loss::Parent) && report.blocks_lost() > 0);
}

#[test]
fn without_the_key_or_with_another_one_nothing_is_written() {
    let storage = chain(Mode::Sealed);
    let given = || files(&storage, &["1.aiv"], |_, bytes| wipe(bytes, 50_000, 64));
    let refused = open_with(given(), &[], &Keys::none()).err().unwrap();
    let is_sealed = |error: &Error| match error {
        Error::Image { source: ImageError::Unsalvageable(it), .. } => *it == Unsalvageable::Sealed,
        _ => false,
    };
    assert!(is_sealed(&refused), "{refused}");
    let refused = open_with(given(), &[], &Keys::of(ChainKey::new([1; 32]))).err().unwrap();
    let Error::Image { source: ImageError::WrongKey { .. }, .. } = refused else {
        panic!("{refused}");
    };
}

#[test]
fn no_fault_of_the_folder_leaves_a_false_or_a_plain_image() {
    let storage = chain(Mode::Sealed);
    let given = files(&storage, &["2.aiv"], |_, bytes| wipe(bytes, 0, 4096));
    let salvaged = open(given, &[&storage]).unwrap();
    for fault in Fault::ALL {
        let mut at = 0;
        loop {
            let to = FaultStorage::failing(MemStorage::new(), FaultPlan::once(at, fault));
            let done = write(&salvaged, &to, false);
            let Some(hit) = to.trace().into_iter().find(|operation| operation.failed) else {
                assert!(at > 0, "{fault:?} hit nothing");
                break;
            };
            at += if hit.op == aiv_testkit::Op::Read { 17 } else { 1 };
            let folder = to.inner();
            if let Ok(report) = &done {
                check(folder, report, &keys(), &disk(2));
            }
            for name in folder.names().iter().filter(|name| name.ends_with(".aiv")) {
                let image = Image::open_with(folder.open(name).unwrap(), &keys()).unwrap();
                assert_eq!(Protection::of(image.superblock()), sealed());
                assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
            }
        }
    }
}

#[test]
fn an_image_without_its_end_is_read_through_the_chain_beside_it() {
    let storage = chain(Mode::Sealed);
    let given = files(&storage, &["4.aiv"], |_, _| {});
    let salvaged = open(given, &[&storage]).unwrap();
    let view = View::open_keyed(&storage, "4.aiv", &keys(), Job::silent()).unwrap();
    let (bytes, _) = raw(&salvaged, Fill::Pattern);
    assert!(bytes == read_all(&view));
}
