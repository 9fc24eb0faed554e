//! Points that nobody wants any more go into the ones that follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aiv_chain::{
    ConsolidateOptions, ConsolidationPlan, ConsolidationReport, Error, Keep, Kind, LeftReason,
    MERGE_PART, MergeIds, MergeOptions, PointId, Result, View, archive,
};
use aiv_image_format::{
    Compression, DELTA_DEPTH_WRITTEN, Features, Image, ImageKind, IndexEntry, SPECIFICATION,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};
use proptest::prelude::*;

use crate::common::{BLOCK, damage, verify_all};
use crate::described::{
    Chain, Change, SET, Step, arb_steps, entries, point_id, read_all, set_of, view, wrong,
};
use crate::transfers::archive_point;

pub(crate) fn options() -> ConsolidateOptions {
    ConsolidateOptions {
        compression: Compression::Zstd(1),
        parity: false,
        split: None,
        patience: Duration::ZERO,
    }
}

/// Ids that never repeat, from `seed` on.
pub(crate) fn ids(seed: u8) -> impl FnMut() -> MergeIds {
    let mut next = 0u8;
    move || {
        next += 1;
        let mut random = [seed; MergeIds::RANDOM_LEN];
        (random[0], random[16], random[28]) = (next, next, next);
        MergeIds::new(&random, 5)
    }
}

pub(crate) fn keep(newest: usize, points: &[usize]) -> Keep {
    Keep { newest, points: points.iter().map(|&number| point_id(number)).collect() }
}

pub(crate) fn plan(storage: &dyn Storage, keep: &Keep) -> Result<ConsolidationPlan> {
    let folder = aiv_chain::Folder::scan(storage, Job::silent())?;
    let Some(set) = folder.set(SET) else {
        return Err(Error::NoSuchPoint { wanted: "the set".to_owned() });
    };
    ConsolidationPlan::new(storage, set, keep, Job::silent())
}

pub(crate) fn consolidate(storage: &dyn Storage, keep: &Keep) -> Result<ConsolidationReport> {
    consolidate_with(storage, keep, 0xa0)
}

pub(crate) fn consolidate_with(
    storage: &dyn Storage,
    keep: &Keep,
    seed: u8,
) -> Result<ConsolidationReport> {
    plan(storage, keep)?.apply(storage, &options(), &mut ids(seed), Job::silent())
}

/// Five points in a line, every kind of block in them.
pub(crate) fn line() -> Chain {
    use Change::{Keep, Moved, New, Patch, PatchOf, Repeat, Unreadable, Unused, Zero};
    let len = 8 * BLOCK as u64 + 512;
    Chain::of(&[
        Step::full(len, &[(New(1), 4), (Repeat(1), 1), (Unused, 2), (New(2), 2)]),
        Step::on(1, len, &[(Keep, 1), (Patch(1), 2), (New(3), 1), (Zero, 1), (Moved(0), 1)]),
        Step::on(1, len, &[(Keep, 1), (Patch(2), 1), (Keep, 1), (Patch(3), 1), (Moved(2), 2)]),
        Step::on(1, len, &[(Unreadable, 1), (Keep, 2), (PatchOf(1, 4), 1), (Keep, 3), (New(5), 1)]),
        Step::on(1, len, &[(New(6), 1), (Keep, 2), (Patch(7), 1), (Moved(8), 5)]),
    ])
}

fn verified(storage: &dyn Storage) {
    let (images, _) = verify_all(storage);
    for image in images {
        let report = image.outcome.unwrap();
        assert_eq!(report.damage, [], "{}", image.file);
        assert!(!report.without_parent, "{}", image.file);
    }
}

