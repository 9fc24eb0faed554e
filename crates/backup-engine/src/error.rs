use std::io;

use aiv_volume_io::Canceled;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source failed in a way that has nothing to do with single sectors.
    #[error("reading the source failed at byte {offset}")]
    Source {
        /// Byte offset in the source.
        offset: u64,
        /// The error of the medium.
        source: io::Error,
    },
    /// The source lost bytes while it was read.
    #[error("the source ended at byte {offset}, it had {len} bytes when the backup began")]
    SourceShrank {
        /// Where reading met the end.
        offset: u64,
        /// Bytes it had.
        len: u64,
    },
    /// What should have kept the source from changing did not; nothing was published.
    #[error("the source was not kept from changing while it was read")]
    NotHeld(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The partition table or a filesystem could not be examined.
    #[error("examining the source failed")]
    Examine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The destination refused or failed; nothing was published.
    #[error("{op} failed")]
    Destination {
        /// What was being done, as a verb phrase.
        op: String,
        /// The error of the storage.
        source: io::Error,
    },
    /// The image could not be written or did not read back as written; nothing was published.
    #[error("writing {image} failed")]
    Image {
        /// Name of the image.
        image: String,
        /// What the format layer says.
        source: aiv_image_format::Error,
    },
    /// The new image was read back and is damaged; it was not published.
    #[error("the new image {image} did not read back as it was written: {what}")]
    ReadBack {
        /// Name of the image.
        image: String,
        /// The first damage.
        what: String,
    },
    /// Another backup of the same source into the same folder is running.
    #[error("another backup of {source_id} into this folder is running")]
    Busy {
        /// Identity of the source.
        source_id: String,
    },
    /// The parent's state turned out to be unusable: one of the files that provide it is damaged.
    /// [`crate::BackupPlan::apply`] goes on with an older point instead of returning this.
    #[error("the point the increment builds on cannot be used")]
    Parent(#[source] aiv_image_format::Error),
    /// The word of a change tracker was taken and cannot be. [`crate::BackupPlan::apply`] goes on
    /// without it instead of returning this.
    #[error("a hint about what changed cannot be used")]
    Hint(#[from] HintFailure),
    /// The folder could not be searched for earlier points.
    #[error("looking through the destination folder failed")]
    Folder(#[source] aiv_chain::Error),
    /// Going on would not be safe.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The backup was stopped, or lost its source, when a good part of it was stored. Nothing was
    /// published; the temporary file stays, and the next backup of this source goes on from
    /// there.
    #[error(
        "the backup was interrupted at byte {at} of the source; the next one goes on from there"
    )]
    Interrupted {
        /// Bytes of the source that were decided: everything up to here.
        at: u64,
        /// What ended it: [`Error::Canceled`] or [`Error::Source`].
        source: Box<Self>,
    },
    /// The caller asked to stop; nothing was published.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

impl Error {
    /// What the format layer says about the new image `name`. What it says about the parent is
    /// no fault of the new image: an older point may do.
    pub(crate) fn of_image(name: &str, source: aiv_image_format::Error) -> Self {
        match source {
            aiv_image_format::Error::Canceled(canceled) => canceled.into(),
            source @ aiv_image_format::Error::Parent { .. } => Self::Parent(source),
            source => Self::Image { image: name.to_owned(), source },
        }
    }
}

/// Why a hint about what changed cannot be used after all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HintFailure {
    /// A change was not marked.
    #[error("the change at byte {offset} was not marked")]
    Lied {
        /// Where.
        offset: u64,
    },
    /// The marks cannot be read.
    #[error("the marks cannot be read")]
    Marks(#[source] io::Error),
}

/// Why a backup was refused before it began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Blocks could change while they are read.
    #[error("the source is in use and could change while it is read: {uses}")]
    InUse {
        /// Who uses it, in words.
        uses: String,
    },
    /// There is nothing to back up.
    #[error("the source has no bytes")]
    Empty,
    /// Every sector was asked for, and files to leave out.
    #[error("all sectors were asked for, and files to exclude: it is one or the other")]
    ExcludeFromAll,
    /// The image may need more segments than an image may have, or end with a segment that is
    /// larger than was asked for.
    #[error(
        "an image of up to {bytes} bytes cannot be split into files of {split} bytes: files of \
         {needed} bytes or more are needed"
    )]
    SplitSize {
        /// Bytes that matter: what the image may need.
        bytes: u64,
        /// Bytes of a file that were asked for.
        split: u64,
        /// Bytes that would do.
        needed: u64,
    },
    /// The newest point of the source is sealed or authenticated, and the new one would not be.
    #[error("the newest point of the source has a key, and the new one would have none")]
    WithoutKey,
    /// Images of a source are sealed, or authenticated: increments are what their chain is.
    #[error("the newest point of the source is protected in another way than was asked for")]
    OtherMode,
    /// What was given does not open the newest point of the source.
    #[error("the newest point of the source has another key than the ones that were opened")]
    OtherKey,
    /// The image that a new one would build on carries no slots to give on.
    #[error("the image that the new one would build on has no sound key slots")]
    NoSlots,
    /// The chosen block size does not fit a disk of this size.
    #[error("a disk of {len} bytes does not fit into blocks of {block_size} bytes")]
    BlockSize {
        /// Bytes of the source.
        len: u64,
        /// Bytes per block.
        block_size: u32,
    },
}
