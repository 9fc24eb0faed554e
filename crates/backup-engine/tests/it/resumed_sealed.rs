//! Backups with a key go on with what an interrupted one has stored: with its key, in a session of
//! their own, and believing nothing that was not authenticated and compared.

use std::collections::HashMap;

use aiv_backup_engine::{BackupOptions, BackupPlan, BackupReport, Basis, Error, Mode};
use aiv_chain::{Depth, Folder, Trust, View, change_slots};
use aiv_image_format::{Image, Keys};
use aiv_keys::{KeyFile, NewSlot, Way};
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, Storage};

use crate::common::{BLOCK, apply, disk, read_all};
use crate::crashes::InSteps;
use crate::resumed::{content, interrupt, parts, plan_of, resuming};
use crate::sealed::{area, for_others, key, seal, sealed};

const MIB: u64 = 1 << 20;
pub(crate) const MODES: [Mode; 2] = [Mode::Sealed, Mode::Authenticated];

/// Of a source that has no image yet: its key would be number `fresh`, and those of `begun` were
/// opened in what interrupted backups left. The `n`-th run of a clock.
pub(crate) fn keyed(mode: Mode, fresh: u8, begun: &[u8], n: u8) -> BackupOptions {
    let mut options = sealed(fresh, &[]);
    let it = seal(&mut options);
    it.mode = Some(mode);
    it.begun = begun.iter().map(|n| (key(*n), area(&key(*n)))).collect();
    it.hedge.time_ns = u128::from(n) * 1_000_000;
    BackupOptions { seal: options.seal, ..resuming() }
}

pub(crate) fn plan(source: &MemDisk, options: &BackupOptions) -> BackupPlan {
    plan_of(source, options.clone(), None)
}

/// Whether the image of `report` is sound, has this key and mode, and holds `bytes`.
#[track_caller]
pub(crate) fn assert_right(
    storage: &MemStorage,
    report: &BackupReport,
    n: u8,
    mode: Mode,
    bytes: &[u8],
) {
    let keys = Keys::of(key(n)).required();
    let view = View::open_keyed(storage, &report.image, &keys, Job::silent()).unwrap();
    let found = match view.parent() {
        None => view.image().verify(Depth::Data, Job::silent()).unwrap(),
        Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()).unwrap(),
    };
    assert_eq!((found.damage, view.image().damage()), (vec![], &[][..]));
    assert_eq!(view.image().superblock().is_sealed(), mode == Mode::Sealed);
    assert_eq!(view.image().roots().unwrap().state, report.state_root);
    assert!(read_all(&view) == bytes);
    assert_eq!(parts(storage), [""; 0]);
    let (folder, _) = Folder::scan_keyed(storage, &keys, Trust::Files, Job::silent()).unwrap();
    assert!(folder.strays.is_empty(), "{:?}", folder.strays);
}

/// A folder with the first two MiB of the first backup of three MiB, with key 1.
fn interrupted(mode: Mode) -> (MemStorage, MemDisk, u64) {
    let source = disk(&content(192));
    let storage = MemStorage::new();
    let begun = plan(&source, &keyed(mode, 1, &[], 1));
    let blocks = interrupt(&source, &storage, &begun, 2 * MIB, 1);
    assert_eq!(parts(&storage).len(), 1);
    (storage, source, blocks)
}

#[test]
fn the_first_backup_with_a_key_goes_on_with_the_key_it_was_begun_with() {
    for mode in MODES {
        let (storage, source, blocks) = interrupted(mode);
        let part = parts(&storage).remove(0);
        let options = keyed(mode, 2, &[1], 2);
        let report = apply(&plan(&source, &options), &source, &storage, 2).unwrap();
        let resumed = report.resumed.clone().unwrap();
        assert_eq!(
            (&resumed.file, resumed.blocks, resumed.blocks_compared),
            (&part, blocks, blocks)
        );
        assert!(report.begins_key && report.verified && report.leftovers_removed.is_empty());
        assert_right(&storage, &report, 1, mode, &content(192));
        let image = Image::open_with(storage.open(&report.image).unwrap(), &Keys::of(key(1)));
        let image = image.unwrap();
        assert_eq!(image.meta().origins.len(), 2, "one session each");
        let [a, b] = image.slot_copies().unwrap().unwrap();
        assert!(*a == *area(&key(1)).to_bytes() && a == b);
        let whole = MemStorage::new();
        let plain = apply(&plan_of(&source, resuming(), None), &source, &whole, 3).unwrap();
        assert_eq!(report.state_root, plain.state_root);
        assert_eq!(report.totals.blocks_ref, plain.totals.blocks_ref, "blocks are found again");
    }
}

