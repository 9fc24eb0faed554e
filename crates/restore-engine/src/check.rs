//! Reads batches back from the target and compares them with the point.

use aiv_volume_io::Extent;

use crate::apply::Task;
use crate::batch::{Action, Batch, WRITE_MAX};
use crate::error::{Error, Result};
use crate::pieces::BlockPart;
use crate::report::Tally;
use crate::source::Source;
use crate::zeros::{in_memory, scan};

/// Checks batches; keeps the working memory of one thread.
pub(crate) struct Checker<'t> {
    task: &'t Task<'t>,
    source: Source<'t>,
    found: Vec<u8>,
}

impl<'t> Checker<'t> {
    pub(crate) fn new(task: &'t Task<'t>) -> Self {
        Self { task, source: Source::new(task.view), found: Vec::new() }
    }

    /// Proves that the target holds what the batch says, as far as that is specified.
    pub(crate) fn check(&mut self, batch: &Batch) -> Result<Tally> {
        let extent = self.task.in_target(batch.extent());
        match batch {
            Batch::Blocks(parts) => self.blocks(parts, extent)?,
            Batch::Run { action: Action::Zero, .. } => self.zeros(extent)?,
            Batch::Patch { extent: patch } => self.patch(*patch, extent)?,
            Batch::Replaced { extent: place } => self.replaced(*place, extent)?,
            Batch::Run { action: Action::Discard | Action::Leave, .. } => {
                return Ok(Tally::default());
            }
        }
        Ok(Tally { verified: extent.len, ..Tally::default() })
    }

    fn blocks(&mut self, parts: &[BlockPart], extent: Extent) -> Result<()> {
        self.found.resize(in_memory(extent.len), 0);
        let read = self.task.target.read_exact_at(&mut self.found, extent.start);
        read.map_err(Error::io("reading back", extent.start))?;
        for part in parts {
            let place = self.task.in_target(part.extent);
            let at = in_memory(place.start - extent.start);
            if !self.source.equals(part, &self.found[at..at + in_memory(place.len)])? {
                return Err(Error::Mismatch { extent: place });
            }
        }
        Ok(())
    }

    fn patch(&mut self, patch: Extent, extent: Extent) -> Result<()> {
        self.found.resize(in_memory(extent.len), 0);
        let read = self.task.target.read_exact_at(&mut self.found, extent.start);
        read.map_err(Error::io("reading back", extent.start))?;
        match self.found == self.task.plan.patch_bytes(patch) {
            true => Ok(()),
            false => Err(Error::Mismatch { extent }),
        }
    }

    fn replaced(&mut self, place: Extent, extent: Extent) -> Result<()> {
        let wanted = self.task.copied(place)?;
        self.found.resize(wanted.len(), 0);
        let read = self.task.target.read_exact_at(&mut self.found, extent.start);
        read.map_err(Error::io("reading back", extent.start))?;
        if self.found == wanted { Ok(()) } else { Err(Error::Mismatch { extent }) }
    }

    fn zeros(&mut self, extent: Extent) -> Result<()> {
        self.found.resize(in_memory(WRITE_MAX), 0);
        scan(self.task.target, extent, &mut self.found, |step, is_zero| {
            match is_zero.map_err(Error::io("reading back", step.start))? {
                true => Ok(()),
                false => Err(Error::Mismatch { extent: step }),
            }
        })
    }
}
