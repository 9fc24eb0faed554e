//! Parity over the pieces of the file, where the superblock announces it: 128 pieces make a
//! stripe, and a PARITY frame behind it holds its four parity pieces.

use std::io;

use aiv_parity::{DATA_SHARDS_MAX, PARITY_SHARDS, add_shards};
use aiv_volume_io::ReadAt;

use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, Trailer};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE, PARITY_REACH, PIECE_SIZE};

/// Bytes of the file that one PARITY frame is about.
pub(crate) const STRIPE_LEN: u64 = (DATA_SHARDS_MAX * PIECE_SIZE) as u64;

/// Bytes of the parity of one stripe.
pub(crate) const PARITY_LEN: usize = PARITY_SHARDS * PIECE_SIZE;

/// Bytes of a PARITY frame.
const PARITY_FRAME: u64 = (FRAME_HEADER_SIZE + PARITY_LEN) as u64;

/// Payload of the last PARITY frame: zeros behind the parity bring its end to a page.
pub(crate) const LAST_PAYLOAD: usize = PARITY_LEN + PAGE_SIZE - FRAME_HEADER_SIZE;

/// Bytes of the last PARITY frame.
pub(crate) const LAST_FRAME: u64 = (FRAME_HEADER_SIZE + LAST_PAYLOAD) as u64;

/// Headers looked into for the parity of one stripe: a backed-up disk may hold images itself,
/// with frames that look alike.
const CANDIDATES_MAX: usize = 16;

/// Bytes looked through at once.
const CHUNK: u64 = 64 << 10;

/// The stripes of a finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stripes {
    /// End of the pieces they cover, which is where the last PARITY frame begins.
    pub end: u64,
}

impl Stripes {
    /// Those of an image with data parity; `None` when its frame area cannot be one.
    pub(crate) fn of(trailer: &Trailer) -> Option<Self> {
        let end = trailer.frames_end.checked_sub(LAST_FRAME)?;
        (end > 0 && end.is_multiple_of(PIECE_SIZE as u64)).then_some(Self { end })
    }

    pub(crate) fn count(&self) -> u64 {
        self.end.div_ceil(STRIPE_LEN)
    }

    /// End of the pieces of a stripe.
    pub(crate) fn end_of(&self, stripe: u64) -> u64 {
        ((stripe + 1) * STRIPE_LEN).min(self.end)
    }

    /// End of the bytes in which the PARITY frame of a stripe begins.
    pub(crate) fn reach_of(&self, stripe: u64) -> u64 {
        let end = self.end_of(stripe);
        if stripe + 1 >= self.count() {
            return end;
        }
        self.end.min(end + PARITY_REACH)
    }

    /// Addresses where the PARITY frame of `stripe` may be, best first: the last one has its
    /// place, the others come soon behind their stripe. `file` is read as far as they are asked
    /// for, which is seldom beyond the first.
    ///
    /// # Errors
    /// Whatever `file` reports; the search is over then.
    pub(crate) fn search<'f>(&self, file: &'f dyn ReadAt, stripe: u64) -> Search<'f> {
        let is_last = stripe + 1 >= self.count();
        Search {
            file,
            stripe,
            end: self.end,
            place: is_last.then_some(self.end),
            at: self.end_of(stripe),
            limit: self.reach_of(stripe),
            chunk: Vec::new(),
            looked_at: 0,
            left: if is_last { 0 } else { CANDIDATES_MAX },
        }
    }

    /// All that [`Stripes::search`] finds.
    pub(crate) fn candidates(&self, file: &dyn ReadAt, stripe: u64) -> io::Result<Vec<u64>> {
        self.search(file, stripe).collect()
    }
}

/// A search for the PARITY frame of a stripe: see [`Stripes::search`].
pub(crate) struct Search<'f> {
    file: &'f dyn ReadAt,
    stripe: u64,
    /// End of the frame area's last piece.
    end: u64,
    /// The address that needs no search.
    place: Option<u64>,
    /// Where the next header is looked for, and where none is any more.
    at: u64,
    limit: u64,
    /// The bytes up to `at` and behind it, of which so many were looked at.
    chunk: Vec<u8>,
    looked_at: usize,
    /// Addresses that may still be told.
    left: usize,
}

impl Search<'_> {
    fn find(&mut self) -> io::Result<Option<u64>> {
        while self.at < self.limit {
            if self.looked_at == self.chunk.len() {
                // Bounded by the chunk.
                let len = usize::try_from((self.limit - self.at).min(CHUNK)).unwrap_or(0);
                self.chunk.resize(len, 0);
                self.file.read_exact_at(&mut self.chunk, self.at)?;
                self.looked_at = 0;
            }
            let ahead = self.chunk[self.looked_at..].first_chunk();
            let found = ahead.is_some_and(|bytes| is_parity_of(bytes, self.stripe, PARITY_LEN))
                && self.at + PARITY_FRAME <= self.end;
            self.looked_at = (self.looked_at + FRAME_HEADER_SIZE).min(self.chunk.len());
            self.at += FRAME_ALIGN;
            if found {
                return Ok(Some(self.at - FRAME_ALIGN));
            }
        }
        Ok(None)
    }
}

impl Iterator for Search<'_> {
    type Item = io::Result<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(place) = self.place.take() {
            return Some(Ok(place));
        }
        self.left = self.left.checked_sub(1)?;
        let found = self.find().transpose();
        if !matches!(found, Some(Ok(_))) {
            self.left = 0;
        }
        found
    }
}

/// Whether `bytes` are the header of a frame with the parity of `stripe`.
pub(crate) fn is_parity_of(
    bytes: &[u8; FRAME_HEADER_SIZE],
    stripe: u64,
    payload_len: usize,
) -> bool {
    FrameHeader::from_bytes(bytes, 0).is_ok_and(|header| {
        header.kind == FrameKind::Parity
            && header.subject == stripe
            && header.codec == 0
            && header.stored_len as usize == payload_len
    })
}

/// The parity of the stripes of a file being written, piece after piece.
#[derive(Clone)]
pub(crate) struct StripeSums {
    open: Vec<u8>,
    pieces: usize,
    /// Parity of stripes that are complete and have no frame yet, oldest first.
    done: std::collections::VecDeque<Vec<u8>>,
}

impl StripeSums {
    pub(crate) fn new() -> Self {
        let done = std::collections::VecDeque::new();
        Self { open: vec![0; PARITY_LEN], pieces: 0, done }
    }

    /// Adds the next pieces.
    pub(crate) fn add(&mut self, mut pieces: &[&[u8]]) {
        while !pieces.is_empty() {
            let room = DATA_SHARDS_MAX - self.pieces;
            let (now, later) = pieces.split_at(room.min(pieces.len()));
            add_shards(self.pieces, now, &mut self.open);
            self.pieces += now.len();
            if self.pieces == DATA_SHARDS_MAX {
                self.done.push_back(std::mem::replace(&mut self.open, vec![0; PARITY_LEN]));
                self.pieces = 0;
            }
            pieces = later;
        }
    }

    /// The parity of the oldest stripe that has no frame yet, complete or not; `None` when there
    /// is no piece without one.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        if self.done.is_empty() && self.pieces > 0 {
            self.pieces = 0;
            return Some(std::mem::replace(&mut self.open, vec![0; PARITY_LEN]));
        }
        self.done.pop_front()
    }
}
