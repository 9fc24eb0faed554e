/// Why the used blocks of an F2FS filesystem cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum F2fsReason {
    /// The volume is too short for a superblock, or has none.
    #[error("there is no superblock at byte 1024")]
    NoSuperblock,
    /// The two superblocks are not equal.
    #[error("the two superblocks differ")]
    SuperblocksDiffer,
    /// Features that may change where used blocks are recorded.
    #[error("unsupported feature bits {bits:#x}")]
    Features {
        /// The bits that are unknown, or known to be a hindrance.
        bits: u32,
    },
    /// The filesystem spans several devices.
    #[error("the filesystem spans several devices")]
    SeveralDevices,
    /// A field out of its range.
    #[error("{section} field {field} is {found}, allowed is {allowed}")]
    Field {
        /// The record.
        section: &'static str,
        /// Name in the kernel's header.
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
    /// Neither of the two checkpoints is whole.
    #[error("there is no valid checkpoint")]
    NoCheckpoint,
    /// The newest checkpoint was not written by an unmount: later writes may have to be
    /// recovered from blocks that it calls free.
    #[error("the filesystem was not unmounted (checkpoint flags {flags:#x})")]
    NotClean {
        /// `ckpt_flags`.
        flags: u32,
    },
    /// A segment's count of used blocks, or its type, contradicts its bitmap.
    #[error("segment {segment}: {what}")]
    Segment {
        /// Number in the main area.
        segment: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A node lies where no block is used.
    #[error("node {node} lies at block {block}, which is {what}")]
    Node {
        /// Its number.
        node: u64,
        /// Block of the volume.
        block: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The checkpoint and the tables disagree about a number.
    #[error("{field} is {checkpoint} by the checkpoint, {tables} by the tables")]
    Count {
        /// Name of the field of the checkpoint.
        field: &'static str,
        /// By the checkpoint.
        checkpoint: u64,
        /// By the tables.
        tables: u64,
    },
    /// A journal of the checkpoint makes no sense.
    #[error("the {journal} journal of the checkpoint is damaged: {what}")]
    Journal {
        /// Which one.
        journal: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}
