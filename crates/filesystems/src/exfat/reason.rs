/// Why the used clusters of an exFAT volume cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExFatReason {
    /// The volume is shorter than a boot region, or has none.
    #[error("there is no boot region")]
    NoBootRegion,
    /// The boot region does not match its checksum.
    #[error("checksum of the boot region is wrong")]
    Checksum,
    /// A field of the boot sector out of its range.
    #[error("boot sector field {field} is {found}, allowed is {allowed}")]
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
    /// Two tables and two bitmaps: transaction-safe exFAT.
    #[error("it is a transaction-safe exFAT with two file allocation tables")]
    TexFat,
    /// The file allocation table does not begin as every table does.
    #[error("the file allocation table begins with {found:#018x}")]
    FirstEntries {
        /// The first two entries.
        found: u64,
    },
    /// A chain of the file allocation table leads nowhere, or does not end.
    #[error("the cluster chain of the {section} is broken at cluster {cluster}")]
    Chain {
        /// What the chain belongs to.
        section: &'static str,
        /// Where it breaks.
        cluster: u32,
    },
    /// The root directory has no, or more than one, entry of a kind there must be one of.
    #[error("the root directory has {found} entries for the {section}, not 1")]
    Entries {
        /// What the entry describes.
        section: &'static str,
        /// How many there are.
        found: u32,
    },
    /// A structure has a size it cannot have.
    #[error("the {section} has {found} bytes, allowed is {allowed}")]
    Size {
        /// Which structure.
        section: &'static str,
        /// Bytes by its directory entry.
        found: u64,
        /// Allowed values, in words.
        allowed: String,
    },
    /// The bitmap calls clusters free that cannot be.
    #[error("the allocation bitmap calls cluster {cluster} of the {section} free")]
    MetadataFree {
        /// What lies there.
        section: &'static str,
        /// The cluster.
        cluster: u32,
    },
    /// The bitmap calls a cluster free that a file or folder has.
    #[error("the allocation bitmap calls cluster {cluster} of a file or folder free")]
    FileFree {
        /// The cluster.
        cluster: u32,
    },
    /// A cluster belongs to two files, folders or structures, or twice to one.
    #[error("cluster {cluster} belongs to two files or folders")]
    SharedCluster {
        /// The cluster.
        cluster: u32,
    },
    /// A directory entry that is damaged or not understood.
    #[error("the directory entry at byte {offset} {what}")]
    DirectoryEntry {
        /// Byte offset in the volume.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More folders than are followed.
    #[error("there are too many folders to follow them all")]
    TooManyFolders,
}
