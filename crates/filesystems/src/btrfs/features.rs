//! Feature bits of Btrfs, and which of them leave the records of space as this reader knows
//! them.

use super::reason::BtrfsReason;
use crate::bytes::le64;

const INCOMPAT_MIXED_BACKREF: u64 = 1 << 0;
const INCOMPAT_METADATA_UUID: u64 = 1 << 10;
/// Default subvolume, data and metadata in one block group, LZO, Zstd, large metadata, extended
/// inode references, profiles RAID5 and RAID6, skinny metadata, no holes, profiles RAID1C3 and
/// RAID1C4, simple quotas. Chunks are judged by their own profile.
const INCOMPAT_HARMLESS: u64 = 0x3fe | 1 << 11 | 1 << 16;
const INCOMPAT_KNOWN: u64 = INCOMPAT_MIXED_BACKREF | INCOMPAT_METADATA_UUID | INCOMPAT_HARMLESS;
/// Superblocks, or extents, are elsewhere.
const INCOMPAT_REFUSED: [(u64, &str); 3] =
    [(1 << 12, "zoned"), (1 << 13, "extent-tree-v2"), (1 << 14, "raid-stripe-tree")];

/// There is a free-space tree, and no kernel that does not know it wrote since.
const COMPAT_RO_FREE_SPACE_TREE: u64 = 0x3;
const COMPAT_RO_BLOCK_GROUP_TREE: u64 = 1 << 3;
/// Also checksums of file contents (verity).
const COMPAT_RO_KNOWN: u64 = COMPAT_RO_FREE_SPACE_TREE | 0x4 | COMPAT_RO_BLOCK_GROUP_TREE;

/// What of the features matters here; no bit is set that this reader does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    /// Metadata carry `metadata_uuid`, as the filesystem got a new `fsid`.
    pub(super) metadata_uuid: bool,
    /// Block groups have a tree of their own.
    pub(super) block_group_tree: bool,
    /// Free space has a tree of its own, and it can be compared.
    pub(super) free_space_tree: bool,
}

impl Features {
    /// Unknown bits are refused in all sets. "Compatible" promises only that old readers find
    /// files right, not that they find free space.
    pub(super) fn check(superblock: &[u8]) -> Result<Self, BtrfsReason> {
        Self::parse(superblock, true)
    }

    /// Refuses what changes where files are found.
    pub(super) fn check_for_files(superblock: &[u8]) -> Result<Self, BtrfsReason> {
        Self::parse(superblock, false)
    }

    fn parse(superblock: &[u8], with_space: bool) -> Result<Self, BtrfsReason> {
        let [compat, compat_ro, incompat] = [0xac, 0xb4, 0xbc].map(|at| le64(superblock, at));
        for (bit, name) in INCOMPAT_REFUSED {
            if incompat & bit != 0 {
                return Err(BtrfsReason::Feature { name });
            }
        }
        refuse("incompat_flags", incompat, INCOMPAT_KNOWN)?;
        if with_space {
            refuse("compat_ro_flags", compat_ro, COMPAT_RO_KNOWN)?;
            refuse("compat_flags", compat, 0)?;
        }
        if incompat & INCOMPAT_MIXED_BACKREF == 0 {
            return Err(BtrfsReason::Feature { name: "back references of 2008" });
        }
        Ok(Self {
            metadata_uuid: incompat & INCOMPAT_METADATA_UUID != 0,
            free_space_tree: compat_ro & COMPAT_RO_FREE_SPACE_TREE == COMPAT_RO_FREE_SPACE_TREE,
            block_group_tree: compat_ro & COMPAT_RO_BLOCK_GROUP_TREE != 0,
        })
    }
}

fn refuse(field: &'static str, found: u64, known: u64) -> Result<(), BtrfsReason> {
    match found & !known {
        0 => Ok(()),
        bits => Err(BtrfsReason::UnknownFeatures { field, bits }),
    }
}
