//! From what a user names an image by to its file: a path, or a folder and a selector.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_image_format::{Error as ImageError, Image, Keys, SegmentError};
use aiv_volume_io::{DirStorage, FileDisk, Job, ReadAt};

use crate::error::{Error, Result};
use crate::folder::{Folder, Point, Set};
use crate::open::{self, Head};
use crate::scan::Trust;
use crate::select::Selector;
use crate::split::open_split;
use crate::view::View;

/// What an argument names.
enum Named {
    /// A file that exists.
    File(PathBuf),
    /// A point of a folder.
    Point(Box<Place>),
}

/// A point, and where it is.
struct Place {
    dir: PathBuf,
    storage: DirStorage,
    set: Set,
    point: Point,
}

/// The image file that `argument` names: a path that exists, or `DIR@SELECTOR` with a
/// [`Selector`] after the last `@`. A path that exists wins, whatever its name looks like.
///
/// # Errors
/// [`Error::File`] when there is neither such a file nor such a folder,
/// [`Error::NoSuchPoint`] and [`Error::Ambiguous`] for the selector, and those of
/// [`Folder::scan`].
pub fn locate(argument: &Path, job: Job<'_>) -> Result<PathBuf> {
    locate_with_keys(argument, &Keys::none(), job)
}

/// As [`locate`], in a folder of images with these keys.
///
/// # Errors
/// Those of [`locate`].
pub fn locate_with_keys(argument: &Path, keys: &Keys, job: Job<'_>) -> Result<PathBuf> {
    Ok(match find(argument, keys, job)? {
        Named::File(path) => path,
        Named::Point(place) => place.dir.join(&place.point.file),
    })
}

/// Opens the image that `argument` names, as [`locate`] finds it, and none that it builds on.
///
/// # Errors
/// Those of [`locate`] and [`open_image`].
pub fn locate_image(argument: &Path, job: Job<'_>) -> Result<(PathBuf, Image)> {
    locate_image_keyed(argument, &Keys::none(), job)
}

/// As [`locate_image`], with the keys of images that have one; without its own a sealed image is
/// locked.
///
/// # Errors
/// Those of [`locate_image`].
pub fn locate_image_keyed(argument: &Path, keys: &Keys, job: Job<'_>) -> Result<(PathBuf, Image)> {
    let path = locate_with_keys(argument, keys, job)?;
    let image = open_image_keyed(&path, keys)?;
    Ok((path, image))
}

/// Opens the point that `argument` names, as [`locate`] finds it, with the images it builds on:
/// they are looked for in the folder of the argument, or in the one the file lies in.
///
/// # Errors
/// Those of [`locate`] and [`View::open`].
pub fn locate_view(argument: &Path, job: Job<'_>) -> Result<(PathBuf, View)> {
    locate_view_keyed(argument, &Keys::none(), job)
}

/// As [`locate_view`], with the keys of images that have one.
///
/// # Errors
/// Those of [`locate_view`].
pub fn locate_view_keyed(argument: &Path, keys: &Keys, job: Job<'_>) -> Result<(PathBuf, View)> {
    match find(argument, keys, job)? {
        Named::File(path) => open_view_keyed(&path, keys, job).map(|view| (path, view)),
        Named::Point(place) => {
            let Place { dir, storage, set, point } = *place;
            let view = View::of_point(&storage, &set, &point)?;
            Ok((dir.join(&point.file), view))
        }
    }
}

/// The folder, the set and the point that `argument` names, as [`locate`] finds it.
///
/// # Errors
/// Those of [`locate`]; for a file that provides none those of [`open_image`], or
/// [`Error::NoSuchPoint`].
pub fn locate_point(argument: &Path, job: Job<'_>) -> Result<(DirStorage, Set, Point)> {
    locate_point_keyed(argument, &Keys::none(), job)
}

/// As [`locate_point`], with the keys of images that have one: the set remembers them.
///
/// # Errors
/// Those of [`locate_point`].
pub fn locate_point_keyed(
    argument: &Path,
    keys: &Keys,
    job: Job<'_>,
) -> Result<(DirStorage, Set, Point)> {
    match find(argument, keys, job)? {
        Named::Point(place) => Ok((place.storage, place.set, place.point)),
        Named::File(path) => {
            let (storage, name) = storage_of(&path)?;
            let (folder, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, job)?;
            let is_it = |p: &Point| p.file == name || p.other_files.iter().any(|f| f == name);
            let found = folder.sets.iter().find_map(|set| {
                let point = set.points.iter().find(|point| is_it(point))?;
                Some((set.clone(), point.clone()))
            });
            let Some((set, point)) = found else {
                // Says what is wrong with it, where anything is.
                open_image_keyed(&path, keys)?;
                return Err(Error::NoSuchPoint { wanted: path.display().to_string() });
            };
            Ok((storage, set, point))
        }
    }
}

fn find(argument: &Path, keys: &Keys, job: Job<'_>) -> Result<Named> {
    let bytes = argument.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|&b| b == b'@');
    if argument.try_exists().map_err(failed("open", argument))? {
        return Ok(Named::File(argument.to_path_buf()));
    }
    let Some(at) = at else {
        // Asked again for the system's own words.
        let gone = argument.metadata().err();
        let gone = gone.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
        return Err(failed("open", argument)(gone));
    };
    let folder = Path::new(OsStr::from_bytes(&bytes[..at]));
    let storage = DirStorage::open(folder).map_err(failed("open", folder))?;
    let selector: Selector = String::from_utf8_lossy(&bytes[at + 1..]).parse()?;
    let (mut found, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, job)?;
    match selector.find(&found) {
        Ok((_, point)) if is_in(&storage, point) => {}
        Err(error) if !found.is_remembered() => return Err(error),
        // The catalogue may have been wrong about what there is, or about what is where.
        _ => found = Folder::scan_keyed(&storage, keys, Trust::Files, job)?.0,
    }
    let (set, point) = selector.find(&found)?;
    let (set, point) = (set.clone(), point.clone());
    let dir = folder.to_path_buf();
    Ok(Named::Point(Box::new(Place { dir, storage, set, point })))
}

