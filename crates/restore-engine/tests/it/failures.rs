use std::error::Error as _;

use aiv_restore_engine::{Error, Left, Refusal, RestoreOptions, RestorePlan, Unused};
use aiv_volume_io::{Extent, Job};

use crate::build::{Built, Disk, noise, threads};
use crate::targets::{Op, TestTarget, device};

const BLOCK: u64 = 64 << 10;
const HEAD: usize = 1 << 20;

fn restore(built: &Built, target: &TestTarget, options: RestoreOptions) -> Result<(), Error> {
    let view = built.view();
    let plan =
        RestorePlan::new(&view, &device(target.bytes().len() as u64), options, Job::silent())?;
    plan.apply(&view, target, Job::silent()).map(drop)
}

/// Whatever stopped the restore: the target is as it was, or does not look like a disk, or
/// only its head is missing proof.
fn check_unfinished(built: &Built, before: &[u8], after: &[u8]) {
    let untouched = after == before;
    let headless = after[..HEAD].iter().all(|&byte| byte == 0);
    // Clearing the head was interrupted.
    let half_cleared = after[HEAD..] == before[HEAD..]
        && (0..HEAD).all(|at| after[at] == before[at] || after[at] == 0);
    let complete_behind = after[HEAD..] == built.bytes[HEAD..];
    assert!(untouched || headless || half_cleared || complete_behind);
}

#[test]
fn every_operation_of_the_target_may_fail_and_none_goes_unnoticed() {
    let built = Disk::sample().build();
    for delta in [false, true] {
        let mut from = 0;
        loop {
            let before = noise(built.len());
            let mut target = TestTarget::holding(before.clone());
            target.fail_from = Some(from);
            let options = RestoreOptions { delta, unused: Unused::Zero, ..threads(1) };
            match restore(&built, &target, options) {
                Ok(()) => {
                    assert_eq!(target.ops().len(), from, "finished in spite of a failure");
                    break;
                }
                Err(Error::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(5)),
                Err(error) => panic!("operation {from}: {error}"),
            }
            check_unfinished(&built, &before, &target.bytes());
            from += 1;
        }
        assert!(from > 8, "only {from} operations");
    }
}

#[test]
fn a_failure_before_the_first_write_says_that_nothing_was_written() {
    let built = Disk::sample().build();
    for (delta, fail_sync) in [(false, false), (true, false), (true, true)] {
        let before = noise(built.len());
        let mut target = TestTarget::holding(before.clone());
        (target.fail_sync, target.fail_from) = (fail_sync, (!fail_sync).then_some(0));
        let view = built.view();
        let options = RestoreOptions { delta, ..threads(2) };
        let plan = RestorePlan::new(&view, &device(built.len()), options, Job::silent()).unwrap();
        let failed = plan.apply_to(&view, &target, Job::silent()).unwrap_err();
        assert!(target.bytes() == before);
        let is_begun = target.ops().iter().any(|op| op.extent().is_some());
        let left = if is_begun { Left::Part } else { Left::Untouched };
        assert_eq!(failed.left, left, "{delta} {fail_sync}: {:?}", target.ops());
        assert_eq!(is_begun, !delta);
    }
}

#[test]
fn with_several_threads_the_error_of_the_target_is_the_one_reported() {
    let built = Disk::sample().build();
    for from in 0..10 {
        let mut target = TestTarget::holding(noise(built.len()));
        target.fail_from = Some(from);
        let error = restore(&built, &target, threads(4)).expect_err("it fails");
        assert!(matches!(error, Error::Io { .. }), "operation {from}: {error}");
    }
}

#[test]
fn a_failed_sync_ends_the_restore_and_is_not_repeated() {
    let built = Disk::sample().build();
    for threads in [1, 4].map(threads) {
        let mut target = TestTarget::holding(noise(built.len()));
        target.fail_sync = true;
        let error = restore(&built, &target, threads).expect_err("it fails");
        assert_eq!(error.to_string(), "syncing the cleared head failed at byte 0 of the target");
        assert_eq!(target.ops().last(), Some(&Op::Sync));
        assert_eq!(target.ops().iter().filter(|op| **op == Op::Sync).count(), 1);
    }
}

