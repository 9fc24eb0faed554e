//! Proves images one by one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aiv_image_format::{
    Depth, Error as ImageError, Image, Keys, PointId, SegmentError, VerifyReport, verify_segment,
};
use aiv_volume_io::{FileDisk, Job, ReadAt, Storage};

use crate::catalogue::Verified;
use crate::error::{Error, Result};
use crate::facts::Protection;
use crate::folder::{Folder, PART_EXTENSION};
use crate::locate::{open_image_keyed, storage_of};
use crate::open::{self, Head};
use crate::view::View;

/// One image, and what came of verifying it.
#[derive(Debug)]
pub struct Checked {
    /// Name of the file.
    pub file: String,
    /// What was found; an empty report when the image was skipped. [`ImageError::Corrupt`] or
    /// [`ImageError::Incomplete`] when the file is damaged so badly that it cannot be opened, and
    /// [`ImageError::Segments`] when segments are missing or do not fit together; in a folder
    /// [`ImageError::Forged`], too.
    pub outcome: std::result::Result<VerifyReport, ImageError>,
    /// The earlier verification that made this one needless: the file was not read.
    pub skipped: Option<Verified>,
    /// Which segment of a split image it is, from 1, when it was proven by itself: every stored
    /// byte, and nothing about blocks.
    pub segment: Option<u32>,
    /// What a key does for the image, as it says itself; `None` when it could not be opened, or was
    /// not whole.
    pub protection: Option<Protection>,
    /// The points that cannot be read completely, as far as is known, because this file is
    /// damaged: by what was found now, or by an earlier verification that looked deeper. Only
    /// known to [`verify_folder`](crate::verify_folder).
    pub points_affected: Vec<PointId>,
}

impl Checked {
    pub(crate) fn new(
        file: String,
        outcome: std::result::Result<VerifyReport, ImageError>,
    ) -> Self {
        let (skipped, segment, protection, points_affected) = (None, None, None, Vec::new());
        Self { file, outcome, skipped, segment, protection, points_affected }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.outcome.as_ref().is_ok_and(VerifyReport::is_sound)
    }

    /// Whether somebody without the key has made what says that it has that key: no parity makes
    /// that right.
    #[must_use]
    pub fn is_forged(&self) -> bool {
        matches!(self.outcome, Err(ImageError::Forged { .. }))
    }

    /// The same about the image that was opened.
    pub(crate) fn of(self, image: &Image) -> Self {
        Self { protection: Some(Protection::of(image.superblock())), ..self }
    }

    /// Whether all was proven, now or by the verification that made this one needless. An image
    /// whose parent is missing or damaged, or that is locked, can be sound as far as one can see,
    /// and not be proven.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let whole = |report: &VerifyReport| !report.without_parent && !report.locked;
        self.is_sound() && self.outcome.as_ref().is_ok_and(whole)
    }
}

/// Verifies one segment by itself.
fn segment_alone(file: &Arc<dyn ReadAt>, name: &str, job: Job<'_>) -> Result<Checked> {
    match verify_segment(file, job) {
        Ok(found) => {
            let checked = Checked::new(name.to_owned(), Ok(found.report));
            Ok(Checked { segment: Some(found.number), ..checked })
        }
        Err(error) => answer(name.to_owned(), Err(Error::in_file(name, error))),
    }
}

/// Verifies the image file at `path`, on top of the images it builds on, which are looked for in
/// the folder it lies in. Damage is no error but part of the answer; where a parent is missing
/// the report says that not all could be proven. A split image is named by its first segment; a
/// later one is verified by itself.
///
/// # Errors
/// [`Error::File`] and [`Error::Image`] when the file cannot be read, is no image of ours, or
/// needs a newer program; an unfinished backup under its temporary name is
/// [`ImageError::Incomplete`] or [`ImageError::Segments`] in [`Error::Image`].
/// [`Error::Canceled`].
pub fn verify_file(path: &Path, depth: Depth, job: Job<'_>) -> Result<Checked> {
    verify_file_keyed(path, depth, &Keys::none(), job)
}

