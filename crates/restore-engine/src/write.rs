//! Writes batches to the target.

use aiv_volume_io::{Extent, ExtentSet};

use crate::apply::Task;
use crate::batch::{Action, Batch};
use crate::error::{Error, Result};
use crate::pieces::BlockPart;
use crate::report::Tally;
use crate::source::Source;
use crate::turns::Filled;
use crate::zeros::{in_memory, scan};

/// Writes batches; keeps the working memory of one thread.
pub(crate) struct Writer<'t> {
    task: &'t Task<'t>,
    source: Source<'t>,
    delta: bool,
    /// What the point has.
    new: Vec<u8>,
    /// What the target has.
    old: Vec<u8>,
}

impl<'t> Writer<'t> {
    /// A writer that skips what the target holds already when `delta` is set.
    pub(crate) fn new(task: &'t Task<'t>, delta: bool) -> Self {
        Self { task, source: Source::new(task.view), delta, new: Vec::new(), old: Vec::new() }
    }

    pub(crate) fn write(&mut self, batch: &Batch) -> Result<Tally> {
        let extent = self.task.in_target(batch.extent());
        match batch {
            Batch::Blocks(parts) => self.blocks(parts, extent),
            Batch::Patch { extent: patch } => {
                let bytes = self.task.plan.patch_bytes(*patch);
                self.bytes(bytes, extent)
            }
            Batch::Replaced { extent: place } => {
                let bytes = self.task.copied(*place)?;
                self.bytes(&bytes, extent)
            }
            Batch::Run { action: Action::Zero, .. } => self.zero(extent),
            Batch::Run { action: Action::Discard, .. } => self.discard(extent),
            Batch::Run { action: Action::Leave, .. } => {
                Ok(Tally { left: extent.len, ..Tally::default() })
            }
        }
    }

    fn blocks(&mut self, parts: &[BlockPart], extent: Extent) -> Result<Tally> {
        let len = in_memory(extent.len);
        self.new.resize(len, 0);
        // Places of the target that cannot be read differ from what they should hold; writing
        // often heals them, and reading back will tell.
        let compares = self.delta && {
            self.old.resize(len, 0);
            self.task.target.read_exact_at(&mut self.old, extent.start).is_ok()
        };
        let mut tally = Tally::default();
        let mut changed = ExtentSet::new();
        for part in parts {
            let place = self.task.in_target(part.extent);
            let at = in_memory(place.start - extent.start);
            let within = at..at + in_memory(place.len);
            if compares && self.source.equals(part, &self.old[within.clone()])? {
                tally.identical += place.len;
            } else {
                self.source.read(part, &mut self.new[within])?;
                changed.push(place);
            }
        }
        if changed.runs().is_empty() {
            return Ok(tally);
        }
        self.task.head.clear(self.task)?;
        for run in changed.runs() {
            self.task.note(*run);
            tally.written += run.len;
        }
        let bytes = std::mem::take(&mut self.new);
        let filled = Filled { bytes, start: extent.start, runs: changed.runs().to_vec() };
        self.new = self.task.turns.write(filled)?;
        Ok(tally)
    }

    /// Writes bytes that are not in the image.
    fn bytes(&mut self, bytes: &[u8], extent: Extent) -> Result<Tally> {
        if self.delta {
            self.old.resize(bytes.len(), 0);
            let read = self.task.target.read_exact_at(&mut self.old, extent.start);
            if read.is_ok() && self.old == bytes {
                return Ok(Tally { identical: extent.len, ..Tally::default() });
            }
        }
        self.task.head.clear(self.task)?;
        let failed = Error::io("writing", extent.start);
        self.task.note(extent);
        self.task.target.write_all_at(bytes, extent.start).map_err(failed)?;
        Ok(Tally { written: extent.len, ..Tally::default() })
    }

    fn zero(&mut self, extent: Extent) -> Result<Tally> {
        let (held, blank) = self.split_blank(extent);
        let mut tally = Tally { identical: blank, ..Tally::default() };
        let mut changed = ExtentSet::new();
        if self.delta {
            self.old.resize(in_memory(self.task.plan.block_size), 0);
            scan(self.task.target, held, &mut self.old, |step, is_zero| {
                if !is_zero.unwrap_or(false) {
                    changed.push(step);
                }
                Ok::<_, Error>(())
            })?;
        } else {
            changed.push(held);
        }
        for run in changed.runs() {
            self.task.head.clear(self.task)?;
            self.task.note(*run);
            self.task.target.zero_range(*run).map_err(Error::io("zeroing", run.start))?;
            tally.zeroed += run.len;
        }
        tally.identical += held.len - tally.zeroed;
        Ok(tally)
    }

    fn discard(&mut self, extent: Extent) -> Result<Tally> {
        let (held, blank) = self.split_blank(extent);
        if !held.is_empty() {
            self.task.head.clear(self.task)?;
            self.task.target.discard_range(held).map_err(Error::io("discarding", held.start))?;
        }
        Ok(Tally { discarded: held.len, left: blank, ..Tally::default() })
    }

    /// The part of `extent` that holds something, and the length of the rest, which is known
    /// to read as zeros.
    fn split_blank(&self, extent: Extent) -> (Extent, u64) {
        let zeros_from = self.task.plan.target.zeros_from();
        let held = Extent::between(extent.start, extent.end().min(zeros_from));
        (held, extent.len - held.len)
    }
}
