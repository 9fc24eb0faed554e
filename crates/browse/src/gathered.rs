//! Differences in little memory: some sixty bytes and the name for each, and those of a tree that
//! moved as a whole are as many as its files.

use std::collections::HashMap;

use aiv_filesystems::{FileId, FileType, Metadata};

use crate::compare::{Change, Difference, What};
use crate::path::Path;

/// Differences that are listed; all are counted.
const LISTED_MAX: usize = 1 << 21;
/// Bytes of all their names.
const NAMES_MAX: usize = 512 << 20;
/// Every kind of difference, at the place of its bit.
const ALL: [What; 8] = [
    What::Content,
    What::Len,
    What::Modified,
    What::Mode,
    What::Owner,
    What::Flags,
    What::Attributes,
    What::Streams,
];

/// A folder in which something is not the same: position of the one it is in, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Folder {
    above: u32,
    name: Place,
}

/// Where a name is among all names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    len: u16,
}

/// What became of something, without what only some have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Added,
    Removed,
    /// It was found under another name.
    Moved,
    /// A bit for each of [`ALL`].
    Changed(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    folder: u32,
    name: Place,
    how: How,
    file_type: FileType,
    len: u64,
    changed_bytes: u64,
}

/// What tells whether a file that is gone is one that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    number: u64,
    /// Position of the space of its id.
    space: u32,
    /// When it was made, or where nobody knows that, when it was modified: nanoseconds, and which
    /// of both it is.
    moment: u32,
    seconds: i64,
}

/// In the moment of [`Facts`]: it is when the file was made. Nanoseconds are below.
const IS_CREATED: u32 = 1 << 31;
/// In the moment of [`Facts`]: no time is known.
const NO_TIME: u32 = 1 << 30;

/// Differences that were gathered on a walk, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    root: Path,
    names: Vec<u8>,
    folders: Vec<Folder>,
    /// What changed, and what is new.
    found: Vec<Record>,
    /// What is gone.
    gone: Vec<Record>,
    /// Of what is new, and of what is gone.
    new_facts: Vec<Facts>,
    gone_facts: Vec<Facts>,
    spaces: Vec<u64>,
    known_spaces: HashMap<u64, u32>,
    /// Positions of new files, with the ones of what they were.
    renames: Vec<(u32, u32)>,
    unlisted: u64,
}

/// Position of the folder at which the comparison began.
pub(crate) const ROOT: u32 = u32::MAX;

