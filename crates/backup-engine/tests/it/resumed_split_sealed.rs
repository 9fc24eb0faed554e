//! Backups with a key that are split, or have parity, go on as others with a key do.

use aiv_backup_engine::{BackupOptions, Mode};
use aiv_chain::View;
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{Image, Keys};
use aiv_testkit::{CrashStorage, MemStorage, Random};
use aiv_volume_io::{Job, Storage};

use crate::common::{BLOCK, apply, disk, read_all};
use crate::crashes::InSteps;
use crate::resumed::{content, interrupt, parts};
use crate::resumed_sealed::{MODES, Nonces, assert_right, keyed, plan};
use crate::resumed_split::killed;
use crate::sealed::{area, key, seal};

const MIB: u64 = 1 << 20;

/// As `options`, split, with parity, and both.
fn ways(options: &BackupOptions) -> Vec<BackupOptions> {
    let split = BackupOptions { split: Some(SEGMENT_BYTES_MIN), ..options.clone() };
    let parity = BackupOptions { parity: true, ..options.clone() };
    vec![BackupOptions { parity: true, ..split.clone() }, split, parity]
}

#[test]
fn the_first_backup_with_a_key_goes_on_with_that_key_also_when_it_is_split_or_has_parity() {
    let bytes = content(96);
    let source = disk(&bytes);
    for mode in MODES {
        let again = ways(&keyed(mode, 2, &[1], 2));
        for (begun, again) in ways(&keyed(mode, 1, &[], 1)).iter().zip(&again) {
            let storage = MemStorage::new();
            let blocks = interrupt(&source, &storage, &plan(&source, begun), MIB, 1);
            assert_eq!(parts(&storage).len() > 4, begun.split.is_some());
            let report = apply(&plan(&source, again), &source, &storage, 2).unwrap();
            let resumed = report.resumed.clone().unwrap();
            assert_eq!((resumed.blocks, resumed.blocks_compared), (blocks, blocks));
            assert!(report.begins_key && report.leftovers_removed.is_empty());
            assert_right(&storage, &report, 1, mode, &bytes);
            // Who cannot open it begins anew, and leaves nothing of it.
            let storage = MemStorage::new();
            interrupt(&source, &storage, &plan(&source, begun), MIB, 1);
            let left = parts(&storage).len();
            let mut other = again.clone();
            seal(&mut other).begun.clear();
            let report = apply(&plan(&source, &other), &source, &storage, 2).unwrap();
            assert_eq!((report.resumed.is_some(), report.leftovers_removed.len()), (false, left));
            assert_right(&storage, &report, 2, mode, &bytes);
        }
    }
}

#[test]
fn an_increment_with_a_key_that_is_split_goes_on_too() {
    let before = content(192);
    let first = disk(&before);
    for mode in MODES {
        for way in 0..3 {
            let storage = MemStorage::new();
            let full = plan(&first, &ways(&keyed(mode, 1, &[], 1))[way]);
            apply(&full, &first, &storage, 1).unwrap();
            let mut bytes = before.clone();
            for block in (5..192).step_by(3) {
                bytes[block * BLOCK + 11] ^= 1;
            }
            let source = disk(&bytes);
            let mut options = ways(&keyed(mode, 2, &[], 2)).swap_remove(way);
            seal(&mut options).keys = Keys::of(key(1));
            options.checkpoint_bytes = 1;
            let blocks = interrupt(&source, &storage, &plan(&source, &options), 2 * MIB, 2);
            seal(&mut options).hedge.time_ns = 3;
            let report = apply(&plan(&source, &options), &source, &storage, 3).unwrap();
            assert_eq!(report.resumed.clone().unwrap().blocks, blocks);
            assert!(report.parent.is_some() && !report.begins_key);
            assert_right(&storage, &report, 1, mode, &bytes);
        }
    }
}

