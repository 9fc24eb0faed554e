//! What is left of damaged chains, as a raw file and as a new image.

use std::sync::Arc;

use aiv_chain::salvage::{Fill, Hints, Loss, SalvageIds, SalvageOptions, SalvageReport, Salvaged};
use aiv_chain::{Depth, Error, ImageKind, Keys, Kind, MergeIds, PointId, Result, View};
use aiv_image_format::{Compression, Image, hash};
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, ReadAt, Storage};

use crate::common::BLOCK;
use crate::consolidate::line;
use crate::described::{Chain, Change, Step};

pub(crate) fn ids(seed: u8) -> SalvageIds {
    SalvageIds { file: MergeIds::new(&[seed; 32], 5), point: PointId([seed; 16]) }
}

pub(crate) type Files = Vec<(String, Arc<dyn ReadAt>)>;

/// Files of a folder, each changed by `damage`.
pub(crate) fn files(
    storage: &MemStorage,
    names: &[&str],
    damage: impl Fn(&str, &mut Vec<u8>),
) -> Files {
    let each = |name: &&str| {
        let mut bytes = storage.contents(name).unwrap().to_vec();
        damage(name, &mut bytes);
        (String::from(*name), Arc::new(MemDisk::from_bytes(bytes)) as Arc<dyn ReadAt>)
    };
    names.iter().map(each).collect()
}

fn open(files: Files, parents: &[&dyn Storage]) -> Result<Salvaged> {
    Salvaged::open(files, parents, &Keys::none(), &Hints::default(), Job::silent())
}

fn write(salvaged: &Salvaged, to: &dyn Storage) -> Result<SalvageReport> {
    let options = SalvageOptions { compression: Compression::Zstd(1), plain: false };
    salvaged.write_image(to, &options, &ids(9), Job::silent())
}

pub(crate) fn raw(salvaged: &Salvaged, fill: Fill) -> (Vec<u8>, SalvageReport) {
    let len = usize::try_from(salvaged.geometry().len()).unwrap();
    let disk = MemDisk::from_bytes(vec![0; len]);
    let report = salvaged.write_raw(&disk, fill, Job::silent()).unwrap();
    let mut bytes = vec![0; len];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    (bytes, report)
}

/// Makes everything from `at` on for `len` bytes zeros.
pub(crate) fn wipe(bytes: &mut [u8], at: usize, len: usize) {
    let end = (at + len).min(bytes.len());
    bytes[at.min(end)..end].fill(0);
}

/// Checks a salvaged image against what the point was: every block is true, or lost and said so.
fn check_image(storage: &MemStorage, report: &SalvageReport, truth: &[u8]) {
    let made = report.image.as_ref().unwrap();
    let view = View::open(storage, &made.file, Job::silent()).unwrap();
    let image = view.image();
    assert_eq!(image.superblock().kind, ImageKind::Full);
    assert_eq!(image.superblock().point, made.point);
    assert_eq!(image.trailer().state_root, made.state_root);
    let verified = image.verify(Depth::Data, Job::silent()).unwrap();
    assert!(verified.is_sound(), "{:?}", verified.damage);
    let lost = |block| report.lost.iter().any(|r| (r.first..r.first + r.count).contains(&block));
    for (block, truth) in (0..).zip(truth.chunks(BLOCK)) {
        let mut out = vec![0; truth.len()];
        let kind = view.reader().read(block, &mut out).unwrap();
        if lost(block) {
            assert_eq!(kind, Kind::Unreadable);
            let mut pattern = vec![0; out.len()];
            hash::fill_unreadable(&mut pattern, 0);
            assert!(out == pattern);
        } else {
            assert!(out == truth, "block {block} is made up");
        }
    }
    let mut errors = image.meta().source_errors.iter();
    assert!(report.lost.iter().all(|run| {
        let bytes = report.bytes_of(run.first, run.count);
        errors.clone().any(|error| error.intersect(bytes).is_some())
    }));
    assert!(errors.all(|error| error.end() <= truth.len() as u64));
}

#[test]
fn a_sound_image_comes_back_as_the_state_it_was() {
    let chain = line();
    for (number, built) in chain.points.iter().enumerate() {
        let given = files(&chain.storage, &[&built.file], |_, _| {});
        let salvaged = open(given, &[&chain.storage]).unwrap();
        let to = MemStorage::new();
        let report = write(&salvaged, &to).unwrap();
        assert!(report.is_whole());
        assert_eq!(report.is_proven, Some(true), "point {number}");
        let made = report.image.as_ref().unwrap();
        assert_eq!(made.state_root, built.state_root);
        check_image(&to, &report, &built.bytes);
        let (bytes, _) = raw(&salvaged, Fill::Pattern);
        assert!(bytes == built.bytes);
        let comment =
            Image::open(to.open(&made.file).unwrap()).unwrap().meta().manifest.comment.clone();
        assert!(
            comment.starts_with("salvaged from image ") && comment.contains(": 0 of"),
            "{comment}"
        );
    }
}

