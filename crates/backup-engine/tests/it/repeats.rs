//! Blocks that repeat others of the same image in part are stored as differences to them.

use std::io;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aiv_backup_engine::{
    BackupOptions, BackupReport, Basis, BlockSize, Clock, Compression, RateLimit,
};
use aiv_chain::{Depth, Kind, View};
use aiv_image_format::Features;
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::meta::Inventory;
use aiv_testkit::disks::{Content, FlakyDisk};
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::common::{
    BLOCK, Made, all_sectors, backup, disk, ids, plan, read_all, threads, try_backup,
};
use crate::resumed::{assert_right, interrupt, plan_of, resuming};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// Everything that was decided before a piece of work may be a base: disks can be small.
pub(crate) fn near() -> BackupOptions {
    BackupOptions { repeat_distance: Some(0), compression: Compression::Zstd(1), ..all_sectors() }
}

fn in_blocks_of_64k() -> BackupOptions {
    BackupOptions { block_size: BlockSize::new(64 << 10), ..near() }
}

/// Noise in the first MiB of three, and in the third the same, `shift` pages further.
pub(crate) fn shifted(seed: u64, blocks: usize, shift: usize) -> Vec<u8> {
    let mut bytes = vec![0; 3 * MIB];
    let noise = Content::Random(seed).bytes(blocks * BLOCK);
    bytes[..noise.len()].copy_from_slice(&noise);
    bytes[2 * MIB + shift * PAGE..][..noise.len()].copy_from_slice(&noise);
    bytes
}

fn locals(made: &Made) -> u64 {
    assert_eq!(
        made.kinds().iter().filter(|kind| **kind == Kind::Local).count() as u64,
        made.report.totals.blocks_local
    );
    made.report.totals.blocks_local
}

#[test]
fn a_copy_that_is_shifted_by_any_number_of_pages_is_stored_as_differences() {
    for shift in 1..16 {
        let bytes = shifted(1, 40, shift);
        let made = backup(&disk(&bytes), in_blocks_of_64k());
        assert!(made.bytes() == bytes);
        // Ten blocks, and the copy is in eleven; of the first or the last there may be little.
        assert!((9..=11).contains(&locals(&made)), "{} at {shift}", locals(&made));
        let payload = made.report.totals.payload_bytes;
        assert!(payload < (11 * 64) << 10, "{payload} bytes at {shift}");
    }
}

#[test]
fn a_copy_of_text_is_found_as_one_of_noise_is() {
    let mut bytes = vec![0; 3 * MIB];
    let text = Content::Text(1).bytes(MIB / 2);
    bytes[..text.len()].copy_from_slice(&text);
    bytes[2 * MIB + 5 * PAGE..][..text.len()].copy_from_slice(&text);
    let made = backup(&disk(&bytes), in_blocks_of_64k());
    assert!(made.bytes() == bytes);
    let whole = backup(&disk(&bytes), BackupOptions { repeats: false, ..in_blocks_of_64k() });
    let (with, without) = (made.report.totals.payload_bytes, whole.report.totals.payload_bytes);
    assert!(locals(&made) >= 7 && with < without * 7 / 10, "{with} instead of {without}");
    assert_eq!(made.report.state_root, whole.report.state_root);
}

#[test]
fn small_files_in_another_order_are_differences_to_two_blocks_at_most() {
    let noise = Content::Random(3).bytes(MIB);
    let files: Vec<&[u8]> = noise.chunks(7 * PAGE).collect();
    let mut bytes = noise.clone();
    bytes.resize(2 * MIB, 0);
    (0..files.len()).for_each(|n| bytes.extend_from_slice(files[n * 5 % files.len()]));
    let made = backup(&disk(&bytes), in_blocks_of_64k());
    assert!(made.bytes() == bytes);
    // Three to four files lie in each block, and few places are read again.
    assert!(locals(&made) >= 6, "{} of 16", locals(&made));
    let payload = made.report.totals.payload_bytes;
    assert!(payload < noise.len() as u64 * 9 / 5, "{payload} bytes");
}

#[test]
fn without_the_option_or_a_codec_there_are_none_and_the_image_does_not_announce_them() {
    let bytes = shifted(1, 40, 3);
    let local = |made: &Made| made.view.image().superblock().features.incompat & Features::LOCAL;
    let made = backup(&disk(&bytes), near());
    assert!(locals(&made) > 30 && local(&made) != 0, "{}", locals(&made));
    for options in [
        BackupOptions { repeats: false, ..near() },
        BackupOptions { compression: Compression::None, ..near() },
        BackupOptions { block_size: BlockSize::new(4 << 20), ..near() },
    ] {
        let made = backup(&disk(&bytes), options);
        assert!(made.bytes() == bytes);
        assert_eq!((locals(&made), local(&made)), (0, 0));
        assert_eq!(made.report.bytes_read, bytes.len() as u64);
    }
}

