//! Differences to blocks of the same image, merged: copied while all they build on is there,
//! stored anew when it is not.

use std::collections::HashSet;

use aiv_chain::{ConsolidationPlan, Keep, Kind, View};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{IndexEntry, Mode};
use aiv_testkit::disks::Content;
use aiv_testkit::{CrashState, CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Job, Storage};

use crate::chain_maker::{self, Way, point};
use crate::common::{BLOCK, verify_all};
use crate::consolidate::{consolidate, consolidate_with, frame, ids, keep};
use crate::described::{Chain, Change, Step, entries, read_all, wrong};
use crate::merge_crashes::{check_states, finished};
use crate::sealed::{keys, scan, seal};
use crate::sealed_merges::{consolidating, plainly};
use crate::transfers::archive_point;
use crate::wrappers::InSteps;

const LEN: u64 = 6 * BLOCK as u64;

fn kinds(entries: &[IndexEntry]) -> Vec<Kind> {
    entries.iter().map(|entry| entry.kind).collect()
}

/// The depth that the frame of an entry states in its header.
fn stated(storage: &dyn Storage, file: &str, entry: &IndexEntry) -> u8 {
    frame(storage, file, entry)[7]
}

/// Merges all points into the newest, which has to read as before; returns folder before, file
/// and entries.
fn merged(chain: &Chain) -> (MemStorage, String, Vec<IndexEntry>) {
    let before = chain.storage.fork();
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    let file = report.merged[0].file.clone();
    assert_eq!(wrong(&chain.storage, chain.points.last().unwrap()), None);
    let (checked, _) = verify_all(&chain.storage);
    assert!(checked.iter().all(aiv_chain::Checked::is_sound));
    let new = entries(&chain.storage, &file);
    (before, file, new)
}

/// Three blocks stored whole, two across them, and one more.
fn full() -> Step {
    Step::full(LEN, &[(Change::New(1), 3), (Change::Shifted(0), 1), (Change::Shifted(1), 1)])
}

const FULL: [Kind; 6] = [Kind::Data, Kind::Data, Kind::Data, Kind::Local, Kind::Local, Kind::Data];

#[test]
fn differences_of_the_newest_image_are_copied_as_they_are() {
    let changes = [(Change::New(2), 2), (Change::Shifted(0), 1)];
    let chain = Chain::of(&[full(), Step::on(1, LEN, &changes)]);
    assert_eq!(kinds(&entries(&chain.storage, "p001.aiv")), FULL);
    let old = entries(&chain.storage, "p002.aii");
    assert_eq!(kinds(&old), [Kind::Data, Kind::Data, Kind::Local]);
    let (before, file, new) = merged(&chain);
    assert_eq!(new[2].kind, Kind::Local);
    let copied = frame(&chain.storage, &file, &new[2]);
    assert!(copied == frame(&before, "p002.aii", &old[2]));
}

#[test]
fn a_difference_of_which_one_base_has_changed_since_is_stored_anew_with_its_depth() {
    // Block 3 lies across 0 and 1, block 4 across 1 and 2.
    for (changed, kept) in [(0, [false, true]), (1, [false, false]), (2, [true, false])] {
        let changes = [(Change::Keep, changed), (Change::New(9), 1)];
        let chain = Chain::of(&[full(), Step::on(1, LEN, &changes)]);
        let old = entries(&chain.storage, "p001.aiv");
        let (before, file, new) = merged(&chain);
        for (at, is_kept) in [3, 4].into_iter().zip(kept) {
            let kind = if is_kept { Kind::Local } else { Kind::Data };
            assert_eq!(new[at].kind, kind, "block {at} without {changed}");
            let copied = frame(&chain.storage, &file, &new[at]);
            assert_eq!(copied == frame(&before, "p001.aiv", &old[at]), is_kept);
            assert_eq!(stated(&chain.storage, &file, &new[at]), u8::from(!is_kept));
        }
    }
}

#[test]
fn bases_that_are_zeros_or_differences_or_left_out_by_now_are_none() {
    for change in [Change::Zero, Change::Patch(3), Change::Excluded, Change::PartlyUnreadable(1)] {
        let chain = Chain::of(&[full(), Step::on(1, LEN, &[(Change::Keep, 1), (change, 1)])]);
        let (_, file, new) = merged(&chain);
        assert_eq!([new[3].kind, new[4].kind], [Kind::Data; 2], "{change:?}");
        assert_eq!(stated(&chain.storage, &file, &new[3]), 1);
    }
}

#[test]
fn a_base_that_was_written_again_with_the_same_bytes_will_do() {
    let changes = [(Change::Keep, 1), (Change::Rewritten(0), 1)];
    let chain = Chain::of(&[full(), Step::on(1, LEN, &changes)]);
    let (_, _, new) = merged(&chain);
    assert_eq!([new[3].kind, new[4].kind], [Kind::Local; 2]);
}

