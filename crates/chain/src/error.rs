use std::io;

use aiv_volume_io::Canceled;

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
