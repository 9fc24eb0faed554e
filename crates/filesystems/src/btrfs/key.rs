//! Keys, by which every tree of Btrfs is sorted, and the items they name.

use crate::bytes::le64;

/// Bytes of a key on the volume.
pub(super) const LEN: usize = 17;

/// Kinds of items.
pub(super) mod kind {
    pub(in crate::btrfs) const INODE_ITEM: u8 = 1;
    pub(in crate::btrfs) const XATTR_ITEM: u8 = 24;
    /// Names by their hash.
    pub(in crate::btrfs) const DIR_ITEM: u8 = 84;
    /// Names by their age.
    pub(in crate::btrfs) const DIR_INDEX: u8 = 96;
    pub(in crate::btrfs) const EXTENT_DATA: u8 = 108;
    pub(in crate::btrfs) const EXTENT_CSUM: u8 = 128;
    pub(in crate::btrfs) const ROOT_ITEM: u8 = 132;
    /// From a folder to the subvolume in it.
    pub(in crate::btrfs) const ROOT_REF: u8 = 156;
    pub(in crate::btrfs) const EXTENT_ITEM: u8 = 168;
    pub(in crate::btrfs) const METADATA_ITEM: u8 = 169;
    pub(in crate::btrfs) const TREE_BLOCK_REF: u8 = 176;
    pub(in crate::btrfs) const EXTENT_DATA_REF: u8 = 178;
    pub(in crate::btrfs) const SHARED_BLOCK_REF: u8 = 182;
    pub(in crate::btrfs) const SHARED_DATA_REF: u8 = 184;
    pub(in crate::btrfs) const BLOCK_GROUP_ITEM: u8 = 192;
    pub(in crate::btrfs) const FREE_SPACE_INFO: u8 = 198;
    pub(in crate::btrfs) const FREE_SPACE_EXTENT: u8 = 199;
    pub(in crate::btrfs) const FREE_SPACE_BITMAP: u8 = 200;
    pub(in crate::btrfs) const DEV_EXTENT: u8 = 204;
    pub(in crate::btrfs) const DEV_ITEM: u8 = 216;
    pub(in crate::btrfs) const CHUNK_ITEM: u8 = 228;
    /// Progress of a balance.
    pub(in crate::btrfs) const TEMPORARY_ITEM: u8 = 248;
    /// Statistics of a device.
    pub(in crate::btrfs) const PERSISTENT_ITEM: u8 = 249;
    pub(in crate::btrfs) const DEV_REPLACE: u8 = 250;
}

/// Sorted by object, then kind, then offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self { object, kind, offset }
    }

    /// The key at the front of `bytes`, which has that many.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self { object: le64(bytes, 0), kind: bytes[8], offset: le64(bytes, 9) }
    }
}

/// An item of a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) key: Key,
    pub(super) data: &'a [u8],
    /// Logical address of the leaf.
    pub(super) leaf: u64,
}
