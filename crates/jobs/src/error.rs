use std::io;
use std::path::PathBuf;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source, or what the kernel tells about it, cannot be read.
    #[error(transparent)]
    Volume(#[from] aiv_volume_io::Error),
    /// The backup itself failed.
    #[error(transparent)]
    Backup(#[from] aiv_backup_engine::Error),
    /// The folder for the images cannot be opened.
    #[error("cannot open the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Random bytes for new ids are missing.
    #[error("no random numbers")]
    Random(#[source] io::Error),
    /// Going on would not be safe, or would not mean anything; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// Whether the caller's stop button ended it.
    #[must_use]
    pub const fn is_canceled(&self) -> bool {
        use aiv_backup_engine::Error as Backup;
        use aiv_volume_io::Error as Volume;
        matches!(self, Self::Volume(Volume::Canceled(_)) | Self::Backup(Backup::Canceled(_)))
    }
}

/// Why a job was refused before it began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Name and identity were given for several sources at once.
    #[error("--name and --source-id are for a single source")]
    OneNameForMany,
    /// Images would be written onto what they are made of.
    #[error("the folder for the images lies on the source itself")]
    DestinationOnSource,
}
