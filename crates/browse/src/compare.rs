//! Two states of one filesystem, file by file.

use std::collections::HashMap;
use std::ops::ControlFlow;

use aiv_filesystems::{Entry, FileData, FileId, FileType, Filesystem, Metadata};
use aiv_volume_io::{Extent, ExtentSet, Job, causes};

use crate::differ::differ;
use crate::error::{Error, Result};
use crate::path::Path;
use crate::resolve::File;
use crate::walk::{DEPTH_MAX, FOLDERS_MAX, TOO_DEEP, TOO_MANY};

/// Differences that are listed; all are counted.
pub(crate) const LISTED_MAX: usize = 1 << 20;
/// What is different about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum What {
    /// Its bytes, or what a link says.
    Content,
    /// Its length.
    Len,
    /// When it was modified.
    Modified,
    /// Permissions.
    Mode,
    /// Owner or group.
    Owner,
    /// Marks as hidden, immutable.
    Flags,
    /// Extended attributes.
    Attributes,
    /// Named streams.
    Streams,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is the same file, and has another name.
    Renamed {
        /// The one it had.
        from: Path,
    },
    /// It is there in both, and not the same.
    Changed {
        /// In what, in a fixed order, at least one.
        what: Vec<What>,
    },
}

/// A file that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it is; of a file that is gone, where it was.
    pub path: Path,
    /// What became of it.
    pub change: Change,
    /// What it is.
    pub file_type: FileType,
    /// Its length; of a file that is gone, the one it had.
    pub len: u64,
    /// Bytes of its data that lie in blocks which changed, where that is known.
    pub changed_bytes: u64,
}

/// What is different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Files that are not the same, in the order of their paths, those that are gone at the end.
    pub differences: Vec<Difference>,
    /// How many there are.
    pub count: u64,
    /// Files and folders that are the same.
    pub same: u64,
    /// Bytes in blocks that changed which are no data of a file: records of the filesystem, and
    /// what is free by now. Only where changed blocks are known.
    pub elsewhere: u64,
    /// What could not be compared, and why.
    pub troubles: Vec<(Path, String)>,
}

/// How closely files are compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Closely<'a> {
    /// Bytes of the volume that changed, when that is known. Files of which nothing else differs
    /// are read then where they lie in such bytes, or elsewhere than before; without it, never.
    pub changed: Option<&'a ExtentSet>,
}

struct Side<'a> {
    filesystem: &'a dyn Filesystem,
    id: FileId,
}

struct Compare<'a> {
    old: &'a dyn Filesystem,
    new: &'a dyn Filesystem,
    changed: Option<&'a ExtentSet>,
    job: Job<'a>,
    answer: Comparison,
    /// Files that are gone, by id, to be found under another name.
    gone: HashMap<FileId, Vec<Difference>>,
    gone_facts: HashMap<FileId, Metadata>,
    added: Vec<(FileId, Metadata, Difference)>,
    /// Bytes of changed blocks that files own, in any order.
    owned: Vec<Extent>,
}

/// Folders that are compared: the same path in both, or in one only.
enum Task {
    Both(FileId, FileId, Path, usize),
    Old(FileId, Path, usize),
    New(FileId, Path, usize),
}

/// Compares everything below `old` and `new`, two states of the same folder.
///
/// Files are the same when their paths, metadata and bytes are. A file is taken for renamed when
/// its record is the same, and is a file of the same type and time of creation.
///
/// Holds the names of the folders on the way, and what is added or gone.
///
/// # Errors
/// [`Error::Canceled`]; what cannot be read is in the answer.
pub fn compare(old: &File, new: &File, closely: Closely<'_>, job: Job<'_>) -> Result<Comparison> {
    let mut compare = Compare {
        old: &*old.filesystem,
        new: &*new.filesystem,
        changed: closely.changed,
        job,
        answer: Comparison::default(),
        gone: HashMap::new(),
        gone_facts: HashMap::new(),
        added: Vec::new(),
        owned: Vec::new(),
    };
    compare.file(old.id, new.id, &old.metadata, &new.metadata, &new.path)?;
    let is_folder = |file: &File| file.metadata.file_type == FileType::Folder;
    if is_folder(old) && is_folder(new) {
        compare.run(Task::Both(old.id, new.id, new.path.clone(), 0))?;
    }
    Ok(compare.finish())
}

