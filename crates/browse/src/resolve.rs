//! From a path to a file.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use aiv_filesystems::{FileId, FileType, Filesystem, Metadata};
use aiv_volume_io::Job;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::path::Path;
use crate::volume::Volume;

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
    /// A volume that holds others, or a part of their names: positions in [`Disk::volumes`] of
    /// those below.
    Volumes(Vec<usize>),
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
        if path.parts().is_empty() {
            return Ok(Place::Top);
        }
        let (at, parts) = self.volume_of(path.parts())?;
        let volume = &self.volumes()[at];
        let rest = parts.get(volume.path().parts().len()..).unwrap_or_default();
        if volume.is_opened() {
            let below = self.below(&parts);
            if !below.is_empty() {
                return Ok(Place::Volumes(below));
            }
            if !rest.is_empty() {
                let inner = self.below(volume.path().parts());
                return Err(self.no_volume(&parts, inner));
            }
        }
        let filesystem = volume.filesystem(job)?;
        let way = Way { volume, filesystem: &*filesystem, job };
        let (path, id, metadata) = way.go(rest, links)?;
        Ok(Place::File(File { volume: at, filesystem, path, id, metadata }))
    }

    /// What there is to know about the files of the volume that a file lies on: how it was found,
    /// and what reading it left out (a journal, checksums that do not match).
    pub fn notes_on(&self, file: &File) -> impl Iterator<Item = String> {
        let volume = self.volumes().get(file.volume);
        let found = volume.map_or(&[][..], |volume| volume.notes()).iter().cloned();
        let read: Vec<String> = file.filesystem.notes().iter().map(ToString::to_string).collect();
        found.chain(read)
    }

    /// Positions of the volumes that `place` stands for; none for a file.
    #[must_use]
    pub fn volumes_at(&self, place: &Place) -> Vec<usize> {
        match place {
            Place::Top => (0..self.volumes().len()).collect(),
            Place::Volumes(which) => which.clone(),
            Place::File(_) => Vec::new(),
        }
    }

    /// Positions of the volumes of which the names go on behind `parts`.
    fn below(&self, parts: &[Vec<u8>]) -> Vec<usize> {
        let is_below = |volume: &Volume| {
            let path = volume.path();
            path.parts().len() > parts.len() && path.parts().starts_with(parts)
        };
        let all = self.volumes().iter().enumerate();
        all.filter(|(_, volume)| is_below(volume)).map(|(at, _)| at).collect()
    }

    fn no_volume(&self, parts: &[Vec<u8>], existing: Vec<usize>) -> Error {
        let name = |at: usize| self.volumes()[at].name().to_owned();
        let wanted = String::from_utf8_lossy(&parts.join(&b'/')).into_owned();
        Error::NoVolume { wanted, existing: existing.into_iter().map(name).collect() }
    }

    /// Position of the volume with the longest name that `parts` begin with, or whose label the
    /// first of them is; and the parts with its name in front.
    fn volume_of(&self, parts: &[Vec<u8>]) -> Result<(usize, Vec<Vec<u8>>)> {
        let volumes = self.volumes();
        let names = volumes.iter().map(|volume| volume.path()).enumerate();
        let named = names.filter(|(_, name)| parts.starts_with(name.parts()));
        if let Some((at, _)) = named.max_by_key(|(_, name)| name.parts().len()) {
            return Ok((at, parts.to_vec()));
        }
        let Some((first, rest)) = parts.split_first() else {
            return Err(self.no_volume(parts, Vec::new()));
        };
        let labelled: Vec<usize> = volumes
            .iter()
            .enumerate()
            .filter(|(_, volume)| volume.recognised().label.as_bytes() == first.as_slice())
            .map(|(at, _)| at)
            .collect();
        match labelled.as_slice() {
            [at] => Ok((*at, [volumes[*at].path().parts(), rest].concat())),
            [] => Err(self.no_volume(&parts[..1], (0..volumes.len()).collect())),
            several => {
                let label = String::from_utf8_lossy(first).into_owned();
                let names = several.iter().map(|&at| volumes[at].name().to_owned()).collect();
                Err(Error::Ambiguous { label, volumes: names })
            }
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
