//! The file being written: buffers, counts and hashes every byte exactly once.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{AppendFile, ReadAt};

use crate::error::{Error, Result};
use crate::hash;
use crate::ids::Digest;
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::stripes::StripeSums;
use crate::seal::{Queue, SealJob, SealKey};

/// Bytes gathered before they are handed to the storage: large enough that system calls do not
/// count, small enough to stay in the cache.
const BUFFER: usize = 1 << 20;

pub(crate) struct Appender<'f> {
    file: Box<dyn AppendFile + 'f>,
    /// Bytes not handed to the storage yet.
    buffer: Vec<u8>,
    /// Bytes handed to the storage.
    flushed: u64,
    /// The beginning of the open piece, which the storage has already: kept, so that it need
    /// not be read back to be hashed.
    open_piece: Vec<u8>,
    /// Whether the last piece was taken: what follows is covered by no piece.
    pieces_closed: bool,
    /// Hashes of pieces completed and not yet taken.
    pieces: Vec<Digest>,
    /// Parity over the pieces, where the image is to have it.
    stripes: Option<StripeSums>,
    /// Pieces completed so far.
    piece_count: u64,
    /// Bytes of the key-slot area behind the superblock.
    slots: u64,
    /// Frames in the buffer that are not sealed yet.
    jobs: Vec<SealJob>,
    /// Buffers that are being sealed; in sealed images only.
    queue: Option<Queue>,
    /// The first error; nothing is written after it.
    poisoned: bool,
}

impl<'f> Appender<'f> {
    pub(crate) fn new(file: Box<dyn AppendFile + 'f>, with_data_parity: bool) -> Self {
        let buffer = Vec::with_capacity(BUFFER);
        Self {
            file,
            buffer,
            flushed: 0,
            open_piece: Vec::with_capacity(PIECE_SIZE),
            pieces_closed: false,
            pieces: Vec::new(),
            stripes: with_data_parity.then(StripeSums::new),
            piece_count: 0,
            slots: 0,
            jobs: Vec::new(),
            queue: None,
            poisoned: false,
        }
    }

    /// Goes on behind the `len` bytes a file has. `open_piece` are those of them that complete no
    /// piece, `pieces` the hashes of pieces before them that nobody has taken yet, and `stripes` the
    /// parity of those that have none yet, where the image is to have it.
    pub(crate) fn resume(
        file: Box<dyn AppendFile + 'f>,
        len: u64,
        open_piece: Vec<u8>,
        pieces: Vec<Digest>,
        stripes: Option<StripeSums>,
    ) -> Self {
        let piece_count = len / PIECE_SIZE as u64;
        Self { flushed: len, piece_count, open_piece, pieces, stripes, ..Self::new(file, false) }
    }

    /// Counts `slots` bytes behind the first page as zeros.
    pub(crate) fn with_slots(self, slots: u64) -> Self {
        Self { slots, ..self }
    }

    /// Seals frames with this key.
    pub(crate) fn sealing(self, key: Arc<SealKey>) -> Self {
        Self { queue: Some(Queue::new(key)), ..self }
    }

    /// Lets the threads of `pool` seal.
    pub(crate) fn seal_in(&mut self, pool: Arc<rayon::ThreadPool>) {
        if let Some(queue) = &mut self.queue {
            queue.seal_in(pool);
        }
    }

    /// Length of the file so far.
    pub(crate) fn position(&self) -> u64 {
        let queued = self.queue.as_ref().map_or(0, Queue::bytes);
        self.flushed + queued + self.buffer.len() as u64
    }

    /// Appends a frame that `job` seals before the storage gets it: `lay_out` adds its bytes to
    /// the buffer, tag and checksums still to be filled in.
    pub(crate) fn append_sealed(
        &mut self,
        job: SealJob,
        len: usize,
        lay_out: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        if self.buffer.len() + len > BUFFER {
            self.hand_over()?;
        }
        let at = self.buffer.len();
        lay_out(&mut self.buffer);
        debug_assert_eq!(self.buffer.len(), at + len);
        self.jobs.push(SealJob { at, ..job });
        if self.buffer.len() >= BUFFER { self.hand_over() } else { Ok(()) }
    }

    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = BUFFER - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.hand_over()?;
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

