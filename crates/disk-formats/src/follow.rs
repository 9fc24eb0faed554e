//! Other files that an image names: which of them are opened.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use aiv_volume_io::{FileDisk, ReadAt};

use crate::{Error, Result};

/// Which of the files that an image names are read. The names are content, and content may be an
/// attacker's: what is read ends up in a backup that the owner of the disk may get to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Follow {
    /// Only the pieces of a split VMDK: regular files in the folder of the descriptor whose names
    /// are its own name and a suffix (`disk.vmdk`: `disk-s001.vmdk`, `disk-flat.vmdk`), no links.
    #[default]
    Pieces,
    /// Regular files in the folder of the image that was asked for, or below it, after all links.
    Folder,
    /// Regular files and block devices anywhere.
    Anywhere,
}

impl Follow {
    /// The word for each of them.
    pub const WORDS: [(&'static str, Self); 3] =
        [("pieces", Self::Pieces), ("folder", Self::Folder), ("anywhere", Self::Anywhere)];
}

/// Files one image may consist of: parents and pieces. A 2 TiB disk in pieces of 2 GiB has 1,024.
const FILES_MAX: usize = 2048;

/// A file that has been opened.
pub(crate) struct Opened {
    /// By which it was opened: relative names in it start from here.
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn ReadAt>,
    /// Device and inode: the same file has the same, whatever it is called.
    pub(crate) id: (u64, u64),
}

/// Opens what is allowed, and remembers what was opened.
pub(crate) struct Files {
    follow: Follow,
    /// Of the image that was asked for; `None` where it is no file.
    folder: Option<PathBuf>,
    pub(crate) opened: Vec<PathBuf>,
}

impl Files {
    /// For an image that is not a file: whatever it names is refused.
    pub(crate) fn none() -> Self {
        Self { follow: Follow::Pieces, folder: None, opened: Vec::new() }
    }

    pub(crate) fn beside(path: &Path, follow: Follow) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_path_buf();
        Self { follow, folder: Some(folder), opened: Vec::new() }
    }

    /// Opens a file the caller named.
    pub(crate) fn asked(&mut self, path: &Path) -> Result<(FileDisk, (u64, u64))> {
        use std::os::unix::fs::MetadataExt;
        if self.opened.len() >= FILES_MAX {
            return Err(Error::TooMany { max: FILES_MAX });
        }
        let disk = FileDisk::open_source(path)?;
        let found = fs::metadata(path).map_err(aiv_volume_io::Error::path("examine", path))?;
        if !self.opened.iter().any(|earlier| earlier == path) {
            self.opened.push(path.to_path_buf());
        }
        Ok((disk, (found.dev(), found.ino())))
    }

    /// Opens a file that the image `from` knows under any of `names`, the likeliest first.
    pub(crate) fn named(&mut self, from: &Path, names: &[PathBuf]) -> Result<Opened> {
        let first = names.first().cloned().unwrap_or_default();
        let Some(folder) = self.folder.clone().filter(|_| self.follow != Follow::Pieces) else {
            return Err(Error::NotAllowed { in_folder: stays_below(&first), name: first });
        };
        // After all links, for the comparison with names after all links.
        let folder =
            fs::canonicalize(&folder).map_err(aiv_volume_io::Error::path("open", &folder))?;
        for name in names {
            let path = from.parent().unwrap_or(Path::new("")).join(name);
            let real = match fs::canonicalize(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(aiv_volume_io::Error::path("open", &path))?,
            };
            if self.follow == Follow::Folder && !(real.starts_with(&folder) && real.is_file()) {
                return Err(Error::NotAllowed { name: name.clone(), in_folder: false });
            }
            return self.open(path);
        }
        Err(Error::Missing { name: first })
    }

    /// Opens a piece of the disk that the descriptor `from` describes.
    pub(crate) fn piece(&mut self, from: &Path, name: &Path) -> Result<Opened> {
        let stem = from.file_stem().unwrap_or_default().as_encoded_bytes();
        let rest = name.as_os_str().as_encoded_bytes().strip_prefix(stem);
        let is_own = name.components().count() == 1 && rest.is_some_and(|r| r.starts_with(b"-"));
        let path = from.parent().unwrap_or(Path::new("")).join(name);
        if self.folder.is_none() || !is_own {
            return self.named(from, &[name.to_path_buf()]);
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => self.open(path),
            _ => self.named(from, &[name.to_path_buf()]),
        }
    }

    fn open(&mut self, path: PathBuf) -> Result<Opened> {
        let (disk, id) = self.asked(&path)?;
        Ok(Opened { path, file: Arc::new(disk), id })
    }
}

/// Whether a name leads nowhere but below where it starts, as far as words tell.
fn stays_below(name: &Path) -> bool {
    name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Where the parent may be: by the relative path, then beside the image under the last part of
/// any path. Paths of Windows lead nowhere else.
pub(crate) fn names_of_windows(paths: &[String]) -> Vec<PathBuf> {
    let slashed: Vec<String> = paths.iter().map(|path| path.replace('\\', "/")).collect();
    let is_relative = |path: &&String| !path.contains(':') && !path.starts_with('/');
    let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let all = slashed.iter().filter(is_relative).cloned().chain(slashed.iter().map(last));
    let mut names: Vec<PathBuf> = Vec::new();
    for name in all.filter(|name| !name.is_empty()).map(PathBuf::from) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_windows_become_names_beside_the_image() {
        let paths = [".\\a\\b.vhdx", "\\\\?\\Volume{1}\\vm\\c.vhdx", "D:\\vm\\b.vhdx"];
        let names = names_of_windows(&paths.map(str::to_owned));
        let expected = ["./a/b.vhdx", "b.vhdx", "c.vhdx"].map(PathBuf::from);
        assert_eq!(names, expected);
    }
}
