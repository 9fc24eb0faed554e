use aiv_volume_io::{ExtentSet, Job, ReadAt};

use crate::btrfs::{self, BtrfsReason};
use crate::exfat::{self, ExFatReason};
use crate::ext::{self, ExtReason};
use crate::fat::{self, FatReason};
use crate::lvm::{self, LogicalVolumeReason, LvmReason};
use crate::ntfs::{self, NtfsReason};
use crate::swap::{self, SwapReason};
use crate::wrapped;
use crate::xfs::{self, XfsReason};
use crate::{FilesystemKind, Recognised, Result};

/// Which bytes of a volume a backup has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsedMap {
    /// The filesystem's own records were read, proven consistent, and name these bytes.
    Used {
        /// Bytes that matter. Everything outside is free space of the filesystem; the area
        /// before the first and after the last cluster of the filesystem counts as used.
        used: ExtentSet,
        /// The filesystem's unit of allocation in bytes: a power of two, 256 bytes to 1 GiB.
        cluster_size: u32,
        /// What the user should know about the state the map was read in.
        notes: Vec<MapNote>,
    },
    /// Every byte of the volume has to be kept.
    Whole {
        /// Why there is no smaller answer.
        reason: WholeReason,
    },
}

/// Why every byte of a volume has to be kept. `Display` says it to the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WholeReason {
    /// No signature known here.
    #[error("unknown filesystem")]
    UnknownFilesystem,
    /// The kind is recognised, but its used blocks cannot be told.
    #[error("no used-block map for {kind} yet")]
    NoMap {
        /// What was recognised.
        kind: FilesystemKind,
    },
    /// Without the key, free space looks like data.
    #[error(
        "encrypted ({by}): every sector looks used; a backup of the unlocked volume is smaller, \
         and not encrypted"
    )]
    Encrypted {
        /// What encrypts it, by the name its users know.
        by: &'static str,
    },
    /// The volume is one of several, or the lower side of another.
    #[error("a part of {of}: which blocks are used can only be told from the whole{advice}")]
    PartOf {
        /// What, with its article.
        of: &'static str,
        /// What the user can do, beginning with a semicolon; empty when there is nothing.
        advice: &'static str,
    },
    /// A read-only filesystem, which has no free blocks.
    #[error("{kind} is read-only and has no free space")]
    NoFreeSpace {
        /// What was recognised.
        kind: FilesystemKind,
    },
    /// Signatures of two kinds are present; one of them is a left-over.
    #[error("the volume carries signatures of both {kind} and {other}")]
    Ambiguous {
        /// What was recognised.
        kind: FilesystemKind,
        /// The signature that contradicts it.
        other: FilesystemKind,
    },
    /// An ext2, ext3 or ext4 filesystem that cannot be trusted or is not understood.
    #[error("ext filesystem: {0}")]
    Ext(ExtReason),
    /// An NTFS filesystem that cannot be trusted or is not understood.
    #[error("NTFS: {0}")]
    Ntfs(NtfsReason),
    /// An XFS filesystem that cannot be trusted or is not understood.
    #[error("XFS filesystem: {0}")]
    Xfs(XfsReason),
    /// A Btrfs filesystem that cannot be trusted or is not understood.
    #[error("Btrfs filesystem: {0}")]
    Btrfs(BtrfsReason),
    /// A FAT filesystem that cannot be trusted or is not understood.
    #[error("FAT filesystem: {0}")]
    Fat(FatReason),
    /// An exFAT filesystem that cannot be trusted or is not understood.
    #[error("exFAT filesystem: {0}")]
    ExFat(ExFatReason),
    /// Swap space that may hold something, or is not understood.
    #[error("swap space: {0}")]
    Swap(SwapReason),
    /// An LVM2 physical volume that cannot be trusted or is not understood.
    #[error("LVM2 physical volume: {0}")]
    Lvm(LvmReason),
    /// A logical volume of LVM2 whose bytes are not in one piece, or not its own.
    #[error(transparent)]
    LogicalVolume(LogicalVolumeReason),
}