    /// Appends `data`, which the caller has just read from `source` at `offset`, in a way that
    /// lets the filesystem share its storage. For long rows: the buffer is handed over first,
    /// however little it holds.
    pub(crate) fn append_from(
        &mut self,
        source: &dyn ReadAt,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        self.flush()?;
        self.write(data, |file| file.append_from(source, offset, data))
    }

    /// Empties the buffer: to the storage, or to the threads that seal.
    fn hand_over(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let jobs = std::mem::take(&mut self.jobs);
        let Some(queue) = &mut self.queue else { return self.store(buffer) };
        queue.push(buffer, jobs);
        while self.queue.as_ref().is_some_and(Queue::is_full) {
            self.store_oldest()?;
        }
        Ok(())
    }

    /// Hands the oldest buffer of the queue to the storage; says whether there was one.
    fn store_oldest(&mut self) -> Result<bool> {
        let Some(buffer) = self.queue.as_mut().map_or(Ok(None), Queue::pop)? else {
            return Ok(false);
        };
        self.store(buffer).map(|()| true)
    }

    /// Hands a buffer to the storage, and keeps its memory.
    fn store(&mut self, mut buffer: Vec<u8>) -> Result<()> {
        let written = self.write(&buffer, |file| file.append_all(&buffer));
        buffer.clear();
        if self.buffer.capacity() == 0 {
            self.buffer = buffer;
        }
        written
    }

    /// Hands everything to the storage.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.hand_over()?;
        while self.store_oldest()? {}
        Ok(())
    }

    /// Has `write` append `bytes` to the file, and hashes the pieces they complete.
    fn write(
        &mut self,
        mut bytes: &[u8],
        write: impl FnOnce(&mut dyn AppendFile) -> io::Result<()>,
    ) -> Result<()> {
        if self.poisoned {
            return Err(Error::Misuse("writing after a failed write"));
        }
        if let Err(source) = write(&mut *self.file) {
            self.poisoned = true;
            return Err(Error::Io { op: "write image", offset: self.flushed, source });
        }
        self.flushed += bytes.len() as u64;
        if self.pieces_closed {
            return Ok(());
        }
        if !self.open_piece.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_SIZE - self.open_piece.len()));
            self.open_piece.extend_from_slice(now);
            bytes = later;
            if self.open_piece.len() == PIECE_SIZE {
                self.close_piece();
            }
        }
        let (whole, open) = bytes.split_at(bytes.len() - bytes.len() % PIECE_SIZE);
        self.add_pieces(whole);
        self.open_piece.extend_from_slice(open);
        Ok(())
    }

    fn close_piece(&mut self) {
        let mut piece = std::mem::take(&mut self.open_piece);
        self.add_pieces(&piece);
        piece.clear();
        self.open_piece = piece;
    }

    /// Takes the next pieces, which are whole but for the last one of the file.
    fn add_pieces(&mut self, bytes: &[u8]) {
        let pieces = || (self.piece_count..).zip(bytes.chunks(PIECE_SIZE));
        self.pieces.extend(pieces().map(|(no, piece)| hash::piece(no, piece, self.slots)));
        if let Some(stripes) = &mut self.stripes {
            let proven: Vec<_> =
                pieces().map(|(no, piece)| hash::as_proven(no, piece, self.slots)).collect();
            let proven: Vec<&[u8]> = proven.iter().map(|piece| &**piece).collect();
            stripes.add(&proven);
        }
        self.piece_count += bytes.chunks(PIECE_SIZE).len() as u64;
    }

    /// The parity of the oldest stripe of pieces that has no frame yet; with `last`, after which
    /// pieces have none, also of one that is not full.
    pub(crate) fn take_parity(&mut self, last: bool) -> Result<Option<Vec<u8>>> {
        self.flush()?;
        let parity = self.stripes.as_mut().and_then(StripeSums::take);
        if last {
            self.stripes = None;
        }
        Ok(parity)
    }

    /// Takes the hashes of the pieces completed since the last call; with `last`, also of the
    /// short piece at the end: no piece covers what is appended after that.
    pub(crate) fn take_pieces(&mut self, last: bool) -> Result<Vec<Digest>> {
        self.flush()?;
        if last {
            if !self.open_piece.is_empty() {
                self.close_piece();
            }
            self.pieces_closed = true;
        }
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
        self.flush()?;
        let offset = self.flushed;
        let result = self.file.sync();
        self.poisoned |= result.is_err();
        result.map_err(Error::io("sync image", offset))
    }
}
