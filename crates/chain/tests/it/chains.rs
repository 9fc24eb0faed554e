//! Points that need several images: what a folder finds of them, and what a view reads.

use aiv_chain::{Depth, Error, Folder, Kind, Point, PointState, Set, StrayKind, View};
use aiv_testkit::disks::Content;
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Job, ReadAt, Storage};
use proptest::prelude::*;

use crate::chain_maker::{Step, Way, point};
use crate::common::{BLOCK, damage};

pub(crate) fn open(storage: &dyn Storage, file: &str) -> View {
    View::open(storage, file, Job::silent()).unwrap()
}

pub(crate) fn bytes_of(view: &View) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(view.len()).unwrap()];
    view.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Writes a chain of these states as `01`, `02`, …; the first one is full.
pub(crate) fn chain_of(states: &[Vec<u8>]) -> MemStorage {
    let storage = MemStorage::new();
    for (number, bytes) in (1..).zip(states) {
        let parent = (number > 1).then(|| open(&storage, &format!("{:02}", number - 1)));
        Step::new(number, bytes.clone()).write(&storage, &format!("{number:02}"), parent.as_ref());
    }
    storage
}

/// Four blocks, of which each state but the first changes one, in turn from the second on.
pub(crate) fn states(count: u64) -> Vec<Vec<u8>> {
    let mut bytes = Content::Random(1000).bytes(4 * BLOCK);
    let mut all = vec![bytes.clone()];
    for n in 1..count {
        let block = usize::try_from(n % 4).unwrap() * BLOCK;
        bytes[block..block + BLOCK].copy_from_slice(&Content::Random(n).bytes(BLOCK));
        all.push(bytes.clone());
    }
    all
}

pub(crate) fn scan(storage: &dyn Storage) -> Folder {
    Folder::scan(storage, Job::silent()).unwrap()
}

pub(crate) fn the_set(folder: &Folder) -> &Set {
    let [set] = folder.sets.as_slice() else { panic!("{} sets", folder.sets.len()) };
    set
}

pub(crate) fn of_point(folder: &Folder, number: u16) -> &Point {
    the_set(folder).point(point(number)).unwrap()
}

/// What happens to a disk between two backups.
#[derive(Debug, Clone)]
enum Change {
    New { block: usize, seed: u64 },
    Little { block: usize, at: usize, value: u8 },
    Copy { from: usize, to: usize },
    Zero { block: usize },
    Length(usize),
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    let blocks = bytes.len().div_ceil(BLOCK);
    let of = |block: usize| (block % blocks) * BLOCK..((block % blocks) * BLOCK + BLOCK);
    let within = |range: std::ops::Range<usize>, len: usize| range.start..range.end.min(len);
    let len = bytes.len();
    match *change {
        Change::New { block, seed } => {
            let range = within(of(block), len);
            let new = Content::Mixed(seed).bytes(BLOCK);
            bytes[range.clone()].copy_from_slice(&new[..range.len()]);
        }
        Change::Little { block, at, value } => {
            let range = within(of(block), len);
            bytes[range.start + at % range.len()] = value;
        }
        Change::Copy { from, to } => {
            let (from, to) = (within(of(from), len), within(of(to), len));
            let count = from.len().min(to.len());
            bytes.copy_within(from.start..from.start + count, to.start);
        }
        Change::Zero { block } => bytes[within(of(block), len)].fill(0),
        Change::Length(len) => bytes.resize(len, 0x5A),
    }
}

fn arb_change() -> impl Strategy<Value = Change> {
    let block = 0..300usize;
    prop_oneof![
        4 => (block.clone(), 1..20u64).prop_map(|(block, seed)| Change::New { block, seed }),
        4 => (block.clone(), any::<usize>(), any::<u8>())
            .prop_map(|(block, at, value)| Change::Little { block, at, value }),
        3 => (block.clone(), block.clone()).prop_map(|(from, to)| Change::Copy { from, to }),
        1 => block.prop_map(|block| Change::Zero { block }),
        1 => arb_length().prop_map(Change::Length),
    ]
}

