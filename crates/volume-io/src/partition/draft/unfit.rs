use crate::Extent;
use crate::partition::{PartitionKind, TableProblem};

/// What speaks against a table on a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// There is no table that could be changed.
    #[error("the disk has no partition table")]
    NoTable,
    /// The table has a problem that nobody but its owner can decide about.
    #[error("the partition table has a problem: {0}")]
    Damaged(TableProblem),
    /// The disk has no room for the table itself.
    #[error("a disk of {len} bytes has no room for the partition table")]
    TooSmall {
        /// Length of the disk in bytes.
        len: u64,
    },
    /// A partition reaches past what partitions may have.
    #[error("partition {number} ends at byte {end}, on this disk partitions may end at {max}")]
    PastEnd {
        /// Its number.
        number: u32,
        /// First byte after it.
        end: u64,
        /// The largest possible value.
        max: u64,
    },
    /// With sectors of another size, or as a GPT, the table needs bytes that a partition has.
    #[error("partition {number} begins at byte {start}, the partition table needs {min}")]
    BeforeUsable {
        /// Its number.
        number: u32,
        /// Its first byte.
        start: u64,
        /// The smallest possible value.
        min: u64,
    },
    /// A partition does not begin or end where a sector does.
    #[error(
        "partition {number} begins or ends at byte {at}, which is no multiple of the {sector} \
         bytes of a sector"
    )]
    Misaligned {
        /// Its number.
        number: u32,
        /// Its first byte, or the first one after it.
        at: u64,
        /// Bytes per sector.
        sector: u64,
    },
    /// With sectors of another size, the table needs bytes that hold something else.
    #[error(
        "bytes {} to {} are not part of a partition and hold something, the partition table \
         needs them", .0.start, .0.end()
    )]
    GapInUse(
        /// The bytes the table needs.
        Extent,
    ),
    /// A hybrid MBR counts in sectors, too, and cannot be converted.
    #[error("the disk has a hybrid MBR, which is only kept where sectors have the same size")]
    Hybrid,
    /// A number of sectors does not fit into the 32 bits an MBR has for it.
    #[error(
        "an MBR cannot describe sectors from {max} on, and partition {number} would end at \
         sector {end}"
    )]
    TooFar {
        /// Number of the partition.
        number: u32,
        /// First sector after it.
        end: u64,
        /// Sectors an MBR can count.
        max: u64,
    },
    /// A partition of an MBR has a type that no type of a GPT stands for.
    #[error("partition {number} is of the type {kind}, which no type of a GPT stands for")]
    TypeUnknown {
        /// Its number.
        number: u32,
        /// The type.
        kind: PartitionKind,
    },
    /// A GPT of the usual size has no room for all partitions.
    #[error("the disk has more than the {max} partitions that a GPT has room for")]
    TooManyPartitions {
        /// Number of its entries.
        max: u32,
    },
    /// Logical and extended partitions are described by chains of records.
    #[error("partition {number} is a logical or extended one, which cannot be resized")]
    Logical {
        /// Its number.
        number: u32,
    },
    /// A partition would end before it begins, or inside the next one.
    #[error("partition {number} has no room to end there")]
    NoRoom {
        /// Its number.
        number: u32,
    },
    /// The table has no partition of that number, or not with an identity.
    #[error("the table has no partition {number}")]
    NoSuchPartition {
        /// What was asked for.
        number: u32,
    },
    /// A disk signature for a GPT, or a GUID for an MBR.
    #[error("the identity belongs to another kind of partition table")]
    OtherKind,
}