#[test]
fn who_cannot_open_what_was_begun_or_wants_something_else_begins_anew() {
    for mode in MODES {
        let other = MODES[usize::from(mode == Mode::Sealed)];
        let mut padded = keyed(mode, 2, &[1], 2);
        seal(&mut padded).padding = true;
        let others: [(BackupOptions, u8, Mode); 6] = [
            (keyed(mode, 2, &[], 2), 2, mode),
            (keyed(mode, 2, &[3], 2), 2, mode),
            (keyed(other, 2, &[1], 2), 2, other),
            (padded, 2, mode),
            (BackupOptions { deltas: false, ..keyed(mode, 2, &[1], 2) }, 2, mode),
            (BackupOptions { resume: false, ..keyed(mode, 2, &[1], 2) }, 2, mode),
        ];
        let (storage, source, _) = interrupted(mode);
        let count = if mode == Mode::Sealed { 6 } else { 3 };
        for (options, n, mode) in others.into_iter().take(count) {
            let storage = storage.fork();
            let report = apply(&plan(&source, &options), &source, &storage, 2).unwrap();
            assert!(report.resumed.is_none() && report.leftovers_removed.len() == 1);
            assert_right(&storage, &report, n, mode, &content(192));
        }
        // Nor does somebody without a key.
        let storage = storage.fork();
        let clear = plan_of(&source, resuming(), None);
        let report = apply(&clear, &source, &storage, 2).unwrap();
        assert!(report.resumed.is_none());
    }
}

#[test]
fn nothing_is_kept_that_nobody_here_could_go_on_with() {
    let source = disk(&content(192));
    let storage = MemStorage::new();
    let options = BackupOptions { seal: for_others().seal, ..resuming() };
    let gone = crate::resumed::GoneFrom(&source, 2 * MIB);
    let stopped = apply(&plan(&source, &options), &gone, &storage, 1);
    assert!(matches!(stopped, Err(Error::Source { .. })), "{stopped:?}");
    assert_eq!(storage.names(), [""; 0]);
    // What a kill left of one goes.
    let whole = MemStorage::new();
    let report = apply(&plan(&source, &options), &source, &whole, 1).unwrap();
    let bytes = whole.contents(&report.image).unwrap();
    storage.insert("killed.part", bytes[..bytes.len() / 2].to_vec());
    let report = apply(&plan(&source, &options), &source, &storage, 2).unwrap();
    assert_eq!(report.leftovers_removed, ["killed.part"]);
    assert!(report.resumed.is_none() && parts(&storage).is_empty());
}

#[test]
fn a_source_that_changed_is_backed_up_anew_whoever_vouches_for_it() {
    for mode in MODES {
        let (storage, _, blocks) = interrupted(mode);
        let mut bytes = content(192);
        bytes[5 * BLOCK + 99] ^= 1;
        let source = disk(&bytes);
        let anew = storage.fork();
        let options = keyed(mode, 2, &[1], 2);
        let report = apply(&plan(&source, &options), &source, &anew, 2).unwrap();
        let why = report.not_resumed.clone().unwrap();
        assert_eq!(why, format!("the source has changed since, at byte {}", 5 * BLOCK));
        assert_right(&anew, &report, 2, mode, &bytes);
        // A stamp does not keep it from being compared.
        let source = disk(&content(192));
        let storage = MemStorage::new();
        let begun = plan_of(&source, keyed(mode, 1, &[], 1), Some(b"inode 7"));
        interrupt(&source, &storage, &begun, 2 * MIB, 1);
        let again = plan_of(&source, options, Some(b"inode 7"));
        let report = apply(&again, &source, &storage, 2).unwrap();
        assert_eq!(report.resumed.clone().unwrap().blocks_compared, blocks);
        assert_right(&storage, &report, 1, mode, &content(192));
    }
}

/// A folder with a full image, and a backup of what changed since that was interrupted.
fn increment(mode: Mode) -> (MemStorage, Vec<u8>, BackupOptions, u64) {
    let mut bytes = content(192);
    let storage = MemStorage::new();
    let first = disk(&bytes);
    apply(&plan(&first, &keyed(mode, 1, &[], 1)), &first, &storage, 1).unwrap();
    for block in (5..192).step_by(6) {
        bytes[block * BLOCK + 11] ^= 1;
    }
    bytes.copy_within(0..BLOCK, 60 * BLOCK);
    bytes[90 * BLOCK..100 * BLOCK].fill(0);
    let mut options = keyed(mode, 2, &[], 2);
    seal(&mut options).keys = Keys::of(key(1));
    options.checkpoint_bytes = 1;
    let source = disk(&bytes);
    let blocks = interrupt(&source, &storage, &plan(&source, &options), 2 * MIB, 2);
    (storage, bytes, options, blocks)
}

