//! Points of one folder in another one: as one full image, as copies of their files, or moved.

mod archive;
mod copy;
mod relocate;

pub use archive::{ArchiveReport, archive, archive_as};
pub use copy::{CopiedFile, CopyReport, copy_point, copy_set};
pub use relocate::{MoveReport, move_point, move_set};

use aiv_volume_io::Storage;

use crate::error::{Error, Result};

/// Refuses what may not fit.
fn check_room(storage: &dyn Storage, needed: u64) -> Result<()> {
    let free = storage.free_bytes().map_err(Error::io("asking for free space"))?;
    match free {
        Some(free) if free < needed => Err(Error::NoSpace { needed, free }),
        _ => Ok(()),
    }
}
