//! Carries a plan out.
//!
//! Order of writes: the head, and a backup partition table at the end, are cleared and synced;
//! everything else is written, synced, read back and compared; then so is the backup table, and
//! at last the head. Where nothing is written, a delta restore compares the target once, as the
//! medium has it. So at any moment before the last the target does not look like a disk, and
//! what looks like a restored disk was proven to be one.

use aiv_chain::View;
use aiv_volume_io::{Extent, Job, ReadAt, Step, WriteAt};
use rayon::iter::{ParallelBridge, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::{Batch, Batches, of_copy};
use crate::check::Checker;
use crate::error::{Error, Refusal, Result};
use crate::guarded::Guarded;
use crate::head::Head;
use crate::plan::RestorePlan;
use crate::ranges::{Part, Ranges};
use crate::report::{RestoreReport, Tally};
use crate::run::{Failed, Left};
use crate::shrink::Shrunk;
use crate::touched::Touched;
use crate::turns::Turns;
use crate::write::Writer;
use crate::zeros::in_memory;

/// A plan being applied: what all threads share.
pub(crate) struct Task<'t> {
    pub(crate) plan: &'t RestorePlan,
    pub(crate) view: &'t View,
    pub(crate) target: &'t dyn WriteAt,
    pub(crate) turns: Turns<'t>,
    pub(crate) head: Head,
    /// The partition that was made smaller, if the plan takes one from there.
    copy: Option<&'t dyn ReadAt>,
    /// Where a delta restore wrote, in bytes of the source disk.
    touched: Option<Touched>,
    job: Job<'t>,
}

impl RestorePlan {
    /// Restores `view`, which must be the point the plan was made for, to `target`, which must
    /// be what the facts of the plan describe, created or extended as the plan asks. Memory
    /// does not grow with the disk: a few MiB per thread.
    ///
    /// Progress is reported as [`Step::WriteTarget`] for everything behind the head, then as
    /// [`Step::VerifyTarget`] for the whole region, the head included; free space counts too.
    ///
    /// # Errors
    /// [`Error::OtherPoint`] and [`Error::Refused`] before the first write. After it, on every
    /// error, the target holds part of a disk and must not be used ([`RestorePlan::apply_to`] tells): [`Error::Io`],
    /// [`Error::Mismatch`] when it returns other bytes than were written, [`Error::View`] and
    /// [`Error::Undecided`] when the image is damaged, [`Error::Canceled`].
    pub fn apply(self, view: &View, target: &dyn WriteAt, job: Job<'_>) -> Result<RestoreReport> {
        self.apply_to(view, target, job).map_err(|failed| failed.error)
    }

    /// As [`RestorePlan::apply`], and says what a failure left.
    ///
    /// # Errors
    /// The same: with [`Left::Untouched`] as long as nothing was written.
    pub fn apply_to(
        self,
        view: &View,
        target: &dyn WriteAt,
        job: Job<'_>,
    ) -> std::result::Result<RestoreReport, Failed> {
        self.apply_with(view, None, target, job)
    }

    pub(crate) fn apply_with(
        self,
        view: &View,
        shrunk: Option<&Shrunk>,
        target: &dyn WriteAt,
        job: Job<'_>,
    ) -> std::result::Result<RestoreReport, Failed> {
        let target = Guarded::new(target);
        self.carry_out(view, shrunk, &target, job).map_err(|error| {
            let left = if target.is_written() { Left::Part } else { Left::Untouched };
            Failed { error, left }
        })
    }

