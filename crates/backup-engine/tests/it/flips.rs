//! A bit turns over on the way from memory to the medium.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_backup_engine::BackupOptions;
use aiv_testkit::MemStorage;
use aiv_volume_io::{AppendFile, FileEntry, Lease, ReadAt, Storage};

use crate::common::{disk, numbered_blocks, options, try_backup};

/// A folder that turns over one bit of what is appended to its files.
struct Flipping {
    inner: MemStorage,
    /// Bytes that were appended so far, to whichever file.
    appended: Arc<AtomicU64>,
    /// The byte that is struck.
    strikes: u64,
}

impl Flipping {
    fn at(strikes: u64) -> Self {
        Self { inner: MemStorage::new(), appended: Arc::default(), strikes }
    }
}

struct File {
    inner: Box<dyn AppendFile>,
    appended: Arc<AtomicU64>,
    strikes: u64,
}

impl AppendFile for File {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        let from = self.appended.load(Ordering::Relaxed);
        let mut data = data.to_vec();
        let hit = self.strikes.checked_sub(from).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = hit.and_then(|at| data.get_mut(at)) {
            *byte ^= 1 << (self.strikes % 8);
        }
        let count = self.inner.append(&data)?;
        self.appended.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(out, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()
    }
}

impl Storage for Flipping {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        let (inner, appended) = (self.inner.create(name)?, Arc::clone(&self.appended));
        Ok(Box::new(File { inner, appended, strikes: self.strikes }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.inner.open(name)
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.publish(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.inner.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.inner.lease(name)
    }
}

/// A byte of the payload of the first frame.
const IN_FRAME: u64 = 4096 + 64 + 20;

/// Backs four blocks up with a bit turned over; whether that was stopped.
fn is_stopped(strikes: u64, verify: bool) -> bool {
    let storage = Flipping::at(strikes);
    let options = BackupOptions { verify, ..options() };
    let done = try_backup(&disk(&numbered_blocks(4)), &storage, options, 1);
    let published = storage.inner.names().iter().any(|name| name.ends_with(".aiv"));
    assert_eq!(done.is_ok(), published, "byte {strikes}: {done:?}");
    done.is_err()
}

#[test]
fn a_verified_backup_stops_at_any_bit_that_turned_over_on_the_way_to_the_medium() {
    let whole = Flipping::at(u64::MAX);
    let source = disk(&numbered_blocks(4));
    let report = try_backup(&source, &whole, options(), 1).unwrap();
    let len = whole.inner.contents(&report.image).unwrap().len() as u64;
    // Every part of the file is met, and over the runs every remainder of a division by eight.
    let missed: Vec<u64> = (0..len).step_by(101).filter(|&at| !is_stopped(at, true)).collect();
    assert!(missed.is_empty(), "of {len} bytes: {missed:?}");
}

#[test]
fn without_verification_a_bit_in_a_frame_is_not_noticed_before_the_image_is_read() {
    // Which shows that the flips of the test above are real.
    assert!(!is_stopped(IN_FRAME, false) && is_stopped(IN_FRAME, true));
}
