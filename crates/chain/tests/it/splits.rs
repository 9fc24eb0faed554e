//! Images of several files in folders: found by what the files say, and whole or not there.

use std::sync::{Arc, Mutex};

use aiv_chain::{
    Depth, Error, Folder, MergeOptions, PointState, StrayKind, View, archive, verify_file,
};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{Compression, Error as ImageError, SegmentError};
use aiv_testkit::{CrashState, CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{AppendFile, FileEntry, Job, Lease, ReadAt, Storage};

use crate::common::{BLOCK, verify_all};
use crate::consolidate::{consolidate, consolidate_with, ids, keep, plan};
use crate::described::{Chain, Change, Step, point_id, scan, set_of, wrong};
use crate::merge_crashes::check_states;
use crate::transfers::{archive_point, copy_all, move_all};
use crate::wrappers::InSteps;

/// Three points, each of two segments or more.
fn chain() -> Chain {
    let len = 12 * BLOCK as u64 + 512;
    let steps = [
        Step::full(len, &[(Change::New(1), 8)]),
        Step::on(1, len, &[(Change::Patch(1), 1), (Change::New(2), 6)]),
        Step::on(1, len, &[(Change::Keep, 3), (Change::New(3), 6)]),
    ];
    let chain = Chain::split(SEGMENT_BYTES_MIN, &steps);
    for built in &chain.points {
        assert!(chain.storage.contents(&format!("{}.p002", built.file)).is_some());
    }
    chain
}

fn strays(storage: &dyn Storage) -> Vec<(String, StrayKind)> {
    scan(storage).strays.into_iter().map(|stray| (stray.file, stray.kind)).collect()
}

fn all_right(chain: &Chain, storage: &dyn Storage) {
    for built in &chain.points {
        assert_eq!(wrong(storage, built), None);
    }
}

fn rename(storage: &MemStorage, from: &str, to: &str) {
    let bytes = storage.contents(from).unwrap();
    storage.insert(to, bytes.to_vec());
    storage.remove(from).unwrap();
}

#[test]
fn segments_make_one_point_and_names_do_not_matter() {
    let chain = chain();
    all_right(&chain, &chain.storage);
    assert_eq!(strays(&chain.storage), []);
    let files = chain.storage.names();
    let count: usize = set_of(&chain.storage).points.iter().map(|p| 1 + p.segments.len()).sum();
    assert_eq!(count, files.len());
    let (images, none) = verify_all(&chain.storage);
    assert!(
        images.len() == 3 && images.iter().all(aiv_chain::Checked::is_proven) && none.is_empty()
    );
    for (number, name) in files.iter().enumerate() {
        rename(&chain.storage, name, &format!("some/where-{}", (number * 7) % files.len()));
    }
    all_right(&chain, &chain.storage);
    assert_eq!(strays(&chain.storage), []);
}

#[test]
fn a_missing_segment_is_named_with_its_point_and_what_builds_on_it_is_lost() {
    let chain = chain();
    let second = &chain.points[1];
    let names = chain.storage.names();
    let own: Vec<&String> = names.iter().filter(|name| name.starts_with(&second.file)).collect();
    for (number, gone) in (1..).zip(&own) {
        let folder = chain.storage.fork();
        folder.remove(gone).unwrap();
        let strays = strays(&folder);
        let [(_, StrayKind::Unusable(why))] = strays.as_slice() else { panic!("{strays:?}") };
        for part in [
            format!("point {} cannot be restored", second.id),
            format!("segment {number} is missing"),
            format!("a file like {gone}"),
        ] {
            assert!(why.contains(&part), "{part:?} is not in {why:?}");
        }
        assert_eq!(wrong(&folder, &chain.points[0]), None);
        let set = set_of(&folder);
        let third = set.point(point_id(3)).unwrap();
        assert_eq!(third.state, PointState::MissingParent { point: second.id });
        // Nothing may be removed while it is in doubt, and verifying says that it is damage.
        if number > 1 {
            let (images, _) = verify_all(&folder);
            let checked = images.iter().find(|image| image.file == second.file).unwrap();
            assert!(matches!(
                &checked.outcome,
                Err(ImageError::Segments(SegmentError::Missing { number: told, .. })) if *told == number
            ));
            let refused = View::open(&folder, &second.file, Job::silent()).err().unwrap();
            assert!(matches!(refused, Error::Image { source: ImageError::Segments(_), .. }));
        }
    }
}

#[test]
fn a_segment_of_another_image_under_the_right_name_is_a_missing_one() {
    let chain = chain();
    let [first, second] = [&chain.points[0].file, &chain.points[1].file];
    let other = chain.storage.contents(&format!("{second}.p002")).unwrap();
    chain.storage.insert(&format!("{first}.p002"), other.to_vec());
    let strays = strays(&chain.storage);
    let missing = |(_, kind): &&(String, StrayKind)| match kind {
        StrayKind::Unusable(why) => why.contains("segment 2 is missing"),
        _ => false,
    };
    assert_eq!(strays.iter().filter(missing).count(), 1, "{strays:?}");
    // The second point has two files for one segment, of which one will do.
    let duplicate = |(_, kind): &&(String, StrayKind)| matches!(kind, StrayKind::Duplicate(_));
    assert_eq!(strays.iter().filter(duplicate).count(), 1, "{strays:?}");
    let set = set_of(&chain.storage);
    assert_eq!(set.points.len(), 2);
}

#[test]
fn copies_of_segments_are_duplicates_and_a_whole_second_copy_is_another_file_of_the_point() {
    let chain = chain();
    let file = &chain.points[0].file;
    let copied = |from: &str, to: &str| {
        let bytes = chain.storage.contents(from).unwrap();
        chain.storage.insert(to, bytes.to_vec());
    };
    let second = format!("{file}.p002");
    copied(&second, "another");
    assert_eq!(
        strays(&chain.storage),
        [("another".to_owned(), StrayKind::Duplicate(file.clone()))]
    );
    copied(file, "z.aiv");
    all_right(&chain, &chain.storage);
    let found = strays(&chain.storage);
    assert!(found.iter().all(|(_, kind)| *kind == StrayKind::Duplicate(file.clone())), "{found:?}");
    chain.storage.remove("another").unwrap();
    chain.storage.remove("z.aiv").unwrap();
    for name in chain.storage.names().iter().filter(|name| name.starts_with(file.as_str())) {
        copied(name, &format!("sub/{name}"));
    }
    let set = set_of(&chain.storage);
    let point = set.point(point_id(1)).unwrap();
    assert_eq!((&point.file, &point.other_files), (file, &vec![format!("sub/{file}")]));
    // Each is read from its own files: without those of one the other is there.
    chain.storage.remove(&second).unwrap();
    all_right(&chain, &chain.storage);
    let set = set_of(&chain.storage);
    assert_eq!(set.point(point_id(1)).unwrap().file, format!("sub/{file}"));
}

#[test]
fn a_catalogue_notices_that_any_segment_is_gone_or_another_one() {
    let chain = chain();
    let storage = &chain.storage;
    let (_, catalogue) = Folder::scan_with(storage, Job::silent()).unwrap();
    catalogue.write(storage).unwrap();
    let reads = FaultStorage::new(storage.fork());
    all_points(&reads, 3);
    let opened = reads.trace().iter().filter(|o| o.op == aiv_testkit::Op::Open).count();
    assert!(opened <= 2, "nothing but the catalogue is opened: {opened}");
    for name in storage.names().iter().filter(|name| name.contains(".p0")) {
        let folder = storage.fork();
        folder.remove(name).unwrap();
        all_points(&folder, 2);
        let changed = storage.fork();
        let mut bytes = storage.contents(name).unwrap().to_vec();
        bytes.truncate(bytes.len() - 1);
        changed.insert(name, bytes);
        all_points(&changed, 2);
        let folder = storage.fork();
        rename(&folder, name, "elsewhere");
        all_points(&folder, 3);
    }
}

fn all_points(storage: &dyn Storage, count: usize) {
    let folder = Folder::scan(storage, Job::silent()).unwrap();
    assert_eq!(folder.sets.iter().map(|set| set.points.len()).sum::<usize>(), count, "{folder:?}");
}

#[test]
fn one_segment_is_verified_by_itself_and_the_first_stands_for_all() {
    let chain = chain();
    let dir = tempfile::tempdir().unwrap();
    for name in chain.storage.names() {
        std::fs::write(dir.path().join(&name), &*chain.storage.contents(&name).unwrap()).unwrap();
    }
    let file = &chain.points[0].file;
    let whole = verify_file(&dir.path().join(file), Depth::Data, Job::silent()).unwrap();
    assert!(whole.is_proven() && whole.segment.is_none());
    let second = dir.path().join(format!("{file}.p002"));
    let alone = verify_file(&second, Depth::Data, Job::silent()).unwrap();
    assert!(alone.is_sound() && alone.segment == Some(2));
    let mut bytes = std::fs::read(&second).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&second, bytes).unwrap();
    let alone = verify_file(&second, Depth::Data, Job::silent()).unwrap();
    assert!(!alone.is_sound());
    let whole = verify_file(&dir.path().join(file), Depth::Data, Job::silent()).unwrap();
    assert!(!whole.is_sound());
    std::fs::remove_file(&second).unwrap();
    let whole = verify_file(&dir.path().join(file), Depth::Data, Job::silent()).unwrap();
    assert!(matches!(whole.outcome, Err(ImageError::Segments(SegmentError::Missing { .. }))));
}

