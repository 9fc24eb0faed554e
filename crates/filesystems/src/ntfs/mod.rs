//! Which clusters of an NTFS filesystem are in use.
//!
//! Facts: Linux-NTFS project, "NTFS documentation"; where it is silent, what ntfs-3g and Windows
//! were seen to do. The answer is `$Bitmap`, believed after everything that could contradict it
//! was read: the boot sector, the mirror of `$MFT`, `$Volume`, `$LogFile`, and the run lists of
//! all files. A volume that was not cleanly unmounted is kept whole: its log describes changes
//! of pages, not of clusters, and is not followed.

mod bitmap;
mod boot;
mod files;
mod folders;
mod log;
mod mft;
mod reader;
mod reason;
mod record;
mod runlist;
mod shadow;
mod stream;
mod used;
mod walk;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use reader::open;
pub use reason::{NtfsLogReason, NtfsReason};

/// Reads the used-cluster map of an NTFS filesystem.
pub(crate) fn used_map(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, job))
}
