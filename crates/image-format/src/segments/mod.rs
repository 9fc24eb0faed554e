//! Split images: one stream of bytes, which is what an unsplit image is, in several files.
//!
//! Addresses count in the stream, so nothing inside an image knows of segments. A segment is a
//! wrapper around a slice of the stream: a superblock in front of it (the stream brings its
//! own), and behind it a list of piece hashes and a tail by which the file can be proven alone.
//! The last one ends with the stream.

mod account;
mod begun;
mod examine;
mod join;
mod prove;
mod torn;
mod verify;
mod write;

use std::io;
use std::sync::Arc;

use aiv_volume_io::{AppendFile, ReadAt};

use crate::limits::{
    META_TOTAL_MAX, PAGE_SIZE, PIECE_SIZE, SEGMENT_BYTES_MIN, SEGMENTS_MAX, STORED_LEN_MAX,
};

pub(crate) use account::account;
pub(crate) use begun::Begun;
pub use examine::{SegmentHead, peek_segment};
pub use join::{SegmentFile, Segments};
pub use prove::{SegmentReport, verify_segment};
pub(crate) use torn::Torn;
pub(crate) use write::{Cuts, SegmentedFile, Written, segment_tail};

const PAGE: u64 = PAGE_SIZE as u64;
const PIECE: u64 = PIECE_SIZE as u64;

/// Where the segments of an image are written: files that exist for nobody else yet.
pub trait SegmentFiles: Send + Sync {
    /// Creates the file of segment `no`, from 0. Called once for each, in order.
    ///
    /// # Errors
    /// Whatever the medium reports; the image must then be given up.
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>>;

    /// Opens a file that was created and completed before.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>>;
}

/// Segments below this size are for tests: the frames of a larger image do not fit into them.
const USUAL_BYTES: u64 = 64 << 20;

/// The smallest size of segment files, of those from `wanted` on, into which an image of `bytes` of
/// blocks can be split for sure: there are at most [`SEGMENTS_MAX`], and the last one holds META,
/// the hashes of everything, and the parity of index and hashes.
#[must_use]
pub fn smallest_split(bytes: u64, wanted: u64) -> u64 {
    if wanted < USUAL_BYTES {
        return SEGMENT_BYTES_MIN;
    }
    // Blocks that do not compress need frames and index besides; one byte of 2,000 is hashes, and
    // a quarter of those and of the index, one byte of 1,400, is parity.
    let stored = bytes.saturating_add(bytes / 256);
    let last = (stored / 2000 + stored / 3000).saturating_add(META_TOTAL_MAX + (2 << 20));
    // The largest frame may leave as much of a segment empty.
    let room = u64::from(STORED_LEN_MAX);
    let each = (stored / u64::from(SEGMENTS_MAX - 8)).saturating_add(room);
    last.max(each)
}

/// What segment `no` (from 0) is called where the first one is called `first`. For people and
/// for finding it fast: what a file is, its superblock says.
#[must_use]
pub fn segment_name(first: &str, no: u32) -> String {
    match no {
        0 => first.to_owned(),
        no => format!("{first}.p{:03}", u64::from(no) + 1),
    }
}

/// What the first segment is called when a later one is called `name`; `None` when it is called as
/// none is.
#[must_use]
pub fn first_segment_name(name: &str) -> Option<&str> {
    let digits = |text: &str| text.len() >= 3 && text.bytes().all(|b| b.is_ascii_digit());
    let (base, number) = name.rsplit_once(".p")?;
    digits(number).then_some(base)
}

/// The same for messages.
pub(crate) fn base_name(name: &str) -> String {
    first_segment_name(name).unwrap_or("NAME.aiv").to_owned()
}

/// Bytes of the list of so many pieces, padding included.
const fn list_len(pieces: u64) -> u64 {
    (pieces * 32).next_multiple_of(PAGE)
}
