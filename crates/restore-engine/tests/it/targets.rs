//! Targets that remember, fail and lie.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_restore_engine::TargetFacts;
use aiv_volume_io::{Extent, ExtentSet, FileKind, MemDisk, ReadAt, WriteAt};

const EIO: i32 = 5;

/// Something done to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Write(Extent),
    Zero(Extent),
    Discard(Extent),
    Sync,
}

impl Op {
    pub(crate) fn extent(self) -> Option<Extent> {
        match self {
            Self::Write(extent) | Self::Zero(extent) | Self::Discard(extent) => Some(extent),
            Self::Sync => None,
        }
    }
}

/// A disk in memory that remembers what was done to it and misbehaves on request.
#[derive(Default)]
pub(crate) struct TestTarget {
    disk: MemDisk,
    ops: Mutex<Vec<Op>>,
    /// Ranges dropped from the cache, with the operation before.
    dropped: Mutex<Vec<(Op, Extent)>>,
    reads: Mutex<Vec<Extent>>,
    largest: AtomicU64,
    /// The operation of this number fails, and so does everything after it.
    pub(crate) fail_from: Option<usize>,
    /// All syncs fail.
    pub(crate) fail_sync: bool,
    /// Writes and zeroing that touch this range are accepted and forgotten.
    pub(crate) forgets: Option<Extent>,
    /// Reads that touch this range fail until all of it was overwritten.
    pub(crate) unreadable: Option<Extent>,
}

impl TestTarget {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self { disk: MemDisk::from_bytes(bytes), ..Self::default() }
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }

    pub(crate) fn dropped(&self) -> Vec<(Op, Extent)> {
        self.dropped.lock().unwrap().clone()
    }

    /// How often a byte was read.
    pub(crate) fn times_read(&self, at: u64) -> usize {
        let reads = self.reads.lock().unwrap();
        reads.iter().filter(|read| (read.start..read.end()).contains(&at)).count()
    }

    /// Every byte that was written, zeroed or discarded.
    pub(crate) fn touched(&self) -> ExtentSet {
        self.ops().into_iter().filter_map(Op::extent).collect()
    }

    /// Length of the longest read or write.
    pub(crate) fn largest(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.disk.len()).unwrap()];
        self.disk.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Notes the operation; whether it is to be carried out.
    fn admit(&self, op: Op) -> io::Result<bool> {
        let mut ops = self.ops.lock().unwrap();
        ops.push(op);
        let fails = self.fail_from.is_some_and(|from| ops.len() > from);
        if fails || (self.fail_sync && op == Op::Sync) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let touches = |lost: Extent| op.extent().is_some_and(|e| e.intersect(lost).is_some());
        Ok(!self.forgets.is_some_and(touches))
    }

    fn measure(&self, bytes: &[u8]) {
        self.largest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl ReadAt for TestTarget {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.measure(out);
        let range = Extent::new(offset, out.len() as u64);
        self.reads.lock().unwrap().push(range);
        // What is in `out` after an error may well be what the caller hopes for.
        self.disk.read_exact_at(out, offset)?;
        let fails = |bad: Extent| {
            bad.intersect(range).is_some() && !self.touched().gaps_within(bad).is_empty()
        };
        if self.unreadable.is_some_and(fails) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }
}

impl WriteAt for TestTarget {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.measure(data);
        match self.admit(Op::Write(Extent::new(offset, data.len() as u64)))? {
            true => self.disk.write_all_at(data, offset),
            false => Ok(()),
        }
    }

    fn zero_range(&self, range: Extent) -> io::Result<()> {
        match self.admit(Op::Zero(range))? {
            true => self.disk.zero_range(range),
            false => Ok(()),
        }
    }

    /// Leaves bytes that were never there, as a medium may.
    fn discard_range(&self, range: Extent) -> io::Result<()> {
        self.admit(Op::Discard(range))?;
        let junk = vec![0xDD; usize::try_from(range.len).unwrap()];
        self.disk.write_all_at(&junk, range.start)
    }

    fn sync(&self) -> io::Result<()> {
        self.admit(Op::Sync).map(drop)
    }

    fn drop_cache(&self, range: Extent) {
        let last = *self.ops.lock().unwrap().last().expect("something to forget");
        self.dropped.lock().unwrap().push((last, range));
    }

    /// As a file: threads leave their blocks to the one that writes.
    fn takes_writes_side_by_side(&self) -> bool {
        false
    }
}

/// Facts about a device nobody uses.
pub(crate) fn device(len: u64) -> TargetFacts {
    TargetFacts {
        exists: true,
        len,
        kind: FileKind::BlockDevice,
        ..TargetFacts::missing_file("/dev/target".to_owned())
    }
}

/// Facts about a regular file nobody uses.
pub(crate) fn file(len: u64) -> TargetFacts {
    TargetFacts { exists: true, len, ..TargetFacts::missing_file("target.raw".to_owned()) }
}
