//! Files of a volume, read: names, metadata, contents.
//!
//! [`open_filesystem`] answers with a [`Filesystem`], one interface for every kind that can be
//! read. Nothing is mounted and nothing is written; records that wait in a journal or log are read
//! through it where that is safe, and a [`ReaderNote`] says so where it is not.
//!
//! Everything on the volume is an attacker's: whoever walks folders must expect loops (a folder
//! within itself), names that are no names on his own system, and sizes that nothing backs.

mod facts;
mod mapped;
mod names;
mod volume;

use std::ops::ControlFlow;
use std::sync::Arc;

use aiv_volume_io::{Extent, Job, ReadAt};

use crate::btrfs::Btrfs;
use crate::exfat::ExFat;
use crate::fat::Fat;
use crate::iso9660::Iso9660;
use crate::squashfs::Squashfs;
use crate::{Error, FilesystemKind, Recognised, Result, ext, ntfs, xfs};
pub use facts::{
    Attribute, Device, Entry, FileFlags, FileId, FileType, Metadata, Owner, ReaderNote, Stream,
    Timestamp,
};
pub(crate) use mapped::{Inline, Mapped, Piece, Pieces};
pub(crate) use names::wtf8;
pub(crate) use volume::{Volume, VolumeOf};

/// Bytes of a name no filesystem exceeds: 255 units of UTF-16 in UTF-8.
pub const NAME_BYTES_MAX: usize = 765;
/// Bytes of the target of a symbolic link: what fits into a page, and twice as much of UTF-16.
pub const LINK_BYTES_MAX: usize = 64 << 10;
/// Bytes of all extended attributes of a file.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 20;
/// Pieces of a file in one answer of [`FileData::extents`]; bounds the memory for one file.
pub const EXTENTS_MAX: usize = 1 << 20;

/// The files of a filesystem, read-only, usable from many threads.
///
/// An error of kind [`Error::Damaged`] is about the file or folder that was asked for: others can
/// still be read.
pub trait Filesystem: Send + Sync {
    /// What it is.
    fn kind(&self) -> FilesystemKind;

    /// What the user should know about the state the files are read in.
    fn notes(&self) -> &[ReaderNote];

    /// The folder everything is in.
    fn root(&self) -> FileId;

    /// What is known about a file.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its record is not understood, [`Error::Io`] when the medium fails.
    fn metadata(&self, file: FileId) -> Result<Metadata>;

    /// Tells `visit` every name in a folder, `.` and `..` left out, in the order of the disk,
    /// until it breaks off. A name is told once.
    ///
    /// # Errors
    /// [`Error::WrongType`] when it is no folder. [`Error::Damaged`] and [`Error::Io`] come last,
    /// after all names that could be read were told; more may be missing.
    /// [`Error::Canceled`] when `job` is stopped.
    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The file of this name in a folder, by the filesystem's own rules of upper and lower case.
    ///
    /// # Errors
    /// Those of [`entries`](Self::entries), when the name was not among those that could be read.
    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        let mut found = None;
        let read = self.entries(folder, job, &mut |entry| {
            if entry.name == name {
                found = Some(entry.id);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        found.map_or_else(|| read.map(|()| None), |id| Ok(Some(id)))
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// [`Error::WrongType`] when it has none, [`Error::Unsupported`] when they are encrypted or
    /// stored in a way that is not known here, else those of [`metadata`](Self::metadata).
    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>>;

    /// What a symbolic link says, as it says it.
    ///
    /// # Errors
    /// [`Error::WrongType`] when it is no link, else those of [`metadata`](Self::metadata).
    fn link_target(&self, link: FileId) -> Result<Vec<u8>>;

    /// Extended attributes by the names Linux gives them, `system.posix_acl_access` among them in
    /// the form `getxattr` returns; of NTFS `system.ntfs_acl` (the security descriptor) and
    /// `system.ntfs_reparse_data`, as `ntfs-3g` has them.
    ///
    /// # Errors
    /// Those of [`metadata`](Self::metadata).
    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>>;

    /// Named streams beside the bytes of a file or folder: only NTFS has any.
    ///
    /// # Errors
    /// Those of [`metadata`](Self::metadata).
    fn streams(&self, file: FileId) -> Result<Vec<Stream>> {
        let _ = file;
        Ok(Vec::new())
    }

    /// The bytes of a named stream.
    ///
    /// # Errors
    /// [`Error::Damaged`] when there is no such stream, else those of [`open`](Self::open).
    fn open_stream(&self, file: FileId, name: &[u8]) -> Result<Box<dyn FileData + '_>> {
        let _ = (file, name);
        Err(Error::damaged("a file has no such stream", None))
    }
}

/// The bytes of a file or stream.
///
/// Reading fails with [`std::io::ErrorKind::InvalidData`] where what is stored is not understood (compressed
/// data that does not decompress), and as the volume does where that cannot be read; other parts
/// of the file can still be read. [`holes`](ReadAt::holes) are those of the file, allocated and
/// never written parts among them.
pub trait FileData: ReadAt {
    /// Where on the volume its bytes lie, in the order of the file: nothing for holes, and for
    /// bytes that lie within records; compressed data in its stored length.
    ///
    /// # Errors
    /// [`Error::Damaged`] when there are more than [`EXTENTS_MAX`], or the map cannot be read.
    fn extents(&self) -> Result<Vec<Extent>>;
}

/// Opens the filesystem that was recognised on a volume, to read its files.
///
/// Metadata is read through a cache of 8 MiB. The volume must not change while it is open.
///
/// # Errors
/// [`Error::Unsupported`] for kinds that cannot be read, and for features that are not known here;
/// [`Error::Damaged`] when what everything hangs on cannot be used; [`Error::Io`] when the medium
/// fails; [`Error::Canceled`] when `job` is stopped.
pub fn open_filesystem(
    volume: Arc<dyn ReadAt>,
    recognised: &Recognised,
    job: Job<'_>,
) -> Result<Box<dyn Filesystem>> {
    job.check()?;
    let volume = Volume::new(volume);
    let kind = recognised.kind;
    match kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            ext::open(volume, kind, job)
        }
        FilesystemKind::Ntfs => ntfs::open(volume, job),
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => {
            Ok(Box::new(Fat::open(volume, kind)?))
        }
        FilesystemKind::Iso9660 => Ok(Box::new(Iso9660::open(volume)?)),
        FilesystemKind::Squashfs => Ok(Box::new(Squashfs::open(volume)?)),
        FilesystemKind::ExFat => Ok(Box::new(ExFat::open(volume, job)?)),
        FilesystemKind::Xfs => xfs::open(volume, job),
        FilesystemKind::Btrfs => Ok(Box::new(Btrfs::open(volume, job)?)),
        _ => Err(Error::Unsupported { what: format!("files of {kind} cannot be read") }),
    }
}