#[test]
fn a_base_that_became_a_repetition_of_a_block_before_it_will_do() {
    // Block 0 has the bytes of block 2 now, whose frame is copied for it.
    let chain = Chain::of(&[full(), Step::on(1, LEN, &[(Change::Moved(2), 1)])]);
    let (_, _, new) = merged(&chain);
    assert_eq!(kinds(&new[..3]), [Kind::Ref, Kind::Data, Kind::Ref]);
    assert_eq!([new[3].kind, new[4].kind], [Kind::Data, Kind::Local]);
}

#[test]
fn a_copy_of_a_difference_is_stored_whole_with_its_depth() {
    let changes = [(Change::Keep, 5), (Change::Moved(3), 1)];
    let chain = Chain::of(&[full(), Step::on(1, LEN, &changes)]);
    let (_, file, new) = merged(&chain);
    assert_eq!(kinds(&new)[3..], [Kind::Local, Kind::Local, Kind::Data]);
    assert_eq!(stated(&chain.storage, &file, &new[5]), 1);
}

#[test]
fn differences_to_one_are_two_deep_and_stay_readable_whatever_is_merged() {
    let on = |changes: &[(Change, u8)]| Step::on(1, LEN, changes);
    let steps = [
        full(),
        on(&[(Change::Keep, 3), (Change::Patch(1), 1)]),
        on(&[(Change::New(4), 1), (Change::Keep, 4), (Change::Shifted(0), 1)]),
        on(&[(Change::Keep, 3), (Change::Patch(2), 1), (Change::Keep, 1), (Change::Patch(3), 1)]),
        on(&[(Change::Keep, 3), (Change::Patch(4), 1), (Change::Keep, 1), (Change::Patch(5), 1)]),
    ];
    for kept in [&[][..], &[1], &[2], &[1, 2], &[1, 3], &[2, 3], &[1, 2, 3], &[4]] {
        let mut chain = Chain::of(&steps);
        consolidate(&chain.storage, &keep(1, kept)).unwrap();
        chain.add(&on(&[(Change::Keep, 3), (Change::Patch(6), 1), (Change::Patch(7), 1)]));
        for (at, built) in chain.points.iter().enumerate() {
            if at >= 4 || kept.contains(&(at + 1)) {
                assert_eq!(wrong(&chain.storage, built), None, "{kept:?}");
            }
        }
    }
}

#[test]
fn a_merge_of_increments_keeps_differences_and_needs_no_parent_to_read_them() {
    let steps = [
        full(),
        Step::on(1, LEN, &[(Change::New(2), 2), (Change::Shifted(0), 1), (Change::Shifted(1), 1)]),
        Step::on(1, LEN, &[(Change::Keep, 4), (Change::New(3), 1), (Change::Shifted(0), 1)]),
    ];
    let chain = Chain::of(&steps);
    let report = consolidate(&chain.storage, &keep(1, &[1])).unwrap();
    let file = &report.merged[0].file;
    assert_eq!(wrong(&chain.storage, &chain.points[2]), None);
    let new = entries(&chain.storage, file);
    let [data, local] = [Kind::Data, Kind::Local];
    assert_eq!(kinds(&new), [data, data, local, local, data, local]);
    let image = aiv_chain::Image::open(chain.storage.open(file).unwrap()).unwrap();
    assert!(image.superblock().parent.is_some());
    for block in [2, 3, 5] {
        image.block_reader().read(block, &mut vec![0; BLOCK]).unwrap();
    }
}

#[test]
fn an_archive_of_a_full_image_has_the_same_differences() {
    let chain = Chain::of(&[full()]);
    let to = MemStorage::new();
    let file = archive_point(&chain.storage, 1, &to).unwrap().file;
    assert_eq!(kinds(&entries(&to, &file)), FULL);
    assert_eq!(wrong(&to, &chain.points[0]), None);
}

/// Merges all points of a folder into the newest, with ids from a seed.
type MergeAll = dyn Fn(&dyn Storage, u8) -> aiv_chain::Result<()>;
/// What is wrong with the newest point of a folder.
type Judge = dyn Fn(&dyn Storage) -> Option<String>;

/// A folder, how it is merged, and what is wrong with its newest point.
struct Folder {
    storage: MemStorage,
    merge: Box<MergeAll>,
    wrong: Box<Judge>,
}

/// Points of which the newest has some of the differences of the first.
fn plain(split: Option<u64>) -> Folder {
    let len = 12 * BLOCK as u64 + 512;
    let changes = [(Change::New(1), 6), (Change::Shifted(0), 2), (Change::Shifted(3), 3)];
    let steps = [
        Step::full(len, &changes),
        Step::on(1, len, &[(Change::New(2), 1), (Change::Patch(1), 1), (Change::Shifted(0), 1)]),
        Step::on(1, len, &[(Change::Keep, 8), (Change::New(3), 2), (Change::Shifted(1), 1)]),
    ];
    let chain = match split {
        None => Chain::of(&steps),
        Some(bytes) => Chain::split(bytes, &steps),
    };
    Folder {
        storage: chain.storage.fork(),
        merge: Box::new(|storage, seed| consolidate_with(storage, &keep(1, &[]), seed).map(drop)),
        wrong: Box::new(move |storage| wrong(storage, &chain.points[2])),
    }
}

