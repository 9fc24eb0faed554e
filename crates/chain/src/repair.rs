//! A damaged image made whole again in another folder.

use std::io;
use std::sync::Arc;

use aiv_image_format::{
    Error as ImageError, Image, Keys, Repair, RepairReport, peek, peek_segment,
};
use aiv_volume_io::{AppendFile, Job, ReadAt, Storage};

use crate::error::{Error, Result};
use crate::folder::list;
use crate::merge::{MERGE_PART, prove, remove_stale, take_lease};
use crate::split::repair_segments;
use crate::transfer::check_room;

/// What came of repairing one image file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repaired {
    /// Name of the damaged file in its folder.
    pub from: String,
    /// Name of the repaired file in the other folder, of a split image that of the first; `None`
    /// when nothing was published, because
    /// the file is sound, or because some of its bytes stay lost.
    pub file: Option<String>,
    /// Why nothing can be told about the file at all, if so: too little of it is left.
    pub beyond: Option<String>,
    /// Whether the other folder has a file of that name already. Nothing was found out about the
    /// damaged one then.
    pub is_taken: bool,
    /// Of a split image the names of its segments, as far as the folder has them, in order; empty
    /// for an image that is a single file.
    pub segments: Vec<String>,
    /// Whether it says that it is sealed. Of a sealed image nothing can be salvaged.
    pub is_sealed: bool,
    /// Bytes of the file, or of all segments that are there.
    pub bytes: u64,
    /// What was found.
    pub report: RepairReport,
}

/// Repairs the image `file` of the folder `from` into the folder `to`, under the last part of its
/// name: by its own parity, and by other files of the same image that are in the folders
/// `copies`. The new file is the old one as it was written, byte for byte; it is proven before it
/// is published. Of a file of which some bytes stay lost nothing is published, and no file is
/// replaced. The damaged file is only read. A segment of a split image stands for the whole image:
/// the others are looked for in its folder, and all of them are published, as when it was made, or
/// none. Of `keys`, that of the
/// image proves which copy of its key slots counts; nothing else needs it.
///
/// # Errors
/// [`Error::Image`] when the file is no image of ours, needs a newer program, or cannot be read,
/// [`Error::Busy`], [`Error::NoSpace`], [`Error::ReadBack`] when the new file does not read back,
/// [`Error::Io`], [`Error::Canceled`].
pub fn repair(
    from: &dyn Storage,
    file: &str,
    copies: &[&dyn Storage],
    to: &dyn Storage,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Repaired> {
    let damaged = from.open(file).map_err(Error::io(format!("opening {file}")))?;
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    let mut done = Repaired {
        from: file.to_owned(),
        file: None,
        beyond: None,
        is_taken: false,
        segments: Vec::new(),
        is_sealed: peek(&*damaged).is_some_and(|superblock| superblock.is_sealed()),
        bytes: damaged.len(),
        report: RepairReport::default(),
    };
    if let Some(head) = peek_segment(&*damaged) {
        return repair_segments(from, head, copies, to, keys, done, job);
    }
    done.is_taken = list(to)?.iter().any(|entry| entry.name == name);
    if done.is_taken {
        return Ok(done);
    }
    let others = copies_of(&damaged, copies)?;
    let mut repair = match Repair::of(Arc::clone(&damaged), others, keys, job) {
        Ok(repair) => repair,
        Err(error @ (ImageError::Corrupt(_) | ImageError::Incomplete { .. })) => {
            done.beyond = Some(error.to_string());
            return Ok(done);
        }
        Err(error) => return Err(Error::in_file(file, error)),
    };
    done.is_sealed = repair.superblock().is_sealed();
    done.report = repair.report().clone();
    if done.report.is_sound() || !done.report.is_complete() {
        return Ok(done);
    }
    let set = repair.superblock().set;
    let lease = take_lease(to, set)?;
    remove_stale(to, set)?;
    check_room(to, done.bytes)?;
    let part = format!("{name}{MERGE_PART}");
    let mut created = to.create(&part).map_err(Error::io(format!("creating {part}")))?;
    let outcome = fill(&mut repair, &mut *created, to, (file, name, &part), job).and_then(|()| {
        lease.check().map_err(Error::io("checking the lease before publishing"))?;
        match to.publish(&part, name) {
            // Somebody was faster, or the folder takes two names for the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            published => {
                published.map_err(Error::io(format!("publishing {name}")))?;
                Ok(true)
            }
        }
    });
    drop(created);
    if !matches!(outcome, Ok(true)) {
        // Best effort: the first error is the one that matters, and a leftover is harmless.
        let _ = to.remove(&part);
    }
    if !outcome? {
        done.is_taken = true;
        return Ok(done);
    }
    to.sync_dir().map_err(Error::io(format!("making the name durable of {name}")))?;
    done.file = Some(name.to_owned());
    Ok(done)
}

/// Writes the file, makes it durable, and proves it.
fn fill(
    repair: &mut Repair,
    created: &mut dyn AppendFile,
    to: &dyn Storage,
    (from, name, part): (&str, &str, &str),
    job: Job<'_>,
) -> Result<()> {
    repair.write(created, job).map_err(|error| unwritten(from, part, error))?;
    // The stored bytes are what is repaired: no key is needed for them.
    prove(to, part, name, repair.trailer(), None, &Keys::none(), job).map(drop)
}

/// Why `part` could not be written from `from`. Two files are at work: an I/O error is told with
/// the name of the new one.
pub(crate) fn unwritten(from: &str, part: &str, error: ImageError) -> Error {
    match error {
        ImageError::Io {
            op: op @ ("write image" | "sync image" | "create segment"),
            source,
            ..
        } => Error::io(format!("{op} {part}"))(source),
        error => Error::in_file(from, error),
    }
}

/// The files of the folders that hold the same image as `damaged`, sound or not.
fn copies_of(damaged: &Arc<dyn ReadAt>, folders: &[&dyn Storage]) -> Result<Vec<Arc<dyn ReadAt>>> {
    let id = |file: &Arc<dyn ReadAt>| match peek(&**file) {
        Some(superblock) => Some(superblock.image),
        None => Image::open(file.clone()).ok().map(|image| image.superblock().image),
    };
    let Some(wanted) = id(damaged) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for storage in folders {
        for entry in list(*storage)? {
            if entry.len != damaged.len() {
                continue;
            }
            let Ok(file) = storage.open(&entry.name) else { continue };
            if id(&file) == Some(wanted) {
                found.push(file);
            }
        }
    }
    Ok(found)
}