#[test]
fn a_target_that_forgets_a_write_is_found_out_before_its_head_is_written() {
    let built = Disk::sample().build();
    for (block, what) in [(18, "data"), (21, "zeros"), (27, "fill"), (34, "the last block")] {
        let mut target = TestTarget::holding(noise(built.len()));
        target.forgets = Some(Extent::new(block * BLOCK + 99, 1));
        let error = restore(&built, &target, threads(2)).expect_err(what);
        let Error::Mismatch { extent } = error else { panic!("{what}: {error}") };
        // The whole write was forgotten; the first byte of it is where the search begins.
        assert!(extent.start <= block * BLOCK + 99, "{what}: {extent:?}");
        assert!(target.bytes()[..HEAD].iter().all(|&byte| byte == 0), "{what}");
    }
}

#[test]
fn a_target_that_forgets_its_head_is_found_out() {
    let built = Disk::sample().build();
    let mut target = TestTarget::holding(noise(built.len()));
    target.forgets = Some(Extent::new(0, 1));
    let error = restore(&built, &target, threads(2)).expect_err("no head");
    assert!(matches!(error, Error::Mismatch { extent } if extent.start == 0), "{error}");
}

#[test]
fn a_damaged_frame_is_named_by_file_and_offset() {
    for delta in [false, true] {
        let built = Disk::sample().build();
        let address = built.damage_frame(23);
        let before = noise(built.len());
        let target = TestTarget::holding(before.clone());
        let error = restore(&built, &target, RestoreOptions { delta, ..threads(2) })
            .expect_err("block 23 is damaged");
        assert!(matches!(error, Error::View(_)));
        assert_eq!(error.to_string(), "disk.aiv");
        let cause = error.source().expect("what is damaged").to_string();
        assert!(cause.starts_with(&format!("the frame at byte {address} is damaged")), "{cause}");
        check_unfinished(&built, &before, &target.bytes());
    }
}

#[test]
fn damage_met_before_the_first_write_leaves_the_target_as_it_was() {
    let built = Disk::sample().build();
    // The first block behind the head.
    built.damage_frame(16);
    let before = noise(built.len());
    let target = TestTarget::holding(before.clone());
    restore(&built, &target, threads(1)).expect_err("block 16 is damaged");
    assert!(target.ops().is_empty() && target.bytes() == before);
}

#[test]
fn damage_in_the_head_leaves_a_target_without_one() {
    let built = Disk::sample().build();
    built.damage_frame(0);
    let target = TestTarget::holding(noise(built.len()));
    restore(&built, &target, threads(2)).expect_err("block 0 is damaged");
    assert!(target.bytes()[..HEAD].iter().all(|&byte| byte == 0));
}

#[test]
fn a_plan_is_for_one_point_and_for_a_target_long_enough() {
    let built = Disk::sample().build();
    let other = Disk { point: 9, ..Disk::sample() }.build();
    let view = built.view();
    let plan = RestorePlan::new(&view, &device(built.len()), threads(1), Job::silent()).unwrap();
    let target = TestTarget::holding(noise(built.len()));
    let error = plan.clone().apply(&other.view(), &target, Job::silent()).expect_err("refused");
    assert!(matches!(error, Error::OtherPoint { .. }), "{error}");

    let short = TestTarget::holding(noise(built.len() - 1));
    let error = plan.apply(&view, &short, Job::silent()).expect_err("refused");
    assert!(matches!(error, Error::Refused(Refusal::TooSmall { .. })), "{error}");
    assert!(target.ops().is_empty() && short.ops().is_empty());
}

#[test]
fn the_head_is_cleared_first_and_written_last_with_syncs_between() {
    let built = Disk::sample().build();
    let target = TestTarget::holding(noise(built.len()));
    restore(&built, &target, threads(3)).unwrap();
    let ops = target.ops();
    let head = Extent::new(0, HEAD as u64);
    assert_eq!(ops[..2], [Op::Zero(head), Op::Sync]);
    assert_eq!(ops[ops.len() - 3..], [Op::Sync, Op::Write(head), Op::Sync]);
    let body = &ops[2..ops.len() - 3];
    assert!(body.iter().all(|op| op.extent().is_some_and(|e| e.start >= head.end())), "{body:?}");
}

#[test]
fn the_cache_forgets_what_was_synced_before_it_is_read_back() {
    let built = Disk::sample().build();
    let target = TestTarget::holding(noise(built.len()));
    restore(&built, &target, threads(2)).unwrap();
    let head = Extent::new(0, HEAD as u64);
    let body = Extent::between(head.end(), built.len());
    assert_eq!(target.dropped(), [(Op::Sync, body), (Op::Sync, head)]);
}
