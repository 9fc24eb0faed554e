//! Carries a plan out.
//!
//! Order of writes: the head is cleared and synced; everything behind it is written, synced,
//! read back and compared; the head is written, synced, read back and compared. So at any
//! moment before the last the target does not look like a disk, and what looks like a
//! restored disk was proven to be one.

use aiv_chain::View;
use aiv_volume_io::{Extent, Job, Step, WriteAt};
use rayon::iter::{ParallelBridge, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::{Batch, Batches};
use crate::check::Checker;
use crate::error::{Error, Refusal, Result};
use crate::head::Head;
use crate::plan::RestorePlan;
use crate::report::{RestoreReport, Tally};
use crate::write::Writer;

/// A plan being applied: what all threads share.
pub(crate) struct Task<'t> {
    pub(crate) plan: &'t RestorePlan,
    pub(crate) view: &'t View,
    pub(crate) target: &'t dyn WriteAt,
    pub(crate) head: Head,
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
    /// error, the target holds part of a disk and must not be used: [`Error::Io`],
    /// [`Error::Mismatch`] when it returns other bytes than were written, [`Error::View`] and
    /// [`Error::Undecided`] when the image is damaged, [`Error::Canceled`].
    pub fn apply(self, view: &View, target: &dyn WriteAt, job: Job<'_>) -> Result<RestoreReport> {
        self.check_inputs(view, target)?;
        let threads = self.options.threads.get();
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(Error::Threads)?;
        let head = Head::new(self.head_is_blank());
        let tally = Task { plan: &self, view, target, head, job }.run(&pool)?;
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
        Ok(())
    }
}

impl Task<'_> {
    fn run(&self, pool: &ThreadPool) -> Result<Tally> {
        let head = self.plan.head();
        let body = Extent::between(head.end(), self.plan.region.end());

        let progress = self.job.progress;
        let verified = |bytes| progress.advance(Step::VerifyTarget, bytes);

        progress.begin(Step::WriteTarget, body.len);
        let written = self.write(pool, body, self.plan.options.delta, |bytes| {
            progress.advance(Step::WriteTarget, bytes);
        })?;
        progress.end(Step::WriteTarget);

        progress.begin(Step::VerifyTarget, self.plan.region.len);
        let checked = self.check(pool, body, verified)?;
        self.job.check()?;
        let head_written = self.write_head(pool, head)?;
        let head_checked = self.check(pool, head, verified)?;
        progress.end(Step::VerifyTarget);
        Ok(written + checked + head_written + head_checked)
    }

    /// Writes the head: in full, unless a delta restore finds it right as it is. The first
    /// write clears it, if nothing before had to.
    fn write_head(&self, pool: &ThreadPool, head: Extent) -> Result<Tally> {
        let is_right = self.plan.options.delta
            && match self.check(pool, head, |_| {}) {
                Ok(_) => true,
                Err(Error::Mismatch { .. } | Error::Io { .. }) => false,
                Err(error) => return Err(error),
            };
        if is_right {
            self.head.settle();
        }
        self.write(pool, head, is_right, |_| {})
    }

    /// Writes a range and makes it durable.
    fn write(
        &self,
        pool: &ThreadPool,
        range: Extent,
        delta: bool,
        advance: impl Fn(u64) + Sync,
    ) -> Result<Tally> {
        let writer = || Writer::new(self, delta);
        let tally = self.for_each_batch(pool, range, writer, |writer, batch| {
            let tally = writer.write(batch)?;
            advance(batch.extent().len);
            Ok(tally)
        })?;
        self.target.sync().map_err(Error::io("syncing", self.in_target(range).start))?;
        Ok(tally)
    }

    /// Reads a durable range back from the medium.
    fn check(
        &self,
        pool: &ThreadPool,
        range: Extent,
        advance: impl Fn(u64) + Sync,
    ) -> Result<Tally> {
        self.target.drop_cache(self.in_target(range));
        self.for_each_batch(
            pool,
            range,
            || Checker::new(self),
            |checker, batch| {
                let tally = checker.check(batch)?;
                advance(batch.extent().len);
                Ok(tally)
            },
        )
    }

    /// Hands the batches of a range to the threads of the pool, one at a time each, in image
    /// order, and stops at the first error.
    fn for_each_batch<W>(
        &self,
        pool: &ThreadPool,
        range: Extent,
        worker: impl Fn() -> W + Sync + Send,
        work: impl Fn(&mut W, &Batch) -> Result<Tally> + Sync + Send,
    ) -> Result<Tally> {
        let batches = self.batches(range);
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

    pub(crate) fn batches(&self, range: Extent) -> Batches<'_> {
        Batches::new(self.view, range, self.plan.options.unused)
    }

    /// Where bytes of the source disk, inside the region, go in the target.
    pub(crate) fn in_target(&self, extent: Extent) -> Extent {
        Extent::new(extent.start - self.plan.region.start, extent.len)
    }
}