#[test]
fn noise_zeros_and_patterns_are_never_bases_and_nothing_is_read_again() {
    let mut patterns = vec![0; 3 * MIB];
    for (n, block) in (0u64..).zip(patterns.chunks_mut(BLOCK)) {
        let page = if n % 3 == 0 { [0; 8] } else { 0x0101_0101_0101_0101_u64.to_le_bytes() };
        block.chunks_mut(8).for_each(|word| word.copy_from_slice(&page));
        // No two blocks are equal, though all but one page of each are.
        block[..8].copy_from_slice(&n.to_le_bytes());
    }
    for bytes in [Content::Random(9).bytes(3 * MIB), patterns] {
        let made = backup(&disk(&bytes), near());
        assert!(made.bytes() == bytes);
        assert_eq!((locals(&made), made.report.bytes_read), (0, bytes.len() as u64));
    }
}

#[test]
fn what_is_read_again_counts_as_read_and_for_the_rate_limit() {
    #[derive(Default)]
    struct FakeClock(Mutex<Duration>);
    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }
    let mut bytes = shifted(1, 60, 3);
    // What follows gives the pacer time to count.
    bytes.resize(6 * MIB, 0);
    let source = disk(&bytes);
    let clock = FakeClock::default();
    let rate = NonZeroU64::new(MIB as u64).unwrap();
    let limit = RateLimit { bytes_per_second: rate, clock: &clock };
    let (plan, storage) = (plan(&source, near()), MemStorage::new());
    let nothing = Inventory::default();
    let report = plan.apply(&source, &storage, &ids(1), &nothing, Some(limit), Job::silent());
    let report = report.unwrap();
    let again = report.bytes_read - bytes.len() as u64;
    assert!((56 * BLOCK as u64..=66 * BLOCK as u64).contains(&again), "{again} bytes");
    let seconds = clock.now().as_secs_f64();
    assert!((6.0..7.5).contains(&seconds), "{seconds} s for 7 MiB, half a second saved up");
}

/// A disk that reads differently the second time.
struct Changing<'a> {
    inner: &'a dyn ReadAt,
    seen: Mutex<ExtentSet>,
    again: AtomicU64,
    /// What it says then.
    fails: bool,
}

impl ReadAt for Changing<'_> {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let extent = Extent::new(offset, out.len() as u64);
        let mut seen = self.seen.lock().unwrap();
        let is_again = seen.within(extent).next().is_some();
        *seen = seen.runs().iter().copied().chain([extent]).collect();
        drop(seen);
        self.inner.read_exact_at(out, offset)?;
        if is_again {
            self.again.fetch_add(1, Ordering::Relaxed);
            if self.fails {
                return Err(io::Error::from_raw_os_error(5));
            }
            out.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x10);
        }
        Ok(())
    }
}

#[test]
fn a_source_that_reads_differently_or_not_at_all_the_second_time_costs_nothing_but_space() {
    let bytes = shifted(2, 40, 3);
    let inner = disk(&bytes);
    let honest = backup(&inner, near());
    for fails in [false, true] {
        let (seen, again) = (Mutex::default(), AtomicU64::new(0));
        // The plan looks at the head of the disk, too.
        let source = Changing { inner: &inner, seen, again, fails };
        let plan = plan(&inner, near());
        let storage = MemStorage::new();
        let report = crate::common::apply(&plan, &source, &storage, 1).unwrap();
        assert!(source.again.load(Ordering::Relaxed) > 0, "it was asked again");
        assert_eq!((report.totals.blocks_local, report.unreadable.len()), (0, 0));
        assert_eq!(report.state_root, honest.report.state_root);
        assert_right(&storage, &report, &bytes);
    }
}

/// A disk whose second reads panic.
struct Panicking<'a>(Changing<'a>);

impl ReadAt for Panicking<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.0.read_exact_at(out, offset);
        self.panic_if_again();
        read
    }
}

impl Panicking<'_> {
    fn panic_if_again(&self) {
        assert!(self.0.again.load(Ordering::Relaxed) == 0, "planted");
    }
}