#[test]
fn an_increment_with_a_key_goes_on_too() {
    for mode in MODES {
        let (storage, bytes, mut options, blocks) = increment(mode);
        let source = disk(&bytes);
        seal(&mut options).hedge.time_ns = 3;
        let report = apply(&plan(&source, &options), &source, &storage, 3).unwrap();
        assert_eq!(report.resumed.clone().unwrap().blocks, blocks);
        assert!(report.parent.is_some() && !report.begins_key);
        assert_right(&storage, &report, 1, mode, &bytes);
    }
}

#[test]
fn what_was_begun_with_older_key_slots_is_begun_anew() {
    for mode in MODES {
        let (storage, bytes, mut options, _) = increment(mode);
        // Somebody was locked out meanwhile.
        let change = |area: &aiv_keys::KeyArea| {
            let file = KeyFile::new(&[10; 32]).unwrap();
            let (way, random) = (Way::KeyFile(&file), &[8; NewSlot::RANDOM]);
            area.change(&key(1), 1, &NewSlot { way, label: "", created_unix_ms: 0, random })
        };
        let changed = change_slots(&storage, &key(1), &change, Job::silent()).unwrap().area;
        let source = disk(&bytes);
        seal(&mut options).hedge.time_ns = 3;
        let report = apply(&plan(&source, &options), &source, &storage, 3).unwrap();
        let why = report.not_resumed.clone().unwrap();
        assert!(report.resumed.is_none() && why.contains("key slots"), "{why}");
        assert_right(&storage, &report, 1, mode, &bytes);
        let image = Image::open(storage.open(&report.image).unwrap()).unwrap();
        let [a, b] = image.slot_copies().unwrap().unwrap();
        assert!(*a == *changed.to_bytes() && a == b);
    }
}

#[test]
fn the_session_is_a_new_one_even_when_random_numbers_and_time_come_again() {
    let (storage, source, _) = interrupted(Mode::Sealed);
    // The same ids, the same clock: only what is there already differs.
    let report = apply(&plan(&source, &keyed(Mode::Sealed, 2, &[1], 1)), &source, &storage, 1);
    let report = report.unwrap();
    assert!(report.resumed.is_some());
    let image = Image::open_with(storage.open(&report.image).unwrap(), &Keys::of(key(1))).unwrap();
    let origins = &image.meta().origins;
    assert!(origins.len() == 2 && origins[0] != origins[1]);
}

/// Frames of sealed images that were seen, by session, number and salt.
#[derive(Default)]
pub(crate) struct Nonces(HashMap<(Vec<u8>, u64, u32), [u8; 32]>, pub(crate) usize);

impl Nonces {
    /// Looks at every frame of every file.
    pub(crate) fn see(&mut self, storage: &MemStorage) {
        for name in storage.names() {
            let bytes = storage.contents(&name).unwrap();
            for at in (0..bytes.len().saturating_sub(64)).step_by(64) {
                let frame = &bytes[at..];
                // A sealed frame says nothing about its content.
                if !frame.starts_with(b"AVF1") || frame[32..44] != [0; 12] || frame[4] > 4 {
                    continue;
                }
                let number = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
                let end = 64 + number(44) as usize;
                let Some(payload) = frame.get(64..end) else { continue };
                let sum = crc32c::crc32c_append(crc32c::crc32c(b"aiv.load"), payload);
                if sum != number(48) {
                    continue;
                }
                let seq = u64::from_le_bytes(frame[24..32].try_into().unwrap());
                let pair = (frame[8..20].to_vec(), seq, number(20));
                let made = *blake3::hash(&frame[..end]).as_bytes();
                let before = self.0.insert(pair, made);
                self.1 += usize::from(before.is_some_and(|before| before != made));
            }
        }
    }
}

/// Blocks of a small disk: a few checkpoints.
const BLOCKS: usize = 26;

