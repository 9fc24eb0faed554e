//! What the last scan of a folder found, kept in the folder: files that did not change since
//! need not be opened again.
//!
//! The file can be removed at any time and costs time only. Nothing it says is believed where
//! bytes are concerned: whoever opens an image that it led to compares point and root with what
//! was expected, and scans again without it when they differ.

mod bytes;
mod records;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io;

use aiv_image_format::{Depth, PointId, SetId};
use aiv_volume_io::{CATALOGUE_NAME, FileEntry, Storage};

use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::Folder;

/// Bytes of a catalogue at most: some two hundred thousand images. What is larger is not read.
const BYTES_MAX: u64 = 64 << 20;

/// Points remembered as lost at most; nobody reads a longer list.
const VANISHED_MAX: usize = 10_000;

/// What the last verification of an image found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How thorough it was.
    pub depth: Depth,
    /// When it was, milliseconds since 1970 UTC, as its caller said.
    pub time_unix_ms: u64,
    /// Whether all was proven, and nothing was wrong.
    pub sound: bool,
}

impl Verified {
    /// What is known of an unchanged file that was verified before and is verified again: a
    /// look that saw less takes nothing back.
    #[must_use]
    fn after(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if self.sound && before.depth > self.depth => before,
            // Damage stays damage until a look as thorough does not find it.
            Some(before) if !self.sound && !before.sound => {
                Self { depth: self.depth.max(before.depth), ..self }
            }
            _ => self,
        }
    }
}

/// A point that was in the folder when its catalogue was written and that no file provides any
/// more, though nobody said that it was removed on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    /// Its set.
    pub set: SetId,
    /// What people call the source.
    pub set_name: String,
    /// The point.
    pub point: PointId,
    /// When the source was read, milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
    /// Name of the file that provided it.
    pub file: String,
}

/// An image as it was found at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The file's stamp, or one of all its segments' stamps; zero when the storage has none.
    pub stamp: u64,
    /// Whether the image opened with damage, which is not kept: it is opened every time.
    pub flawed: bool,
    /// Name and length of the file are among them.
    pub facts: Facts,
}

impl Entry {
    fn is_of(&self, file: &FileEntry) -> bool {
        file.stamp != 0
            && (file.stamp, file.len) == (self.stamp, self.facts.size_stored)
            && file.name == self.facts.file
    }
}

/// The images of a folder as of one scan, for the next one.
///
/// Made by [`Folder::scan_with`](crate::Folder::scan_with); it goes into the folder by
/// [`Catalogue::write`].
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// By name of the file.
    entries: Vec<Entry>,
    vanished: Vec<Vanished>,
    /// The hash of the file it was read from, to leave a file alone that says the same.
    read_from: Option<blake3::Hash>,
}

impl Catalogue {
    /// The catalogue of a folder. Any trouble with it means that there is none.
    pub(crate) fn try_read(storage: &dyn Storage) -> Option<Self> {
        let file = storage.open(CATALOGUE_NAME).ok()?;
        let len = Some(file.len()).filter(|&len| len <= BYTES_MAX)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        records::decode(&bytes)
    }

    /// The catalogue of a scan: `entries` by name of the file, and the points of `before` that
    /// none of them provides. A point may yet be in one of the `unreadable` files.
    pub(crate) fn of(
        mut entries: Vec<Entry>,
        before: Self,
        unreadable: &dyn Fn(&str) -> bool,
    ) -> Self {
        let here: HashSet<(SetId, PointId)> =
            entries.iter().map(|e| (e.facts.set, e.facts.point)).collect();
        let mut vanished = before.vanished;
        let mut unread = Vec::new();
        for entry in before.entries {
            if here.contains(&(entry.facts.set, entry.facts.point)) {
                continue;
            }
            if unreadable(&entry.facts.file) {
                unread.push(Entry { flawed: true, ..entry });
            } else {
                vanished.push(Vanished::of(entry.facts));
            }
        }
        if !unread.is_empty() {
            entries.extend(unread);
            entries.sort_by(|a, b| a.facts.file.cmp(&b.facts.file));
        }
        vanished.retain(|v| !here.contains(&(v.set, v.point)));
        // Of several files that provided one point, one without META does not know its time.
        vanished.sort_by_key(|v| (v.set, v.point, Reverse(v.time_unix_ms)));
        vanished.dedup_by_key(|v| (v.set, v.point));
        vanished.sort_by_key(|v| (v.time_unix_ms, v.set, v.point));
        vanished.drain(..vanished.len().saturating_sub(VANISHED_MAX));
        Self { entries, vanished, read_from: before.read_from }
    }

    /// A set as it was when the catalogue was written, without the files in which there was
    /// damage: the folder may have better ones by now.
    pub(crate) fn into_folder(self, set: SetId) -> Folder {
        let is_of_use = |entry: &Entry| {
            entry.facts.set == set && !entry.flawed && !entry.facts.is_known_damaged()
        };
        let entries = self.entries.into_iter().filter(is_of_use);
        let facts: Vec<Facts> = entries.map(|entry| entry.facts).collect();
        Folder::assemble(&facts, true, Vec::new())
    }

