//! The files of an image while it is written, and how they get their final names.

use std::io;
use std::sync::Arc;

use aiv_image_format::limits::SEGMENTS_MAX;
use aiv_image_format::{Error as ImageError, Image, Keys, SegmentFile, SegmentFiles, segment_name};
use aiv_volume_io::{AppendFile, FileEntry, ReadAt, Storage};

use super::PUBLISHING;

/// Segments being written into a folder, each under its final name with a suffix behind it.
pub struct PartFiles<'a> {
    storage: &'a dyn Storage,
    file: String,
    suffix: &'static str,
    first: Option<Box<dyn AppendFile>>,
}

impl<'a> PartFiles<'a> {
    /// For the image that will be called `file`. `first` is its first segment, which the caller
    /// has created under that name and `suffix`: a name that is taken is somebody else's, and
    /// nothing of it is to be removed.
    #[must_use]
    pub fn new(
        storage: &'a dyn Storage,
        file: &str,
        suffix: &'static str,
        first: Box<dyn AppendFile>,
    ) -> Self {
        Self { storage, file: file.to_owned(), suffix, first: Some(first) }
    }

    /// For an image whose first segment is there already.
    pub(super) fn behind(storage: &'a dyn Storage, file: &str, suffix: &'static str) -> Self {
        Self { storage, file: file.to_owned(), suffix, first: None }
    }
}

pub(super) fn part_name(file: &str, suffix: &str, no: u32) -> String {
    format!("{}{suffix}", segment_name(file, no))
}

impl SegmentFiles for PartFiles<'_> {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        match self.first.take() {
            Some(first) if no == 0 => Ok(first),
            _ => self.storage.create(&part_name(&self.file, self.suffix, no)),
        }
    }

    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.storage.open(&part_name(&self.file, self.suffix, no))
    }
}

/// Opens an image of `count` segments under their temporary names, to prove it.
///
/// # Errors
/// Those of [`Image::open_with`] and [`Image::open_segments_with`].
pub fn open_parts(
    storage: &dyn Storage,
    file: &str,
    suffix: &str,
    count: u32,
    keys: &Keys,
) -> Result<Image, ImageError> {
    let open = |no| {
        let name = part_name(file, suffix, no);
        let opened = storage.open_past_cache(&name);
        let op = "open what was written";
        opened.map(|file| SegmentFile { name, file }).map_err(|source| ImageError::Io {
            op,
            offset: 0,
            source,
        })
    };
    match count {
        0 | 1 => Image::open_with(open(0)?.file, keys),
        _ => {
            let files = (0..count).map(open).collect::<Result<_, _>>()?;
            Image::open_segments_with(files, keys)
        }
    }
}

/// The name of the first segment while the others get, or have, their final names beside `file`:
/// after a crash it tells which files belong to what was interrupted, and no other file ever does.
fn publishing(file: &str, suffix: &str) -> String {
    format!("{file}{PUBLISHING}{suffix}")
}

/// Gives the `count` segments of an image their final names; the name of the first, `file`, is
/// what makes them an image, so it comes last, when the others are durable. Never replaces. The
/// folder has to be synced afterwards, as after every publishing.
///
/// # Errors
/// Those of [`Storage::publish`] and [`Storage::sync_dir`]. Whatever was published is then taken
/// back, as far as the storage allows, and the parts are left to [`discard_parts`].
pub fn publish_parts(
    storage: &dyn Storage,
    file: &str,
    suffix: &str,
    count: u32,
) -> io::Result<()> {
    publish_parts_as(storage, file, suffix, count, file)
}

/// As [`publish_parts`], under another name, `file`, than `part`, which the parts were written for.
///
/// # Errors
/// Those of [`publish_parts`].
pub fn publish_parts_as(
    storage: &dyn Storage,
    part: &str,
    suffix: &str,
    count: u32,
    file: &str,
) -> io::Result<()> {
    let first = part_name(part, suffix, 0);
    if count <= 1 {
        return storage.publish(&first, file);
    }
    let marker = publishing(file, suffix);
    let mut published = Vec::new();
    let outcome = storage.publish(&first, &marker).and_then(|()| {
        storage.sync_dir()?;
        for no in 1..count {
            let name = segment_name(file, no);
            storage.publish(&part_name(part, suffix, no), &name)?;
            published.push(name);
        }
        storage.sync_dir()?;
        storage.publish(&marker, file)
    });
    if outcome.is_err() {
        take_back(storage, &published, &marker, &first);
    }
    outcome
}

/// Takes back what was published, and the marker last: while it is there, a later cleaning finds
/// what stays. Best effort. Without the marker the last step was done, whatever was said about it.
fn take_back(storage: &dyn Storage, published: &[String], marker: &str, first: &str) {
    let is_there = |listed: Vec<FileEntry>| listed.iter().any(|entry| entry.name == marker);
    if !storage.list().is_ok_and(is_there) {
        return;
    }
    let mut is_back = true;
    for name in published {
        is_back &= storage.remove(name).is_ok();
    }
    if is_back && storage.sync_dir().is_ok() {
        let _ = storage.publish(marker, first);
    }
}

/// Removes the parts of an image that is given up. One whose other segments could not be taken
/// back is not called that any more, and stays for a later cleaning. Best effort: a leftover is
/// harmless, and the error that led here is the one that matters.
pub fn discard_parts(storage: &dyn Storage, file: &str, suffix: &str) {
    let Ok(listed) = storage.list() else { return };
    let is_there =
        |name: &str| listed.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok();
    // Those that were published and taken back leave gaps.
    for no in (0..SEGMENTS_MAX).rev() {
        let part = part_name(file, suffix, no);
        if is_there(&part) && storage.remove(&part).is_err() {
            return;
        }
    }
}
