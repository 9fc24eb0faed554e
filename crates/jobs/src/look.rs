//! What is in a folder, or below it.

use std::io::{self, Write};

use aiv_browse::{
    Disk, Error as BrowseError, File, FileData, FileId, FileType, Filesystem, Filter, Found, Links,
    Metadata, Path, Place, Step, Trouble, Walk,
};
use aiv_volume_io::{Job, causes};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Bytes read at once.
const STRIDE: u64 = 1 << 20;
/// Bytes of a file that are held in memory.
const IN_MEMORY_MAX: u64 = 16 << 20;
/// Troubles that are named.
const TROUBLES_MAX: usize = 10_000;

/// Which files are looked at, and how closely.
#[derive(Debug, Clone)]
pub struct Look {
    /// Folders in folders; 0 for only what is in the one that was named.
    pub depth: usize,
    /// Which files are meant; all without.
    pub filter: Option<Filter>,
    /// Read regular files, and tell nothing of anything else.
    pub sha256: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { depth: usize::MAX, filter: None, sha256: false }
    }
}

/// A file that was looked at.
#[derive(Debug, Clone)]
pub struct Listed<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Parts of the path that lead to the folder in which everything was that was named: without
    /// them, it is that of a recovered file.
    pub above: usize,
    /// What is known about it.
    pub metadata: &'a Metadata,
    /// What a symbolic link says.
    pub target: Option<Vec<u8>>,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: Option<String>,
}

/// Whoever is told of each file as it is found. What he says ends the listing.
pub type Tell<'a> = dyn FnMut(&Listed<'_>) -> io::Result<()> + 'a;

/// What was seen but files.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What could not be looked at, and why.
    pub troubles: Vec<(String, String)>,
    /// Files of which bytes are lost; they are among the troubles.
    pub damaged: u64,
    /// What is to be known about the state of volumes: name, sentence.
    pub notes: Vec<(String, String)>,
}

impl Look {
    /// Looks at what is in the folder at `place`, or at the file there. At the top, or at a volume
    /// that holds others, at all volumes that have files. Tells `tell` of each, folders before what
    /// is in them, names in the order of their bytes; none of them is held in memory.
    ///
    /// # Errors
    /// [`Error::Recover`] when nothing can be looked at, [`Error::Written`] with what `tell` says;
    /// what concerns single files is in the answer.
    pub fn at(
        &self,
        disk: &Disk,
        place: &Place,
        job: Job<'_>,
        tell: &mut Tell<'_>,
    ) -> Result<Seen> {
        let mut seen = Seen::default();
        match place {
            Place::File(file) => {
                let above = file.path.parts().len().saturating_sub(1);
                self.below(disk, file, above, &mut seen, job, tell)?;
            }
            Place::Top | Place::Volumes(_) => {
                for at in disk.volumes_at(place) {
                    let volume = &disk.volumes()[at];
                    match disk.resolve(&volume.path(), Links::Keep, job) {
                        Ok(Place::File(file)) => {
                            self.below(disk, &file, 0, &mut seen, job, tell)?;
                        }
                        Ok(_) | Err(BrowseError::NoFiles { .. }) => {}
                        Err(BrowseError::Canceled(canceled)) => return Err(canceled.into()),
                        Err(why) => {
                            seen.troubles.push((volume.path().to_string(), causes(&why)));
                        }
                    }
                }
            }
        }
        Ok(seen)
    }

