//! Looks into the files of a folder, several at a time: a slow disk answers many small reads
//! faster than one after the other.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aiv_image_format::{Error as ImageError, Keys};
use aiv_volume_io::{FileEntry, Job, Storage};

use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::{PART_EXTENSION, Stray, StrayKind, is_named_like_an_image, why};
use crate::open::{self, Head};

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

/// What each of the files is, in their order.
pub(crate) fn look_into(
    storage: &dyn Storage,
    files: &[&FileEntry],
    keys: &Keys,
    job: Job<'_>,
) -> Result<Vec<Found>> {
    in_parallel(files, &|entry: &&FileEntry| {
        job.check()?;
        look_at(storage, entry, keys)
    })
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

fn look_at(storage: &dyn Storage, entry: &FileEntry, keys: &Keys) -> Result<Found> {
    let stray = |kind| {
        let (file, size) = (entry.name.clone(), entry.len);
        Ok(Found::Stray(Stray { file, size, image: None, kind }))
    };
    if entry.name.ends_with(PART_EXTENSION) {
        return stray(StrayKind::Unfinished);
    }
    match open::open_or_locked(storage, &entry.name, Head::Read, keys) {
        Ok(image) => Ok(Found::Image(Box::new(Facts::of(&image, entry.name.clone())))),
        Err(Error::Image { source: ImageError::Foreign(why), .. }) => {
            match is_named_like_an_image(&entry.name) {
                true => stray(StrayKind::Foreign(why.to_string())),
                false => Ok(Found::Nothing),
            }
        }
        // Removed or renamed by somebody else since the folder was listed.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Found::Nothing)
        }
        // One bad file must not keep anybody from the others.
        Err(error @ (Error::Io { .. } | Error::Image { source: ImageError::Io { .. }, .. })) => {
            stray(StrayKind::Unreadable(why(&error)))
        }
        Err(error @ Error::Image { .. }) => stray(StrayKind::Unusable(why(&error))),
        Err(error) => Err(error),
    }
}
