use aiv_restore_engine::{Note, RestoreOptions, RestorePlan, RestoreReport, TargetFacts, Unused};
use aiv_volume_io::{Extent, Job};

use crate::build::{Built, Cell, Disk, noise, threads};
use crate::targets::{Op, TestTarget, device, file};

const BLOCK: u64 = 64 << 10;

/// 20 blocks of data, then 3 in use and zero, 4 unused, 2 excluded, 1 of data.
fn disk() -> Built {
    let mut cells: Vec<Cell> = (0..20).map(Cell::Data).collect();
    cells.extend([Cell::Zero; 3]);
    cells.extend([Cell::Unused; 4]);
    cells.extend([Cell::Excluded; 2]);
    cells.push(Cell::Data(99));
    Disk::new(64 << 10, &cells).build()
}

fn restore(facts: &TargetFacts, target: &TestTarget, unused: Unused) -> RestoreReport {
    let view = disk().view();
    let options = RestoreOptions { unused, ..threads(1) };
    let plan = RestorePlan::new(&view, facts, options, Job::silent()).unwrap();
    plan.apply(&view, target, Job::silent()).unwrap()
}

#[test]
fn files_that_were_excluded_are_spoken_of() {
    let view = disk().view();
    let plan = RestorePlan::new(&view, &device(30 * BLOCK), threads(1), Job::silent()).unwrap();
    assert!(plan.notes().contains(&Note::Excluded { files: 0 }), "{:?}", plan.notes());
    let cells: Vec<Cell> = (0..20).map(Cell::Data).collect();
    let view = Disk::new(64 << 10, &cells).build().view();
    let plan = RestorePlan::new(&view, &device(20 * BLOCK), threads(1), Job::silent()).unwrap();
    assert_eq!(plan.notes(), []);
}

fn free_bytes(bytes: &[u8]) -> &[u8] {
    let block = usize::try_from(BLOCK).unwrap();
    &bytes[23 * block..29 * block]
}

#[test]
fn free_space_is_left_alone_unless_asked() {
    let before = noise(30 * BLOCK);
    let target = TestTarget::holding(before.clone());
    let report = restore(&device(30 * BLOCK), &target, Unused::default());
    assert_eq!((report.bytes_left, report.bytes_zeroed), (6 * BLOCK, 3 * BLOCK));
    assert!(free_bytes(&target.bytes()) == free_bytes(&before));
}

#[test]
fn free_space_is_zeroed_together_with_the_zeros_before_it() {
    let target = TestTarget::holding(noise(30 * BLOCK));
    let report = restore(&device(30 * BLOCK), &target, Unused::Zero);
    assert_eq!((report.bytes_left, report.bytes_zeroed), (0, 9 * BLOCK));
    assert!(free_bytes(&target.bytes()).iter().all(|&byte| byte == 0));
    assert!(target.ops().contains(&Op::Zero(Extent::new(20 * BLOCK, 9 * BLOCK))));
}

#[test]
fn free_space_is_discarded_in_one_go_and_not_read_back() {
    let target = TestTarget::holding(noise(30 * BLOCK));
    let report = restore(&device(30 * BLOCK), &target, Unused::Discard);
    assert_eq!((report.bytes_discarded, report.bytes_zeroed), (6 * BLOCK, 3 * BLOCK));
    assert_eq!(report.bytes_verified, 24 * BLOCK);
    assert!(target.ops().contains(&Op::Discard(Extent::new(23 * BLOCK, 6 * BLOCK))));
}

#[test]
fn a_new_file_is_neither_zeroed_nor_discarded_anywhere() {
    for unused in [Unused::Leave, Unused::Zero, Unused::Discard] {
        let target = TestTarget::holding(vec![0; usize::try_from(30 * BLOCK).unwrap()]);
        let facts = TargetFacts::missing_file("new.raw".to_owned());
        let report = restore(&facts, &target, unused);
        assert_eq!(report.bytes_skipped(), 9 * BLOCK, "{unused:?}");
        assert!(target.ops().iter().all(|op| matches!(op, Op::Write(_) | Op::Sync)));
        assert!(target.bytes() == disk().bytes);
    }
}

#[test]
fn an_extended_file_is_zeroed_only_where_it_held_something() {
    let mut before = noise(30 * BLOCK);
    let old = 21 * BLOCK + 100;
    before[usize::try_from(old).unwrap()..].fill(0);
    let target = TestTarget::holding(before);
    let report = restore(&file(old), &target, Unused::Zero);
    assert_eq!(report.bytes_zeroed, BLOCK + 100);
    assert!(target.ops().contains(&Op::Zero(Extent::new(20 * BLOCK, BLOCK + 100))));
    assert!(target.bytes() == disk().bytes);
}

#[test]
fn free_space_in_the_head_is_left_alone_too() {
    let mut cells = vec![Cell::Data(1), Cell::Unused];
    cells.extend((0..20).map(Cell::Data));
    let built = Disk::new(64 << 10, &cells).build();
    let before = noise(built.len());
    let target = TestTarget::holding(before.clone());
    let view = built.view();
    let plan = RestorePlan::new(&view, &device(built.len()), threads(1), Job::silent()).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    let block = usize::try_from(BLOCK).unwrap();
    assert!(target.bytes()[block..2 * block] == before[block..2 * block]);
    assert!(target.bytes()[..block] == built.bytes[..block]);
}

#[test]
fn long_runs_are_zeroed_64_mib_at_a_time() {
    let mut cells = vec![Cell::Zero; 1100];
    cells[0] = Cell::Data(1);
    let built = Disk::new(64 << 10, &cells).build();
    let target = TestTarget::holding(vec![1; built.bytes.len()]);
    let view = built.view();
    let plan = RestorePlan::new(&view, &device(built.len()), threads(1), Job::silent()).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    let zeroed = target.ops().into_iter().filter_map(|op| match op {
        Op::Zero(extent) => Some(extent.len),
        _ => None,
    });
    assert_eq!(zeroed.max(), Some(64 << 20));
    assert!(target.bytes() == built.bytes);
}