#[test]
fn whoever_fails_while_others_wait_for_him_ends_the_backup() {
    let bytes = shifted(2, 60, 3);
    let inner = disk(&bytes);
    for count in [1, 2, 8] {
        let options = BackupOptions { threads: threads(count), ..near() };
        let plan = plan(&inner, options);
        // The writer.
        for at in 0.. {
            let faults = FaultPlan::persistent(at, Fault::Enospc);
            let storage = FaultStorage::failing(MemStorage::new(), faults);
            if crate::common::apply(&plan, &inner, &storage, 1).is_ok() {
                assert!(at > 3, "{at}");
                break;
            }
        }
        // A worker.
        let (seen, again) = (Mutex::default(), AtomicU64::new(0));
        let source = Panicking(Changing { inner: &inner, seen, again, fails: true });
        let backup = || crate::common::apply(&plan, &source, &MemStorage::new(), 1).is_ok();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(backup));
        assert!(ended.is_err(), "{count} threads");
        // The reader.
        let lost = Extent::new(5 << 19, 1 << 19);
        let source = Gone { inner: &inner, lost };
        assert!(crate::common::apply(&plan, &source, &MemStorage::new(), 1).is_err());
    }
}

/// A disk that is unplugged when `lost` is read.
struct Gone<'a> {
    inner: &'a dyn ReadAt,
    lost: Extent,
}

impl ReadAt for Gone<'_> {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let extent = Extent::new(offset, out.len() as u64);
        match self.lost.intersect(extent) {
            Some(_) => Err(io::ErrorKind::NotConnected.into()),
            None => self.inner.read_exact_at(out, offset),
        }
    }
}

#[test]
fn blocks_that_could_not_be_read_are_no_bases() {
    let bytes = shifted(2, 40, 3);
    let bad: Vec<Extent> = (0..40).map(|n| Extent::new(n * BLOCK as u64 + 5120, 512)).collect();
    let lost = FlakyDisk::new(disk(&bytes), bad);
    let made = backup(&lost, near());
    assert_eq!((locals(&made), made.report.unreadable.len()), (0, 40));
}

/// The bytes of the only image that `report` tells of.
fn image(storage: &MemStorage, report: &BackupReport) -> Vec<u8> {
    storage.contents(&report.image).unwrap().to_vec()
}

const DISTANCES: [Option<u64>; 4] = [None, Some(0), Some(100_000), Some(1 << 20)];

#[test]
fn a_full_image_does_not_depend_on_the_number_of_threads() {
    let mut bytes = shifted(4, 60, 7);
    // And one that is found only if nobody asks too early.
    bytes.extend(Content::Random(5).bytes(MIB));
    bytes.extend_from_within(3 * MIB + PAGE..4 * MIB);
    bytes.extend_from_within(MIB..);
    for repeat_distance in DISTANCES {
        let image_with = |count| {
            let options = BackupOptions { threads: threads(count), repeat_distance, ..near() };
            let made = backup(&disk(&bytes), options);
            assert!(made.bytes() == bytes);
            (image(&made.storage, &made.report), locals(&made))
        };
        let alone = image_with(1);
        assert_eq!(alone.1 == 0, repeat_distance.is_none(), "{} are differences", alone.1);
        for count in [2, 3, 8] {
            assert!(image_with(count) == alone, "{count} threads, {repeat_distance:?}");
        }
    }
}

#[test]
fn nor_does_it_where_some_threads_know_of_equal_blocks_and_others_do_not_yet() {
    let mut bytes = vec![0; 13 * MIB];
    let old = Content::Random(1).bytes(MIB);
    bytes[..MIB].copy_from_slice(&old);
    // Blocks with one old page each, too little for a difference, in a piece of work that takes
    // long; and the same again, before what needs places of the source to be read again.
    for n in 0..4 {
        let mut block = Content::Random(100 + n as u64).bytes(BLOCK);
        block[..PAGE].copy_from_slice(&old[n * 10 * BLOCK..][..PAGE]);
        for work in [8, 11, 12] {
            bytes[work * MIB + n * BLOCK..][..BLOCK].copy_from_slice(&block);
        }
    }
    let text = Content::Text(1).bytes(MIB - 4 * BLOCK);
    bytes[8 * MIB + 4 * BLOCK..9 * MIB].copy_from_slice(&text);
    for n in 0..6 {
        let copy = &old[(n * 9 + 3) * BLOCK + PAGE..][..BLOCK];
        for work in [11, 12] {
            bytes[work * MIB + (10 + n) * BLOCK..][..BLOCK].copy_from_slice(copy);
        }
    }
    let repeat_distance = Some(6 * MIB as u64);
    let image_with = |count| {
        let options = BackupOptions { threads: threads(count), repeat_distance, ..near() };
        let options = BackupOptions { compression: Compression::Zstd(15), ..options };
        let made = backup(&disk(&bytes), options);
        assert!(made.bytes() == bytes);
        image(&made.storage, &made.report)
    };
    let alone = image_with(1);
    assert!([8, 2, 8].map(image_with).iter().all(|image| *image == alone));
}