/// The frame of an entry as it stands in its file.
pub(crate) fn frame(storage: &dyn Storage, file: &str, entry: &IndexEntry) -> Vec<u8> {
    let image = Image::open(storage.open(file).unwrap()).unwrap();
    let mut bytes = vec![0; usize::try_from(image.frame_size(entry).unwrap()).unwrap()];
    image.file().read_exact_at(&mut bytes, entry.address).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_kept_point_reads_as_before_and_nothing_else_is_left(
        steps in arb_steps(), newest in 0usize..4, listed in prop::collection::vec(1usize..9, 0..3),
        later in arb_steps(), again in 0usize..3,
    ) {
        let mut chain = Chain::of(&steps);
        let before = chain.storage.fork();
        let wanted = keep(newest, &listed);
        let planned = plan(&chain.storage, &wanted).unwrap();
        let children = |at: usize| chain.points.iter().filter(|p| p.parent == Some(at)).count();
        for (at, built) in chain.points.iter().enumerate() {
            let is_branch_or_tip = children(at) != 1;
            let asked_for = wanted.points.contains(&built.id) || at + newest >= chain.points.len();
            prop_assert_eq!(planned.kept.contains(&built.id), is_branch_or_tip || asked_for);
        }
        let report = planned.apply(&chain.storage, &options(), &mut ids(0xa0), Job::silent()).unwrap();
        prop_assert_eq!(&report.left, &[]);
        prop_assert_eq!(report.merged.len(), planned.runs.len());
        for (merged, run) in report.merged.iter().zip(&planned.runs) {
            prop_assert!(merged.bytes <= run.bytes_max, "{} > {}", merged.bytes, run.bytes_max);
        }
        for built in &chain.points {
            let kept = planned.kept.contains(&built.id);
            prop_assert_eq!(wrong(&chain.storage, built).is_none(), kept, "{:?}", wrong(&chain.storage, built));
        }
        let set = chain.set();
        prop_assert_eq!(set.points.len(), planned.kept.len());
        prop_assert_eq!(chain.storage.names().len(), planned.kept.len());
        verified(&chain.storage);
        check_frames(&before, &chain.storage, &set);
        prop_assert!(plan(&chain.storage, &wanted).unwrap().is_empty());

        // Backups go on, and so do consolidations.
        let kept: Vec<usize> = (0..chain.points.len())
            .filter(|&at| planned.kept.contains(&chain.points[at].id)).collect();
        let tip = chain.points.len() - kept.last().unwrap();
        let on_tip = Step { back: Some(tip), ..later[0].clone() };
        chain.add(&on_tip);
        for step in &later[1..] {
            chain.add(&Step { back: Some(1), ..step.clone() });
        }
        let wanted = keep(again, &[]);
        let planned = plan(&chain.storage, &wanted).unwrap();
        // Random bytes of their own: the image of the first one may have the same point.
        consolidate_with(&chain.storage, &wanted, 0xb0).unwrap();
        for built in chain.points.iter().filter(|built| planned.kept.contains(&built.id)) {
            prop_assert_eq!(wrong(&chain.storage, built), None);
        }
        verified(&chain.storage);
    }
}

/// Every frame is one of before, byte for byte, unless it holds a block that had to be stored
/// anew; no frame is there twice; no difference is deeper than writers make them.
fn check_frames(before: &MemStorage, after: &MemStorage, set: &aiv_chain::Set) {
    let mut frames: BTreeSet<Vec<u8>> = BTreeSet::new();
    for file in before.names() {
        for entry in entries(before, &file).iter().filter(|entry| entry.has_frame()) {
            frames.insert(frame(before, &file, entry));
        }
    }
    for point in &set.points {
        let image = Image::open(after.open(&point.file).unwrap()).unwrap();
        let own = image.superblock().session;
        let has_parent = image.superblock().parent.is_some();
        let incompat = image.superblock().features.incompat;
        assert!(has_parent || incompat & !Features::LOCAL == 0);
        assert_eq!(image.meta().specification == SPECIFICATION, !has_parent);
        let mut seen: BTreeMap<u64, Kind> = BTreeMap::new();
        let mut copied: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for entry in entries(after, &point.file).iter().filter(|entry| entry.has_frame()) {
            let bytes = frame(after, &point.file, entry);
            let is_own = bytes[8..20] == own.0;
            assert!(is_own || frames.contains(&bytes), "{} block {}", point.file, entry.block);
            // Session and number make every frame another one.
            let at = *copied.entry(bytes.clone()).or_insert(entry.address);
            assert_eq!(at, entry.address, "{} has a frame twice", point.file);
            let owner = seen.insert(entry.address, entry.kind);
            assert!(owner.is_none() || entry.kind == Kind::Ref);
            if entry.kind == Kind::Delta {
                let mut scratch = aiv_image_format::Scratch::default();
                let head = image.delta_head(&mut scratch, &bytes, entry).unwrap();
                assert!(head.depth <= DELTA_DEPTH_WRITTEN);
            }
            if entry.kind == Kind::Local {
                let mut scratch = aiv_image_format::Scratch::default();
                let head = image.local_head(&mut scratch, &bytes, entry).unwrap();
                for base in head.bases() {
                    let found = image.entry(base.block).unwrap().unwrap();
                    assert!(base.block < entry.block && found.is_whole());
                    assert_eq!(found.leaf, base.leaf);
                }
            }
        }
    }
}

