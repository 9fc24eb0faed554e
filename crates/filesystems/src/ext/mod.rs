//! ext2, ext3 and ext4: which blocks are used.
//!
//! The block bitmap of each group says it, and the group's descriptor repeats the number of
//! free blocks. Both must agree, and match their checksums where the filesystem has them, or
//! the whole volume is kept. On top of the bitmaps, what the descriptors point to (bitmaps,
//! inode tables) is used in any case, and so is everything before the first and after the last
//! block of the filesystem.
//!
//! A filesystem whose inodes claim blocks that its consistent bitmaps call free is damaged in a
//! way that only a full check finds. Such blocks are not in the map.
//!
//! # A journal that waits to be replayed
//! When a filesystem was not unmounted (a crash, or a snapshot of a mounted volume), the bitmaps
//! in place are older than the last commit: a file written before the commit has its data in
//! blocks the bitmap in place still calls free, and only the journal's copy of the bitmap knows
//! them. A map of the bitmaps in place would lose that file. So the journal is read, its newest
//! committed copies are laid over the volume in memory, and everything is judged as it will be
//! after the replay. The map is the union of what is used after the replay and of what the
//! bitmaps in place call used; it suits whoever replays the journal and whoever does not.
//! The journal itself is a file of the filesystem and therefore used.
//!
//! Blocks of a transaction that was not committed are needed by nobody: no replay makes them
//! reachable. Fast commits, which describe changes without copies of blocks, and external
//! journals are not followed: the whole volume is kept.

mod blocks;
mod checksum;
mod directory;
pub(crate) mod features;
mod files;
mod groups;
mod inode;
mod journal;
mod layout;
mod map;
mod reader;
mod reason;
mod superblock;
mod used;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use reader::open;
pub use reason::{ExtReason, FeatureClass, JournalReason};
pub(crate) use superblock::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};

/// Reads the used-block map of an ext filesystem.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, job))
}
