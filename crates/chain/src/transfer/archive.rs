//! One point as one full image that needs no other.

use std::io;

use aiv_image_format::{Digest, ImageKind, PointId};
use aiv_volume_io::{Job, Storage};

use super::{census_of_durable, check_room};
use crate::ancestry::{Ancestry, node};
use crate::error::{Error, Result};
use crate::folder::{Point, Set, check_key};
use crate::merge::{
    Merge, MergeIds, MergeOptions, NewIds, bytes_needed, remove_stale, split_of, take_lease,
};
use crate::view::View;

/// What archiving a point did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// Name of the full image in the destination.
    pub file: String,
    /// The point it provides.
    pub point: PointId,
    /// Name of the state.
    pub state_root: Digest,
    /// Bytes of the file, or of all its segments.
    pub bytes: u64,
    /// Files the image is split into; 1 when it is not.
    pub segments: u32,
    /// Whether it was there already, and nothing was written.
    pub was_there: bool,
}

/// Writes `point` of `set`, which a scan of `from` found, as one full image into `to`. It provides
/// the same point with the same state; nothing is removed.
///
/// # Errors
/// [`Error::NotRestorable`] when the key of an image that has one was not given, also for one that
/// is only authenticated.
/// [`Error::Busy`], [`Error::NoSpace`], [`Error::NotRestorable`] and [`Error::Image`] when the
/// chain of the point cannot be read, [`Error::ReadBack`], [`Error::Io`], [`Error::Canceled`].
/// After an error there is no new image in `to`, or after one of the last step, the sync of the
/// folder, a complete one that may not survive a power cut.
pub fn archive(
    from: &dyn Storage,
    set: &Set,
    point: &Point,
    to: &dyn Storage,
    options: impl Into<MergeOptions>,
    new_ids: &mut NewIds<'_>,
    job: Job<'_>,
) -> Result<ArchiveReport> {
    let mut options = options.into();
    check_key(point.id, point.protection, &set.keys)?;
    let lease = take_lease(to, set.id)?;
    remove_stale(to, set.id)?;
    let there = census_of_durable(to, job)?;
    let ancestry = Ancestry::of(&there.all);
    let state = (set.id, point.id, point.state_root);
    let full = there.all.iter().find(|facts| {
        node(facts) == state && facts.kind == ImageKind::Full && facts.damage.is_empty()
    });
    if let Some(facts) = full.filter(|_| ancestry.has(state, true)) {
        return Ok(ArchiveReport {
            file: facts.file.clone(),
            point: point.id,
            state_root: point.state_root,
            bytes: facts.size_stored,
            segments: u32::try_from(facts.segments.len()).unwrap_or(u32::MAX).saturating_add(1),
            was_there: true,
        });
    }
    let view = View::of_point(from, set, point)?;
    let count = view.images().len();
    let bytes = bytes_needed(&view, count, options.parity)?;
    check_room(to, bytes)?;
    options.split = split_of(options.split, &view, count, bytes)?;
    let merge =
        Merge { view: &view, from: Some(from), count, options, ids: new_ids(), name: None, job };
    let merged = merge
        .write(to, &|| lease.check().map_err(Error::io("checking the lease before publishing")))?;
    Ok(ArchiveReport {
        file: merged.file,
        point: point.id,
        state_root: merged.trailer.state_root,
        bytes: merged.bytes,
        segments: merged.segments,
        was_there: false,
    })
}

/// Writes the point of `view`, whose images are in `from`, as one full image called `file` into
/// `to`.
///
/// # Errors
/// As [`archive`]; [`Error::Io`] with [`io::ErrorKind::AlreadyExists`] when the name is taken.
pub fn archive_as(
    from: &dyn Storage,
    view: &View,
    to: &dyn Storage,
    file: &str,
    options: impl Into<MergeOptions>,
    ids: MergeIds,
    job: Job<'_>,
) -> Result<ArchiveReport> {
    let mut options = options.into();
    view.check_key()?;
    if to.open(file).is_ok() {
        // Publishing would refuse it, too, after all the work.
        return Err(Error::io(format!("creating {file}"))(io::ErrorKind::AlreadyExists.into()));
    }
    let set = view.image().superblock().set;
    let lease = take_lease(to, set)?;
    remove_stale(to, set)?;
    let count = view.images().len();
    let bytes = bytes_needed(view, count, options.parity)?;
    check_room(to, bytes)?;
    options.split = split_of(options.split, view, count, bytes)?;
    let merge = Merge { view, from: Some(from), count, options, ids, name: Some(file), job };
    let merged = merge
        .write(to, &|| lease.check().map_err(Error::io("checking the lease before publishing")))?;
    Ok(ArchiveReport {
        file: merged.file,
        point: view.point(),
        state_root: merged.trailer.state_root,
        bytes: merged.bytes,
        segments: merged.segments,
        was_there: false,
    })
}
