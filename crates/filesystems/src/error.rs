use std::io;

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What ended a call early. The content of a volume never does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The medium failed: retry, or copy the whole volume without a map.
    #[error("{op} failed at byte {offset}")]
    Io {
        /// What was being done, as a verb phrase: `"read block bitmap"`.
        op: &'static str,
        /// Byte offset in the volume.
        offset: u64,
        /// The error of the medium.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] aiv_volume_io::Canceled),
}

impl Error {
    pub(crate) fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, offset, source }
    }
}
