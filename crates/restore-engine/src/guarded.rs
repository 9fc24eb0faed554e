//! A target that remembers whether anything was done to it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_volume_io::{Extent, ReadAt, WriteAt};

/// A target, and whether any of its bytes may be others by now.
pub(crate) struct Guarded<'t> {
    target: &'t dyn WriteAt,
    is_written: AtomicBool,
}

impl<'t> Guarded<'t> {
    pub(crate) fn new(target: &'t dyn WriteAt) -> Self {
        Self { target, is_written: AtomicBool::new(false) }
    }

    /// Whether a write was begun, whatever came of it.
    pub(crate) fn is_written(&self) -> bool {
        self.is_written.load(Ordering::Relaxed)
    }

    fn note(&self, len: u64) {
        if len > 0 {
            self.is_written.store(true, Ordering::Relaxed);
        }
    }
}

impl ReadAt for Guarded<'_> {
    fn len(&self) -> u64 {
        self.target.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.target.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.target.holes(range)
    }

    fn file(&self) -> Option<&File> {
        self.target.file()
    }
}

impl WriteAt for Guarded<'_> {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.note(data.len() as u64);
        self.target.write_all_at(data, offset)
    }

    fn zero_range(&self, range: Extent) -> io::Result<()> {
        self.note(range.len);
        self.target.zero_range(range)
    }

    fn discard_range(&self, range: Extent) -> io::Result<()> {
        self.note(range.len);
        self.target.discard_range(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.target.sync()
    }

    fn drop_cache(&self, range: Extent) {
        self.target.drop_cache(range);
    }

    fn takes_writes_side_by_side(&self) -> bool {
        self.target.takes_writes_side_by_side()
    }
}
