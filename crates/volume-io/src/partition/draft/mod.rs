//! A partition table in memory, being changed for another disk. Nothing here writes.

mod convert;
mod gpt;
mod mbr;
mod unfit;

use super::table::{DiskId, Partition, PartitionTable};
use super::{Guid, SectorSize, TableKind, TableProblem, read_table};
use crate::{Extent, ReadAt, Result};

pub use unfit::Unfit;

/// Bytes of a table and where on the disk they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// First byte on the disk.
    pub offset: u64,
    /// The bytes; never empty.
    pub bytes: Vec<u8>,
    /// Whether they are part of the backup GPT at the end of the disk.
    pub is_backup: bool,
}

impl Patch {
    /// The bytes of the disk that it covers.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent::new(self.offset, self.bytes.len() as u64)
    }
}

/// A sound table that can be placed on a disk of another length, or with other sectors, with
/// other partition places or another identity. Partitions do not move by themselves: their first
/// byte stays unless [`Draft::move_to`] says otherwise.
///
/// Setters only record what is wanted; [`Draft::patches`] judges it and gives the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    before: PartitionTable,
    partitions: Vec<Partition>,
    sector_size: SectorSize,
    disk_len: u64,
    disk_id: Option<DiskId>,
    raw: Raw,
}

/// What the table looks like on the disk it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Raw {
    Gpt(Box<gpt::Gpt>),
    Mbr(mbr::Mbr),
}

impl Draft {
    /// Reads the table of `disk`. The inner error says why it must be left as it is: there is
    /// none, or it has problems that go beyond a disk that grew or was cut off.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the medium fails at the table.
    pub fn read(
        disk: &dyn ReadAt,
        sector_size: SectorSize,
    ) -> Result<std::result::Result<Self, Unfit>> {
        let before = read_table(disk, sector_size)?;
        if let Some(problem) = before.problems.iter().find(|p| !is_mended(before.kind, p)) {
            return Ok(Err(Unfit::Damaged(problem.clone())));
        }
        let raw = match before.kind {
            TableKind::None => return Ok(Err(Unfit::NoTable)),
            TableKind::Mbr => Raw::Mbr(mbr::Mbr::read(disk, &before)?),
            TableKind::Gpt => match gpt::Gpt::read(disk, sector_size)? {
                Some(gpt) => Raw::Gpt(Box::new(gpt)),
                None => return Ok(Err(Unfit::NoTable)),
            },
        };
        let partitions = before.partitions.clone();
        let (disk_len, disk_id) = (disk.len(), before.disk_id);
        Ok(Ok(Self { before, partitions, sector_size, disk_len, disk_id, raw }))
    }

    /// The table as it was read.
    #[must_use]
    pub fn before(&self) -> &PartitionTable {
        &self.before
    }

    /// The partitions as they will be, in the order of [`Draft::before`].
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Size of a sector of the disk the draft is for.
    #[must_use]
    pub fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    /// The identity the disk will have.
    #[must_use]
    pub fn disk_id(&self) -> Option<DiskId> {
        self.disk_id
    }

    /// Which kind of table it is.
    #[must_use]
    pub fn kind(&self) -> TableKind {
        match self.raw {
            Raw::Gpt(_) => TableKind::Gpt,
            Raw::Mbr(_) => TableKind::Mbr,
        }
    }

    /// Makes the draft one for a disk of `disk_len` bytes in sectors of `sector_size`.
    pub fn place(&mut self, sector_size: SectorSize, disk_len: u64) {
        (self.sector_size, self.disk_len) = (sector_size, disk_len);
    }

    /// Gives the disk another identity; one of the other kind of table is not taken.
    ///
    /// # Errors
    /// [`Unfit::OtherKind`].
    pub fn set_disk_id(&mut self, id: DiskId) -> std::result::Result<(), Unfit> {
        let fits = matches!(
            (&self.raw, id),
            (Raw::Gpt(_), DiskId::Gpt(_)) | (Raw::Mbr(_), DiskId::Mbr(_))
        );
        if !fits {
            return Err(Unfit::OtherKind);
        }
        self.disk_id = Some(id);
        Ok(())
    }

    /// Gives a partition of a GPT another identity.
    ///
    /// # Errors
    /// [`Unfit::NoSuchPartition`], also for every partition of an MBR: they have none.
    pub fn set_partition_id(&mut self, number: u32, id: Guid) -> std::result::Result<(), Unfit> {
        if let Raw::Mbr(_) = self.raw {
            return Err(Unfit::NoSuchPartition { number });
        }
        self.partition_mut(number)?.unique_id = Some(id);
        Ok(())
    }

    /// Lets a partition end just before byte `end`.
    ///
    /// # Errors
    /// [`Unfit::NoSuchPartition`]; [`Unfit::Logical`] for what lies in chains of records.
    pub fn set_end(&mut self, number: u32, end: u64) -> std::result::Result<(), Unfit> {
        let is_mbr = matches!(self.raw, Raw::Mbr(_));
        let partition = self.partition_mut(number)?;
        if is_mbr && (number > mbr::PRIMARIES || partition.kind.is_extended()) {
            return Err(Unfit::Logical { number });
        }
        partition.extent = Extent::between(partition.extent.start, end);
        Ok(())
    }