impl Gathered {
    pub(crate) fn at(root: Path) -> Self {
        Self { root, ..Self::default() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        let listed = self.found.len() + self.gone.len() - self.renames.len();
        listed as u64 + self.unlisted
    }

    /// Remembers a folder; nothing when there is no room for its name.
    pub(crate) fn folder(&mut self, above: u32, name: &[u8]) -> Option<u32> {
        let at = u32::try_from(self.folders.len()).ok().filter(|&at| at != ROOT)?;
        let name = self.name(name)?;
        self.folders.push(Folder { above, name });
        Some(at)
    }

    fn name(&mut self, name: &[u8]) -> Option<Place> {
        let place = Place {
            start: u32::try_from(self.names.len()).ok()?,
            len: u16::try_from(name.len()).ok()?,
        };
        if self.names.len() + name.len() > NAMES_MAX {
            return None;
        }
        self.names.extend_from_slice(name);
        Some(place)
    }

    fn record(
        &mut self,
        folder: Option<u32>,
        name: &[u8],
        how: How,
        metadata: &Metadata,
        changed_bytes: u64,
    ) -> Option<Record> {
        if self.found.len() + self.gone.len() >= LISTED_MAX {
            return None;
        }
        let (file_type, len) = (metadata.file_type, metadata.len);
        Some(Record { folder: folder?, name: self.name(name)?, how, file_type, len, changed_bytes })
    }

    /// Takes note of something that is in both and not the same: `what`, in their order.
    pub(crate) fn changed(
        &mut self,
        folder: Option<u32>,
        name: &[u8],
        what: &[What],
        metadata: &Metadata,
        changed_bytes: u64,
    ) {
        let bit = |one: &What| ALL.iter().position(|all| all == one).map_or(0, |at| 1 << at);
        let how = How::Changed(what.iter().map(bit).fold(0, |all, bit| all | bit));
        match self.record(folder, name, how, metadata, changed_bytes) {
            Some(record) => self.found.push(record),
            None => self.unlisted += 1,
        }
    }

    /// Takes note of something that is new.
    pub(crate) fn added(
        &mut self,
        folder: Option<u32>,
        name: &[u8],
        id: FileId,
        metadata: &Metadata,
        changed_bytes: u64,
    ) {
        match self.record(folder, name, How::Added, metadata, changed_bytes) {
            Some(record) => {
                let facts = self.facts(id, metadata);
                self.found.push(record);
                self.new_facts.push(facts);
            }
            None => self.unlisted += 1,
        }
    }

    /// Takes note of something that is gone.
    pub(crate) fn removed(
        &mut self,
        folder: Option<u32>,
        name: &[u8],
        id: FileId,
        metadata: &Metadata,
    ) {
        match self.record(folder, name, How::Removed, metadata, 0) {
            Some(record) => {
                let facts = self.facts(id, metadata);
                self.gone.push(record);
                self.gone_facts.push(facts);
            }
            None => self.unlisted += 1,
        }
    }

    fn facts(&mut self, id: FileId, metadata: &Metadata) -> Facts {
        let spaces = &mut self.spaces;
        let space = *self.known_spaces.entry(id.space).or_insert_with(|| {
            spaces.push(id.space);
            // No more than there are differences.
            u32::try_from(spaces.len() - 1).unwrap_or(u32::MAX)
        });
        let time = metadata.created.or(metadata.modified);
        let which = if metadata.created.is_some() { IS_CREATED } else { 0 };
        let moment = time.map_or(NO_TIME, |time| (time.nanoseconds % NO_TIME) | which);
        let seconds = time.map_or(0, |time| time.seconds);
        Facts { number: id.number, space, moment, seconds }
    }

    /// Finds what was renamed: its record is the same, and a file of the same type that was made
    /// at the same time. Where nobody knows that, the rest has to agree: records are used again.
    pub(crate) fn find_renamed(&mut self) {
        let key = |facts: &Facts| (facts.space, facts.number);
        let mut by_id: Vec<u32> = (0..).take(self.gone.len()).collect();
        // Of several names, the last one is taken first.
        by_id.sort_unstable_by_key(|&at| {
            (key(&self.gone_facts[at as usize]), std::cmp::Reverse(at))
        });
        let is_new = |(_, record): &(u32, &Record)| record.how == How::Added;
        let new = (0_u32..).zip(&self.found).filter(is_new).map(|(at, _)| at);
        let mut new: Vec<(u32, u32)> = new.zip(0..).collect();
        new.sort_unstable_by_key(|&(at, facts)| (key(&self.new_facts[facts as usize]), at));
        let mut gone = by_id.into_iter().peekable();
        for (at, facts) in new {
            let facts = self.new_facts[facts as usize];
            let is_before = |&at: &u32| key(&self.gone_facts[at as usize]) < key(&facts);
            while gone.next_if(is_before).is_some() {}
            let found = &self.found[at as usize];
            let is_it = |&at: &u32| {
                let (was, facts_then) = (&self.gone[at as usize], &self.gone_facts[at as usize]);
                let rest = facts.moment & IS_CREATED != 0 || was.len == found.len;
                *facts_then == facts && was.file_type == found.file_type && rest
            };
            if let Some(from) = gone.next_if(is_it) {
                self.gone[from as usize].how = How::Moved;
                self.renames.push((at, from));
            }
        }
        self.renames.sort_unstable();
        (self.new_facts, self.gone_facts) = (Vec::new(), Vec::new());
        (self.spaces, self.known_spaces) = (Vec::new(), HashMap::new());
    }

    /// Files that are not the same, in the order of their paths, those that are gone at the end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Difference> + '_ {
        let mut renames = self.renames.iter().peekable();
        let found = (0_u32..).zip(&self.found).map(move |(at, record)| {
            let from = renames.next_if(|(new, _)| *new == at);
            let from = from.and_then(|(_, from)| self.gone.get(*from as usize));
            self.difference(record, from)
        });
        let gone = self.gone.iter().filter(|record| record.how == How::Removed);
        found.chain(gone.map(|record| self.difference(record, None)))
    }

    fn difference(&self, record: &Record, from: Option<&Record>) -> Difference {
        let change = match (record.how, from) {
            (_, Some(from)) => Change::Renamed { from: self.path(from) },
            (How::Changed(bits), None) => {
                let is_set = |(at, _): &(usize, &What)| bits >> at & 1 == 1;
                Change::Changed {
                    what: ALL.iter().enumerate().filter(is_set).map(|(_, what)| *what).collect(),
                }
            }
            (How::Added, None) => Change::Added,
            (How::Removed | How::Moved, None) => Change::Removed,
        };
        let Record { file_type, len, changed_bytes, .. } = *record;
        Difference { path: self.path(record), change, file_type, len, changed_bytes }
    }

    fn path(&self, record: &Record) -> Path {
        let name = |place: Place| {
            let start = place.start as usize;
            self.names.get(start..start + usize::from(place.len)).unwrap_or_default().to_vec()
        };
        let mut parts = vec![name(record.name)];
        let mut at = record.folder;
        while let Some(folder) = self.folders.get(at as usize) {
            parts.push(name(folder.name));
            at = folder.above;
        }
        let mut path = self.root.clone();
        // The folder at which it began has no name below itself.
        parts.into_iter().rev().filter(|part| !part.is_empty()).for_each(|part| path.push(part));
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_takes_little_memory() {
        assert!(size_of::<Record>() <= 40 && size_of::<Facts>() <= 24);
    }
}
