//! From a path to a file.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use aiv_filesystems::{FileId, FileType, Filesystem, Metadata};
use aiv_volume_io::Job;

use crate::disk::{Disk, Volume};
use crate::error::{Error, Result};
use crate::path::Path;

/// Symbolic links on the way to one file: as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What is done when a path ends at a symbolic link. Links on the way are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The file it leads to is meant.
    Follow,
    /// The link is meant.
    Keep,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub enum Place {
    /// The disk: its entries are the volumes.
    Top,
    /// A file or folder on a volume.
    File(File),
}

/// A file or folder on a volume.
#[derive(Clone)]
pub struct File {
    /// Position of the volume in [`Disk::volumes`].
    pub volume: usize,
    /// The filesystem it is in.
    pub filesystem: Arc<dyn Filesystem>,
    /// Where it was found; links in the path it was asked by are resolved.
    pub path: Path,
    /// Which it is.
    pub id: FileId,
    /// What is known about it.
    pub metadata: Metadata,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Finds what `path` names.
    ///
    /// # Errors
    /// [`Error::NoVolume`], [`Error::Ambiguous`], [`Error::NotFound`], [`Error::NotAFolder`] and
    /// [`Error::LinkNowhere`] when there is no such thing; [`Error::NoFiles`] and
    /// [`Error::Filesystem`] when it cannot be read; [`Error::Canceled`].
    pub fn resolve(&self, path: &Path, links: Links, job: Job<'_>) -> Result<Place> {
        let Some((first, rest)) = path.parts().split_first() else { return Ok(Place::Top) };
        let at = self.volume_named(first)?;
        let volume = &self.volumes()[at];
        let filesystem = volume.filesystem(job)?;
        let way = Way { volume, filesystem: &*filesystem, job };
        let (path, id, metadata) = way.go(rest, links)?;
        Ok(Place::File(File { volume: at, filesystem, path, id, metadata }))
    }

    /// Position of the volume that `name` names, or is the label of.
    fn volume_named(&self, name: &[u8]) -> Result<usize> {
        let volumes = self.volumes();
        if let Some(at) = volumes.iter().position(|volume| volume.name().as_bytes() == name) {
            return Ok(at);
        }
        let wanted = String::from_utf8_lossy(name).into_owned();
        let labelled: Vec<usize> = volumes
            .iter()
            .enumerate()
            .filter(|(_, volume)| volume.recognised().label.as_bytes() == name)
            .map(|(at, _)| at)
            .collect();
        let names =
            |which: &[usize]| which.iter().map(|&at| volumes[at].name().to_owned()).collect();
        match labelled.as_slice() {
            [at] => Ok(*at),
            [] => {
                let existing = volumes.iter().map(|volume| volume.name().to_owned()).collect();
                Err(Error::NoVolume { wanted, existing })
            }
            several => Err(Error::Ambiguous { label: wanted, volumes: names(several) }),
        }
    }
}

/// Names on the way from the root, not the root itself; a path is made of them when it is needed.
type Trail = Vec<(Vec<u8>, FileId)>;

/// A walk from the root of a volume to one file.
struct Way<'a> {
    volume: &'a Volume,
    filesystem: &'a dyn Filesystem,
    job: Job<'a>,
}

impl Way<'_> {
    fn go(&self, parts: &[Vec<u8>], links: Links) -> Result<(Path, FileId, Metadata)> {
        let mut todo: VecDeque<Vec<u8>> = parts.iter().cloned().collect();
        let mut followed = 0;
        // From the root to where we are; `..` in a link leads back.
        let mut trail: Trail = Vec::new();
        loop {
            self.job.check()?;
            let id = trail.last().map_or_else(|| self.filesystem.root(), |(_, id)| *id);
            let here = || self.path_of(&trail);
            let metadata = self.filesystem.metadata(id).map_err(|e| Error::of(&here(), e))?;
            let is_last = todo.is_empty();
            if metadata.file_type == FileType::Link && (!is_last || links == Links::Follow) {
                followed += 1;
                if followed > LINKS_MAX {
                    return Err(Error::LinkNowhere { path: here() });
                }
                self.follow(&mut trail, &mut todo, id)?;
                continue;
            }
            let Some(name) = todo.pop_front() else { return Ok((here(), id, metadata)) };
            if metadata.file_type != FileType::Folder {
                return Err(Error::NotAFolder { path: here() });
            }
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    trail.pop();
                    continue;
                }
                _ => {}
            }
            let found = self.filesystem.lookup(id, &name, self.job);
            let found = found.map_err(|e| Error::of(&here(), e))?;
            let id = found.ok_or_else(|| Error::NotFound { path: here().join(&name) })?;
            trail.push((name, id));
        }
    }

    fn path_of(&self, trail: &Trail) -> Path {
        let mut path = self.volume.path();
        trail.iter().for_each(|(name, _)| path.push(name.clone()));
        path
    }

    /// Puts what a link says in front of what is still to go.
    fn follow(&self, trail: &mut Trail, todo: &mut VecDeque<Vec<u8>>, id: FileId) -> Result<()> {
        let target = self.filesystem.link_target(id);
        let target = target.map_err(|e| Error::of(&self.path_of(trail), e))?;
        match target.first() {
            None => return Err(Error::LinkNowhere { path: self.path_of(trail) }),
            Some(b'/') => trail.clear(),
            Some(_) => {
                trail.pop();
            }
        }
        let parts: Vec<&[u8]> = target.split(|&byte| byte == b'/').collect();
        for part in parts.into_iter().rev().filter(|part| !part.is_empty()) {
            todo.push_front(part.to_vec());
        }
        Ok(())
    }
}
