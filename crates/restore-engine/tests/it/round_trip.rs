use aiv_chain::Kind;
use aiv_restore_engine::{RestoreOptions, RestorePlan, RestoreReport, TargetFacts, Unused};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::build::{Built, Cell, Disk, noise, threads};
use crate::targets::{TestTarget, device, file};

fn restore(
    built: &Built,
    facts: &TargetFacts,
    target: &TestTarget,
    options: RestoreOptions,
) -> RestoreReport {
    let view = built.view();
    let plan = RestorePlan::new(&view, facts, options, Job::silent()).expect("not refused");
    let free_was_left = plan.amounts().unused + plan.amounts().excluded;
    let report = plan.apply(&view, target, Job::silent()).expect("restored");
    let sum = report.bytes_written + report.bytes_zeroed + report.bytes_discarded;
    assert_eq!(sum + report.bytes_skipped(), report.region.len);
    let unproven = if options.unused == Unused::Zero { 0 } else { free_was_left };
    assert_eq!(report.bytes_verified, report.region.len - unproven);
    assert!(report.verified);
    report
}

/// Compares the target with what it must hold after `report`, given what it held before.
fn check_target(built: &Built, before: &[u8], after: &[u8], unused: Unused, region: Extent) {
    let start = usize::try_from(region.start).unwrap();
    let len = usize::try_from(region.len).unwrap();
    assert!(after[len..] == before[len..], "bytes behind the region changed");
    let mut at = 0;
    while at < len {
        let end = ((start + at) / built.block_size + 1) * built.block_size;
        let end = (end - start).min(len);
        let is_free = matches!(built.kind_at(start + at), Kind::Unused | Kind::Excluded);
        let wanted = match unused {
            Unused::Discard if is_free => None,
            Unused::Leave if is_free => Some(&before[at..end]),
            _ => Some(&built.bytes[start + at..start + end]),
        };
        if let Some(wanted) = wanted {
            assert!(after[at..end] == *wanted, "bytes {at} to {end} differ");
        }
        at = end;
    }
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        4 => any::<u8>().prop_map(|seed| Cell::Data(seed.into())),
        2 => (1usize..6).prop_map(Cell::Ref),
        2 => Just(Cell::Zero),
        2 => Just(Cell::Unused),
        1 => Just(Cell::Excluded),
        1 => Just(Cell::Lost),
        1 => any::<u8>().prop_map(|seed| Cell::Damaged(seed.into())),
    ]
}

/// A disk of 0.1 to 3 MiB, with one partition at any offset.
fn disk() -> impl Strategy<Value = Disk> {
    let size = prop_oneof![Just(16u32 << 10), Just(32 << 10), Just(64 << 10)];
    let blocks = (0u64..3_000_000, 100_000u64..3_000_000);
    (size, prop::collection::vec(cell(), 60), 0u32..16_383, blocks).prop_map(
        |(block_size, mut cells, short_by, (part_start, len))| {
            cells.truncate(usize::try_from(len / u64::from(block_size)).unwrap().max(2));
            let mut disk = Disk { short_by, table: "mbr", ..Disk::new(block_size, &cells) };
            let start = part_start % (disk.len() - 1);
            let part_len = (len % (disk.len() - start)).max(1);
            disk.parts = vec![(3, Extent::new(start, part_len))];
            disk
        },
    )
}

