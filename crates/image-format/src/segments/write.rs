//! The files of a split image while it is being written: takes the bytes of the stream and cuts
//! them where the writer of the image allows.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aiv_volume_io::{AppendFile, ReadAt};

use super::{PAGE, PIECE, SegmentFiles, list_len};
use crate::error::{Error, Result};
use crate::hash::{self, Tree};
use crate::ids::Digest;
use crate::image::{TAIL_LEN, tail_len};
use crate::layout::{Features, SegmentPlace, SegmentTrailer, Superblock};
use crate::limits::{PAGE_SIZE, PIECE_SIZE, SEGMENT_BYTES_MIN, SEGMENTS_MAX, TRAILER_GAP};
use crate::parity::pages::ProtectedPages;

/// Where the stream is cut: what the writer of the image decides, and the files act on later,
/// when the bytes arrive there.
pub(crate) struct Cuts {
    shared: Arc<Mutex<Shared>>,
    limit: u64,
    with_data_parity: bool,
    /// Where the frames of the image begin.
    frames_start: u64,
    /// The segment that the next frame goes into.
    place: SegmentPlace,
}

#[derive(Default)]
struct Shared {
    /// Places of the stream, ascending, that were asked for and not reached yet.
    asked: VecDeque<u64>,
    /// The part of the stream that may be cut between any two pieces.
    free: Option<Free>,
    /// Files begun.
    count: u32,
}

/// A stretch of pages, which no border can tear: they lie on multiples of their size.
#[derive(Clone, Copy)]
struct Free {
    /// Where it begins.
    from: u64,
    /// Where it ends; `None` while it is being written.
    until: Option<u64>,
    /// Bytes of META, which follow it and must not be cut.
    meta: u64,
}

impl Cuts {
    /// Bytes of the file of the segment `place`, if its slice ended with the piece that ends at or
    /// behind `end`.
    fn file_len(place: SegmentPlace, end: u64) -> u64 {
        let slice = end.saturating_sub(place.start).next_multiple_of(PIECE);
        place.head_len() + slice + list_len(slice / PIECE) + TAIL_LEN
    }

    /// Whether a frame of `size` bytes has to begin a new segment. One that is larger than any
    /// segment gets one of its own.
    pub(crate) fn is_due(&self, position: u64, size: u64) -> bool {
        let own = position - self.place.start;
        let is_empty = own == 0 || (self.place.no == 0 && own <= self.frames_start);
        !is_empty && Self::file_len(self.place, position.saturating_add(size)) > self.limit
    }

    /// Ends the segment at `position`, a multiple of 64 KiB.
    pub(crate) fn cut(&mut self, position: u64) -> Result<()> {
        let no = self.place.no + 1;
        if no >= SEGMENTS_MAX {
            return Err(Error::Misuse("more than 1,000 segments: larger ones are needed"));
        }
        self.place = SegmentPlace { no, start: position };
        lock(&self.shared).asked.push_back(position);
        Ok(())
    }

    /// Whether the segment should end where the frames do, at `position`, so that what follows
    /// fits: at least one more piece of pages, and all that comes behind the pages.
    pub(crate) fn is_due_for_pages(&self, position: u64, meta: u64) -> bool {
        let position = position.next_multiple_of(PIECE);
        let rest = Rest { index: position, meta, with_data_parity: self.with_data_parity };
        position > self.place.start && is_due_before_pages(self.place, position, rest, self.limit)
    }

    /// What follows `position` are pages, until [`Cuts::end_pages`], and then `meta` bytes of META at most.
    pub(crate) fn begin_pages(&self, position: u64, meta: u64) {
        lock(&self.shared).free = Some(Free { from: position, until: None, meta });
    }

    /// Behind `position` nothing is cut.
    pub(crate) fn end_pages(&self, position: u64) {
        if let Some(free) = &mut lock(&self.shared).free {
            free.until = Some(position);
        }
    }

    /// Number of segments, once everything was handed over.
    pub(crate) fn count(&self) -> u32 {
        lock(&self.shared).count
    }
}

