//! Keys, by which every tree of Btrfs is sorted, and the items they name.

use crate::bytes::le64;

/// Bytes of a key on the volume.
pub(super) const LEN: usize = 17;

/// Kinds of items.
pub(super) mod kind {
    pub(in super::super) const EXTENT_DATA: u8 = 108;
    pub(in super::super) const ROOT_ITEM: u8 = 132;
    pub(in super::super) const EXTENT_ITEM: u8 = 168;
    pub(in super::super) const METADATA_ITEM: u8 = 169;
    pub(in super::super) const TREE_BLOCK_REF: u8 = 176;
    pub(in super::super) const EXTENT_DATA_REF: u8 = 178;
    pub(in super::super) const SHARED_BLOCK_REF: u8 = 182;
    pub(in super::super) const SHARED_DATA_REF: u8 = 184;
    pub(in super::super) const BLOCK_GROUP_ITEM: u8 = 192;
    pub(in super::super) const FREE_SPACE_INFO: u8 = 198;
    pub(in super::super) const FREE_SPACE_EXTENT: u8 = 199;
    pub(in super::super) const FREE_SPACE_BITMAP: u8 = 200;
    pub(in super::super) const DEV_EXTENT: u8 = 204;
    pub(in super::super) const DEV_ITEM: u8 = 216;
    pub(in super::super) const CHUNK_ITEM: u8 = 228;
    /// Progress of a balance.
    pub(in super::super) const TEMPORARY_ITEM: u8 = 248;
    /// Statistics of a device.
    pub(in super::super) const PERSISTENT_ITEM: u8 = 249;
    pub(in super::super) const DEV_REPLACE: u8 = 250;
}

/// Sorted by object, then kind, then offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
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