/// Up to two groups of blocks, the last block whole or not.
fn arb_length() -> impl Strategy<Value = usize> {
    let blocks = prop_oneof![8 => 1..9usize, 1 => 127..131usize];
    (blocks, prop_oneof![Just(BLOCK), Just(512), 1..BLOCK])
        .prop_map(|(blocks, last)| (blocks - 1) * BLOCK + last)
}

fn arb_ways() -> impl Strategy<Value = Vec<Way>> {
    prop::collection::vec(prop_oneof![4 => Just(Way::Thrifty), 1 => Just(Way::Whole)], 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_point_of_a_chain_reads_as_the_disk_was(
        len in arb_length(),
        steps in prop::collection::vec(
            (prop::collection::vec(arb_change(), 0..6), arb_ways(), 0..3usize), 1..8),
        at in any::<prop::sample::Index>(),
    ) {
        let storage = MemStorage::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for (number, (changes, ways, back)) in (1..).zip(&steps) {
            // Mostly on the newest point, sometimes on an older one: differentials, branches.
            let parent = model.len().checked_sub(1 + if *back == 2 { at.index(model.len().max(1)) } else { 0 });
            let mut bytes = match parent {
                Some(parent) => model[parent].clone(),
                None => Content::Mixed(3).bytes(len),
            };
            changes.iter().for_each(|c| change(&mut bytes, c));
            let parent = parent.map(|parent| open(&storage, &format!("{:02}", parent + 1)));
            let step = Step { ways: ways.clone(), ..Step::new(number, bytes.clone()) };
            step.write(&storage, &format!("{number:02}"), parent.as_ref());
            model.push(bytes);
        }
        let folder = scan(&storage);
        prop_assert_eq!(the_set(&folder).points.len(), model.len());
        for (number, bytes) in (1..).zip(&model) {
            let point = of_point(&folder, number);
            prop_assert_eq!(&point.state, &PointState::Restorable);
            let view = View::of_point(&storage, the_set(&folder), point).unwrap();
            prop_assert!(bytes_of(&view) == *bytes, "point {}", number);
            // Stretch by stretch, and block by block in another order.
            let (mut reader, mut next, mut block) = (view.reader(), 0, vec![0; BLOCK]);
            for stretch in view.stretches(0) {
                let stretch = stretch.unwrap();
                prop_assert_eq!(stretch.block(), next);
                next += stretch.run();
                for number in stretch.block()..next {
                    let offset = usize::try_from(number).unwrap() * BLOCK;
                    let out = &mut block[..view.geometry().block_len(number) as usize];
                    let depth = reader.read_in(&stretch, number, out).unwrap();
                    prop_assert!(depth <= 2, "{} differences", depth);
                    prop_assert!(*out == bytes[offset..offset + out.len()], "block {}", number);
                }
            }
            prop_assert_eq!(next, view.geometry().blocks());
            let offset = at.index(bytes.len());
            let count = (bytes.len() - offset).min(3 * BLOCK);
            let mut out = vec![1; count];
            view.read_exact_at(&mut out, offset as u64).unwrap();
            prop_assert!(out == bytes[offset..offset + count]);
            let report = match view.parent() {
                Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()),
                None => view.image().verify(Depth::Data, Job::silent()),
            };
            prop_assert_eq!(&report.unwrap().damage, &[]);
        }
    }
}

#[test]
fn small_changes_again_and_again_stay_two_differences_deep() {
    let mut bytes = Content::Random(1).bytes(2 * BLOCK);
    let mut all = vec![bytes.clone()];
    for n in 0..8 {
        bytes[n] ^= 1;
        all.push(bytes.clone());
    }
    let storage = chain_of(&all);
    let mut kinds = Vec::new();
    for (number, bytes) in (1..).zip(&all) {
        let view = open(&storage, &format!("{number:02}"));
        let stretch = view.stretches(0).next().unwrap().unwrap();
        let mut block = vec![0; BLOCK];
        let depth = view.reader().read_in(&stretch, 0, &mut block).unwrap();
        assert!(block == bytes[..BLOCK]);
        kinds.push((stretch.kind(), depth));
    }
    use Kind::{Data, Delta};
    let expected = [(Data, 0), (Delta, 1), (Delta, 2)];
    assert_eq!(kinds, [expected, expected, expected].concat());
}

