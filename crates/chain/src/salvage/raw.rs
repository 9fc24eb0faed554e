//! What is left into a raw file.

use aiv_image_format::{BlockIndex, Compression, Geometry, Kind, hash};
use aiv_volume_io::{Extent, ExtentSet, Job, Step, WriteAt};

use super::Salvaged;
use super::report::SalvageReport;
use super::run::{Block, Sink};
use crate::error::{Error, Result};

/// Bytes read back at once.
const CHUNK: u64 = 1 << 20;

/// What stands in a raw file where bytes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Nothing is written: the zeros of a new file, as a hole.
    Hole,
    /// The fill pattern of the format, `!AIV-UNREADABLE!`, so that nobody takes it for data.
    Pattern,
}

impl Salvaged {
    /// Writes what is left into `target`, which must be as long as the disk and read as zeros, and
    /// compares it with what is read back after a sync.
    ///
    /// # Errors
    /// [`Error::Io`] when the target fails, [`Error::ReadBack`], [`Error::Canceled`].
    pub fn write_raw(
        &self,
        target: &dyn WriteAt,
        fill: Fill,
        job: Job<'_>,
    ) -> Result<SalvageReport> {
        let geometry = *self.geometry();
        if target.len() < geometry.len() {
            let (needed, free) = (geometry.len(), target.len());
            return Err(Error::NoSpace { place: "the target".to_owned(), needed, free });
        }
        let (written, hash) = (ExtentSet::new(), blake3::Hasher::new());
        let mut raw = Raw { target, geometry, fill, written, hash };
        let report = self.run(&mut raw, job)?;
        target.sync().map_err(Error::io("making the target durable"))?;
        raw.prove(job)?;
        Ok(report)
    }
}

struct Raw<'t> {
    target: &'t dyn WriteAt,
    geometry: Geometry,
    fill: Fill,
    /// What was written, ascending, and the hash of it.
    written: ExtentSet,
    hash: blake3::Hasher,
}

impl Raw<'_> {
    fn write(&mut self, bytes: &[u8], block: BlockIndex) -> Result<()> {
        let at = self.geometry.offset_of(block);
        let op = || format!("writing the target at byte {at}");
        self.target.write_all_at(bytes, at).map_err(|source| Error::Io { op: op(), source })?;
        self.hash.update(bytes);
        self.written.push(Extent::new(at, bytes.len() as u64));
        Ok(())
    }

    fn write_pattern(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        let mut pattern = vec![0; self.geometry.block_size().bytes()];
        hash::fill_unreadable(&mut pattern, 0);
        for block in first..first + count {
            let len = self.geometry.block_len(block) as usize;
            self.write(&pattern[..len], block)?;
        }
        Ok(())
    }

    /// Reads back what was written.
    fn prove(&self, job: Job<'_>) -> Result<()> {
        let mut hash = blake3::Hasher::new();
        let mut buffer = Vec::new();
        job.progress.begin(Step::VerifyTarget, self.written.total_len());
        for run in self.written.runs() {
            self.target.drop_cache(*run);
            let mut at = run.start;
            while at < run.end() {
                job.check()?;
                let now = (run.end() - at).min(CHUNK);
                buffer.resize(usize::try_from(now).unwrap_or(0), 0);
                let read = self.target.read_exact_at(&mut buffer, at);
                read.map_err(Error::io(format!("reading the target back at byte {at}")))?;
                hash.update(&buffer);
                at += now;
                job.progress.advance(Step::VerifyTarget, now);
            }
        }
        job.progress.end(Step::VerifyTarget);
        if hash.finalize() == self.hash.finalize() {
            return Ok(());
        }
        let what = "its bytes are others than those that were written".to_owned();
        Err(Error::ReadBack { file: "the target".to_owned(), what })
    }
}

impl Sink for Raw<'_> {
    fn compression(&self) -> Option<Compression> {
        None
    }

    fn run(&mut self, kind: Kind, first: BlockIndex, count: u64) -> Result<()> {
        // What the source could not read is no less lost than the rest.
        match kind {
            Kind::Unreadable => self.lost(first, count),
            _ => Ok(()),
        }
    }

    fn block(&mut self, block: BlockIndex, _: Kind, read: &Block) -> Result<()> {
        if read.bytes.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        self.write(&read.bytes, block)
    }

    fn lost(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        match self.fill {
            Fill::Hole => Ok(()),
            Fill::Pattern => self.write_pattern(first, count),
        }
    }
}
