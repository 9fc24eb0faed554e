use aiv_volume_io::Extent;
use aiv_volume_io::partition::{
    DiskId, PartitionKind, RegionKind, SectorSize, TableAreaKind, TableKind, detect_sector_size,
};
use proptest::prelude::*;

use super::build::{self, DISK_GUID, Gpt, GptEntry, guid, mbr, put_ebr};
use super::{area, check_regions, extents, owners, read};

#[test]
fn every_field_of_a_gpt_comes_back() {
    for size in [512, 1024, 2048, 4096] {
        let spec = Gpt::small(size);
        let table = read(&spec.bytes(), size);
        assert_eq!(table.problems, []);
        assert_eq!(table.kind, TableKind::Gpt);
        assert_eq!(table.disk_id, Some(DiskId::Gpt(guid(DISK_GUID))));
        assert_eq!(table.sector_size.bytes(), size);

        let bytes = |first: u64, last: u64| {
            Extent::between(first * u64::from(size), (last + 1) * u64::from(size))
        };
        let expected = [(1, bytes(10, 19)), (2, bytes(20, 59)), (6, bytes(70, 99))];
        assert_eq!(extents(&table), expected);
        for (found, made) in table.partitions.iter().zip(&spec.entries) {
            assert_eq!(found.kind, PartitionKind::Gpt(made.kind));
            assert_eq!(found.unique_id, Some(made.id));
            assert_eq!(found.name, made.name);
            assert_eq!(found.attributes, made.attributes);
            assert_eq!(found.bootable, made.attributes == 4);
        }
    }
}

#[test]
fn the_areas_of_a_gpt_are_exact() {
    let table = read(&Gpt::small(512).bytes(), 512);
    let expected = [
        (TableAreaKind::BootCode, Extent::between(0, 440)),
        (TableAreaKind::Mbr, Extent::between(440, 512)),
        (TableAreaKind::GptHeader, Extent::between(512, 1024)),
        (TableAreaKind::GptEntries, Extent::between(1024, 2048)),
        (TableAreaKind::GptBackupEntries, Extent::between(125 * 512, 127 * 512)),
        (TableAreaKind::GptBackupHeader, Extent::between(127 * 512, 128 * 512)),
    ];
    let found: Vec<_> = table.areas.iter().map(|a| (a.kind, a.extent)).collect();
    assert_eq!(found, expected);

    let expected = [
        (0, RegionKind::BootCode),
        (440, RegionKind::Table),
        (2048, RegionKind::Gap),
        (10 * 512, RegionKind::Partition(1)),
        (20 * 512, RegionKind::Partition(2)),
        (60 * 512, RegionKind::Gap),
        (70 * 512, RegionKind::Partition(6)),
        (100 * 512, RegionKind::Gap),
        (125 * 512, RegionKind::Table),
    ];
    assert_eq!(owners(&table, 128 * 512), expected);
}

#[test]
fn the_table_of_a_4096_byte_sector_disk_has_whole_sectors() {
    let table = read(&Gpt::small(4096).bytes(), 4096);
    assert_eq!(area(&table, TableAreaKind::Mbr), Some(Extent::between(440, 4096)));
    assert_eq!(area(&table, TableAreaKind::GptEntries), Some(Extent::between(8192, 12288)));
}

#[test]
fn entry_arrays_of_any_shape_are_read() {
    for (entry_count, entry_size) in [(1, 128), (4, 4096), (128, 128), (129, 256), (1, 1 << 20)] {
        let entries = vec![GptEntry::new(0, 3_000, 3_999)];
        let spec = Gpt { sector_size: 512, sectors: 10_000, entry_count, entry_size, entries };
        let table = read(&spec.bytes(), 512);
        assert_eq!(table.problems, [], "{entry_count} entries of {entry_size} bytes");
        assert_eq!(table.partitions.len(), 1);
    }
}

#[test]
fn a_gpt_without_entries_is_an_empty_table() {
    let spec = Gpt { entry_count: 0, entries: vec![], ..Gpt::small(512) };
    let table = read(&spec.bytes(), 512);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
    assert_eq!(table.problems, []);
}

#[test]
fn names_of_36_characters_need_no_terminator_and_broken_ones_are_mended() {
    let mut spec = Gpt::small(512);
    spec.entries[0].name = "x".repeat(36);
    let mut disk = spec.bytes();
    assert_eq!(read(&disk, 512).partitions[0].name, "x".repeat(36));

    // The first half of a surrogate pair alone, in both copies with new checksums.
    for (header, entries) in [(512, 1024), (127 * 512, 125 * 512)] {
        build::put(&mut disk, entries + 56, &0xD800u16.to_le_bytes());
        let sum = build::crc32(&disk[build::index(entries)..][..1024]);
        build::put(&mut disk, header + 88, &sum.to_le_bytes());
        build::seal_header(&mut disk, header);
    }
    let table = read(&disk, 512);
    assert_eq!(table.problems, []);
    assert_eq!(table.partitions[0].name, format!("\u{FFFD}{}", "x".repeat(35)));
}

