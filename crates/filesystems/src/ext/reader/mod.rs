//! Files of ext2, ext3 and ext4, read.
//!
//! Facts: kernel documentation "ext4 data structures and algorithms"; of what it does not say
//! (targets of links, inline data, attributes in inodes of their own, names of encrypted folders)
//! the behaviour of the kernel.
//!
//! A committed journal is read through; fast commits and external journals are not. Where metadata
//! has checksums, none is believed that does not match its own, but where inode tables lie
//! (`Group::inode_table_of`). Folders are scanned, their index
//! is not used. Contents and targets that are encrypted, and contents that e2compr compressed, are
//! not read; whether contents are what fs-verity says is not checked.

mod acl;
mod attributes;
mod data;
mod folder;
mod metadata;
mod open;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use aiv_volume_io::Job;

use super::blocks::{Blocks, JournalCopy};
use super::groups::Group;
use super::inode::{self, Inode, Kind};
use super::map::Maps;
use super::superblock::Superblock;
use crate::reader::Volume;
use crate::{
    Attribute, Entry, Error, FileData, FileId, Filesystem, FilesystemKind, LINK_BYTES_MAX,
    Metadata, ReaderNote, Result,
};
pub(crate) use open::open;

/// An ext filesystem whose files are read.
struct Reader {
    kind: FilesystemKind,
    volume: Volume,
    superblock: Superblock,
    notes: Vec<ReaderNote>,
    /// Blocks that wait in the journal.
    newer: Arc<HashMap<u64, JournalCopy>>,
    /// Their numbers, ascending.
    newer_blocks: Vec<u64>,
}

/// An inode in use, and its bytes.
struct Node {
    inode: Inode,
    raw: Vec<u8>,
    /// Where on the volume these would be without the journal.
    offset: u64,
}

impl Node {
    fn damaged(&self, what: &str) -> Error {
        let what = format!("inode {}: {what}", self.inode.number);
        Error::damaged(what, Some(self.offset))
    }
}

impl Reader {
    fn blocks(&self) -> Blocks<'_> {
        let on_disk = Blocks::on_disk(&self.volume, self.superblock.geometry.block_size);
        on_disk.replayed(self.newer.clone())
    }

    fn block_size(&self) -> u64 {
        u64::from(self.superblock.geometry.block_size)
    }

    /// The inode of a file: neither one that is not in use, nor one of the filesystem itself.
    fn node(&self, file: FileId) -> Result<Node> {
        let no_file =
            |what: &str| Err(Error::damaged(format!("inode {}: {what}", file.number), None));
        let Ok(number) = u32::try_from(file.number) else {
            return no_file("there is no such inode");
        };
        if number < inode::FIRST_OF_USERS && number != inode::ROOT {
            return no_file("it belongs to the filesystem itself");
        }
        let node = self.any_node(number)?;
        if node.inode.links == 0 {
            return Err(node.damaged("it was removed"));
        }
        if node.inode.is_attribute() {
            return Err(node.damaged("it is an attribute of another one"));
        }
        if number == inode::ROOT && node.inode.kind != Kind::Folder {
            return Err(node.damaged("it is the root, and no folder"));
        }
        Ok(node)
    }

    fn any_node(&self, number: u32) -> Result<Node> {
        let geometry = &self.superblock.geometry;
        let Some((group, at)) = inode::place_of(number, geometry) else {
            return Err(Error::damaged(format!("inode {number}: there is no such inode"), None));
        };
        let blocks = self.blocks();
        let (table, _) = Group::inode_table_of(group, &blocks, &self.superblock)?;
        let block = table + at / self.block_size();
        if block >= geometry.blocks {
            let what = format!("inode {number}: it lies outside the volume");
            return Err(Error::damaged(what, None));
        }
        // Sizes of inodes and blocks are powers of two: no inode crosses blocks.
        let mut raw = vec![0; usize::from(geometry.inode_size)];
        blocks.read_part("read inode", block, at % self.block_size(), &mut raw)?;
        let offset = blocks.offset_of(table).saturating_add(at);
        let damaged = |what: &str| Error::damaged(format!("inode {number}: {what}"), Some(offset));
        let inode = Inode::parse(number, &raw, &self.superblock).map_err(damaged)?;
        let inode = inode.ok_or_else(|| damaged("it is not in use"))?;
        if i64::try_from(inode.len).is_err() {
            return Err(damaged("its size is negative"));
        }
        let extra = metadata::extra_len(&raw);
        if !extra.is_multiple_of(4) || inode::GOOD_OLD_LEN + extra > raw.len() {
            return Err(damaged("its fields do not fit"));
        }
        Ok(Node { inode, raw, offset })
    }

    fn maps<'a>(&'a self, blocks: &'a Blocks<'a>) -> Maps<'a> {
        Maps::new(blocks, &self.superblock.geometry)
    }
}

impl Filesystem for Reader {
    fn kind(&self) -> FilesystemKind {
        self.kind
    }

    fn notes(&self) -> &[ReaderNote] {
        &self.notes
    }

    fn root(&self) -> FileId {
        FileId { space: 0, number: u64::from(inode::ROOT) }
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        let node = self.node(file)?;
        let mut metadata = metadata::of(&node, &self.superblock);
        if node.inode.kind == Kind::Link && !node.inode.is_encrypted() {
            // Some say that they have a zero byte at the end, which is not meant.
            metadata.len = self.target_of(&node).map_or(metadata.len, |said| said.len() as u64);
        }
        Ok(metadata)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.tell_entries(&self.folder(folder)?, job, visit)
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        self.look_up(&self.folder(folder)?, name, job)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let node = self.node(file)?;
        if node.inode.kind != Kind::File {
            return Err(Error::WrongType { wanted: "file" });
        }
        self.contents(&node)
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        let node = self.node(link)?;
        if node.inode.kind != Kind::Link {
            return Err(Error::WrongType { wanted: "link" });
        }
        self.target_of(&node)
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.attributes_of(&self.node(file)?)
    }
}

impl Reader {
    fn folder(&self, folder: FileId) -> Result<Node> {
        let node = self.node(folder)?;
        match node.inode.kind {
            Kind::Folder => Ok(node),
            _ => Err(Error::WrongType { wanted: "folder" }),
        }
    }

    /// What a link says, up to a zero byte.
    fn target_of(&self, node: &Node) -> Result<Vec<u8>> {
        if node.inode.is_encrypted() {
            let what = "what an encrypted link says cannot be read".to_owned();
            return Err(Error::Unsupported { what });
        }
        let len = usize::try_from(node.inode.len).ok().filter(|&len| len <= LINK_BYTES_MAX);
        let len = len.ok_or_else(|| node.damaged("a link is too long"))?;
        let mut target = vec![0; len];
        if node.inode.is_inline() || node.inode.has_map() {
            let data = self.contents(node)?;
            data.read_exact_at(&mut target, 0).map_err(Error::io("read link", node.offset))?;
        } else {
            target.copy_from_slice(&node.inode.map[..len]);
        }
        target.truncate(target.iter().position(|&byte| byte == 0).unwrap_or(len));
        match target.is_empty() {
            false => Ok(target),
            true => Err(node.damaged("a link says nothing")),
        }
    }
}
