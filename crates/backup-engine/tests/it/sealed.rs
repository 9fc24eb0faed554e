//! Backups with keys: what goes on with which key, and what is refused.

use std::collections::HashSet;

use aiv_backup_engine::{BackupOptions, Basis, Error, Hedge, Mode, Refusal, SealOptions};
use aiv_chain::{
    Checked, Folder, Keys, Protection, Trust, VerifyOptions, View, change_slots,
    verify_folder_keyed,
};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{ChainKey, Depth, Digest, Image};
use aiv_keys::{KeyArea, KeyFile, NewSlot, RecipientSecret, Way};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Job, MemDisk, ReadAt, Storage};

use crate::common::{BLOCK, options, threads, try_backup};

pub(crate) fn key(n: u8) -> ChainKey {
    ChainKey::new([n; 32])
}

/// Slots that a key file opens.
pub(crate) fn area(key: &ChainKey) -> KeyArea {
    let file = KeyFile::new(&[9; 32]).unwrap();
    let way = Way::KeyFile(&file);
    let random = &[7; NewSlot::RANDOM];
    KeyArea::new(key, &NewSlot { way, label: "", created_unix_ms: 0, random }).unwrap()
}

/// A new chain gets key `fresh`; the chains of `opened` go on.
pub(crate) fn sealed(fresh: u8, opened: &[u8]) -> BackupOptions {
    let mut keys = Keys::none();
    opened.iter().for_each(|n| keys.add(key(*n)));
    let fresh = (key(fresh), area(&key(fresh)));
    let hedge = Hedge { time_ns: 1, ..Hedge::default() };
    let (retired, mode) = (Vec::new(), None);
    let seal = SealOptions { mode, keys, retired, fresh, begun: Vec::new(), padding: false, hedge };
    BackupOptions { seal: Some(seal), ..options() }
}

pub(crate) fn seal(options: &mut BackupOptions) -> &mut SealOptions {
    options.seal.as_mut().unwrap()
}

fn disk(seed: u64) -> MemDisk {
    let mut bytes = Content::Random(1).bytes(10 * BLOCK);
    bytes[3 * BLOCK..4 * BLOCK].copy_from_slice(&Content::Random(seed).bytes(BLOCK));
    MemDisk::from_bytes(bytes)
}

pub(crate) fn folder(storage: &dyn Storage, keys: &Keys) -> Folder {
    Folder::scan_keyed(storage, keys, Trust::Files, Job::silent()).unwrap().0
}

#[test]
fn an_increment_has_the_key_the_mode_and_the_ways_in_of_its_parent() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = MemStorage::new();
        let mut first = sealed(1, &[]);
        seal(&mut first).mode = Some(mode);
        try_backup(&disk(1), &storage, first, 1).unwrap();
        // A chain that exists goes on as it is, whatever a new one would be.
        let report = try_backup(&disk(2), &storage, sealed(2, &[1]), 2).unwrap();
        assert!(report.parent.is_some() && report.totals.blocks_decided() == 1);
        let keys = Keys::of(key(1));
        let folder = folder(&storage, &keys);
        let points = &folder.sets[0].points;
        let commitment = Digest(key(1).commitment());
        let expected = match mode {
            Mode::Sealed => Protection::Sealed(commitment),
            Mode::Authenticated => Protection::Authenticated(commitment),
        };
        assert_eq!((points[0].protection, points[1].protection), (expected, expected));
        let view = View::of_point(&storage, &folder.sets[0], &points[1]).unwrap();
        let mut back = vec![0; 10 * BLOCK];
        view.read_exact_at(&mut back, 0).unwrap();
        let mut expected = vec![0; 10 * BLOCK];
        disk(2).read_exact_at(&mut expected, 0).unwrap();
        assert!(back == expected);
        let [a, b] = view.image().slot_copies().unwrap().unwrap();
        assert_eq!((&*a, &*b), (&*area(&key(1)).to_bytes(), &*area(&key(1)).to_bytes()));
        assert_eq!(report.state_root, view.image().roots().unwrap().state);
    }
}