#[test]
fn after_a_power_cut_at_any_moment_a_backup_with_a_key_goes_on_and_repeats_no_nonce() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let run = |storage: &dyn Storage, mode, begun: &[u8], n: u8| {
        let options = keyed(mode, if begun.is_empty() { 1 } else { 2 }, begun, n);
        apply(&plan(&source, &options), &source, storage, n).unwrap()
    };
    for (mode, every) in [(Mode::Sealed, 83), (Mode::Authenticated, 61)] {
        let crash = CrashStorage::new();
        let report = run(&InSteps(crash.clone()), mode, &[], 1);
        crash.mark(report.image);
        let (mut states, mut resumed, mut nonces) = (0, 0, Nonces::default());
        for state in crash.crash_states(11, 60).step_by(every) {
            nonces.see(&state.storage);
            let mut options = keyed(mode, 2, &[1], 2);
            // An image that was acknowledged is built on.
            seal(&mut options).keys = Keys::of(key(1));
            let plan = plan(&source, &options);
            let again = CrashStorage::starting_from(&state.storage);
            let first = apply(&plan, &source, &InSteps(again.clone()), 2).unwrap();
            for second in again.crash_states(states, 2).step_by(17).take(4) {
                nonces.see(&second.storage);
                seal(&mut options).hedge.time_ns = 3;
                // Whichever key was published is one that what was given opens.
                seal(&mut options).keys.add(key(2));
                seal(&mut options).begun.push((key(2), area(&key(2))));
                let plan = plan_of(&source, options.clone(), None);
                let report = apply(&plan, &source, &second.storage, 3).unwrap();
                nonces.see(&second.storage);
                let opened = [1, 2, 3].into_iter().find(|n| {
                    let keys = Keys::of(key(*n)).required();
                    View::open_keyed(&second.storage, &report.image, &keys, Job::silent()).is_ok()
                });
                let keys = Keys::of(key(opened.unwrap())).required();
                let view = View::open_keyed(&second.storage, &report.image, &keys, Job::silent());
                assert!(read_all(&view.unwrap()) == bytes, "{state}, then {second}");
                assert_eq!(parts(&second.storage), [""; 0]);
            }
            assert!(state.acknowledged.is_empty() || first.parent.is_some(), "{state}");
            resumed += u32::from(first.resumed.is_some());
            states += 1;
        }
        assert!(states >= 4 && resumed >= 2, "{mode:?}: {states} states, {resumed} gone on with");
        let seen = nonces.0.len();
        assert!(
            nonces.1 == 0 && (seen > 100 || mode == Mode::Authenticated),
            "{} of {seen}",
            nonces.1
        );
    }
}

/// A folder with the beginning of a backup, and its bytes.
fn unfinished(source: &MemDisk, mode: Mode) -> MemStorage {
    let finished = MemStorage::new();
    let report = apply(&plan(source, &keyed(mode, 1, &[], 1)), source, &finished, 1).unwrap();
    let bytes = finished.contents(&report.image).unwrap();
    [("begun.part".to_owned(), bytes[..bytes.len() * 3 / 5].to_vec())].into_iter().collect()
}

#[test]
fn no_fault_while_a_backup_with_a_key_goes_on_gives_false_success_or_a_wrong_image() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let folder = unfinished(&source, Mode::Sealed);
    let again = plan(&source, &keyed(Mode::Sealed, 2, &[1], 2));
    let mut gone_on = 0;
    for fault in Fault::ALL {
        let mut at = 0;
        loop {
            let storage = FaultStorage::failing(folder.fork(), FaultPlan::once(at, fault));
            let done = apply(&again, &source, &storage, 2);
            let memory = storage.inner();
            match &done {
                Ok(report) => {
                    let n = if report.resumed.is_some() { 1 } else { 2 };
                    let keys = Keys::of(key(n)).required();
                    let view = View::open_keyed(memory, &report.image, &keys, Job::silent());
                    assert!(read_all(&view.unwrap()) == bytes);
                }
                Err(_) => assert!(storage.fired(), "{done:?}"),
            }
            gone_on += u32::from(done.is_ok_and(|report| report.resumed.is_some()));
            if !storage.fired() {
                assert!(at > 0, "{fault:?} hit nothing");
                break;
            }
            at += 5;
        }
    }
    assert!(gone_on >= 4, "{gone_on}");
}

