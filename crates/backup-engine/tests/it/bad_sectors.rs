//! Sectors that cannot be read cost themselves and nothing else.

use std::io;

use aiv_backup_engine::{BackupOptions, Error};
use aiv_chain::{Kind, View};
use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_image_format::meta::Inventory;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, DiskLayout, FlakyDisk, Part, ShrinkingDisk, Table};
use aiv_volume_io::{Cancel, Extent, ExtentSet, Job, MemDisk, Progress, ReadAt};
use proptest::prelude::*;

use crate::common::{
    BLOCK, all_sectors, apply, backup, content_matches, disk, errno, ids, numbered_blocks, options,
    plan, try_backup, with_fill,
};
use crate::tools::small_ext4;

const SECTOR: u64 = 512;

#[test]
fn a_partly_unreadable_block_keeps_the_rest_and_a_wholly_unreadable_one_takes_no_space() {
    let bytes = numbered_blocks(5);
    let whole = Extent::new(3 * BLOCK as u64, BLOCK as u64);
    let bad = [Extent::new(BLOCK as u64 + 1024, 1024), whole];
    let made = backup(&FlakyDisk::new(disk(&bytes), bad), options());
    use Kind::{Data, Unreadable};
    assert_eq!(made.kinds(), [Data, Unreadable, Data, Unreadable, Data]);
    assert_eq!(made.report.totals.blocks_unreadable, 2);
    let stored = made.view.stretches(0).filter(|s| s.as_ref().unwrap().leaf().is_some());
    assert_eq!(stored.count(), 4, "what is all pattern needs no frame");
    assert_eq!(made.report.unreadable, bad);
    assert_eq!(made.view.image().meta().source_errors, bad);
    assert!(made.bytes() == with_fill(bytes, &bad));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn exactly_the_bad_ranges_are_reported_recorded_and_filled(
        bad in prop::collection::btree_map(0u64..400, 1u64..40, 1..6), seed in any::<u64>(),
    ) {
        let bytes = Content::Mixed(seed).bytes(440 * 512);
        let bad: ExtentSet =
            bad.into_iter().map(|(s, n)| Extent::new(s * SECTOR, n * SECTOR)).collect();
        let source = FlakyDisk::new(disk(&bytes), bad.runs().to_vec());
        let made = backup(&source, BackupOptions { threads: crate::common::threads(2), ..all_sectors() });
        let reported: ExtentSet = made.report.unreadable.iter().copied().collect();
        prop_assert_eq!(&reported, &bad);
        prop_assert_eq!(&made.view.image().meta().source_errors, &made.report.unreadable);
        let expected = with_fill(bytes, bad.runs());
        prop_assert!(made.bytes() == expected);
        prop_assert!(content_matches(made.view.geometry(), &expected, made.report.content_root));
        for (kind, at) in made.kinds().into_iter().zip((0..).step_by(BLOCK)) {
            let block = Extent::new(at, BLOCK as u64);
            let damaged = bad.within(block).next().is_some();
            prop_assert_eq!(kind == Kind::Unreadable, damaged);
        }
    }
}

#[test]
fn a_bad_sector_in_free_space_is_nobodys_loss() {
    let volume = small_ext4();
    let recognised = recognise(&disk(&volume)).unwrap();
    let map = used_map(&disk(&volume), &recognised, Job::silent()).unwrap();
    let UsedMap::Used { used, .. } = map else { panic!("{map:?}") };
    let free = used.gaps_within(Extent::new(0, volume.len() as u64));
    let (first, last) = (free[0], free[free.len() - 1]);
    let bad = [Extent::new(first.start, SECTOR), Extent::new(last.end() - SECTOR, SECTOR)];
    let made = backup(&FlakyDisk::new(disk(&volume), bad), options());
    assert_eq!(made.report.unreadable, []);
    assert_eq!(made.report.totals.blocks_unreadable, 0);
    assert!(made.bytes() == backup(&disk(&volume), options()).bytes());
    let all = backup(&FlakyDisk::new(disk(&volume), bad), all_sectors());
    assert_eq!(all.report.unreadable, bad);
}

#[test]
fn a_bad_sector_in_the_allocation_records_costs_the_map_and_not_the_backup() {
    let volume = small_ext4();
    let recognised = recognise(&disk(&volume)).unwrap();
    // Every sector by itself, as long as the filesystem can still be told.
    for sector in 0..64 {
        let bad = [Extent::new(sector * SECTOR, SECTOR)];
        let source = FlakyDisk::new(disk(&volume), bad);
        let made = backup(&source, options());
        assert_eq!(made.report.unreadable, bad, "sector {sector}");
        let volume_info = made.view.image().meta().disk.regions[0].volume.clone().unwrap();
        let needed =
            recognise(&source).is_err() || used_map(&source, &recognised, Job::silent()).is_err();
        if needed {
            assert!(volume_info.reason.contains("bad sectors"), "{}", volume_info.reason);
            assert!(made.bytes() == with_fill(volume.clone(), &bad), "everything is kept");
        } else {
            assert_eq!(volume_info.reason, "", "sector {sector}");
        }
    }
}

#[test]
fn a_disk_whose_first_sector_is_bad_is_captured_without_its_table() {
    let made_up = DiskLayout::new(Table::Mbr).part(Part::new(50_000, Content::Text(1))).build();
    let bad = [Extent::new(0, SECTOR)];
    let made = backup(&FlakyDisk::new(made_up.to_disk(), bad), options());
    assert_eq!(made.report.unreadable, bad);
    assert!(made.bytes() == with_fill(made_up.bytes, &bad));
    let disk = &made.view.image().meta().disk;
    assert_eq!(disk.table, "none");
    assert!(disk.table_problems[0].contains("cannot be read"), "{:?}", disk.table_problems);
    assert!(!made.report.notes.is_empty());
}

