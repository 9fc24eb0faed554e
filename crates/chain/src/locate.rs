//! From what a user names an image by to its file: a path, or a folder and a selector.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_image_format::Image;
use aiv_volume_io::{DirStorage, FileDisk, Job};

use crate::error::{Error, Result};
use crate::folder::{Folder, Point};
use crate::open::{self, Head};
use crate::select::Selector;
use crate::view::View;

/// The image file that `argument` names: a path that exists, or `DIR@SELECTOR` with a
/// [`Selector`] after the last `@`. A path that exists wins, whatever its name looks like.
///
/// # Errors
/// [`Error::File`] when there is neither such a file nor such a folder,
/// [`Error::NoSuchPoint`] and [`Error::Ambiguous`] for the selector, and those of
/// [`Folder::scan`].
pub fn locate(argument: &Path, job: Job<'_>) -> Result<PathBuf> {
    let bytes = argument.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|&b| b == b'@');
    if argument.try_exists().map_err(failed("open", argument))? {
        return Ok(argument.to_path_buf());
    }
    let Some(at) = at else {
        return Err(failed("open", argument)(std::io::ErrorKind::NotFound.into()));
    };
    let folder = Path::new(OsStr::from_bytes(&bytes[..at]));
    let storage = DirStorage::open(folder).map_err(failed("open", folder))?;
    let selector: Selector = String::from_utf8_lossy(&bytes[at + 1..]).parse()?;
    let found = Folder::scan(&storage, job)?;
    match selector.find(&found) {
        Ok((_, point)) if is_in(&storage, point) => return Ok(folder.join(&point.file)),
        Err(error) if !found.is_remembered() => return Err(error),
        _ => {}
    }
    // The catalogue may have been wrong about what there is, or about what is where.
    let (found, _) = Folder::scan_afresh(&storage, job)?;
    let (_, point) = selector.find(&found)?;
    Ok(folder.join(&point.file))
}

/// Whether the file of `point` provides it.
fn is_in(storage: &DirStorage, point: &Point) -> bool {
    open::open(storage, &point.file, Head::Known { tail: point.tail }).is_ok_and(|image| {
        image.superblock().point == point.id && image.trailer().state_root == point.state_root
    })
}

/// Opens the point that the image file at `path` provides, with the images it builds on, which
/// are looked for in the folder it lies in.
///
/// # Errors
/// [`Error::File`] when the file or its folder cannot be read, else those of [`View::open`].
pub fn open_view(path: &Path, job: Job<'_>) -> Result<View> {
    let image = Arc::new(open_image(path)?);
    if image.superblock().parent.is_none() {
        return Ok(View::of_full(image, path.display().to_string()));
    }
    let (storage, name) = storage_of(path)?;
    View::with_parents(&storage, image, name, job)
}

/// The folder a file lies in, and its name there.
pub(crate) fn storage_of(path: &Path) -> Result<(DirStorage, &str)> {
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

/// Opens the image file at `path`, wherever it lies and whatever it is called.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Image`] when it cannot be used.
pub fn open_image(path: &Path) -> Result<Image> {
    let file = FileDisk::open_source(path).map_err(Error::File)?;
    open::open_file(Arc::new(file), Head::Read)
        .map_err(|source| Error::Image { file: path.display().to_string(), source })
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
