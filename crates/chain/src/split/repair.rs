//! A damaged split image made whole again in another folder: all of its segments, or none.

use std::io;

use aiv_image_format::{
    Error as ImageError, Keys, SegmentFile, SegmentHead, SegmentsRepair, SetId, first_segment_name,
    peek_segment, segment_name,
};
use aiv_volume_io::{Job, Storage};

use super::{PartFiles, discard_parts, publish_parts};
use crate::error::{Error, Result};
use crate::folder::{PART_EXTENSION, list};
use crate::merge::{MERGE_PART, prove, remove_stale, take_lease};
use crate::repair::{Repaired, unwritten};
use crate::transfer::check_room;

/// Repairs the image that has the segment `head`, which `done` names, out of the folder `from` into
/// the folder `to`.
pub(crate) fn repair_segments(
    from: &dyn Storage,
    head: SegmentHead,
    copies: &[&dyn Storage],
    to: &dyn Storage,
    keys: &Keys,
    mut done: Repaired,
    job: Job<'_>,
) -> Result<Repaired> {
    let base = match head.no {
        0 => done.from.clone(),
        _ => first_segment_name(&done.from).unwrap_or(&done.from).to_owned(),
    };
    let mut files = segments_of(from, head)?;
    // Those that its writer put beside it go before second copies of them.
    files.sort_by_key(|(no, file)| (*no, file.name != segment_name(&base, *no), file.name.clone()));
    let first = files.first().filter(|(no, _)| *no == 0);
    let name = first.map_or(base, |(_, first)| first.name.clone());
    let name = name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name);
    done.segments = files.iter().map(|(_, file)| file.name.clone()).collect();
    done.bytes = files.iter().map(|(_, file)| file.file.len()).fold(0, u64::saturating_add);
    if is_taken(to, name, head.set)? {
        done.is_taken = true;
        return Ok(done);
    }
    let mut others = Vec::new();
    for folder in copies {
        others.extend(segments_of(*folder, head)?.into_iter().map(|(_, file)| file));
    }
    let files: Vec<SegmentFile> = files.into_iter().map(|(_, file)| file).collect();
    let mut repair = match SegmentsRepair::of(head.image, &files, &others, keys, job) {
        Ok(repair) => repair,
        Err(
            error @ (ImageError::Corrupt(_)
            | ImageError::Incomplete { .. }
            | ImageError::Segments(_)),
        ) => {
            done.beyond = Some(error.to_string());
            return Ok(done);
        }
        Err(error) => return Err(Error::in_file(&done.from, error)),
    };
    done.is_sealed = repair.superblock().is_sealed();
    done.report = repair.report().clone();
    if done.report.is_sound() || !done.report.is_complete() {
        return Ok(done);
    }
    let set = repair.superblock().set;
    let lease = take_lease(to, set)?;
    remove_stale(to, set)?;
    check_room(to, repair.trailer().file_len)?;
    let count = repair.trailer().segment_count;
    let part = format!("{name}{MERGE_PART}");
    let created = to.create(&part).map_err(Error::io(format!("creating {part}")))?;
    let parts = PartFiles::new(to, name, MERGE_PART, created);
    let written = repair.write(Box::new(parts), job);
    let outcome = written.map_err(|error| unwritten(&done.from, &part, error)).and_then(|()| {
        // The stored bytes are what is repaired: no key is needed for them.
        prove(to, &part, name, repair.trailer(), None, &Keys::none(), job)?;
        lease.check().map_err(Error::io("checking the lease before publishing"))?;
        match publish_parts(to, name, MERGE_PART, count) {
            // Somebody was faster, or the folder takes two names for the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            published => {
                published.map_err(Error::io(format!("publishing {name}")))?;
                Ok(true)
            }
        }
    });
    if !matches!(outcome, Ok(true)) {
        discard_parts(to, name, MERGE_PART);
    }
    if !outcome? {
        done.is_taken = true;
        return Ok(done);
    }
    to.sync_dir().map_err(Error::io(format!("making the name durable of {name}")))?;
    done.file = Some(name.to_owned());
    Ok(done)
}

/// Whether a file of the folder has a name that an image called `name` would give to one of its
/// segments. What an interruption has left of one is none, and goes first.
fn is_taken(to: &dyn Storage, name: &str, set: SetId) -> Result<bool> {
    let has = |is_it: &dyn Fn(&str) -> bool| {
        Ok::<_, Error>(list(to)?.iter().any(|entry| is_it(&entry.name)))
    };
    if has(&|taken| taken == name)? {
        return Ok(true);
    }
    let is_other = |taken: &str| first_segment_name(taken) == Some(name);
    if !has(&is_other)? {
        return Ok(false);
    }
    let _lease = take_lease(to, set)?;
    remove_stale(to, set)?;
    has(&is_other)
}

/// The segments of an image in a folder, damaged ones too, as long as they say what they are.
fn segments_of(storage: &dyn Storage, head: SegmentHead) -> Result<Vec<(u32, SegmentFile)>> {
    let mut found = Vec::new();
    for entry in list(storage)?.into_iter().filter(|entry| !entry.name.ends_with(PART_EXTENSION)) {
        let Ok(file) = storage.open(&entry.name) else { continue };
        let own = peek_segment(&*file).filter(|own| own.image == head.image);
        found.extend(own.map(|own| (own.no, SegmentFile { name: entry.name, file })));
    }
    Ok(found)
}
