use aiv_filesystems::FilesystemKind;
use aiv_volume_io::Canceled;

use crate::path::{Path, PathError};

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk cannot be read: verify the image.
    #[error("the partition table cannot be read")]
    Disk(#[source] aiv_volume_io::Error),
    /// A filesystem cannot be opened, or does not give out what was asked for.
    #[error("cannot read {path}")]
    Filesystem {
        /// The volume or file.
        path: Path,
        /// Why.
        source: aiv_filesystems::Error,
    },
    /// What is on the volume has no files, or none that can be read.
    #[error("volume {volume} holds {kind}: {why}")]
    NoFiles {
        /// Name of the volume.
        volume: String,
        /// What is on it.
        kind: FilesystemKind,
        /// Why its files cannot be read, as the rest of a sentence.
        why: String,
    },
    /// There may be files on the volume, and nobody here can read them.
    #[error("volume {volume} ({kind}) is not opened: {why}")]
    NotOpened {
        /// Name of the volume.
        volume: String,
        /// What is on it.
        kind: FilesystemKind,
        /// Why it is not opened, as the rest of a sentence.
        why: String,
    },
    /// The volume is encrypted, and nothing that was given opens it: give its passphrase or key file.
    #[error("volume {volume} ({kind}) is not opened: {why}")]
    Locked {
        /// Name of the volume.
        volume: String,
        /// What is on it.
        kind: FilesystemKind,
        /// Whether anything was given.
        tried: bool,
        /// The same as the rest of a sentence.
        why: String,
    },
    /// The path does not say what was meant.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No volume has this name, or label.
    #[error("there is no volume {wanted}: there {}", there_are(existing))]
    NoVolume {
        /// What was asked for.
        wanted: String,
        /// Names of all volumes.
        existing: Vec<String>,
    },
    /// The label stands for several volumes: use their numbers.
    #[error("several volumes have the label {label}: {}", volumes.join(", "))]
    Ambiguous {
        /// The label.
        label: String,
        /// Their names.
        volumes: Vec<String>,
    },
    /// There is no such file.
    #[error("there is no {path}")]
    NotFound {
        /// The first part of the path that does not exist.
        path: Path,
    },
    /// Something on the way is no folder.
    #[error("{path} is no folder")]
    NotAFolder {
        /// It.
        path: Path,
    },
    /// Symbolic links lead to each other, or out of the volume.
    #[error("{path} is a symbolic link that leads nowhere")]
    LinkNowhere {
        /// The link.
        path: Path,
    },
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

impl Error {
    pub(crate) fn of(path: &Path, source: aiv_filesystems::Error) -> Self {
        match source {
            aiv_filesystems::Error::Canceled(canceled) => Self::Canceled(canceled),
            source => Self::Filesystem { path: path.clone(), source },
        }
    }
}

fn there_are(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        [one] => format!("is only {one}"),
        names => format!("are {}", names.join(", ")),
    }
}