/// Whether the file of `point` provides it.
fn is_in(storage: &DirStorage, point: &Point) -> bool {
    let head = Head::Known { tail: point.tail };
    open::open(storage, &point.file, head, &Keys::none()).is_ok_and(|image| {
        image.superblock().point == point.id && image.trailer().state_root == point.state_root
    })
}

/// Opens the point that the image file at `path` provides, with the images it builds on, which
/// are looked for in the folder it lies in.
///
/// # Errors
/// [`Error::File`] when the file or its folder cannot be read, else those of [`View::open`].
pub fn open_view(path: &Path, job: Job<'_>) -> Result<View> {
    open_view_keyed(path, &Keys::none(), job)
}

/// As [`open_view`], with the keys of images that have one.
///
/// # Errors
/// Those of [`open_view`].
pub fn open_view_keyed(path: &Path, keys: &Keys, job: Job<'_>) -> Result<View> {
    let image = Arc::new(open_image_keyed(path, keys)?);
    let (storage, name) = storage_of(path)?;
    let full = path.display().to_string();
    let name = if image.superblock().parent.is_none() { full.as_str() } else { name };
    View::with_parents(&storage, image, name, keys, job)
}

/// The folder a file lies in, and its name there. The file need not exist.
///
/// # Errors
/// [`Error::File`] when the folder cannot be opened, or the name is not UTF-8.
pub fn storage_of(path: &Path) -> Result<(DirStorage, &str)> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().and_then(OsStr::to_str).ok_or_else(|| {
        let what = "the name of the file is not UTF-8";
        failed("open", path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, what))
    })?;
    Ok((DirStorage::open(folder).map_err(failed("open", folder))?, name))
}

/// Opens the image file at `path`, wherever it lies and whatever it is called. The other segments of
/// a split image are looked for in its folder.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Image`] when it cannot be used.
pub fn open_image(path: &Path) -> Result<Image> {
    open_image_keyed(path, &Keys::none())
}

/// As [`open_image`], with the keys of images that have one; without its own a sealed image is
/// locked.
///
/// # Errors
/// Those of [`open_image`].
pub fn open_image_keyed(path: &Path, keys: &Keys) -> Result<Image> {
    let file = FileDisk::open_source(path).map_err(Error::File)?;
    let file: Arc<dyn ReadAt> = Arc::new(file);
    let opened = match open::open_file(Arc::clone(&file), Head::Read, keys) {
        Err(ImageError::Segments(SegmentError::Part { image, number: 1 })) => {
            let (storage, name) = storage_of(path)?;
            open_split(&storage, name, file, image, Head::Read, keys)
        }
        opened => opened,
    };
    opened.map_err(|source| Error::Image { file: path.display().to_string(), source })
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let wrap = aiv_volume_io::Error::path(op, path);
    move |source| Error::File(wrap(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Filled, image};

    #[test]
    fn a_path_that_exists_wins_even_when_it_looks_like_a_selector() {
        let dir =
            Filled::with(&[("host@latest", image(1, "sda", 1)), ("b.aiv", image(2, "sda", 2))]);
        let path = dir.path().join("host@latest");
        assert_eq!(locate(&path, Job::silent()).expect("exists"), path);
    }

    #[test]
    fn the_last_at_splits_folder_and_selector() {
        let dir =
            Filled::with(&[("x@y/a.aiv", image(1, "sda", 1)), ("x@y/b.aiv", image(2, "sda", 2))]);
        let find = |text: &str| {
            let argument = format!("{}/{text}", dir.path().display());
            let found = locate(Path::new(&argument), Job::silent());
            found.map(|path| path.strip_prefix(dir.path()).expect("inside").to_path_buf())
        };
        for (text, file) in [
            ("x@y@latest", "b.aiv"),
            ("x@y@latest~1", "a.aiv"),
            ("x@y@sda:latest", "b.aiv"),
            ("x@y@0101", "a.aiv"),
        ] {
            assert_eq!(find(text).expect(text), Path::new("x@y").join(file), "{text}");
        }
        for text in ["x@y@latest~2", "x@y@ff", "x@y@sdb:latest", "x@y@newest"] {
            assert!(matches!(find(text), Err(Error::NoSuchPoint { .. })), "{text}");
        }
    }

    #[test]
    fn neither_a_file_nor_a_folder_is_an_error_that_names_the_path() {
        for text in ["/nowhere/a.aiv", "/nowhere@latest"] {
            let error = locate(Path::new(text), Job::silent()).expect_err(text);
            assert!(matches!(&error, Error::File(_)), "{error:?}");
            assert!(error.to_string().contains("/nowhere"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_not_an_image() {
        let dir = Filled::with(&[]);
        let found = locate(dir.path(), Job::silent()).expect("exists");
        assert!(matches!(
            open_image(&found),
            Err(Error::File(aiv_volume_io::Error::NotADisk { .. }))
        ));
    }
}
