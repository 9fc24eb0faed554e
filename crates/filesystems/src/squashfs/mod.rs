//! Files of SquashFS 4.0: live systems, snaps, firmware.
//!
//! A file is known by the place of its inode: the block behind the beginning of the table of inodes,
//! and the byte of it, as folders refer to it; names that have the same are hard links. Inodes,
//! names, owners and attributes are in tables of compressed blocks, the bytes of files in blocks of
//! their own, and the ends of small files together in others.
//!
//! Read is what is compressed with zlib, LZO, XZ, LZ4 or Zstandard, and what is not compressed. Only
//! one time of a file is kept: when it was modified. Names are told in their order; one that does
//! not come behind the one before it is damage.
//!
//! Facts: `Documentation/filesystems/squashfs.rst` and `fs/squashfs` of Linux.

mod attributes;
mod data;
mod inode;
mod method;
mod superblock;
mod tables;

use std::ops::ControlFlow;

use aiv_volume_io::Job;

use crate::bytes::{le16, le32};
use crate::clusters::is_name;
use crate::reader::Volume;
use crate::recent::Recent;
use crate::{
    Attribute, Entry, Error, FileData, FileId, FileType, Filesystem, FilesystemKind, Metadata,
    ReaderNote, Result,
};
use data::Blocks;
use inode::{Body, Inode, NONE};
use superblock::Superblock;
use tables::{Place, Tables};

/// Blocks of files that are kept: most ends of files are in one that was read before.
const BLOCKS_KEPT: usize = 4;
/// Names behind one header of a folder.
const GROUP_MAX: u32 = 256;
/// What a folder says it has more than the bytes of its names.
const FOLDER_EXTRA: u32 = 3;

/// The files of a volume of SquashFS.
pub(crate) struct Squashfs {
    tables: Tables,
    superblock: Superblock,
    /// By their first byte on the volume.
    blocks: Recent<Vec<u8>>,
}

impl Squashfs {
    pub(crate) fn open(volume: Volume) -> Result<Self> {
        let superblock = Superblock::read(&volume)?;
        let tables = Tables::new(volume, superblock.method);
        let opened = Self { tables, superblock, blocks: Recent::new(BLOCKS_KEPT) };
        let root = opened.inode(opened.root())?;
        if root.file_type != FileType::Folder {
            return Err(Error::damaged("the root is no folder", Some(0)));
        }
        Ok(opened)
    }

    fn inode(&self, file: FileId) -> Result<Inode> {
        if file.space != 0 {
            return Err(Error::damaged("there is no such file", None));
        }
        Inode::read(&self.tables, &self.superblock, file.number)
    }
}

/// What the number beside a name says.
fn type_of(number: u16) -> Option<FileType> {
    Some(match number {
        1 => FileType::Folder,
        2 => FileType::File,
        3 => FileType::Link,
        4 => FileType::BlockDevice,
        5 => FileType::CharDevice,
        6 => FileType::Pipe,
        7 => FileType::Socket,
        _ => return None,
    })
}

impl Filesystem for Squashfs {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Squashfs
    }

    fn notes(&self) -> &[ReaderNote] {
        &[]
    }

    fn root(&self) -> FileId {
        FileId { space: 0, number: self.superblock.root }
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        self.inode(file)?.metadata(&self.tables, &self.superblock)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let Body::Folder { block, offset, len } = self.inode(folder)?.body else {
            return Err(Error::WrongType { wanted: "folder" });
        };
        let mut left = len.saturating_sub(FOLDER_EXTRA);
        let reference = u64::from(block) << 16 | u64::from(offset);
        let place = Place::of(reference, self.superblock.folder_table)?;
        let damaged = |what: &str| Error::damaged(format!("a folder {what}"), Some(place.block));
        let mut at = self.tables.from(place);
        let mut take = |count: usize| {
            let rest = u32::try_from(count).ok().and_then(|count| left.checked_sub(count));
            left = rest.ok_or_else(|| damaged("breaks off"))?;
            Ok::<u32, Error>(left)
        };
        let mut last: Option<Vec<u8>> = None;
        let mut error = None;
        while take(0)? > 0 {
            job.check()?;
            take(12)?;
            let head: [u8; 12] = at.array()?;
            let (count, inodes) = (le32(&head, 0).saturating_add(1), le32(&head, 4));
            if count > GROUP_MAX {
                return Err(damaged("has too many names in one place"));
            }
            for _ in 0..count {
                take(8)?;
                let record: [u8; 8] = at.array()?;
                let len = usize::from(le16(&record, 6)) + 1;
                take(len)?;
                let name = at.bytes(len)?;
                if !is_name(&name) || last.as_ref().is_some_and(|last| *last >= name) {
                    let what = "has a name that is impossible or out of order";
                    error.get_or_insert_with(|| damaged(what));
                    continue;
                }
                last = Some(name.clone());
                let id = FileId {
                    space: 0,
                    number: u64::from(inodes) << 16 | u64::from(le16(&record, 0)),
                };
                let file_type = type_of(le16(&record, 4));
                if visit(Entry { name, id, file_type }).is_break() {
                    return Ok(());
                }
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        match self.inode(file)?.body {
            Body::File(file) => Ok(Box::new(Blocks::open(self, &file)?)),
            _ => Err(Error::WrongType { wanted: "file" }),
        }
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        match self.inode(link)?.body {
            Body::Link(target) => Ok(target),
            _ => Err(Error::WrongType { wanted: "symbolic link" }),
        }
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        match self.inode(file)?.attributes {
            NONE => Ok(Vec::new()),
            number => attributes::read(&self.tables, &self.superblock, number),
        }
    }
}