#[test]
fn after_a_power_cut_at_any_moment_a_split_backup_with_a_key_goes_on_and_repeats_no_nonce() {
    let bytes = content(26);
    let source = disk(&bytes);
    let begun = ways(&keyed(Mode::Sealed, 1, &[], 1)).swap_remove(0);
    let crash = CrashStorage::new();
    let report = apply(&plan(&source, &begun), &source, &InSteps(crash.clone()), 1).unwrap();
    crash.mark(report.image);
    let (mut states, mut resumed, mut nonces) = (0, 0, Nonces::default());
    let begun = crash.crash_states(17, 20).filter(|state| parts(&state.storage).len() >= 4);
    for state in begun.step_by(149).take(8) {
        nonces.see(&state.storage);
        let mut options = ways(&keyed(Mode::Sealed, 2, &[1], 2)).swap_remove(0);
        seal(&mut options).keys = Keys::of(key(1));
        let again = CrashStorage::starting_from(&state.storage);
        let plan_of = plan(&source, &options);
        let first = apply(&plan_of, &source, &InSteps(again.clone()), 2).unwrap();
        for second in again.crash_states(states, 2).step_by(67).take(2) {
            nonces.see(&second.storage);
            seal(&mut options).hedge.time_ns = 3;
            seal(&mut options).keys.add(key(2));
            seal(&mut options).begun.push((key(2), area(&key(2))));
            let plan = plan(&source, &options);
            let report = apply(&plan, &source, &second.storage, 3).unwrap();
            nonces.see(&second.storage);
            let mut keys = Keys::of(key(1)).required();
            keys.add(key(2));
            let view = View::open_keyed(&second.storage, &report.image, &keys, Job::silent());
            assert!(read_all(&view.unwrap()) == bytes, "{state}, then {second}");
        }
        assert!(state.acknowledged.is_empty() || first.parent.is_some(), "{state}");
        resumed += u32::from(first.resumed.is_some());
        states += 1;
    }
    assert!(states >= 4 && resumed >= 2, "{states} states, {resumed} gone on with");
    assert_eq!(nonces.1, 0);
}

#[test]
fn nothing_that_somebody_changed_in_a_segment_gets_into_an_image_with_a_key() {
    let bytes = content(40);
    let source = disk(&bytes);
    for mode in MODES {
        let begun = ways(&keyed(mode, 1, &[], 1)).swap_remove(0);
        let again = plan(&source, &ways(&keyed(mode, 2, &[1], 2))[0]);
        let folder = killed(&source, &begun, 3);
        let blocks = apply(&again, &source, &folder.fork(), 2).unwrap().resumed.unwrap().blocks;
        let mut random = Random::new(&[mode as u64, 5]);
        let (mut on, mut less) = (0, 0);
        for _ in 0..20 {
            let storage = folder.fork();
            let names = parts(&storage);
            let name = &names[random.below(names.len())];
            let mut file = storage.contents(name).unwrap().to_vec();
            let at = random.below(file.len());
            file[at] ^= 1 << random.below(8);
            storage.insert(name, file);
            let report = apply(&again, &source, &storage, 2).unwrap();
            let n = if report.resumed.is_some() { 1 } else { 2 };
            let keys = Keys::of(key(n)).required();
            let view = View::open_keyed(&storage, &report.image, &keys, Job::silent()).unwrap();
            assert!(view.image().verify(aiv_chain::Depth::Data, Job::silent()).unwrap().is_sound());
            assert!(read_all(&view) == bytes);
            match report.resumed {
                Some(resumed) if resumed.blocks == blocks => on += 1,
                _ => less += 1,
            }
        }
        assert!(less >= 10, "{mode:?}: {on} {less}");
    }
}

#[test]
fn what_is_made_for_recipients_is_not_gone_on_with_in_segments_either() {
    let source = disk(&content(96));
    let storage = MemStorage::new();
    let others = crate::sealed::for_others().seal;
    let options = ways(&BackupOptions { seal: others, ..crate::resumed::resuming() });
    for options in options {
        let gone = crate::resumed::GoneFrom(&source, MIB);
        let stopped = apply(&plan(&source, &options), &gone, &storage, 1);
        assert!(matches!(stopped, Err(aiv_backup_engine::Error::Source { .. })), "{stopped:?}");
        assert_eq!(storage.names(), [""; 0]);
    }
    let sealed = ways(&keyed(Mode::Sealed, 1, &[], 1)).swap_remove(2);
    let report = apply(&plan(&source, &sealed), &source, &storage, 2).unwrap();
    let file = storage.open(&report.image).unwrap();
    assert!(Image::open_with(file, &Keys::of(key(1))).is_ok());
}