    /// What is remembered of a file, when it is still the same.
    pub(crate) fn entry(&self, file: &FileEntry) -> Option<&Entry> {
        let at = self.position(&file.name)?;
        Some(&self.entries[at]).filter(|entry| entry.is_of(file))
    }

    /// The other files of an image that was split when it was scanned.
    pub(crate) fn segments(&self, file: &str) -> &[String] {
        self.position(file).map_or(&[], |at| &self.entries[at].facts.segments)
    }

    /// What the last verification of a file found.
    pub(crate) fn verified(&self, file: &str) -> Option<Verified> {
        self.entries[self.position(file)?].facts.verified
    }

    /// A file as it was when it was scanned, a split image as a [`Listing`](crate::split::Listing)
    /// has it.
    pub(crate) fn file(&self, name: &str) -> Option<FileEntry> {
        let Entry { stamp, facts, .. } = &self.entries[self.position(name)?];
        Some(FileEntry { name: name.to_owned(), len: facts.size_stored, stamp: *stamp })
    }

    fn position(&self, file: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.facts.file.as_str().cmp(file)).ok()
    }

    /// Points that vanished from the folder and were not forgotten yet, oldest first.
    #[must_use]
    pub fn vanished(&self) -> &[Vanished] {
        &self.vanished
    }

    /// Whether the folder has a catalogue that could be read.
    pub(crate) fn was_read(&self) -> bool {
        self.read_from.is_some()
    }

    /// Takes note that a point was or will be removed on purpose, or that its loss was reported:
    /// it is not among the vanished ones of later scans.
    pub fn forget(&mut self, point: PointId) {
        self.entries.retain(|entry| entry.facts.point != point);
        self.vanished.retain(|vanished| vanished.point != point);
    }

    /// Keeps only those vanished points that `other` knows, too.
    pub(crate) fn keep_vanished_of(&mut self, other: &Self) {
        let points = other.entries.iter().map(|e| (e.facts.set, e.facts.point));
        let vanished = other.vanished.iter().map(|v| (v.set, v.point));
        let known: HashSet<_> = points.chain(vanished).collect();
        self.vanished.retain(|v| known.contains(&(v.set, v.point)));
    }

    /// Takes note of what a verification found in `file`, when it is still the same.
    pub(crate) fn record(&mut self, file: &FileEntry, found: Verified) {
        if let Some(at) = self.position(&file.name).filter(|&at| self.entries[at].is_of(file)) {
            let verified = &mut self.entries[at].facts.verified;
            *verified = Some(found.after(*verified));
        }
    }

    /// Puts the catalogue into its folder. Losing a race against another writer is an error and
    /// harmless, as is any other failure: callers may ignore it.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written or the catalogue would be too large.
    pub fn write(&self, storage: &dyn Storage) -> Result<()> {
        let (bytes, hash) = records::encode(self);
        if self.read_from == Some(hash) {
            return Ok(());
        }
        let written = match bytes.len() as u64 {
            0..=BYTES_MAX => put(storage, &bytes),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        };
        let op = "writing the catalogue of the folder";
        written.map_err(|source| Error::Io { op: op.to_owned(), source })
    }
}

/// Writes a new file and then puts it in the place of the old one. In between there is no
/// catalogue, and a reader of an unfinished one notices by its hash.
fn put(storage: &dyn Storage, bytes: &[u8]) -> io::Result<()> {
    let part = format!("{CATALOGUE_NAME}{}", crate::folder::PART_EXTENSION);
    let mut file = match storage.create(&part) {
        // A writer that died left it, or one is busy: that one's publishing will fail then.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(storage, &part)?;
            storage.create(&part)?
        }
        created => created?,
    };
    let replace = || {
        file.append_all(bytes)?;
        file.sync()?;
        remove(storage, CATALOGUE_NAME)?;
        storage.publish(&part, CATALOGUE_NAME)
    };
    let replaced = { replace }();
    if replaced.is_err() {
        let _ = storage.remove(&part);
    }
    replaced
}

fn remove(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Vanished {
    fn of(facts: Facts) -> Self {
        let about = facts.about.unwrap_or_default();
        Self {
            set: facts.set,
            set_name: about.name,
            point: facts.point,
            time_unix_ms: about.time_unix_ms,
            file: facts.file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_saw_less_takes_nothing_back() {
        use Depth::{Data, Quick};
        let looked = |depth, time_unix_ms, sound| Verified { depth, time_unix_ms, sound };
        for (before, now, after) in [
            (looked(Data, 1, true), looked(Quick, 2, true), looked(Data, 1, true)),
            (looked(Data, 1, false), looked(Quick, 2, true), looked(Data, 1, false)),
            (looked(Data, 1, false), looked(Quick, 2, false), looked(Data, 2, false)),
            (looked(Data, 1, false), looked(Data, 2, true), looked(Data, 2, true)),
            (looked(Data, 1, true), looked(Quick, 2, false), looked(Quick, 2, false)),
            (looked(Quick, 1, false), looked(Quick, 2, true), looked(Quick, 2, true)),
            (looked(Quick, 1, true), looked(Data, 2, true), looked(Data, 2, true)),
        ] {
            assert_eq!(now.after(Some(before)), after, "{before:?}, then {now:?}");
        }
        assert_eq!(looked(Quick, 1, true).after(None), looked(Quick, 1, true));
    }
}
