//! The file in stretches that can be checked side by side.

use aiv_volume_io::ReadAt;

use super::frames::FrameWalk;
use super::parity::StripeCheck;
use super::{Depth, VerifyReport, read_pieces};
use crate::block::{BaseBlock, Buffer, Scratch, Working, decode_frame, no_parent};
use crate::codec::Decoder;
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash;
use crate::image::Image;
use crate::index::Entries;
use crate::layout::{IndexEntry, Kind, LocalHead};
use crate::limits::{DELTA_DEPTH_MAX, PAGE_SIZE, PIECE_SIZE};
use crate::parent::{ParentState, failed};

/// Bytes of the file one unit of parallel work covers.
const WINDOW: u64 = 4 << 20;

/// A stretch of the file, and the entries whose frame begins in it. Entries whose frame lies
/// elsewhere (equal blocks, merged images) ride along and are read on their own.
pub(super) struct Window {
    start: u64,
    end: u64,
    entries: Vec<IndexEntry>,
}

impl Window {
    /// Bytes it covers.
    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }
}

pub(super) struct Windows<'a> {
    image: &'a Image,
    entries: Option<Entries<'a>>,
    carried: Option<IndexEntry>,
    next: u64,
}

impl<'a> Windows<'a> {
    /// Windows over all of the file that the stored list covers. `entries` is `None` when the
    /// index cannot be used: then only the bytes are checked.
    pub(super) fn new(image: &'a Image, entries: Option<Entries<'a>>) -> Self {
        Self { image, entries, carried: None, next: 0 }
    }
}

/// Entries one window takes along at most, whatever their frames: bounds its memory.
const WINDOW_ENTRIES_MAX: usize = 1 << 16;

impl Iterator for Windows<'_> {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Self::Item> {
        let file_end = self.image.trailer().stored_offset;
        let start = self.next;
        let mut end = (start + WINDOW).min(file_end);
        let mut entries = Vec::new();
        while let Some(cursor) = self.entries.as_mut() {
            let entry = match self.carried.take().map(Ok).or_else(|| cursor.next()) {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    self.entries = None;
                    return Some(Err(error));
                }
                None => {
                    self.entries = None;
                    break;
                }
            };
            if !entry.has_leaf() {
                continue;
            }
            let ahead = entry.address >= end && entry.kind != Kind::Ref;
            if (ahead && end < file_end) || entries.len() == WINDOW_ENTRIES_MAX {
                self.carried = Some(entry);
                break;
            }
            entries.push(entry);
        }
        if entries.len() == WINDOW_ENTRIES_MAX && self.carried.is_some() {
            // Too many for one window: stay where we are and give the rest to the next one.
            end = start;
        }
        self.next = end;
        (start < file_end || !entries.is_empty()).then_some(Ok(Window { start, end, entries }))
    }
}

pub(super) struct WindowChecker<'a> {
    image: &'a Image,
    depth: Depth,
    parent: Option<&'a dyn ParentState>,
    stripes: Option<&'a StripeCheck<'a>>,
    frames: &'a FrameWalk<'a>,
    scratch: Scratch,
    window: Buffer,
    block: Buffer,
}

impl<'a> WindowChecker<'a> {
    pub(super) fn new(
        image: &'a Image,
        depth: Depth,
        parent: Option<&'a dyn ParentState>,
        stripes: Option<&'a StripeCheck<'a>>,
        frames: &'a FrameWalk<'a>,
    ) -> Self {
        let (window, block) = (Buffer::default(), Buffer::default());
        Self { image, depth, parent, stripes, frames, scratch: Scratch::default(), window, block }
    }

