/// Why the used blocks of an XFS filesystem cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XfsReason {
    /// The volume is too short for a superblock, or does not begin with one.
    #[error("there is no superblock at byte 0")]
    NoSuperblock,
    /// Neither version 4 nor 5.
    #[error("format version {found}, known are 4 and 5")]
    Version {
        /// Version on the volume.
        found: u16,
    },
    /// Features that may change where free space is recorded.
    #[error("unknown feature bits {bits:#x} in {field}")]
    UnknownFeatures {
        /// The set, by the name of its superblock field.
        field: &'static str,
        /// The unknown bits.
        bits: u32,
    },
    /// `xfs_repair` was interrupted, or asked for by the administrator.
    #[error("the filesystem is marked as needing xfs_repair")]
    NeedsRepair,
    /// `mkfs.xfs` or `xfs_copy` did not finish.
    #[error("the filesystem was never finished")]
    InProgress,
    /// The log lies on another device, where its state cannot be seen.
    #[error("the log is on another device")]
    ExternalLog,
    /// Files lie on a second device.
    #[error("the filesystem has a realtime device")]
    Realtime,
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
    /// Changes may wait in the log.
    #[error("the log is dirty: {0}")]
    LogDirty(LogState),
    /// A header of an allocation group contradicts itself or its place.
    #[error("{section} of allocation group {group}: {field} is {found}, expected {expected}")]
    Header {
        /// The header.
        section: &'static str,
        /// The allocation group.
        group: u32,
        /// Name of the field in the specification.
        field: &'static str,
        /// Value on the volume.
        found: u64,
        /// What it has to be, in words.
        expected: String,
    },
    /// A block of a B+tree contradicts itself, its place or its neighbours.
    #[error("{tree} tree of allocation group {group}, block {block}: {what}")]
    Tree {
        /// Which tree.
        tree: &'static str,
        /// The allocation group.
        group: u32,
        /// Block in the group.
        block: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// More free extents, or tree blocks, than a map is made of.
    #[error("allocation group {group} has more than {allowed} free extents or tree blocks")]
    TooMany {
        /// The allocation group.
        group: u32,
        /// The limit.
        allowed: usize,
    },
    /// The two free-space trees do not name the same extents.
    #[error("the free-space trees of allocation group {group} disagree")]
    TreesDisagree {
        /// The allocation group.
        group: u32,
    },
    /// A group's header and its tree disagree about a number.
    #[error("allocation group {group}: {field} is {header}, {tree} by its trees")]
    Count {
        /// The allocation group.
        group: u32,
        /// Name of the field in the specification.
        field: &'static str,
        /// By the header.
        header: u64,
        /// By the trees.
        tree: u64,
    },
    /// Blocks in use are called free, or used twice.
    #[error("block {block} of allocation group {group} is {what}")]
    Metadata {
        /// The allocation group.
        group: u32,
        /// Block in the group.
        block: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Superblock and groups disagree, which a clean filesystem's never do.
    #[error("{superblock} blocks are free by the superblock, {groups} by the allocation groups")]
    GlobalCount {
        /// `sb_fdblocks`.
        superblock: u64,
        /// The sum over all groups.
        groups: u64,
    },
}

/// What is seen instead of a log that ends in an unmount record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogState {
    /// The newest record is not an unmount record, and a replay would write more than the
    /// superblock: the usual sight of a mounted filesystem, and after a crash.
    #[error("the filesystem was not unmounted")]
    NotUnmounted,
    /// The blocks of the log do not carry two successive cycle numbers, older after newer:
    /// writes are missing.
    #[error("cycle numbers are broken at block {block} of the log")]
    Cycles {
        /// Block of 512 bytes in the log.
        block: u32,
    },
    /// There is no record in front of the end.
    #[error("there is no record before its end at block {head}")]
    NoRecord {
        /// Block of 512 bytes in the log.
        head: u32,
    },
    /// The last record is damaged.
    #[error("the record at block {block} is damaged: {what}")]
    Damaged {
        /// Block of 512 bytes in the log.
        block: u32,
        /// What is wrong.
        what: &'static str,
    },
}
