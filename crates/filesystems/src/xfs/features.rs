//! Feature bits of XFS, and which of them leave the free-space records as this reader knows
//! them.
//!
//! Facts: `xfs_format.h`, `XFS_SB_VERSION_*` and `XFS_SB_FEAT_*`.

use super::reason::XfsReason;
use crate::bytes::{be16, be32};
use crate::stop::Stop;

pub(super) const VERSION_NUMBER: u16 = 0xf;
/// Attributes, 32-bit link counts, quota, aligned inodes, stripe alignment, log version 2,
/// sectors larger than 512, unwritten extents, directories version 2, names without case, and
/// `MOREBITS`: the second set is valid. Left out is `SHARED` (0x200), which no kernel mounts.
pub(super) const VERSION_BITS_KNOWN: u16 =
    0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000;

/// Lazy counters, attributes version 2, 32-bit project ids, file types in directories.
pub(super) const FEATURES2_KNOWN: u32 = FEATURES2_LAZY | 0x8 | 0x80 | 0x200;
const FEATURES2_LAZY: u32 = 0x2;
/// Set on version 5 only.
pub(super) const FEATURES2_CRC: u32 = 0x100;

const RO_COMPAT_FINOBT: u32 = 0x1;
const RO_COMPAT_RMAPBT: u32 = 0x2;
const RO_COMPAT_REFLINK: u32 = 0x4;
/// Counts of inode tree blocks in the group headers.
const RO_COMPAT_INOBTCNT: u32 = 0x8;
/// All of them keep their records in blocks that are allocated like any other.
const RO_COMPAT_KNOWN: u32 =
    RO_COMPAT_FINOBT | RO_COMPAT_RMAPBT | RO_COMPAT_REFLINK | RO_COMPAT_INOBTCNT;

/// Metadata carry `sb_meta_uuid`, as the filesystem got a new `sb_uuid`.
pub(super) const INCOMPAT_META_UUID: u32 = 0x4;
pub(super) const INCOMPAT_NEEDSREPAIR: u32 = 0x10;
/// `ftype`, `spinodes`, `bigtime`, `nrext64`, `exchrange`, `parent`: inodes, names and times.
/// Not `metadir` (0x100) and the zoned bits behind it, which come with realtime groups.
const INCOMPAT_HARMLESS: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x80;
pub(super) const INCOMPAT_KNOWN: u32 =
    INCOMPAT_HARMLESS | INCOMPAT_META_UUID | INCOMPAT_NEEDSREPAIR;

/// Logged attributes: what may lie in the log, which is required to be empty.
const LOG_INCOMPAT_KNOWN: u32 = 0x1;

/// What of the features matters here; no bit is set that this reader does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    /// Version 5: metadata describe themselves and carry checksums.
    pub(super) self_describing: bool,
    /// Counts of the superblock are made from those of the groups, which therefore count the
    /// blocks of their trees.
    pub(super) lazy_counts: bool,
    pub(super) finobt: bool,
    pub(super) rmapbt: bool,
    pub(super) reflink: bool,
    pub(super) meta_uuid: bool,
}

impl Features {
    /// Unknown bits are refused in all sets. "Compatible" promises only that old readers find
    /// files right, not that they find free space.
    pub(super) fn check(superblock: &[u8]) -> Result<Self, Stop> {
        let version = be16(superblock, 100);
        let self_describing = match version & VERSION_NUMBER {
            4 => false,
            5 => true,
            found => return Err(XfsReason::Version { found }.into()),
        };
        let unknown = version & !VERSION_NUMBER & !VERSION_BITS_KNOWN;
        refuse("sb_versionnum", unknown.into(), 0)?;
        let features2 = FEATURES2_KNOWN | if self_describing { FEATURES2_CRC } else { 0 };
        refuse("sb_features2", be32(superblock, 200), features2)?;
        // A copy of the field at the place where a compiler's padding once put it.
        refuse("sb_bad_features2", be32(superblock, 204), features2)?;
        if !self_describing {
            return Ok(Self {
                self_describing,
                lazy_counts: be32(superblock, 200) & FEATURES2_LAZY != 0,
                finobt: false,
                rmapbt: false,
                reflink: false,
                meta_uuid: false,
            });
        }
        let [ro_compat, incompat] = [212, 216].map(|at| be32(superblock, at));
        refuse("sb_features_incompat", incompat, INCOMPAT_KNOWN)?;
        refuse("sb_features_ro_compat", ro_compat, RO_COMPAT_KNOWN)?;
        refuse("sb_features_compat", be32(superblock, 208), 0)?;
        refuse("sb_features_log_incompat", be32(superblock, 220), LOG_INCOMPAT_KNOWN)?;
        if incompat & INCOMPAT_NEEDSREPAIR != 0 {
            return Err(XfsReason::NeedsRepair.into());
        }
        Ok(Self {
            self_describing,
            lazy_counts: true,
            finobt: ro_compat & RO_COMPAT_FINOBT != 0,
            rmapbt: ro_compat & RO_COMPAT_RMAPBT != 0,
            reflink: ro_compat & RO_COMPAT_REFLINK != 0,
            meta_uuid: incompat & INCOMPAT_META_UUID != 0,
        })
    }
}

fn refuse(field: &'static str, found: u32, known: u32) -> Result<(), XfsReason> {
    match found & !known {
        0 => Ok(()),
        bits => Err(XfsReason::UnknownFeatures { field, bits }),
    }
}
