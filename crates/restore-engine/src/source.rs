//! Blocks and parts of blocks, as the recovery point has them.

use aiv_chain::{View, ViewReader};
use aiv_image_format::{Geometry, hash};

use crate::error::Result;
use crate::pieces::BlockPart;

/// Reads blocks of the point; keeps the working memory of one thread.
pub(crate) struct Source<'v> {
    reader: ViewReader<'v>,
    geometry: Geometry,
    /// One block, for those of which only a part is wanted.
    whole: Vec<u8>,
}

impl<'v> Source<'v> {
    pub(crate) fn new(view: &'v View) -> Self {
        Self { reader: view.reader(), geometry: *view.geometry(), whole: Vec::new() }
    }

    /// Fills `out` with the bytes of `part`.
    pub(crate) fn read(&mut self, part: &BlockPart, out: &mut [u8]) -> Result<()> {
        if self.is_whole(part) {
            self.reader.read_in(&part.stretch, part.block, out)?;
        } else {
            out.copy_from_slice(self.bytes(part)?);
        }
        Ok(())
    }

    /// Whether `found` are the bytes of `part`. Costs no read of the image where the index
    /// has the hash of all of them.
    pub(crate) fn equals(&mut self, part: &BlockPart, found: &[u8]) -> Result<bool> {
        match part.stretch.leaf() {
            Some(leaf) if self.is_whole(part) => Ok(hash::leaf(found) == leaf),
            _ => Ok(self.bytes(part)? == found),
        }
    }

    fn is_whole(&self, part: &BlockPart) -> bool {
        part.extent.len == u64::from(self.geometry.block_len(part.block))
    }

    fn bytes(&mut self, part: &BlockPart) -> Result<&[u8]> {
        self.whole.resize(self.geometry.block_len(part.block) as usize, 0);
        self.reader.read_in(&part.stretch, part.block, &mut self.whole)?;
        let from = crate::zeros::in_memory(part.extent.start - self.geometry.offset_of(part.block));
        Ok(&self.whole[from..from + crate::zeros::in_memory(part.extent.len)])
    }
}
