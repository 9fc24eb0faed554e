//! The file being written: buffers, counts and hashes every byte exactly once.

use aiv_volume_io::AppendFile;

use crate::error::{Error, Result};
use crate::hash;
use crate::ids::Digest;
use crate::limits::{PAGE_SIZE, PIECE_SIZE};

/// Bytes gathered before they are handed to the storage: large enough that system calls do not
/// count, small enough to stay in the cache.
const BUFFER: usize = 1 << 20;

pub(crate) struct Appender {
    file: Box<dyn AppendFile>,
    /// Bytes not handed to the storage yet.
    buffer: Vec<u8>,
    /// Bytes handed to the storage.
    flushed: u64,
    /// Bytes hashed so far; a multiple of the piece size until the last, short piece.
    hashed: u64,
    /// Whether the last piece was taken: what follows is covered by no piece.
    pieces_closed: bool,
    /// Hashes of pieces completed and not yet taken.
    pieces: Vec<Digest>,
    /// The first error; nothing is written after it.
    poisoned: bool,
}

impl Appender {
    pub(crate) fn new(file: Box<dyn AppendFile>) -> Self {
        let buffer = Vec::with_capacity(BUFFER + PIECE_SIZE);
        Self {
            file,
            buffer,
            flushed: 0,
            hashed: 0,
            pieces_closed: false,
            pieces: Vec::new(),
            poisoned: false,
        }
    }

    /// Length of the file so far.
    pub(crate) fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = BUFFER - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(crate) fn append_zeros(&mut self, count: usize) -> Result<()> {
        const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        let mut left = count;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.append(&ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }

    /// Hands the buffer to the storage. Pieces are hashed from the buffer, so a flush in the
    /// middle of a piece leaves its beginning to be read back; only the tail of an image and
    /// reads of earlier bytes cause that.
    fn flush(&mut self) -> Result<()> {
        self.hash_pieces(false)?;
        self.write_out()
    }

    fn write_out(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Misuse("writing after a failed write"));
        }
        let result = self.file.append_all(&self.buffer);
        if let Err(source) = result {
            self.poisoned = true;
            return Err(Error::Io { op: "write image", offset: self.flushed, source });
        }
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Hashes every complete piece up to the current position, with `last` the short one too.
    fn hash_pieces(&mut self, last: bool) -> Result<()> {
        while !self.pieces_closed && self.hashed < self.position() {
            let left = self.position() - self.hashed;
            if left < PIECE_SIZE as u64 && !last {
                break;
            }
            let end = self.hashed + left.min(PIECE_SIZE as u64);
            let digest = match self.hashed.checked_sub(self.flushed) {
                Some(from) => {
                    let to = in_memory(end - self.flushed);
                    hash::piece(&self.buffer[in_memory(from)..to])
                }
                None => {
                    let mut piece = vec![0; in_memory(self.flushed.min(end) - self.hashed)];
                    self.file
                        .read_exact_at(&mut piece, self.hashed)
                        .map_err(Error::io("read image back", self.hashed))?;
                    if end > self.flushed {
                        piece.extend_from_slice(&self.buffer[..in_memory(end - self.flushed)]);
                    }
                    hash::piece(&piece)
                }
            };
            self.pieces.push(digest);
            self.hashed = end;
        }
        Ok(())
    }

    /// Takes the hashes of the pieces completed since the last call; with `last`, also of the
    /// short piece at the end: no piece covers what is appended after that.
    pub(crate) fn take_pieces(&mut self, last: bool) -> Result<Vec<Digest>> {
        self.hash_pieces(last)?;
        self.pieces_closed |= last;
        Ok(std::mem::take(&mut self.pieces))
    }

    /// Reads bytes appended earlier.
    pub(crate) fn read_back(&mut self, out: &mut [u8], offset: u64) -> Result<()> {
        if offset + out.len() as u64 > self.flushed {
            self.flush()?;
        }
        self.file.read_exact_at(out, offset).map_err(Error::io("read image back", offset))
    }

    /// Makes everything durable; after an error the file must be given up.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        let offset = self.flushed;
        let result = self.file.sync();
        self.poisoned |= result.is_err();
        result.map_err(Error::io("sync image", offset))
    }
}

/// A count of bytes that is known to lie inside a buffer.
fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("counts inside a buffer fit the address space")
}
