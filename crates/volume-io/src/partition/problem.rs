use std::fmt;
use std::io;

use super::SectorSize;
use crate::Extent;

/// Something wrong with a partition table. Sector numbers count sectors of the table's size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableProblem {
    /// A copy of the GPT cannot be used. When the other one can, it was used instead.
    #[error("{copy} GPT at sector {lba} cannot be used: {fault}")]
    GptCopyDamaged {
        /// Which copy.
        copy: GptCopy,
        /// Sector of its header.
        lba: u64,
        /// The first fault found.
        fault: GptFault,
    },
    /// The backup GPT is sound but not in the last sector, as on a disk that has grown.
    #[error("backup GPT is at sector {lba}, not at the end of the disk (sector {last_lba})")]
    BackupNotAtEnd {
        /// Sector of the backup header.
        lba: u64,
        /// Last sector of the disk.
        last_lba: u64,
    },
    /// The backup GPT was found in the last sector although the primary names another one.
    #[error("backup GPT is at sector {found}, but the primary header says sector {named}")]
    BackupNotWhereNamed {
        /// Sector the primary header names.
        named: u64,
        /// Sector of the backup header.
        found: u64,
    },
    /// Both copies are sound and contradict each other; the primary was used.
    #[error("primary and backup GPT disagree about {field}")]
    GptCopiesDisagree {
        /// First differing header field, by its UEFI name.
        field: &'static str,
    },
    /// The GPT was made for a larger disk.
    #[error("GPT uses sectors up to {last_usable_lba}, the last one of the disk is {last_lba}")]
    UsableRangePastEnd {
        /// Last sector the GPT gives to partitions.
        last_usable_lba: u64,
        /// Last sector of the disk.
        last_lba: u64,
    },
    /// There is a GPT, but sector 0 could not be read.
    #[error("sector 0 cannot be read ({0})")]
    MbrUnreadable(io::ErrorKind),
    /// There is a GPT, but no protective entry in sector 0. Linux and Windows ignore it.
    #[error("GPT without a protective MBR")]
    ProtectiveMbrMissing,
    /// The protective entry does not cover the disk from sector 1 on.
    #[error(
        "protective MBR entry covers {sectors} sectors from {start}, \
         expected {expected_sectors} from 1"
    )]
    ProtectiveMbrWrong {
        /// First sector of the entry.
        start: u32,
        /// Length of the entry in sectors.
        sectors: u32,
        /// Length it must have; 0xFFFFFFFF is right as well.
        expected_sectors: u32,
    },
    /// The MBR has entries beside the protective one. The GPT was used.
    #[error("hybrid MBR: {entries} entries beside the protective one are ignored")]
    HybridMbr {
        /// Number of these entries.
        entries: usize,
    },
    /// A sound GPT is on the disk, but the front of the disk says that it is a leftover: a
    /// filesystem, an MBR without a protective entry, or nothing at all. It was ignored.
    #[error("leftover GPT at sector {lba} is ignored")]
    StaleGpt {
        /// Sector of its header.
        lba: u64,
    },
    /// There is a GPT for another sector size, as in the image of a 4Kn disk in a raw file.
    #[error("GPT has sectors of {} bytes", .sector_size.bytes())]
    OtherSectorSize {
        /// The size to read the table with.
        sector_size: SectorSize,
    },
    /// A chain of logical partitions is broken. Unless the fault says otherwise it ends here:
    /// partitions after this place are not listed, and their bytes are gaps.
    #[error("extended boot record at sector {lba}: {fault}")]
    EbrDamaged {
        /// Sector of the extended boot record.
        lba: u64,
        /// What is wrong.
        fault: EbrFault,
    },
    /// Some sectors belong to two partitions. The one that begins first owns them in the
    /// region map.
    #[error("partitions {first} and {second} share bytes {shared:?}")]
    PartitionsOverlap {
        /// Number of the partition that begins first.
        first: u32,
        /// Number of the other one.
        second: u32,
        /// The bytes they share.
        shared: Extent,
    },
    /// A partition covers bytes of the table.
    #[error("partition {number} covers bytes {shared:?} of the partition table")]
    OverlapsTable {
        /// Number of the partition.
        number: u32,
        /// The first range of bytes shared with the table.
        shared: Extent,
    },
    /// A partition reaches past the end of the disk.
    #[error("partition {number} ends at byte {end}, the disk at {disk_len}")]
    PastEnd {
        /// Number of the partition.
        number: u32,
        /// First byte after the partition.
        end: u64,
        /// Length of the disk in bytes.
        disk_len: u64,
    },
    /// A partition ends before it begins.
    #[error("partition {number} begins at sector {first_lba} and ends at {last_lba}")]
    EndsBeforeStart {
        /// Number of the partition.
        number: u32,
        /// First sector.
        first_lba: u64,
        /// Last sector.
        last_lba: u64,
    },
    /// A logical partition is not inside its extended partition.
    #[error("logical partition {number} is not inside its extended partition")]
    OutsideExtended {
        /// Number of the logical partition.
        number: u32,
    },
    /// The table has more partitions than we accept; those with the lowest numbers are listed.
    #[error("{found} partitions, of which {} are listed", super::PARTITIONS_MAX)]
    TooManyPartitions {
        /// Number of partitions in the table.
        found: usize,
    },
}