/// A folder with a full image of a disk with noise in it, and the disk with new bytes.
fn changed() -> (MemStorage, Vec<u8>) {
    let mut bytes = Content::Random(1).bytes(7 * MIB);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, near(), 1).unwrap();
    // New, and once more, shifted, in another section of two MiB.
    let new = Content::Random(2).bytes(20 * BLOCK);
    bytes[MIB..][..new.len()].copy_from_slice(&new);
    bytes[5 * MIB + 2 * PAGE..][..new.len()].copy_from_slice(&new);
    // A changed page, and a block that moved.
    bytes[3 * MIB + 1234] ^= 1;
    bytes.copy_within(3 * MIB + BLOCK..3 * MIB + 2 * BLOCK, 6 * MIB);
    (storage, bytes)
}

#[test]
fn an_increment_has_them_among_its_new_blocks_and_does_not_depend_on_the_number_of_threads() {
    let (storage, bytes) = changed();
    let image_with = |count| {
        let storage = storage.fork();
        let options = BackupOptions { threads: threads(count), ..near() };
        let report = try_backup(&disk(&bytes), &storage, options, 2).unwrap();
        assert_right(&storage, &report, &bytes);
        (image(&storage, &report), report.totals)
    };
    let alone = image_with(1);
    let totals = alone.1;
    // The ends of the copy lie in blocks that are half as they were: a difference to what the
    // parent has there is as small.
    assert_eq!((totals.blocks_local, totals.blocks_delta, totals.blocks_parent), (19, 3, 1));
    for count in [2, 3, 8] {
        assert!(image_with(count).0 == alone.0, "{count} threads");
    }
}