    fn below(
        &self,
        disk: &Disk,
        from: &File,
        above: usize,
        seen: &mut Seen,
        job: Job<'_>,
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        let volume = disk.volumes().get(from.volume);
        let name = volume.map_or("", |volume| volume.name());
        seen.notes.extend(disk.notes_on(from).map(|note| (name.to_owned(), note)));
        let Seen { troubles, damaged, .. } = seen;
        let known = troubles.len();
        let mut failed = None;
        let mut unlisted = Vec::new();
        let (mut more, mut more_unlisted) = (0_u64, 0_u64);
        let is_folder = from.metadata.file_type == FileType::Folder;
        Walk { depth: self.depth }.run(
            from,
            job,
            &mut |found| {
                if found.below.is_empty() && is_folder {
                    return Step::On;
                }
                match self.listed(&*from.filesystem, found, above, job) {
                    Ok(None) => {}
                    Ok(Some(listed)) => {
                        if let Err(error) = tell(&listed) {
                            failed = Some(Error::Written(error));
                            return Step::End;
                        }
                    }
                    Err(Error::Canceled(canceled)) => {
                        failed = Some(canceled.into());
                        return Step::End;
                    }
                    Err(why) => {
                        *damaged += u64::from(is_damage(&why));
                        match troubles.len() < known + TROUBLES_MAX {
                            true => troubles.push((found.path.to_string(), causes(&why))),
                            false => more += 1,
                        }
                    }
                }
                Step::On
            },
            &mut |trouble: &Trouble<'_>| match unlisted.len() < TROUBLES_MAX {
                true => unlisted.push((trouble.path.to_string(), causes(&trouble.why))),
                false => more_unlisted += 1,
            },
        )?;
        seen.troubles.extend(unlisted);
        if more + more_unlisted > 0 {
            let why = format!("{} more could not be looked at", more + more_unlisted);
            seen.troubles.push((from.path.to_string(), why));
        }
        failed.map_or(Ok(()), Err)
    }

    fn listed<'f>(
        &self,
        filesystem: &dyn Filesystem,
        found: &Found<'f>,
        above: usize,
        job: Job<'_>,
    ) -> Result<Option<Listed<'f>>> {
        let is_file = found.metadata.file_type == FileType::File;
        let is_meant = self.filter.as_ref().is_none_or(|filter| filter.matches(found));
        if !is_meant || (self.sha256 && !is_file) {
            return Ok(None);
        }
        let (path, metadata) = (found.path, found.metadata);
        let mut listed = Listed { path, above, metadata, target: None, sha256: None };
        if found.metadata.file_type == FileType::Link {
            listed.target = filesystem.link_target(found.id).ok();
        }
        if self.sha256 {
            let mut sha = Sha256::new();
            let mut hashing = |bytes: &[u8]| {
                sha.update(bytes);
                Ok(())
            };
            copy(filesystem, found.path, found.id, job, &mut hashing)?;
            listed.sha256 = Some(sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        Ok(Some(listed))
    }
}

/// Whether bytes of a file are lost, and not only out of reach.
fn is_damage(error: &Error) -> bool {
    use aiv_filesystems::Error::Damaged;
    use aiv_restore_engine::Error::Browse;
    match error {
        Error::Recover(Browse(BrowseError::Filesystem { source, .. })) => {
            matches!(source, Damaged { .. })
        }
        error => matches!(error, Error::Unreadable { .. }),
    }
}

/// One regular file.
pub struct Bytes(File);

impl Bytes {
    /// Finds a file; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::Recover`] when there is no such file, or it is no regular file.
    pub fn open(disk: &Disk, path: &Path, job: Job<'_>) -> Result<Self> {
        let wrong = |path: &Path| BrowseError::Filesystem {
            path: path.clone(),
            source: aiv_filesystems::Error::WrongType { wanted: "file" },
        };
        match disk.resolve(path, Links::Follow, job)? {
            Place::File(file) if file.metadata.file_type == FileType::Folder => {
                Err(wrong(&file.path).into())
            }
            Place::File(file) => Ok(Self(file)),
            Place::Top | Place::Volumes(_) => Err(wrong(path).into()),
        }
    }

    /// Writes all bytes in their order, up to the first one that cannot be read.
    ///
    /// # Errors
    /// [`Error::Unreadable`] then; [`Error::Written`] when `out` cannot be written.
    pub fn copy(&self, out: &mut dyn Write, job: Job<'_>) -> Result<()> {
        let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(Error::Written);
        copy(&*self.0.filesystem, &self.0.path, self.0.id, job, &mut write)
    }

    /// All bytes, of a file that is not too large: as text, or else in hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::TooLarge`], else as [`copy`](Self::copy).
    pub fn in_memory(&self, job: Job<'_>) -> Result<(Option<String>, Option<String>)> {
        if self.0.metadata.len > IN_MEMORY_MAX {
            return Err(Error::TooLarge { path: self.0.path.to_string(), allowed: IN_MEMORY_MAX });
        }
        let mut bytes = Vec::new();
        self.copy(&mut bytes, job)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => {
                let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                (None, Some(hex.collect()))
            }
        })
    }
}

/// Tells `write` all bytes of a file.
fn copy(
    filesystem: &dyn Filesystem,
    path: &Path,
    id: FileId,
    job: Job<'_>,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let opened = filesystem.open(id);
    let data: Box<dyn FileData + '_> =
        opened.map_err(|source| BrowseError::Filesystem { path: path.clone(), source })?;
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < data.len() {
        job.check()?;
        let count = STRIDE.min(data.len() - at);
        buffer.resize(usize::try_from(count).map_err(|e| Error::Written(io::Error::other(e)))?, 0);
        data.read_exact_at(&mut buffer, at).map_err(|source| Error::Unreadable {
            path: path.to_string(),
            offset: at,
            source,
        })?;
        write(&buffer)?;
        at += count;
    }
    Ok(())
}
