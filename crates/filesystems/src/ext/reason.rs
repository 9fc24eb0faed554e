use std::fmt;

/// Why the used blocks of an ext filesystem cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtReason {
    /// The volume ends before the superblock does, or there is no superblock.
    #[error("there is no superblock at byte 1024")]
    NoSuperblock,
    /// Features that may change what a bitmap means.
    #[error("unknown {class} feature bits {bits:#x}")]
    UnknownFeatures {
        /// Which of the three sets.
        class: FeatureClass,
        /// The unknown bits.
        bits: u32,
    },
    /// A superblock field out of its range.
    #[error("superblock field {field} is {found}, allowed is {allowed}")]
    Field {
        /// Name in the specification.
        field: &'static str,
        /// Value on the volume.
        found: u64,
        /// Allowed values, in words.
        allowed: String,
    },
    /// The filesystem claims more than there is.
    #[error("the filesystem has {filesystem} bytes, the volume only {volume}")]
    LargerThanVolume {
        /// Bytes the filesystem claims.
        filesystem: u64,
        /// Bytes of the volume.
        volume: u64,
    },
    /// A checksum that does not match its record.
    #[error("checksum of the {section} at byte {offset} is wrong")]
    Checksum {
        /// The record.
        section: &'static str,
        /// Byte offset in the volume.
        offset: u64,
    },
    /// Errors were recorded, or a filesystem without a journal was not unmounted.
    #[error("the filesystem is not clean (state {state:#x}); run e2fsck")]
    NotClean {
        /// `s_state`; 1 is clean.
        state: u16,
    },
    /// A group descriptor points outside the filesystem.
    #[error("{section} of group {group} is at block {block}, outside the filesystem")]
    Pointer {
        /// What is pointed to.
        section: &'static str,
        /// The group.
        group: u32,
        /// The block.
        block: u64,
    },
    /// Bitmaps or inode tables of groups share blocks.
    #[error("bitmaps or inode tables of different groups share blocks")]
    MetadataOverlap,
    /// A group's bitmap calls a bitmap or inode table free.
    #[error("the block bitmap of group {group} calls bitmaps or inode tables free")]
    MetadataFree {
        /// The group whose bitmap is wrong.
        group: u32,
    },
    /// Descriptor and bitmap of a group disagree.
    #[error(
        "group {group} has {descriptor} free clusters by its descriptor, {bitmap} by its bitmap"
    )]
    FreeCount {
        /// The group.
        group: u32,
        /// Free clusters by the descriptor.
        descriptor: u32,
        /// Free clusters by the bitmap.
        bitmap: u32,
    },
    /// Bits beyond the end of the filesystem are clear.
    #[error("the block bitmap of group {group} calls blocks beyond the end free")]
    Padding {
        /// The last group.
        group: u32,
    },
    /// The journal has to be replayed and cannot be.
    #[error("the journal waits to be replayed and {0}")]
    Journal(JournalReason),
}

/// Why a journal cannot be taken into account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalReason {
    /// The journal is on another device.
    #[error("is on another device")]
    External,
    /// Fast commits change the filesystem without naming blocks.
    #[error("may hold fast commits")]
    FastCommits,
    /// Journal features that are not understood.
    #[error("has unknown {class} feature bits {bits:#x}")]
    UnknownFeatures {
        /// Which of the three sets.
        class: FeatureClass,
        /// The unknown bits.
        bits: u32,
    },
    /// The kernel gave the journal up after an error.
    #[error("was aborted with error {errno}")]
    Aborted {
        /// The error the kernel recorded.
        errno: i32,
    },
    /// A record of the journal contradicts itself.
    #[error("is damaged: {what} at block {block} of the journal")]
    Damaged {
        /// The record and its fault.
        what: &'static str,
        /// Block of the journal (not of the filesystem).
        block: u64,
    },
    /// The journal's inode or its block map is damaged.
    #[error("cannot be found: {what}")]
    Inode {
        /// What is wrong.
        what: &'static str,
    },
    /// The journal changes where the filesystem keeps its records (it was being resized).
    #[error("changes the geometry of the filesystem")]
    GeometryChanged,
}

/// The three sets of feature bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureClass {
    /// Who does not know a bit may still write.
    Compat,
    /// Who does not know a bit may only read.
    RoCompat,
    /// Who does not know a bit must keep off.
    Incompat,
}

impl fmt::Display for FeatureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compat => "compatible",
            Self::RoCompat => "read-only compatible",
            Self::Incompat => "incompatible",
        })
    }
}
