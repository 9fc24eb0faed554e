//! Read-only knowledge of filesystems: what lies on a volume, and which of its bytes matter.
//!
//! [`recognise`] names the filesystem (or container) on a volume from its signatures.
//! [`used_map`] reads the filesystem's own allocation records and answers which bytes a backup
//! has to keep. It fails closed: whatever is not understood, or contradicts itself, is answered
//! with [`UsedMap::Whole`] and a [`WholeReason`], never with a smaller map.
//! [`open_filesystem`] reads its files; [`logical_volumes`], [`raid_contents`], [`raid_arrays`] and [`open_luks`] give
//! the volumes inside of others.
//!
//! ```
//! use aiv_filesystems::{FilesystemKind, UsedMap, WholeReason, recognise, used_map};
//! use aiv_volume_io::{Job, MemDisk};
//!
//! let volume = MemDisk::from_bytes(vec![0; 1 << 20]);
//! let recognised = recognise(&volume)?;
//! assert_eq!(recognised.kind, FilesystemKind::Unknown);
//! let map = used_map(&volume, &recognised, Job::silent())?;
//! assert_eq!(map, UsedMap::Whole { reason: WholeReason::UnknownFilesystem });
//! # Ok::<(), aiv_filesystems::Error>(())
//! ```
//!
//! # Errors
//! Only the medium and the caller can make maps and recognition fail ([`Error::Io`],
//! [`Error::Canceled`]); no content of a volume does. Whoever reads files is told what is damaged
//! ([`Error::Damaged`]) and what is not known here ([`Error::Unsupported`]).
//!
//! # The volume must stand still
//! A map describes the volume as it was read. It is good for a copy only if nothing writes to
//! the volume from the first read of the map to the last read of the copy: a snapshot, a frozen
//! or a not mounted filesystem. This crate cannot see whether that holds.

mod bitmap;
mod btrfs;
mod bytes;
mod clusters;
mod contained;
mod crc32;
mod error;
mod exfat;
mod expand;
mod ext;
mod f2fs;
mod fat;
mod files;
mod iso9660;
mod kind;
mod luks;
mod lvm;
mod lzo;
mod md;
mod ntfs;
mod reader;
mod recent;
mod recognise;
mod runs;
mod squashfs;
mod stop;
mod swap;
mod thin;
mod used_map;
mod wrapped;
mod xfs;

pub use btrfs::BtrfsReason;
pub use contained::{
    LogicalVolume, LogicalVolumes, LuksContents, MEMBERS_MAX, RaidArray, RaidContents, Span,
    logical_volumes, open_luks, raid_arrays, raid_contents, stale_mirrors,
};
pub use error::{Error, Result};
pub use exfat::ExFatReason;
pub use ext::{ExtReason, FeatureClass, JournalReason};
pub use f2fs::F2fsReason;
pub use fat::FatReason;
pub use files::{
    BadPattern, FileExtents, InnerVolume, KeptFile, KeptReason, Matching, MatchingFiles,
    NothingReason, Pattern, find_files, fold,
};
pub use kind::FilesystemKind;
pub use luks::{LuksKey, LuksKeys};
pub use lvm::{LogicalVolumeReason, LvmReason};
pub use ntfs::{NtfsLogReason, NtfsReason};
pub use reader::{
    ATTRIBUTES_BYTES_MAX, Attribute, Device, EXTENTS_MAX, Entry, FileData, FileFlags, FileId,
    FileType, Filesystem, LINK_BYTES_MAX, Metadata, NAME_BYTES_MAX, Owner, ReaderNote, Stream,
    Timestamp, open_filesystem,
};
pub use recognise::{Recognised, recognise};
pub use swap::SwapReason;
pub use used_map::{MapNote, UsedMap, WholeReason, used_map};
pub use xfs::{LogState as XfsLogState, XfsReason};
