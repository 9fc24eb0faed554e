//! Files by name, and the bytes of the volume that are their data and nothing else.
//!
//! [`find_files`] answers for a backup that shall leave out what files hold. It fails closed
//! twice: a volume whose records do not prove who owns a block has no answer
//! ([`Matching::Nothing`]), and a file of which anything is shared, special or not understood is
//! kept ([`KeptFile`]).

mod names;
mod owners;
mod patterns;

use aiv_volume_io::{Extent, Job, ReadAt};

use crate::stop::Stop;
use crate::{
    Error, FilesystemKind, MapNote, Recognised, Result, UsedMap, btrfs, exfat, ext, fat, lvm, ntfs,
    xfs,
};
pub(crate) use names::{Candidate, Names, Walk};
pub(crate) use owners::{Owners, PAGE, is_swap_signature};
pub(crate) use patterns::any_matches;
pub use patterns::{BadPattern, Pattern, fold};

/// Files an answer may name; bounds its memory to a few hundred megabytes.
pub(crate) const FILES_MAX: usize = 1 << 20;
/// Pieces the files of an answer may be in.
pub(crate) const PIECES_MAX: usize = 1 << 21;
/// Bytes the paths of an answer may have.
pub(crate) const PATH_BYTES_MAX: usize = 256 << 20;
/// Kept files that are named; the others are counted.
const KEPT_MAX: usize = 1000;

/// Whether files could be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matching {
    /// They could.
    Files(MatchingFiles),
    /// The volume does not prove which file owns which block: no file of it may be left out.
    Nothing {
        /// Why.
        reason: NothingReason,
    },
}

/// The files whose paths match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchingFiles {
    /// Those whose data belongs to them alone, by path. Files without data are not among them:
    /// there is nothing to leave out.
    pub files: Vec<FileExtents>,
    /// Those that must be kept, and why; the first thousand.
    pub kept: Vec<KeptFile>,
    /// How many must be kept.
    pub kept_count: u64,
    /// Volumes inside the volume of which no file may be left out.
    pub inner: Vec<InnerVolume>,
}

/// A logical volume without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerVolume {
    /// `GROUP/NAME`, names of nested volumes behind each other.
    pub name: String,
    /// What it holds, [`Unknown`](FilesystemKind::Unknown) also when nobody looked.
    pub filesystem: FilesystemKind,
    /// Why there is none.
    pub reason: NothingReason,
}

/// Where the data of one file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileExtents {
    /// Path inside the volume, `/` between folders, without one in front. Bytes of a name that
    /// are no UTF-8 are replaced. Of several names one. In a logical volume, `GROUP/NAME:` stands
    /// before it.
    pub path: String,
    /// Length of the file in bytes.
    pub len: u64,
    /// Bytes of the volume, whole blocks of the filesystem, ascending, disjoint. Holes of the
    /// file are not among them; blocks behind its end may be.
    pub extents: Vec<Extent>,
}

/// A file that matches and is kept all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Path of the file or folder inside the volume.
    pub path: String,
    /// Why it is kept.
    pub reason: KeptReason,
}

/// Why a file is kept that matches. `Display` says it to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeptReason {
    /// A hard link that is not meant.
    #[error("it has another name that does not match")]
    OtherName,
    /// Its data lies among the records of the filesystem.
    #[error("its data lies within its own record")]
    InRecord,
    /// A file of the filesystem itself.
    #[error("it belongs to the filesystem itself")]
    SystemFile,
    /// A link, or something only a driver of Windows can read.
    #[error("it is a reparse point")]
    ReparsePoint,
    /// Encrypted by the filesystem.
    #[error("it is encrypted")]
    Encrypted,
    /// Compressed by the filesystem.
    #[error("it is compressed")]
    Compressed,
    /// Reading it fails when its content is another.
    #[error("its content is sealed (fs-verity)")]
    Sealed,
    /// Something else uses the same blocks.
    #[error("it shares blocks with something else: check the filesystem")]
    Shared,
    /// Other files, or snapshots, have all of its blocks as well.
    #[error("other files or snapshots share all of its data")]
    Common,
    /// Its record contradicts itself.
    #[error("its record is not understood: {0}")]
    NotUnderstood(&'static str),
    /// What is in the folder cannot be told.
    #[error("what is in the folder cannot be told: {0}")]
    Folder(&'static str),
    /// The answer became too large.
    #[error("too many files match")]
    TooMany,
}

/// Why no file of a volume may be left out. `Display` says it to the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NothingReason {
    /// Which bytes are used cannot be told, so neither can whose they are.
    #[error("the volume is kept in full")]
    KeptInFull,
    /// Nobody looks into files of this kind of filesystem.
    #[error("files of {kind} cannot be excluded yet")]
    NoFiles {
        /// What was recognised.
        kind: FilesystemKind,
    },
    /// The records in place may be older than the truth.
    #[error("the filesystem was not unmounted; unmount it, or back up with --freeze or --snapshot")]
    NotUnmounted,
    /// Some computer may be changing it.
    #[error("some computer has the filesystem mounted")]
    MountedElsewhere,
    /// The records do not prove who owns which block.
    #[error("the filesystem is damaged or not understood ({what}); check it")]
    Damaged {
        /// The record and its fault.
        what: String,
    },
}

