//! Images of several segment files, in a folder: found by what the files say, written under
//! temporary names, published and removed so that no crash leaves one that looks whole and is
//! not.
//!
//! A split image is known by the name of its first segment. That one is published last, when
//! the others are durable, and taken away first; while it has a temporary name, its image is as
//! good as not there. That name says beside which file the others have their final names, or had
//! them, and whoever holds the lease may remove those.

mod begun;
mod clean;
mod files;
mod find;
mod group;
mod listing;
mod repair;

pub use begun::BegunParts;
pub use clean::remove_interrupted;
pub use files::{PartFiles, discard_parts, open_parts, publish_parts, publish_parts_as};
pub(crate) use find::open_split;
pub(crate) use group::{Piece, group};
pub(crate) use listing::Listing;
pub(crate) use repair::repair_segments;

use aiv_volume_io::Storage;

use crate::error::{Error, Result};
use crate::merge::MERGE_PART;

/// In the name of a first segment: the others get their final names.
const PUBLISHING: &str = ".publishing";

/// In the name of a first segment: the others are removed.
const REMOVED: &str = ".removed";

/// Removes the files of an image: the first one, whose name is `file`, and the other `segments`.
/// The first one keeps its bytes under a temporary name until the others are gone, so that after
/// a crash it tells whose they are.
pub(crate) fn remove_image(storage: &dyn Storage, file: &str, segments: &[String]) -> Result<()> {
    let sync = || {
        let op = format!("making the removal durable of {file}");
        storage.sync_dir().map_err(Error::io(op))
    };
    let remove = |name: &str| storage.remove(name).map_err(Error::io(format!("removing {name}")));
    if segments.is_empty() {
        remove(file)?;
        return sync();
    }
    let marker = format!("{file}{REMOVED}{MERGE_PART}");
    storage.publish(file, &marker).map_err(Error::io(format!("removing {file}")))?;
    sync()?;
    segments.iter().rev().try_for_each(|name| remove(name))?;
    sync()?;
    remove(&marker)?;
    sync()
}
