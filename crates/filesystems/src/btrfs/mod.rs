//! Btrfs on one device: which bytes are used. How files are read is told in `reader`.
//!
//! Btrfs has two levels of addresses. Chunks map a *logical* address space to places of the
//! device, some of them twice (DUP); extents, of data and of tree blocks, are recorded by their
//! logical addresses in the extent tree. Both levels are read completely, and everything that
//! says something about them must agree:
//!
//! - the chunks of the superblock are among those of the chunk tree, which are exactly the device
//!   extents of the device tree, and each is one block group;
//! - the extents of the extent tree lie one behind the other, in chunks of their kind, not on a
//!   superblock, and add up to what every block group, and the superblock, calls used;
//! - all tree blocks that were read, and the roots of all trees, are among these extents.
//!
//! Every tree block carries a checksum, its own address, the identity of the filesystem, a
//! generation and its level; all are compared with what its parent says, its keys with those of
//! its neighbours. Where metadata lie on the device twice, the second copy stands in for a first
//! that is damaged; both stay in the map. A free-space tree that is valid has to call free exactly
//! what the extent tree leaves; neither it nor a free-space cache is believed in its place.
//!
//! A filesystem whose files refer to extents that all these records agree to call free is
//! damaged in a way that only `btrfs check` finds. Such extents are not in the map.
//!
//! Kept beside the extents: the first MiB, all superblocks, and what lies behind the filesystem.
//!
//! # The log
//! A committed superblock refers to a tree of trees that never changes in place: a filesystem
//! that was not unmounted, or a snapshot of a mounted one, reads like one that was. What `fsync`
//! made durable since the last commit lies in log trees, whose blocks, and new extents of files,
//! are in no extent tree yet. They are walked, and kept.
//!
//! Trees of earlier commits, which the superblock remembers for `usebackuproot`, are not kept.
//!
//! # Cost
//! Read are the superblocks and the chunk, root, device, block-group, extent, free-space and log
//! trees. No tree block is read twice but for its second copy, and no more of them than the device has
//! room for. Memory: at most 256 MiB for runs and lists (all have a limit), about 150 bytes for
//! each chunk, and one bit for each sector of the chunks that hold metadata.
//!
//! Facts: the Btrfs on-disk format of the kernel's documentation, `btrfs_tree.h`. All numbers are
//! little endian.

mod block;
mod checksum;
mod chunks;
mod device;
mod extents;
mod features;
mod files;
mod free_space;
mod key;
mod log;
mod reader;
mod reason;
mod roots;
mod superblock;
mod tree;
mod used;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use reader::Btrfs;
pub use reason::BtrfsReason;

/// Reads the used-block map of a Btrfs filesystem.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, job))
}
