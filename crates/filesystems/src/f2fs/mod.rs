//! F2FS: which blocks are used.
//!
//! A volume is cut into segments of 512 blocks of 4 KiB. In front of the main area lie two
//! superblocks, two checkpoints, the segment table (SIT), the node table (NAT) and summaries
//! (SSA), all of which are kept. Of the main area those blocks are used whose bit is set in the
//! segment table. Every block of both tables exists twice; a bitmap in the newest sound
//! checkpoint says which is valid, and journals in that checkpoint hold entries that are newer
//! still.
//!
//! Both superblocks must be equal. The bitmap of each segment must have as many bits as its
//! count; all together, and the segments without any, as many as the checkpoint says. Every node
//! must lie in a used block, and there must be as many as the checkpoint says. Data blocks that
//! an inode points to are not looked at: a filesystem where they are free is damaged in a way
//! that only `fsck.f2fs` finds.
//!
//! Only a filesystem that was unmounted has a map: after a crash the kernel recovers what was
//! synced since the checkpoint from blocks that the checkpoint calls free. The one block of each
//! open segment where it begins to look is kept.
//!
//! # Cost
//! Read are one copy of both tables, about a thousandth of the volume. Memory is one bit for
//! each block.
//!
//! Facts: `include/linux/f2fs_fs.h`, `fs/f2fs/checkpoint.c` and `fs/f2fs/segment.c` of Linux,
//! and `dump.f2fs`.

mod checkpoint;
mod reason;
mod superblock;
mod used;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Error, Result, UsedMap};
pub use reason::F2fsReason;

const MAGIC: u32 = 0xf2f5_2010;
const BLOCK: usize = 4096;
const BLOCK_LEN: u64 = BLOCK as u64;
const SEGMENT_BLOCKS: u64 = 512;

/// Reads the used-block map of an F2FS filesystem.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, job))
}

/// Reads a block that was proven to lie in the volume.
fn read_block(volume: &dyn ReadAt, block: u64) -> Result<Box<[u8]>> {
    let mut bytes = vec![0; BLOCK].into_boxed_slice();
    let at = block * BLOCK_LEN;
    volume.read_exact_at(&mut bytes, at).map_err(Error::io("read F2FS records", at))?;
    Ok(bytes)
}
