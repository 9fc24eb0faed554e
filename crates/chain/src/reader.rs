//! Reads blocks of a view: follows copies and differences through the chain.

use std::sync::{Arc, Mutex, PoisonError};

use aiv_image_format::limits::DELTA_DEPTH_MAX;
use aiv_image_format::{BaseBlock, BlockIndex, Error as ImageError, IndexEntry, Kind, Scratch};

use crate::error::Result;
use crate::layers::Layers;
use crate::view::{Stretch, View};

/// Reads blocks of a view; keeps the working memory of one thread.
pub struct ViewReader<'a> {
    view: &'a View,
    blocks: Blocks,
}

impl<'a> ViewReader<'a> {
    pub(crate) fn new(view: &'a View) -> Self {
        Self { view, blocks: Blocks::default() }
    }

    /// Reads one block, checked against its hash, into `out` of exactly its length.
    ///
    /// # Errors
    /// [`crate::Error::Image`] when an image is damaged there or cannot be read.
    pub fn read(&mut self, block: BlockIndex, out: &mut [u8]) -> Result<Kind> {
        let stretch = self.view.find(block).map_err(|e| self.view.layers.explain(e))?;
        self.read_in(&stretch, block, out)?;
        Ok(stretch.kind())
    }

    /// Reads `block`, which `stretch` of the view covers, without looking it up again. Returns
    /// its depth: how many differences have to be undone for it.
    ///
    /// # Errors
    /// As [`ViewReader::read`].
    pub fn read_in(&mut self, stretch: &Stretch, block: BlockIndex, out: &mut [u8]) -> Result<u8> {
        let layers = &self.view.layers;
        let read = self.blocks.read(layers, (stretch.layer, stretch.entry), block, out);
        read.map_err(|e| layers.explain(e))
    }
}

/// Working memory for each step of undoing differences.
#[derive(Default)]
pub(crate) struct Blocks {
    steps: Vec<Scratch>,
}

impl Blocks {
    /// Reads `block` as `found` in a layer says, and returns its depth.
    pub(crate) fn read(
        &mut self,
        layers: &Layers,
        found: (usize, IndexEntry),
        block: BlockIndex,
        out: &mut [u8],
    ) -> std::result::Result<u8, ImageError> {
        self.read_within(layers, found, block, DELTA_DEPTH_MAX, out)
    }

    /// Recursion is bounded by `limit`, which falls with every difference.
    fn read_within(
        &mut self,
        layers: &Layers,
        found: (usize, IndexEntry),
        block: BlockIndex,
        limit: u8,
        out: &mut [u8],
    ) -> std::result::Result<u8, ImageError> {
        let (layer, entry, block) = layers.resolve(found, block)?;
        let image = &layers.get(layer).image;
        let mut scratch = self.steps.pop().unwrap_or_default();
        let read = image.read_entry(&mut scratch, &entry, block, limit, out, &mut |base, bytes| {
            let BaseBlock { block, leaf, limit } = *base;
            if layer + 1 == layers.len() {
                return Err(image.lacks(block));
            }
            let found = layers.find(layer + 1, block)?;
            let other_length =
                layers.get(layer + 1).image.geometry().block_len(block) as usize != bytes.len();
            if other_length || (found.1.has_leaf() && found.1.leaf != leaf) {
                return Err(image.lacks(block));
            }
            self.read_within(layers, found, block, limit, bytes)
        });
        self.steps.push(scratch);
        read.map_err(|e| layers.in_layer(layer, e))
    }
}

/// Working memories that are kept for later reads: of as many threads as usually read at once.
const SPARE_MAX: usize = 4;

/// What reads of pages from anywhere need and would make anew each time: contexts of the
/// decompressor and buffers cost a tenth of what reading a block takes.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The block read last, so that small reads in a row decode it once.
    recent: Option<(BlockIndex, Arc<Vec<u8>>)>,
    spare: Vec<(Blocks, Vec<u8>)>,
}

impl Memory {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of `block`: those read last, or what `read` puts into the buffer it is given,
    /// whose length and bytes are those of some other block. Nothing is locked while it reads.
    pub(crate) fn block<E>(
        &self,
        block: BlockIndex,
        read: impl FnOnce(&mut Blocks, &mut Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<Arc<Vec<u8>>, E> {
        let mut kept = self.kept();
        if let Some((number, bytes)) = &kept.recent
            && *number == block
        {
            return Ok(Arc::clone(bytes));
        }
        let (mut blocks, mut bytes) = kept.spare.pop().unwrap_or_default();
        drop(kept);
        read(&mut blocks, &mut bytes)?;
        let bytes = Arc::new(bytes);
        let mut kept = self.kept();
        let before = kept.recent.replace((block, Arc::clone(&bytes)));
        if kept.spare.len() < SPARE_MAX {
            // Whoever still copies from the block before keeps its buffer.
            let buffer = before.and_then(|(_, bytes)| Arc::try_unwrap(bytes).ok());
            kept.spare.push((blocks, buffer.unwrap_or_default()));
        }
        Ok(bytes)
    }
}
