//! Points of one folder in another one: as one full image, as copies of their files, or moved.

mod archive;
mod copy;
mod relocate;

pub use archive::{ArchiveReport, archive, archive_as};
pub use copy::{CopiedFile, CopyReport, copy_point, copy_set};
pub use relocate::{MoveReport, move_point, move_set};

use aiv_volume_io::{Job, Storage};

use crate::census::{Census, Snapshot};
use crate::error::{Error, Result};

/// Refuses what may not fit.
pub(crate) fn check_room(storage: &dyn Storage, needed: u64) -> Result<()> {
    let free = storage.free_bytes().map_err(Error::io("asking for free space"))?;
    match free {
        Some(free) if free < needed => Err(Error::no_space(storage, needed, free)),
        _ => Ok(()),
    }
}

/// What is in a folder that is written to, and will be after a power cut: whoever published it
/// may have been stopped before its name was durable.
fn census_of_durable(storage: &dyn Storage, job: Job<'_>) -> Result<Snapshot> {
    let there = Census::default().take(storage, job)?;
    storage.sync_dir().map_err(Error::io("making durable what is there"))?;
    Ok(there)
}
