//! Chains of logical partitions.

use aiv_volume_io::Extent;
use aiv_volume_io::partition::{EbrFault, PARTITIONS_MAX, PartitionKind, RegionKind, TableProblem};

use super::build::{mbr, put, put_ebr, put_entry};
use super::{extents, has, owners, read};

fn sectors(start: u64, count: u64) -> Extent {
    Extent::new(start * 512, count * 512)
}

/// An extended partition of 900 sectors from 100, with no record in it.
fn extended() -> Vec<u8> {
    mbr(512, 1000, &[(0x80, 0x07, 10, 50), (0, 0x05, 100, 900)])
}

fn damaged(lba: u64, fault: EbrFault) -> TableProblem {
    TableProblem::EbrDamaged { lba, fault }
}

#[test]
fn a_chain_is_followed_and_its_records_are_table() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (10, 90), (100, 300));
    put_ebr(&mut disk, 512, 200, (1, 50), (300, 1));
    put_ebr(&mut disk, 512, 400, (2, 598), (0, 0));
    let table = read(&disk, 512);
    assert_eq!(table.problems, []);
    let expected = [
        (1, sectors(10, 50)),
        (2, sectors(100, 900)),
        (5, sectors(110, 90)),
        (6, sectors(201, 50)),
        (7, sectors(402, 598)),
    ];
    assert_eq!(extents(&table), expected);
    assert!(table.partitions[0].bootable && !table.partitions[2].bootable);
    assert_eq!(table.partitions[1].kind, PartitionKind::Mbr(0x05));

    let expected = [
        (0, RegionKind::BootCode),
        (440, RegionKind::Table),
        (512, RegionKind::Gap),
        (10 * 512, RegionKind::Partition(1)),
        (60 * 512, RegionKind::Gap),
        (100 * 512, RegionKind::Table),
        (101 * 512, RegionKind::Gap),
        (110 * 512, RegionKind::Partition(5)),
        (200 * 512, RegionKind::Table),
        (201 * 512, RegionKind::Partition(6)),
        (251 * 512, RegionKind::Gap),
        (400 * 512, RegionKind::Table),
        (401 * 512, RegionKind::Gap),
        (402 * 512, RegionKind::Partition(7)),
    ];
    assert_eq!(owners(&table, 1000 * 512), expected);
}

#[test]
fn a_record_without_a_partition_gets_no_number() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (0, 0), (100, 300));
    put_ebr(&mut disk, 512, 200, (1, 50), (0, 0));
    let table = read(&disk, 512);
    assert_eq!(table.problems, []);
    assert_eq!(extents(&table)[2], (5, sectors(201, 50)));
}

#[test]
fn all_three_extended_types_are_containers() {
    for kind in [0x05, 0x0F, 0x85] {
        let mut disk = mbr(512, 1000, &[(0, kind, 100, 900)]);
        put_ebr(&mut disk, 512, 100, (1, 10), (0, 0));
        assert_eq!(extents(&read(&disk, 512)), [(1, sectors(100, 900)), (5, sectors(101, 10))]);
    }
}

#[test]
fn a_record_that_links_to_itself_ends_the_chain() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (1, 10), (0, 10));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [damaged(100, EbrFault::Loop)]);
    assert_eq!(extents(&table)[2..], [(5, sectors(101, 10))]);
}

#[test]
fn a_chain_that_comes_back_lists_every_partition_once() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (1, 10), (100, 300));
    put_ebr(&mut disk, 512, 200, (1, 10), (300, 300));
    put_ebr(&mut disk, 512, 400, (1, 10), (100, 300));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [damaged(200, EbrFault::Loop)]);
    assert_eq!(table.partitions.len(), 5);
}

#[test]
fn a_link_out_of_the_extended_partition_is_not_followed() {
    for link in [900, 901, u32::MAX] {
        let mut disk = extended();
        put_ebr(&mut disk, 512, 100, (1, 10), (link, 10));
        let table = read(&disk, 512);
        let fault = damaged(100 + u64::from(link), EbrFault::OutOfBounds);
        assert_eq!(table.problems, [fault]);
        assert_eq!(table.partitions.len(), 3);
    }
}

#[test]
fn an_extended_partition_behind_the_disk_is_reported() {
    let disk = mbr(512, 1000, &[(0, 0x83, 10, 10), (0, 0x05, 5000, 900)]);
    let table = read(&disk, 512);
    assert!(has(&table, |p| *p == damaged(5000, EbrFault::OutOfBounds)));
    assert!(has(&table, |p| matches!(p, TableProblem::PastEnd { number: 2, .. })));
}

#[test]
fn a_record_without_signature_ends_the_chain() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (1, 10), (100, 300));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [damaged(200, EbrFault::NoSignature)]);
    assert_eq!(table.partitions.len(), 3);
}

#[test]
fn a_second_partition_in_a_record_is_reported_and_the_chain_goes_on() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (1, 10), (100, 300));
    put_entry(&mut disk[100 * 512..], 2, 0, 0x83, 20, 10);
    put_ebr(&mut disk, 512, 200, (1, 10), (0, 0));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [damaged(100, EbrFault::ExtraPartition)]);
    assert_eq!(extents(&table)[2..], [(5, sectors(101, 10)), (6, sectors(201, 10))]);
}

#[test]
fn a_logical_partition_that_leaves_its_container_is_reported() {
    let mut disk = mbr(512, 1000, &[(0, 0x05, 100, 100)]);
    put_ebr(&mut disk, 512, 100, (50, 51), (0, 0));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [TableProblem::OutsideExtended { number: 5 }]);
}

#[test]
fn an_endless_chain_stops_at_the_partition_limit() {
    let mut disk = mbr(512, 4000, &[(0, 0x05, 100, 3900)]);
    for link in 0..1900 {
        put_ebr(&mut disk, 512, u64::from(100 + link * 2), (1, 1), (link * 2 + 2, 2));
    }
    let table = read(&disk, 512);
    assert_eq!(table.partitions.len(), 1 + PARTITIONS_MAX - 4);
    let stop = u64::try_from(100 + (PARTITIONS_MAX - 4) * 2).unwrap();
    assert_eq!(table.problems, [damaged(stop, EbrFault::TooLong)]);
    super::check_regions(&table, 4000 * 512);
}

#[test]
fn two_chains_that_share_a_record_list_it_once() {
    let mut disk = mbr(512, 1000, &[(0, 0x05, 100, 400), (0, 0x05, 100, 400)]);
    put_ebr(&mut disk, 512, 100, (1, 10), (0, 0));
    let table = read(&disk, 512);
    assert_eq!(table.problems, [damaged(100, EbrFault::Loop)]);
    assert_eq!(table.partitions.len(), 3);
}

#[test]
fn a_partition_over_a_record_is_reported_and_does_not_own_it() {
    let mut disk = extended();
    put_ebr(&mut disk, 512, 100, (1, 200), (100, 300));
    put_ebr(&mut disk, 512, 200, (110, 10), (0, 0));
    put(&mut disk, 200 * 512 + 16, &[1]);
    let table = read(&disk, 512);
    let expected = TableProblem::OverlapsTable { number: 5, shared: sectors(200, 1) };
    assert_eq!(table.problems, [expected]);
    let owned = owners(&table, 1000 * 512);
    assert!(owned.contains(&(200 * 512, RegionKind::Table)));
    assert!(owned.contains(&(201 * 512, RegionKind::Partition(5))));
}