impl Compare<'_> {
    fn run(&mut self, first: Task) -> Result<()> {
        let mut todo = vec![first];
        let mut entered = std::collections::HashSet::new();
        while let Some(task) = todo.pop() {
            self.job.check()?;
            // A folder within itself, or with many names, is entered once.
            let (key, path, depth) = match &task {
                Task::Both(a, b, path, depth) => ((Some(*a), Some(*b)), path, *depth),
                Task::Old(a, path, depth) => ((Some(*a), None), path, *depth),
                Task::New(b, path, depth) => ((None, Some(*b)), path, *depth),
            };
            let why_not = match entered.len() >= FOLDERS_MAX {
                _ if depth > DEPTH_MAX => Some(TOO_DEEP),
                true => Some(TOO_MANY),
                false if entered.insert(key) => None,
                false => Some("the folder has another name, too, by which it was compared"),
            };
            if let Some(why) = why_not {
                let source = aiv_filesystems::Error::Damaged { what: why.to_owned(), offset: None };
                self.trouble(path, &Error::of(path, source));
                continue;
            }
            let first = todo.len();
            match task {
                Task::Both(a, b, path, depth) => {
                    let old = self.names(self.old, a, &path)?;
                    let new = self.names(self.new, b, &path)?;
                    self.both(old, new, &path, depth, &mut todo)?;
                }
                Task::Old(a, path, depth) => {
                    for entry in self.names(self.old, a, &path)? {
                        self.gone(&entry, path.join(&entry.name), depth, &mut todo)?;
                    }
                }
                Task::New(b, path, depth) => {
                    for entry in self.names(self.new, b, &path)? {
                        self.new_one(&entry, path.join(&entry.name), depth, &mut todo)?;
                    }
                }
            }
            todo[first..].reverse();
        }
        Ok(())
    }

    /// Names of a folder, in the order of their bytes.
    fn names(&mut self, of: &dyn Filesystem, id: FileId, path: &Path) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let read = of.entries(id, self.job, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        match read.map_err(|error| Error::of(path, error)) {
            Err(Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(why) => self.trouble(path, &why),
            Ok(()) => {}
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn trouble(&mut self, path: &Path, why: &Error) {
        if self.answer.troubles.len() < LISTED_MAX {
            let source = std::error::Error::source(why);
            let text = source.map_or_else(|| why.to_string(), causes);
            self.answer.troubles.push((path.clone(), text));
        }
    }

    fn both(
        &mut self,
        old: Vec<Entry>,
        new: Vec<Entry>,
        path: &Path,
        depth: usize,
        todo: &mut Vec<Task>,
    ) -> Result<()> {
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let a = if order.is_le() { old.next() } else { None };
            let b = if order.is_ge() { new.next() } else { None };
            match (a, b) {
                (Some(a), Some(b)) => self.pair(&a, &b, path.join(&b.name), depth, todo)?,
                (Some(a), None) => self.gone(&a, path.join(&a.name), depth, todo)?,
                (None, Some(b)) => self.new_one(&b, path.join(&b.name), depth, todo)?,
                (None, None) => {}
            }
        }
    }

    /// What a record says, or that it cannot be read.
    fn facts(&mut self, of: &dyn Filesystem, id: FileId, path: &Path) -> Result<Option<Metadata>> {
        match of.metadata(id).map_err(|error| Error::of(path, error)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(Error::Canceled(canceled)) => Err(canceled.into()),
            Err(why) => {
                self.trouble(path, &why);
                Ok(None)
            }
        }
    }

    fn pair(
        &mut self,
        a: &Entry,
        b: &Entry,
        path: Path,
        depth: usize,
        todo: &mut Vec<Task>,
    ) -> Result<()> {
        let (old, new) = (self.old, self.new);
        let (Some(was), Some(is)) = (self.facts(old, a.id, &path)?, self.facts(new, b.id, &path)?)
        else {
            return Ok(());
        };
        if was.file_type != is.file_type {
            self.gone(a, path.clone(), depth, todo)?;
            return self.new_one(b, path, depth, todo);
        }
        self.file(a.id, b.id, &was, &is, &path)?;
        if is.file_type == FileType::Folder {
            todo.push(Task::Both(a.id, b.id, path, depth + 1));
        }
        Ok(())
    }

    /// Compares two files of the same path and type.
    fn file(
        &mut self,
        a: FileId,
        b: FileId,
        was: &Metadata,
        is: &Metadata,
        path: &Path,
    ) -> Result<()> {
        let touched = self.touched(b, is);
        let mut what = Vec::new();
        let is_file = is.file_type == FileType::File;
        if is_file && was.len != is.len {
            what.push(What::Len);
        }
        if was.modified != is.modified && is.file_type != FileType::Folder {
            what.push(What::Modified);
        }
        for (one, differs) in [
            (What::Mode, was.mode != is.mode),
            (What::Owner, was.owner != is.owner),
            (What::Flags, was.flags != is.flags),
        ] {
            if differs {
                what.push(one);
            }
        }
        let old = Side { filesystem: self.old, id: a };
        let new = Side { filesystem: self.new, id: b };
        let content = match is.file_type {
            FileType::Link => {
                Some(old.filesystem.link_target(a).ok() != new.filesystem.link_target(b).ok())
            }
            FileType::File if was.len != is.len => Some(true),
            FileType::File if self.may_differ(&old, &new, touched, was, is) => {
                self.bytes_differ(&old, &new, path)?
            }
            _ => Some(false),
        };
        if content == Some(true) {
            what.insert(0, What::Content);
        }
        // Records that did not change have the attributes they had.
        if was.changed != is.changed || is.changed.is_none() {
            let attributes = |side: &Side<'_>| {
                let mut all = side.filesystem.attributes(side.id).ok()?;
                all.sort();
                Some(all)
            };
            if attributes(&old) != attributes(&new) {
                what.push(What::Attributes);
            }
            if self.streams_differ(&old, &new, path)? {
                what.push(What::Streams);
            }
        }
        if !what.is_empty() {
            self.push(path.clone(), Change::Changed { what }, is, touched);
        } else if content.is_some() {
            self.answer.same += 1;
        }
        Ok(())
    }

    /// Whether two files have other streams, or the same ones with other bytes.
    fn streams_differ(&mut self, old: &Side<'_>, new: &Side<'_>, path: &Path) -> Result<bool> {
        let streams = |side: &Side<'_>| {
            let mut all = side.filesystem.streams(side.id).ok()?;
            all.sort();
            Some(all)
        };
        let (before, after) = (streams(old), streams(new));
        if before != after {
            return Ok(true);
        }
        for stream in after.unwrap_or_default() {
            let was = old.filesystem.open_stream(old.id, &stream.name);
            let opened =
                was.and_then(|a| Ok((a, new.filesystem.open_stream(new.id, &stream.name)?)));
            if self.opened_differ(opened, path)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the bytes have to be read to know whether they are the same.
    fn may_differ(
        &self,
        old: &Side<'_>,
        new: &Side<'_>,
        touched: u64,
        was: &Metadata,
        is: &Metadata,
    ) -> bool {
        if self.changed.is_none() {
            return was.modified != is.modified || was.changed != is.changed;
        }
        let places = |side: &Side<'_>| {
            side.filesystem.open(side.id).ok().and_then(|data| data.extents().ok())
        };
        let (before, after) = (places(old), places(new));
        // Bytes within records have no place that could have changed.
        touched > 0 || before != after || after.is_none_or(|places| places.is_empty())
    }

    /// Whether the bytes of two files of one length differ; nothing when they cannot be read.
    fn bytes_differ(
        &mut self,
        old: &Side<'_>,
        new: &Side<'_>,
        path: &Path,
    ) -> Result<Option<bool>> {
        let was = old.filesystem.open(old.id);
        self.opened_differ(was.and_then(|a| Ok((a, new.filesystem.open(new.id)?))), path)
    }

    /// The same of what was opened.
    fn opened_differ(
        &mut self,
        opened: aiv_filesystems::Result<(Box<dyn FileData + '_>, Box<dyn FileData + '_>)>,
        path: &Path,
    ) -> Result<Option<bool>> {
        let (a, b) = match opened {
            Ok(both) => both,
            Err(error) => {
                self.trouble(path, &Error::of(path, error));
                return Ok(None);
            }
        };
        match differ(&*a, &*b, self.job)? {
            Ok(differ) => Ok(Some(differ)),
            Err(source) => {
                let source = aiv_filesystems::Error::Io { op: "read file", offset: 0, source };
                self.trouble(path, &Error::of(path, source));
                Ok(None)
            }
        }
    }

    /// Bytes of a file that lie in changed blocks.
    fn touched(&mut self, id: FileId, metadata: &Metadata) -> u64 {
        let (Some(changed), FileType::File) = (self.changed, metadata.file_type) else { return 0 };
        let Ok(data) = self.new.open(id) else { return 0 };
        let mut bytes = 0;
        for extent in data.extents().unwrap_or_default() {
            for run in changed.within(extent) {
                bytes += run.len;
                self.owned.push(run);
            }
        }
        bytes
    }

    fn push(&mut self, path: Path, change: Change, metadata: &Metadata, changed_bytes: u64) {
        let (file_type, len) = (metadata.file_type, metadata.len);
        self.list(Difference { path, change, file_type, len, changed_bytes });
    }

    fn list(&mut self, difference: Difference) {
        self.answer.count += 1;
        if self.answer.differences.len() < LISTED_MAX {
            self.answer.differences.push(difference);
        }
    }

    fn gone(
        &mut self,
        entry: &Entry,
        path: Path,
        depth: usize,
        todo: &mut Vec<Task>,
    ) -> Result<()> {
        let old = self.old;
        let Some(metadata) = self.facts(old, entry.id, &path)? else { return Ok(()) };
        if metadata.file_type == FileType::Folder {
            todo.push(Task::Old(entry.id, path.clone(), depth + 1));
        }
        let (file_type, len) = (metadata.file_type, metadata.len);
        let difference =
            Difference { path, change: Change::Removed, file_type, len, changed_bytes: 0 };
        self.gone.entry(entry.id).or_default().push(difference);
        self.gone_facts.insert(entry.id, metadata);
        Ok(())
    }

    fn new_one(
        &mut self,
        entry: &Entry,
        path: Path,
        depth: usize,
        todo: &mut Vec<Task>,
    ) -> Result<()> {
        let new = self.new;
        let Some(metadata) = self.facts(new, entry.id, &path)? else { return Ok(()) };
        if metadata.file_type == FileType::Folder {
            todo.push(Task::New(entry.id, path.clone(), depth + 1));
        }
        let changed_bytes = self.touched(entry.id, &metadata);
        let (file_type, len) = (metadata.file_type, metadata.len);
        let difference = Difference { path, change: Change::Added, file_type, len, changed_bytes };
        self.added.push((entry.id, metadata, difference));
        Ok(())
    }

    /// Finds what was renamed, and puts everything in order.
    fn finish(mut self) -> Comparison {
        for (id, is, mut difference) in std::mem::take(&mut self.added) {
            let same = self.gone_facts.get(&id).is_some_and(|was| {
                let both = was.created.zip(is.created);
                // Records are used again: without a time of creation, the rest has to agree.
                let is_it =
                    both.map_or(was.modified == is.modified && was.len == is.len, |(a, b)| a == b);
                was.file_type == is.file_type && is_it
            });
            if same && let Some(from) = self.gone.get_mut(&id).and_then(Vec::pop) {
                difference.change = Change::Renamed { from: from.path };
            }
            self.list(difference);
        }
        self.answer.differences.sort_by(|a, b| a.path.cmp(&b.path));
        let mut gone: Vec<Difference> = self.gone.drain().flat_map(|(_, all)| all).collect();
        gone.sort_by(|a, b| a.path.cmp(&b.path));
        gone.into_iter().for_each(|one| self.list(one));
        if let Some(changed) = self.changed {
            let owned: ExtentSet = self.owned.drain(..).collect();
            self.answer.elsewhere = changed.total_len().saturating_sub(owned.total_len());
        }
        self.answer
    }
}
