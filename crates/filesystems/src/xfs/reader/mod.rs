//! XFS, versions 4 and 5: its files.
//!
//! A file is an inode, whose number says where it lies, and two forks in it: one of contents,
//! names or what a link says, the other of extended attributes. A fork lies in the inode, or is a
//! list of extents, or a B+tree of them. In version 5 every block of metadata carries a checksum,
//! its place, and whose it is; all of them are compared, and what does not fit is damaged. In
//! version 4 there are magics and bounds only.
//!
//! Folders are told from their blocks of names alone. One name is looked up by the index of
//! hashes, and among all names where the index is damaged.
//!
//! What waits in the log is read as it will be after a replay, see `replay`; where that cannot be
//! told, records are read as they lie, and a [`ReaderNote::NotReplayed`] says so.
//!
//! # What is not read
//! Files on a realtime device. Filesystems with a tree of metadata folders (`metadir`), which
//! came with realtime groups, and zoned ones. Quota and project numbers. Lists of access are told
//! as `system.posix_acl_*` alone, not as `trusted.SGI_ACL_*`, which is what Linux calls the same
//! bytes.
//!
//! Facts: "XFS Algorithms & Data Structures", 3rd edition; the kernel's `xfs_format.h`,
//! `xfs_da_format.h`, `xfs_acl.c` and `xfs_sysmacros.h` of IRIX for the numbers of devices.

mod acl;
mod attributes;
mod folder;
mod fork;
mod index;
mod inode;
mod inode_item;
mod layout;
mod link;
mod names;
mod owned;
mod replay;
mod superblock;

use std::ops::ControlFlow;

use aiv_volume_io::Job;

use crate::reader::{
    Attribute, Entry, FileData, FileId, FileType, Filesystem, Metadata, Piece, Pieces, ReaderNote,
    VolumeOf,
};
use crate::{Error, FilesystemKind, Result};
use folder::Folder;
use fork::{Fork, Place};
use index::Search;
use inode::{Inode, Which};
use layout::Layout;
pub(crate) use owned::find as find_files;

/// Opens the filesystem on a volume.
pub(crate) fn open<'v>(volume: VolumeOf<'v>, job: Job<'_>) -> Result<Box<dyn Filesystem + 'v>> {
    let (layout, notes) = superblock::read(volume, job)?;
    Ok(Box::new(Xfs { layout, notes }))
}

struct Xfs<'v> {
    layout: Layout<'v>,
    notes: Vec<ReaderNote>,
}

impl Xfs<'_> {
    fn inode(&self, id: FileId) -> Result<Inode> {
        if id.space != 0 {
            return Err(Error::damaged("there can be no such file", None));
        }
        Inode::read(&self.layout, id.number)
    }

    fn folder(&self, id: FileId) -> Result<Folder<'_>> {
        if id.space != 0 {
            return Err(Error::damaged("there can be no such folder", None));
        }
        Folder::read(&self.layout, id.number)
    }
}

impl Filesystem for Xfs<'_> {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Xfs
    }

    fn notes(&self) -> &[ReaderNote] {
        &self.notes
    }

    fn root(&self) -> FileId {
        FileId { space: 0, number: self.layout.shape.root }
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        self.inode(file)?.metadata(&self.layout)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.folder(folder)?.tell(job, visit)
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        let folder = self.folder(folder)?;
        let is_it = |other: &[u8]| index::is_same(&self.layout, name, other);
        if let Some(found) = folder.find_short(is_it)? {
            return Ok(found.map(|entry| entry.id));
        }
        let search = Search { fork: folder.fork()?, folder: &folder, name };
        match search.run() {
            Ok(Some(entry)) => return Ok(Some(entry.id)),
            // Older kernels disagree with newer ones about the hashes of names without case.
            Ok(None) if !self.layout.shape.ignores_case => return Ok(None),
            Ok(None) | Err(_) => {}
        }
        let mut found = None;
        let read = folder.tell(job, &mut |entry| {
            if is_it(&entry.name) {
                found = Some(entry.id);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        found.map_or_else(|| read.map(|()| None), |id| Ok(Some(id)))
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let inode = self.inode(file)?;
        if inode.file_type() != FileType::File {
            return Err(Error::WrongType { wanted: "file" });
        }
        let place = inode.fork(Which::Data)?;
        let Some(place @ (Place::Extents { extents, .. } | Place::Tree { extents, .. })) = place
        else {
            return Err(inode.damaged("a file in a format that files do not have"));
        };
        if inode.is_on_realtime_device() && extents > 0 {
            let what = "files on a realtime device of XFS cannot be read".to_owned();
            return Err(Error::Unsupported { what });
        }
        let fork = Fork::read(&self.layout, place, inode.number)?;
        let block_size = self.layout.block_size();
        let mut pieces = Pieces::new(&self.layout.volume);
        for run in fork.runs.iter().filter(|run| !run.is_unwritten) {
            let logical = run.logical.checked_mul(block_size);
            pieces.push(Piece {
                logical: logical.ok_or_else(|| inode.damaged("an extent lies too far behind"))?,
                physical: run.physical,
                len: u64::from(run.blocks) * block_size,
            })?;
        }
        Ok(Box::new(pieces.finish(inode.len(), inode.len())))
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        link::read(&self.layout, &self.inode(link)?)
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        attributes::read(&self.layout, &self.inode(file)?)
    }
}