    fn carry_out(
        self,
        view: &View,
        shrunk: Option<&Shrunk>,
        target: &dyn WriteAt,
        job: Job<'_>,
    ) -> Result<RestoreReport> {
        if self.replaced != shrunk.map(|shrunk| shrunk.what().replaced()) {
            let target = self.target.label.clone();
            return Err(Refusal::OtherCopy { target }.into());
        }
        let copy = shrunk.map(|shrunk| -> &dyn ReadAt { shrunk.disk() });
        self.check_inputs(view, target)?;
        let threads = self.options.threads.get();
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(Error::Threads)?;
        let head = Head::new(self.head_is_blank());
        let touched = self.options.delta.then(|| {
            let ends = self.ranges().body.into_iter().map(Extent::end);
            let end = ends.fold(self.region.end(), u64::max);
            Touched::nothing(Extent::between(self.region.start, end), self.block_size)
        });
        let turns = Turns::new(target, threads);
        let task = Task { plan: &self, view, target, turns, head, copy, touched, job };
        let tally = task.run(&pool)?;
        Ok(RestoreReport {
            region: self.region,
            bytes_written: tally.written,
            bytes_zeroed: tally.zeroed,
            bytes_discarded: tally.discarded,
            bytes_identical: tally.identical,
            bytes_left: tally.left,
            bytes_verified: tally.verified,
            unreadable: self.unreadable,
            notes: self.notes,
            verified: true,
        })
    }

    fn check_inputs(&self, view: &View, target: &dyn WriteAt) -> Result<()> {
        let found = view.point();
        if found != self.point || view.image().trailer().state_root != self.state_root {
            return Err(Error::OtherPoint { planned: self.point, found });
        }
        let (needed, len) = (self.target_len_needed(), target.len());
        if len < needed {
            let target = self.target.label.clone();
            return Err(Refusal::TooSmall { target, needed, len }.into());
        }
        // The end of a table made for a target is the end of that target.
        let planned = needed.max(self.target.len);
        if !self.patches.is_empty() && len != planned {
            let target = self.target.label.clone();
            return Err(Refusal::OtherLength { target, planned, len }.into());
        }
        Ok(())
    }
}

