//! XFS, versions 4 and 5: which blocks are used; its files are read by `reader`.
//!
//! A volume is cut into allocation groups. Each keeps its free extents in two B+trees, one
//! sorted by block and one by size. Both are read completely and must name the same extents;
//! their sum, the counts in the group's header and the count in the superblock must agree; and
//! no free extent may touch what is in use for certain: headers, the trees' own blocks, blocks
//! set aside for the trees to grow (the AGFL), roots of the other trees, the log. Version 5 has
//! checksums, and an owner in every block; both are compared. Everything the trees do not call
//! free is used, and so is what lies behind the last group.
//!
//! A filesystem whose inodes claim blocks that its consistent trees call free is damaged in a
//! way that only `xfs_repair` finds. Such blocks are not in the map.
//!
//! # The log
//! XFS writes changes of its trees to the log first, as differences, and to their places some
//! time later. The trees in place are the whole truth only after the log was written empty,
//! which unmounting does: it ends with an unmount record. [`log`] finds the end of the log as
//! the kernel does and asks for that record; without it the whole volume is kept. A frozen
//! filesystem, and a snapshot of a mounted one, have no such record. A map is not
//! read through a log, as files are.
//!
//! Tools that rewrite the log, `xfs_admin -U` among them, may leave a stretch of
//! zeros behind its head, which looks like missing writes; such a filesystem has a map again
//! after it was mounted once.
//!
//! # Cost
//! Read are four sectors of each group, both trees, and at most 4 MiB of the log. Memory is
//! 16 bytes for each free extent of one group, at most 128 MiB, and the map.
//!
//! Facts: "XFS Algorithms & Data Structures", 3rd edition; the kernel's `xfs_format.h`,
//! `xfs_log_format.h` and `xfs_log_recover.c`. All numbers are big endian except checksums.

mod checksum;
mod features;
mod group;
mod log;
mod reader;
mod reason;
mod superblock;
mod tree;
mod used;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use reader::{find_files, open};
pub use reason::{LogState, XfsReason};

/// Reads the used-block map of an XFS filesystem.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, job))
}
