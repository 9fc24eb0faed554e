//! Finds blocks of the parent's state by their hash: what a file system moved is stored once.

use aiv_chain::{Result, View};
use aiv_image_format::{BlockIndex, Digest};
use aiv_volume_io::Job;

/// Entries of the table: 32 MiB, every block of 128 GiB of data in blocks of 64 KiB.
const ENTRIES_MAX: usize = 2 << 20;

/// Blocks tried for one leaf: those with one beginning are the same bytes, or a coincidence.
const TRIED_MAX: usize = 4;

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
    /// Looks through the whole index of the chain.
    pub(crate) fn of(view: &View, job: Job<'_>) -> Result<Self> {
        Self::with_at_most(view, ENTRIES_MAX, job)
    }

    fn with_at_most(view: &View, entries_max: usize, job: Job<'_>) -> Result<Self> {
        let mut moved = Self { entries: Vec::new(), mask: 0 };
        for stretch in view.stretches(0) {
            job.check()?;
            let stretch = stretch?;
            let Some(leaf) = stretch.leaf() else { continue };
            if moved.entries.len() >= entries_max {
                moved.thin(entries_max / 2);
            }
            if key(&leaf) & moved.mask == 0 {
                moved.entries.push((key(&leaf), stretch.block()));
            }
        }
        moved.entries.sort_unstable();
        moved.entries.shrink_to_fit();
        Ok(moved)
    }

    /// Leaves at most `most` entries: none nobody would try, and of the others those the mask
    /// lets through.
    fn thin(&mut self, most: usize) {
        self.entries.sort_unstable();
        let (mut before, mut alike) = (None, 0);
        self.entries.retain(|(key, _)| {
            alike = if before == Some(*key) { alike + 1 } else { 0 };
            before = Some(*key);
            alike < TRIED_MAX
        });
        // A few blocks of one key are left at the latest when the mask is all ones.
        while self.entries.len() > most && self.mask != u64::MAX {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.entries.retain(|(key, _)| key & mask == 0);
        }
    }

    /// Blocks that may have this leaf, a few at most, ascending.
    pub(crate) fn candidates(&self, leaf: &Digest) -> impl Iterator<Item = BlockIndex> + '_ {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::tests::image_of;
    use aiv_testkit::disks::Content;

    const BLOCK: usize = 16 << 10;
    const MOST: usize = 16;

    fn table(bytes: Vec<u8>) -> (View, Moved) {
        let view = image_of(bytes);
        let moved = Moved::with_at_most(&view, MOST, Job::silent()).expect("a sound image");
        (view, moved)
    }

    #[test]
    fn of_too_many_blocks_some_are_found_and_none_is_taken_for_another() {
        let (view, moved) = table(Content::Random(1).bytes(200 * BLOCK));
        assert!((MOST / 4..=MOST).contains(&moved.entries.len()), "{}", moved.entries.len());
        let mut found = 0;
        for stretch in view.stretches(0) {
            let stretch = stretch.expect("a sound image");
            let leaf = stretch.leaf().expect("a stored block");
            let candidates: Vec<_> = moved.candidates(&leaf).collect();
            assert!(candidates.is_empty() || candidates == [stretch.block()], "{candidates:?}");
            found += candidates.len();
        }
        assert_eq!(found, moved.entries.len());
    }

    #[test]
    fn blocks_that_are_all_alike_do_not_outgrow_the_table() {
        // A disk somebody overwrote with one pattern. Whether the hash of it survives thinning
        // is chance, so there are several.
        for pattern in 1..9 {
            let (view, moved) = table(vec![pattern; 300 * BLOCK]);
            assert!(moved.entries.len() <= MOST, "{} entries", moved.entries.len());
            let first = view.stretches(0).next().expect("not empty").expect("a sound image");
            let candidates = moved.candidates(&first.leaf().expect("a stored block")).count();
            assert!(candidates <= TRIED_MAX);
        }
    }
}
