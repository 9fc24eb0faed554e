//! What was written, read back from the medium.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aiv_volume_io::{ReadAt, Step};
use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};

use super::copy::{hash_of, ranges};
use super::folder::Sink;
use crate::error::{Error, Result};

struct Written(File, u64);

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
            let failed = self.failed("reading back", &item.path);
            let found = self.reopen(&item.path).map_err(failed)?;
            let is_same = found.len() == data.len()
                && hash_of(&found, &ranges, &mut buffer, self.job)? == hash;
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
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = openat(&*parent, name, flags, Mode::empty())?.into();
        // It was synced: what is read now comes from the medium.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let len = file.metadata()?.len();
        Ok(Written(file, len))
    }
}
