//! Blocks of this image seen before, by their hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock};

use aiv_image_format::{BlockIndex, BlockPlace, Digest};

/// Blocks remembered: 57 GiB of different 64 KiB blocks in about 60 MiB of memory. When the
/// table is full, later blocks are no longer remembered, and nothing else changes: forgetting
/// old ones instead would make the image depend on the timing of threads.
pub(crate) const ENTRIES_MAX: usize = 900_000;

/// The key is a hash already.
#[derive(Default)]
struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0, |word, &b| word << 8 | u64::from(b));
            self.0 = self.0.rotate_left(5) ^ word;
        }
    }
}

/// A block that is stored whole.
#[derive(Clone, Copy)]
struct Seen {
    place: BlockPlace,
    block: BlockIndex,
}

#[derive(Default)]
pub(crate) struct SeenBlocks {
    places: RwLock<HashMap<[u8; 32], Seen, BuildHasherDefault<PassThrough>>>,
}

impl SeenBlocks {
    pub(crate) fn find(&self, leaf: &Digest) -> Option<BlockPlace> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&leaf.0).map(|seen| seen.place)
    }

    /// The block that is stored whole with this leaf.
    pub(crate) fn stored(&self, leaf: &Digest) -> Option<BlockIndex> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&leaf.0).map(|seen| seen.block)
    }

    /// Remembers that `block` is stored whole in `place`. Says whether the table has the leaf now.
    pub(crate) fn remember(&self, leaf: Digest, place: BlockPlace, block: BlockIndex) -> bool {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= ENTRIES_MAX {
            return places.contains_key(&leaf.0);
        }
        places.entry(leaf.0).or_insert(Seen { place, block });
        true
    }
}