    /// Lets a partition begin at byte `start`, with as many bytes as it has. What it holds has to
    /// go there as well.
    ///
    /// # Errors
    /// As [`Draft::set_end`].
    pub fn move_to(&mut self, number: u32, start: u64) -> std::result::Result<(), Unfit> {
        let before = self.partition_mut(number)?.extent;
        self.set_end(number, before.end())?;
        self.partition_mut(number)?.extent = Extent::new(start, before.len);
        Ok(())
    }

    fn partition_mut(&mut self, number: u32) -> std::result::Result<&mut Partition, Unfit> {
        let mut all = self.partitions.iter_mut();
        all.find(|p| p.number == number).ok_or(Unfit::NoSuchPartition { number })
    }

    /// The bytes of the disk that partitions may have.
    ///
    /// # Errors
    /// [`Unfit::TooSmall`] when the disk has no room for the table itself.
    pub fn usable(&self) -> std::result::Result<Extent, Unfit> {
        match &self.raw {
            Raw::Gpt(gpt) => Ok(gpt::Places::on(self, gpt)?.usable()),
            Raw::Mbr(_) => {
                let sectors = self.disk_len / self.unit();
                Ok(self.sector_size.extent(1, sectors.saturating_sub(1)))
            }
        }
    }

    /// Bytes the disk needs at least for the table and its partitions.
    #[must_use]
    pub fn len_min(&self) -> u64 {
        let partitions = self.partitions.iter().map(|p| p.extent.end()).max().unwrap_or(0);
        let backup = match &self.raw {
            Raw::Gpt(gpt) => gpt.backup_len(self.sector_size),
            Raw::Mbr(_) => 0,
        };
        partitions.saturating_add(backup)
    }

    /// Up to where a partition may grow: the next one, or the end of what partitions may have.
    ///
    /// # Errors
    /// [`Unfit::NoSuchPartition`], [`Unfit::TooSmall`].
    pub fn room(&self, number: u32) -> std::result::Result<u64, Unfit> {
        let this = self.partitions.iter().find(|p| p.number == number);
        let start = this.ok_or(Unfit::NoSuchPartition { number })?.extent.start;
        let starts = self.partitions.iter().map(|p| p.extent.start).filter(|&at| at > start);
        Ok(starts.chain([self.usable()?.end()]).min().unwrap_or(start))
    }

    /// The bytes that make the draft the table of the disk, ascending and disjoint: the table
    /// itself, and zeros wherever the disk it came from had parts of it that would now be
    /// taken for another one.
    ///
    /// # Errors
    /// Every other variant of [`Unfit`]: what speaks against such a table on such a disk.
    pub fn patches(&self) -> std::result::Result<Vec<Patch>, Unfit> {
        self.check_partitions()?;
        let mut patches = match &self.raw {
            Raw::Gpt(gpt) => gpt.patches(self)?,
            Raw::Mbr(mbr) => mbr.patches(self)?,
        };
        patches.retain(|patch| !patch.bytes.is_empty());
        patches.sort_by_key(|patch| patch.offset);
        Ok(patches)
    }

    fn unit(&self) -> u64 {
        self.sector_size.bytes().into()
    }

    fn changes_sectors(&self) -> bool {
        self.sector_size != self.before.sector_size
    }

    fn check_partitions(&self) -> std::result::Result<(), Unfit> {
        let usable = self.usable()?;
        for (partition, before) in self.partitions.iter().zip(&self.before.partitions) {
            let (number, extent) = (partition.number, partition.extent);
            for at in [extent.start, extent.end()] {
                if !at.is_multiple_of(self.unit()) {
                    return Err(Unfit::Misaligned { number, at, sector: self.unit() });
                }
            }
            if extent.end() > usable.end() {
                let (end, max) = (extent.end(), usable.end());
                return Err(Unfit::PastEnd { number, end, max });
            }
            let is_anew = self.changes_sectors() || self.kind() != self.before.kind;
            if is_anew && extent.start < usable.start {
                let (start, min) = (extent.start, usable.start);
                return Err(Unfit::BeforeUsable { number, start, min });
            }
            // An untouched partition is as sound as the table it came from.
            if extent != before.extent && (extent.is_empty() || extent.end() > self.room(number)?) {
                return Err(Unfit::NoRoom { number });
            }
        }
        Ok(())
    }
}

/// Problems that placing the table anew mends, or that do not concern it.
fn is_mended(kind: TableKind, problem: &TableProblem) -> bool {
    use super::GptCopy::Backup;
    match problem {
        TableProblem::StaleGpt { .. } => kind == TableKind::Mbr,
        TableProblem::BackupNotAtEnd { .. }
        | TableProblem::BackupNotWhereNamed { .. }
        | TableProblem::UsableRangePastEnd { .. }
        | TableProblem::ProtectiveMbrWrong { .. }
        | TableProblem::HybridMbr { .. }
        | TableProblem::GptCopyDamaged { copy: Backup, .. } => kind == TableKind::Gpt,
        _ => false,
    }
}
