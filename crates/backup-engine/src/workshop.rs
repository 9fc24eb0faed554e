//! What becomes of blocks between being read and being written: masked, hashed, compressed.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_image_format::hash::{self, ConstantLeaves};
use aiv_image_format::{BlockIndex, Compression, Digest, EncodedBlock, Encoder, Geometry};
use aiv_volume_io::Extent;

use crate::dedup::SeenBlocks;
use crate::facts::BackupOptions;
use crate::pages::{Page, PageTable};
use crate::pipeline::{Capture, blocks_extent, in_memory};
use crate::reached::Reached;
use crate::repeats::{self, Repeats};

/// What became of one block.
pub(crate) enum Block {
    /// This block and those after it, so many in all, are as in the parent's state.
    Inherited(u64),
    /// Equal to a block of the parent's state that has another number.
    Moved(u64, Digest),
    /// No byte of it matters.
    Unused,
    /// No byte of it matters but what the user left out.
    Excluded,
    Zero,
    /// Every byte is the pattern of unreadable places.
    Lost,
    /// Equal to a block the writer remembers.
    Seen(Digest),
    /// With its pages, as far as they are remembered when it is stored whole.
    New(EncodedBlock, Vec<Page>),
    /// Partly unreadable.
    Damaged(EncodedBlock),
}

/// Blocks read and not yet judged.
pub(crate) struct Batch {
    pub first: u64,
    pub bytes: Vec<u8>,
    /// What has to be kept of the bytes, in disk offsets.
    pub keep: Vec<Extent>,
    pub unreadable: Vec<Extent>,
}

/// What the workers share: encoders and buffers to reuse, blocks seen before.
pub(crate) struct Workshop {
    pub geometry: Geometry,
    pub constants: ConstantLeaves,
    compression: Compression,
    self_check: bool,
    delta_depth: u8,
    pub seen: SeenBlocks,
    /// The pages of blocks that are stored whole.
    pub pages: Arc<PageTable>,
    /// How far both tables are filled.
    pub reached: Reached,
    /// Bytes of the source that were read again.
    pub reread: AtomicU64,
    finds_repeats: bool,
    encoders: Mutex<Vec<Encoder>>,
    buffers: Buffers,
}

/// Buffers to use again: the kernel hands out new memory at a fraction of the speed of a read.
///
/// Only those that more than half of the work at hand fills are kept, so that work has one of
/// them at most: many small parts in large buffers would outgrow any bound.
struct Buffers {
    /// Bytes of the largest piece of work.
    whole: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer of `len` bytes with anything in it.
    fn take(&self, len: usize) -> Vec<u8> {
        if len <= self.whole / 2 {
            return vec![0; len];
        }
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = spare.unwrap_or_else(|| Vec::with_capacity(self.whole.max(len)));
        buffer.resize(len, 0);
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if buffer.len() > self.whole / 2 {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

impl Workshop {
    /// `whole` is what the largest piece of work holds of the disk, in bytes.
    pub(crate) fn new(
        geometry: Geometry,
        options: &BackupOptions,
        pages: Arc<PageTable>,
        whole: usize,
    ) -> Self {
        Self {
            geometry,
            constants: ConstantLeaves::new(geometry),
            compression: options.compression,
            self_check: options.self_check,
            delta_depth: options.delta_depth,
            seen: SeenBlocks::default(),
            pages,
            reached: Reached::default(),
            reread: AtomicU64::new(0),
            finds_repeats: repeats::are_stored(options, geometry.block_size()),
            encoders: Mutex::default(),
            buffers: Buffers { whole, spare: Mutex::default() },
        }
    }

    /// A buffer of `len` bytes with anything in it.
    pub(crate) fn buffer(&self, len: usize) -> Vec<u8> {
        self.buffers.take(len)
    }

    /// Masks, hashes and compresses the blocks of a batch.
    pub(crate) fn judge(
        &self,
        mut batch: Batch,
        capture: Capture<'_>,
    ) -> aiv_image_format::Result<Vec<Block>> {
        let mut encoder = self.encoder();
        let mut repeats = self.repeats(capture, batch.first);
        mask(&mut batch, self.geometry);
        let size = self.geometry.block_size().bytes();
        let blocks = (batch.first..)
            .zip(batch.bytes.chunks(size))
            .map(|(number, bytes)| {
                self.judge_block(number, bytes, &batch, &mut encoder, &mut repeats)
            })
            .collect();
        self.give_back(encoder);
        self.give_back_buffer(batch.bytes);
        blocks
    }

    /// An encoder for one thread, to be given back.
    pub(crate) fn encoder(&self) -> Encoder {
        let spare = self.encoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| {
            Encoder::new(self.compression, self.self_check).with_delta_depth(self.delta_depth)
        })
    }

    pub(crate) fn give_back(&self, encoder: Encoder) {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
    }

    pub(crate) fn give_back_buffer(&self, buffer: Vec<u8>) {
        self.buffers.give_back(buffer);
    }

    fn judge_block(
        &self,
        number: u64,
        bytes: &[u8],
        batch: &Batch,
        encoder: &mut Encoder,
        repeats: &mut Option<Repeats<'_>>,
    ) -> aiv_image_format::Result<Block> {
        let here = blocks_extent(&self.geometry, number, 1);
        let damaged = batch.unreadable.iter().any(|u| u.intersect(here).is_some());
        if damaged {
            if is_fill(bytes) {
                return Ok(Block::Lost);
            }
            return encoder.encode(bytes, hash::leaf(bytes)).map(Block::Damaged);
        }
        if is_zero(bytes) {
            return Ok(Block::Zero);
        }
        let leaf = hash::leaf(bytes);
        if let Some(stored) = self.seen.stored(&leaf) {
            // Others may not see that one yet: what is found for later blocks must be the same.
            if let Some(repeats) = repeats.as_mut().filter(|repeats| !repeats.is_settled(stored)) {
                repeats.find(bytes, &self.pages.pages_of(bytes));
            }
            return Ok(Block::Seen(leaf));
        }
        self.encode(bytes, leaf, encoder, repeats)
    }

    /// The search for what the blocks of one piece of work repeat, where that is wanted.
    pub(crate) fn repeats<'w>(
        &'w self,
        capture: Capture<'w>,
        first: BlockIndex,
    ) -> Option<Repeats<'w>> {
        self.finds_repeats.then(|| Repeats::new(capture, self, first))
    }