/// Whether a piece of pages that begins at `position` should begin a segment, too: with it, this
/// one could not be finished, or not as the last one, which the next one could.
fn is_due_before_pages(place: SegmentPlace, position: u64, rest: Rest, limit: u64) -> bool {
    let end = position.saturating_add(PIECE);
    let fresh = SegmentPlace { no: place.no + 1, start: position };
    Cuts::file_len(place, end) > limit
        || (last_len(place, end, rest) > limit && last_len(fresh, end, rest) <= limit)
}

/// What an image has from its index on beside pages.
#[derive(Clone, Copy)]
struct Rest {
    /// Where the index begins, at most a piece off.
    index: u64,
    /// Bytes of META at most.
    meta: u64,
    with_data_parity: bool,
}

/// Bytes of the file of the last segment, if its pages end at or before `pages_end`.
fn last_len(place: SegmentPlace, pages_end: u64, rest: Rest) -> u64 {
    let stored = pages_end.saturating_add(rest.meta).next_multiple_of(PAGE);
    let slice = stored.saturating_sub(place.start);
    let list = list_len(stored.div_ceil(PIECE));
    let protected = ProtectedPages::new(rest.index, stored + list, rest.with_data_parity);
    let parity = protected.area_len().unwrap_or(u64::MAX);
    let incompat = if rest.with_data_parity { Features::PARITY } else { 0 };
    let tail = tail_len(Features { incompat, ..Features::default() });
    (place.head_len() + slice + list + tail).saturating_add(parity)
}

/// What follows the slice of a segment that is not the last one: the list of its pieces and its
/// tail. `first_page` is what the image begins with.
pub(crate) fn segment_tail(
    superblock: &Superblock,
    first_page: &[u8; PAGE_SIZE],
    place: SegmentPlace,
    pieces: &[Digest],
) -> Vec<u8> {
    let mut tree = Tree::stored();
    let mut tail = Vec::with_capacity(pieces.len() * 32);
    for digest in pieces {
        tree.push(*digest);
        tail.extend_from_slice(&digest.0);
    }
    tail.resize(tail.len().next_multiple_of(PAGE_SIZE), 0);
    let slice_len = pieces.len() as u64 * PIECE;
    let Superblock { image, set, point, .. } = *superblock;
    let trailer = SegmentTrailer {
        image,
        set,
        point,
        place,
        slice_len,
        file_len: place.head_len() + slice_len + tail.len() as u64 + TAIL_LEN,
        stored_root: tree.finish(),
    };
    tail.extend_from_slice(&trailer.to_bytes(1));
    tail.resize(tail.len() + usize::try_from(TRAILER_GAP).unwrap_or(0), 0);
    tail.extend_from_slice(&Superblock::with_place(first_page, place));
    tail.extend_from_slice(&trailer.to_bytes(2));
    tail
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is there of a stream that is written.
pub(crate) struct Written {
    /// The bytes the image begins with.
    pub first_page: [u8; PAGE_SIZE],
    /// Where each segment begins; the last one is being written.
    pub starts: Vec<u64>,
    /// Bytes of the stream.
    pub len: u64,
    /// Hashes of the pieces of the last segment, and what follows them.
    pub pieces: Vec<Digest>,
    pub open_piece: Vec<u8>,
}

impl Written {
    fn nothing(superblock: &Superblock) -> Self {
        let first_page = superblock.to_bytes();
        Self { first_page, starts: vec![0], len: 0, pieces: Vec::new(), open_piece: Vec::new() }
    }
}

/// The stream as one file that grows, which is several.
pub(crate) struct SegmentedFile<'f> {
    files: Box<dyn SegmentFiles + 'f>,
    superblock: Superblock,
    /// The bytes the image begins with, which those of the other segments are like.
    first_page: Box<[u8; PAGE_SIZE]>,
    shared: Arc<Mutex<Shared>>,
    limit: u64,
    /// The segment being written, and its file.
    place: SegmentPlace,
    current: Box<dyn AppendFile>,
    /// Bytes of the stream so far.
    position: u64,
    /// The piece being filled, and the hashes of those of this segment before it.
    open_piece: Vec<u8>,
    pieces: Vec<Digest>,
    /// Whether beginning the next segment failed: nothing is written after that.
    poisoned: bool,
    /// Where each completed segment begins, and the one of them read last.
    starts: Vec<u64>,
    opened: Mutex<Option<(u32, Arc<dyn ReadAt>)>>,
}