#[test]
fn a_disk_whose_primary_gpt_is_bad_is_read_by_its_backup() {
    let part = Part::new(50_000, Content::Text(1));
    let made_up = DiskLayout::new(Table::Gpt).part(part).build();
    let bad = [Extent::new(SECTOR, SECTOR)];
    let made = backup(&FlakyDisk::new(made_up.to_disk(), bad), options());
    let disk = &made.view.image().meta().disk;
    assert_eq!((disk.table.as_str(), disk.table_problems.len()), ("gpt", 1));
    assert_eq!(made.report.unreadable, bad);
}

#[test]
fn a_wholly_unreadable_disk_still_gives_a_point_that_says_so() {
    // More than one stride, and a short end.
    let mut bytes = numbered_blocks(130);
    bytes.truncate(bytes.len() - 700);
    let everything = [Extent::new(0, bytes.len() as u64)];
    let made = backup(&FlakyDisk::new(disk(&bytes), everything), options());
    assert_eq!(made.report.unreadable, everything);
    assert_eq!(made.kinds(), [Kind::Unreadable; 130]);
    assert_eq!(made.report.totals.payload_bytes, 0);
    assert!(made.bytes() == with_fill(bytes, &everything));
}

#[test]
fn bad_4096_byte_sectors_are_recorded_whole() {
    let layout = DiskLayout::new(Table::Gpt).sector_size(4096);
    let made_up = layout.part(Part::new(60_000, Content::Random(1))).build();
    let bad = [Extent::new(made_up.parts[0].extent.start + 8192, 4096)];
    let made = backup(&FlakyDisk::new(made_up.to_disk(), bad), options());
    assert_eq!(made.report.unreadable, bad);
    assert!(made.bytes() == with_fill(made_up.bytes, &bad));
}

/// A disk whose reads beyond `from` fail with one error.
struct Failing(MemDisk, u64, i32);

impl ReadAt for Failing {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + out.len() as u64 > self.1 {
            return Err(io::Error::from_raw_os_error(self.2));
        }
        self.0.read_exact_at(out, offset)
    }
}

#[test]
fn an_error_of_the_device_ends_the_backup_and_leaves_nothing() {
    // ENXIO, ENOMEM, EACCES, ENODEV, EINVAL
    for number in [6, 12, 13, 19, 22] {
        let bytes = numbered_blocks(200);
        let storage = MemStorage::new();
        let plan = plan(&disk(&bytes), options());
        let source = Failing(disk(&bytes), 100 * BLOCK as u64, number);
        let error = apply(&plan, &source, &storage, 1).unwrap_err();
        assert!(matches!(error, Error::Source { offset: 1048576, .. }), "{error:?}");
        assert_eq!(errno(&error), Some(number));
        assert_eq!(storage.names(), [""; 0]);

        let error = try_backup(&Failing(disk(&bytes), 0, number), &storage, options(), 1);
        assert_eq!(errno(&error.unwrap_err()), Some(number), "also while planning");
    }
}

#[test]
fn a_source_that_shrinks_ends_the_backup_and_leaves_nothing() {
    let bytes = numbered_blocks(200);
    for reads in 0..4 {
        let storage = MemStorage::new();
        let plan = plan(&disk(&bytes), options());
        let source = ShrinkingDisk::new(disk(&bytes), reads, 3_000_000);
        let error = apply(&plan, &source, &storage, 1).unwrap_err();
        let len = bytes.len() as u64;
        assert!(matches!(error, Error::SourceShrank { len: l, .. } if l == len), "{error:?}");
        assert_eq!(storage.names(), [""; 0]);
    }
}

#[test]
fn canceling_does_not_wait_for_a_stride_of_bad_sectors() {
    use std::sync::atomic::{AtomicU64, Ordering};
    /// Every read fails, and somebody loses patience at the tenth.
    struct Hopeless<'a>(AtomicU64, &'a Cancel);
    impl ReadAt for Hopeless<'_> {
        fn len(&self) -> u64 {
            8 << 20
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 10 {
                self.1.cancel();
            }
            Err(io::Error::from_raw_os_error(5))
        }
    }
    struct Quiet;
    impl Progress for Quiet {}
    let cancel = Cancel::new();
    let source = Hopeless(AtomicU64::new(0), &cancel);
    let plan = plan(&disk(&vec![1; 8 << 20]), options());
    let (storage, job) = (MemStorage::new(), Job::new(&Quiet, &cancel));
    let done = plan.apply(&source, &storage, &ids(1), &Inventory::default(), None, job);
    assert!(matches!(done, Err(Error::Canceled(_))), "{done:?}");
    assert!(source.0.into_inner() < 20, "it stops at the next read");
    assert_eq!(storage.names(), [""; 0]);
}

#[test]
fn a_second_try_at_a_sector_counts() {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// Reads of single sectors work the second time.
    struct Remapping(MemDisk, AtomicBool);
    impl ReadAt for Remapping {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            let hit = Extent::new(offset, out.len() as u64).contains(Extent::new(8192, SECTOR));
            if hit && (out.len() > 512 || !self.1.swap(true, Ordering::Relaxed)) {
                return Err(io::Error::from_raw_os_error(5));
            }
            self.0.read_exact_at(out, offset)
        }
    }
    let bytes = numbered_blocks(2);
    let storage = MemStorage::new();
    let plan = plan(&disk(&bytes), options());
    let source = Remapping(disk(&bytes), AtomicBool::new(false));
    let report = apply(&plan, &source, &storage, 1).unwrap();
    assert_eq!(report.unreadable, []);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert!(crate::common::read_all(&view) == bytes);
}