    /// Compares every byte of the window with the stored list and every frame with the index.
    pub(super) fn check(&mut self, window: &Window) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        // Read on past the window so that the frame that crosses its end is complete.
        // A sealed one may be padded, by an eighth of it at most.
        let block = u64::from(self.image.geometry().block_size().get());
        let overlap = block + block / 8 + PAGE_SIZE as u64;
        let read_end = match window.len() {
            0 => window.end,
            _ => (window.end + overlap).min(self.image.trailer().stored_offset),
        };
        let bytes = self.window.pages_of_len(in_memory(read_end - window.start));
        let op = Error::io("read image", window.start);
        self.image.file.read_exact_at(bytes, window.start).map_err(op)?;
        check_pieces(self.image, window, bytes, &mut report)?;
        if let Some(stripes) = self.stripes {
            stripes.take(window.start, &bytes[..in_memory(window.len())], &mut report)?;
        }
        self.frames.take(window.start, in_memory(window.len()), bytes)?;
        for entry in &window.entries {
            let len = self.image.geometry().block_len(entry.block) as usize;
            let block = self.block.of_len(len);
            let inside = entry.address.checked_sub(window.start).and_then(|from| {
                let from = usize::try_from(from).ok()?;
                let size = usize::try_from(entry.frame_size).ok().filter(|&size| size > 0)?;
                bytes.get(from..from.checked_add(size)?)
            });
            let parent = self.parent;
            let place = match entry.kind {
                Kind::Parent => Place::Index(self.image.trailer().index_offset),
                _ => Place::Frame(entry.address),
            };
            let mut base = |wanted: &BaseBlock, out: &mut [u8]| match parent {
                Some(state) => read_base(state, wanted, out, place),
                None => no_parent(wanted, out),
            };
            let limit = DELTA_DEPTH_MAX;
            let on_parent = matches!(entry.kind, Kind::Delta | Kind::Parent);
            let decodes = self.depth == Depth::Data && (parent.is_some() || !on_parent);
            let result = match inside {
                Some(frame) if decodes => {
                    let Scratch { decoder, base: buffer, plain, own, .. } = &mut self.scratch;
                    let (image, access) = (self.image, &self.image.access);
                    let prefix =
                        &mut |head: &LocalHead, decoder: &mut Decoder, out: &mut Buffer| {
                            image.read_prefix(own, entry, head, decoder, out)
                        };
                    let working = Working { access, decoder, buffer, plain, prefix };
                    decode_frame(working, frame, entry, entry.block, limit, block, &mut base)
                }
                Some(frame) => {
                    self.image.check_loaded(&mut self.scratch.plain, frame, entry).map(|()| 0)
                }
                None if decodes => {
                    let scratch = &mut self.scratch;
                    self.image.read_entry(scratch, entry, entry.block, limit, block, &mut base)
                }
                None if entry.has_frame() => {
                    self.image.check_entry(&mut self.scratch, entry).map(|()| 0)
                }
                None => continue,
            };
            report.keep(result)?;
            report.blocks_checked += u64::from(decodes);
        }
        Ok(report)
    }
}

/// Where the image names a block of the parent's state: as a copy, or as the base of a
/// difference.
#[derive(Clone, Copy)]
enum Place {
    Index(u64),
    Frame(u64),
}

/// A block of the parent's state; one that is not what the image says is damage of the image.
fn read_base(
    state: &dyn ParentState,
    wanted: &BaseBlock,
    out: &mut [u8],
    place: Place,
) -> Result<u8> {
    let (field, section, offset) = match place {
        Place::Index(offset) => ("parent block", Section::IndexPage, offset),
        Place::Frame(offset) => ("base block", Section::Frame, offset),
    };
    if state.geometry().block_len(wanted.block) as usize != out.len() {
        let found = wanted.block;
        let fault = Fault::Value { field, found, allowed: "of equal length in the parent" };
        return Err(fault.at(section, offset));
    }
    let depth = state.read(wanted.block, out).map_err(failed(state))?;
    // The leaf of a copy is compared when the entry is read.
    if matches!(place, Place::Frame(_)) && hash::leaf(out) != wanted.leaf {
        let (field, other) = ("base leaf", "state of the parent");
        return Err(Fault::Differs { field, other }.at(section, offset));
    }
    Ok(depth)
}

/// Compares each piece of the window, whose bytes `bytes` begins with, with the stored list.
fn check_pieces(
    image: &Image,
    window: &Window,
    bytes: &[u8],
    report: &mut VerifyReport,
) -> Result<()> {
    let piece = PIECE_SIZE as u64;
    let first = window.start / piece;
    let count = (window.len()).div_ceil(piece);
    let stored = bytes[..in_memory(window.len())].chunks(PIECE_SIZE);
    let listed = read_pieces(image, first, count)?;
    for (number, (bytes, digest)) in (first..).zip(stored.zip(listed)) {
        if hash::piece(number, bytes, image.superblock().slot_area_len()) != digest {
            let fault = Fault::Hash { by: "stored list" };
            let offset = number * piece;
            report.note(Corrupt { section: Section::StoredPiece, offset, fault });
        }
        report.bytes_checked += bytes.len() as u64;
    }
    Ok(())
}

/// The length of a window and what follows it, which is bounded by constants.
fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("windows fit the address space")
}
