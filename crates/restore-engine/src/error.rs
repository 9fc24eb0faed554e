use std::io;
use std::path::PathBuf;

use aiv_chain::PointId;
use aiv_image_format::BlockIndex;
use aiv_volume_io::device::Use;
use aiv_volume_io::partition::Unfit;
use aiv_volume_io::{Canceled, Extent};

use crate::sectors::Unusable;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target failed: use another disk.
    #[error("{op} failed at byte {offset} of the target")]
    Io {
        /// What was being done, as a verb phrase: `"writing"`.
        op: &'static str,
        /// Byte offset in the target.
        offset: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The target could not be looked at.
    #[error(transparent)]
    Target(aiv_volume_io::Error),
    /// The recovery point cannot be read: verify the image, or use an older point. Names file
    /// and offset.
    #[error(transparent)]
    View(aiv_chain::Error),
    /// The partition table in the recovery point cannot be read: restore to a target of the same
    /// length, or use an older point.
    #[error("the partition table of the recovery point cannot be read")]
    Table(#[source] aiv_volume_io::Error),
    /// A plan file is not what it should be.
    #[error("{} is no plan of restores: {what}", path.display())]
    PlanFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The copy in which a filesystem is made smaller could not be made.
    #[error("cannot make {}", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The smaller copy of a partition cannot be read.
    #[error("reading the smaller copy of the partition failed at byte {offset}")]
    Copy {
        /// Byte offset in the copy.
        offset: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The undo log could not be written: nothing was done to the target.
    #[error("cannot write the undo log {}", path.display())]
    Undo {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The undo log is not what was written, or was never finished.
    #[error("the undo log {} is damaged or was never finished", path.display())]
    UndoDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The index of the image leaves a block out.
    #[error("the index of the image does not say what block {block} holds")]
    Undecided {
        /// The block.
        block: BlockIndex,
    },
    /// Nothing was written, because writing would have destroyed or produced something wrong.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The target returned other bytes than were written to it: it is broken.
    #[error("bytes {} to {} of the target read back differently", extent.start, extent.end())]
    Mismatch {
        /// The bytes that were compared, in the target.
        extent: Extent,
    },
    /// The plan was made for another recovery point than the one handed in.
    #[error("the plan is for recovery point {planned}, not for {found}")]
    OtherPoint {
        /// The point the plan is for.
        planned: PointId,
        /// The point handed in.
        found: PointId,
    },
    /// What was to be recovered cannot be found or looked at.
    #[error(transparent)]
    Browse(aiv_browse::Error),
    /// A file of the recovery point cannot be read.
    #[error(transparent)]
    File(aiv_filesystems::Error),
    /// Where the bytes of a file are cannot be told.
    #[error("its bytes cannot be found")]
    FileBytes(#[source] io::Error),
    /// Recovered files cannot be written: make room, or use another folder.
    #[error("{op} {} failed", path.display())]
    Output {
        /// What was being done, as a verb phrase: `"writing"`.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// No worker threads could be started.
    #[error("worker threads could not be started")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

impl Error {
    /// Wraps an I/O error of the target with what was being done and where.
    pub(crate) fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, offset, source }
    }
}

impl From<aiv_browse::Error> for Error {
    fn from(error: aiv_browse::Error) -> Self {
        match error {
            aiv_browse::Error::Canceled(canceled) => Self::Canceled(canceled),
            error => Self::Browse(error),
        }
    }
}

impl From<aiv_chain::Error> for Error {
    fn from(error: aiv_chain::Error) -> Self {
        match error {
            aiv_chain::Error::Canceled(canceled) => Self::Canceled(canceled),
            error => Self::View(error),
        }
    }
}

/// Why a restore was refused before its first write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The table has no partition of that number.
    #[error("the disk has no partition {number}, {}", existing_partitions(existing))]
    NoSuchPartition {
        /// What was asked for.
        number: u32,
        /// The numbers the table has, ascending.
        existing: Vec<u32>,
    },
    /// A partition was asked for, and the image knows no partition table that can be used.
    #[error("the disk has no usable partition table{}", because(problems))]
    NoTable {
        /// What was wrong with the table when the disk was imaged, one sentence each.
        problems: Vec<String>,
    },
    /// Other entries of the table claim parts of the partition.
    #[error("partition {number} overlaps other partitions, restore the whole disk instead")]
    OverlappingPartition {
        /// What was asked for.
        number: u32,
    },
    /// The image lies on the target, or on something the target carries.
    #[error("{target} holds the image that is to be restored")]
    HoldsImage {
        /// The target's label.
        target: String,
    },
    /// The target is itself an Aivory image.
    #[error("{target} is an Aivory image")]
    IsImage {
        /// The target's label.
        target: String,
    },
    /// The target is a virtual disk by its name: what is restored are the bytes of a disk.
    #[error("{target} is called like a {format} disk, and a restore writes raw bytes")]
    VirtualDisk {
        /// The target's label.
        target: String,
        /// What its name says.
        format: &'static str,
    },
    /// The target is a virtual disk by its content, whatever it is called: somebody's machine.
    #[error("{target} holds a {format} disk, and a restore would write raw bytes over it")]
    HoldsVirtualDisk {
        /// The target's label.
        target: String,
        /// What its content says.
        format: &'static str,
    },
    /// The system uses the target.
    #[error("{target} is in use: {}", sentence(uses))]
    InUse {
        /// The target's label.
        target: String,
        /// Every use found.
        uses: Vec<Use>,
    },
    /// The target cannot be written.
    #[error("{target} is read-only")]
    ReadOnly {
        /// The target's label.
        target: String,
    },
    /// The device has fewer bytes than must be written.
    #[error("{target} is too small: it has {len} bytes, {needed} are needed")]
    TooSmall {
        /// The target's label.
        target: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes the target has.
        len: u64,
    },
    /// Partition tables and boot code count in sectors: on a disk with others they mean other
    /// places.
    #[error("{target} has sectors of {found} bytes, the disk was imaged with {needed}")]
    SectorSize {
        /// The target's label.
        target: String,
        /// Bytes per logical sector of the source.
        needed: u32,
        /// Bytes per logical sector of the target.
        found: u32,
    },
    /// A partition lies where the smaller target has no bytes.
    #[error(
        "{target} is too small: it has {len} bytes, {needed} are needed because partition \
         {number} ends at byte {end}"
    )]
    PartitionTooFar {
        /// The target's label.
        target: String,
        /// Number of the first such partition.
        number: u32,
        /// First byte after it.
        end: u64,
        /// Bytes needed for all partitions and the table.
        needed: u64,
        /// Bytes the target has.
        len: u64,
    },
    /// The partition table cannot be made for the target.
    #[error("the partition table does not fit {target}: {unfit}")]
    Table {
        /// The target's label.
        target: String,
        /// Why.
        unfit: Unfit,
    },
    /// A partition cannot be used on a disk with other sectors.
    #[error(
        "{target} has sectors of {found} bytes, the disk was imaged with {needed}: partition \
         {number} holds {holds}, which {why}"
    )]
    Sectors {
        /// The target's label.
        target: String,
        /// Bytes per logical sector of the source.
        needed: u32,
        /// Bytes per logical sector of the target.
        found: u32,
        /// Number of the first such partition.
        number: u32,
        /// What it holds.
        holds: String,
        /// Why that cannot be used there.
        why: Unusable,
    },
    /// An undo log goes back only to where it was saved from.
    #[error("{target} is not what the undo log was saved from: {saved_from}")]
    OtherTarget {
        /// The target's label.
        target: String,
        /// Path, serial number and length of the right one.
        saved_from: String,
    },
    /// A filesystem cannot be made small enough for the target.
    #[error(
        "{target} is too small: partition {number} would have to shrink from {from} to {to} bytes \
         with what it holds ({}): {why}",
        named(filesystem)
    )]
    CannotShrink {
        /// The target's label.
        target: String,
        /// Number of the partition.
        number: u32,
        /// What it holds; empty when not known.
        filesystem: String,
        /// Its bytes on the source disk.
        from: u64,
        /// Bytes it can have on the target.
        to: u64,
        /// Why that is impossible, in words of the tool.
        why: String,
    },
    /// Two restores of one plan file write to the same device or file.
    #[error("{target} is the target of two restores, or part of it")]
    SameTarget {
        /// The label of the second one.
        target: String,
    },
    /// Another disk has the identity that the target would have, and must not.
    #[error("{other} has the disk identity {id} that {target} would have")]
    SameIdentity {
        /// The label of the target.
        target: String,
        /// A device node, or the target of another restore.
        other: String,
        /// GUID or MBR signature.
        id: String,
    },
    /// The plan was made with another smaller copy of a partition, or without one.
    #[error("the plan for {target} was made with another copy of the smaller partition")]
    OtherCopy {
        /// The target's label.
        target: String,
    },
    /// A new identity was asked for where there is none to change.
    #[error("no identity can be changed in the restore of {0}")]
    NoNewIdentity(
        /// What is restored.
        &'static str,
    ),
    /// Partitions were to grow where none can.
    #[error("no partition can grow in the restore of {0}")]
    NothingToGrow(
        /// What is restored.
        &'static str,
    ),
    /// Two of the paths to recover end with the same name.
    #[error("two of the paths end with the name {name}: recover them one after the other")]
    SameName {
        /// The name.
        name: String,
    },
    /// More files than one job recovers.
    #[error("there are more than {allowed} files: recover some folders at a time")]
    TooManyFiles {
        /// How many one job recovers.
        allowed: usize,
    },
    /// Paths longer in all than one job holds: files in very deep folders.
    #[error(
        "the paths of the files take more than {allowed} bytes: recover some folders at a time"
    )]
    PathsTooLong {
        /// How many one job holds.
        allowed: usize,
    },
    /// A name that files would get is taken.
    #[error("{} exists", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// The files do not fit where they should go.
    #[error("there is no room in {}: {needed} bytes are needed, {free} are free", dir.display())]
    NoRoom {
        /// The folder.
        dir: PathBuf,
        /// Bytes of all files.
        needed: u64,
        /// Bytes that can be written.
        free: u64,
    },
    /// The target has another length than the plan was made for.
    #[error("{target} has {len} bytes, the plan is for {planned}")]
    OtherLength {
        /// The target's label.
        target: String,
        /// Bytes it had.
        planned: u64,
        /// Bytes it has.
        len: u64,
    },
}

fn existing_partitions(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    match numbers.as_slice() {
        [] => "its table is empty".to_owned(),
        numbers => format!("it has {}", numbers.join(", ")),
    }
}

fn named(filesystem: &str) -> &str {
    if filesystem.is_empty() { "something unknown" } else { filesystem }
}

fn because(problems: &[String]) -> String {
    if problems.is_empty() { String::new() } else { format!(": {}", problems.join("; ")) }
}

fn sentence(uses: &[Use]) -> String {
    uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
