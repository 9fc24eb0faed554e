//! What a restore is about to overwrite at both ends of its target, kept in a file.
//!
//! It brings back the partition table and the first and last MiB, with which a disk that was
//! chosen by mistake is found again as long as little else was overwritten. It is no backup.

mod layout;
mod put_back;
mod save;

use std::path::{Path, PathBuf};

use aiv_volume_io::{Extent, ExtentSet};

pub(crate) use save::save;

use crate::error::{Refusal, Result};
use crate::target::TargetFacts;

/// Bytes that are kept at each end.
const END_LEN: u64 = 1 << 20;

/// What tells one target from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Of a device that has a serial number or a world-wide name, whatever it is called today;
    /// of anything else its path.
    path: PathBuf,
    len: u64,
    sector_size: u32,
    serial: String,
    wwn: String,
    /// First byte on its disk, for a partition.
    offset: u64,
}

impl Identity {
    fn of(facts: &TargetFacts, path: &Path) -> Self {
        Self {
            path: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
            len: facts.len,
            sector_size: facts.logical_sector_size,
            serial: facts.serial.clone().unwrap_or_default(),
            wwn: facts.wwn.clone().unwrap_or_default(),
            offset: facts.offset,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let named = |identity: &Self| !identity.serial.is_empty() || !identity.wwn.is_empty();
        let nameless = Path::new("");
        let comparable = |identity: &Self| Self {
            path: if named(identity) { nameless } else { &identity.path }.to_path_buf(),
            ..identity.clone()
        };
        comparable(self) == comparable(other)
    }
}

/// A part of the target, and where the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    extent: Extent,
    place: u64,
    /// BLAKE3.
    hash: blake3::Hash,
}

/// An undo log that was opened.
#[derive(Debug)]
pub struct UndoLog {
    path: PathBuf,
    identity: Identity,
    saved_unix_ms: u64,
    parts: Vec<Part>,
}

impl UndoLog {
    /// When it was saved, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn saved_unix_ms(&self) -> u64 {
        self.saved_unix_ms
    }

    /// The bytes of the target it has.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        let all: ExtentSet = self.parts.iter().map(|part| part.extent).collect();
        all.runs().to_vec()
    }

    /// Refuses every target but the one it was saved from, and that one when it is in use.
    ///
    /// # Errors
    /// [`crate::Error::Refused`].
    pub fn check_target(&self, facts: &TargetFacts, path: &Path) -> Result<()> {
        let target = || facts.label.clone();
        if !facts.exists || !self.identity.is_same(&Identity::of(facts, path)) {
            let Identity { path, len, serial, .. } = &self.identity;
            let serial = if serial.is_empty() { String::new() } else { format!(" {serial}") };
            let saved_from = format!("{}{serial} with {len} bytes", path.display());
            return Err(Refusal::OtherTarget { target: target(), saved_from }.into());
        }
        Ok(facts.check_free()?)
    }
}

/// What is kept of a target of `len` bytes, beside `more`.
fn kept(len: u64, more: impl IntoIterator<Item = Extent>) -> Vec<Extent> {
    let target = Extent::new(0, len);
    let ends = [Extent::new(0, END_LEN), Extent::between(len.saturating_sub(END_LEN), len)];
    let all = ends.into_iter().chain(more).filter_map(|extent| extent.intersect(target));
    let all: ExtentSet = all.collect();
    let mut pieces = Vec::new();
    for run in all.runs() {
        let mut at = run.start;
        while at < run.end() {
            let piece = Extent::between(at, run.end().min(at + END_LEN));
            pieces.push(piece);
            at = piece.end();
        }
    }
    pieces
}
