//! The state a backup compares a source with.

use std::sync::{Mutex, OnceLock, PoisonError};

use aiv_chain::{Error as ChainError, Stretch, View};
use aiv_image_format::{BlockIndex, Digest, Error as ImageError, Geometry};

use crate::moved::Moved;

type ImageResult<T> = std::result::Result<T, ImageError>;

/// The parent's state, and what the workers learn about it.
pub(crate) struct Parent {
    pub view: View,
    /// Blocks, from the first on, that exist in both with the same length: only these can be
    /// inherited.
    shared: u64,
    /// Whether changed blocks may be stored as differences.
    pub deltas: bool,
    moved: OnceLock<Moved>,
    /// The first damage met in the parent's blocks. The backup goes on without them.
    damage: Mutex<Option<ChainError>>,
}

impl Parent {
    pub(crate) fn new(view: View, geometry: &Geometry, deltas: bool) -> Self {
        let old = view.geometry().len();
        let shared = if old == geometry.len() {
            geometry.blocks()
        } else {
            old.min(geometry.len()) / u64::from(geometry.block_size().get())
        };
        Self { view, shared, deltas, moved: OnceLock::new(), damage: Mutex::default() }
    }

    /// First block that cannot be inherited.
    pub(crate) fn shared(&self) -> BlockIndex {
        self.shared
    }

    /// What the parent says about the blocks `first .. end`, in order; blocks that cannot be
    /// inherited are left out.
    pub(crate) fn stretches(
        &self,
        first: BlockIndex,
        end: BlockIndex,
    ) -> ImageResult<Vec<Stretch>> {
        let end = end.min(self.shared);
        let mut found = Vec::new();
        if first < end {
            for stretch in self.view.stretches(first) {
                let stretch = stretch.map_err(as_parent)?;
                let last = stretch.block().saturating_add(stretch.run()) >= end;
                found.push(stretch);
                if last {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Another block of the parent with the bytes of this leaf and this length, `guess` first.
    pub(crate) fn find_moved(
        &self,
        leaf: &Digest,
        len: u32,
        guess: Option<BlockIndex>,
    ) -> ImageResult<Option<BlockIndex>> {
        let is_it = |block: BlockIndex| -> ImageResult<bool> {
            if self.view.geometry().block_len(block) != len {
                return Ok(false);
            }
            let stretch = self.view.stretches(block).next().transpose().map_err(as_parent)?;
            Ok(stretch.is_some_and(|s| s.leaf() == Some(*leaf)))
        };
        if let Some(block) = guess
            && is_it(block)?
        {
            return Ok(guess);
        }
        let moved = match self.moved.get() {
            Some(moved) => moved,
            // Two threads may build it at once; one of them wins, and both are right.
            None => {
                let made = Moved::of(&self.view).map_err(as_parent)?;
                self.moved.get_or_init(|| made)
            }
        };
        for block in moved.candidates(leaf) {
            if is_it(block)? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Remembers damage of the parent that the backup works around.
    pub(crate) fn note_damage(&self, error: ChainError) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The first damage met.
    pub(crate) fn into_damage(self) -> Option<ChainError> {
        self.damage.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error of a file of the parent's chain.
pub(crate) fn as_parent(error: ChainError) -> ImageError {
    match error {
        ChainError::Image { file, source } => ImageError::Parent { file, source: Box::new(source) },
        ChainError::Canceled(canceled) => canceled.into(),
        _ => ImageError::Misuse("a parent that cannot be read"),
    }
}
