use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image is not read, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or is no disk.
    #[error(transparent)]
    File(#[from] aiv_volume_io::Error),
    /// The medium failed.
    #[error("{op} failed at byte {offset}")]
    Io {
        /// What was being done, as a verb phrase: `"read the header"`.
        op: &'static str,
        /// Byte offset in the file.
        offset: u64,
        /// The error of the medium.
        source: io::Error,
    },
    /// The file contradicts its own format: use another copy, or have it repaired by the
    /// program that wrote it.
    #[error("damaged {format} image: {section} at byte {offset}: {what}")]
    Corrupt {
        /// What the file says it is.
        format: Format,
        /// The structure, by the name its specification uses.
        section: &'static str,
        /// Byte offset of the structure in the file.
        offset: u64,
        /// Found value and allowed range, in words.
        what: String,
    },
    /// The image is sound for all we know and uses something that is not read here.
    #[error("{format} image: {what}")]
    Unsupported {
        /// What the file says it is.
        format: Format,
        /// What is not read, and where known, what to do instead.
        what: String,
    },
    /// Content and name disagree about the format. The content of a raw disk belongs to whoever
    /// uses the disk, so it alone is no reason to read the file as something else: the caller
    /// has to say what it is.
    #[error("{} looks like {found} by its content, but not by its name: say which of both it is", path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// What the content looks like; [`Format::Raw`] when it looks like nothing known.
        found: Format,
    },
    /// The image names another file that the caller did not allow to be read.
    #[error("the image needs the file '{}', which was not allowed to be read", name.display())]
    NotAllowed {
        /// The file, as the image names it.
        name: PathBuf,
        /// Whether [`crate::Follow::Folder`] would have been enough.
        in_folder: bool,
    },
    /// The image names something that is no file: a URL, or a description in JSON.
    #[error("the image is based on '{name}', which is not a file")]
    NotAFile {
        /// What it names.
        name: String,
    },
    /// No file by any name under which the image knows its parent.
    #[error("the image needs the file '{}', which does not exist", name.display())]
    Missing {
        /// The first of the names.
        name: PathBuf,
    },
    /// The parent is not the one the image was made on.
    #[error("it is not the parent the image was made on: {what}")]
    WrongParent {
        /// Identities found and expected.
        what: String,
    },
    /// The image is its own ancestor.
    #[error("the chain of parents comes back to this file")]
    Cycle,
    /// More files than anybody stacks on purpose.
    #[error("the image is built of more than {max} files")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Which of the files an error is about, where an image has several.
    #[error("{}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| match Self::carried(source) {
            Ok(own) => own,
            Err(source) => Self::Io { op, offset, source },
        }
    }

    /// Adds which file it is about, once.
    pub(crate) fn within(path: &Path) -> impl FnOnce(Self) -> Self {
        move |error| match error {
            Self::In { .. } | Self::File(_) | Self::Ambiguous { .. } => error,
            source => Self::In { path: path.to_path_buf(), source: Box::new(source) },
        }
    }

    /// The error of this crate that travelled inside one of a medium.
    fn carried(error: io::Error) -> std::result::Result<Self, io::Error> {
        match error.get_ref() {
            Some(inner) if inner.is::<Self>() => {}
            _ => return Err(error),
        }
        let inner = error.into_inner().and_then(|inner| inner.downcast::<Self>().ok());
        inner.map(|own| *own).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// For errors that only a read meets.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
