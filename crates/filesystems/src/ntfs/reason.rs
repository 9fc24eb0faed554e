/// Why the used clusters of an NTFS filesystem cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NtfsReason {
    /// The volume is shorter than a boot sector, or has none of NTFS.
    #[error("there is no NTFS boot sector")]
    NoBootSector,
    /// A boot sector field out of its range.
    #[error("boot sector field {field} is {found}, allowed is {allowed}")]
    Field {
        /// What the field says.
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
    /// A file record that contradicts itself.
    #[error("file record {record} {what}")]
    Record {
        /// Number of the record in `$MFT`.
        record: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A list of runs that cannot be right.
    #[error("a run list in file record {record} {what}")]
    Runs {
        /// Number of the record in `$MFT`.
        record: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file of the filesystem's own that is not what it has to be.
    #[error("system file {record} {what}")]
    SystemFile {
        /// Number of its record in `$MFT`.
        record: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `$MFTMirr` holds another copy of a record than `$MFT`.
    #[error("$MFT and $MFTMirr hold different copies of file record {record}")]
    MirrorDiffers {
        /// Number of the record.
        record: u64,
    },
    /// A version of NTFS nobody has seen.
    #[error("NTFS version {major}.{minor} is not known")]
    Version {
        /// Before the point.
        major: u8,
        /// After the point.
        minor: u8,
    },
    /// `$Volume` says that the filesystem has to be repaired, or is being repaired.
    #[error("the volume is marked dirty (flags {flags:#06x}); run chkdsk")]
    Dirty {
        /// The volume flags.
        flags: u16,
    },
    /// `$Volume` has flags whose meaning for the bitmap is not known.
    #[error("the volume has unknown flags {flags:#06x}")]
    UnknownFlags {
        /// The unknown bits.
        flags: u16,
    },
    /// `$LogFile` does not say that everything was written.
    #[error("$LogFile {0}")]
    Log(NtfsLogReason),
    /// Windows is hibernated, or may be, and holds newer records in memory that is saved in a
    /// file, on this volume or another.
    #[error("Windows is hibernated, or may be (hiberfil.sys)")]
    Hibernated,
    /// Earlier states of the volume need clusters that are free now.
    #[error("the volume has shadow copies, which refer to clusters that are free now")]
    ShadowCopies,
    /// `$Bitmap` has another size than the clusters of the volume need.
    #[error("$Bitmap has {found} bytes, {expected} are needed")]
    BitmapSize {
        /// Its size.
        found: u64,
        /// Eight bytes for each 64 clusters, the last ones rounded up.
        expected: u64,
    },
    /// Bits beyond the last cluster are clear.
    #[error("$Bitmap calls clusters beyond the end free")]
    Padding,
    /// The bitmap calls free what the filesystem's own files occupy.
    #[error("$Bitmap calls cluster {cluster} of system file {record} free")]
    SystemFree {
        /// Number of the system file's record.
        record: u64,
        /// The first such cluster.
        cluster: u64,
    },
    /// Two run lists name the same cluster.
    #[error("cluster {cluster}, in file record {record}, belongs to another file too")]
    Overlap {
        /// The record found second.
        record: u64,
        /// The first such cluster.
        cluster: u64,
    },
}

/// Why the log forbids to trust the records on the volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NtfsLogReason {
    /// The volume was not unmounted; the bitmap may lag behind.
    #[error("says that the volume was not unmounted")]
    NotClean,
    /// Version 2.0: Windows 8 and later keep records in memory over a fast restart.
    #[error(
        "is of version {major}.{minor}: Windows may hold newer records (mounted, or fast startup)"
    )]
    Version {
        /// Before the point.
        major: i16,
        /// After the point.
        minor: i16,
    },
    /// `chkdsk` worked on the volume and Windows did not mount it since.
    #[error("was changed by chkdsk and not used since")]
    Chkdsk,
    /// The log contradicts itself.
    #[error("is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}