#[test]
fn a_copy_of_a_copy_is_followed_through_all_layers() {
    let mut bytes = Content::Random(1).bytes(6 * BLOCK);
    let mut all = vec![bytes.clone()];
    for to in 1..6 {
        // Overwrites the block the bytes came from, so that the older image must be asked.
        bytes.copy_within((to - 1) * BLOCK..to * BLOCK, to * BLOCK);
        let gone = Content::Random(100 + to as u64).bytes(BLOCK);
        bytes[(to - 1) * BLOCK..to * BLOCK].copy_from_slice(&gone);
        all.push(bytes.clone());
    }
    let storage = chain_of(&all);
    let view = open(&storage, "06");
    let last = view.stretches(5).next().unwrap().unwrap();
    assert_eq!((last.kind(), last.layer()), (Kind::Parent, 0));
    assert!(bytes_of(&view) == all[5]);
}

#[test]
fn many_threads_read_a_long_chain() {
    let all = states(12);
    let storage = chain_of(&all);
    let view = open(&storage, "12");
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (view, bytes) = (&view, &all[11]);
            scope.spawn(move || {
                for round in 0..100 {
                    let at = (thread * 7919 + round * 3571) % (bytes.len() - 100);
                    let mut out = [0; 100];
                    view.read_exact_at(&mut out, at as u64).unwrap();
                    assert!(out == bytes[at..at + 100]);
                }
            });
        }
    });
}

#[test]
fn a_view_stays_what_it_is_when_its_files_are_removed() {
    let all = states(3);
    let storage = chain_of(&all);
    let view = open(&storage, "03");
    for file in ["01", "02", "03"] {
        storage.remove(file).unwrap();
    }
    assert!(bytes_of(&view) == all[2]);
}

#[test]
fn the_files_of_a_chain_may_lie_anywhere_and_be_called_anything() {
    let all = states(3);
    let storage = chain_of(&all);
    storage.publish("01", "a/b/c/full.bin").unwrap();
    storage.publish("02", "zz.AIV").unwrap();
    storage.publish("03", "0/increment").unwrap();
    storage.insert("02", b"nothing of ours".to_vec());
    storage.insert("vendor.aiv", vec![7; 10_000]);
    let folder = scan(&storage);
    let files: Vec<_> = the_set(&folder).points.iter().map(|p| p.file.as_str()).collect();
    assert_eq!(files, ["a/b/c/full.bin", "zz.AIV", "0/increment"]);
    assert!(bytes_of(&open(&storage, "0/increment")) == all[2]);
    assert_eq!(folder.strays.len(), 1);
}

#[test]
fn what_builds_on_a_missing_point_names_it() {
    let storage = chain_of(&states(4));
    storage.remove("02").unwrap();
    let folder = scan(&storage);
    assert!(of_point(&folder, 1).is_restorable());
    for number in [3, 4] {
        let point_above = of_point(&folder, number);
        assert_eq!(point_above.state, PointState::MissingParent { point: point(2) });
        let opened = View::of_point(&storage, the_set(&folder), point_above);
        assert!(matches!(opened, Err(Error::NotRestorable { .. })));
        let error = View::open(&storage, &point_above.file, Job::silent()).err().unwrap();
        assert!(
            matches!(&error, Error::NotRestorable { state, .. } if *state == point_above.state
            || *state == PointState::MissingParent { point: point(2) }),
            "{error:?}"
        );
    }
}