/// Makes the checksums of everything fit that looks like a frame, and that of the superblock.
fn mend(bytes: &mut [u8]) {
    let crc = |salt: &[u8; 8], bytes: &[u8]| {
        crc32c::crc32c_append(crc32c::crc32c(salt), bytes).to_le_bytes()
    };
    let sum = crc(b"aiv.supr", &bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&sum);
    for at in (4096..bytes.len() - 64).step_by(64) {
        if bytes[at..].starts_with(b"AVF1") {
            let len = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
            if let Some(payload) = bytes.get(at + 64..at + 64 + len) {
                let sum = crc(b"aiv.load", payload);
                bytes[at + 48..at + 52].copy_from_slice(&sum);
            }
            let sum = crc(b"aiv.fram", &bytes[at..at + 60]);
            bytes[at + 60..at + 64].copy_from_slice(&sum);
        }
    }
}

#[test]
fn nothing_that_somebody_changed_in_what_was_begun_gets_into_an_image_with_a_key() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    for mode in MODES {
        let folder = unfinished(&source, mode);
        let part = folder.contents("begun.part").unwrap().to_vec();
        let again = plan(&source, &keyed(mode, 2, &[1], 2));
        let whole = apply(&plan_of(&source, resuming(), None), &source, &MemStorage::new(), 3);
        let root = whole.unwrap().state_root;
        let mut random = Random::new(&[mode as u64]);
        let (mut on, mut anew) = (0, 0);
        for round in 0..60 {
            let mut forged = part.clone();
            let frames: Vec<usize> = (36_864..forged.len() - 64)
                .step_by(64)
                .filter(|&at| forged[at..].starts_with(b"AVF1"))
                .collect();
            for _ in 0..=random.below(2) {
                let at = match random.below(4) {
                    // Ids, parent, length, time, session, token: what proves it is not there yet.
                    0 => [48, 64, 80, 96, 112, 160, 168, 176, 192, 1792][random.below(10)],
                    // Key slots.
                    1 => 4096 + random.below(32_768),
                    2 => frames[random.below(frames.len())] + 4 + random.below(50),
                    _ => frames[random.below(frames.len())] + 64 + random.below(400),
                };
                forged[at] ^= 1 << random.below(8);
            }
            if round % 10 == 9 {
                forged.clone_from(&part);
            }
            mend(&mut forged);
            let storage = MemStorage::new();
            storage.insert("begun.part", forged.clone());
            let report = apply(&again, &source, &storage, 2).unwrap();
            assert_eq!(report.state_root, root);
            let n = if report.resumed.is_some() { 1 } else { 2 };
            let keys = Keys::of(key(n)).required();
            let file = storage.open(&report.image).unwrap();
            let image = Image::open_with(file, &keys).unwrap();
            assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
            match report.resumed {
                Some(_) => {
                    // All that was kept is as it was written, the superblock and its slots too.
                    let new = storage.contents(&report.image).unwrap();
                    assert!(new[..36_864] == part[..36_864], "round {round}");
                    on += 1;
                }
                None => anew += 1,
            }
        }
        assert!(on >= 6 && anew >= 20, "{mode:?}: {on} {anew}");
        // As a whole: another image of this key, with its own token, in the place of it.
        let mut other = keyed(mode, 1, &[], 7);
        other.comment = "other".to_owned();
        let storage = MemStorage::new();
        let gone = crate::resumed::GoneFrom(&source, 20 * BLOCK as u64);
        let _ = apply(&plan(&source, &other), &gone, &storage, 7);
        let mut spliced = part.clone();
        if let Some(name) = parts(&storage).pop() {
            let theirs = storage.contents(&name).unwrap();
            spliced[..4096].copy_from_slice(&theirs[..4096]);
            let storage = MemStorage::new();
            storage.insert("begun.part", spliced);
            let report = apply(&again, &source, &storage, 2).unwrap();
            assert!(report.resumed.is_none(), "frames of another session");
        }
    }
}

#[test]
fn a_full_image_of_a_set_with_a_key_goes_on_with_that_key() {
    let source = disk(&content(192));
    let storage = MemStorage::new();
    apply(&plan(&source, &keyed(Mode::Sealed, 1, &[], 1)), &source, &storage, 1).unwrap();
    let mut full = keyed(Mode::Sealed, 2, &[], 2);
    seal(&mut full).keys = Keys::of(key(1));
    full.basis = Basis::Nothing;
    let blocks = interrupt(&source, &storage, &plan(&source, &full), 2 * MIB, 2);
    seal(&mut full).hedge.time_ns = 3;
    let report = apply(&plan(&source, &full), &source, &storage, 3).unwrap();
    assert_eq!(report.resumed.clone().unwrap().blocks, blocks);
    assert!(report.parent.is_none() && !report.begins_key);
    assert_right(&storage, &report, 1, Mode::Sealed, &content(192));
}
