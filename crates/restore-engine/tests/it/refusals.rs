//! What is refused by the facts alone; `devices` and `files` show that the facts are right.

use aiv_restore_engine::{Error, Note, Refusal, RestoreOptions, RestorePlan, TargetFacts, Use};
use aiv_volume_io::{Extent, Job};

use crate::build::{Built, Disk, threads};
use crate::targets::{device, file};

fn plan(built: &Built, facts: &TargetFacts, partition: Option<u32>) -> Result<RestorePlan, Error> {
    let options = RestoreOptions { partition, ..threads(1) };
    RestorePlan::new(&built.view(), facts, options, Job::silent())
}

fn refusal(disk: &Disk, facts: &TargetFacts, partition: Option<u32>) -> Refusal {
    match plan(&disk.build(), facts, partition) {
        Err(Error::Refused(refusal)) => refusal,
        Err(error) => panic!("{error}"),
        Ok(plan) => panic!("not refused: {plan:?}"),
    }
}

fn in_use(found: Use) -> String {
    let facts = TargetFacts { uses: vec![found], ..device(1 << 30) };
    refusal(&Disk::sample(), &facts, None).to_string()
}

#[test]
fn a_mounted_target() {
    let found = Use::Mounted { device: "sda1".to_owned(), path: "/home".into() };
    assert_eq!(in_use(found), "/dev/target is in use: sda1 is mounted at /home");
}

#[test]
fn a_target_with_active_swap_space() {
    let found = Use::Swap { device: Some("sda2".to_owned()) };
    assert_eq!(in_use(found), "/dev/target is in use: sda2 is active swap space");
}

#[test]
fn a_target_that_is_part_of_a_stacked_device() {
    let found = Use::Held { device: "sda3".to_owned(), by: "md0".to_owned(), by_name: None };
    assert_eq!(in_use(found), "/dev/target is in use: sda3 is held by md0");
}

#[test]
fn a_target_that_a_loop_device_shows() {
    let found = Use::BacksLoop { by: "loop4".to_owned() };
    assert_eq!(in_use(found), "/dev/target is in use: loop device loop4 shows it");
}

#[test]
fn a_read_only_target() {
    let facts = TargetFacts { read_only: true, ..file(0) };
    let target = facts.label.clone();
    assert_eq!(refusal(&Disk::sample(), &facts, None), Refusal::ReadOnly { target });
    let uses = vec![Use::ReadOnly { device: "sda".to_owned() }];
    let facts = TargetFacts { uses, ..device(1 << 30) };
    assert!(matches!(refusal(&Disk::sample(), &facts, None), Refusal::ReadOnly { .. }));
}

#[test]
fn a_target_that_holds_the_image() {
    let facts = TargetFacts { holds_image: true, ..device(1 << 30) };
    let target = facts.label.clone();
    assert_eq!(refusal(&Disk::sample(), &facts, None), Refusal::HoldsImage { target });
}

#[test]
fn a_target_that_is_another_image() {
    let facts = TargetFacts { is_image: true, ..file(1 << 20) };
    let target = facts.label.clone();
    assert_eq!(refusal(&Disk::sample(), &facts, None), Refusal::IsImage { target });
}

#[test]
fn a_file_that_is_called_like_a_virtual_disk() {
    let named = |name: &str| TargetFacts { label: name.to_owned(), ..file(1 << 20) };
    for (name, format) in [("vm.qcow2", "qcow2"), ("a b/VM.VMDK", "vmdk"), ("x.avhdx", "vhdx")] {
        let refused = Refusal::VirtualDisk { target: name.to_owned(), format };
        assert_eq!(refusal(&Disk::sample(), &named(name), None), refused);
    }
    // Pieces of a VMDK are raw bytes, and of a device the name says nothing.
    for name in ["vm.raw", "vm-flat.vmdk", "qcow2"] {
        plan(&Disk::sample().build(), &named(name), None).expect("raw bytes");
    }
    let device = TargetFacts { label: "/dev/a.qcow2".to_owned(), ..device(1 << 30) };
    plan(&Disk::sample().build(), &device, None).expect("a device");
}

#[test]
fn a_device_that_is_one_byte_too_small() {
    let disk = Disk::partitioned_sample();
    let facts = device(disk.len() - 1);
    let (target, needed, len) = (facts.label.clone(), disk.len(), disk.len() - 1);
    assert_eq!(refusal(&disk, &facts, None), Refusal::TooSmall { target, needed, len });
    let part = disk.parts[1].1;
    let facts = device(part.len - 1);
    assert!(matches!(refusal(&disk, &facts, Some(7)), Refusal::TooSmall { .. }));
    plan(&disk.build(), &device(part.len), Some(7)).expect("large enough for the partition");
}

#[test]
fn a_device_with_other_sectors_for_a_whole_disk() {
    let disk = Disk::partitioned_sample();
    let facts = TargetFacts { logical_sector_size: 4096, ..device(1 << 30) };
    let target = facts.label.clone();
    let wanted = Refusal::SectorSize { target, needed: 512, found: 4096 };
    assert_eq!(refusal(&disk, &facts, None), wanted);
    // A partition fits, and the user is told.
    let planned = plan(&disk.build(), &facts, Some(2)).expect("not refused");
    assert!(planned.notes().contains(&Note::OtherSectorSize { source: 512, target: 4096 }));
    // A file has no sectors.
    let facts = TargetFacts { logical_sector_size: 4096, ..file(0) };
    plan(&disk.build(), &facts, None).expect("not refused");
}

#[test]
fn a_partition_the_table_does_not_have() {
    let text = refusal(&Disk::partitioned_sample(), &device(1 << 30), Some(3)).to_string();
    assert_eq!(text, "the disk has no partition 3, it has 2, 7");
    let empty = Disk { table: "gpt", ..Disk::sample() };
    let text = refusal(&empty, &device(1 << 30), Some(1)).to_string();
    assert_eq!(text, "the disk has no partition 1, its table is empty");
}

#[test]
fn a_partition_of_a_disk_without_a_usable_table() {
    let text = refusal(&Disk::sample(), &device(1 << 30), Some(1)).to_string();
    assert_eq!(text, "the disk has no usable partition table");
    let table_problems = vec!["both headers are damaged".to_owned()];
    let broken = Disk { table: "gpt", table_problems, ..Disk::sample() };
    let text = refusal(&broken, &device(1 << 30), Some(1)).to_string();
    assert_eq!(text, "the disk has no usable partition table: both headers are damaged");
}

#[test]
fn a_partition_that_others_overlap() {
    let mut disk = Disk::partitioned_sample();
    disk.parts = vec![
        (1, Extent::new(1000, 5000)),
        (2, Extent::new(6000, 1000)),
        (1, Extent::new(7000, 9000)),
    ];
    let wanted = Refusal::OverlappingPartition { number: 1 };
    assert_eq!(refusal(&disk, &device(1 << 30), Some(1)), wanted);
    plan(&disk.build(), &device(1 << 30), Some(2)).expect("whole");
}