impl<'f> SegmentedFile<'f> {
    /// Begins with the first file. `limit` is the size no file should exceed.
    pub(crate) fn create(
        mut files: Box<dyn SegmentFiles + 'f>,
        superblock: Superblock,
        limit: u64,
    ) -> Result<(Self, Cuts)> {
        if limit < SEGMENT_BYTES_MIN {
            return Err(Error::Misuse("segments of less than 160 KiB"));
        }
        let current = files.create(0).map_err(Error::io("create segment", 0))?;
        let nothing = Written::nothing(&superblock);
        Self::behind(files, current, superblock, limit, nothing)
    }

    /// Goes on behind what is `written`, the last segment of which is `current`.
    pub(crate) fn resume(
        files: Box<dyn SegmentFiles + 'f>,
        current: Box<dyn AppendFile>,
        superblock: Superblock,
        limit: u64,
        written: Written,
    ) -> Result<(Self, Cuts)> {
        if limit < SEGMENT_BYTES_MIN {
            return Err(Error::Misuse("segments of less than 160 KiB"));
        }
        let (file, cuts) = Self::behind(files, current, superblock, limit, written)?;
        let mut page = [0; PAGE_SIZE];
        file.current.read_exact_at(&mut page, 0).map_err(Error::io("read segment", 0))?;
        if page != Superblock::with_place(&file.first_page, file.place) {
            return Err(Error::Misuse("going on with another segment"));
        }
        Ok((file, cuts))
    }

    fn behind(
        files: Box<dyn SegmentFiles + 'f>,
        current: Box<dyn AppendFile>,
        superblock: Superblock,
        limit: u64,
        written: Written,
    ) -> Result<(Self, Cuts)> {
        let Written { first_page, mut starts, len, pieces, open_piece } = written;
        let start = starts.pop().ok_or(Error::Misuse("an image of no segments"))?;
        let no = u32::try_from(starts.len()).map_err(|_| Error::Misuse("too many segments"))?;
        let place = SegmentPlace { no, start };
        if start.checked_add(pieces.len() as u64 * PIECE + open_piece.len() as u64) != Some(len) {
            return Err(Error::Misuse("pieces of another segment"));
        }
        let shared = Arc::new(Mutex::new(Shared { count: no + 1, ..Shared::default() }));
        let with_data_parity = superblock.features.has_data_parity();
        let frames_start = superblock.frames_start();
        let cuts = Cuts { shared: shared.clone(), limit, with_data_parity, frames_start, place };
        let file = Self {
            files,
            first_page: Box::new(first_page),
            superblock,
            shared,
            limit,
            place,
            current,
            position: len,
            open_piece,
            pieces,
            poisoned: false,
            starts,
            opened: Mutex::new(None),
        };
        Ok((file, cuts))
    }

    /// Writes an image once more that was cut at these places, ascending, and began with
    /// `first_page`.
    pub(crate) fn again(
        files: Box<dyn SegmentFiles + 'f>,
        superblock: Superblock,
        first_page: [u8; PAGE_SIZE],
        borders: &[u64],
    ) -> Result<Self> {
        let (file, mut cuts) = Self::create(files, superblock, u64::MAX)?;
        borders.iter().try_for_each(|&border| cuts.cut(border))?;
        Ok(Self { first_page: Box::new(first_page), ..file })
    }