#[test]
fn a_line_becomes_one_full_image_of_its_newest_point() {
    let chain = line();
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    assert_eq!(planned.kept, [point_id(5)]);
    assert_eq!((planned.runs.len(), planned.runs[0].kind), (1, ImageKind::Full));
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    assert_eq!(report.removed, ["p005.aii", "p004.aii", "p003.aii", "p002.aii", "p001.aiv"]);
    assert_eq!(report.merged[0].dropped, [1, 2, 3, 4].map(point_id));
    assert_eq!(chain.storage.names(), [report.merged[0].file.clone()]);
    assert!(report.merged[0].file.ends_with(".aiv"));
    assert_eq!(wrong(&chain.storage, &chain.points[4]), None);
    let image = view(&chain.storage, point_id(5));
    let image = image.image();
    assert_eq!(image.superblock().features, Features::default());
    assert_eq!(image.meta().inventory.facts[0].1, "5");
    assert!(image.meta().origins.len() >= 6, "its own session and those of all five");
}

#[test]
fn the_middle_of_a_line_becomes_one_increment_and_what_builds_on_it_reads_on() {
    let chain = line();
    let planned = plan(&chain.storage, &keep(2, &[1])).unwrap();
    assert_eq!(planned.kept, [1, 4, 5].map(point_id));
    assert_eq!(planned.runs[0].kind, ImageKind::Differential, "it builds on the full image");
    let report = consolidate(&chain.storage, &keep(2, &[1])).unwrap();
    assert_eq!(report.removed, ["p004.aii", "p003.aii", "p002.aii"]);
    for at in [0, 3, 4] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
    let set = chain.set();
    assert_eq!(set.point(point_id(4)).unwrap().parent, Some(chain.points[0].link()));
    assert!(set.point(point_id(4)).unwrap().file.ends_with(".aii"));
    verified(&chain.storage);
}

#[test]
fn points_that_several_build_on_and_the_newest_of_every_chain_stay() {
    let len = 3 * BLOCK as u64;
    let new = |n| vec![(Change::New(n), 1)];
    let steps = [
        Step::full(len, &new(1)),
        Step::on(1, len, &new(2)),
        Step::on(1, len, &new(3)),
        // Two lines from the third point on.
        Step::on(1, len, &new(4)),
        Step::on(1, len, &new(5)),
        Step::on(3, len, &new(6)),
        Step::on(1, len, &new(7)),
    ];
    let chain = Chain::of(&steps);
    consolidate(&chain.storage, &Keep::default()).unwrap();
    let stay = [3, 5, 7];
    let ids: Vec<PointId> = chain.set().points.iter().map(|point| point.id).collect();
    assert_eq!(ids, stay.map(point_id));
    for number in stay {
        assert_eq!(wrong(&chain.storage, &chain.points[number - 1]), None);
    }
}

#[test]
fn images_with_damaged_frames_stop_a_merge_before_anything_is_removed() {
    let chain = line();
    let entry = entries(&chain.storage, "p002.aii").into_iter().find(IndexEntry::has_frame);
    let at = usize::try_from(entry.unwrap().address).unwrap() + 80;
    damage(&chain.storage, "p002.aii", at);
    let names = chain.storage.names();
    let error = consolidate(&chain.storage, &keep(1, &[])).unwrap_err();
    assert!(matches!(&error, Error::Image { file, .. } if file == "p002.aii"), "{error:?}");
    assert_eq!(chain.storage.names(), names);
}

