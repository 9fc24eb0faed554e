//! Tables made of random bytes: nothing panics, and the regions always partition the disk.

use aiv_volume_io::partition::{
    PARTITIONS_MAX, RegionKind, SectorSize, TableKind, detect_sector_size, read_table,
};
use aiv_volume_io::{Extent, ExtentSet, MemDisk};
use proptest::prelude::*;

use super::build::{Gpt, GptEntry, mbr, put, put_ebr, put_entry, seal_header};
use super::check_regions;

/// What an attacker would write into a field of a table.
fn nasty() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..140,
        Just(u64::MAX),
        Just(u64::MAX / 512),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        any::<u64>(),
    ]
}

fn small_or_huge() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..140, Just(u32::MAX), any::<u32>()]
}

fn check(bytes: Vec<u8>) {
    let len = bytes.len() as u64;
    let disk = MemDisk::from_bytes(bytes);
    for size in [512, 1024, 2048, 4096].map(|size| SectorSize::new(size).unwrap()) {
        let table = read_table(&disk, size).expect("memory does not fail");
        check_regions(&table, len);
        check_regions(&table, len / 3);
        check_regions(&table, 0);
        assert!(table.partitions.len() <= PARTITIONS_MAX);
        assert!(table.partitions.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(table.areas.windows(2).all(|pair| pair[0] <= pair[1]));
        let disk = Extent::new(0, len);
        assert!(table.areas.iter().all(|area| disk.contains(area.extent)));
        if table.kind == TableKind::None {
            assert!(table.partitions.is_empty() && table.areas.is_empty());
        }
        for problem in &table.problems {
            assert!(!problem.to_string().is_empty());
        }
    }
    let detected = detect_sector_size(&disk);
    assert!(detected.is_none_or(|size| u64::from(size.bytes()) <= len));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mutated_gpts_are_survived(
        large: bool,
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        fields in prop::collection::vec((0usize..8, nasty()), 0..4),
        entries in prop::collection::vec((nasty(), nasty()), 0..8),
        reseal: bool,
        keep in any::<prop::sample::Index>(),
    ) {
        let size = if large { 4096 } else { 512 };
        let mut spec = Gpt::small(size);
        spec.entries = entries
            .iter()
            .enumerate()
            .map(|(place, &(first, last))| GptEntry::new(place, first, last))
            .collect();
        let mut disk = spec.bytes();
        // Bytes that matter are in the first eight and the last four sectors.
        let unit = size as usize;
        let front = unit * 8;
        let tail = disk.len() - unit * 4;
        for (place, value) in bytes {
            let at = place.index(front + unit * 4);
            disk[if at < front { at } else { tail + at - front }] = value;
        }
        let offsets = [24, 32, 40, 48, 72, 80, 84, 12];
        for (copy, (field, value)) in fields.into_iter().enumerate() {
            let lba = if copy % 2 == 0 { 1 } else { 127 };
            let width = if field < 5 { 8 } else { 4 };
            put(&mut disk, lba * u64::from(size) + offsets[field], &value.to_le_bytes()[..width]);
        }
        if reseal {
            seal_header(&mut disk, u64::from(size));
            seal_header(&mut disk, 127 * u64::from(size));
        }
        check(disk.clone());
        disk.truncate(keep.index(disk.len()));
        check(disk);
    }

    #[test]
    fn mutated_mbrs_are_survived(
        large: bool,
        primaries in prop::collection::vec(
            (prop_oneof![Just(0u8), Just(0x80)], prop_oneof![Just(5u8), Just(0x83), Just(0xEE), any::<u8>()],
             small_or_huge(), small_or_huge()),
            0..5,
        ),
        chain in prop::collection::vec(
            (1u64..120, (small_or_huge(), small_or_huge()), (small_or_huge(), small_or_huge())),
            0..20,
        ),
    ) {
        let size = if large { 4096 } else { 512 };
        let mut disk = mbr(size, 128, &primaries[..primaries.len().min(3)]);
        put_entry(&mut disk, 3, 0, 0x05, 1, 127);
        for (lba, logical, link) in chain {
            put_ebr(&mut disk, size, lba, logical, link);
        }
        check(disk);
    }

    #[test]
    fn every_byte_of_a_region_has_the_owner_the_rules_give_it(
        entries in prop::collection::vec((3u64..120, 0u64..40), 1..8),
    ) {
        let entries: Vec<GptEntry> = entries
            .iter()
            .enumerate()
            .map(|(place, &(first, len))| GptEntry::new(place, first, first + len))
            .collect();
        let disk = Gpt { entries: entries.clone(), ..Gpt::small(512) }.bytes();
        let table = super::read(&disk, 512);
        let tables: ExtentSet = table.areas.iter().map(|area| area.extent).collect();
        let map = check_regions(&table, disk.len() as u64);
        for sector in 1..128 {
            let at = Extent::new(sector * 512, 1);
            let region = map.iter().find(|r| r.extent.contains(at)).expect("every byte");
            let in_table = tables.within(at).next().is_some();
            let owner = entries
                .iter()
                .filter(|e| (e.first..=e.last).contains(&sector))
                .min_by_key(|e| (e.first, e.index));
            let expected = match owner {
                _ if in_table => RegionKind::Table,
                Some(entry) => RegionKind::Partition(u32::try_from(entry.index).unwrap() + 1),
                None => RegionKind::Gap,
            };
            prop_assert_eq!(region.kind, expected, "sector {}", sector);
        }
    }
}
