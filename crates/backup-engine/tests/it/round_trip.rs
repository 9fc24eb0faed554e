//! What comes back is what was there.

use aiv_backup_engine::{BackupOptions, Sectors, SourceFacts};
use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_image_format::meta::RegionInfo;
use aiv_testkit::disks::{Content, CountingDisk, DiskLayout, Part, Table, TinyDisk};
use aiv_testkit::{MemStorage, arb};
use aiv_volume_io::{ExtentSet, Job, MemDisk};
use proptest::prelude::*;

use crate::common::{
    Made, all_sectors, apply, backup, backup_as, content_matches, disk, facts, options, plan,
    read_all, threads, try_backup,
};
use crate::tools::small_ext4;

const TABLES: [Table; 3] = [Table::Gpt, Table::Mbr, Table::None];

/// A device tells its sector size, which the bytes of an MBR disk do not.
fn backup_device(made_up: &TinyDisk, options: BackupOptions) -> Made {
    let facts = SourceFacts { logical_sector: made_up.sector_size, ..facts("disk") };
    backup_as(facts, &made_up.to_disk(), options)
}

fn check_whole(layout: &DiskLayout, sectors: Sectors) {
    let made_up = layout.build();
    let made = backup_device(&made_up, BackupOptions { sectors, ..options() });
    assert_eq!(made.bytes(), made_up.bytes);
    let geometry = made.view.geometry();
    assert!(content_matches(geometry, &made_up.bytes, made.report.content_root));
    assert_eq!(made.report.bytes_source, made_up.len());
    let disk = &made.view.image().meta().disk;
    let covered: u64 = disk.regions.iter().map(|r| r.extent.len).sum();
    assert_eq!(covered, made_up.len());
    let table = match made_up.table {
        Table::Gpt => "gpt",
        Table::Mbr => "mbr",
        Table::None => "none",
    };
    // Made-up contents may look like a table where there is none, never the reverse.
    if made_up.table != Table::None {
        assert_eq!(disk.table, table);
        let partition = |r: &RegionInfo| r.partition.as_ref().map(|p| (p.number, r.extent));
        let found: Vec<_> = disk.regions.iter().filter_map(partition).collect();
        let placed: Vec<_> = made_up.parts.iter().map(|p| (p.number, p.extent)).collect();
        assert_eq!(found, placed);
    }
}

macro_rules! round_trips {
    ($($name:ident: $sector:literal, $table:expr;)*) => {$(
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(12))]
            #[test]
            fn $name(layout in arb::layout_of($sector, $table)) {
                check_whole(&layout, Sectors::All);
                check_whole(&layout, Sectors::Used);
            }
        }
    )*};
}

round_trips! {
    every_byte_of_a_512_byte_sector_gpt_disk_comes_back: 512, Table::Gpt;
    every_byte_of_a_512_byte_sector_mbr_disk_comes_back: 512, Table::Mbr;
    every_byte_of_a_512_byte_sector_disk_without_a_table_comes_back: 512, Table::None;
    every_byte_of_a_4096_byte_sector_gpt_disk_comes_back: 4096, Table::Gpt;
    every_byte_of_a_4096_byte_sector_mbr_disk_comes_back: 4096, Table::Mbr;
    every_byte_of_a_4096_byte_sector_disk_without_a_table_comes_back: 4096, Table::None;
}

#[test]
fn with_used_sectors_only_free_space_reads_as_zeros_and_the_rest_is_equal() {
    let volume = small_ext4();
    let recognised = recognise(&disk(&volume)).unwrap();
    let UsedMap::Used { used, .. } = used_map(&disk(&volume), &recognised, Job::silent()).unwrap()
    else {
        panic!("the used blocks of a new ext4 filesystem are known")
    };
    for table in TABLES {
        for sector in [512, 4096] {
            let part = Part::new(volume.len() as u64, Content::Zeros).after_gap(3);
            let mut made_up = DiskLayout::new(table).sector_size(sector).part(part).build();
            let at = usize::try_from(made_up.parts[0].extent.start).unwrap();
            made_up.bytes[at..at + volume.len()].copy_from_slice(&volume);

            let mut masked = made_up.bytes.clone();
            let used = used.shifted(at as u64);
            for free in used.gaps_within(made_up.parts[0].extent) {
                let range = free.start.try_into().unwrap()..free.end().try_into().unwrap();
                masked[range].fill(0);
            }
            assert_ne!(masked, made_up.bytes, "free space is noisy");

            let made = backup_device(&made_up, options());
            let is = made.bytes();
            let first = is.iter().zip(&masked).position(|(a, b)| a != b);
            assert_eq!(first, None, "{table:?} {sector}");
            assert!(content_matches(made.view.geometry(), &masked, made.report.content_root));
            assert!(made.report.totals.blocks_unused > 0);
            let rest = made_up.len() - volume.len() as u64;
            assert_eq!(made.report.bytes_used, used.total_len() + rest);
            let whole = backup(&made_up.to_disk(), all_sectors());
            assert_eq!(whole.bytes(), made_up.bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_image_depends_on_nothing_but_its_inputs(layout in arb::disk_layout()) {
        let made_up = layout.build();
        let with = |count| {
            let options = BackupOptions { threads: threads(count), ..all_sectors() };
            let made = backup(&made_up.to_disk(), options);
            made.storage.contents(&made.report.image).unwrap()
        };
        let one = with(1);
        prop_assert!(one == with(1), "the same inputs give the same bytes");
        prop_assert!(one == with(3), "threads change no byte");
    }
}

#[test]
fn many_equal_blocks_give_the_same_image_with_any_number_of_threads() {
    // Duplicates a stride apart, so that workers meet them while the first is being written.
    let unit = Content::Mixed(7).bytes(5 << 16);
    let bytes: Vec<u8> = unit.iter().copied().cycle().take(6 << 20).collect();
    let image = |count| {
        let options = BackupOptions { threads: threads(count), ..options() };
        let made = backup(&disk(&bytes), options);
        assert_eq!(made.report.totals.blocks_data, 15, "each block is stored once");
        made.storage.contents(&made.report.image).unwrap()
    };
    let one = image(1);
    for count in [2, 3, 8] {
        assert!(one == image(count), "{count} threads");
    }
}

#[test]
fn the_source_is_read_once_and_free_space_hardly_at_all() {
    let volume = small_ext4();
    let source = CountingDisk::new(disk(&volume));
    let plan = plan(&source, options());
    let before = source.reads().len();
    let storage = MemStorage::new();
    let report = apply(&plan, &source, &storage, 1).unwrap();
    let reads = &source.reads()[before..];
    let covered: ExtentSet = reads.iter().copied().collect();
    let bytes: u64 = reads.iter().map(|r| r.len).sum();
    assert_eq!(covered.total_len(), bytes, "no byte is read twice");
    assert_eq!(report.bytes_read, bytes);
    assert!(bytes < volume.len() as u64 / 2, "{bytes} of {}", volume.len());
}

#[test]
fn a_second_backup_of_an_unchanged_disk_has_the_same_state() {
    let made_up = DiskLayout::new(Table::Gpt).part(Part::new(60_000, Content::Mixed(1))).build();
    let storage = MemStorage::new();
    let source: MemDisk = made_up.to_disk();
    let first = try_backup(&source, &storage, options(), 1).unwrap();
    let second = try_backup(&source, &storage, options(), 2).unwrap();
    assert_eq!(first.state_root, second.state_root);
    assert_ne!(first.recovery_point, second.recovery_point);
    assert_eq!(read_all(&source), made_up.bytes);
}
