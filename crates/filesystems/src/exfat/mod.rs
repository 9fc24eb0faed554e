//! exFAT: which clusters are used, and the files ([`reader`]).
//!
//! The allocation bitmap says it: one bit for each cluster, set where used. The bitmap is found
//! through the root directory, whose clusters the file allocation table chains. The boot region
//! has to match its checksum, there has to be exactly one bitmap, of exactly the right size, in
//! one piece (drivers differ in how they read any other), and it has to call its own clusters,
//! those of the root directory and those of the up-case table used, or the whole volume is
//! kept. Everything before the cluster heap and after the last cluster is used.
//!
//! No checksum or count protects the bitmap, and the clusters of most files are in no table
//! either: nothing but the directories contradicts a bitmap that is wrong. So all of them are
//! read, and every cluster of every file has to be used and to belong to that file alone. A
//! volume that was not unmounted passes the same test before its map is believed;
//! [`MapNote::NotUnmounted`](crate::MapNote) says so.
//!
//! Facts: Microsoft "exFAT file system specification", revision 1.00.

mod bitmap;
mod boot;
mod chain;
mod directory;
mod entry_set;
mod files;
mod reader;
mod reason;
mod walk;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use reader::ExFat;
pub use reason::ExFatReason;

/// Reads the used-block map of an exFAT volume.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(bitmap::read(volume, job))
}
