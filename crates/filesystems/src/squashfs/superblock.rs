//! The superblock: where the tables are, and what everything is compressed with.

use aiv_volume_io::ReadAt;

use super::method::Method;
use crate::bytes::{array, le16, le32, le64};
use crate::reader::Volume;
use crate::{Error, Result};

const SIZE: usize = 96;
/// Block sizes by their logarithm: 4 KiB to 1 MiB.
const BLOCK_LOGS: std::ops::RangeInclusive<u16> = 12..=20;
/// A table that is not there.
pub(super) const NONE: u64 = u64::MAX;

/// What the superblock says.
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) method: Method,
    /// Inode of the root folder: see [`FileId`](crate::FileId) of the module.
    pub(super) root: u64,
    pub(super) fragments: u32,
    pub(super) ids: u16,
    /// First bytes of the tables.
    pub(super) id_table: u64,
    pub(super) attribute_table: u64,
    pub(super) inode_table: u64,
    pub(super) folder_table: u64,
    pub(super) fragment_table: u64,
}

impl Superblock {
    pub(super) fn read(volume: &Volume) -> Result<Self> {
        let mut raw = [0; SIZE];
        volume.read_exact_at(&mut raw, 0).map_err(Error::io("read superblock", 0))?;
        let damaged = |what: &str| Err(Error::damaged(format!("the superblock {what}"), Some(0)));
        let (major, minor) = (le16(&raw, 28), le16(&raw, 30));
        if array(&raw, 0) != *b"hsqs" || (major, minor) != (4, 0) {
            let what = format!("version {major}.{minor} of SquashFS is not known");
            return Err(Error::Unsupported { what });
        }
        let (block_size, block_log) = (le32(&raw, 12), le16(&raw, 22));
        if !BLOCK_LOGS.contains(&block_log) || block_size != 1 << block_log {
            return damaged("has a block size that is none");
        }
        let superblock = Self {
            block_size,
            method: Method::numbered(le16(&raw, 20))?,
            root: le64(&raw, 32),
            fragments: le32(&raw, 16),
            ids: le16(&raw, 26),
            id_table: le64(&raw, 48),
            attribute_table: le64(&raw, 56),
            inode_table: le64(&raw, 64),
            folder_table: le64(&raw, 72),
            fragment_table: le64(&raw, 80),
        };
        let tables = [superblock.id_table, superblock.inode_table, superblock.folder_table];
        if tables.iter().any(|at| *at >= volume.len()) {
            return damaged("has a table behind the end of the volume");
        }
        Ok(superblock)
    }
}
