//! Increments of disks most of which is not read, or cannot be: against full images of the same.

use std::io;

use aiv_backup_engine::{BackupOptions, BlockSize};
use aiv_chain::{Depth, View};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, FlakyDisk};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};
use proptest::prelude::*;

use crate::common::{
    BLOCK, all_sectors, backup, disk, numbered_blocks, options, read_all, threads, try_backup,
};

const PAGE: usize = 4096;
const PAGES: usize = 1300;
const SECTOR: u64 = 512;

/// Swap space with data behind it, in which zeros may be holes and sectors bad.
#[derive(Clone)]
struct Volume {
    bytes: Vec<u8>,
    tells_holes: bool,
    bad: ExtentSet,
}

impl Volume {
    fn new() -> Self {
        let bytes = Content::Random(1).bytes(PAGES * PAGE + 700);
        Self { bytes, tells_holes: false, bad: ExtentSet::new() }
    }

    /// Makes the first pages swap space, of which only the header matters; none of them when
    /// they are fewer than two.
    fn swap(&mut self, pages: usize) {
        self.bytes[..PAGE].fill(0);
        if let Some(last) = u32::try_from(pages).unwrap().checked_sub(1).filter(|&last| last > 0) {
            self.bytes[1024..1028].copy_from_slice(&1u32.to_le_bytes());
            self.bytes[1028..1032].copy_from_slice(&last.to_le_bytes());
            self.bytes[PAGE - 10..PAGE].copy_from_slice(b"SWAPSPACE2");
        }
    }

    fn change(&mut self, change: &Change) {
        let pages = |at: usize, count: usize| at * PAGE..((at + count).min(PAGES)) * PAGE;
        match *change {
            Change::Swap(count) => self.swap(count),
            Change::Zero(at, count) => self.bytes[pages(at, count)].fill(0),
            Change::Write(at, count, seed) => {
                let range = pages(at, count);
                let new = Content::Random(seed).bytes(range.len());
                self.bytes[range].copy_from_slice(&new);
            }
            Change::Holes(told) => self.tells_holes = told,
            Change::Bad(at, count) => {
                let more = Extent::new(at * SECTOR, count * SECTOR);
                self.bad = self.bad.runs().iter().copied().chain([more]).collect();
            }
            Change::Healed => self.bad = ExtentSet::new(),
        }
    }
}

impl ReadAt for Volume {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.bad.within(Extent::new(offset, out.len() as u64)).next().is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes[at..at + out.len()]);
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let empty = self.bytes.chunks(PAGE).zip((0..).step_by(PAGE));
        let empty = empty.filter(|(page, _)| self.tells_holes && page.iter().all(|&b| b == 0));
        let holes: ExtentSet = empty.map(|(page, at)| Extent::new(at, page.len() as u64)).collect();
        Ok(holes.within(range).collect())
    }
}

#[derive(Debug, Clone)]
enum Change {
    Swap(usize),
    Zero(usize, usize),
    Write(usize, usize, u64),
    Holes(bool),
    Bad(u64, u64),
    Healed,
}

fn change() -> impl Strategy<Value = Change> {
    let sectors = (PAGES * PAGE) as u64 / SECTOR;
    prop_oneof![
        3 => (0..=PAGES).prop_map(Change::Swap),
        3 => (1..PAGES, 1..PAGES).prop_map(|(at, count)| Change::Zero(at, count)),
        3 => (1..PAGES, 1usize..40, 0u64..4).prop_map(|(at, n, seed)| Change::Write(at, n, seed)),
        1 => any::<bool>().prop_map(Change::Holes),
        2 => (0..sectors, 1u64..80).prop_map(|(at, count)| Change::Bad(at, count)),
        1 => Just(Change::Healed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn an_increment_is_the_state_a_full_image_of_the_same_disk_is(
        rounds in prop::collection::vec((prop::collection::vec(change(), 0..4), 1usize..4), 1..6),
        large in any::<bool>(),
    ) {
        let block_size = BlockSize::new(if large { 1 << 20 } else { 16 << 10 });
        let (mut volume, storage) = (Volume::new(), MemStorage::new());
        let mut points = Vec::new();
        for (n, (changes, count)) in (1..).step_by(2).zip(rounds) {
            changes.iter().for_each(|change| volume.change(change));
            let options = BackupOptions { block_size, threads: threads(count), ..options() };
            let whole = backup(&volume, options.clone());
            let report = try_backup(&volume, &storage, options.clone(), n).unwrap();
            prop_assert_eq!(report.state_root, whole.report.state_root);
            prop_assert_eq!(report.content_root, whole.report.content_root);
            prop_assert_eq!(&report.unreadable, &whole.report.unreadable);
            // Again at once: nothing changed but what has to be told each time.
            let again = try_backup(&volume, &storage, options, n + 1).unwrap();
            prop_assert_eq!(again.state_root, whole.report.state_root);
            prop_assert_eq!(&again.unreadable, &whole.report.unreadable);
            prop_assert_eq!(again.totals.blocks_unreadable, whole.report.totals.blocks_unreadable);
            prop_assert_eq!(again.totals.blocks_decided(), again.totals.blocks_unreadable);
            points.extend([(report, whole.bytes()), (again, whole.bytes())]);
        }
        for (report, bytes) in &points {
            let view = View::open(&storage, &report.image, Job::silent()).unwrap();
            prop_assert!(read_all(&view) == *bytes);
            prop_assert_eq!(&view.image().meta().source_errors, &report.unreadable);
            let found = match view.parent() {
                None => view.image().verify(Depth::Data, Job::silent()),
                Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()),
            };
            prop_assert_eq!(found.unwrap().damage, []);
        }
    }
}

#[test]
fn a_bad_block_is_told_by_every_image_and_captured_once_it_can_be_read_again() {
    let bytes = numbered_blocks(300);
    let storage = MemStorage::new();
    // A whole block, and a part of one in a group without other changes.
    let bad = [Extent::new(3 * BLOCK as u64, BLOCK as u64), Extent::new(140 * BLOCK as u64, 1024)];
    let make = |n, bad: &[Extent]| {
        let source = FlakyDisk::new(disk(&bytes), bad.to_vec());
        let report = try_backup(&source, &storage, all_sectors(), n).unwrap();
        let view = View::open(&storage, &report.image, Job::silent()).unwrap();
        assert_eq!((&report.unreadable[..], &view.image().meta().source_errors[..]), (bad, bad));
        assert!(read_all(&view) == crate::common::with_fill(bytes.clone(), bad));
        (report.totals.blocks_decided(), report.totals.blocks_unreadable)
    };
    assert_eq!(make(1, &[]), (300, 0));
    assert_eq!(make(2, &bad), (2, 2), "newly bad");
    assert_eq!(make(3, &bad), (2, 2), "never inherited");
    assert_eq!(make(4, &bad[1..]), (2, 1), "one is back");
    assert_eq!(make(5, &[]), (1, 0), "and the other");
    assert_eq!(make(6, &[]), (0, 0));
}
