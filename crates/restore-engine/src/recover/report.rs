//! What became of files.

use std::collections::BTreeMap;
use std::error::Error;

use aiv_browse::Path;
use aiv_volume_io::{Extent, causes};

/// Damaged and failed files that are named; all are counted.
pub(super) const LISTED_MAX: usize = 10_000;
/// Ranges named of one file.
const RANGES_MAX: usize = 1000;

/// Something of a file that has no equal where it went, or was not taken there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum NotKept {
    /// Owner and group: only root can give files away.
    #[error("owner and group")]
    Owner,
    /// Permissions.
    #[error("permissions")]
    Mode,
    /// Times.
    #[error("times")]
    Times,
    /// An extended attribute.
    #[error("attribute {0}")]
    Attribute(
        /// Its name, safe to print.
        String,
    ),
    /// Marks as hidden, immutable.
    #[error("marks (hidden, system, archive, immutable, append-only, no-dump)")]
    Flags,
    /// That two names are of one file.
    #[error("hard links (each name became a file)")]
    HardLink,
    /// Sockets, which have no content: the program that listens there makes its own anew.
    #[error("sockets, which programs make anew")]
    Socket,
    /// Bytes of a name that an archive cannot hold.
    #[error("names that are no text")]
    Name,
}

/// A file of which bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// What it was called when it was written, safe to print.
    pub path: String,
    /// Bytes that are lost, zeros in their place; the first thousand.
    pub ranges: Vec<Extent>,
    /// How many bytes are lost.
    pub bytes: u64,
}

/// Something that was not recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDone {
    /// Where it is on the disk, or where it would have gone; safe to print.
    pub path: String,
    /// Why, as the rest of a sentence.
    pub why: String,
}

/// What became of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverReport {
    /// Regular files that were written, damaged ones among them.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Devices, pipes and sockets.
    pub others: u64,
    /// Named streams, each as a file beside its file.
    pub streams: u64,
    /// Bytes of files that were written, holes left out.
    pub bytes: u64,
    /// Files that were there already, as they should be.
    pub skipped: u64,
    /// Files of which bytes are lost; the first ten thousand.
    pub damaged: Vec<Damaged>,
    /// How many those are.
    pub damaged_count: u64,
    /// What was not recovered; the first ten thousand.
    pub not_done: Vec<NotDone>,
    /// How much that is.
    pub not_done_count: u64,
    /// What was not taken along, with the number of files that had it.
    pub not_kept: BTreeMap<NotKept, u64>,
    /// What there is to know about reading the volumes they came from: name of the volume, note.
    pub notes: Vec<(String, String)>,
    /// Whether everything that was written was read back and compared.
    pub verified: bool,
}

impl RecoverReport {
    /// Whether everything came back whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.damaged_count == 0 && self.not_done_count == 0
    }

    pub(super) fn not_done(&mut self, path: &Path, why: &dyn Error) {
        self.not_done_because(path, causes(why));
    }

    pub(super) fn not_done_because(&mut self, path: &Path, why: String) {
        self.push_not_done(path.to_string(), why);
    }

    /// `path` is where it would have gone.
    pub(super) fn not_written(&mut self, path: &[u8], why: &dyn Error) {
        self.push_not_done(shown(path), causes(why));
    }

    fn push_not_done(&mut self, path: String, why: String) {
        self.not_done_count += 1;
        if self.not_done.len() < LISTED_MAX {
            self.not_done.push(NotDone { path, why });
        }
    }

    pub(super) fn damaged(&mut self, path: &[u8], mut ranges: Vec<Extent>) {
        self.damaged_count += 1;
        if self.damaged.len() < LISTED_MAX {
            let bytes = ranges.iter().map(|range| range.len).sum();
            ranges.truncate(RANGES_MAX);
            self.damaged.push(Damaged { path: shown(path), ranges, bytes });
        }
    }

    pub(super) fn not_kept(&mut self, what: NotKept) {
        *self.not_kept.entry(what).or_default() += 1;
    }
}

/// A path that can be printed.
pub(super) fn shown(path: &[u8]) -> String {
    Path::parse(path).map_or_else(
        |_| String::from_utf8_lossy(path).escape_debug().to_string(),
        |path| path.to_string().trim_start_matches('/').to_owned(),
    )
}
