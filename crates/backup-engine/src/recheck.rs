//! Compares what an unfinished image has decided with the source as it is now.
//!
//! Every block is read again, masked, hashed and held to what the image says of it: the hash of
//! its bytes, and its condition. So it does not matter who wrote the file, or what happened to
//! the source since.

use std::sync::Arc;

use aiv_chain::Stretch;
use aiv_image_format::hash::{self, ConstantLeaves};
use aiv_image_format::{BlockIndex, Digest, IndexEntry, Kind, Unfinished};
use aiv_volume_io::{Extent, Step, causes};

use crate::error::{Error, Result};
use crate::pace::Pacer;
use crate::parent::{Parent, as_parent};
use crate::pipeline::{Capture, Captured, blocks_extent, next_span};
use crate::section::{broken, kind_of, run_kind};
use crate::workshop::{Batch, Workshop, is_fill, mask};

type ImageResult<T> = std::result::Result<T, aiv_image_format::Error>;

impl Capture<'_> {
    /// Reads every block that `unfinished` has decided and compares it. What could not be read
    /// is in what is returned, as it is when the blocks are read for the first time. The inner
    /// error says why the file is of no use.
    pub(crate) fn compare(
        &self,
        unfinished: &Unfinished,
        pacer: &mut Option<Pacer<'_>>,
    ) -> Result<std::result::Result<Captured, String>> {
        let done = blocks_extent(&self.geometry, 0, unfinished.next_block());
        let total = self.plan.used.within(done).map(|used| used.len).sum();
        self.job.progress.begin(Step::CompareSource, total);
        let compared = self.compare_all(unfinished, pacer);
        self.job.progress.end(Step::CompareSource);
        match compared {
            Ok(Ok(captured)) => Ok(Ok(captured)),
            Ok(Err(block)) => {
                let byte = self.geometry.offset_of(block);
                Ok(Err(format!("the source has changed since, at byte {byte}")))
            }
            Err(Error::Image { source, .. }) => Ok(Err(causes(&source))),
            Err(error) => Err(error),
        }
    }

    /// The inner error is the first block that differs.
    fn compare_all(
        &self,
        unfinished: &Unfinished,
        pacer: &mut Option<Pacer<'_>>,
    ) -> Result<std::result::Result<Captured, BlockIndex>> {
        let Capture { geometry, plan, job, .. } = *self;
        let end = unfinished.next_block();
        let whole = self.blocks_per_work() * u64::from(geometry.block_size().get());
        let whole = crate::pipeline::in_memory(whole);
        let mut told = Told::new(unfinished, self.parent, ConstantLeaves::new(geometry));
        let mut captured = self.nothing_captured();
        let pages = Arc::clone(&captured.pages);
        let workshop = Workshop::new(geometry, &plan.options, pages, whole);
        let mut spans = self.spans();
        while let Some(span) = next_span(&mut spans)? {
            let last = (span.first + span.count).min(end);
            let mut first = span.first;
            while first < last {
                job.check()?;
                let kind = run_kind(span.kind);
                let count = match kind {
                    Some(_) => last - first,
                    None => self.blocks_per_work().min(last - first),
                };
                let extent = blocks_extent(&geometry, first, count);
                let differs = match kind {
                    Some(kind) => told.run(first, first + count, kind_of(kind))?,
                    None => {
                        let batch = self.read_batch(&workshop, first, extent, &mut captured)?;
                        if let Some(pacer) = pacer {
                            pacer.wait(batch.bytes.len() as u64, job)?;
                        }
                        told.batch(batch, &workshop)?
                    }
                };
                if let Some(block) = differs {
                    return Ok(Err(block));
                }
                let bytes = plan.used.within(extent).map(|used| used.len).sum();
                job.progress.advance(Step::CompareSource, bytes);
                first += count;
            }
            if last == end {
                break;
            }
        }
        Ok(Ok(captured))
    }
}

/// What the unfinished image says about its blocks, asked for in ascending order.
struct Told<'a> {
    constants: ConstantLeaves,
    entries: Box<dyn Iterator<Item = ImageResult<IndexEntry>> + 'a>,
    entry: Option<IndexEntry>,
    parent: Option<&'a Parent>,
    stretch: Option<Stretch>,
    stretches: Option<Box<dyn Iterator<Item = aiv_chain::Result<Stretch>> + 'a>>,
}

/// Some blocks with the same thing said about them.
struct Saying {
    end: BlockIndex,
    kind: Kind,
    /// `None` where the kind determines the bytes.
    leaf: Option<Digest>,
    is_inherited: bool,
}