    /// Whether the stream is cut here, and else how far it goes on without another look.
    fn next_stop(&self) -> (bool, u64) {
        let mut shared = lock(&self.shared);
        if shared.asked.front() == Some(&self.position) {
            shared.asked.pop_front();
            return (true, 0);
        }
        let asked = shared.asked.front().map_or(u64::MAX, |next| next - self.position);
        let Some(Free { from, until, meta }) = shared.free else { return (false, asked) };
        // Frames may still be on their way; what is cut among them was asked for.
        if self.position < from {
            return (false, asked.min(from - self.position));
        }
        if until.is_some_and(|until| self.position >= until) {
            return (false, u64::MAX);
        }
        let next = PIECE - self.position % PIECE;
        let with_data_parity = self.superblock.features.has_data_parity();
        let rest = Rest { index: from, meta, with_data_parity };
        let is_due = self.position.is_multiple_of(PIECE)
            && self.position > self.place.start
            && is_due_before_pages(self.place, self.position, rest, self.limit);
        (is_due, next)
    }

    /// Completes the segment and begins the next one.
    fn cut(&mut self) -> io::Result<()> {
        let pieces = std::mem::take(&mut self.pieces);
        let tail = segment_tail(&self.superblock, &self.first_page, self.place, &pieces);
        self.current.append_all(&tail)?;
        self.current.sync()?;
        let no = self.place.no + 1;
        if no >= SEGMENTS_MAX {
            let what = "more than 1,000 segments: larger ones are needed";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        self.starts.push(self.place.start);
        self.place = SegmentPlace { no, start: self.position };
        self.current = self.files.create(no)?;
        self.current.append_all(&Superblock::with_place(&self.first_page, self.place))?;
        lock(&self.shared).count = no + 1;
        Ok(())
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        while self.open_piece.len() + bytes.len() >= PIECE_SIZE {
            let (now, later) = bytes.split_at(PIECE_SIZE - self.open_piece.len());
            // Of the whole image: the first one has its key slots.
            let number = self.place.start / PIECE + self.pieces.len() as u64;
            let slots = self.superblock.slot_area_len();
            if self.open_piece.is_empty() {
                self.pieces.push(hash::piece(number, now, slots));
            } else {
                self.open_piece.extend_from_slice(now);
                self.pieces.push(hash::piece(number, &self.open_piece, slots));
                self.open_piece.clear();
            }
            bytes = later;
        }
        self.open_piece.extend_from_slice(bytes);
    }

    /// A completed segment; the one read last stays open.
    fn completed(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*opened
            && *open == no
        {
            return Ok(file.clone());
        }
        let file = self.files.open(no)?;
        *opened = Some((no, file.clone()));
        Ok(file)
    }
}

impl AppendFile for SegmentedFile<'_> {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        if self.poisoned {
            return Err(io::Error::other("writing after a segment that failed"));
        }
        let mut stop = self.next_stop();
        if stop.0 {
            // Half done it cannot be repeated, and a failed sync never is: callers go on after
            // an interruption.
            self.poisoned = true;
            self.cut().map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => io::Error::other(error),
                _ => error,
            })?;
            self.poisoned = false;
            stop = self.next_stop();
        }
        let room = usize::try_from(stop.1).unwrap_or(usize::MAX);
        let count = self.current.append(&data[..data.len().min(room)])?;
        let taken = data.get(..count).ok_or(io::ErrorKind::InvalidData)?;
        self.hash(taken);
        self.position += count as u64;
        Ok(count)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut out, mut at) = (out, offset);
        while !out.is_empty() {
            if at >= self.place.start {
                return self
                    .current
                    .read_exact_at(out, at - self.place.start + self.place.head_len());
            }
            let part = self.starts.partition_point(|&start| start <= at).saturating_sub(1);
            let no = u32::try_from(part).unwrap_or(u32::MAX);
            let start = self.starts[part];
            let end = self.starts.get(part + 1).copied().unwrap_or(self.place.start);
            let now = usize::try_from(end - at).unwrap_or(usize::MAX).min(out.len());
            let (some, later) = out.split_at_mut(now);
            let head = SegmentPlace { no, start }.head_len();
            self.completed(no)?.read_exact_at(some, at - start + head)?;
            out = later;
            at += now as u64;
        }
        Ok(())
    }

    /// Completed segments were made durable when they were completed.
    fn sync(&mut self) -> io::Result<()> {
        self.current.sync()
    }
}