/// The two copies of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GptCopy {
    /// At the front of the disk.
    Primary,
    /// At its end.
    Backup,
}

impl fmt::Display for GptCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

/// Why a copy of a GPT cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GptFault {
    /// The medium failed.
    #[error("cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// The header is not on the disk.
    #[error("the disk has only {sectors} sectors")]
    OutsideDisk {
        /// Sectors of the disk.
        sectors: u64,
    },
    /// The header does not begin with `EFI PART`.
    #[error("no signature")]
    NoSignature,
    /// HeaderSize is impossible.
    #[error("header size {found}, allowed 92 to {max}")]
    HeaderSize {
        /// Size found, in bytes.
        found: u32,
        /// Bytes per sector.
        max: u32,
    },
    /// HeaderCRC32 does not match.
    #[error("header checksum {found:#010x}, computed {computed:#010x}")]
    HeaderChecksum {
        /// Stored value.
        found: u32,
        /// Value of the bytes.
        computed: u32,
    },
    /// MyLBA is not where the header is: a misplaced copy.
    #[error("header says it belongs to sector {found}")]
    MyLba {
        /// Sector the header names.
        found: u64,
    },
    /// FirstUsableLBA lies behind LastUsableLBA.
    #[error("usable sectors {first} to {last}")]
    UsableRange {
        /// FirstUsableLBA.
        first: u64,
        /// LastUsableLBA.
        last: u64,
    },
    /// SizeOfPartitionEntry is not 128 times a power of two.
    #[error("entry size {found}, allowed 128 times a power of two")]
    EntrySize {
        /// Size found, in bytes.
        found: u32,
    },
    /// The entry array is larger than [`super::GPT_ENTRY_ARRAY_MAX`].
    #[error("entry array of {found} bytes, allowed {}", super::GPT_ENTRY_ARRAY_MAX)]
    EntryArrayTooLarge {
        /// Length of the array in bytes.
        found: u64,
    },
    /// The entry array is not on the disk, or covers a header or the MBR.
    #[error("entry array of {sectors} sectors from {lba}")]
    EntryArrayPlace {
        /// PartitionEntryLBA.
        lba: u64,
        /// Sectors it needs.
        sectors: u64,
    },
    /// PartitionEntryArrayCRC32 does not match.
    #[error("entry array checksum {found:#010x}, computed {computed:#010x}")]
    EntryArrayChecksum {
        /// Stored value.
        found: u32,
        /// Value of the bytes.
        computed: u32,
    },
}

/// What is wrong with an extended boot record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EbrFault {
    /// The medium failed.
    #[error("cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// It is not on the disk or not inside the extended partition.
    #[error("outside the extended partition or the disk")]
    OutOfBounds,
    /// It does not end with 0x55AA.
    #[error("no signature")]
    NoSignature,
    /// It was visited before.
    #[error("chain comes back to it")]
    Loop,
    /// More records than partitions we accept.
    #[error("chain is longer than {} records", super::ebr::CHAIN_MAX)]
    TooLong,
    /// It holds more than one partition; the first was listed and the chain goes on.
    #[error("more than one partition in it")]
    ExtraPartition,
}