fn unused() -> impl Strategy<Value = Unused> {
    prop_oneof![Just(Unused::Leave), Just(Unused::Zero), Just(Unused::Discard)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_part_of_any_disk_comes_back_and_nothing_beside_it_changes(
        disk in disk(),
        unused in unused(),
        partition in any::<bool>(),
        delta in any::<bool>(),
        count in 1usize..4,
        extra in 0u64..70_000,
    ) {
        let built = disk.build();
        let partition = partition.then_some(3);
        let region = match partition {
            Some(_) => disk.parts[0].1,
            None => Extent::new(0, built.len()),
        };
        let before = noise(region.len + extra);
        let target = TestTarget::holding(before.clone());
        let options = RestoreOptions { partition, delta, unused, ..threads(count) };
        let report = restore(&built, &device(region.len + extra), &target, options);
        prop_assert_eq!(report.region, region);
        check_target(&built, &before, &target.bytes(), unused, region);
        prop_assert!(target.touched().runs().iter().all(|run| run.end() <= region.len));
        // A second look, as a delta restore, finds nothing to do but discarding.
        let again = TestTarget::holding(target.bytes());
        let options = RestoreOptions { delta: true, unused: Unused::Leave, ..options };
        restore(&built, &device(region.len + extra), &again, options);
        prop_assert!(again.touched().is_empty());
    }

    #[test]
    fn a_file_that_is_created_or_extended_ends_up_the_same(
        disk in disk(), delta in any::<bool>(), old in 0usize..200_000, unused in unused(),
    ) {
        let built = disk.build();
        let old = old.min(built.bytes.len());
        let mut before = noise(built.len());
        before[old..].fill(0);
        let target = TestTarget::holding(before.clone());
        let facts = if old == 0 {
            TargetFacts::missing_file("new.raw".to_owned())
        } else {
            file(old as u64)
        };
        let options = RestoreOptions { delta, unused, ..threads(2) };
        restore(&built, &facts, &target, options);
        check_target(&built, &before, &target.bytes(), unused, Extent::new(0, built.len()));
    }
}

#[test]
fn the_builder_and_the_view_agree() {
    let built = Disk::partitioned_sample().build();
    let mut bytes = vec![0; built.bytes.len()];
    built.view().read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == built.bytes);
}

#[test]
fn a_whole_disk_is_written_to_its_last_odd_byte() {
    let built = Disk::sample().build();
    assert_ne!(built.len() % 512, 0);
    let target = MemDisk::from_bytes(noise(built.len()));
    let view = built.view();
    let options = RestoreOptions { unused: Unused::Zero, ..threads(2) };
    let plan = RestorePlan::new(&view, &device(built.len()), options, Job::silent()).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    assert!(target.into_bytes() == built.bytes);
}

#[test]
fn unreadable_ranges_are_written_as_fill_and_listed_where_they_are_in_the_target() {
    let built = Disk::partitioned_sample().build();
    let block = 64 << 10;
    let (lost, damaged) = (Extent::new(26 * block, 2 * block), Extent::new(28 * block + 512, 512));
    let target = TestTarget::holding(noise(built.len()));
    let report = restore(&built, &device(built.len()), &target, threads(2));
    assert_eq!(report.unreadable, [lost, damaged]);
    let at = usize::try_from(damaged.start).unwrap();
    assert_eq!(&target.bytes()[at..at + 16], b"!AIV-UNREADABLE!");

    // Partition 7 starts at byte 500,000 and ends inside the lost range.
    let options = RestoreOptions { partition: Some(7), ..threads(2) };
    let target = TestTarget::holding(noise(1_200_003));
    let report = restore(&built, &device(1_200_003), &target, options);
    assert!(report.unreadable.is_empty());

    let mut disk = Disk::partitioned_sample();
    disk.parts[1].1 = Extent::new(500_000, 26 * block + 100 - 500_000);
    let built = disk.build();
    let target = TestTarget::holding(noise(disk.parts[1].1.len));
    let report = restore(&built, &device(disk.parts[1].1.len), &target, options);
    assert_eq!(report.unreadable, [Extent::new(26 * block - 500_000, 100)]);
}

#[test]
fn no_read_or_write_is_larger_than_a_mebibyte() {
    let cells: Vec<Cell> = (0..200).map(|n| Cell::Data(n % 3)).collect();
    let built = Disk::new(64 << 10, &cells).build();
    for delta in [false, true] {
        let target = TestTarget::holding(noise(built.len()));
        let options = RestoreOptions { delta, ..threads(2) };
        restore(&built, &device(built.len()), &target, options);
        assert_eq!(target.largest(), 1 << 20);
    }
}
