//! What was written, read back from the medium.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use aiv_volume_io::{Extent, ReadAt, Step};
use rustix::fs::{Advice, Mode, OFlags, SeekFrom, fadvise, openat, seek};
use rustix::io::Errno;

use super::copy::{hash_of, ranges};
use super::folder::Sink;
use crate::error::{Error, Result};

/// A file in the target, to be read.
pub(super) struct Written(File, u64);

impl Written {
    /// Opens it without leaving a trace in its time of access, where that is allowed.
    pub(super) fn open(folder: impl AsFd, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&folder, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(&folder, name, flags, Mode::empty())?,
            opened => opened?,
        };
        let file: File = file.into();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self(file, metadata.len()))
    }

    /// Parts of it that are no holes, ascending.
    pub(super) fn ranges(&self) -> io::Result<Vec<Extent>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < self.1 {
            let start = match seek(&self.0, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                // It does not tell holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.1.min(at),
                Err(error) => return Err(error.into()),
            };
            let end = seek(&self.0, SeekFrom::Hole(start)).unwrap_or(self.1).min(self.1);
            if end <= start {
                break;
            }
            ranges.push(Extent::between(start, end));
            at = end;
        }
        Ok(ranges)
    }
}

impl ReadAt for Written {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
}

/// A file that reads back as another one.
#[derive(Debug, thiserror::Error)]
#[error("it reads back differently than it was written")]
struct Differs;

impl Sink<'_> {
    /// Reads every file that is whole back, past the cache, and compares it with what was written.
    pub(super) fn verify(&mut self) -> Result<()> {
        let written = std::mem::take(&mut self.written);
        self.job.progress.begin(Step::VerifyTarget, self.plan.bytes());
        let mut buffer = Vec::new();
        let mut all = true;
        for (at, hash) in written {
            self.job.check()?;
            let item = &self.plan.items[at];
            let data = self.plan.filesystem(item).open(item.id).map_err(Error::File)?;
            let ranges = ranges(&*data).map_err(Error::FileBytes)?;
            let is_same = match self.reopen(&item.path) {
                Ok(found) => {
                    found.len() == data.len()
                        && hash_of(&found, &ranges, &mut buffer, self.job)? == hash
                }
                // Without being root, nobody reads a file whose permissions say so.
                Err(error) => {
                    all = false;
                    let error = self.failed("reading back", &item.path)(error);
                    self.report.not_written(&item.path, &error);
                    continue;
                }
            };
            if !is_same {
                all = false;
                self.report.not_written(&item.path, &Differs);
            }
            self.job.progress.advance(Step::VerifyTarget, ranges.iter().map(|r| r.len).sum());
        }
        self.job.progress.end(Step::VerifyTarget);
        self.report.verified = all;
        Ok(())
    }

    fn reopen(&mut self, path: &[u8]) -> io::Result<Written> {
        let (parent, name) = self.beneath.parent(path)?;
        let found = Written::open(&*parent, name)?;
        // It was synced: what is read now comes from the medium.
        let _ = fadvise(&found.0, 0, None, Advice::DontNeed);
        Ok(found)
    }
}
