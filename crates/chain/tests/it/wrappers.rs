//! Storages around others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_volume_io::{AppendFile, FileEntry, Lease, ReadAt, Storage};

/// A storage whose appends take a few sectors at a time, as a kernel may: more moments for the
/// power to go.
#[derive(Clone)]
pub(crate) struct InSteps<S>(pub(crate) S);

/// Bytes one append takes. Sized so that the 64 KiB gap of the trailer is several steps.
const STEP: usize = 24 << 10;

struct StepFile(Box<dyn AppendFile>);

impl AppendFile for StepFile {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.append(&data[..data.len().min(STEP)])
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

/// Passes on the calls named, to what `$inner` is.
macro_rules! pass_on {
    ($inner:tt: $($call:ident),*) => { $(pass_on!(@ $inner $call);)* };
    (@ $inner:tt create) => {
        fn create(&self, name: &str) -> std::io::Result<Box<dyn aiv_volume_io::AppendFile>> {
            self.$inner.create(name)
        }
    };
    (@ $inner:tt open) => {
        fn open(&self, name: &str) -> std::io::Result<std::sync::Arc<dyn aiv_volume_io::ReadAt>> {
            self.$inner.open(name)
        }
    };
    (@ $inner:tt publish) => {
        fn publish(&self, from: &str, to: &str) -> std::io::Result<()> {
            self.$inner.publish(from, to)
        }
    };
    (@ $inner:tt remove) => {
        fn remove(&self, name: &str) -> std::io::Result<()> {
            self.$inner.remove(name)
        }
    };
    (@ $inner:tt list) => {
        fn list(&self) -> std::io::Result<Vec<aiv_volume_io::FileEntry>> {
            self.$inner.list()
        }
    };
    (@ $inner:tt sync_dir) => {
        fn sync_dir(&self) -> std::io::Result<()> {
            self.$inner.sync_dir()
        }
    };
    (@ $inner:tt lease) => {
        fn lease(&self, name: &str) -> std::io::Result<Box<dyn aiv_volume_io::Lease>> {
            self.$inner.lease(name)
        }
    };
}
pub(crate) use pass_on;

impl<S: Storage> Storage for InSteps<S> {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(StepFile(self.0.create(name)?)))
    }
    pass_on!(0: open, publish, remove, list, sync_dir, lease);
}

/// A storage in which whoever publishes is stopped before the folder is synced.
pub(crate) struct Stopped<S> {
    inner: S,
    published: AtomicBool,
}

impl<S> Stopped<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, published: AtomicBool::new(false) }
    }
}

impl<S: Storage> Storage for Stopped<S> {
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.published.store(true, Ordering::Relaxed);
        self.inner.publish(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        match self.published.swap(false, Ordering::Relaxed) {
            true => Err(io::ErrorKind::Other.into()),
            false => self.inner.sync_dir(),
        }
    }
    pass_on!(inner: create, open, remove, list, lease);
}

/// A part of a folder as a folder of its own: the names that begin with a prefix, without it.
pub(crate) struct Below<'a>(pub(crate) &'a dyn Storage, pub(crate) &'static str);

impl Below<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.1)
    }
}

impl Storage for Below<'_> {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.0.create(&self.name(name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(&self.name(name))
    }
    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.publish(&self.name(from), &self.name(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(&self.name(name))
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let strip = |entry: FileEntry| {
            let name = entry.name.strip_prefix(self.1)?.to_owned();
            Some(FileEntry { name, ..entry })
        };
        Ok(self.0.list()?.into_iter().filter_map(strip).collect())
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.0.lease(&format!("{}-{name}", self.1.trim_end_matches('/')))
    }
}

/// A folder that keeps other bytes than it was given: everything appended, at one place.
pub(crate) struct Forgetful<S>(pub(crate) S);

/// Where every file changes: in its first frames.
const FORGOTTEN: usize = 12 << 10;

struct ForgetfulFile(Box<dyn AppendFile>, usize);

impl AppendFile for ForgetfulFile {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut data = data.to_vec();
        if let Some(byte) = FORGOTTEN.checked_sub(self.1).and_then(|at| data.get_mut(at)) {
            *byte ^= 1;
        }
        let taken = self.0.append(&data)?;
        self.1 += taken;
        Ok(taken)
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

impl<S: Storage> Storage for Forgetful<S> {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(ForgetfulFile(self.0.create(name)?, 0)))
    }
    pass_on!(0: open, publish, remove, list, sync_dir, lease);
}