#[test]
fn a_set_with_a_key_does_not_go_on_without_it_or_with_another_one() {
    let storage = MemStorage::new();
    try_backup(&disk(1), &storage, sealed(1, &[]), 1).unwrap();
    let before = storage.names();
    let refusal = |options: BackupOptions| match try_backup(&disk(2), &storage, options, 2) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(options()), Refusal::WithoutKey);
    let full = BackupOptions { basis: Basis::Nothing, ..options() };
    assert_eq!(refusal(full), Refusal::WithoutKey);
    assert_eq!(refusal(sealed(2, &[])), Refusal::OtherKey);
    assert_eq!(refusal(sealed(2, &[2])), Refusal::OtherKey);
    assert_eq!(storage.names(), before);
    // Whoever asks for a full image gets one, with the key it brings.
    let full = BackupOptions { basis: Basis::Nothing, ..sealed(2, &[]) };
    let report = try_backup(&disk(2), &storage, full, 2).unwrap();
    assert!(report.parent.is_none() && report.begins_key && report.leaves_key);
}

#[test]
fn a_later_full_image_has_the_key_of_the_set_and_all_its_ways_in() {
    let storage = MemStorage::new();
    try_backup(&disk(1), &storage, sealed(1, &[]), 1).unwrap();
    let full = BackupOptions { basis: Basis::Nothing, ..sealed(2, &[1]) };
    let report = try_backup(&disk(2), &storage, full, 2).unwrap();
    assert!(report.parent.is_none() && !report.begins_key && !report.leaves_key);
    let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
    assert_eq!(image.superblock().key_commitment.0, key(1).commitment());
    let [a, _] = image.slot_copies().unwrap().unwrap();
    assert_eq!(&*a, &*area(&key(1)).to_bytes());
    // Another mode is another matter: that chain is new.
    let mut full = BackupOptions { basis: Basis::Nothing, ..sealed(3, &[1]) };
    seal(&mut full).mode = Some(Mode::Authenticated);
    let report = try_backup(&disk(2), &storage, full, 3).unwrap();
    assert!(report.begins_key && !report.leaves_key, "its key is at hand");
    let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
    assert_eq!(image.superblock().key_commitment.0, key(3).commitment());
}

#[test]
fn a_retired_key_gets_no_new_image_and_a_set_without_key_can_get_one() {
    let storage = MemStorage::new();
    try_backup(&disk(1), &storage, options(), 1).unwrap();
    let report = try_backup(&disk(1), &storage, sealed(1, &[]), 2).unwrap();
    assert!(report.parent.is_none(), "an image with a key builds on none without");
    let mut retired = sealed(2, &[1]);
    seal(&mut retired).retired = vec![Digest(key(1).commitment())];
    let report = try_backup(&disk(1), &storage, retired, 3).unwrap();
    assert!(report.parent.is_none());
    let report = try_backup(&disk(1), &storage, sealed(3, &[1, 2]), 4).unwrap();
    assert!(report.parent.is_some());
    let keys = [1, 2].iter().fold(Keys::none(), |mut keys, n| {
        keys.add(key(*n));
        keys
    });
    let found = folder(&storage, &keys);
    let last = found.sets[0].points.last().unwrap();
    assert_eq!(last.protection, Protection::Sealed(Digest(key(2).commitment())));
}

#[test]
fn a_generator_that_repeats_itself_seals_no_two_images_alike() {
    // A virtual machine set back: the same random numbers, in the same process, each time.
    let mut sessions = HashSet::new();
    let mut images = HashSet::new();
    for time_ns in [1, 2, 3] {
        let storage = MemStorage::new();
        let mut options = sealed(1, &[]);
        seal(&mut options).hedge.time_ns = time_ns;
        let report = try_backup(&disk(1), &storage, options, 1).unwrap();
        let image = storage.contents(&report.image).unwrap();
        sessions.insert(image[176..188].to_vec());
        images.insert(image[40_000..41_000].to_vec());
    }
    assert_eq!((sessions.len(), images.len()), (3, 3));
}

#[test]
fn a_sealed_image_does_not_depend_on_the_number_of_threads() {
    let image = |count: usize| {
        let storage = MemStorage::new();
        let options = BackupOptions { threads: threads(count), ..sealed(1, &[]) };
        let report = try_backup(&disk(1), &storage, options, 1).unwrap();
        storage.contents(&report.image).unwrap()
    };
    let one = image(1);
    assert!(image(2) == one && image(7) == one);
}