impl<'a> Told<'a> {
    fn new(
        unfinished: &'a Unfinished,
        parent: Option<&'a Parent>,
        constants: ConstantLeaves,
    ) -> Self {
        let entries = Box::new(unfinished.entries());
        Self { constants, entries, entry: None, parent, stretch: None, stretches: None }
    }

    /// What is said about `block` and those after it; `None` when nothing is.
    fn about(&mut self, block: BlockIndex) -> Result<Option<Saying>> {
        while self.entry.is_none_or(|entry| entry.end() <= block) {
            match self.entries.next().transpose().map_err(unreadable_part)? {
                Some(entry) => self.entry = Some(entry),
                None => break,
            }
        }
        let entry = self.entry.filter(|entry| entry.end() > block);
        if let Some(entry) = entry.filter(|entry| entry.block <= block) {
            let leaf = entry.has_leaf().then_some(entry.leaf);
            let (end, kind) = (entry.end(), entry.kind);
            return Ok(Some(Saying { end, kind, leaf, is_inherited: false }));
        }
        let Some(parent) = self.parent.filter(|parent| block < parent.shared()) else {
            return Ok(None);
        };
        while self.stretch.as_ref().is_none_or(|s| s.block().saturating_add(s.run()) <= block) {
            let stretches =
                self.stretches.get_or_insert_with(|| Box::new(parent.view.stretches(block)));
            let next = stretches.next().transpose();
            match next.map_err(|error| broken(as_parent(error)))? {
                Some(stretch) => self.stretch = Some(stretch),
                None => return Ok(None),
            }
        }
        let Some(stretch) = &self.stretch else { return Ok(None) };
        let until = entry.map_or(u64::MAX, |entry| entry.block).min(parent.shared());
        let end = stretch.block().saturating_add(stretch.run()).min(until);
        let (kind, leaf) = (stretch.kind(), stretch.leaf());
        Ok(Some(Saying { end, kind, leaf, is_inherited: true }))
    }

    /// The first of the blocks `first .. end`, all of `kind`, that something else is said about.
    fn run(
        &mut self,
        first: BlockIndex,
        end: BlockIndex,
        kind: Kind,
    ) -> Result<Option<BlockIndex>> {
        let mut at = first;
        while at < end {
            let Some(said) = self.about(at)? else { return Ok(Some(at)) };
            let same_bytes = said.leaf.is_none_or(|leaf| leaf == self.constants.of(at, kind));
            if !same_bytes || said.kind.map_state() != kind.map_state() {
                return Ok(Some(at));
            }
            at = said.end;
        }
        Ok(None)
    }

    /// The first block of `batch` that something else is said about.
    fn batch(&mut self, mut batch: Batch, workshop: &Workshop) -> Result<Option<BlockIndex>> {
        mask(&mut batch, workshop.geometry);
        let size = workshop.geometry.block_size().bytes();
        let mut differs = None;
        for (block, bytes) in (batch.first..).zip(batch.bytes.chunks(size)) {
            let here = blocks_extent(&workshop.geometry, block, 1);
            let is_damaged = batch.unreadable.iter().any(|u: &Extent| u.intersect(here).is_some());
            let Some(said) = self.true_saying(block, bytes, is_damaged)? else {
                differs = Some(block);
                break;
            };
            if said.kind == Kind::Data && !said.is_inherited {
                workshop.remember_pages(block, bytes);
            }
        }
        workshop.give_back_buffer(batch.bytes);
        Ok(differs)
    }

    /// What is said about the block, if it is true.
    fn true_saying(
        &mut self,
        block: BlockIndex,
        bytes: &[u8],
        is_damaged: bool,
    ) -> Result<Option<Saying>> {
        let Some(said) = self.about(block)? else { return Ok(None) };
        // Each image lists all unreadable places of its state: none of them is inherited.
        if is_damaged != (said.kind == Kind::Unreadable) || (is_damaged && said.is_inherited) {
            return Ok(None);
        }
        if !is_damaged && said.kind.map_state() != 0 {
            return Ok(None);
        }
        if is_damaged && is_fill(bytes) != said.leaf.is_none() {
            return Ok(None);
        }
        let expected = said.leaf.unwrap_or_else(|| self.constants.of(block, said.kind));
        Ok((hash::leaf(bytes) == expected).then_some(said))
    }
}

/// The unfinished image was sound a moment ago.
fn unreadable_part(source: aiv_image_format::Error) -> Error {
    Error::Image { image: "the unfinished image".to_owned(), source }
}