impl Task<'_> {
    fn run(&self, pool: &ThreadPool) -> Result<Tally> {
        let ranges = self.plan.ranges();
        let progress = self.job.progress;
        let verified = |bytes| progress.advance(Step::VerifyTarget, bytes);

        let body = ranges.body.iter().map(|range| range.len).sum();
        progress.begin(Step::WriteTarget, body);
        if self.touched.is_some() {
            // What is compared now is not read again: it has to be what the medium holds.
            self.sync(&ranges.body)?;
            self.drop_cache(&ranges.body);
        }
        let written = self.write(pool, &ranges.body, self.plan.options.delta, |bytes| {
            progress.advance(Step::WriteTarget, bytes);
        })?;
        progress.end(Step::WriteTarget);

        progress.begin(Step::VerifyTarget, self.plan.len_touched());
        let mut tally = match &self.touched {
            None => written + self.check(pool, &ranges.body, verified)?,
            Some(touched) => {
                let again = touched.within(&ranges.body);
                self.check(pool, &again, verified)?;
                verified(body - again.iter().map(|range| range.len).sum::<u64>());
                let compared = written.written + written.zeroed + written.identical;
                Tally { verified: compared, ..written }
            }
        };
        self.job.check()?;
        let is_right = self.settle_ends(pool, &ranges)?;
        for end in [&ranges.late, &ranges.head] {
            if !end.is_empty() {
                let written = self.write(pool, end, is_right, |_| {})?;
                tally = tally + written + self.check(pool, end, verified)?;
            }
        }
        progress.end(Step::VerifyTarget);
        Ok(tally)
    }

    /// Whether a delta restore finds both ends right as they are. If not, they are clear
    /// afterwards, if nothing before had to clear them, and are to be written in full.
    fn settle_ends(&self, pool: &ThreadPool, ranges: &Ranges) -> Result<bool> {
        let is_right = |range| match self.check(pool, range, |_| {}) {
            Ok(_) => Ok(true),
            Err(Error::Mismatch { .. } | Error::Io { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        let both = self.plan.options.delta && is_right(&ranges.late)? && is_right(&ranges.head)?;
        if both {
            self.head.settle();
        } else {
            self.head.clear(self).map_err(|error| self.head.explain(error))?;
        }
        Ok(both)
    }

    /// Writes ranges and makes them durable.
    fn write(
        &self,
        pool: &ThreadPool,
        ranges: &[Extent],
        delta: bool,
        advance: impl Fn(u64) + Sync,
    ) -> Result<Tally> {
        let writer = || Writer::new(self, delta);
        let tally = self.for_each_batch(pool, ranges, writer, |writer, batch| {
            let tally = writer.write(batch)?;
            advance(batch.extent().len);
            Ok(tally)
        })?;
        self.sync(ranges)?;
        Ok(tally)
    }

    fn sync(&self, ranges: &[Extent]) -> Result<()> {
        let start = ranges.first().map_or(0, |range| self.in_target(*range).start);
        self.target.sync().map_err(Error::io("syncing", start))
    }

    fn drop_cache(&self, ranges: &[Extent]) {
        ranges.iter().for_each(|range| self.target.drop_cache(self.in_target(*range)));
    }

    /// Reads durable ranges back from the medium.
    fn check(
        &self,
        pool: &ThreadPool,
        ranges: &[Extent],
        advance: impl Fn(u64) + Sync,
    ) -> Result<Tally> {
        self.drop_cache(ranges);
        self.for_each_batch(
            pool,
            ranges,
            || Checker::new(self),
            |checker, batch| {
                let tally = checker.check(batch)?;
                advance(batch.extent().len);
                Ok(tally)
            },
        )
    }

    /// Hands the batches of ranges to the threads of the pool, one at a time each, in image
    /// order, and stops at the first error.
    fn for_each_batch<W>(
        &self,
        pool: &ThreadPool,
        ranges: &[Extent],
        worker: impl Fn() -> W + Sync + Send,
        work: impl Fn(&mut W, &Batch) -> Result<Tally> + Sync + Send,
    ) -> Result<Tally> {
        let batches = self.batches(ranges);
        let result = pool.install(|| {
            batches
                .par_bridge()
                .map_init(worker, |worker, batch| {
                    self.job.check()?;
                    work(worker, &batch?)
                })
                .try_reduce(Tally::default, |a, b| Ok(a + b))
        });
        result.map_err(|error| self.head.explain(error))
    }

    /// The batches of ranges, in their order. Ends after the first error of each part.
    pub(crate) fn batches(&self, ranges: &[Extent]) -> impl Iterator<Item = Result<Batch>> + Send {
        let parts: Vec<Part> = ranges.iter().flat_map(|range| self.plan.parts(*range)).collect();
        parts.into_iter().flat_map(|part| -> Box<dyn Iterator<Item = Result<Batch>> + Send + '_> {
            match (part, self.copy, self.plan.replaced) {
                (Part::Image(extent), ..) => {
                    Box::new(Batches::new(self.view, extent, self.plan.options.unused))
                }
                (Part::Replaced(range), Some(copy), Some(whole)) => {
                    Box::new(of_copy(copy, whole.start, range).map(Ok))
                }
                (Part::Patch(extent) | Part::Replaced(extent), ..) => {
                    Box::new(std::iter::once(Ok(Batch::Patch { extent })))
                }
            }
        })
    }

    /// Bytes of the partition that was made smaller, by their place on the disk.
    pub(crate) fn copied(&self, place: Extent) -> Result<Vec<u8>> {
        let start = self.plan.replaced.map_or(0, |extent| extent.start);
        let mut bytes = vec![0; in_memory(place.len)];
        if let Some(copy) = self.copy {
            let read = copy.read_exact_at(&mut bytes, place.start - start);
            read.map_err(|source| Error::Copy { offset: place.start - start, source })?;
        }
        Ok(bytes)
    }

    /// Notes that bytes of the target are being written.
    pub(crate) fn note(&self, place: Extent) {
        if let Some(touched) = &self.touched {
            touched.note(Extent::new(place.start + self.plan.region.start, place.len));
        }
    }

    /// Where bytes of the source disk, inside the region, go in the target.
    pub(crate) fn in_target(&self, extent: Extent) -> Extent {
        Extent::new(extent.start - self.plan.region.start, extent.len)
    }
}