/// Finds the regular files of `volume` that match any of `patterns`, and where their data lies.
///
/// `map` is what [`used_map`](crate::used_map) answered for the volume: without a map, or with
/// one of a filesystem that was not unmounted, there is no answer.
///
/// Reads of ext2, ext3 and ext4 all folders, inodes and block maps: no block is named that anything
/// else lays claim to, metadata least of all. Takes a quarter of a byte of memory for each inode.
/// Reads the table of files of NTFS twice, whose map is the proof that no two files share a
/// cluster. Takes the names of all its folders in memory. Of XFS, reads all folders, inodes and
/// extent lists, and the trees of all groups. Of Btrfs, the folders, the extent tree twice, and the
/// trees of subvolumes with files that match; blocks that others share stay. Of FAT and exFAT, all
/// folders, and of FAT the table. Takes 16 bytes of memory for each of their folders. Of an LVM2
/// physical volume, looks into the logical ones. Besides, the answer takes its memory.
///
/// The volume must not change until it has been copied.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when the medium fails, [`Error::Canceled`](crate::Error)
/// when `job` is stopped. Damaged or unknown content is [`Matching::Nothing`] or a
/// [`KeptFile`] instead.
pub fn find_files(
    volume: &dyn ReadAt,
    recognised: &Recognised,
    map: &UsedMap,
    patterns: &[Pattern],
    job: Job<'_>,
) -> Result<Matching> {
    find_files_in(volume, recognised, map, patterns, 0, job)
}

/// The files of a volume inside `depth` others.
pub(crate) fn find_files_in(
    volume: &dyn ReadAt,
    recognised: &Recognised,
    map: &UsedMap,
    patterns: &[Pattern],
    depth: usize,
    job: Job<'_>,
) -> Result<Matching> {
    let nothing = |reason| Ok(Matching::Nothing { reason });
    let UsedMap::Used { used, notes, .. } = map else {
        return nothing(NothingReason::KeptInFull);
    };
    for note in notes {
        match note {
            MapNote::JournalPending { .. } | MapNote::NotUnmounted | MapNote::LogPending => {
                return nothing(NothingReason::NotUnmounted);
            }
            MapNote::MountedElsewhere => return nothing(NothingReason::MountedElsewhere),
            _ => {}
        }
    }
    let found = match recognised.kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            return ext::find_files(volume, used, patterns, job);
        }
        FilesystemKind::Ntfs => ntfs::find_files(volume, used, patterns, job),
        kind @ (FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32) => {
            fat::find_files(volume, kind, used, patterns, job)
        }
        FilesystemKind::Btrfs => btrfs::find_files(volume, used, patterns, job),
        FilesystemKind::Xfs => xfs::find_files(volume, used, patterns, job),
        FilesystemKind::ExFat => exfat::find_files(volume, used, patterns, job),
        FilesystemKind::Lvm2Member => lvm::find_files(volume, patterns, depth, job),
        kind => return nothing(NothingReason::NoFiles { kind }),
    };
    Matching::answer(found)
}

impl Matching {
    /// What the caller of the crate gets to see.
    fn answer(read: std::result::Result<MatchingFiles, Stop>) -> Result<Self> {
        match read {
            Ok(files) => Ok(Self::Files(files)),
            Err(Stop::Whole(reason)) => {
                Ok(Self::Nothing { reason: NothingReason::Damaged { what: reason.to_string() } })
            }
            Err(Stop::Failed(Error::Damaged { what, .. } | Error::Unsupported { what })) => {
                Ok(Self::Nothing { reason: NothingReason::Damaged { what } })
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

impl MatchingFiles {
    /// Takes note of a file that is kept.
    pub(crate) fn keep(&mut self, path: String, reason: KeptReason) {
        self.kept_count += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.push(KeptFile { path, reason });
        }
    }
}

/// A bit for each of many numbered records.
pub(crate) struct Bits {
    bytes: Vec<u8>,
}

impl Bits {
    /// All clear, for the numbers `0 ..= last`.
    pub(crate) fn new(last: u32) -> Self {
        Self { bytes: vec![0; last as usize / 8 + 1] }
    }

    pub(crate) fn is_set(&self, number: u32) -> bool {
        self.bytes.get(number as usize / 8).is_some_and(|byte| byte & 1 << (number % 8) != 0)
    }

    /// Sets a bit and tells whether it was clear.
    pub(crate) fn set(&mut self, number: u32) -> bool {
        let was_set = self.is_set(number);
        if let Some(byte) = self.bytes.get_mut(number as usize / 8) {
            *byte |= 1 << (number % 8);
        }
        !was_set
    }
}