    /// Whether blocks are compared with earlier ones of the image: then both tables must have got
    /// as far for every thread.
    pub(crate) fn finds_repeats(&self) -> bool {
        self.finds_repeats
    }

    /// Remembers the pages of a block that the image has whole.
    pub(crate) fn remember_pages(&self, block: BlockIndex, bytes: &[u8]) {
        if self.finds_repeats {
            self.pages.remember(block, &self.pages.pages_of(bytes));
        }
    }

    /// A block that is nowhere else: as a difference to blocks of this image, or whole.
    pub(crate) fn encode(
        &self,
        bytes: &[u8],
        leaf: Digest,
        encoder: &mut Encoder,
        repeats: &mut Option<Repeats<'_>>,
    ) -> aiv_image_format::Result<Block> {
        let Some(repeats) = repeats else {
            return encoder.encode(bytes, leaf).map(|block| Block::New(block, Vec::new()));
        };
        let pages = self.pages.pages_of(bytes);
        let encoded = encoder.encode_local(bytes, leaf, &repeats.find(bytes, &pages))?;
        Ok(Block::New(encoded, pages))
    }
}

/// Replaces every byte that does not matter by zero, so that free space neither changes hashes
/// nor leaks into the image.
pub(crate) fn mask(batch: &mut Batch, geometry: Geometry) {
    let start = geometry.offset_of(batch.first);
    let mut at = 0;
    for keep in &batch.keep {
        batch.bytes[at..in_memory(keep.start - start)].fill(0);
        at = in_memory(keep.end() - start);
    }
    batch.bytes[at..].fill(0);
}

/// Whether all bytes are zero; sixteen at a time, which the compiler turns into vector code.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|c| u128::from_ne_bytes(*c) == 0) && rest.iter().all(|&b| b == 0)
}

/// Whether nothing of a block could be read.
pub(crate) fn is_fill(bytes: &[u8]) -> bool {
    bytes.iter().zip(hash::FILL_PATTERN.iter().cycle()).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_parts_never_hold_large_buffers() {
        let buffers = Buffers { whole: 1000, spare: Mutex::default() };
        let large = buffers.take(501);
        buffers.give_back(large);
        let parts: Vec<Vec<u8>> = (0..100).map(|_| buffers.take(10)).collect();
        assert!(parts.iter().all(|part| part.len() == 10 && part.capacity() < 100));
        parts.into_iter().for_each(|part| buffers.give_back(part));
        let again = buffers.take(1000);
        assert_eq!((again.len(), again.capacity()), (1000, 1000));
        assert_eq!(buffers.spare.lock().expect("not poisoned").len(), 0);
    }
}