#[test]
fn a_damaged_full_image_gives_back_what_is_left_and_the_list_of_the_rest() {
    let len = 40 * BLOCK as u64;
    let changes: Vec<(Change, u8)> =
        (0..20).flat_map(|n| [(Change::New(n), 1), (Change::Zero, 1)]).collect();
    let chain = Chain::of(&[Step::full(len, &changes)]);
    let built = &chain.points[0];
    let given = files(&chain.storage, &[&built.file], |_, bytes| wipe(bytes, 64 << 10, 64 << 10));
    let salvaged = open(given, &[]).unwrap();
    let report = salvaged.check(Job::silent()).unwrap();
    assert!(report.blocks_lost() > 2 && report.blocks() > 30, "{report:?}");
    assert!(report.lost.iter().all(|run| run.loss == Loss::Frame && run.count == 1));
    let to = MemStorage::new();
    let made = write(&salvaged, &to).unwrap();
    assert_eq!((&made.lost, made.is_proven), (&report.lost, None));
    check_image(&to, &made, &built.bytes);
    let first = report.bytes_of(report.lost[0].first, 1);
    assert_eq!(report.lost_within(first), first.len);
    assert_eq!(report.bytes_lost(), report.blocks_lost() * BLOCK as u64);
    for fill in [Fill::Hole, Fill::Pattern] {
        let (bytes, again) = raw(&salvaged, fill);
        assert_eq!(again.lost, report.lost);
        for (block, (found, truth)) in (0..).zip(bytes.chunks(BLOCK).zip(built.bytes.chunks(BLOCK)))
        {
            let is_lost = report.lost.iter().any(|run| run.first == block);
            match (is_lost, fill) {
                (false, _) => assert!(found == truth),
                (true, Fill::Hole) => assert!(found.iter().all(|&byte| byte == 0)),
                (true, Fill::Pattern) => assert!(found.starts_with(b"!AIV-UNREADABLE!")),
            }
        }
    }
    // As bytes at offsets: what is lost is an error, what is not is there.
    let mut out = vec![0; 100];
    assert!(salvaged.read_exact_at(&mut out, first.start).is_err());
    salvaged.read_exact_at(&mut out, len - 100).unwrap();
    assert!(out == built.bytes[built.bytes.len() - 100..]);
}

#[test]
fn a_chain_is_salvaged_from_its_files_in_any_order() {
    let chain = line();
    let names: Vec<&str> = chain.points.iter().rev().map(|built| built.file.as_str()).collect();
    let newest = chain.points.last().unwrap();
    let mut orders = vec![names.clone(), names.iter().rev().copied().collect()];
    orders.push(vec![names[2], names[0], names[4], names[1], names[3]]);
    for order in orders {
        let salvaged = open(files(&chain.storage, &order, |_, _| {}), &[]).unwrap();
        let found: Vec<&str> = salvaged.files().map(|(file, _)| file).collect();
        assert_eq!(found, names);
        let (bytes, report) = raw(&salvaged, Fill::Pattern);
        assert!(bytes == newest.bytes && report.lost.is_empty());
    }
}

#[test]
fn damage_anywhere_in_a_chain_makes_up_nothing() {
    let chain = line();
    let newest = chain.points.last().unwrap();
    let names: Vec<&str> = chain.points.iter().map(|built| built.file.as_str()).collect();
    let (mut lost, mut found) = (0, 0);
    for seed in 0..120 {
        let given = files(&chain.storage, &names, |name, bytes| {
            let mut random = Random::new(&[seed, name.len() as u64, u64::from(name.as_bytes()[3])]);
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len() / 64) * 64;
                wipe(bytes, at, 64 << random.below(10));
            }
        });
        // Where both superblocks of a file are gone, its parent is not known any more.
        let Ok(salvaged) = open(given, &[]) else { continue };
        let to = MemStorage::new();
        let report = write(&salvaged, &to).unwrap();
        assert_ne!(report.is_proven, Some(false), "seed {seed}");
        check_image(&to, &report, &newest.bytes);
        lost += report.blocks_lost();
        found += report.blocks();
    }
    assert!(lost > 50 && found > 500, "{lost} lost, {found} found");
}

#[test]
fn without_its_parent_an_increment_gives_what_it_holds_itself() {
    let chain = line();
    let built = &chain.points[3];
    let salvaged = open(files(&chain.storage, &[&built.file], |_, _| {}), &[]).unwrap();
    assert_eq!(salvaged.missing_parent(), Some(chain.points[2].link()));
    let to = MemStorage::new();
    let report = write(&salvaged, &to).unwrap();
    assert_eq!(report.missing_parent, Some(chain.points[2].id));
    assert!(report.lost.iter().all(|run| run.loss == Loss::Parent) && report.blocks() > 0);
    assert!(!report.is_whole());
    check_image(&to, &report, &built.bytes);
}

#[test]
fn files_that_do_not_build_on_each_other_are_refused_by_name() {
    let chain = line();
    let [first, third, fifth] = [0, 2, 4].map(|n| chain.points[n].file.as_str());
    let refusal = |names: &[&str]| {
        open(files(&chain.storage, names, |_, _| {}), &[]).err().unwrap().to_string()
    };
    assert!(refusal(&[third, first]).contains(&format!("any of {third}, {first}")));
    assert!(refusal(&[fifth, fifth]).contains("hold the same image"));
}

