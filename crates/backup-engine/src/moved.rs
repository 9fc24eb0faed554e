//! Finds blocks of the parent's state by their hash: what a file system moved is stored once.

use aiv_chain::{Result, View};
use aiv_image_format::{BlockIndex, Digest};

/// Entries of the table: 32 MiB, every block of 128 GiB of data in blocks of 64 KiB.
const ENTRIES_MAX: usize = 2 << 20;

/// The blocks of a state by the beginning of their leaf. Of more than [`ENTRIES_MAX`] blocks
/// every second, fourth ... is kept, by its leaf: moved files are rows of blocks, and who found
/// one block of a row tries its neighbour first.
pub(crate) struct Moved {
    /// Beginning of the leaf, and the block; ascending.
    entries: Vec<(u64, BlockIndex)>,
    /// A leaf is kept when these bits of its key are zero.
    mask: u64,
}

impl Moved {
    pub(crate) fn of(view: &View) -> Result<Self> {
        Self::with_at_most(view, ENTRIES_MAX)
    }

    fn with_at_most(view: &View, entries_max: usize) -> Result<Self> {
        let mut entries: Vec<(u64, BlockIndex)> = Vec::new();
        let mut mask = 0;
        for stretch in view.stretches(0) {
            let stretch = stretch?;
            let Some(leaf) = stretch.leaf() else { continue };
            if key(&leaf) & mask != 0 {
                continue;
            }
            if entries.len() == entries_max {
                mask = mask << 1 | 1;
                entries.retain(|(key, _)| key & mask == 0);
                if key(&leaf) & mask != 0 {
                    continue;
                }
            }
            entries.push((key(&leaf), stretch.block()));
        }
        entries.sort_unstable();
        entries.shrink_to_fit();
        Ok(Self { entries, mask })
    }

    /// Blocks that may have this leaf, a few at most, ascending.
    pub(crate) fn candidates(&self, leaf: &Digest) -> impl Iterator<Item = BlockIndex> + '_ {
        /// Blocks with one beginning of a leaf are the same bytes, or a coincidence.
        const TRIED_MAX: usize = 4;
        let key = key(leaf);
        let first = self.entries.partition_point(|(k, _)| *k < key);
        let same = self.entries[first..].iter().take_while(move |(k, _)| *k == key);
        same.take(TRIED_MAX).map(|(_, block)| *block).filter(move |_| key & self.mask == 0)
    }
}

/// The first eight bytes of a leaf.
fn key(leaf: &Digest) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&leaf.0[..8]);
    u64::from_be_bytes(bytes)
}
