//! Two states of one filesystem, file by file.

use std::collections::HashSet;

use aiv_filesystems::{FileData, FileId, FileType, Filesystem, Metadata};
use aiv_volume_io::{Extent, ExtentSet, Job, causes};

use crate::differ::differ;
use crate::error::{Error, Result};
use crate::gathered::{Gathered, ROOT};
use crate::names::{NAMES_MAX, Names, TOO_MANY_NAMES};
use crate::path::Path;
use crate::resolve::File;
use crate::walk::{DEPTH_MAX, FOLDERS_MAX, TOO_DEEP, TOO_MANY, left_out};

/// Troubles that are named; all are counted.
const TROUBLES_MAX: usize = 10_000;

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
    gathered: Gathered,
    /// Files and folders that are the same.
    pub same: u64,
    /// Bytes in blocks that changed which are no data of a file: records of the filesystem, and
    /// what is free by now. Only where changed blocks are known.
    pub elsewhere: u64,
    /// What could not be compared, and why; the first ten thousand.
    pub troubles: Vec<(Path, String)>,
    /// How many there are.
    pub trouble_count: u64,
    /// Files among them of which bytes are lost.
    pub damaged: u64,
}

impl Comparison {
    /// Files that are not the same, in the order of their paths, those that are gone at the end:
    /// two million of them, which are held in some sixty bytes each and their names.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        self.gathered.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.gathered.count()
    }
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
    /// Where the walk is.
    path: Path,
    levels: Vec<Level>,
    /// Bytes their names take.
    held: usize,
    /// Bytes of changed blocks that files own, in any order.
    owned: Vec<Extent>,
}

/// A folder in both, or in one only.
struct Level {
    old: Names,
    new: Names,
    /// Bytes of both when they were read.
    taken: usize,
    /// Its own name, and its position among the folders in which something is not the same.
    name: Vec<u8>,
    position: Option<u32>,
}

/// A folder that is to be entered, in both or in one.
type Inner = (Option<FileId>, Option<FileId>);

/// Compares everything below `old` and `new`, two states of the same folder.
///
/// Files are the same when their paths, metadata and bytes are. A file is taken for renamed when
/// its record is the same, and is a file of the same type and time of creation.
///
/// Holds the names in the folders on the way, and what is not the same.
///
/// # Errors
/// [`Error::Canceled`]; what cannot be read is in the answer.
pub fn compare(old: &File, new: &File, closely: Closely<'_>, job: Job<'_>) -> Result<Comparison> {
    let gathered = Gathered::at(new.path.clone());
    let mut compare = Compare {
        old: &*old.filesystem,
        new: &*new.filesystem,
        changed: closely.changed,
        job,
        answer: Comparison { gathered, ..Comparison::default() },
        path: new.path.clone(),
        levels: Vec::new(),
        held: 0,
        owned: Vec::new(),
    };
    compare.file(old.id, new.id, &old.metadata, &new.metadata, b"")?;
    let is_folder = |file: &File| file.metadata.file_type == FileType::Folder;
    if is_folder(old) && is_folder(new) {
        compare.run((Some(old.id), Some(new.id)))?;
    }
    Ok(compare.finish())
}

