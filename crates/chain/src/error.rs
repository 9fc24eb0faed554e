use std::io;

use aiv_image_format::{BlockIndex, PointId};
use aiv_volume_io::Canceled;

use crate::folder::PointState;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage refused or failed: retry, or look at the storage.
    #[error("{op} failed")]
    Io {
        /// What was being done, as a verb phrase with the file's name.
        op: String,
        /// The error of the storage.
        source: io::Error,
    },
    /// A file or folder that was named cannot be reached.
    #[error(transparent)]
    File(aiv_volume_io::Error),
    /// An image cannot be used.
    #[error("{file}")]
    Image {
        /// Name of the file in its folder.
        file: String,
        /// Why not.
        source: aiv_image_format::Error,
    },
    /// A recovery point that cannot be read, because its chain is not whole.
    #[error("point {point} cannot be restored: {}", broken(state))]
    NotRestorable {
        /// The point.
        point: PointId,
        /// Why not.
        state: PointState,
    },
    /// An image leaves a block to its parent that the parent's state does not have.
    #[error("{file} leaves block {block} to a parent that does not have it")]
    Uncovered {
        /// Name of the file in its folder.
        file: String,
        /// Number of the block.
        block: BlockIndex,
    },
    /// No recovery point matches what was asked for.
    #[error("no recovery point matches {wanted:?}")]
    NoSuchPoint {
        /// What was asked for.
        wanted: String,
    },
    /// Several recovery points, or several sets, match what was asked for.
    #[error("{wanted:?} matches several: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it could mean.
        candidates: Vec<String>,
    },
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

/// Why a chain is not whole, as the end of a sentence.
fn broken(state: &PointState) -> String {
    match state {
        PointState::MissingParent { point } => {
            format!("it builds on point {point}, which no file provides")
        }
        PointState::ParentDiffers { point } => {
            format!("it builds on point {point}, and the file that provides it holds another state")
        }
        PointState::Circular => "its images name each other as parents".to_owned(),
        PointState::TooLong => format!("it needs more than {} images", crate::CHAIN_MAX),
        PointState::Restorable | PointState::Damaged(_) => "its files changed meanwhile".to_owned(),
    }
}
