//! Proves images, one by one or a whole folder.

use std::io;
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
    let checked = check(path.display().to_string(), open_image(path), depth, job)?;
    match checked.outcome {
        Err(source @ ImageError::Incomplete { .. }) if unfinished => {
            Err(Error::Image { file: checked.file, source })
        }
        outcome => Ok(Checked { outcome, ..checked }),
    }
}

/// Verifies every image in `storage`, by name, and lists what is no usable image beside them:
/// unfinished and foreign files, images for a newer program, and what the storage cannot read.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed, [`Error::Canceled`].
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
        match check(entry.name.clone(), folder::open(storage, &entry.name), depth, job) {
            Ok(checked) => images.push(checked),
            Err(Error::Image { source: ImageError::Foreign(why), .. }) => {
                if is_named_like_an_image(&entry.name) {
                    strays.push(stray(StrayKind::Foreign(why.to_string())));
                }
            }
            Err(Error::Image { source: ImageError::Unsupported(why), .. }) => {
                strays.push(stray(StrayKind::Unusable(why.to_string())));
            }
            // Removed or renamed by somebody else since the folder was listed.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            // One file that cannot be read must not keep anybody from proving the others.
            Err(error @ (Error::Io { .. } | Error::Image { .. })) => {
                strays.push(stray(StrayKind::Unreadable(folder::why(&error))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((images, strays))
}

/// Verifies what was opened, and turns damage that prevented the opening into an answer.
fn check(file: String, opened: Result<Image>, depth: Depth, job: Job<'_>) -> Result<Checked> {
    let verified = match opened {
        Ok(image) => image.verify(depth, job),
        Err(Error::Image { source, .. }) => Err(source),
        Err(error) => return Err(error),
    };
    match verified {
        Err(ImageError::Canceled(canceled)) => Err(canceled.into()),
        Ok(_) | Err(ImageError::Corrupt(_) | ImageError::Incomplete { .. }) => {
            Ok(Checked { file, outcome: verified })
        }
        Err(source) => Err(Error::Image { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Filled, image};
    use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};

    fn verify(dir: &Filled) -> (Vec<Checked>, Vec<Stray>) {
        verify_folder(&dir.storage(), Depth::Data, Job::silent()).expect("the folder is readable")
    }

    #[test]
    fn every_image_of_a_folder_is_verified_and_the_rest_is_listed() {
        let mut damaged = image(2, "sda", 2);
        damaged[4096 + 70] ^= 1;
        let mut headless = image(3, "sda", 3);
        headless.truncate(9000);
        let dir = Filled::with(&[
            ("a.aiv", image(1, "sda", 1)),
            ("b.aiv", damaged),
            ("c.aiv", headless),
            ("d.aiv", b"AIX and many other bytes".repeat(400)),
            ("e.aiv.part", image(5, "sda", 5)),
            ("notes.txt", b"nothing of ours".to_vec()),
        ]);
        let (images, strays) = verify(&dir);
        let sound: Vec<_> = images.iter().map(|i| (i.file.as_str(), i.is_sound())).collect();
        assert_eq!(sound, [("a.aiv", true), ("b.aiv", false), ("c.aiv", false)]);
        assert!(matches!(images[2].outcome, Err(ImageError::Incomplete { len: 9000 })));
        let strays: Vec<_> = strays.iter().map(|s| s.file.as_str()).collect();
        assert_eq!(strays, ["d.aiv", "e.aiv.part"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let mut unreadable = 0;
        for nth in 1.. {
            let storage = MemStorage::new();
            storage.insert("a.aiv", image(1, "sda", 1));
            storage.insert("b.aiv", image(2, "sda", 2));
            let broken = FaultStorage::failing(storage, FaultPlan::once(nth, Fault::Eio));
            let found = verify_folder(&broken, Depth::Data, Job::silent());
            if !broken.fired() {
                break;
            }
            let Ok((images, strays)) = found else { continue };
            assert_eq!(images.len() + strays.len(), 2, "operation {nth}");
            // A record of which the copy could be read is damage, and no other is.
            let one_copy = |image: &Checked| match &image.outcome {
                Ok(report) => report.damage.iter().all(|d| d.what().contains("cannot be read")),
                Err(_) => false,
            };
            assert!(images.iter().all(one_copy), "operation {nth}");
            assert!(strays.iter().all(|s| matches!(s.kind, StrayKind::Unreadable(_))));
            unreadable += strays.len();
        }
        assert!(unreadable > 10, "every read of both images failed once");
    }

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