impl Compare<'_> {
    /// Walks both folders side by side, each before what is in it, names in the order of bytes.
    fn run(&mut self, first: Inner) -> Result<()> {
        let mut entered: HashSet<Inner> = HashSet::new();
        entered.insert(first);
        self.enter(first, Vec::new())?;
        while let Some(level) = self.levels.last_mut() {
            self.job.check()?;
            let order = match (level.old.peek(), level.new.peek()) {
                (None, None) => {
                    self.leave();
                    continue;
                }
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            let take = |(name, id): (&[u8], FileId)| (name.to_vec(), id);
            let a = if order.is_le() { level.old.next().map(take) } else { None };
            let b = if order.is_ge() { level.new.next().map(take) } else { None };
            let Some(name) = a.as_ref().or(b.as_ref()).map(|(name, _)| name.clone()) else {
                continue;
            };
            self.path.push(name.clone());
            let inner = match (a.map(|(_, id)| id), b.map(|(_, id)| id)) {
                (Some(a), Some(b)) => self.pair(a, b, &name)?,
                (Some(a), None) => self.gone(a, &name)?,
                (None, Some(b)) => self.new_one(b, &name)?,
                (None, None) => None,
            };
            let Some(inner) = inner else {
                self.path.pop();
                continue;
            };
            // A folder within itself, or with many names, is entered once.
            let why_not = match entered.len() >= FOLDERS_MAX {
                _ if self.levels.len() > DEPTH_MAX => Some(TOO_DEEP),
                true => Some(TOO_MANY),
                false if entered.insert(inner) => None,
                false => Some("the folder has another name, too, by which it was compared"),
            };
            match why_not {
                Some(why) => {
                    self.trouble(&left_out(&self.path, why));
                    self.path.pop();
                }
                None => self.enter(inner, name)?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, (old, new): Inner, name: Vec<u8>) -> Result<()> {
        let old = old.map_or_else(|| Ok(Names::default()), |id| self.names(self.old, id, 0))?;
        let taken = old.taken();
        let new = new.map_or_else(|| Ok(Names::default()), |id| self.names(self.new, id, taken))?;
        let taken = taken + new.taken();
        self.held += taken;
        let position = self.levels.is_empty().then_some(ROOT);
        self.levels.push(Level { old, new, taken, name, position });
        Ok(())
    }

    fn leave(&mut self) {
        self.held -= self.levels.pop().map_or(0, |level| level.taken);
        self.path.pop();
    }

    /// Names in a folder, where others take so many bytes already.
    fn names(&mut self, of: &dyn Filesystem, id: FileId, taken: usize) -> Result<Names> {
        let room = NAMES_MAX.saturating_sub(self.held + taken);
        let (names, read) = Names::read(of, id, room, self.job);
        match read.map_err(|error| Error::of(&self.path, error)) {
            Err(Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(why) => self.trouble(&why),
            Ok(()) => {}
        }
        if names.is_cut() {
            self.trouble(&left_out(&self.path, TOO_MANY_NAMES));
        }
        Ok(names)
    }

    /// Position of the folder in which the walk is, for something that is not the same; nothing
    /// when there is no room for one more.
    fn folder(&mut self) -> Option<u32> {
        let mut above = ROOT;
        for level in &mut self.levels {
            above = match level.position {
                Some(position) => position,
                None => {
                    let position = self.answer.gathered.folder(above, &level.name)?;
                    *level.position.insert(position)
                }
            };
        }
        Some(above)
    }

    fn trouble(&mut self, why: &Error) {
        self.answer.trouble_count += 1;
        if self.answer.troubles.len() < TROUBLES_MAX {
            let source = std::error::Error::source(why);
            let text = source.map_or_else(|| why.to_string(), causes);
            self.answer.troubles.push((self.path.clone(), text));
        }
    }

    /// What a record says, or that it cannot be read.
    fn facts(&mut self, of: &dyn Filesystem, id: FileId) -> Result<Option<Metadata>> {
        match of.metadata(id).map_err(|error| Error::of(&self.path, error)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(Error::Canceled(canceled)) => Err(canceled.into()),
            Err(why) => {
                self.trouble(&why);
                Ok(None)
            }
        }
    }

    fn pair(&mut self, a: FileId, b: FileId, name: &[u8]) -> Result<Option<Inner>> {
        let (old, new) = (self.old, self.new);
        let (Some(was), Some(is)) = (self.facts(old, a)?, self.facts(new, b)?) else {
            return Ok(None);
        };
        if was.file_type != is.file_type {
            // One of them is a folder, at most.
            let gone = self.gone(a, name)?;
            return Ok(self.new_one(b, name)?.or(gone));
        }
        self.file(a, b, &was, &is, name)?;
        let is_folder = is.file_type == FileType::Folder;
        Ok(is_folder.then_some((Some(a), Some(b))))
    }

    /// Compares two files of the same path and type.
    fn file(
        &mut self,
        a: FileId,
        b: FileId,
        was: &Metadata,
        is: &Metadata,
        name: &[u8],
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
                self.bytes_differ(&old, &new)?
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
            if self.streams_differ(&old, &new)? {
                what.push(What::Streams);
            }
        }
        if !what.is_empty() {
            let folder = self.folder();
            self.answer.gathered.changed(folder, name, &what, is, touched);
        } else if content.is_some() {
            self.answer.same += 1;
        }
        Ok(())
    }

    /// Whether two files have other streams, or the same ones with other bytes.
    fn streams_differ(&mut self, old: &Side<'_>, new: &Side<'_>) -> Result<bool> {
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
            if self.opened_differ(opened)? == Some(true) {
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
    fn bytes_differ(&mut self, old: &Side<'_>, new: &Side<'_>) -> Result<Option<bool>> {
        let was = old.filesystem.open(old.id);
        self.opened_differ(was.and_then(|a| Ok((a, new.filesystem.open(new.id)?))))
    }

    /// The same of what was opened.
    fn opened_differ(
        &mut self,
        opened: aiv_filesystems::Result<(Box<dyn FileData + '_>, Box<dyn FileData + '_>)>,
    ) -> Result<Option<bool>> {
        let (a, b) = match opened {
            Ok(both) => both,
            Err(error) => {
                let is_lost = matches!(error, aiv_filesystems::Error::Damaged { .. });
                self.answer.damaged += u64::from(is_lost);
                self.trouble(&Error::of(&self.path, error));
                return Ok(None);
            }
        };
        match differ(&*a, &*b, self.job)? {
            Ok(differ) => Ok(Some(differ)),
            Err(source) => {
                self.answer.damaged += 1;
                let source = aiv_filesystems::Error::Io { op: "read file", offset: 0, source };
                self.trouble(&Error::of(&self.path, source));
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

    fn gone(&mut self, id: FileId, name: &[u8]) -> Result<Option<Inner>> {
        let old = self.old;
        let Some(metadata) = self.facts(old, id)? else { return Ok(None) };
        let folder = self.folder();
        self.answer.gathered.removed(folder, name, id, &metadata);
        let is_folder = metadata.file_type == FileType::Folder;
        Ok(is_folder.then_some((Some(id), None)))
    }

    fn new_one(&mut self, id: FileId, name: &[u8]) -> Result<Option<Inner>> {
        let new = self.new;
        let Some(metadata) = self.facts(new, id)? else { return Ok(None) };
        let touched = self.touched(id, &metadata);
        let folder = self.folder();
        self.answer.gathered.added(folder, name, id, &metadata, touched);
        let is_folder = metadata.file_type == FileType::Folder;
        Ok(is_folder.then_some((None, Some(id))))
    }

    fn finish(mut self) -> Comparison {
        self.answer.gathered.find_renamed();
        if let Some(changed) = self.changed {
            let owned: ExtentSet = self.owned.drain(..).collect();
            self.answer.elsewhere = changed.total_len().saturating_sub(owned.total_len());
        }
        self.answer
    }
}