#[test]
fn a_second_consolidation_at_the_same_time_is_refused() {
    let chain = line();
    let held = chain.storage.lease(&format!("merge-{SET}")).unwrap();
    let refused = consolidate(&chain.storage, &keep(1, &[]));
    assert!(matches!(refused, Err(Error::Busy { set }) if set == SET), "{refused:?}");
    drop(held);
    consolidate(&chain.storage, &keep(1, &[])).unwrap();
}

#[test]
fn while_a_backup_runs_nothing_is_removed_and_the_next_consolidation_finishes() {
    let chain = line();
    let backup = chain.storage.lease(&format!("set-{SET}")).unwrap();
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    assert!(report.waiting_for_backup && report.removed.is_empty());
    assert_eq!(report.left.len(), 5);
    for built in &chain.points {
        assert_eq!(wrong(&chain.storage, built), None, "all are still there");
    }
    drop(backup);
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    assert_eq!((planned.runs.len(), planned.leftovers.len()), (0, 4));
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    assert_eq!((report.merged.len(), report.removed.len()), (0, 5));
    assert_eq!(chain.storage.names().len(), 1);
    assert_eq!(wrong(&chain.storage, &chain.points[4]), None);
}

#[test]
fn a_removal_that_was_interrupted_is_finished_by_the_next_consolidation() {
    for gone in 1..5 {
        let chain = line();
        let old = chain.storage.fork();
        consolidate(&chain.storage, &keep(2, &[])).unwrap();
        // As after a crash: the newest of the old files are gone, the others are not.
        for number in 1..=4 - gone {
            let name = format!("p{number:03}.{}", if number == 1 { "aiv" } else { "aii" });
            chain.storage.insert(&name, old.contents(&name).unwrap());
        }
        let report = consolidate(&chain.storage, &keep(2, &[])).unwrap();
        assert_eq!((report.merged.len(), report.removed.len()), (0, 4 - gone), "{gone} gone");
        assert_eq!(chain.set().points.len(), 2);
        for at in [3, 4] {
            assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
        }
    }
}

#[test]
fn a_point_is_not_taken_for_merged_into_one_that_cannot_be_restored() {
    let chain = line();
    let (before, folder) = (chain.storage.fork(), MemStorage::new());
    archive_point(&before, 2, &folder).unwrap();
    folder.insert("p003.aii", before.contents("p003.aii").unwrap());
    // An image of the second to the fourth point, without the first, on which it builds.
    let merged = consolidate(&chain.storage, &keep(1, &[1, 4])).unwrap().merged.remove(0).file;
    folder.insert(&merged, chain.storage.contents(&merged).unwrap());
    // The newest point that can be restored is the third.
    let planned = plan(&folder, &keep(0, &[])).unwrap();
    assert_eq!(planned.leftovers, []);
    consolidate(&folder, &keep(0, &[])).unwrap();
    assert_eq!(wrong(&folder, &chain.points[2]), None);
}

#[test]
fn what_a_removal_left_stays_when_it_is_wanted_by_then() {
    let chain = line();
    let old = chain.storage.fork();
    consolidate(&chain.storage, &keep(1, &[])).unwrap();
    for name in ["p001.aiv", "p002.aii"] {
        chain.storage.insert(name, old.contents(name).unwrap());
    }
    let report = consolidate(&chain.storage, &keep(1, &[2])).unwrap();
    assert_eq!(report.merged.len(), 1, "the full image goes into the second point");
    let ids: Vec<PointId> = chain.set().points.iter().map(|point| point.id).collect();
    assert_eq!(ids, [2, 5].map(point_id));
}

/// A backup that is running, or was interrupted, on top of a point.
fn part_on(chain: &Chain, on: usize) -> (String, Vec<u8>) {
    let mut other = chain.clone();
    other.storage = chain.storage.fork();
    let back = chain.points.len() - on + 1;
    let step = Step::on(back, 8 * BLOCK as u64 + 512, &[(Change::New(77), 1)]);
    other.add(&step);
    let file = &other.points.last().unwrap().file;
    let mut bytes = other.storage.contents(file).unwrap().to_vec();
    bytes.truncate(9000);
    (format!("{file}.part"), bytes)
}

