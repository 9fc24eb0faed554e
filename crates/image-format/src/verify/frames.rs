//! Frame after frame, as the document orders them: what no reader of blocks looks at, and others
//! who read the file in order go by.
//!
//! Windows come in any order, a row of frames has one: each window is looked through for what may
//! be a header, and whoever completes the row goes on with it. A header that was not remembered
//! is read again, so nothing but speed depends on what is.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use aiv_volume_io::ReadAt;

use crate::codec::{CODEC_LZ4, CODEC_NONE, CODEC_ZSTD};
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::ids::SessionTag;
use crate::image::Image;
use crate::layout::{FRAME_HEADER_SIZE, Features, FrameHeader, FrameKind, Trailer, first_nonzero};
use crate::limits::PAGE_SIZE;

/// Headers of one window that are remembered: those of the smallest frames in 4 MiB.
const HEADS_MAX: usize = 1 << 15;

/// Windows of which headers are remembered until the row is there.
const WINDOWS_MAX: usize = 16;

/// Zeros that are read at once.
const CHUNK: usize = 64 << 10;

/// Something that looks like a frame.
#[derive(Clone, Copy)]
struct Head {
    at: u64,
    header: FrameHeader,
    /// Whether it ends with zeros, where its end was at hand.
    ends_with_zeros: Option<bool>,
}

/// The row of all frames of an image.
pub(super) struct FrameWalk<'a> {
    image: &'a Image,
    /// Those META lists; `None` without META.
    sessions: Option<HashSet<SessionTag>>,
    row: Mutex<Row>,
}

/// Where a window ends, and what was found in it.
struct Window {
    end: u64,
    heads: Vec<Head>,
}

#[derive(Default)]
struct Row {
    /// Where the next frame begins.
    next: u64,
    /// Windows that have come before the row was there, by their begin.
    windows: BTreeMap<u64, Window>,
    frames: u64,
    payload_bytes: u64,
    /// What broke the row, or a rule: the first of it.
    fault: Option<Corrupt>,
}

impl<'a> FrameWalk<'a> {
    pub(super) fn new(image: &'a Image) -> Self {
        let sessions =
            image.has_meta().then(|| image.meta().origins.iter().copied().collect::<HashSet<_>>());
        let mut row = Row { next: image.superblock().frames_start(), ..Row::default() };
        row.step_over_pages(image.trailer());
        Self { image, sessions, row: Mutex::new(row) }
    }