#[test]
fn an_increment_builds_on_blocks_that_are_differences_within_their_image() {
    let mut bytes = shifted(6, 40, 3);
    let storage = MemStorage::new();
    let full = try_backup(&disk(&bytes), &storage, near(), 1).unwrap();
    assert!(full.totals.blocks_local > 30);
    for n in 2..6 {
        bytes[2 * MIB + 10 * BLOCK + usize::from(n)] ^= 0xff;
        // And moves one of them.
        bytes.copy_within(2 * MIB + 20 * BLOCK..2 * MIB + 21 * BLOCK, MIB + usize::from(n) * BLOCK);
        let report = try_backup(&disk(&bytes), &storage, near(), n).unwrap();
        assert_eq!(report.totals.blocks_decided(), 2);
        assert_eq!(report.totals.blocks_parent, 1);
        let view = View::open(&storage, &report.image, Job::silent()).unwrap();
        let stretch = view.stretches(2 * 64 + 10).next().unwrap().unwrap();
        let depth = view.reader().read_in(&stretch, 2 * 64 + 10, &mut vec![0; BLOCK]).unwrap();
        assert!(depth <= 2, "{depth}");
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn a_backup_that_is_gone_on_with_finds_them_among_what_was_stored_before() {
    let mut bytes = shifted(8, 60, 5);
    bytes.extend_from_within(PAGE..MIB + PAGE);
    let source = disk(&bytes);
    let options = |count| BackupOptions { threads: threads(count), ..resuming() };
    let options = |count| BackupOptions { repeat_distance: Some(0), ..options(count) };
    for at in [MIB, 2 * MIB, 3 * MIB] {
        let storage = MemStorage::new();
        let begun = plan_of(&source, options(1), None);
        interrupt(&source, &storage, &begun, at as u64, 1);
        let image_with = |count| {
            let storage = storage.fork();
            let plan = plan_of(&source, options(count), None);
            let report = crate::common::apply(&plan, &source, &storage, 2).unwrap();
            assert!(report.resumed.is_some(), "{:?}", report.not_resumed);
            assert!(report.totals.blocks_local > 110, "{:?}", report.totals);
            assert_right(&storage, &report, &bytes);
            image(&storage, &report)
        };
        let alone = image_with(1);
        assert!([2, 3, 8].map(image_with).iter().all(|image| *image == alone), "at {at}");
    }
}

#[test]
fn an_unfinished_image_with_them_is_not_gone_on_with_by_who_does_not_want_any() {
    let source = disk(&shifted(8, 60, 5));
    let storage = MemStorage::new();
    let options = BackupOptions { repeat_distance: Some(0), ..resuming() };
    let begun = plan_of(&source, options.clone(), None);
    interrupt(&source, &storage, &begun, 2 * MIB as u64, 1);
    let plan = plan_of(&source, BackupOptions { repeats: false, ..options }, None);
    let report = crate::common::apply(&plan, &source, &storage, 2).unwrap();
    assert!(report.resumed.is_none());
    assert_eq!(report.totals.blocks_local, 0);
}

#[test]
fn sealed_split_and_parity_images_have_them_too() {
    use crate::sealed::{folder, key, sealed};
    let bytes = shifted(7, 40, 9);
    let source = disk(&bytes);
    let with = |options: BackupOptions| BackupOptions {
        repeat_distance: Some(0),
        compression: Compression::Zstd(1),
        sectors: near().sectors,
        ..options
    };
    let keyed = with(sealed(1, &[]));
    let split = BackupOptions { split: Some(SEGMENT_BYTES_MIN), ..near() };
    let parity = BackupOptions { parity: true, ..near() };
    for options in [keyed, split, parity] {
        let storage = MemStorage::new();
        let report = try_backup(&source, &storage, options, 1).unwrap();
        assert!(report.totals.blocks_local > 30, "{:?}", report.totals);
        let folder = folder(&storage, &aiv_chain::Keys::of(key(1)));
        let (set, point) = (&folder.sets[0], &folder.sets[0].points[0]);
        let view = View::of_point(&storage, set, point).unwrap();
        assert!(read_all(&view) == bytes);
        assert_eq!(view.image().verify(Depth::Data, Job::silent()).unwrap().damage, []);
    }
}

/// A stretch of a disk, in pages.
#[derive(Debug, Clone)]
enum Stretch {
    Noise(u64, usize),
    Zeros(usize),
    Pattern(u8, usize),
    /// Pages from a place before, wrapped around.
    Again(usize, usize),
}

fn stretch() -> impl Strategy<Value = Stretch> {
    prop_oneof![
        3 => (0..4u64, 1..60usize).prop_map(|(seed, len)| Stretch::Noise(seed, len)),
        1 => (1..300usize).prop_map(Stretch::Zeros),
        1 => (any::<u8>(), 1..20usize).prop_map(|(byte, len)| Stretch::Pattern(byte, len)),
        4 => (any::<usize>(), 1..80usize).prop_map(|(from, len)| Stretch::Again(from, len)),
    ]
}

fn lay_out(stretches: &[Stretch], odd_end: usize) -> Vec<u8> {
    let mut bytes = Content::Random(99).bytes(300 * PAGE);
    for stretch in stretches {
        match *stretch {
            Stretch::Noise(seed, len) => bytes.extend(Content::Random(seed).bytes(len * PAGE)),
            Stretch::Zeros(len) => bytes.resize(bytes.len() + len * PAGE, 0),
            Stretch::Pattern(byte, len) => bytes.resize(bytes.len() + len * PAGE, byte),
            Stretch::Again(from, len) => {
                let from = from % (bytes.len() / PAGE - len.min(299)) * PAGE;
                bytes.extend_from_within(from..from + len.min(299) * PAGE);
            }
        }
    }
    bytes.truncate(bytes.len() - odd_end);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_repeats_comes_back_and_nothing_depends_on_threads(
        stretches in prop::collection::vec(stretch(), 1..16),
        changes in prop::collection::vec(stretch(), 0..3),
        odd_end in 0..PAGE, distance in 0..3usize,
    ) {
        let bytes = lay_out(&stretches, odd_end);
        let mut later = bytes.clone();
        let new = lay_out(&changes, 0);
        let len = new.len().min(later.len());
        later[..len].copy_from_slice(&new[..len]);
        let repeat_distance = [Some(0), Some(70_000), Some(2 << 20)][distance];
        let images = |count| {
            let options = BackupOptions { threads: threads(count), repeat_distance, ..near() };
            let storage = MemStorage::new();
            let mut images = Vec::new();
            for (n, bytes) in [(1, &bytes), (2, &later)] {
                let source = MemDisk::from_bytes(bytes.clone());
                let report = try_backup(&source, &storage, options.clone(), n).unwrap();
                assert_right(&storage, &report, bytes);
                images.push(image(&storage, &report));
            }
            images
        };
        prop_assert!(images(1) == images(3));
    }
}

#[test]
fn a_full_image_in_a_chain_starts_anew() {
    let bytes = shifted(6, 40, 3);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, near(), 1).unwrap();
    let options = BackupOptions { basis: Basis::Nothing, ..near() };
    let report = try_backup(&disk(&bytes), &storage, options, 2).unwrap();
    assert!(report.totals.blocks_local > 30);
    assert_right(&storage, &report, &bytes);
}
