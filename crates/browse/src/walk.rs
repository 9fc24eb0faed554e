//! Everything below a folder.

use std::collections::HashSet;

use aiv_filesystems::{FileId, FileType, Metadata};
use aiv_volume_io::Job;

use crate::error::{Error, Result};
use crate::names::{NAMES_MAX, Names, TOO_MANY_NAMES};
use crate::path::Path;
use crate::resolve::File;

/// Folders one walk enters: bounds its memory.
pub const FOLDERS_MAX: usize = 1 << 21;
/// Folders in folders. Programs that work with open folders make trees of thousands; a loop that
/// is not seen as one ends here.
pub(crate) const DEPTH_MAX: usize = 4096;
/// Why a folder below those is not entered.
pub(crate) const TOO_DEEP: &str = "it is too deep in folders to be entered";

/// Why a folder after too many others is not.
pub(crate) const TOO_MANY: &str = "there are more folders than can be listed at once";

/// A file or folder a walk came to.
#[derive(Debug)]
pub struct Found<'w> {
    /// Where it is.
    pub path: &'w Path,
    /// Its path below where the walk began: no parts for that itself.
    pub below: &'w [Vec<u8>],
    /// Which it is.
    pub id: FileId,
    /// What is known about it.
    pub metadata: &'w Metadata,
}

/// What a walk could not do; it goes on with the rest.
#[derive(Debug)]
pub struct Trouble<'w> {
    /// Where.
    pub path: &'w Path,
    /// Why.
    pub why: Error,
}

/// What happens next in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on; of a folder, with what is in it.
    On,
    /// Leave out what is in this folder.
    Skip,
    /// End the walk.
    End,
}

/// How a walk goes.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Folders in folders below the first one that are entered; 0 for only what is in that one.
    pub depth: usize,
}

impl Default for Walk {
    fn default() -> Self {
        Self { depth: usize::MAX }
    }
}

/// Folders that are being walked, each in the one before it.
#[derive(Default)]
struct Levels {
    names: Vec<Names>,
    /// Bytes each of them took when it was read, and all of them.
    taken: Vec<usize>,
    held: usize,
}

impl Levels {
    fn push(&mut self, names: Names) {
        let taken = names.taken();
        self.held += taken;
        self.taken.push(taken);
        self.names.push(names);
    }

    fn pop(&mut self) {
        self.names.pop();
        self.held -= self.taken.pop().unwrap_or(0);
    }
}

impl Walk {
    /// Tells `visit` of `from` and of everything below it: a folder before what is in it, names
    /// in the order of their bytes. Symbolic links are not followed. `trouble` is told what could
    /// not be read; a folder that was entered before, by another name, is such trouble.
    ///
    /// Holds the names in the folders on the way to where it is, 512 MiB of them at most (of what
    /// does not fit, `trouble` is told), and 16 bytes for each folder it entered.
    ///
    /// # Errors
    /// [`Error::Canceled`] only.
    pub fn run(
        self,
        from: &File,
        job: Job<'_>,
        visit: &mut dyn FnMut(&Found<'_>) -> Step,
        trouble: &mut dyn FnMut(&Trouble<'_>),
    ) -> Result<()> {
        let filesystem = &*from.filesystem;
        let mut path = from.path.clone();
        let first = path.parts().len();
        let mut entered: HashSet<FileId> = HashSet::new();
        let found = Found { path: &path, below: &[], id: from.id, metadata: &from.metadata };
        let mut levels = Levels::default();
        if visit(&found) == Step::On && from.metadata.file_type == FileType::Folder {
            entered.insert(from.id);
            enter(from, from.id, &path, job, &mut levels, trouble)?;
        }
        while let Some(level) = levels.names.last_mut() {
            job.check()?;
            let Some((name, id)) = level.next() else {
                levels.pop();
                path.pop();
                continue;
            };
            path.push(name.to_vec());
            let metadata = match filesystem.metadata(id) {
                Ok(metadata) => metadata,
                Err(error) => {
                    let why = Error::of(&path, error);
                    trouble(&Trouble { path: &path, why });
                    path.pop();
                    continue;
                }
            };
            let below = &path.parts()[first..];
            let step = visit(&Found { path: &path, below, id, metadata: &metadata });
            if step == Step::End {
                return Ok(());
            }
            let depth = levels.names.len();
            let is_entered =
                step == Step::On && metadata.file_type == FileType::Folder && depth <= self.depth;
            if !is_entered {
                path.pop();
                continue;
            }
            let is_full = entered.len() >= FOLDERS_MAX;
            let is_new = depth <= DEPTH_MAX && !is_full && entered.insert(id);
            if !is_new {
                let what = match (depth <= DEPTH_MAX, is_full) {
                    (false, _) => TOO_DEEP,
                    (_, true) => TOO_MANY,
                    _ => "the folder has another name, too, by which it was listed",
                };
                trouble(&Trouble { path: &path, why: left_out(&path, what) });
                path.pop();
                continue;
            }
            enter(from, id, &path, job, &mut levels, trouble)?;
        }
        Ok(())
    }
}

fn enter(
    from: &File,
    id: FileId,
    path: &Path,
    job: Job<'_>,
    levels: &mut Levels,
    trouble: &mut dyn FnMut(&Trouble<'_>),
) -> Result<()> {
    let (names, read) = Names::read(&*from.filesystem, id, NAMES_MAX - levels.held, job);
    match read.map_err(|error| Error::of(path, error)) {
        Ok(()) => {}
        Err(Error::Canceled(canceled)) => return Err(canceled.into()),
        Err(why) => trouble(&Trouble { path, why }),
    }
    if names.is_cut() {
        trouble(&Trouble { path, why: left_out(path, TOO_MANY_NAMES) });
    }
    levels.push(names);
    Ok(())
}

/// The error of what is not listed, although it may well be sound.
pub(crate) fn left_out(path: &Path, why: &str) -> Error {
    let source = aiv_filesystems::Error::Damaged { what: why.to_owned(), offset: None };
    Error::Filesystem { path: path.clone(), source }
}
