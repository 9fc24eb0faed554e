//! The files of Btrfs.
//!
//! Shown is the tree of subvolume 5, in which all other subvolumes and snapshots are folders, as
//! `mount -o subvolid=5` does, whatever the default subvolume is. A snapshot has an empty folder
//! in the place of each subvolume within its original, as snapshots do not go into these.
//!
//! Every block of a tree is proven as it is for a map, but for its owner: snapshots share blocks.
//! Data are compared with their checksums, where the file has any. Of both a second copy on the
//! device stands in for a first that is damaged.
//!
//! # Devices
//! Of a filesystem of several devices that is read what lies whole on the one at hand: copies of
//! RAID1 and its kin, and chunks that are all here. What is elsewhere, or in stripes, is an error
//! of the files and folders in it.
//!
//! # Not read
//! The log of what was synced since the last commit ([`ReaderNote::NotReplayed`]), the trees of
//! earlier commits, and the contents of fs-verity's tree, which prove what the checksums do.
//!
//! Facts: as for maps; `compression.c`, `lzo.c` and `inode.c` of the kernel for compressed
//! extents and for folders in snapshots.

mod compressed;
mod contents;
mod extent;
mod folders;
mod inode;
mod names;
mod search;
mod sums;

use std::ops::ControlFlow;
use std::sync::Mutex;

use aiv_volume_io::{Job, ReadAt};

use super::key::{Key, kind};
use super::reason::BtrfsReason;
use super::superblock::{Root, Superblock};
use super::tree::Tree;
use crate::reader::VolumeOf;
use crate::stop::Stop;
use crate::{
    ATTRIBUTES_BYTES_MAX, Attribute, Entry, Error, FileData, FileId, FileType, Filesystem,
    FilesystemKind, LINK_BYTES_MAX, Metadata, ReaderNote, Result, WholeReason,
};
use contents::Contents;
use inode::Inode;
use names::EMPTY_FOLDER;
use search::{Trees, error};
use sums::SumsRoot;

/// The subvolume all others are in.
const TOP: u64 = 5;
/// First and last number of the others, and of files.
const FIRST: u64 = 256;
const LAST: u64 = 256u64.wrapping_neg();

/// A filesystem that is open.
pub(crate) struct Btrfs<'v> {
    trees: Trees<'v>,
    sums: SumsRoot,
    root: FileId,
    notes: Vec<ReaderNote>,
}

impl<'v> Btrfs<'v> {
    /// # Errors
    /// [`Error::Unsupported`] for features that are not known, [`Error::Damaged`] when there is no
    /// sound superblock, or neither chunks nor the top of the files can be read.
    pub(crate) fn open(volume: VolumeOf<'v>, job: Job<'_>) -> Result<Self> {
        let (superblock, is_copy) = Superblock::read_for_files(&volume).map_err(unusable)?;
        let mut notes = Vec::new();
        if is_copy {
            notes.push(ReaderNote::CopyUsed { what: "the superblock".to_owned() });
        }
        if superblock.log_root.is_some() {
            let why = "logs of Btrfs are not read".to_owned();
            notes.push(ReaderNote::NotReplayed { why });
        }
        if superblock.has_error {
            notes.push(ReaderNote::HasErrors);
        }
        let missing = superblock.device.total_bytes.saturating_sub(volume.len());
        if missing > 0 {
            notes.push(ReaderNote::CutOff { missing });
        }
        let trees = Trees::open(volume, superblock, job)?;
        let root = folders::root(&trees, TOP)?;
        let sums = trees.sums_root();
        Ok(Self { trees, sums, root, notes })
    }

    /// Where the tree of a subvolume begins.
    fn subvolume(&self, number: u64) -> Result<Root> {
        if number != TOP && !(FIRST..=LAST).contains(&number) {
            return Err(Error::damaged(format!("there is no subvolume {number}"), None));
        }
        let root = self.trees.root_of(number)?;
        root.ok_or_else(|| Error::damaged(format!("there is no subvolume {number}"), None))
    }