#[test]
fn split_images_are_copied_moved_merged_and_archived_as_wholes() {
    let chain = chain();
    let to = MemStorage::new();
    let report = copy_all(&chain.storage, &to).unwrap();
    let sizes: u64 = set_of(&chain.storage).points.iter().map(|point| point.size_stored).sum();
    assert_eq!(report.copied.iter().map(|copied| copied.bytes).sum::<u64>(), sizes);
    assert_eq!(to.names(), chain.storage.names());
    all_right(&chain, &to);
    let moved = MemStorage::new();
    let report = move_all(&to, &moved).unwrap();
    assert_eq!((report.left, to.names()), (vec![], vec![]));
    assert_eq!(report.removed.len(), moved.names().len());
    all_right(&chain, &moved);
    let report = consolidate(&moved, &keep(1, &[])).unwrap();
    let [merged] = report.merged.as_slice() else { panic!("{report:?}") };
    assert!(merged.segments >= 3, "as what was merged: {}", merged.segments);
    assert_eq!(moved.names().len(), merged.segments as usize);
    assert_eq!(wrong(&moved, &chain.points[2]), None);
    assert_eq!(strays(&moved), []);
    // And to one file, where more was asked for than there is.
    let (set, to) = (set_of(&moved), MemStorage::new());
    let how =
        MergeOptions { parity: false, compression: Compression::Zstd(1), split: Some(1 << 30) };
    let point = set.point(point_id(3)).unwrap();
    let done = archive(&moved, &set, point, &to, how, &mut ids(0xd0), Job::silent()).unwrap();
    assert_eq!((done.segments, to.names().len()), (1, 1));
    assert_eq!(wrong(&to, &chain.points[2]), None);
}

