use aiv_volume_io::Extent;
use aiv_volume_io::partition::Unfit;

/// What a finished restore did. Every byte of the region, and of a partition table that was put
/// outside of it, is in exactly one of `bytes_written`, `bytes_zeroed`, `bytes_discarded`,
/// `bytes_identical` and `bytes_left`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The bytes of the source disk that were restored; their first one is byte zero of the
    /// target.
    pub region: Extent,
    /// Bytes written: from the image, and those of a changed partition table.
    pub bytes_written: u64,
    /// Bytes turned into zeros.
    pub bytes_zeroed: u64,
    /// Bytes the medium was told to forget.
    pub bytes_discarded: u64,
    /// Bytes that needed no write because the target held them already: found equal by a delta
    /// restore, or zeros of a new file.
    pub bytes_identical: u64,
    /// Free bytes that were left as they were.
    pub bytes_left: u64,
    /// Bytes read back from the target, or known to be a hole of it, and proven right.
    pub bytes_verified: u64,
    /// Ranges of the target that hold the fill pattern, because the source could not be read
    /// there when it was imaged. Ascending.
    pub unreadable: Vec<Extent>,
    /// What else the user should know.
    pub notes: Vec<Note>,
    /// Whether everything but free space left alone or discarded was read back and compared.
    /// Always so in a report: a restore that cannot be proven is an error.
    pub verified: bool,
}

impl RestoreReport {
    /// Bytes nothing was done to.
    #[must_use]
    pub const fn bytes_skipped(&self) -> u64 {
        self.bytes_identical + self.bytes_left
    }
}

/// Something about a restore the user should know, and that does not stop it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The target is longer than what was restored; the rest keeps its bytes.
    TargetLarger {
        /// The rest, in the target.
        rest: Extent,
    },
    /// The backup header of the GPT is where the source disk ended, not at the end of this
    /// larger disk: a partitioning tool has to move it before the rest can be used.
    BackupHeaderNotAtEnd,
    /// The partition table was made for the target, as its length or its sectors asked for.
    TableFitted,
    /// The MBR of the source disk became a GPT.
    MadeGpt,
    /// The table is an MBR, which cannot describe the end of the target.
    BehindMbr {
        /// Bytes of the target that no partition can have.
        rest: Extent,
    },
    /// The partition table was kept although it does not match the target.
    TableKept(
        /// Why it could not be made for the target.
        Unfit,
    ),
    /// The end of the source disk, which belongs to no partition, has no place on the target.
    TailCut {
        /// Bytes of the source disk that are not restored.
        rest: Extent,
    },
    /// A backup GPT that the target had from before is zeroed.
    OldBackupCleared {
        /// Its header, in the target.
        extent: Extent,
    },
    /// The partition table counts in sectors of another size now. What the partitions hold can
    /// be used there; boot loaders may not know.
    SectorsConverted {
        /// Bytes per logical sector of the source.
        source: u32,
        /// Bytes per logical sector of the target.
        target: u32,
    },
    /// A partition and its filesystem were made smaller.
    Shrunk {
        /// Its number.
        number: u32,
        /// Its bytes on the source disk.
        from: u64,
        /// Its bytes on the target.
        to: u64,
    },
    /// A partition begins elsewhere on the target, as the one in front of it is smaller.
    Moved {
        /// Its number.
        number: u32,
        /// Its first byte on the source disk.
        from: u64,
        /// Its first byte on the target.
        to: u64,
    },
    /// What lies between partitions that move, and belongs to none of them, is not restored: zeros
    /// are there.
    GapsCut {
        /// Bytes of the source disk.
        bytes: u64,
    },
    /// Another disk of this machine has the identity the target will have. Systems take the one
    /// for the other.
    SameIdentity {
        /// Its device node.
        other: String,
        /// GUID or MBR signature.
        id: String,
    },
    /// The target has another identity than the source disk.
    NewIdentity {
        /// GUID or MBR signature of the source disk; empty when it had none.
        before: String,
        /// That of the target.
        after: String,
        /// Whether its partitions have new ones as well.
        partitions: bool,
    },
    /// By its serial number, the target is the disk that was imaged.
    SourceDisk,
    /// The last partition was to grow, and is of a kind that is never scaled by itself.
    NotScaled {
        /// Its number.
        number: u32,
        /// What it is: `"swap space"`.
        what: &'static str,
    },
    /// There is less than 1 MiB free behind a partition that was to grow.
    NoRoomToGrow {
        /// Its number.
        number: u32,
    },
    /// A filesystem was grown to the length of its partition, and checked.
    FilesystemGrown {
        /// Number of the partition.
        number: u32,
        /// What it is.
        filesystem: String,
    },
    /// A filesystem was not grown and is shorter than its partition.
    FilesystemNotGrown {
        /// Number of the partition.
        number: u32,
        /// What it is; empty when not known.
        filesystem: String,
        /// Why.
        why: String,
        /// What does it by hand; empty when nothing is known.
        by_hand: &'static str,
    },
    /// Files were left out of the backup. They come back with their names and lengths, and what
    /// they hold is zeros or whatever the target held there.
    Excluded {
        /// How many, zero when the image no longer tells.
        files: u64,
    },
    /// A partition went onto a device with other sectors. Some filesystems cannot be mounted
    /// there.
    OtherSectorSize {
        /// Bytes per logical sector of the source.
        source: u32,
        /// Bytes per logical sector of the target.
        target: u32,
    },
    /// The partition table had problems when the disk was imaged, so the partition may have
    /// been cut wrongly.
    TableProblems(
        /// One sentence each.
        Vec<String>,
    ),
}

/// Amounts of bytes, by what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) written: u64,
    pub(crate) zeroed: u64,
    pub(crate) discarded: u64,
    pub(crate) identical: u64,
    pub(crate) left: u64,
    pub(crate) verified: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            zeroed: self.zeroed + other.zeroed,
            discarded: self.discarded + other.discarded,
            identical: self.identical + other.identical,
            left: self.left + other.left,
            verified: self.verified + other.verified,
        }
    }
}