/// The disk at one time: every third block lies across the two before it.
fn disk(number: u8) -> Vec<u8> {
    let mut bytes = Content::Random(1).bytes(12 * BLOCK);
    for change in 0..number {
        let at = usize::from(change) * 3 * BLOCK;
        let new = Content::Random(u64::from(change) + 7).bytes(2 * BLOCK);
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    for at in (2..12).step_by(3).map(|block| block * BLOCK) {
        bytes.copy_within(at - 2 * BLOCK + BLOCK / 2..at - BLOCK / 2, at);
    }
    bytes
}

fn sealed(split: Option<u64>) -> Folder {
    let storage = MemStorage::new();
    for number in 1..=3u8 {
        let ways = vec![Way::Thrifty, Way::Thrifty, Way::Local];
        let new = chain_maker::Step::new(number.into(), disk(number));
        let step = chain_maker::Step { seal: seal(Mode::Sealed), split, ways, ..new };
        let parent = (number > 1).then(|| {
            let file = format!("{}.aiv", number - 1);
            View::open_keyed(&storage, &file, &keys(), Job::silent()).unwrap()
        });
        step.write(&storage, &format!("{number}.aiv"), parent.as_ref());
    }
    let newest = |storage: &dyn Storage| {
        let folder = scan(storage, &keys());
        let set = folder.sets.into_iter().next().ok_or("the set is gone")?;
        let newest = set.point(point(3)).ok_or("the newest point is gone")?;
        View::of_point(storage, &set, newest).map_err(|error| error.to_string())
    };
    Folder {
        storage,
        merge: Box::new(move |storage, seed| {
            let folder = scan(storage, &keys());
            let keep = Keep { newest: 1, ..Keep::default() };
            let plan = ConsolidationPlan::new(storage, &folder.sets[0], &keep, Job::silent())?;
            plan.apply(storage, &consolidating(plainly()), &mut ids(seed), Job::silent()).map(drop)
        }),
        wrong: Box::new(move |storage| match newest(storage) {
            Ok(view) if read_all(&view) == disk(3) => None,
            Ok(_) => Some("the newest point reads other bytes".to_owned()),
            Err(why) => Some(why),
        }),
    }
}

/// In one file, and in several.
const SPLITS: [Option<u64>; 2] = [None, Some(SEGMENT_BYTES_MIN)];

/// Blocks that the image of a folder with one point has as differences to its own.
fn locals(storage: &MemStorage) -> u64 {
    let folder = scan(storage, &keys());
    let point = folder.sets[0].points.last().unwrap();
    let view = View::of_point(storage, &folder.sets[0], point).unwrap();
    view.image().trailer().totals.blocks_local
}

#[test]
fn a_power_cut_at_any_moment_of_a_merge_leaves_the_newest_point_whole() {
    SPLITS.map(plain).iter().for_each(crashes);
}

#[test]
fn nor_does_one_lose_it_when_it_is_sealed() {
    SPLITS.map(sealed).iter().for_each(crashes);
}

#[test]
fn no_fault_in_a_merge_loses_the_newest_point() {
    SPLITS.map(plain).iter().for_each(faults);
}

#[test]
fn no_fault_in_a_merge_loses_it_when_it_is_sealed() {
    SPLITS.map(sealed).iter().for_each(faults);
}

fn crashes(folder: &Folder) {
    let crash = CrashStorage::starting_from(&folder.storage);
    (folder.merge)(&InSteps(crash.clone()), 0xa0).unwrap();
    crash.mark("done");
    let (mut number, mut merged, mut known) = (0, 0, HashSet::new());
    let count = check_states(crash.crash_states(31, 8), |state: &CrashState| {
        let storage = &state.storage;
        let say = |why| Err(format!("{why}, of {:?}", storage.names()));
        // Most states differ in unfinished files only.
        if known.insert(finished(storage).1) {
            (folder.wrong)(storage).map_or(Ok(()), say)?;
        }
        number += 1;
        if number % 101 == 0 {
            (folder.merge)(storage, 0xa1).map_err(|error| format!("again: {error:?}"))?;
            (folder.wrong)(storage).map_or(Ok(()), say)?;
            if locals(storage) == 0 {
                return Err("no difference was copied".to_owned());
            }
            merged += 1;
        }
        Ok(())
    });
    let count = count.unwrap();
    assert!(count > 200 && merged > 1, "{count} states, {merged} merged again");
}

fn faults(folder: &Folder) {
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds, Fault::RenameFails] {
        let mut fired = 0;
        for at in 0.. {
            let plan = FaultPlan::once(at * 41, fault);
            let storage = FaultStorage::failing(folder.storage.fork(), plan);
            let done = (folder.merge)(&storage, 0xa0);
            let inner = storage.inner();
            assert_eq!((folder.wrong)(inner), None, "{plan:?}");
            if !storage.fired() {
                done.unwrap();
                break;
            }
            fired += 1;
            (folder.merge)(inner, 0xa1).unwrap();
            assert_eq!((folder.wrong)(inner), None, "{plan:?}, merged again");
        }
        assert!(fired > 0, "{fault:?} hit nothing");
    }
}
