//! Looks into the files of a folder, several at a time: a slow disk answers many small reads
//! faster than one after the other.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aiv_image_format::{Error as ImageError, ImageId, Keys, SegmentHead, peek_segment};
use aiv_volume_io::{FileEntry, Job, Storage};

use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::{
    PART_EXTENSION, Stray, StrayKind, is_named_like_a_part, is_named_like_an_image, why,
};
use crate::open;
use crate::split::{Piece, group};

/// Files one thread looks into at least: starting a thread costs as much as a few of them.
const FILES_PER_THREAD: usize = 8;
/// More reads on the way at once gain nothing on the disks we measured.
const THREADS_MAX: usize = 32;

/// What a file is.
pub(crate) enum Found {
    Image(Box<Facts>),
    Stray(Stray),
    /// Nothing of ours, or gone since the folder was listed.
    Nothing,
}

/// What each of the files is, in their order. `known` are the images that were found before, by
/// the names of their files: who looks at a segment wants to know whether it is one too many.
pub(crate) fn look_into(
    storage: &dyn Storage,
    files: &[&FileEntry],
    known: &HashMap<ImageId, String>,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Vec<Found>> {
    let mut pieces = Vec::new();
    let looked = in_parallel(files, &|entry: &&FileEntry| {
        job.check()?;
        look_at(storage, entry, keys)
    })?;
    let mut all = Vec::with_capacity(looked.len());
    for (at, looked) in looked.into_iter().enumerate() {
        all.push(match looked {
            Looked::Whole(found) => found,
            Looked::Segment(head) => {
                pieces.push(Piece { at, head });
                Found::Nothing
            }
        });
    }
    for (at, found) in group(storage, files, pieces, known, keys) {
        all[at] = found;
    }
    Ok(all)
}

/// What a file is by itself.
enum Looked {
    Whole(Found),
    /// One of several that make an image.
    Segment(SegmentHead),
}

/// Applies `work` to every item in a few threads and returns the answers in order, or the first
/// error in order.
pub(crate) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: &(dyn Fn(&I) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let threads = (items.len() / FILES_PER_THREAD).clamp(1, THREADS_MAX);
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(at)
                {
                    let answer = work(item);
                    let failed = answer.is_err();
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
                    if failed {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn look_at(storage: &dyn Storage, entry: &FileEntry, keys: &Keys) -> Result<Looked> {
    let stray = |kind| {
        let (file, size) = (entry.name.clone(), entry.len);
        Ok(Looked::Whole(Found::Stray(Stray { file, size, image: None, kind })))
    };
    if entry.name.ends_with(PART_EXTENSION) {
        return stray(StrayKind::Unfinished);
    }
    let opened = open::open_alone(storage, &entry.name, keys);
    // With a damaged head, the last segment of an image ends as an image does.
    let may_be_segment = match &opened {
        Err(Error::Image { source: ImageError::Foreign(_), .. }) => {
            is_named_like_a_part(&entry.name)
        }
        Err(Error::Image { .. }) => true,
        _ => false,
    };
    if may_be_segment
        && let Ok(file) = storage.open(&entry.name)
        && let Some(head) = peek_segment(&*file)
    {
        let is_whole = matches!(&opened, Err(Error::Image { source, .. })
            if head.no == 0 && !matches!(source, ImageError::Segments(_)));
        if !is_whole {
            return Ok(Looked::Segment(head));
        }
    }
    match opened {
        Ok(image) => {
            let facts = Facts::of(&image, entry.name.clone());
            Ok(Looked::Whole(Found::Image(Box::new(facts))))
        }
        Err(Error::Image { source: ImageError::Foreign(why), .. }) => {
            match is_named_like_an_image(&entry.name) {
                true => stray(StrayKind::Foreign(why.to_string())),
                false => Ok(Looked::Whole(Found::Nothing)),
            }
        }
        // Removed or renamed by somebody else since the folder was listed.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Looked::Whole(Found::Nothing))
        }
        // One bad file must not keep anybody from the others.
        Err(error @ (Error::Io { .. } | Error::Image { source: ImageError::Io { .. }, .. })) => {
            stray(StrayKind::Unreadable(why(&error)))
        }
        Err(error @ Error::Image { .. }) => stray(StrayKind::Unusable(why(&error))),
        Err(error) => Err(error),
    }
}
