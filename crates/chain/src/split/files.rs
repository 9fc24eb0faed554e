//! The files of an image while it is written, and how they get their final names.

use std::io;
use std::sync::Arc;

use aiv_image_format::limits::SEGMENTS_MAX;
use aiv_image_format::{Error as ImageError, Image, Keys, SegmentFile, SegmentFiles, segment_name};
use aiv_volume_io::{AppendFile, ReadAt, Storage};

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
}

fn part_name(file: &str, suffix: &str, no: u32) -> String {
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
/// Those of [`Image::open`] and [`Image::open_segments`].
pub fn open_parts(
    storage: &dyn Storage,
    file: &str,
    suffix: &str,
    count: u32,
    keys: &Keys,
) -> Result<Image, ImageError> {
    let open = |no| {
        let name = part_name(file, suffix, no);
        let opened = storage.open(&name);
        let op = "open what was written";
        opened.map(|file| SegmentFile { name, file }).map_err(|source| ImageError::Io {
            op,
            offset: 0,
            source,
        })
    };
    match count {
        0 | 1 => Image::open_with(open(0)?.file, keys),
        _ => Image::open_segments((0..count).map(open).collect::<Result<_, _>>()?),
    }
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

/// As [`publish_parts`], under another name than the parts were written for.
pub(crate) fn publish_parts_as(
    storage: &dyn Storage,
    part: &str,
    suffix: &str,
    count: u32,
    file: &str,
) -> io::Result<()> {
    let mut published = Vec::new();
    let outcome = publish_each(storage, (part, suffix), count, file, &mut published);
    if outcome.is_err() && !published.is_empty() {
        for name in &published {
            let _ = storage.remove(name);
        }
        // Before the first segment goes, by which a later cleaning would know them.
        let _ = storage.sync_dir();
    }
    outcome
}

fn publish_each(
    storage: &dyn Storage,
    (part, suffix): (&str, &str),
    count: u32,
    file: &str,
    published: &mut Vec<String>,
) -> io::Result<()> {
    if count > 1 {
        // After a crash the first one under its temporary name tells whose the others are.
        storage.sync_dir()?;
        for no in 1..count {
            let name = segment_name(file, no);
            storage.publish(&part_name(part, suffix, no), &name)?;
            published.push(name);
        }
        storage.sync_dir()?;
    }
    storage.publish(&part_name(part, suffix, 0), file)
}

/// Removes the parts of an image that is given up, the first one last, and that one only when none
/// of the others kept its final name: it tells whose they are. Best effort: a leftover is harmless,
/// and the error that led here is the one that matters.
pub fn discard_parts(storage: &dyn Storage, file: &str, suffix: &str) {
    let Ok(listed) = storage.list() else { return };
    let is_there =
        |name: &str| listed.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok();
    // Those that were published and taken back leave gaps.
    for no in (1..SEGMENTS_MAX).rev() {
        let part = part_name(file, suffix, no);
        if is_there(&part) && storage.remove(&part).is_err() {
            return;
        }
    }
    if !(1..SEGMENTS_MAX).any(|no| is_there(&segment_name(file, no))) {
        let _ = storage.remove(&part_name(file, suffix, 0));
    }
}
