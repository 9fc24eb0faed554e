//! Where things lie, and whether a record is the one that has to be there.

use std::sync::Arc;

use aiv_volume_io::ReadAt;

use super::super::checksum;
use super::super::superblock::Geometry;
use super::replay::Overlay;
use crate::bytes::{array, be64};
use crate::reader::VolumeOf;
use crate::{Error, Result};

/// `XFS_DIR2_LEAF_OFFSET`: from here on a folder keeps its index.
pub(super) const INDEX_AT: u64 = 1 << 35;

/// What the superblock says of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) geometry: Geometry,
    /// Version 5.
    pub(super) self_describing: bool,
    /// What metadata of version 5 carry.
    pub(super) meta_uuid: [u8; 16],
    /// Bytes of an inode: a power of two, 256 to 2048.
    pub(super) inode_size: usize,
    /// Bits that the place of an inode in its block takes in a number.
    pub(super) inodes_log: u32,
    /// Bits of blocks in a block of a folder.
    pub(super) folder_log: u32,
    /// Names carry the type of what they lead to.
    pub(super) has_types: bool,
    pub(super) ignores_case: bool,
    pub(super) root: u64,
}

/// Where a self-describing record keeps what proves it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    sum: usize,
    place: usize,
    uuid: usize,
    owner: usize,
}

impl Proof {
    /// `struct xfs_btree_block_lhdr`, as blocks of extent trees begin.
    pub(super) const TREE: Self = Self { sum: 64, place: 24, uuid: 40, owner: 56 };
    /// `struct xfs_dir3_blk_hdr`: names.
    pub(super) const NAMES: Self = Self { sum: 4, place: 8, uuid: 24, owner: 40 };
    /// `struct xfs_da3_blkinfo`: indexes, and leaves of attributes.
    pub(super) const INDEX: Self = Self { sum: 12, place: 16, uuid: 32, owner: 48 };
    /// `struct xfs_attr3_rmt_hdr` and `xfs_dsymlink_hdr`.
    pub(super) const REMOTE: Self = Self { sum: 12, place: 40, uuid: 16, owner: 32 };
}

/// Where a record was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// Byte offset on the volume, of its first byte.
    pub(super) offset: u64,
    /// Some of it comes from the log: its checksum, made when it is written, is an older one.
    pub(super) is_replayed: bool,
}

/// A volume and what is known of it.
pub(super) struct Layout<'v> {
    pub(super) volume: VolumeOf<'v>,
    pub(super) shape: Shape,
    /// What of the volume comes from the log.
    pub(super) overlay: Option<Arc<Overlay>>,
}

impl Layout<'_> {
    pub(super) fn block_size(&self) -> u64 {
        self.shape.geometry.block_size.into()
    }

    /// Bytes of a block of names.
    pub(super) fn folder_block_size(&self) -> usize {
        (self.shape.geometry.block_size as usize) << self.shape.folder_log
    }

    /// Byte offset of an inode, where its number may be one.
    pub(super) fn inode_offset(&self, number: u64) -> Option<u64> {
        let shape = &self.shape;
        let block = self.block_offset(number >> shape.inodes_log, 1)?;
        let place = number & ((1 << shape.inodes_log) - 1);
        Some(block + place * shape.inode_size as u64)
    }

    /// Byte offset of a block address; `None` when `blocks` from there on are not all inside a
    /// group and behind its headers.
    pub(super) fn block_offset(&self, address: u64, blocks: u32) -> Option<u64> {
        let geometry = &self.shape.geometry;
        let (group, block) = super::super::superblock::place(address, blocks, geometry)?;
        Some(geometry.offset_of(group, block))
    }

    /// Reads a record into all of `out`.
    pub(super) fn read(&self, out: &mut [u8], offset: u64, op: &'static str) -> Result<At> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.volume.len()) {
            return Err(Error::damaged("a record lies behind the end of the volume", Some(offset)));
        }
        self.volume.read_exact_at(out, offset).map_err(Error::io(op, offset))?;
        let overlay = self.overlay.as_ref();
        Ok(At {
            offset,
            is_replayed: overlay.is_some_and(|overlay| overlay.has(offset, out.len())),
        })
    }

    /// Whether a record of version 5 is whole, and was written for this place and this owner.
    pub(super) fn check(
        &self,
        record: &[u8],
        proof: Proof,
        at: At,
        owner: u64,
        name: &str,
    ) -> Result<()> {
        if !self.shape.self_describing {
            return Ok(());
        }
        let fault = if !at.is_replayed && !checksum::is_right(record, proof.sum) {
            "has a wrong checksum"
        } else if be64(record, proof.place) != at.offset / 512 {
            "was written for another place"
        } else if array(record, proof.uuid) != self.shape.meta_uuid {
            "belongs to another filesystem"
        } else if be64(record, proof.owner) != owner {
            "belongs to another file"
        } else {
            return Ok(());
        };
        Err(Error::damaged(format!("{name} {fault}"), Some(at.offset)))
    }
}
