use aiv_restore_engine::{Error, RestoreOptions, RestorePlan, RestoreReport, Unused};
use aiv_volume_io::{Extent, Job};

use crate::build::{Built, Disk, threads};
use crate::targets::{Op, TestTarget, device};

const BLOCK: u64 = 64 << 10;
/// Bytes of the head, which is written in full as soon as anything changes.
const HEAD: u64 = 1 << 20;

fn delta(built: &Built, target: &TestTarget, unused: Unused) -> RestoreReport {
    let view = built.view();
    let options = RestoreOptions { delta: true, unused, ..threads(3) };
    let plan = RestorePlan::new(&view, &device(built.len()), options, Job::silent()).unwrap();
    plan.apply(&view, target, Job::silent()).unwrap()
}

#[test]
fn a_target_that_is_right_already_is_read_and_not_written() {
    let built = Disk::sample().build();
    let target = TestTarget::holding(built.bytes.clone());
    let report = delta(&built, &target, Unused::Zero);
    assert_eq!((report.bytes_written, report.bytes_identical), (0, built.len()));
    assert!(target.ops().iter().all(|op| *op == Op::Sync));
    assert_eq!(report.bytes_verified, built.len());
}

#[test]
fn only_the_head_and_what_differs_is_written() {
    let built = Disk::sample().build();
    let mut bytes = built.bytes.clone();
    // In a block of data, in zeros, and in the short last block.
    let changed = [18 * BLOCK + 7, 21 * BLOCK + 40_000, built.len() - 1];
    for at in changed {
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
    }
    let target = TestTarget::holding(bytes);
    let report = delta(&built, &target, Unused::Leave);
    assert!(target.bytes() == built.bytes);
    let expected = [
        Extent::new(0, HEAD),
        Extent::new(18 * BLOCK, BLOCK),
        Extent::new(21 * BLOCK, BLOCK),
        Extent::between(34 * BLOCK, built.len()),
    ];
    assert_eq!(target.touched().runs(), expected);
    assert_eq!(report.bytes_zeroed, BLOCK);
    assert_eq!(report.bytes_written, HEAD + BLOCK + (BLOCK - 5000));
}

#[test]
fn what_is_right_is_read_once_from_the_medium_and_what_is_written_is_read_back() {
    let built = Disk::sample().build();
    let mut bytes = built.bytes.clone();
    let (data, zeros) = (18 * BLOCK + 7, 21 * BLOCK + 40_000);
    for at in [data, zeros] {
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
    }
    let target = TestTarget::holding(bytes);
    let report = delta(&built, &target, Unused::Leave);
    assert_eq!([data, zeros, 17 * BLOCK].map(|at| target.times_read(at)), [2, 2, 1]);
    let body = Extent::between(HEAD, built.len());
    assert_eq!(target.dropped()[0], (Op::Sync, body), "before anything is compared");
    assert_eq!(report.bytes_verified + report.bytes_left, built.len());
}

#[test]
fn a_delta_that_the_target_forgets_is_found_out() {
    for block in [18, 21, 34] {
        let built = Disk::sample().build();
        let mut bytes = built.bytes.clone();
        let at = block * BLOCK + 7;
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
        let mut target = TestTarget::holding(bytes);
        target.forgets = Some(Extent::new(at, 1));
        let view = built.view();
        let options = RestoreOptions { delta: true, ..threads(3) };
        let plan = RestorePlan::new(&view, &device(built.len()), options, Job::silent()).unwrap();
        let error = plan.apply(&view, &target, Job::silent()).expect_err("it is as it was");
        let place = block * BLOCK;
        assert!(matches!(error, Error::Mismatch { extent } if extent.start == place), "{error}");
    }
}

#[test]
fn a_wrong_head_alone_is_cleared_and_written() {
    let built = Disk::sample().build();
    let mut bytes = built.bytes.clone();
    bytes[510] ^= 1;
    let target = TestTarget::holding(bytes);
    let report = delta(&built, &target, Unused::Leave);
    assert!(target.bytes() == built.bytes);
    assert_eq!(target.touched().runs(), [Extent::new(0, HEAD)]);
    assert_eq!(report.bytes_written, HEAD);
}

#[test]
fn discarding_free_space_rewrites_the_head_and_no_other_block() {
    let built = Disk::sample().build();
    let target = TestTarget::holding(built.bytes.clone());
    let report = delta(&built, &target, Unused::Discard);
    assert_eq!((report.bytes_written, report.bytes_discarded), (HEAD, 4 * BLOCK));
    let written = target.ops().into_iter().filter_map(|op| match op {
        Op::Write(extent) => Some(extent),
        _ => None,
    });
    assert!(written.into_iter().all(|extent| extent.end() <= HEAD));
}

#[test]
fn blocks_of_a_partition_that_are_cut_at_its_edges_are_compared_byte_by_byte() {
    let disk = Disk::partitioned_sample();
    let (built, region) = (disk.build(), disk.parts[1].1);
    let view = built.view();
    let start = usize::try_from(region.start).unwrap();
    let end = usize::try_from(region.end()).unwrap();
    let mut bytes = built.bytes[start..end].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let target = TestTarget::holding(bytes);
    let options =
        RestoreOptions { partition: Some(7), delta: true, unused: Unused::Zero, ..threads(1) };
    let plan = RestorePlan::new(&view, &device(region.len), options, Job::silent()).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    assert!(target.bytes() == built.bytes[start..end]);
    let last_block = region.end() / BLOCK * BLOCK - region.start;
    let last = *target.touched().runs().last().unwrap();
    assert_eq!(last, Extent::between(last_block, region.len));
}

#[test]
fn places_that_cannot_be_read_are_written_which_heals_them() {
    let built = Disk::sample().build();
    for (block, what) in [(19, "data"), (21, "zeros"), (3, "the head")] {
        let mut target = TestTarget::holding(built.bytes.clone());
        target.unreadable = Some(Extent::new(block * BLOCK + 1024, 512));
        let report = delta(&built, &target, Unused::Leave);
        assert!(report.bytes_written + report.bytes_zeroed >= BLOCK, "{what}");
        let healed = target.touched().gaps_within(Extent::new(block * BLOCK, BLOCK));
        assert!(healed.is_empty() && target.bytes() == built.bytes, "{what}");
    }
}