#[test]
fn an_older_chain_without_a_key_does_not_go_on_beside_a_locked_one() {
    let storage = MemStorage::new();
    try_backup(&disk(1), &storage, options(), 1).unwrap();
    try_backup(&disk(2), &storage, sealed(1, &[]), 2).unwrap();
    let error = try_backup(&disk(3), &storage, options(), 3).unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::WithoutKey)), "{error}");
    let error = try_backup(&disk(3), &storage, sealed(2, &[2]), 4).unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::OtherKey)), "{error}");
    let report = try_backup(&disk(3), &storage, sealed(2, &[1]), 5).unwrap();
    assert!(report.parent.is_some() && report.lost.is_empty());
}

#[test]
fn what_was_begun_in_clear_is_not_gone_on_with_where_a_key_is_asked_for() {
    use crate::resumed::{GoneFrom, content, parts};
    let source = MemDisk::from_bytes(content(192));
    let storage = MemStorage::new();
    let with = |base: BackupOptions| BackupOptions {
        resume: true,
        checkpoint_bytes: 5 * BLOCK as u64,
        ..base
    };
    let plain = with(options());
    let plan = crate::resumed::plan_of(&source, plain, None);
    let first = crate::common::apply(&plan, &GoneFrom(&source, 2 << 20), &storage, 1);
    assert!(matches!(first, Err(Error::Interrupted { .. })), "{first:?}");
    assert_eq!(parts(&storage).len(), 1);
    let report = try_backup(&source, &storage, with(sealed(1, &[])), 2).unwrap();
    assert!(report.resumed.is_none() && report.begins_key);
    assert_eq!(parts(&storage), Vec::<String>::new());
    let folder = folder(&storage, &Keys::of(key(1)));
    assert_ne!(folder.sets[0].points[0].protection, Protection::None, "published in clear");
}

#[test]
fn an_image_with_a_key_carries_no_token_that_tells_of_its_source() {
    let token = |options: BackupOptions, n| {
        let storage = MemStorage::new();
        let report = try_backup(&disk(1), &storage, options, n).unwrap();
        let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
        image.superblock().source_token
    };
    let keyed = || BackupOptions { resume: true, ..sealed(1, &[]) };
    let clear = token(BackupOptions { resume: true, ..options() }, 1);
    // The same source and plan give another one in each image, and none that can be guessed.
    let tokens = [token(keyed(), 1), token(keyed(), 2), token(sealed(2, &[]), 1), clear];
    let different: HashSet<Digest> = tokens.into_iter().collect();
    assert_eq!(different.len(), 4);
    assert!(!different.contains(&Digest::default()));
    assert_eq!(token(keyed(), 1), tokens[0], "whoever has the key knows it again");
    // What is made for others is recognised by nobody here.
    let others = BackupOptions { resume: true, ..for_others() };
    assert!(token(others, 1).is_zero());
}

/// Sealed to a recipient alone.
pub(crate) fn for_others() -> BackupOptions {
    let mut options = sealed(6, &[]);
    let public = RecipientSecret::new([5; 32]).public();
    let way = Way::Recipient(&public);
    let random = &[7; NewSlot::RANDOM];
    let new = NewSlot { way, label: "", created_unix_ms: 0, random };
    seal(&mut options).fresh.1 = KeyArea::new(&key(6), &new).unwrap();
    options
}

