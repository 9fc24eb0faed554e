use std::{fmt, io};

use aiv_image_format::{Digest, Error as ImageError, PointId, SetId};
use aiv_volume_io::{Canceled, Storage};

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
    #[error("point {point} cannot be restored: {state}")]
    NotRestorable {
        /// The point.
        point: PointId,
        /// Why not.
        state: PointState,
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
    /// A point was named by its age, and nothing tells that of points which are locked: open them,
    /// or name a point by its id.
    #[error(
        "set {set} holds points that are sealed and were not opened: which is the newest cannot \
         be told"
    )]
    AgeUnknown {
        /// The set.
        set: SetId,
    },
    /// Somebody else writes, merges or copies images of the set in the folder: wait for them.
    #[error("images of set {set} are being written, merged or copied in this folder")]
    Busy {
        /// The set.
        set: SetId,
    },
    /// What is to be written may not fit: make room, or keep more points.
    #[error("{needed} bytes may be needed in {place} and {free} are free")]
    NoSpace {
        /// The folder or target.
        place: String,
        /// Bytes that may be needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The image may need more segments than an image may have, or a larger last one: ask for
    /// larger files. Nothing was written.
    #[error(
        "an image of up to {bytes} bytes cannot be split into files of {split} bytes: files of \
         {needed} bytes or more are needed"
    )]
    SplitSize {
        /// Bytes that may be written.
        bytes: u64,
        /// Bytes of a file that were asked for.
        split: u64,
        /// Bytes that would do.
        needed: u64,
    },
    /// What is to be moved is there already, locked and as another file: only the key tells whether
    /// it is the same. Nothing was removed.
    #[error(
        "the destination has point {point} already, as another file ({file}): without its key \
         nobody can tell whether that is the same"
    )]
    LockedThere {
        /// The point.
        point: PointId,
        /// The file in the destination.
        file: String,
    },
    /// The images are in the destination, and their newest key slots are not: what opens them
    /// here may not open them there. Nothing was removed.
    #[error("no image in the destination has the newest key slots of key {key}")]
    SlotsBehind {
        /// Stands for the key.
        key: Digest,
    },
    /// A salvaged image without a key would lie beside images of its set that have one: salvage it
    /// into another folder, or keep the key.
    #[error("an image without a key would lie beside {file}, which is of the same set and has one")]
    PlainBesideKeyed {
        /// An image with a key in the folder.
        file: String,
    },
    /// A file does not read back as it was written: it was given up.
    #[error("{file} does not read back as it was written: {what}")]
    ReadBack {
        /// Name of the file under which it was to be published.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The folder is no longer what the plan was made for: make another.
    #[error("the folder has changed since the plan was made: {what}")]
    Changed {
        /// What is no longer so.
        what: String,
    },
    /// A file of the folder may need what was to be removed, and nobody can tell.
    #[error("{file} may need what is to be removed: {why}")]
    InDoubt {
        /// Name of the file.
        file: String,
        /// Why it cannot be told.
        why: String,
    },
    /// A point that was to be moved away is needed by one that stays: move that one, too, or
    /// copy.
    #[error("point {by} stays, and builds on point {point}")]
    Needed {
        /// The point that was to be moved.
        point: PointId,
        /// One that builds on it.
        by: PointId,
    },
    /// Files that are to be salvaged together are not images of one chain.
    #[error("the files are not images that build on each other: {what}")]
    NoChain {
        /// What is wrong.
        what: String,
    },
    /// Source and destination of a move are one folder, or one lies in the other.
    #[error("the destination shows files of the folder that is to be moved from")]
    SameFolder,
    /// A key does not fit, or its slots cannot be changed as asked.
    #[error(transparent)]
    Key(#[from] aiv_keys::Error),
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

impl Error {
    /// What went wrong with an image file.
    pub(crate) fn in_file(file: &str, source: ImageError) -> Self {
        match source {
            ImageError::Canceled(canceled) => canceled.into(),
            source => Self::Image { file: file.to_owned(), source },
        }
    }

    /// What is to be written to `storage` may not fit.
    pub(crate) fn no_space(storage: &dyn Storage, needed: u64, free: u64) -> Self {
        let path = storage.place().map(|path| path.display().to_string());
        Self::NoSpace { place: path.unwrap_or_else(|| "the folder".to_owned()), needed, free }
    }

    /// What went wrong while `op` was being done to the storage.
    pub(crate) fn io(op: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let op = op.into();
        move |source| Self::Io { op, source }
    }
}

/// What is wrong with the chain, as the end of a sentence.
impl fmt::Display for PointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingParent { point } => {
                write!(f, "it builds on point {point}, which no file provides")
            }
            Self::ParentDiffers { point } => write!(
                f,
                "it builds on point {point}, and the file that provides it holds another state"
            ),
            Self::Circular => f.write_str("its images name each other as parents"),
            Self::TooLong => write!(f, "it needs more than {} images", crate::CHAIN_MAX),
            Self::Restorable => f.write_str("its files changed meanwhile"),
            Self::Locked { key } => {
                let key: String = key.0[..4].iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "it is locked: this needs the key of its image, {key}...")
            }
            Self::Damaged(damage) => {
                let damage: Vec<String> = damage.iter().map(ToString::to_string).collect();
                f.write_str(&damage.join("; "))
            }
        }
    }
}
