//! All names of a filesystem from its root on: which of its files have one that matches.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use aiv_volume_io::Job;

use super::{FILES_MAX, KeptReason, MatchingFiles, PATH_BYTES_MAX, Pattern, any_matches, fold};
use crate::{Entry, Error, FileId, FileType, Filesystem, Result};

/// Folders in folders: what is deeper is kept. No system call takes such a path.
const DEPTH_MAX: usize = 512;
/// Folders of a filesystem, whose numbers are held: 256 MiB of memory.
const FOLDERS_MAX: usize = 1 << 22;

/// A file with a name that matches.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    /// How many such names.
    pub(crate) names: u32,
}

/// What the names of a filesystem say.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) candidates: BTreeMap<FileId, Candidate>,
    /// Some folder hides names: it is among the kept.
    pub(crate) is_incomplete: bool,
}

/// A folder that waits, and the names in front of it.
struct Folder {
    id: FileId,
    /// How many folders it is in.
    depth: usize,
    name: String,
    /// Everything in it matches.
    is_inside: bool,
}

/// Where the walk is: names as they are shown, and as patterns see them.
#[derive(Default)]
struct Path {
    shown: Vec<String>,
    matched: Vec<String>,
}

/// Walks all folders of `filesystem`, each once.
pub(crate) struct Walk<'a> {
    filesystem: &'a dyn Filesystem,
    patterns: Vec<Pattern>,
    ignores_case: bool,
    answer: &'a mut MatchingFiles,
    names: Names,
    path_bytes: usize,
}

impl<'a> Walk<'a> {
    /// With `ignores_case`, names match whatever their case.
    pub(crate) fn new(
        filesystem: &'a dyn Filesystem,
        patterns: &[Pattern],
        ignores_case: bool,
        answer: &'a mut MatchingFiles,
    ) -> Self {
        let patterns = match ignores_case {
            true => patterns.iter().map(Pattern::without_case).collect(),
            false => patterns.to_vec(),
        };
        let names = Names::default();
        Self { filesystem, patterns, ignores_case, answer, names, path_bytes: 0 }
    }

    /// Tells `each` every file and folder by name, the root left out.
    ///
    /// # Errors
    /// Those of `each`, [`Error::Io`] and [`Error::Canceled`]. What is damaged is kept.
    pub(crate) fn run(
        mut self,
        job: Job<'_>,
        each: &mut dyn FnMut(FileId) -> Result<()>,
    ) -> Result<Names> {
        let root = self.filesystem.root();
        let mut seen = HashSet::from([root]);
        let mut path = Path::default();
        let mut waiting = self.folder(root, &path, false, job, each)?;
        while let Some(folder) = waiting.pop() {
            job.check()?;
            path.truncate(folder.depth);
            path.push(folder.name, self.ignores_case);
            if folder.depth >= DEPTH_MAX {
                self.hide(&path, "it is too deep");
            } else if seen.len() == FOLDERS_MAX {
                self.hide(&path, "there are too many folders");
            } else if !seen.insert(folder.id) {
                self.hide(&path, "it has more than one name");
            } else {
                let is_inside = folder.is_inside || self.matches(&path, None, true);
                waiting.extend(self.folder(folder.id, &path, is_inside, job, each)?);
            }
        }
        Ok(self.names)
    }

    /// Takes the names of one folder, and returns the folders in it.
    fn folder(
        &mut self,
        id: FileId,
        path: &Path,
        is_inside: bool,
        job: Job<'_>,
        each: &mut dyn FnMut(FileId) -> Result<()>,
    ) -> Result<Vec<Folder>> {
        let mut folders = Vec::new();
        let mut failed = Ok(());
        let read = self.filesystem.entries(id, job, &mut |entry| {
            failed = each(entry.id)
                .and_then(|()| self.entry(&entry, path, is_inside))
                .map(|found| folders.extend(found));
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        failed?;
        match read {
            Ok(()) => {}
            Err(error @ (Error::Io { .. } | Error::Canceled(_))) => return Err(error),
            Err(_) => self.hide(path, "it is damaged"),
        }
        Ok(folders)
    }

    fn entry(&mut self, entry: &Entry, path: &Path, is_inside: bool) -> Result<Option<Folder>> {
        let name = String::from_utf8_lossy(&entry.name);
        let file_type = match entry.file_type {
            Some(file_type) => file_type,
            None => match self.filesystem.metadata(entry.id) {
                Ok(metadata) => metadata.file_type,
                Err(error @ (Error::Io { .. } | Error::Canceled(_))) => return Err(error),
                // Without a record there is nothing to leave out.
                Err(_) => return Ok(None),
            },
        };
        match file_type {
            FileType::Folder => {
                let (id, depth, name) = (entry.id, path.shown.len(), name.into_owned());
                return Ok(Some(Folder { id, depth, name, is_inside }));
            }
            FileType::File if is_inside || self.matches(path, Some(&name), false) => {
                self.file(entry.id, path, &name);
            }
            _ => {}
        }
        Ok(None)
    }

    fn matches(&self, folder: &Path, name: Option<&str>, is_folder: bool) -> bool {
        let name = name.map(|name| as_matched(name, self.ignores_case));
        let folder = folder.matched.iter().map(String::as_str);
        let path: Vec<&str> = folder.chain(name.as_deref()).collect();
        any_matches(&self.patterns, &path, is_folder)
    }

    fn file(&mut self, id: FileId, folder: &Path, name: &str) {
        if let Some(candidate) = self.names.candidates.get_mut(&id) {
            candidate.names = candidate.names.saturating_add(1);
            return;
        }
        let path = folder.shown.iter().map(String::as_str).chain([name]);
        let path = path.collect::<Vec<_>>().join("/");
        if self.names.candidates.len() == FILES_MAX || self.path_bytes + path.len() > PATH_BYTES_MAX
        {
            self.answer.keep(path, KeptReason::TooMany);
            return;
        }
        self.path_bytes += path.len();
        self.names.candidates.insert(id, Candidate { path, names: 1 });
    }

    fn hide(&mut self, path: &Path, what: &'static str) {
        self.names.is_incomplete = true;
        self.answer.keep(format!("{}/", path.shown.join("/")), KeptReason::Folder(what));
    }
}

impl Path {
    fn truncate(&mut self, depth: usize) {
        self.shown.truncate(depth);
        self.matched.truncate(depth);
    }

    fn push(&mut self, name: String, ignores_case: bool) {
        self.matched.push(as_matched(&name, ignores_case));
        self.shown.push(name);
    }
}

fn as_matched(name: &str, ignores_case: bool) -> String {
    if ignores_case { name.chars().map(fold).collect() } else { name.to_owned() }
}