#[test]
fn a_split_that_was_asked_for_is_made_of_images_that_are_not_split() {
    let len = 12 * BLOCK as u64;
    let steps =
        [Step::full(len, &[(Change::New(1), 12)]), Step::on(1, len, &[(Change::New(2), 1)])];
    let chain = Chain::of(&steps);
    let options = aiv_chain::ConsolidateOptions {
        split: Some(SEGMENT_BYTES_MIN),
        ..crate::consolidate::options()
    };
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    let report = planned.apply(&chain.storage, &options, &mut ids(0xa0), Job::silent()).unwrap();
    assert!(report.merged[0].segments >= 3);
    assert_eq!(wrong(&chain.storage, &chain.points[1]), None);
    assert_eq!(chain.storage.names().len(), report.merged[0].segments as usize);
}

#[test]
fn a_size_that_is_too_small_is_refused_before_anything_is_merged() {
    let chain = chain();
    let names = chain.storage.names();
    let options = aiv_chain::ConsolidateOptions { split: Some(1), ..crate::consolidate::options() };
    let planned = plan(&chain.storage, &keep(1, &[])).unwrap();
    let done = planned.apply(&chain.storage, &options, &mut ids(0xa0), Job::silent());
    let Err(Error::SplitSize { needed, .. }) = done else { panic!("{done:?}") };
    assert_eq!((needed, chain.storage.names()), (SEGMENT_BYTES_MIN, names));
}

/// What has to be true of a folder in which something was interrupted: no image that is not
/// whole, and the kept points.
fn check(chain: &Chain, folder: &MemStorage, kept: &[usize]) -> Result<(), String> {
    for stray in scan(folder).strays {
        if !matches!(stray.kind, StrayKind::Unfinished | StrayKind::Duplicate(_)) {
            return Err(format!("{stray:?}, of {:?}", folder.names()));
        }
    }
    for &at in kept {
        if let Some(why) = wrong(folder, &chain.points[at]) {
            return Err(format!("{why}, of {:?}", folder.names()));
        }
    }
    Ok(())
}

