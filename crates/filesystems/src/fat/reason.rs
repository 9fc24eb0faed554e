/// Why the used clusters of a FAT volume cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FatReason {
    /// The volume is shorter than a boot sector, or has none.
    #[error("there is no boot sector")]
    NoBootSector,
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
    /// Both fields for the number of sectors are set, to different numbers.
    #[error("the boot sector gives both {small} and {large} sectors")]
    TwoSizes {
        /// `BPB_TotSec16`.
        small: u32,
        /// `BPB_TotSec32`.
        large: u32,
    },
    /// The filesystem claims more than there is.
    #[error("the filesystem has {filesystem} bytes, the volume only {volume}")]
    LargerThanVolume {
        /// Bytes the filesystem claims.
        filesystem: u64,
        /// Bytes of the volume.
        volume: u64,
    },
    /// Laid out as FAT32, but the specification calls so few clusters FAT12 or FAT16; programs
    /// differ in what they make of it.
    #[error("laid out as FAT32 with only {clusters} clusters, FAT32 has 65525 or more")]
    TooFewForFat32 {
        /// Number of clusters.
        clusters: u64,
    },
    /// So few clusters more than FAT12 has that drivers differ in the width of an entry.
    #[error("{clusters} clusters are FAT12 to some drivers and FAT16 to others")]
    TwoWidths {
        /// Number of clusters.
        clusters: u64,
    },
    /// The table has no room for an entry of each cluster.
    #[error("a file allocation table of {bytes} bytes is too small for {clusters} clusters")]
    TableTooSmall {
        /// Bytes of one table.
        bytes: u64,
        /// Number of clusters.
        clusters: u64,
    },
    /// Only one of several tables is kept up to date.
    #[error("its file allocation tables are not mirrored (flags {flags:#06x})")]
    NotMirrored {
        /// `BPB_ExtFlags`.
        flags: u16,
    },
    /// Two copies of the table differ.
    #[error("its file allocation tables differ near cluster {cluster}")]
    TablesDiffer {
        /// The first entry in which they may differ.
        cluster: u32,
    },
    /// The table does not begin as every table does.
    #[error("the file allocation table begins with {found:#x}, not with {expected:#x}")]
    FirstEntry {
        /// Entry 0 on the volume.
        found: u32,
        /// The media byte of the boot sector and ones.
        expected: u32,
    },
    /// An entry that is neither free, a cluster, bad, nor an end.
    #[error("the table entry of cluster {cluster} is {value:#x}, which is nothing")]
    Entry {
        /// The cluster.
        cluster: u32,
        /// Its entry.
        value: u32,
    },
    /// A cluster in a chain is called free.
    #[error("cluster {cluster} is linked to but free in the table")]
    LinkToFree {
        /// The first such cluster.
        cluster: u32,
    },
    /// The root directory of FAT32 is called free.
    #[error("the root directory at cluster {cluster} is free in the table")]
    RootFree {
        /// Its first cluster.
        cluster: u32,
    },
    /// The first cluster of a file or folder is called free.
    #[error("cluster {cluster} of a file or folder is free in the table")]
    FileFree {
        /// The cluster.
        cluster: u32,
    },
    /// A directory entry leads outside the volume.
    #[error("the directory entry at byte {offset} names cluster {cluster}, which is none")]
    DirectoryEntry {
        /// Byte offset in the volume.
        offset: u64,
        /// What it names.
        cluster: u32,
    },
    /// Two folders share a cluster, or one has it twice.
    #[error("cluster {cluster} belongs to two folders")]
    SharedFolder {
        /// The cluster.
        cluster: u32,
    },
    /// More folders than are followed.
    #[error("there are too many folders to follow them all")]
    TooManyFolders,
}
