//! Parity over the pieces of the file, where the superblock announces it: 128 pieces make a
//! stripe, and a PARITY frame behind it holds its four parity pieces.

use std::io;

use aiv_parity::{DATA_SHARDS_MAX, PARITY_SHARDS, add_shard};
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
    /// place, the others come soon behind their stripe. Places that cannot be read count as
    /// places without a header.
    ///
    /// # Errors
    /// Whatever `file` reports, unreadable places excepted.
    pub(crate) fn candidates(&self, file: &dyn ReadAt, stripe: u64) -> io::Result<Vec<u64>> {
        if stripe + 1 >= self.count() {
            return Ok(vec![self.end]);
        }
        let (start, limit) = (self.end_of(stripe), self.reach_of(stripe));
        let mut found = Vec::new();
        let mut at = start;
        let mut chunk = Vec::new();
        while at < limit {
            // Bounded by the chunk.
            chunk.resize(usize::try_from((limit - at).min(CHUNK)).unwrap_or(0), 0);
            file.read_exact_at(&mut chunk, at)?;
            for bytes in chunk.as_chunks::<FRAME_HEADER_SIZE>().0 {
                if is_parity_of(bytes, stripe, PARITY_LEN) && at + PARITY_FRAME <= self.end {
                    found.push(at);
                    if found.len() == CANDIDATES_MAX {
                        return Ok(found);
                    }
                }
                at += FRAME_ALIGN;
            }
        }
        Ok(found)
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

    /// Adds the next piece.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        add_shard(self.pieces, piece, &mut self.open);
        self.pieces += 1;
        if self.pieces == DATA_SHARDS_MAX {
            self.done.push_back(std::mem::replace(&mut self.open, vec![0; PARITY_LEN]));
            self.pieces = 0;
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