#[test]
fn who_asks_for_another_protection_than_the_chain_has_is_refused_and_else_it_goes_on() {
    for (has, asks) in [(Mode::Authenticated, Mode::Sealed), (Mode::Sealed, Mode::Authenticated)] {
        let storage = MemStorage::new();
        let with = |fresh, opened: &[u8], mode| {
            let mut options = sealed(fresh, opened);
            seal(&mut options).mode = mode;
            options
        };
        try_backup(&disk(1), &storage, with(1, &[], Some(has)), 1).unwrap();
        let error = try_backup(&disk(2), &storage, with(2, &[1], Some(asks)), 2).unwrap_err();
        assert!(matches!(error, Error::Refused(Refusal::OtherMode)), "{error}");
        let report = try_backup(&disk(2), &storage, with(2, &[1], None), 3).unwrap();
        assert!(report.parent.is_some() && !report.begins_key);
        // A full image that nobody says more about is what those before it are, with their key.
        let full = BackupOptions { basis: Basis::Nothing, ..with(3, &[1], None) };
        let report = try_backup(&disk(3), &storage, full, 4).unwrap();
        assert!(report.parent.is_none() && !report.begins_key);
        let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
        assert_eq!(Protection::of(image.superblock()).mode(), Some(has));
    }
}

#[test]
fn a_new_image_gets_the_newest_slots_that_any_image_of_the_chain_has() {
    for basis in [Basis::Newest, Basis::Nothing] {
        let storage = MemStorage::new();
        let with = |n| BackupOptions { basis, ..sealed(n, &[1]) };
        let first = try_backup(&disk(1), &storage, sealed(1, &[]), 1).unwrap().image;
        let newest = try_backup(&disk(2), &storage, with(2), 2).unwrap().image;
        let before = storage.contents(&newest).unwrap();
        // A change that the power cut off when it had reached the first image.
        let add = |area: &KeyArea| {
            let file = KeyFile::new(&[10; 32]).unwrap();
            let (way, random) = (Way::KeyFile(&file), &[8; NewSlot::RANDOM]);
            let added =
                area.add(&key(1), &NewSlot { way, label: "", created_unix_ms: 0, random })?;
            added.0.remove(&key(1), 1)
        };
        let changed = change_slots(&storage, &key(1), &add, Job::silent()).unwrap();
        assert_eq!((changed.changed.len(), changed.area.generation()), (2, 3));
        storage.insert(&newest, before);
        let report = try_backup(&disk(3), &storage, with(3), 3).unwrap();
        let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
        let [a, b] = image.slot_copies().unwrap().unwrap();
        let newest = changed.area.to_bytes();
        assert!(*a == *newest && *b == *newest, "{basis:?}: not those of {first}");
    }
}

#[test]
fn images_with_a_key_have_parity_and_segments_where_that_is_asked_for_and_are_proven() {
    for (mode, parity, split) in [
        (Mode::Sealed, true, None),
        (Mode::Sealed, false, Some(SEGMENT_BYTES_MIN)),
        (Mode::Authenticated, true, Some(SEGMENT_BYTES_MIN)),
    ] {
        let storage = MemStorage::new();
        for (n, opened) in [(1, &[][..]), (2, &[1])] {
            let base = sealed(1, opened);
            let mut options = BackupOptions { parity, split, verify: true, ..base };
            seal(&mut options).mode = Some(mode);
            seal(&mut options).padding = true;
            let report = try_backup(&disk(n), &storage, options, n.try_into().unwrap()).unwrap();
            let is_split = report.segments > 1;
            assert!(if split.is_none() { !is_split } else { is_split || n > 1 }, "{n}");
        }
        for keys in [Keys::none(), Keys::of(key(1))] {
            let options = VerifyOptions {
                depth: Depth::Data,
                not_verified_since: None,
                now_unix_ms: 1,
                set: None,
            };
            let found = verify_folder_keyed(&storage, &options, &keys, Job::silent()).unwrap();
            assert_eq!((found.images.len(), found.strays.len()), (2, 0));
            assert!(found.images.iter().all(Checked::is_sound), "{:?}", found.images);
        }
        let keys = Keys::of(key(1));
        let folder = folder(&storage, &keys);
        for (n, point) in (1..).zip(&folder.sets[0].points) {
            let view = View::of_point(&storage, &folder.sets[0], point).unwrap();
            assert_eq!(view.image().superblock().features.has_data_parity(), parity);
            let (mut back, mut expected) = (vec![0; 10 * BLOCK], vec![0; 10 * BLOCK]);
            view.read_exact_at(&mut back, 0).unwrap();
            disk(n).read_exact_at(&mut expected, 0).unwrap();
            assert!(back == expected, "{mode:?}, point {n}");
        }
    }
}
