//! Backups with a key: full images and increments, and no image without one by mistake.

use aiv_backup_engine::{BackupIds, BackupOptions, BackupReport, Basis, Error, Refusal};
use aiv_chain::{Folder, ImageKind, Protection, Trust, View};
use aiv_image_format::meta::Inventory;
use aiv_image_format::{ChainKey, Depth, Digest, GroupId, Image, Keys, Mode, Seal};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::common::{BLOCK, all_sectors, disk, numbered_blocks, read_all, threads, try_backup};

fn key() -> ChainKey {
    ChainKey::new([0x33; 32])
}

fn keys() -> Keys {
    Keys::of(key())
}

/// A chain begins.
fn first(mode: Mode) -> BackupOptions {
    let seal = Some(Seal { mode, ..Seal::new(key(), 0) });
    BackupOptions { seal, keys: keys(), verify: true, threads: threads(2), ..all_sectors() }
}

/// The next one, with what opens the others.
fn next() -> BackupOptions {
    BackupOptions { keys: keys(), verify: true, threads: threads(3), ..all_sectors() }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

#[track_caller]
fn check(storage: &MemStorage, report: &BackupReport, bytes: &[u8], mode: Mode) {
    let view = View::open_keyed(storage, &report.image, &keys(), Job::silent()).unwrap();
    assert!(read_all(&view) == bytes, "{} reads as the disk did", report.image);
    let commitment = Digest(key().commitment());
    let wanted = match mode {
        Mode::Sealed => Protection::Sealed(commitment),
        Mode::Authenticated => Protection::Authenticated(commitment),
    };
    assert_eq!(Protection::of(view.image().superblock()), wanted);
    let found = match view.parent() {
        None => view.image().verify(Depth::Data, Job::silent()),
        Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()),
    };
    assert_eq!(found.unwrap().damage, []);
    let plain = crate::common::backup(&disk(bytes), all_sectors());
    assert_eq!(report.state_root, plain.report.state_root, "the state has one name");
}

#[test]
fn a_full_image_and_increments_with_differences_have_the_key_of_their_chain() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = MemStorage::new();
        let mut bytes = noise(1, 300 * BLOCK);
        let full = try_backup(&disk(&bytes), &storage, first(mode), 1).unwrap();
        check(&storage, &full, &bytes, mode);
        for number in 2..5u8 {
            bytes[usize::from(number) * 7 * BLOCK + 4096..][..512].fill(number);
            bytes.copy_within(0..BLOCK, usize::from(number) * BLOCK);
            let report = try_backup(&disk(&bytes), &storage, next(), number).unwrap();
            assert_eq!(report.kind, ImageKind::Incremental);
            assert!(report.totals.blocks_delta > 0, "{:?}", report.totals);
            check(&storage, &report, &bytes, mode);
        }
    }
}

#[test]
fn a_sealed_image_is_the_same_whatever_the_threads_do() {
    let bytes = noise(2, 500 * BLOCK);
    let make = |count| {
        let storage = MemStorage::new();
        let options = BackupOptions { threads: threads(count), ..first(Mode::Sealed) };
        let report = try_backup(&disk(&bytes), &storage, options, 1).unwrap();
        storage.contents(&report.image).unwrap()
    };
    let alone = make(1);
    assert!([2, 4, 7].into_iter().all(|count| make(count) == alone));
}

#[test]
fn without_the_key_of_the_images_that_are_there_nothing_is_written() {
    let storage = MemStorage::new();
    let bytes = numbered_blocks(40);
    try_backup(&disk(&bytes), &storage, first(Mode::Sealed), 1).unwrap();
    let before = storage.list().unwrap().len();
    let wrong = Keys::of(ChainKey::new([1; 32]));
    for (keys, basis) in
        [(Keys::none(), Basis::Newest), (Keys::none(), Basis::Nothing), (wrong, Basis::Newest)]
    {
        let options = BackupOptions { keys, basis, ..all_sectors() };
        let error = try_backup(&disk(&bytes), &storage, options, 2).unwrap_err();
        assert!(matches!(error, Error::Refused(Refusal::Locked { .. })), "{error}");
        assert!(error.to_string().contains("not given"), "{error}");
        assert_eq!(storage.list().unwrap().len(), before);
    }
}

#[test]
fn a_later_full_image_has_the_key_of_the_set_too() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = MemStorage::new();
        let bytes = numbered_blocks(40);
        try_backup(&disk(&bytes), &storage, first(mode), 1).unwrap();
        let options = BackupOptions { basis: Basis::Nothing, ..next() };
        let report = try_backup(&disk(&bytes), &storage, options, 2).unwrap();
        assert_eq!(report.kind, ImageKind::Full);
        check(&storage, &report, &bytes, mode);
    }
}

#[test]
fn a_new_key_begins_a_chain_of_its_own() {
    let storage = MemStorage::new();
    let bytes = numbered_blocks(40);
    let plain = try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    let sealed = try_backup(&disk(&bytes), &storage, first(Mode::Sealed), 2).unwrap();
    assert_eq!((plain.kind, sealed.kind), (ImageKind::Full, ImageKind::Full));
    check(&storage, &sealed, &bytes, Mode::Sealed);
    let again = try_backup(&disk(&bytes), &storage, first(Mode::Sealed), 3).unwrap();
    assert_eq!(again.parent, Some(sealed.recovery_point), "the same key goes on");
    let other = ChainKey::new([0x77; 32]);
    let seal = Some(Seal::new(other.clone(), 0));
    // Without the key of the others: they are locked, and nothing is wrong with them.
    let options = BackupOptions { seal, keys: Keys::of(other.clone()), ..all_sectors() };
    let report = try_backup(&disk(&bytes), &storage, options, 4).unwrap();
    assert_eq!((report.kind, report.lost.len()), (ImageKind::Full, 0));
    let file = storage.open(&report.image).unwrap();
    assert!(Image::open_with(file, &Keys::of(other)).unwrap().is_authentic());
}

#[test]
fn padding_goes_on_with_the_option() {
    let storage = MemStorage::new();
    let bytes = numbered_blocks(40);
    let options = BackupOptions { padding: true, ..first(Mode::Sealed) };
    let padded = try_backup(&disk(&bytes), &storage, options, 1).unwrap();
    let storage = MemStorage::new();
    let bare = try_backup(&disk(&bytes), &storage, first(Mode::Sealed), 1).unwrap();
    assert!(padded.totals.payload_bytes > bare.totals.payload_bytes);
}

#[test]
fn no_session_comes_again_where_random_numbers_do() {
    let ids = BackupIds::new(&[5; BackupIds::RANDOM_LEN], GroupId([0; 16]), 1);
    let make = |time, place| {
        let storage = MemStorage::new();
        let bytes = numbered_blocks(3);
        let plan = crate::common::plan(&disk(&bytes), first(Mode::Sealed));
        let ids = ids.hedged(time, place);
        let (disk, nothing) = (disk(&bytes), Inventory::default());
        let report = plan.apply(&disk, &storage, &ids, &nothing, None, Job::silent()).unwrap();
        let (folder, _) =
            Folder::scan_keyed(&storage, &keys(), Trust::Files, Job::silent()).unwrap();
        assert_eq!(folder.sets[0].points.len(), 1);
        Image::open(storage.open(&report.image).unwrap()).unwrap().superblock().session
    };
    let sessions = [make(1, "a"), make(2, "a"), make(1, "b")];
    assert!(sessions[0] != sessions[1] && sessions[0] != sessions[2]);
    assert_eq!(sessions[0], make(1, "a"));
}
