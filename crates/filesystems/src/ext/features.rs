//! Feature bits of ext2, ext3 and ext4, and which of them this reader understands.
//!
//! Facts: kernel documentation "ext4 data structures and algorithms", superblock.

use super::reason::{ExtReason, FeatureClass};

pub(crate) const COMPAT_HAS_JOURNAL: u32 = 0x4;
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
/// `dir_prealloc`, `imagic_inodes`, `ext_attr`, `resize_inode`, `dir_index`, `fast_commit`,
/// `stable_inodes`, `orphan_file`: none says anything about free blocks.
const COMPAT_HARMLESS: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x400 | 0x800 | 0x1000;
const COMPAT_KNOWN: u32 = COMPAT_HARMLESS | COMPAT_HAS_JOURNAL | COMPAT_SPARSE_SUPER2;

/// Files may be compressed (e2compr); which are, each says itself.
const INCOMPAT_COMPRESSION: u32 = 0x1;
pub(crate) const INCOMPAT_FILETYPE: u32 = 0x2;
/// A journal waits to be replayed.
pub(crate) const INCOMPAT_RECOVER: u32 = 0x4;
pub(crate) const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
pub(crate) const INCOMPAT_META_BG: u32 = 0x10;
pub(crate) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_MMP: u32 = 0x100;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// Folders may be larger than 2 GiB.
pub(super) const INCOMPAT_LARGE_DIR: u32 = 0x4000;
/// `extents`, `flex_bg`, `ea_inode`, `large_dir`, `inline_data`, `encrypt`, `casefold`. Of these
/// only `flex_bg` touches allocation: it lets a group's metadata lie in another group, which
/// this reader allows always.
const INCOMPAT_HARMLESS: u32 =
    0x40 | 0x200 | 0x400 | INCOMPAT_LARGE_DIR | 0x8000 | 0x1_0000 | 0x2_0000;
const INCOMPAT_KNOWN: u32 = INCOMPAT_HARMLESS
    | INCOMPAT_FILETYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | INCOMPAT_64BIT
    | INCOMPAT_MMP
    | INCOMPAT_CSUM_SEED;

pub(crate) const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
pub(crate) const RO_COMPAT_LARGE_FILE: u32 = 0x2;
pub(crate) const RO_COMPAT_BTREE_DIR: u32 = 0x4;
/// Sizes of files in sectors may have 48 bits, or be in blocks.
pub(super) const RO_COMPAT_HUGE_FILE: u32 = 0x8;
/// Group descriptors carry a CRC-16; groups may be uninitialised (`uninit_bg`).
pub(super) const RO_COMPAT_GDT_CSUM: u32 = 0x10;
/// One bit of the bitmap stands for a cluster of blocks.
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x200;
pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
pub(super) const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
/// `huge_file`, `dir_nlink`, `extra_isize`, `quota`, `read-only`, `project`, `shared_blocks`,
/// `verity`, `orphan_present`.
const RO_COMPAT_HARMLESS: u32 = RO_COMPAT_HUGE_FILE
    | 0x20
    | 0x40
    | 0x100
    | 0x1000
    | 0x2000
    | RO_COMPAT_SHARED_BLOCKS
    | 0x8000
    | 0x1_0000;
const RO_COMPAT_KNOWN: u32 = RO_COMPAT_HARMLESS
    | RO_COMPAT_SPARSE_SUPER
    | RO_COMPAT_LARGE_FILE
    | RO_COMPAT_BTREE_DIR
    | RO_COMPAT_GDT_CSUM
    | RO_COMPAT_BIGALLOC
    | RO_COMPAT_METADATA_CSUM;

/// The three sets of a superblock, proven to hold no bit that says something unknown to who asks.
#[derive(Clone, Copy)]
pub(super) struct Features {
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
}

impl Features {
    /// Unknown bits are refused in all three classes. "Compatible" and "read-only compatible"
    /// promise only that old readers find files right; `bigalloc`, which changes the meaning of
    /// the bitmap, is in the latter.
    pub(super) fn check(compat: u32, incompat: u32, ro_compat: u32) -> Result<Self, ExtReason> {
        for (class, found, known) in [
            (FeatureClass::Incompat, incompat, INCOMPAT_KNOWN),
            (FeatureClass::RoCompat, ro_compat, RO_COMPAT_KNOWN),
            (FeatureClass::Compat, compat, COMPAT_KNOWN),
        ] {
            if found & !known != 0 {
                return Err(ExtReason::UnknownFeatures { class, bits: found & !known });
            }
        }
        Ok(Self { compat, incompat, ro_compat })
    }

    /// Who reads files has to know the incompatible bits alone: the others promise that he finds
    /// them right.
    pub(super) fn check_to_read(
        compat: u32,
        incompat: u32,
        ro_compat: u32,
    ) -> Result<Self, ExtReason> {
        match incompat & !(INCOMPAT_KNOWN | INCOMPAT_COMPRESSION) {
            0 => Ok(Self { compat, incompat, ro_compat }),
            bits => Err(ExtReason::UnknownFeatures { class: FeatureClass::Incompat, bits }),
        }
    }

    pub(super) fn compat(self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    pub(super) fn incompat(self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    pub(super) fn ro_compat(self, bit: u32) -> bool {
        self.ro_compat & bit != 0
    }
}
