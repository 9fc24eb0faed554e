use std::collections::HashMap;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use crate::{Error, Result};

/// Bytes read in one go. Bitmaps of a flexible group and descriptors lie side by side.
pub(super) const STRIDE: usize = 1 << 20;

/// Where the journal keeps the newest committed contents of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalCopy {
    /// Byte offset in the volume.
    pub(super) offset: u64,
    /// The block began with the journal's own magic, which the log replaces by zeros.
    pub(super) escaped: bool,
}

/// The first bytes of every record of a journal.
pub(super) const JOURNAL_MAGIC: [u8; 4] = 0xc03b_3998_u32.to_be_bytes();

/// The blocks of a filesystem, as they are or as they will be once the journal is replayed.
pub(super) struct Blocks<'a> {
    volume: &'a dyn ReadAt,
    block_size: u32,
    newer: Arc<HashMap<u64, JournalCopy>>,
}

impl<'a> Blocks<'a> {
    pub(super) fn on_disk(volume: &'a dyn ReadAt, block_size: u32) -> Self {
        Self { volume, block_size, newer: Arc::default() }
    }

    pub(super) fn replayed(&self, newer: Arc<HashMap<u64, JournalCopy>>) -> Self {
        Self { volume: self.volume, block_size: self.block_size, newer }
    }

    pub(super) fn block_size(&self) -> usize {
        self.block_size as usize
    }

    pub(super) fn volume(&self) -> &'a dyn ReadAt {
        self.volume
    }

    pub(super) fn offset_of(&self, block: u64) -> u64 {
        block.saturating_mul(u64::from(self.block_size))
    }

    /// Fills `out` with a part of one block, from byte `at` of it on. The part was proven to lie
    /// inside the block, and the block inside the filesystem.
    pub(super) fn read_part(
        &self,
        op: &'static str,
        block: u64,
        at: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let copy = self.newer.get(&block);
        let start = copy.map_or_else(|| self.offset_of(block), |copy| copy.offset);
        let offset = start.saturating_add(at);
        self.volume.read_exact_at(out, offset).map_err(Error::io(op, offset))?;
        if copy.is_some_and(|copy| copy.escaped) {
            let lost = JOURNAL_MAGIC.into_iter().skip(usize::try_from(at).unwrap_or(usize::MAX));
            for (byte, magic) in out.iter_mut().zip(lost) {
                *byte = magic;
            }
        }
        Ok(())
    }

    /// Fills `out`, whole blocks and a last one that may be partial, from `first` on. The
    /// blocks were proven to lie inside the filesystem.
    pub(super) fn read(&self, op: &'static str, first: u64, out: &mut [u8]) -> Result<()> {
        let offset = self.offset_of(first);
        self.volume.read_exact_at(out, offset).map_err(Error::io(op, offset))?;
        if self.newer.is_empty() {
            return Ok(());
        }
        for (block, out) in (first..).zip(out.chunks_mut(self.block_size())) {
            let Some(copy) = self.newer.get(&block) else { continue };
            self.volume.read_exact_at(out, copy.offset).map_err(Error::io(op, copy.offset))?;
            if copy.escaped
                && let Some(magic) = out.first_chunk_mut()
            {
                *magic = JOURNAL_MAGIC;
            }
        }
        Ok(())
    }
}