/// As [`verify_file`], with the keys of images that have one. Of a locked image every stored byte
/// is proven, and its report says that it is locked.
///
/// # Errors
/// Those of [`verify_file`].
pub fn verify_file_keyed(path: &Path, depth: Depth, keys: &Keys, job: Job<'_>) -> Result<Checked> {
    let unfinished = path.to_string_lossy().ends_with(PART_EXTENSION);
    let file = path.display().to_string();
    let opened = open_image_keyed(path, keys);
    if let Err(Error::Image { source: ImageError::Segments(why), .. }) = &opened
        && !unfinished
        && matches!(why, SegmentError::Part { number, .. } if *number > 1)
    {
        let disk = FileDisk::open_source(path).map_err(Error::File)?;
        return segment_alone(&(Arc::new(disk) as Arc<dyn ReadAt>), &file, job);
    }
    let verified = match opened {
        Ok(image) if image.superblock().parent.is_some() => {
            let (storage, name) = storage_of(path)?;
            let image = Arc::new(image);
            let view = View::with_parents(&storage, Arc::clone(&image), name, keys, job);
            on_parent(view, &image, name, depth, job)
        }
        Ok(image) => image.verify(depth, job).map_err(|e| Error::in_file(&file, e)),
        Err(error) => Err(error),
    };
    let checked = answer(file, verified)?;
    match checked.outcome {
        Err(source @ (ImageError::Incomplete { .. } | ImageError::Segments(_))) if unfinished => {
            Err(Error::Image { file: checked.file, source })
        }
        outcome => Ok(Checked::new(checked.file, outcome)),
    }
}

/// Verifies the newest image of a view on top of the others.
pub(crate) fn of_view(view: &View, depth: Depth, job: Job<'_>) -> Result<VerifyReport> {
    let report = match view.parent() {
        None => view.image().verify(depth, job),
        Some(parent) => match view.image().verify_on(&parent, depth, job) {
            // Damage of another file, which gets a report of its own.
            Err(ImageError::Parent { .. }) => view.image().verify(depth, job),
            verified => verified,
        },
    };
    report.map_err(|e| Error::in_file(view.file(), e))
}

/// Verifies an image on top of what it builds on, as far as that is there: when the view of its
/// point could be opened.
fn on_parent(
    view: Result<View>,
    image: &Image,
    file: &str,
    depth: Depth,
    job: Job<'_>,
) -> Result<VerifyReport> {
    match view {
        Ok(view) => of_view(&view, depth, job),
        Err(Error::Canceled(canceled)) => Err(canceled.into()),
        Err(_) => image.verify(depth, job).map_err(|e| Error::in_file(file, e)),
    }
}

/// Verifies `file`, which a scan of the folder did not choose for any point.
pub(crate) fn verify_alone(
    storage: &dyn Storage,
    folder: &Folder,
    file: &str,
    depth: Depth,
    job: Job<'_>,
) -> Result<Checked> {
    let image = match open::open_or_locked(storage, file, Head::Read, &folder.keys) {
        Err(Error::Image { source: ImageError::Segments(SegmentError::Part { .. }), .. }) => {
            let opened = storage.open(file).map_err(Error::io(format!("opening {file}")))?;
            return segment_alone(&opened, file, job);
        }
        opened => opened.map(Arc::new),
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => return answer(file.to_owned(), Err(error)),
    };
    let view = View::open_in(storage, folder, Arc::clone(&image), file);
    let verified = on_parent(view, &image, file, depth, job);
    answer(file.to_owned(), verified).map(|checked| checked.of(&image))
}

/// Turns damage that prevented the opening into an answer.
pub(crate) fn answer(file: String, verified: Result<VerifyReport>) -> Result<Checked> {
    match verified {
        Ok(report) => Ok(Checked::new(file, Ok(report))),
        Err(Error::Image {
            source:
                source @ (ImageError::Corrupt(_)
                | ImageError::Incomplete { .. }
                | ImageError::Segments(_)),
            ..
        }) => Ok(Checked::new(file, Err(source))),
        Err(Error::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            let source = ImageError::Io { op: "open", offset: 0, source };
            Err(Error::Image { file, source })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Filled, image};

    #[test]
    fn a_cut_off_image_is_damaged_and_one_that_was_never_finished_is_not() {
        let mut cut = image(1, "sda", 1);
        cut.truncate(9000);
        let dir = Filled::with(&[("a.aiv", cut.clone()), ("b.aiv.part", cut)]);
        let verify = |name| verify_file(&dir.path().join(name), Depth::Quick, Job::silent());
        assert!(!verify("a.aiv").expect("damage is an answer").is_sound());
        let error = verify("b.aiv.part").expect_err("not finished");
        assert!(matches!(error, Error::Image { source: ImageError::Incomplete { .. }, .. }));
    }
}
