//! Everything below a folder.

use std::collections::HashSet;
use std::ops::ControlFlow;

use aiv_filesystems::{Entry, FileId, FileType, Metadata};
use aiv_volume_io::Job;

use crate::error::{Error, Result};
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

/// A folder that is being walked.
struct Level {
    /// What is left of it, the next one last.
    entries: Vec<Entry>,
}

impl Walk {
    /// Tells `visit` of `from` and of everything below it: a folder before what is in it, names
    /// in the order of their bytes. Symbolic links are not followed. `trouble` is told what could
    /// not be read; a folder that was entered before, by another name, is such trouble.
    ///
    /// Holds the names of the folders on the way to where it is, and 16 bytes for each folder it
    /// entered.
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
        let mut levels = Vec::new();
        if visit(&found) == Step::On && from.metadata.file_type == FileType::Folder {
            entered.insert(from.id);
            levels.push(self.enter(from, from.id, &path, job, trouble)?);
        }
        while let Some(level) = levels.last_mut() {
            job.check()?;
            let Some(entry) = level.entries.pop() else {
                levels.pop();
                path.pop();
                continue;
            };
            path.push(entry.name);
            let metadata = match filesystem.metadata(entry.id) {
                Ok(metadata) => metadata,
                Err(error) => {
                    let why = Error::of(&path, error);
                    trouble(&Trouble { path: &path, why });
                    path.pop();
                    continue;
                }
            };
            let below = &path.parts()[first..];
            let step = visit(&Found { path: &path, below, id: entry.id, metadata: &metadata });
            if step == Step::End {
                return Ok(());
            }
            let depth = levels.len();
            let is_entered =
                step == Step::On && metadata.file_type == FileType::Folder && depth <= self.depth;
            if !is_entered {
                path.pop();
                continue;
            }
            let is_full = entered.len() >= FOLDERS_MAX;
            let is_new = depth <= DEPTH_MAX && !is_full && entered.insert(entry.id);
            if !is_new {
                let what = match (depth <= DEPTH_MAX, is_full) {
                    (false, _) => TOO_DEEP,
                    (_, true) => TOO_MANY,
                    _ => "the folder has another name, too, by which it was listed",
                };
                let source =
                    aiv_filesystems::Error::Damaged { what: what.to_owned(), offset: None };
                let why = Error::Filesystem { path: path.clone(), source };
                trouble(&Trouble { path: &path, why });
                path.pop();
                continue;
            }
            levels.push(self.enter(from, entry.id, &path, job, trouble)?);
        }
        Ok(())
    }

    fn enter(
        self,
        from: &File,
        id: FileId,
        path: &Path,
        job: Job<'_>,
        trouble: &mut dyn FnMut(&Trouble<'_>),
    ) -> Result<Level> {
        let mut entries = Vec::new();
        let read = from.filesystem.entries(id, job, &mut |entry| {
            // Whatever the volume says: a name that leads elsewhere is none.
            if is_name(&entry.name) {
                entries.push(entry);
            }
            ControlFlow::Continue(())
        });
        match read.map_err(|error| Error::of(path, error)) {
            Ok(()) => {}
            Err(Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(why) => trouble(&Trouble { path, why }),
        }
        entries.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(Level { entries })
    }
}

/// Whether a name is one, and leads nowhere else.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}