#[test]
fn the_parent_of_a_backup_under_way_is_not_removed() {
    let chain = line();
    let (part, bytes) = part_on(&chain, 3);
    chain.storage.insert(&part, bytes);
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    assert!(report.waiting_for_backup && report.removed.is_empty(), "{report:?}");
    assert!(report.left.iter().all(|left| left.why == LeftReason::Backup));
    for built in &chain.points {
        assert_eq!(wrong(&chain.storage, built), None);
    }
    // One on a point that stays does no harm.
    chain.storage.remove(&part).unwrap();
    let (part, bytes) = part_on(&chain, 5);
    chain.storage.insert(&part, bytes);
    let report = consolidate(&chain.storage, &keep(1, &[])).unwrap();
    assert_eq!(report.removed.len(), 5);
}

#[test]
fn a_point_that_somebody_built_on_meanwhile_is_not_removed() {
    let mut chain = line();
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    // A backup on the third point, between plan and consolidation.
    let storage = chain.storage.clone();
    let step = Step::on(3, 8 * BLOCK as u64 + 512, &[(Change::Patch(9), 2)]);
    chain.add_to(&storage, "p006.aii", &step);
    let report = planned.apply(&chain.storage, &options(), &mut ids(0xa0), Job::silent()).unwrap();
    assert_eq!(report.removed, ["p005.aii", "p004.aii"]);
    assert!(report.left.iter().all(|left| left.why == LeftReason::Needed(point_id(6))));
    for at in [0, 1, 2, 4, 5] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_file_nobody_can_look_into_stops_everything() {
    let chain = line();
    let mut bytes = chain.storage.contents("p003.aii").unwrap().to_vec();
    bytes[..4096].fill(0x55);
    bytes.truncate(20_000);
    bytes[..8].copy_from_slice(b"\x89AIV\r\n\x1a\n");
    chain.storage.insert("x.aii", bytes);
    let names = chain.storage.names();
    let error = consolidate(&chain.storage, &keep(1, &[])).unwrap_err();
    assert!(matches!(&error, Error::InDoubt { file, .. } if file == "x.aii"), "{error:?}");
    assert_eq!(chain.storage.names(), names);
}

#[test]
fn too_little_room_is_known_before_anything_is_written() {
    let chain = line();
    let needed = plan(&chain.storage, &keep(1, &[])).unwrap().runs[0].bytes_max;
    chain.storage.set_free_bytes(Some(needed - 1));
    let names = chain.storage.names();
    let error = consolidate(&chain.storage, &keep(1, &[])).unwrap_err();
    assert!(
        matches!(error, Error::NoSpace { needed: n, free, .. } if n == needed && free == needed - 1)
    );
    assert_eq!(chain.storage.names(), names);
    chain.storage.set_free_bytes(Some(needed));
    consolidate(&chain.storage, &keep(1, &[])).unwrap();
}

/// The room that is asked for where there is none.
fn room(done: Result<impl std::fmt::Debug>) -> u64 {
    let Err(Error::NoSpace { needed, free: 0, .. }) = done else { panic!("{done:?}") };
    needed
}

#[test]
fn parity_that_one_of_the_merged_images_has_is_given_room_once() {
    let chain = line();
    let merge = |keep: &Keep, parity| {
        let plan = plan(&chain.storage, keep)?;
        let options = ConsolidateOptions { parity, ..options() };
        plan.apply(&chain.storage, &options, &mut ids(0xb0 + u8::from(parity)), Job::silent())
    };
    let archived = |parity| {
        let (folder, to) =
            (aiv_chain::Folder::scan(&chain.storage, Job::silent())?, MemStorage::new());
        to.set_free_bytes(Some(0));
        let set = folder.set(SET).unwrap();
        let how = MergeOptions { parity, ..Compression::Zstd(1).into() };
        archive(
            &chain.storage,
            set,
            set.points.last().unwrap(),
            &to,
            how,
            &mut ids(1),
            Job::silent(),
        )
    };
    let last = chain.points.len() - 1;
    let (few, fewer) = (keep(1, &[1, last]), keep(1, &[]));
    chain.storage.set_free_bytes(Some(0));
    // None has it: it is more for whoever asks.
    assert!(room(merge(&fewer, true)) > room(merge(&fewer, false)));
    assert!(room(archived(true)) > room(archived(false)));
    chain.storage.set_free_bytes(None);
    assert!(!merge(&few, true).unwrap().merged.is_empty());
    chain.storage.set_free_bytes(Some(0));
    assert_eq!(room(merge(&fewer, true)), room(merge(&fewer, false)));
    assert_eq!(room(archived(true)), room(archived(false)));
}

#[test]
fn leftovers_of_interrupted_merges_are_removed_and_those_of_other_sets_are_not() {
    let chain = line();
    let part = format!("p009.aiv{MERGE_PART}");
    let mut bytes = chain.storage.contents("p001.aiv").unwrap().to_vec();
    bytes.truncate(5000);
    chain.storage.insert(&part, bytes.clone());
    let other = Chain::of(&[Step::full(BLOCK as u64, &[])]);
    let spec = crate::common::Spec::new(1, 1);
    spec.write(&other.storage, "other");
    let stranger = other.storage.contents("other").unwrap();
    chain.storage.insert(&format!("q{MERGE_PART}"), stranger);
    let report = consolidate(&chain.storage, &keep(9, &[])).unwrap();
    assert_eq!(report.stale_removed, [part]);
    assert!(chain.storage.names().contains(&format!("q{MERGE_PART}")));
}

#[test]
fn a_plan_for_a_folder_that_has_changed_is_not_carried_out() {
    let chain = line();
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    consolidate(&chain.storage, &keep(2, &[])).unwrap();
    let error =
        planned.apply(&chain.storage, &options(), &mut ids(0xb0), Job::silent()).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error:?}");
    for at in [3, 4] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_copy_of_a_dropped_file_goes_with_it_and_a_copy_of_a_kept_one_stays() {
    let chain = line();
    for (copy, of) in [("b2.aii", "p002.aii"), ("b5.aii", "p005.aii")] {
        chain.storage.insert(copy, chain.storage.contents(of).unwrap());
    }
    let report = consolidate(&chain.storage, &keep(2, &[])).unwrap();
    assert!(report.removed.contains(&"b2.aii".to_owned()));
    let set = set_of(&chain.storage);
    assert_eq!(set.points.len(), 2);
    assert_eq!(chain.storage.names().len(), 3);
    let view: View = view(&chain.storage, point_id(5));
    assert!(read_all(&view) == chain.points[4].bytes);
}

#[test]
fn a_file_beside_an_older_archive_goes_only_when_the_archive_is_proven() {
    let len = 2 * BLOCK as u64;
    let new = |n| vec![(Change::New(n), 1)];
    let steps = [Step::full(len, &new(1)), Step::on(1, len, &new(2)), Step::on(1, len, &new(3))];
    for is_damaged in [true, false] {
        let mut chain = Chain::of(&steps);
        chain.add(&Step::on(2, len, &new(4)));
        let archive = archive_point(&chain.storage, 4, &chain.storage.clone()).unwrap().file;
        if is_damaged {
            let entry = entries(&chain.storage, &archive).into_iter().find(IndexEntry::has_frame);
            damage(&chain.storage, &archive, usize::try_from(entry.unwrap().address).unwrap() + 80);
        }
        // The second point goes into the third. The file of the fourth builds on it, too, and
        // nobody reads that one since the archive is there.
        let done = consolidate(&chain.storage, &keep(2, &[]));
        if is_damaged {
            assert!(
                matches!(&done, Err(Error::Image { file, .. }) if *file == archive),
                "{done:?}"
            );
            chain.storage.remove(&archive).unwrap();
        } else {
            assert_eq!(done.unwrap().removed.len(), 4);
            assert_eq!(chain.storage.names().len(), 2);
        }
        for at in [2, 3] {
            assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
        }
    }
}

#[test]
fn points_that_a_consolidation_drops_are_not_taken_for_lost() {
    let scan = |storage: &MemStorage| aiv_chain::Folder::scan_with(storage, Job::silent()).unwrap();
    let chain = line();
    scan(&chain.storage).1.write(&chain.storage).unwrap();
    let report = consolidate(&chain.storage, &keep(2, &[])).unwrap();
    assert_eq!(report.removed.len(), 4);
    assert_eq!(scan(&chain.storage).0.vanished, []);
    // What goes without being asked to is told.
    let gone = scan(&chain.storage).0.sets[0].points[1].file.clone();
    chain.storage.remove(&gone).unwrap();
    assert_eq!(scan(&chain.storage).0.vanished.len(), 1);
}
