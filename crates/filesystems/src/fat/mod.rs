//! FAT12, FAT16 and FAT32: which clusters are used, and the files ([`reader`]).
//!
//! A cluster is free when its entry in the file allocation table is zero; every other entry
//! (a link, an end of a chain, a bad cluster) makes it used. All copies of the table must be
//! equal, and whatever leads to a cluster (a link in the table, the boot sector of FAT32, an
//! entry of any directory) must lead to one that is not free, or the whole volume is kept.
//! Everything before the first cluster (boot sectors, `FSInfo`, tables, the root directory of
//! FAT12 and FAT16) and after the last one is used. `FSInfo`, whose free count is a hint, is
//! not read.
//!
//! # A volume that was not unmounted
//! A driver marks a volume while it writes to it, in the entry of cluster 1 or in the boot
//! sector. The mark says that entries may be missing or left over, not that they mean anything
//! else. Those left over are kept, and those missing are found: a directory entry or a link then
//! leads to a free cluster, and the whole volume is kept. So the volume has a map, and
//! [`MapNote::NotUnmounted`](crate::MapNote) says in which state it was.
//!
//! Facts: Microsoft "FAT: General Overview of On-Disk Format" 1.03 (`fatgen103`), ECMA-107, and
//! `fs/fat/inode.c` of Linux where drivers differ from both.

mod boot;
mod files;
mod reader;
mod reason;
mod table;
mod walk;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use reader::Fat;
pub use reason::FatReason;

/// Reads the used-block map of a FAT volume.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(table::read(volume, job))
}