#[test]
fn an_unfinished_file_gives_what_its_checkpoints_and_frames_tell() {
    let changes: Vec<(Change, u8)> = (0..60).map(|n| (Change::New(n), 1)).collect();
    let chain = Chain::of(&[Step::full(60 * BLOCK as u64, &changes)]);
    let built = &chain.points[0];
    let given = files(&chain.storage, &[&built.file], |_, bytes| bytes.truncate(bytes.len() / 2));
    let salvaged = open(given, &[]).unwrap();
    let to = MemStorage::new();
    let report = write(&salvaged, &to).unwrap();
    assert!((20..40).contains(&report.by_frame), "{report:?}");
    assert_eq!(report.lost.len(), 1);
    check_image(&to, &report, &built.bytes);
    let made = report.image.unwrap();
    let image = Image::open(to.open(&made.file).unwrap()).unwrap();
    // META was behind the cut: the set is known all the same.
    assert_eq!(image.superblock().set, chain.set().id);
    assert_eq!(image.meta().manifest.name, "salvaged");
}

#[test]
fn no_fault_of_the_folder_leaves_a_false_image() {
    let chain = line();
    let built = &chain.points[1];
    let given = || files(&chain.storage, &[&built.file], |_, bytes| wipe(bytes, 4096, 4096));
    let salvaged = open(given(), &[&chain.storage]).unwrap();
    for fault in Fault::ALL {
        let mut at = 0;
        loop {
            let plan = FaultPlan::once(at, fault);
            let storage = FaultStorage::failing(MemStorage::new(), plan);
            let done = write(&salvaged, &storage);
            let Some(hit) = storage.trace().into_iter().find(|operation| operation.failed) else {
                assert!(at > 0, "{fault:?} hit nothing");
                break;
            };
            at += if hit.op == aiv_testkit::Op::Read { 7 } else { 1 };
            let folder = storage.inner();
            match done {
                Ok(report) => check_image(folder, &report, &built.bytes),
                Err(Error::Canceled(_)) => panic!("nobody canceled"),
                // A complete one may be there when only its name is not durable.
                Err(_) => {
                    for name in folder.names().iter().filter(|name| !name.contains(".part")) {
                        let image = Image::open(folder.open(name).unwrap()).unwrap();
                        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
                    }
                }
            }
        }
    }
}

#[test]
fn frames_that_a_merge_moved_are_told_apart_from_those_of_the_image_itself() {
    let chain = line();
    let newest = chain.points.last().unwrap();
    let to = MemStorage::new();
    let archived = crate::transfers::archive_point(&chain.storage, 5, &to).unwrap();
    let image = Image::open(to.open(&archived.file).unwrap()).unwrap();
    let (trailer, whole) = (image.trailer(), files(&to, &[&archived.file], |_, _| {}));
    assert!(open(whole, &[]).unwrap().check(Job::silent()).unwrap().is_whole());
    // Neither index nor checkpoints: only META says which sessions are its own.
    let given = files(&to, &[&archived.file], |_, bytes| {
        let at = |n: u64| usize::try_from(n).unwrap();
        let (index, tree) = (at(trailer.index_offset), at(trailer.tree_offset));
        bytes[index..tree].fill(0);
        let checkpoints: Vec<usize> = (4096..index)
            .step_by(64)
            .filter(|&at| bytes[at..].starts_with(b"AVF1") && bytes[at + 4] == 3)
            .collect();
        assert!(!checkpoints.is_empty());
        checkpoints.into_iter().for_each(|at| bytes[at..at + 64].fill(0));
    });
    let salvaged = open(given, &[]).unwrap();
    let (bytes, report) = raw(&salvaged, Fill::Hole);
    assert!(!report.unproven.is_empty() && !report.is_whole(), "{report:?}");
    for (block, (found, truth)) in (0..).zip(bytes.chunks(BLOCK).zip(newest.bytes.chunks(BLOCK))) {
        let within = |&(first, count): &(u64, u64)| (first..first + count).contains(&block);
        let is_lost = report.lost.iter().any(|run| within(&(run.first, run.count)));
        assert!(is_lost || report.unproven.iter().any(within) || found == truth, "block {block}");
    }
}

#[test]
fn what_an_interrupted_merge_left_can_be_salvaged_and_stays() {
    let chain = line();
    let built = &chain.points[0];
    let folder = MemStorage::new();
    let bytes = chain.storage.contents(&built.file).unwrap();
    folder.insert("p001.aiv.merge.part", bytes[..bytes.len() - 4096].to_vec());
    let salvaged = open(files(&folder, &["p001.aiv.merge.part"], |_, _| {}), &[&folder]).unwrap();
    let report = write(&salvaged, &folder).unwrap();
    assert_eq!(report.is_proven, Some(true));
    check_image(&folder, &report, &built.bytes);
    assert_eq!(folder.contents("p001.aiv.merge.part").unwrap().len(), bytes.len() - 4096);
}
