//! Proves images, one by one or a whole folder.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aiv_image_format::{Depth, Error as ImageError, Image, VerifyReport};
use aiv_volume_io::{Job, Storage};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::error::{Error, Result};
use crate::facts;
use crate::folder::{self, Folder, PART_EXTENSION, Stray, StrayKind};
use crate::locate::{open_image, storage_of};
use crate::view::View;

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

/// Verifies the image file at `path`, on top of the images it builds on, which are looked for in
/// the folder it lies in. Damage is no error but part of the answer; where a parent is missing
/// the report says that not all could be proven.
///
/// # Errors
/// [`Error::File`] and [`Error::Image`] when the file cannot be read, is no image of ours, or
/// needs a newer program; an unfinished backup under its temporary name is
/// [`ImageError::Incomplete`] in [`Error::Image`]. [`Error::Canceled`].
pub fn verify_file(path: &Path, depth: Depth, job: Job<'_>) -> Result<Checked> {
    let unfinished = path.to_string_lossy().ends_with(PART_EXTENSION);
    let file = path.display().to_string();
    let verified = match open_image(path) {
        Ok(image) if image.superblock().parent.is_some() => {
            let (storage, name) = storage_of(path)?;
            let folder = Folder::scan(&storage, job)?;
            let name = name.to_owned();
            on_parent(&storage, &folder, image, &name, depth, job)
        }
        Ok(image) => image.verify(depth, job).map_err(|e| in_file(&file, e)),
        Err(error) => Err(error),
    };
    let checked = answer(file, verified)?;
    match checked.outcome {
        Err(source @ ImageError::Incomplete { .. }) if unfinished => {
            Err(Error::Image { file: checked.file, source })
        }
        outcome => Ok(Checked { outcome, ..checked }),
    }
}

/// Verifies every image in `storage` and returns them by name, with what is no usable image
/// beside them: unfinished and foreign files, images for a newer program, and what the storage
/// cannot read. Images are verified several at a time, in the rayon pool of the calling thread.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed, [`Error::Canceled`].
pub fn verify_folder(
    storage: &dyn Storage,
    depth: Depth,
    job: Job<'_>,
) -> Result<(Vec<Checked>, Vec<Stray>)> {
    let folder = Folder::scan(storage, job)?;
    let mut strays = Vec::new();
    let mut images = Vec::new();
    let mut views = Vec::new();
    let mut done = HashSet::new();
    let mut single: Vec<&str> = Vec::new();
    for set in &folder.sets {
        for point in set.points.iter().rev() {
            if done.contains(point.file.as_str()) {
                continue;
            }
            // Opened once for all the points below it.
            match View::of_point(storage, set, point) {
                Ok(view) => {
                    let mut next = Some(view);
                    while let Some(view) = next.take() {
                        if done.insert(view.file().to_owned()) {
                            next = view.parent();
                            views.push(view);
                        }
                    }
                }
                Err(Error::Canceled(canceled)) => return Err(canceled.into()),
                Err(_) => single.push(&point.file),
            }
        }
    }
    for stray in &folder.strays {
        match stray.kind {
            StrayKind::Unfinished | StrayKind::Foreign(_) | StrayKind::Unreadable(_) => {
                strays.push(stray.clone());
            }
            StrayKind::Unusable(_) | StrayKind::Duplicate(_) => single.push(&stray.file),
        }
    }
    let verified = views.into_par_iter().map(|view| {
        let file = view.file().to_owned();
        let verified = of_view(&view, depth, job);
        answer(file, verified)
    });
    let mut answers: Vec<_> = verified.collect();
    for file in single.into_iter().filter(|file| !done.contains(*file)) {
        let verified = match facts::open(storage, file) {
            Ok(image) => on_parent(storage, &folder, image, file, depth, job),
            Err(error) => Err(error),
        };
        answers.push(answer(file.to_owned(), verified));
    }
    for answered in answers {
        match answered {
            Ok(checked) => images.push(checked),
            Err(Error::Image { file, source: ImageError::Foreign(why) }) => {
                strays.push(stray_of(&folder, &file, StrayKind::Foreign(why.to_string())));
            }
            Err(Error::Image { file, source: ImageError::Unsupported(why) }) => {
                strays.push(stray_of(&folder, &file, StrayKind::Unusable(why.to_string())));
            }
            // Removed or renamed by somebody else since the folder was listed.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            // One file that cannot be read must not keep anybody from proving the others.
            Err(error @ Error::Image { .. }) => {
                let why = StrayKind::Unreadable(folder::why(&error));
                let Error::Image { file, .. } = error else { continue };
                strays.push(stray_of(&folder, &file, why));
            }
            Err(error) => return Err(error),
        }
    }
    images.sort_by(|a, b| a.file.cmp(&b.file));
    strays.sort_by(|a, b| a.file.cmp(&b.file));
    Ok((images, strays))
}

fn stray_of(folder: &Folder, file: &str, kind: StrayKind) -> Stray {
    let size = folder.strays.iter().find(|stray| stray.file == file).map_or(0, |stray| stray.size);
    Stray { file: file.to_owned(), size, image: None, kind }
}

/// Verifies the newest image of a view on top of the others.
fn of_view(view: &View, depth: Depth, job: Job<'_>) -> Result<VerifyReport> {
    let report = match view.parent() {
        None => view.image().verify(depth, job),
        Some(parent) => match view.image().verify_on(&parent, depth, job) {
            // Damage of another file, which gets a report of its own.
            Err(ImageError::Parent { .. }) => view.image().verify(depth, job),
            verified => verified,
        },
    };
    report.map_err(|e| in_file(view.file(), e))
}

/// Verifies an image on top of what it builds on, as far as that is there.
fn on_parent(
    storage: &dyn Storage,
    folder: &Folder,
    image: Image,
    file: &str,
    depth: Depth,
    job: Job<'_>,
) -> Result<VerifyReport> {
    let alone = |image: &Image| image.verify(depth, job).map_err(|e| in_file(file, e));
    let image = Arc::new(image);
    match View::open_in(storage, folder, Arc::clone(&image), file) {
        Ok(view) => of_view(&view, depth, job),
        Err(Error::Canceled(canceled)) => Err(canceled.into()),
        Err(_) => alone(&image),
    }
}

fn in_file(file: &str, source: ImageError) -> Error {
    match source {
        ImageError::Canceled(canceled) => canceled.into(),
        source => Error::Image { file: file.to_owned(), source },
    }
}

/// Turns damage that prevented the opening into an answer.
fn answer(file: String, verified: Result<VerifyReport>) -> Result<Checked> {
    match verified {
        Ok(report) => Ok(Checked { file, outcome: Ok(report) }),
        Err(Error::Image {
            source: source @ (ImageError::Corrupt(_) | ImageError::Incomplete { .. }),
            ..
        }) => Ok(Checked { file, outcome: Err(source) }),
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