    /// Takes `bytes`, which begin at `start` with a window of `len` bytes.
    pub(super) fn take(&self, start: u64, len: usize, bytes: &[u8]) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mut heads = Vec::new();
        let chunks = bytes.as_chunks::<FRAME_HEADER_SIZE>().0;
        for (n, chunk) in chunks.iter().take(len / FRAME_HEADER_SIZE).enumerate() {
            if !chunk.starts_with(b"AVF1") || heads.len() == HEADS_MAX {
                continue;
            }
            let Ok(header) = FrameHeader::from_bytes(chunk, start) else { continue };
            let from = n * FRAME_HEADER_SIZE;
            let payload_end = from + FRAME_HEADER_SIZE + header.stored_len as usize;
            let end = payload_end.next_multiple_of(FRAME_HEADER_SIZE);
            let padding = bytes.get(payload_end..end);
            heads.push(Head {
                at: start + from as u64,
                header,
                ends_with_zeros: padding.map(|padding| first_nonzero(padding).is_none()),
            });
        }
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        if row.windows.values().filter(|window| !window.heads.is_empty()).count() >= WINDOWS_MAX {
            heads.clear();
        }
        row.windows.insert(start, Window { end: start + len as u64, heads });
        // What comes later would be read twice.
        while row.fault.is_none() && row.has_come() && self.go_on(&mut row)? {}
        Ok(())
    }

    /// Goes on to the end, and says what broke a rule first, or that the counts do not fit.
    pub(super) fn finish(self) -> Result<Option<Corrupt>> {
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        while row.fault.is_none() && self.go_on(&mut row)? {}
        let trailer = self.image.trailer();
        let told = (trailer.totals.frames, trailer.totals.payload_bytes);
        if row.fault.is_none() && (row.frames, row.payload_bytes) != told {
            let fault = Fault::Differs { field: "frame counts", other: "frames" };
            let offset = trailer.file_len - PAGE_SIZE as u64;
            row.fault = Some(Corrupt { section: Section::Trailer, offset, fault });
        }
        Ok(row.fault.take())
    }

    /// Takes the next frame of the row; says whether there was one.
    fn go_on(&self, row: &mut Row) -> Result<bool> {
        let trailer = self.image.trailer();
        if row.next >= trailer.stored_offset {
            return Ok(false);
        }
        match self.check(row) {
            Ok(head) => {
                row.frames += 1;
                if head.header.kind.holds_block() {
                    row.payload_bytes += u64::from(head.header.stored_len);
                }
                row.next += head.header.frame_size();
                row.step_over_pages(trailer);
                let next = row.next;
                while let Some(first) = row.windows.first_entry()
                    && first.get().end <= next
                {
                    first.remove();
                }
                Ok(true)
            }
            Err(Error::Corrupt(corrupt)) => {
                row.fault = Some(corrupt);
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// The frame at the end of the row, held to every rule.
    fn check(&self, row: &Row) -> Result<Head> {
        let (trailer, address) = (self.image.trailer(), row.next);
        let at = |fault: Fault| fault.at(Section::Frame, address);
        let head = match row.head() {
            Some(head) => head,
            None => self.read_head(address)?,
        };
        let header = &head.header;
        let in_frames = address < trailer.frames_end;
        let limit = if in_frames { trailer.frames_end } else { trailer.stored_offset };
        if address.saturating_add(header.frame_size()) > limit {
            return Err(at(Fault::Bounds));
        }
        let behind_meta = trailer.meta_offset.saturating_add(trailer.meta_len);
        let has_parity = self.image.superblock().features.incompat & Features::PARITY != 0;
        let belongs = match header.kind {
            FrameKind::Data | FrameKind::Delta | FrameKind::Local | FrameKind::Checkpoint => {
                in_frames
            }
            FrameKind::Parity => in_frames && has_parity,
            FrameKind::Meta => !in_frames && address < behind_meta,
            FrameKind::Pad => in_frames || address >= behind_meta,
        };
        if !belongs {
            return Err(at(Fault::Differs { field: "type", other: "area" }));
        }
        self.image.access.check_mode(header).map_err(at)?;
        let codecs: &[u8] = match header.kind {
            FrameKind::Delta | FrameKind::Local => &[CODEC_ZSTD],
            FrameKind::Meta => &[CODEC_NONE, CODEC_ZSTD],
            _ => &[CODEC_NONE, CODEC_LZ4, CODEC_ZSTD],
        };
        if header.seal.is_none() && !codecs.contains(&header.codec) {
            return Err(at(Fault::Differs { field: "codec", other: "type" }));
        }
        if header.seq == u64::MAX {
            let (field, found) = ("number", header.seq);
            return Err(at(Fault::Value { field, found, allowed: "below 2^64 - 1" }));
        }
        if self.sessions.as_ref().is_some_and(|known| !known.contains(&header.session)) {
            return Err(at(Fault::Differs { field: "session", other: "origins in META" }));
        }
        let payload = address + FRAME_HEADER_SIZE as u64;
        let end = payload + u64::from(header.stored_len);
        if header.kind == FrameKind::Pad {
            self.all_zero(payload, address + header.frame_size(), address)?;
        } else if head.ends_with_zeros != Some(true) {
            self.all_zero(end, address + header.frame_size(), address)?;
        }
        Ok(head)
    }

    fn read_head(&self, address: u64) -> Result<Head> {
        let mut bytes = [0; FRAME_HEADER_SIZE];
        let op = Error::io("read frame", address);
        self.image.file.read_exact_at(&mut bytes, address).map_err(op)?;
        let header = FrameHeader::from_bytes(&bytes, address)?;
        Ok(Head { at: address, header, ends_with_zeros: None })
    }

    /// Refuses bytes of the frame at `address` that are not zero, where they have to be.
    fn all_zero(&self, from: u64, to: u64, address: u64) -> Result<()> {
        let mut chunk = [0; CHUNK];
        let mut place = from;
        while place < to {
            let count = usize::try_from(to - place).unwrap_or(CHUNK).min(CHUNK);
            let bytes = &mut chunk[..count];
            self.image.file.read_exact_at(bytes, place).map_err(Error::io("read frame", place))?;
            if let Some(set) = first_nonzero(bytes) {
                let inside = usize::try_from(place - address).unwrap_or(usize::MAX);
                let fault = Fault::Reserved { at: inside.saturating_add(set) };
                return Err(fault.at(Section::Frame, address));
            }
            place += count as u64;
        }
        Ok(())
    }
}

impl Row {
    /// Index and tree pages lie between the two areas of frames.
    fn step_over_pages(&mut self, trailer: &Trailer) {
        if self.next == trailer.frames_end {
            self.next = trailer.meta_offset;
        }
    }

    /// The window in which the next frame begins.
    fn window(&self) -> Option<&Window> {
        let (_, window) = self.windows.range(..=self.next).next_back()?;
        (window.end > self.next).then_some(window)
    }

    /// Whether that window has come.
    fn has_come(&self) -> bool {
        self.window().is_some()
    }

    /// What was found where the next frame begins.
    fn head(&self) -> Option<Head> {
        let heads = &self.window()?.heads;
        let place = heads.binary_search_by_key(&self.next, |head| head.at).ok()?;
        heads.get(place).copied()
    }
}
