use std::io;
use std::path::{Path, PathBuf};

/// Result of the fallible functions of this crate that do more than move bytes.
///
/// [`crate::ReadAt`], [`crate::WriteAt`] and [`crate::Storage`] speak [`io::Result`] instead:
/// moving bytes can only fail the way I/O fails.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused or failed: retry, or use another disk.
    #[error("{op} failed at byte {offset}")]
    Io {
        /// What was being done, as a verb phrase: `"read partition table"`.
        op: &'static str,
        /// Byte offset in the source, zero where none applies.
        offset: u64,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file or device could not be reached by its path.
    #[error("cannot {op} {}", path.display())]
    Path {
        /// What was being done, as a verb: `"open"`.
        op: &'static str,
        /// The file, device or folder.
        path: PathBuf,
        /// The error of the operating system. [`io::ErrorKind::ResourceBusy`] and
        /// [`io::ErrorKind::WouldBlock`] mean that somebody else uses it.
        source: io::Error,
    },
    /// The path names something that cannot be a disk: a folder, a terminal, a pipe.
    #[error("{} is a {found}, neither a regular file nor a block device", path.display())]
    NotADisk {
        /// What was asked for.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// No disk of this machine, or more than one, has the identity that was asked for.
    #[error("{} {what}{}", count(found), list(found))]
    NotOneDevice {
        /// What was asked for: `"serial number S4EV"`.
        what: String,
        /// The device nodes of those that have it.
        found: Vec<PathBuf>,
    },
    /// The bytes contradict themselves: look at another copy.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] crate::Canceled),
}

impl Error {
    /// Wraps an I/O error with what was being done and where.
    pub fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, offset, source }
    }

    /// Wraps an I/O error with what was being done and to which file.
    pub fn path(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Path { op, path, source }
    }
}

fn count(found: &[PathBuf]) -> String {
    match found.len() {
        0 => "no disk has".to_owned(),
        count => format!("{count} disks have"),
    }
}

fn list(found: &[PathBuf]) -> String {
    let paths: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
    if paths.is_empty() { String::new() } else { format!(": {}", paths.join(", ")) }
}

/// A structure on a disk that contradicts its own rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section} at byte {offset} is damaged: {what}")]
pub struct Corrupt {
    /// The structure, by the name its specification uses.
    pub section: &'static str,
    /// Byte offset of the structure in the source.
    pub offset: u64,
    /// Found value and allowed range, in words.
    pub what: String,
}

/// An error and everything that led to it, in one line: for reports, which keep no errors.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line = format!("{line}: {inner}");
        source = inner.source();
    }
    line
}
