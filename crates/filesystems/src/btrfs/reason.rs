/// Why the used blocks of a Btrfs filesystem cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BtrfsReason {
    /// The volume is too short for a superblock, or has none in its place.
    #[error("there is no superblock at byte 65536")]
    NoSuperblock,
    /// A checksum that is none of CRC-32C, xxHash64, SHA-256 and BLAKE2b.
    #[error("checksum type {found}, known are 0 to 3")]
    ChecksumType {
        /// `csum_type` of the superblock.
        found: u16,
    },
    /// A checksum that does not match its record, in all its copies.
    #[error("checksum of the {section} at byte {offset} is wrong")]
    Checksum {
        /// The record.
        section: &'static str,
        /// Byte offset in the volume.
        offset: u64,
    },
    /// Features that may change where space is recorded.
    #[error("unknown feature bits {bits:#x} in {field}")]
    UnknownFeatures {
        /// The set, by the name of its superblock field.
        field: &'static str,
        /// The unknown bits.
        bits: u64,
    },
    /// A feature that is known, and changes where space is recorded.
    #[error("the feature {name} is not supported")]
    Feature {
        /// Its name in the kernel.
        name: &'static str,
    },
    /// The filesystem is marked as damaged, as a seed for others, or as being converted.
    #[error("the superblock carries the flags {bits:#x}: an error, a seed, or a conversion")]
    Flags {
        /// The flags that ask for care.
        bits: u64,
    },
    /// One device tells only a part of the space.
    #[error("it is one of {count} devices of a filesystem")]
    Devices {
        /// How many there are.
        count: u64,
    },
    /// The contents of the device are moving to another one.
    #[error("the device is being replaced by another one")]
    Replacing,
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
    /// The superblock that is mounted is older than its copy: writes were lost.
    #[error("the superblock is of generation {superblock}, its copy at byte {offset} of {copy}")]
    NewerCopy {
        /// Byte offset of the copy.
        offset: u64,
        /// Generation of the first superblock.
        superblock: u64,
        /// Generation of the copy.
        copy: u64,
    },
    /// A block of a tree contradicts itself, its place or its parent.
    #[error("{tree} tree, block at logical byte {block}: {what}")]
    Tree {
        /// Which tree.
        tree: &'static str,
        /// Logical address of the block.
        block: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk contradicts itself, another one or the device.
    #[error("chunk at logical byte {logical}: {what}")]
    Chunk {
        /// Logical address of the chunk.
        logical: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An extent contradicts its place or its neighbours.
    #[error("extent at logical byte {logical}: {what}")]
    Extent {
        /// Logical address of the extent.
        logical: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A block that is in use, but not among the tree blocks of the extent tree.
    #[error("the extent tree lacks the block of the {tree} at logical byte {block}")]
    NotInExtentTree {
        /// Which tree it is part of.
        tree: &'static str,
        /// Logical address of the block.
        block: u64,
    },
    /// There is no such tree.
    #[error("the {tree} tree is missing")]
    NoTree {
        /// Which tree.
        tree: &'static str,
    },
    /// Two records of an amount disagree.
    #[error("{what} is {recorded} by its record, {found} by the extents")]
    Count {
        /// What was counted.
        what: String,
        /// By the record.
        recorded: u64,
        /// By what it sums up.
        found: u64,
    },
    /// More than a map is made of.
    #[error("there are more than {allowed} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        allowed: u64,
    },
}