/// Points 1 and 3 stay, 2 goes.
fn merging(
    wrap: impl Fn(CrashStorage) -> Box<dyn Storage>,
    per_prefix: usize,
) -> Result<usize, String> {
    let chain = chain();
    let crash = CrashStorage::starting_from(&chain.storage);
    consolidate(&*wrap(crash.clone()), &keep(1, &[1])).unwrap();
    crash.mark("done");
    let mut number = 0;
    check_states(crash.crash_states(21, per_prefix), |state: &CrashState| {
        check(&chain, &state.storage, &[0, 2])?;
        number += 1;
        if number % 7 == 0 {
            let folder = &state.storage;
            consolidate_with(folder, &keep(1, &[1]), 0xa1).map_err(|e| format!("again: {e:?}"))?;
            check(&chain, folder, &[0, 2]).map_err(|why| format!("again: {why}"))?;
            // Only what holds no superblock may stay of a file that was being written.
            let may_stay = |file: &str| {
                let bytes = folder.open(file).unwrap();
                file.ends_with(".part") && aiv_image_format::peek(&*bytes).is_none()
            };
            let left = scan(folder).strays;
            if let Some(stray) = left.iter().find(|stray| !may_stay(&stray.file)) {
                return Err(format!("again: {stray:?} is left"));
            }
        }
        Ok(())
    })
}

#[test]
fn a_power_cut_while_split_images_are_merged_and_removed_leaves_no_half_of_one() {
    let count = merging(|crash| Box::new(InSteps(crash)), 16).unwrap();
    assert!(count > 800, "{count} states");
}

#[test]
fn a_power_cut_while_split_images_are_copied_and_archived_leaves_no_half_of_one() {
    let chain = chain();
    let crash = CrashStorage::new();
    archive_point(&chain.storage, 2, &crash).unwrap();
    crash.mark("archived");
    copy_all(&chain.storage, &crash).unwrap();
    crash.mark("copied");
    let count = check_states(crash.crash_states(22, 25), |state: &CrashState| {
        let kept: [&[usize]; 3] = [&[], &[1], &[0, 1, 2]];
        check(&chain, &state.storage, kept[state.acknowledged.len()])
    });
    assert!(count.unwrap() > 500);
}

/// A storage that plants a bug into removals: the first segment keeps its name until the others
/// are gone.
struct FirstLast {
    storage: CrashStorage,
    held: Mutex<Option<(String, String)>>,
}

impl Storage for FirstLast {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn AppendFile>> {
        self.storage.create(name)
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn ReadAt>> {
        self.storage.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> std::io::Result<()> {
        if to.ends_with(".removed.merge.part") {
            *self.held.lock().unwrap() = Some((from.to_owned(), to.to_owned()));
            return Ok(());
        }
        self.storage.publish(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        match self.held.lock().unwrap().take_if(|(_, to)| to == name) {
            Some((from, _)) => self.storage.remove(&from),
            None => self.storage.remove(name),
        }
    }
    fn list(&self) -> std::io::Result<Vec<FileEntry>> {
        self.storage.list()
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.storage.sync_dir()
    }
    fn lease(&self, name: &str) -> std::io::Result<Box<dyn Lease>> {
        self.storage.lease(name)
    }
}

#[test]
fn a_first_segment_that_is_removed_last_is_found_out() {
    let wrap =
        |storage| -> Box<dyn Storage> { Box::new(FirstLast { storage, held: Mutex::default() }) };
    let why = merging(wrap, 6).expect_err("the planted bug was not seen");
    assert!(why.contains("is missing"), "{why}");
}

#[test]
fn no_fault_while_split_images_are_merged_loses_a_point_or_shows_half_of_one() {
    let chain = chain();
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds, Fault::RenameFails] {
        let mut fired = 0;
        for at in 0.. {
            let storage =
                FaultStorage::failing(chain.storage.fork(), FaultPlan::once(at * 3, fault));
            let done = consolidate(&storage, &keep(1, &[1]));
            let folder = storage.inner();
            check(&chain, folder, &[0, 2]).unwrap_or_else(|why| panic!("{fault:?} {at}: {why}"));
            if !storage.fired() {
                assert!(done.is_ok(), "{done:?}");
                break;
            }
            fired += 1;
            consolidate_with(folder, &keep(1, &[1]), 0xa1).unwrap();
            check(&chain, folder, &[0, 2]).unwrap_or_else(|why| panic!("{fault:?} {at}: {why}"));
            assert_eq!(wrong(folder, &chain.points[2]), None);
        }
        assert!(fired > 0, "{fault:?} hit nothing");
    }
}
