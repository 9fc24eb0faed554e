//! FAT12, FAT16 and FAT32: which clusters are used.
//!
//! A cluster is free when its entry in the file allocation table is zero; every other entry
//! (a link, an end of a chain, a bad cluster) makes it used. All copies of the table must be
//! equal, every link must lead to a cluster of the volume that is itself not free, and the root
//! directory of FAT32 must be in the table, or the whole volume is kept. Everything before the
//! first cluster (boot sectors, `FSInfo`, tables, the root directory of FAT12 and FAT16) and
//! after the last one is used. `FSInfo`, whose free count is a hint, is not read.
//!
//! # A volume that was not unmounted
//! A driver marks a volume while it writes to it, in the entry of cluster 1 or in the boot
//! sector. The mark says that entries may be missing or left over, not that they mean anything
//! else: what the table calls used is kept, and [`MapNote::NotUnmounted`](crate::MapNote) says
//! so. A chain the crash cut off, whose links lead to a free cluster, is found and keeps the
//! whole volume. What no table can show is the first cluster of a file whose directory entry
//! reached the disk before the table did; a repair cuts such a file to nothing, and so does
//! this map.
//!
//! Facts: Microsoft "FAT: General Overview of On-Disk Format" 1.03 (`fatgen103`), ECMA-107, and
//! `fs/fat/inode.c` of Linux where drivers differ from both.

mod boot;
mod reason;
mod table;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub use reason::FatReason;

/// Reads the used-block map of a FAT volume.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(table::read(volume, job))
}
