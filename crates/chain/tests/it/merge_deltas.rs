//! Differences whose base is merged away, and what is a difference to them.

use aiv_chain::Kind;

use crate::common::BLOCK;
use crate::consolidate::{consolidate, frame, keep};
use crate::described::{Chain, Change, Step, entries, wrong};
use crate::transfers::copy_all;

#[test]
fn differences_are_copied_while_their_base_is_there_and_stored_anew_when_it_is_not() {
    let len = 4 * BLOCK as u64;
    let chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 4)]),
        Step::on(1, len, &[(Change::Patch(1), 1), (Change::New(2), 1)]),
        Step::on(1, len, &[(Change::Patch(2), 3)]),
        Step::on(1, len, &[(Change::Patch(3), 2)]),
    ]);
    let old = entries(&chain.storage, "p003.aii");
    assert!(old.iter().all(|entry| entry.kind == Kind::Delta));
    let before = chain.storage.fork();
    let report = consolidate(&chain.storage, &keep(2, &[1])).unwrap();
    let file = &report.merged[0].file;
    let new = entries(&chain.storage, file);
    // Block 0: its base was a difference to the full image; stored anew, against the full image.
    assert_eq!(new[0].kind, Kind::Delta);
    // Block 1: its base is gone, and against the full image nothing is gained.
    assert_eq!(new[1].kind, Kind::Data);
    // Block 2: nobody touched its base.
    assert_eq!(new[2].kind, Kind::Delta);
    let same =
        |at: usize| frame(&before, "p003.aii", &old[at]) == frame(&chain.storage, file, &new[at]);
    assert_eq!([same(0), same(1), same(2)], [false, false, true]);
    for at in [0, 2, 3] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_backup_on_a_block_that_became_shallower_below_is_readable() {
    let len = 2 * BLOCK as u64;
    let mut chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 2)]),
        Step::on(1, len, &[(Change::Patch(1), 1)]),
        Step::on(1, len, &[(Change::Patch(2), 1)]),
    ]);
    // The second point becomes full, so that the difference in the third builds on a whole block
    // although it says that it is the second in a row.
    consolidate(&chain.storage, &keep(2, &[])).unwrap();
    chain.add(&Step::on(1, len, &[(Change::Patch(3), 1)]));
    for at in 1..4 {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_block_stored_anew_is_not_deeper_than_it_was_so_that_what_builds_on_it_reads_on() {
    let len = 2 * BLOCK as u64;
    let one = |change| vec![(change, 1)];
    let chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 2)]),
        Step::on(1, len, &one(Change::Patch(1))),
        Step::on(1, len, &one(Change::Rewritten(2))),
        Step::on(1, len, &one(Change::Patch(3))),
        Step::on(1, len, &one(Change::Patch(4))),
    ]);
    // Against the second point the fourth would be the second difference in a row, and the fifth,
    // which says that it is the second, could not be read any more.
    consolidate(&chain.storage, &keep(2, &[1, 2])).unwrap();
    for at in [0, 1, 3, 4] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_difference_whose_base_is_there_and_deeper_than_it_allows_is_stored_anew() {
    let len = 2 * BLOCK as u64;
    let one = |change| vec![(change, 1)];
    let chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 2)]),
        Step::on(1, len, &one(Change::Patch(1))),
        // The same bytes, stored whole.
        Step::on(1, len, &one(Change::Rewritten(0))),
        Step::on(1, len, &one(Change::Patch(3))),
    ]);
    let report = consolidate(&chain.storage, &keep(1, &[1, 2])).unwrap();
    assert_eq!(entries(&chain.storage, &report.merged[0].file)[0].kind, Kind::Data);
    for at in [0, 1, 3] {
        assert_eq!(wrong(&chain.storage, &chain.points[at]), None);
    }
}

#[test]
fn a_difference_to_a_block_that_came_back_to_what_the_parent_has_is_copied() {
    let len = 2 * BLOCK as u64;
    let one = |change| vec![(change, 1)];
    let chain = Chain::of(&[
        Step::full(len, &[(Change::New(1), 2)]),
        Step::on(1, len, &one(Change::Rewritten(0))),
        Step::on(1, len, &one(Change::Patch(3))),
    ]);
    let old = entries(&chain.storage, "p003.aii")[0];
    let old = frame(&chain.storage, "p003.aii", &old);
    let report = consolidate(&chain.storage, &keep(1, &[1])).unwrap();
    let file = &report.merged[0].file;
    let new = entries(&chain.storage, file)[0];
    assert!(frame(&chain.storage, file, &new) == old);
    assert_eq!(wrong(&chain.storage, &chain.points[2]), None);
}

#[test]
fn a_folder_that_keeps_all_points_of_one_that_keeps_only_the_newest_never_reads_deeper() {
    let len = 2 * BLOCK as u64;
    let mut chain = Chain::of(&[Step::full(len, &[(Change::New(1), 2)])]);
    let archive = aiv_testkit::MemStorage::new();
    for patch in 1..12 {
        chain.add(&Step::on(1, len, &[(Change::Patch(patch), 1)]));
        copy_all(&chain.storage, &archive).unwrap();
        // The next backup builds on a full image, the copy of it on all the increments.
        consolidate(&chain.storage, &keep(1, &[])).unwrap();
    }
    for point in &chain.points {
        assert_eq!(wrong(&archive, point), None);
    }
    assert_eq!(wrong(&chain.storage, &chain.points[11]), None);
}
