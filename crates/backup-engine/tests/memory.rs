//! Memory does not grow with the source: measured by an allocator that counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(unsafe_code, reason = "an allocator can only be replaced by unsafe code")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiv_backup_engine::{BackupIds, BackupOptions, BackupPlan, Compression, Sectors, SourceFacts};
use aiv_image_format::GroupId;
use aiv_image_format::meta::Inventory;
use aiv_volume_io::{DirStorage, Job, ReadAt};

/// The system's allocator, which also counts the bytes in use and their peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MIB: u64 = 1 << 20;

/// A disk made up as it is read, no two blocks alike: its length, and what most of it holds.
struct MadeUp(u64, u8);

impl ReadAt for MadeUp {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        const PART: usize = 4096;
        out.fill(self.1);
        for (part, at) in out.chunks_mut(PART).zip((offset..).step_by(PART)) {
            let count = part.len().min(8);
            part[..count].copy_from_slice(&at.to_le_bytes()[..count]);
        }
        Ok(())
    }
}

/// Bytes in use at the peak of a backup, above what was in use before; the `n`-th of a disk of
/// which every block changed.
fn peak_of(storage: &DirStorage, len: u64, compression: Compression, n: u8) -> usize {
    let source = MadeUp(len, 0x5A + n);
    let facts = SourceFacts { name: "disk".to_owned(), ..SourceFacts::default() };
    let options = BackupOptions {
        sectors: Sectors::All,
        compression,
        threads: NonZeroUsize::new(4).unwrap(),
        self_check: true,
        ..BackupOptions::default()
    };
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let plan = BackupPlan::new(&source, facts, options, Job::silent()).unwrap();
    let ids = BackupIds::new(&[7 + n; BackupIds::RANDOM_LEN], GroupId([7; 16]), u64::from(n));
    let report =
        plan.apply(&source, storage, &ids, &Inventory::default(), None, Job::silent()).unwrap();
    assert_eq!(report.parent.is_some(), n > 0);
    assert_eq!(report.totals.blocks_data + report.totals.blocks_delta, len / (64 << 10));
    PEAK.load(Ordering::Relaxed) - before
}

fn folder() -> (tempfile::TempDir, DirStorage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    (folder, storage)
}

/// One test after the other: the counters are shared.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn eight_times_the_source_takes_no_more_memory() {
    // Four threads keep at most 14 strides of 1 MiB under way, each once as it was read and once
    // as it will be written; the table of blocks seen adds 56 bytes for each of 8,192 blocks.
    const BOUND: usize = 40 << 20;
    let _alone = ALONE.lock().unwrap();
    for compression in [Compression::Lz4, Compression::None] {
        let peaks = [64 * MIB, 512 * MIB].map(|len| {
            let (_folder, storage) = folder();
            peak_of(&storage, len, compression, 0)
        });
        assert!(peaks.iter().all(|&peak| peak < BOUND), "{peaks:?} bytes, {compression:?}");
    }
}

#[test]
fn nor_does_an_increment_of_which_every_block_is_new() {
    // Eight sections of 8 MiB wait, one is read and one is written; each once as it was read and
    // once as it will be written. The parent's pages and the tables of blocks are small here.
    const BOUND: usize = 200 << 20;
    let _alone = ALONE.lock().unwrap();
    for compression in [Compression::Lz4, Compression::None] {
        let peaks = [128 * MIB, 384 * MIB].map(|len| {
            let (_folder, storage) = folder();
            peak_of(&storage, len, compression, 0);
            peak_of(&storage, len, compression, 1)
        });
        assert!(peaks.iter().all(|&peak| peak < BOUND), "{peaks:?} bytes, {compression:?}");
    }
}