#[test]
fn the_disk_may_end_with_part_of_a_sector() {
    let mut disk = Gpt::small(512).bytes();
    disk.extend([0; 100]);
    let table = read(&disk, 512);
    assert_eq!(table.problems, []);
    let last = check_regions(&table, 128 * 512 + 100).pop().unwrap();
    assert_eq!(last.extent, Extent::between(128 * 512, 128 * 512 + 100));
    assert_eq!(last.kind, RegionKind::Gap);
}

fn sorted_partitions(from: u64, to: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    // Cut points in ascending order; every second piece is a partition.
    prop::collection::btree_set(from..=to, 2..14).prop_map(|cuts| {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sound_gpt_is_read_back_without_problems(
        large: bool,
        parts in sorted_partitions(10, 180),
        indexes in prop::collection::btree_set(0usize..16, 7),
        names in prop::collection::vec("\\PC{0,18}", 7),
    ) {
        let sector_size = if large { 4096 } else { 512 };
        let entries: Vec<GptEntry> = parts
            .iter()
            .zip(indexes)
            .zip(names)
            .map(|((&(first, end), index), name)| {
                GptEntry { name, ..GptEntry::new(index, first, end - 1) }
            })
            .collect();
        let spec = Gpt { sector_size, sectors: 200, entry_count: 16, entry_size: 128, entries };
        let disk = spec.bytes();
        let table = read(&disk, sector_size);
        prop_assert_eq!(&table.problems, &[]);
        prop_assert_eq!(table.partitions.len(), spec.entries.len());
        let map = check_regions(&table, disk.len() as u64);
        for (found, made) in table.partitions.iter().zip(&spec.entries) {
            let unit = u64::from(sector_size);
            let extent = Extent::between(made.first * unit, (made.last + 1) * unit);
            prop_assert_eq!(found.extent, extent);
            prop_assert_eq!(found.number as usize, made.index + 1);
            prop_assert_eq!(&found.name, &made.name);
            let owned = map.iter().find(|r| r.kind == RegionKind::Partition(found.number));
            prop_assert_eq!(owned.map(|r| r.extent), Some(extent));
        }
        let disk = aiv_volume_io::MemDisk::from_bytes(disk);
        prop_assert_eq!(detect_sector_size(&disk), SectorSize::new(sector_size));
    }

    #[test]
    fn any_sound_mbr_with_logical_partitions_is_read_back_without_problems(
        large: bool,
        primaries in sorted_partitions(1, 99),
        logicals in sorted_partitions(101, 198),
    ) {
        let sector_size = if large { 4096 } else { 512 };
        let unit = u64::from(sector_size);
        let short = |value: u64| u32::try_from(value).unwrap();
        let primaries = &primaries[..primaries.len().min(3)];
        let mut entries: Vec<_> = primaries
            .iter()
            .map(|&(start, end)| (0x80, 0x83, short(start), short(end - start)))
            .collect();
        entries.push((0, 0x0F, 100, 100));
        let mut disk = mbr(sector_size, 200, &entries);
        // Each record sits right before its partition; the first at the start of the chain.
        for (place, &(start, end)) in logicals.iter().enumerate() {
            let lba = if place == 0 { 100 } else { start - 1 };
            let link = logicals.get(place + 1).map_or((0, 0), |&(next, _)| (short(next - 101), 1));
            prop_assume!(place == 0 || logicals[place - 1].1 < start);
            put_ebr(&mut disk, sector_size, lba, (short(start - lba), short(end - start)), link);
        }
        let table = read(&disk, sector_size);
        prop_assert_eq!(&table.problems, &[]);
        prop_assert_eq!(table.kind, TableKind::Mbr);
        prop_assert_eq!(table.disk_id, Some(DiskId::Mbr(0x1234_ABCD)));
        let mut expected: Vec<(u32, Extent)> = (1..)
            .zip(primaries.iter().copied().chain([(100, 200)]))
            .chain((5..).zip(logicals.iter().copied()))
            .map(|(number, (start, end))| (number, Extent::between(start * unit, end * unit)))
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(extents(&table), expected);
        check_regions(&table, disk.len() as u64);
    }

    #[test]
    fn bytes_without_a_boot_signature_are_no_table(
        mut disk in prop::collection::vec(any::<u8>(), 0..9000),
        large: bool,
    ) {
        if let Some(signature) = disk.get_mut(510) {
            *signature = 0;
        }
        let table = read(&disk, if large { 4096 } else { 512 });
        prop_assert_eq!(table.kind, TableKind::None);
        prop_assert_eq!(&table.areas, &[]);
        let map = check_regions(&table, disk.len() as u64);
        prop_assert!(map.iter().all(|region| region.kind == RegionKind::Gap));
    }
}