/// Something the user should know about a map.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapNote {
    /// The filesystem was not unmounted. The map holds what is used both before and after its
    /// journal is replayed; the first mount of the restored volume replays it.
    JournalPending {
        /// Committed transactions that wait in the journal.
        transactions: u32,
    },
    /// Multi-mount protection says that some computer has the filesystem mounted right now.
    MountedElsewhere,
    /// NTFS files occupy clusters that `$Bitmap` calls free. They are in the map.
    NotInBitmap {
        /// How many.
        clusters: u64,
    },
    /// The filesystem was not unmounted and has no journal. The map holds all that its records
    /// call used; a repair of the restored volume may find clusters nobody needs.
    NotUnmounted,
    /// The filesystem's driver met errors of the medium some time ago.
    MediaFailed,
    /// The backup of the boot region is not its equal.
    BackupBootDiffers,
    /// Files of a Btrfs filesystem were synced since its last commit. The map holds its log, and
    /// what the log refers to; the first mount of the restored volume replays it.
    LogPending,
    /// Tree blocks of a Btrfs filesystem were read from their second copy, as the first is
    /// damaged. Both copies are in the map.
    DamagedCopies {
        /// How many of the blocks that were read. There may be more.
        blocks: u64,
    },
    /// A copy of the superblock is damaged or older than the first.
    SuperblockCopiesDiffer,
    /// A logical volume lies in the volume. There is one such note for each.
    LogicalVolume {
        /// `GROUP/NAME`.
        name: String,
        /// What it holds, [`Unknown`](FilesystemKind::Unknown) also when nobody looked.
        filesystem: FilesystemKind,
        /// Bytes of it that lie in the volume.
        len: u64,
        /// Those of them that are kept.
        used: u64,
        /// Why all of them are kept; none when the filesystem in it has a map.
        reason: Option<Box<WholeReason>>,
    },
    /// Something about a filesystem in a logical volume.
    Within {
        /// `GROUP/NAME`, names of nested volumes behind each other.
        name: String,
        /// What.
        note: Box<MapNote>,
    },
}

/// Reads which bytes of `volume` matter, in clusters of the filesystem `recognised`.
///
/// Reads the allocation records only: about one byte in 32,768 of an ext4 volume with 4 KiB
/// blocks, and the journal where one waits to be replayed; the table of files, `$Bitmap` and the
/// start of the log of NTFS; the free-space trees of XFS and the end of its log; the chunk, root,
/// device, extent and log trees of Btrfs; the tables or the bitmap, and all directories, of a FAT or
/// exFAT volume; the front of a swap space; the metadata of an LVM2 physical volume, and all of this
/// for each filesystem in its logical volumes.
///
/// Takes 16 bytes of memory for each run of the map, and beside them about 120 bytes for each
/// group of ext4 (128 MiB of such a volume), two bits for each cluster of NTFS (1 GiB for 16 TiB
/// in clusters of 4 KiB), three bits for each cluster of FAT and exFAT; for Btrfs as many bytes for
/// each run again, and one bit for each sector of its chunks of metadata.
///
/// The volume must not change until it has been copied.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when the medium fails, [`Error::Canceled`](crate::Error)
/// when `job` is stopped. Damaged or unknown content is [`UsedMap::Whole`] instead.
pub fn used_map(volume: &dyn ReadAt, recognised: &Recognised, job: Job<'_>) -> Result<UsedMap> {
    used_map_in(volume, recognised, 0, job)
}

/// The map of a volume inside `depth` others.
pub(crate) fn used_map_in(
    volume: &dyn ReadAt,
    recognised: &Recognised,
    depth: usize,
    job: Job<'_>,
) -> Result<UsedMap> {
    let kind = recognised.kind;
    if let Some(&other) = recognised.also.first() {
        return Ok(UsedMap::Whole { reason: WholeReason::Ambiguous { kind, other } });
    }
    match kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            ext::used_map(volume, job)
        }
        FilesystemKind::Ntfs => ntfs::used_map(volume, job),
        FilesystemKind::Xfs => xfs::used_map(volume, job),
        FilesystemKind::Btrfs => btrfs::used_map(volume, job),
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => {
            fat::used_map(volume, job)
        }
        FilesystemKind::ExFat => exfat::used_map(volume, job),
        FilesystemKind::Swap | FilesystemKind::SwapSuspended => swap::used_map(volume),
        FilesystemKind::Lvm2Member => lvm::used_map(volume, depth, job),
        kind => wrapped::used_map(volume, kind),
    }
}
