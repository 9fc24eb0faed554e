//! Proves images, one by one or a whole folder.

use std::path::Path;

use aiv_image_format::{Depth, Error as ImageError, Image, VerifyReport};
use aiv_volume_io::{Job, Storage};

use crate::error::{Error, Result};
use crate::folder::{self, PART_EXTENSION, Stray, StrayKind, is_named_like_an_image};
use crate::locate::open_image;

/// One image, and what came of verifying it.
#[derive(Debug)]
pub struct Checked {
    /// Name of the file.
    pub file: String,
    /// What was found. [`ImageError::Corrupt`] or [`ImageError::Incomplete`] when the file is
    /// damaged so badly that it cannot be opened.
    pub outcome: std::result::Result<VerifyReport, ImageError>,
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.outcome.as_ref().is_ok_and(VerifyReport::is_sound)
    }
}

/// Verifies the image file at `path`. Damage is no error but part of the answer.
///
/// # Errors
/// [`Error::File`] and [`Error::Image`] when the file cannot be read, is no image of ours, or
/// needs a newer program; an unfinished backup under its temporary name is
/// [`ImageError::Incomplete`] in [`Error::Image`]. [`Error::Canceled`].
pub fn verify_file(path: &Path, depth: Depth, job: Job<'_>) -> Result<Checked> {
    let unfinished = path.to_string_lossy().ends_with(PART_EXTENSION);
    match check(open_image(path), depth, job) {
        Ok(Checked { file, outcome: Err(source @ ImageError::Incomplete { .. }) }) if unfinished => {
            Err(Error::Image { file, source })
        }
        Ok(checked) => Ok(Checked { file: path.display().to_string(), ..checked }),
        Err(error) => Err(error),
    }
}

/// Verifies every image in `storage`, by name, and lists what is no usable image beside them:
/// unfinished and foreign files, and images for a newer program.
///
/// # Errors
/// [`Error::Io`] and [`Error::Image`] when the folder or a file cannot be read,
/// [`Error::Canceled`].
pub fn verify_folder(
    storage: &dyn Storage,
    depth: Depth,
    job: Job<'_>,
) -> Result<(Vec<Checked>, Vec<Stray>)> {
    let (mut images, mut strays) = (Vec::new(), Vec::new());
    for entry in folder::list(storage)? {
        job.check()?;
        let stray = |kind| Stray { file: entry.name.clone(), size: entry.len, kind };
        if entry.name.ends_with(PART_EXTENSION) {
            strays.push(stray(StrayKind::Unfinished));
            continue;
        }
        match check(folder::open(storage, &entry.name), depth, job) {
            Ok(checked) => images.push(Checked { file: entry.name, ..checked }),
            Err(Error::Image { source: ImageError::Foreign(why), .. }) => {
                if is_named_like_an_image(&entry.name) {
                    strays.push(stray(StrayKind::Foreign(why.to_string())));
                }
            }
            Err(Error::Image { source: ImageError::Unsupported(why), .. }) => {
                strays.push(stray(StrayKind::Unusable(why.to_string())));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((images, strays))
}

/// Verifies what was opened, and turns damage that prevented the opening into an answer.
fn check(opened: Result<Image>, depth: Depth, job: Job<'_>) -> Result<Checked> {
    let image = match opened {
        Ok(image) => image,
        Err(Error::Image {
            file,
            source: source @ (ImageError::Corrupt(_) | ImageError::Incomplete { .. }),
        }) => return Ok(Checked { file, outcome: Err(source) }),
        Err(error) => return Err(error),
    };
    match image.verify(depth, job) {
        Ok(report) => Ok(Checked { file: String::new(), outcome: Ok(report) }),
        Err(ImageError::Canceled(canceled)) => Err(canceled.into()),
        Err(source) => Err(Error::Image { file: String::new(), source }),
    }
}
