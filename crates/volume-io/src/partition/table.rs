use std::fmt;

use super::{Guid, SectorSize, TableProblem};
use crate::Extent;

/// What a disk says about its layout, and what is wrong with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// The sector size the table was read with.
    pub sector_size: SectorSize,
    /// Which table was found.
    pub kind: TableKind,
    /// The identity the table gives the disk; `None` when it has none or zeros.
    pub disk_id: Option<DiskId>,
    /// The partitions, ascending by number, at most [`super::PARTITIONS_MAX`].
    pub partitions: Vec<Partition>,
    /// Everything that contradicts the specification or the size of the disk; empty for a
    /// sound table.
    pub problems: Vec<TableProblem>,
    /// The bytes that make up the table itself, ascending. Those of a damaged GPT copy are
    /// listed where the sound copy says they must have been.
    pub areas: Vec<TableArea>,
}

/// Kind of a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// No table: an empty disk, or a filesystem on the whole disk.
    None,
    /// Master boot record, with extended boot records where there are logical partitions.
    Mbr,
    /// GUID partition table. Without any partition when both copies are damaged.
    Gpt,
}

/// The identity a table gives its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskId {
    /// Disk GUID of a GPT.
    Gpt(Guid),
    /// Disk signature of an MBR, at byte 440.
    Mbr(u32),
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr(signature) => write!(f, "{signature:08x}"),
        }
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The table's own number: position in the GPT entry array counted from 1; for an MBR 1-4
    /// for the primary entries and from 5 on for the logical ones.
    pub number: u32,
    /// Bytes of the disk, exactly as the table has them: the end may lie past the end of the
    /// disk, and the range is empty where the table has the end before the start. Each such
    /// case is a [`TableProblem`].
    pub extent: Extent,
    /// Declared type.
    pub kind: PartitionKind,
    /// GPT partition GUID; `None` for an MBR and for zeros.
    pub unique_id: Option<Guid>,
    /// GPT partition name; empty for an MBR. Broken UTF-16 is replaced by U+FFFD.
    pub name: String,
    /// GPT attribute bits; zero for an MBR.
    pub attributes: u64,
    /// MBR status 0x80, or GPT attribute bit 2 (legacy BIOS bootable).
    pub bootable: bool,
}

/// The type a table declares for a partition. Says little about what it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartitionKind {
    /// GPT partition type GUID.
    Gpt(Guid),
    /// MBR partition type.
    Mbr(u8),
}

impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr(code) => write!(f, "0x{code:02x}"),
        }
    }
}

impl PartitionKind {
    /// Whether this is an MBR extended partition (0x05, 0x0F, 0x85): a container of logical
    /// partitions that holds no data of its own.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        matches!(self, Self::Mbr(0x05 | 0x0F | 0x85))
    }
}

/// Bytes that belong to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableArea {
    /// Bytes of the disk, inside the disk.
    pub extent: Extent,
    /// What they hold.
    pub kind: TableAreaKind,
}

/// What a [`TableArea`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableAreaKind {
    /// Boot code of the MBR: bytes 0 to 440.
    BootCode,
    /// The rest of sector 0: disk signature, four entries, boot signature, padding of larger
    /// sectors.
    Mbr,
    /// One extended boot record.
    Ebr,
    /// Header of the primary GPT.
    GptHeader,
    /// Entry array of the primary GPT, in whole sectors.
    GptEntries,
    /// Header of the backup GPT.
    GptBackupHeader,
    /// Entry array of the backup GPT, in whole sectors.
    GptBackupEntries,
}

impl PartitionTable {
    /// A table without contents.
    pub(super) fn empty(kind: TableKind, sector_size: SectorSize) -> Self {
        Self {
            sector_size,
            kind,
            disk_id: None,
            partitions: Vec::new(),
            problems: Vec::new(),
            areas: Vec::new(),
        }
    }
}