    fn inode(&self, file: FileId) -> Result<Inode> {
        let root = self.subvolume(file.space)?;
        let missing = || {
            let (number, space) = (file.number, file.space);
            Error::damaged(format!("subvolume {space} has no file {number}"), None)
        };
        if !(FIRST..=LAST).contains(&file.number) {
            return Err(missing());
        }
        let key = Key::new(file.number, kind::INODE_ITEM, 0);
        let item = self.trees.get((Tree::FILES, root), key)?.ok_or_else(missing)?;
        Inode::parse(root, &item).ok_or_else(|| {
            let (number, space) = (file.number, file.space);
            Error::damaged(format!("the record of file {number} of subvolume {space}"), None)
        })
    }

    fn contents(&self, file: FileId, inode: &Inode) -> Contents<'_> {
        Contents {
            trees: &self.trees,
            root: inode.root,
            number: file.number,
            len: inode.metadata.len,
            sums: if inode.is_unchecked { None } else { Some(self.sums) },
            expanded: Mutex::new(None),
        }
    }
}

/// A reason why nothing can be read.
fn unusable(stop: Stop) -> Error {
    let Stop::Whole(WholeReason::Btrfs(reason)) = stop else { return error(stop) };
    match reason {
        BtrfsReason::Feature { .. }
        | BtrfsReason::UnknownFeatures { .. }
        | BtrfsReason::ChecksumType { .. } => Error::Unsupported { what: reason.to_string() },
        _ => error(reason),
    }
}

impl Filesystem for Btrfs<'_> {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Btrfs
    }

    fn notes(&self) -> &[ReaderNote] {
        &self.notes
    }

    fn root(&self) -> FileId {
        self.root
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        if file.number == EMPTY_FOLDER {
            self.subvolume(file.space)?;
            return Ok(folders::empty());
        }
        Ok(self.inode(file)?.metadata)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.entries_of(folder, job, visit)
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        self.look_up(folder, name, job)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let inode = self.inode(file)?;
        if inode.metadata.file_type != FileType::File {
            return Err(Error::WrongType { wanted: "file" });
        }
        Ok(Box::new(self.contents(file, &inode)))
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        let inode = self.inode(link)?;
        if inode.metadata.file_type != FileType::Link {
            return Err(Error::WrongType { wanted: "symbolic link" });
        }
        let len = usize::try_from(inode.metadata.len).ok().filter(|&len| len <= LINK_BYTES_MAX);
        let len = len.ok_or_else(|| Error::damaged("a link is too long", None))?;
        let mut target = vec![0; len];
        let read = self.contents(link, &inode).read_exact_at(&mut target, 0);
        read.map_err(|failed| match failed.kind() {
            std::io::ErrorKind::InvalidData => Error::damaged(failed.to_string(), None),
            _ => Error::Io { op: "read the target of a link", offset: 0, source: failed },
        })?;
        Ok(target)
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        if file.number == EMPTY_FOLDER {
            return self.subvolume(file.space).map(|_| Vec::new());
        }
        let inode = self.inode(file)?;
        let mut attributes = Vec::new();
        let mut bytes = 0;
        let mut is_sound = true;
        let from = Key::new(file.number, kind::XATTR_ITEM, 0);
        let to = Key { offset: u64::MAX, ..from };
        let tree = (Tree::FILES, inode.root);
        self.trees.scan(tree, from, to, Job::silent(), &mut |item| {
            for record in names::records(item.data) {
                let record = record.ok().filter(|record| !record.name.contains(&0));
                bytes += record.as_ref().map_or(0, |one| one.name.len() + one.value.len());
                match record.filter(|_| bytes <= ATTRIBUTES_BYTES_MAX) {
                    Some(record) => attributes.push(Attribute {
                        name: record.name.to_vec(),
                        value: record.value.to_vec(),
                    }),
                    None => is_sound = false,
                }
            }
            if is_sound { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        match is_sound {
            true => Ok(attributes),
            false => Err(Error::damaged("an extended attribute is malformed", None)),
        }
    }
}
