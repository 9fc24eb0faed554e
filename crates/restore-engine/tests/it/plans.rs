use aiv_restore_engine::{Note, RestoreOptions, RestorePlan, TargetFacts, Unused};
use aiv_volume_io::{Extent, Job};

use crate::build::{Disk, threads};
use crate::targets::{device, file};

const BLOCK: u64 = 64 << 10;

fn plan(disk: &Disk, facts: &TargetFacts, options: RestoreOptions) -> RestorePlan {
    RestorePlan::new(&disk.build().view(), facts, options, Job::silent()).expect("not refused")
}

fn sentences(plan: &RestorePlan) -> Vec<String> {
    plan.steps().iter().map(ToString::to_string).collect()
}

/// Every kind of block is in the samples, and no list says which files the excluded one was of.
const EXCLUDED: Note = Note::Excluded { files: 0 };

#[test]
fn a_dry_run_of_a_disk_onto_a_device() {
    let disk = Disk::partitioned_sample();
    let plan = plan(&disk, &device(disk.len()), threads(1));
    let expected = [
        "clear the first 1048576 bytes until the end of the restore",
        "write 1830008 bytes from the image",
        "make 196608 bytes read as zeros",
        "leave 262144 bytes of free space as they are",
        "sync, read back and compare 2026616 bytes",
        "write the first 1048576 bytes last, and check them",
    ];
    assert_eq!(sentences(&plan), expected);
    assert_eq!((plan.notes(), plan.partition()), (&[EXCLUDED][..], None));
}

#[test]
fn a_dry_run_of_a_partition_into_a_new_file() {
    let options = RestoreOptions { partition: Some(2), unused: Unused::Zero, ..threads(1) };
    let facts = TargetFacts::missing_file("p2.raw".to_owned());
    let plan = plan(&Disk::partitioned_sample(), &facts, options);
    let expected = [
        "create a file of 300001 bytes",
        "write 300001 bytes from the image",
        "sync, read back and compare 300001 bytes",
        "write the first 300001 bytes last, and check them",
    ];
    assert_eq!(sentences(&plan), expected);
    assert_eq!(plan.region(), Extent::new(70_000, 300_001));
    assert_eq!(plan.partition().map(|p| p.number), Some(2));
    assert!(!plan.extends_target());
}

#[test]
fn a_smaller_file_is_to_be_extended_and_a_larger_one_keeps_its_rest() {
    let disk = Disk::sample();
    let short = plan(&disk, &file(1000), threads(1));
    assert!(short.extends_target());
    assert_eq!(short.target_len_needed(), disk.len());
    assert_eq!(sentences(&short)[0], format!("extend the file from 1000 to {} bytes", disk.len()));
    let long = plan(&disk, &file(disk.len() + 10), threads(1));
    assert!(!long.extends_target());
    let rest = Extent::new(disk.len(), 10);
    assert_eq!(long.notes(), [EXCLUDED, Note::TargetLarger { rest }]);
}

#[test]
fn a_gpt_disk_on_a_larger_one_is_told_about_its_backup_header() {
    let disk = Disk::partitioned_sample();
    let larger = device(disk.len() + BLOCK);
    let notes = plan(&disk, &larger, threads(1)).notes().to_vec();
    let rest = Extent::new(disk.len(), BLOCK);
    assert_eq!(notes, [EXCLUDED, Note::TargetLarger { rest }, Note::BackupHeaderNotAtEnd]);
    let one = RestoreOptions { partition: Some(7), ..threads(1) };
    let notes = plan(&disk, &larger, one).notes().to_vec();
    assert!(!notes.contains(&Note::BackupHeaderNotAtEnd), "a partition has none");
}

#[test]
fn a_partition_of_a_doubtful_table_carries_its_problems() {
    let problems = vec!["partitions 2 and 3 overlap".to_owned()];
    let disk = Disk { table_problems: problems.clone(), ..Disk::partitioned_sample() };
    let one = RestoreOptions { partition: Some(7), ..threads(1) };
    assert!(plan(&disk, &device(1 << 30), one).notes().contains(&Note::TableProblems(problems)));
}

#[test]
fn amounts_come_from_the_index_alone() {
    let disk = Disk::sample();
    let built = disk.build();
    built.damage_frame(0);
    let plan = RestorePlan::new(&built.view(), &device(disk.len()), threads(1), Job::silent());
    let amounts = plan.expect("no frame is read").amounts();
    assert_eq!(amounts.data, 25 * BLOCK - 5000);
    assert_eq!((amounts.zero, amounts.unused), (3 * BLOCK, 3 * BLOCK));
    assert_eq!((amounts.excluded, amounts.unreadable), (BLOCK, 3 * BLOCK));
}

#[test]
fn unreadable_blocks_that_meta_forgets_count_in_full() {
    let disk = Disk { forgets_errors: true, ..Disk::sample() };
    let plan = plan(&disk, &device(disk.len()), threads(1));
    assert_eq!(plan.unreadable(), [Extent::new(26 * BLOCK, 3 * BLOCK)]);
}