#[test]
fn a_copy_provides_what_the_first_file_no_longer_does() {
    let all = states(3);
    let storage = chain_of(&all);
    storage.insert("02 copy", storage.contents("02").unwrap());
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 2).other_files, ["02 copy"]);
    let stray = &folder.strays[0];
    assert_eq!((stray.file.as_str(), &stray.kind), ("02 copy", &StrayKind::Duplicate("02".into())));
    // Damage that opening finds, and damage beyond opening.
    let len = storage.contents("02").unwrap().len();
    damage(&storage, "02", len - 100);
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 2).file, "02 copy");
    assert_eq!(of_point(&folder, 3).state, PointState::Restorable);
    damage(&storage, "02", len - 77_000);
    assert!(bytes_of(&open(&storage, "03")) == all[2]);
    storage.remove("02").unwrap();
    assert!(bytes_of(&open(&storage, "03")) == all[2]);
}

#[test]
fn of_two_files_with_one_point_the_one_whose_chain_is_whole_is_read() {
    let all = states(3);
    let storage = chain_of(&all);
    // As a merge leaves it when it is interrupted: the same state as a full image.
    let merged = Step { ways: vec![Way::Thrifty], ..Step::new(2, all[1].clone()) };
    merged.write(&storage, "merged", None);
    storage.remove("01").unwrap();
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 2).file, "merged");
    assert_eq!(of_point(&folder, 2).other_files, ["02"]);
    assert!(bytes_of(&open(&storage, "03")) == all[2]);
    assert_eq!(
        open(&storage, "03").images().map(|(_, file)| file).collect::<Vec<_>>(),
        ["03", "merged"]
    );
}

#[test]
fn two_states_of_one_point_are_two_states_and_the_link_tells_which() {
    let all = states(3);
    let storage = chain_of(&all);
    // Sorts before the one the link names.
    Step::new(2, all[0].clone()).write(&storage, "00 another", None);
    let folder = scan(&storage);
    let twice = the_set(&folder).points.iter().filter(|p| p.id == point(2)).count();
    assert_eq!((twice, folder.strays.len()), (2, 0));
    assert!(bytes_of(&open(&storage, "03")) == all[2]);
    storage.remove("02").unwrap();
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 3).state, PointState::ParentDiffers { point: point(2) });
    let error = View::open(&storage, "03", Job::silent()).err().unwrap();
    assert!(matches!(error, Error::NotRestorable { .. }), "{error:?}");
}

#[test]
fn an_image_without_meta_is_no_point_and_still_a_parent() {
    let all = states(3);
    let storage = chain_of(&all);
    let at = open(&storage, "02").image().trailer().meta_offset;
    damage(&storage, "02", usize::try_from(at).unwrap() + 70);
    let folder = scan(&storage);
    let set = the_set(&folder);
    assert_eq!(set.points.iter().map(|p| p.id).collect::<Vec<_>>(), [point(1), point(3)]);
    assert_eq!(set.nameless.len(), 1);
    assert_eq!(of_point(&folder, 3).state, PointState::Restorable);
    assert!(bytes_of(&open(&storage, "03")) == all[2]);
    let view = View::of_point(&storage, set, of_point(&folder, 3)).unwrap();
    assert!(bytes_of(&view) == all[2]);
    assert!(bytes_of(&open(&storage, "02")) == all[1], "by the name of its file");
}

#[test]
fn one_file_that_cannot_be_read_hides_no_other() {
    let storage = chain_of(&states(3));
    let mut fired = 0;
    for nth in 0.. {
        let failing = FaultStorage::failing(storage.fork(), FaultPlan::once(nth, Fault::Eio));
        let found = Folder::scan(&failing, Job::silent());
        if !failing.fired() {
            break;
        }
        fired += 1;
        let Ok(folder) = found else { continue };
        let points: usize = folder.sets.iter().map(|set| set.points.len()).sum();
        assert_eq!(points + folder.strays.len(), 3, "fault {nth}");
        assert!(points >= 2, "fault {nth}");
    }
    assert!(fired > 6);
}
