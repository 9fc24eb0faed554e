//! The bytes of a file from front to back, read ahead by a second thread, with zeros in place of
//! what the medium does not give.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use aiv_volume_io::{Cancel, Extent, ReadAt};

/// Bytes read at once: large enough that a medium is read as fast as it can be.
const CHUNK: usize = 4 << 20;

/// Room before each chunk for the end of the one before it, so that a frame across a border is
/// in one piece without copying the whole chunk. Longer rests are copied.
const FRONT: usize = 256 << 10;

/// Chunks that wait to be looked at.
const AHEAD: usize = 2;

/// What a medium that fails is asked for at last, one by one.
const SECTOR: usize = 512;

/// A part of the file behind `FRONT` bytes of room.
struct Chunk {
    bytes: Vec<u8>,
    unreadable: Vec<Extent>,
}

/// A window that moves over a file, forwards only.
pub(super) struct Feed {
    len: u64,
    chunks: Receiver<Chunk>,
    spare: SyncSender<Vec<u8>>,
    window: Vec<u8>,
    /// Where in `window` the part of the file begins that is at hand.
    from: usize,
    /// Offset of that part in the file.
    start: u64,
    /// Parts of the file that cannot be read, ascending, as far as it was read.
    pub(super) unreadable: Vec<Extent>,
}

impl Feed {
    /// The bytes of `file`, read by a thread of `scope`, which ends when the feed is dropped.
    pub(super) fn new<'s>(
        scope: &'s Scope<'s, '_>,
        file: &'s dyn ReadAt,
        cancel: &'s Cancel,
    ) -> Self {
        let len = file.len();
        let (send, chunks) = sync_channel(AHEAD);
        let (spare, free) = sync_channel(AHEAD + 2);
        if len <= CHUNK as u64 {
            // Nothing to read ahead.
            let _ = send.send(read_chunk(file, 0, len, Vec::new(), cancel));
        } else {
            scope.spawn(move || read_all(file, &send, &free, cancel));
        }
        Self { len, chunks, spare, window: Vec::new(), from: 0, start: 0, unreadable: Vec::new() }
    }

    /// The bytes at `offset`, at least `want` of them unless the file ends before, and as many
    /// as are at hand. Offsets never go back.
    pub(super) fn at(&mut self, offset: u64, want: usize) -> &[u8] {
        let want = self.len.saturating_sub(offset).min(want as u64);
        loop {
            let skip = offset - self.start;
            let here = (self.window.len() - self.from) as u64;
            if skip + want <= here || !self.advance(skip.min(here)) {
                let at = self.from + in_window(skip.min(here));
                return &self.window[at..];
            }
        }
    }

    /// Takes the next chunk, behind what of the window comes after `skip`; says whether there
    /// was one.
    fn advance(&mut self, skip: u64) -> bool {
        let Ok(mut chunk) = self.chunks.recv() else { return false };
        let rest = self.from + in_window(skip);
        let tail = &self.window[rest..];
        let from = match FRONT.checked_sub(tail.len()) {
            Some(from) => {
                chunk.bytes[from..FRONT].copy_from_slice(tail);
                from
            }
            None => {
                chunk.bytes.splice(..FRONT, tail.iter().copied());
                0
            }
        };
        self.start += skip;
        self.from = from;
        self.unreadable.append(&mut chunk.unreadable);
        let old = std::mem::replace(&mut self.window, chunk.bytes);
        if old.len() <= FRONT + CHUNK {
            // Full when nobody reads any more.
            let _ = self.spare.try_send(old);
        }
        true
    }
}

/// An offset inside the window.
fn in_window(count: u64) -> usize {
    usize::try_from(count).expect("the window fits the address space")
}

fn read_all(
    file: &dyn ReadAt,
    send: &SyncSender<Chunk>,
    free: &Receiver<Vec<u8>>,
    cancel: &Cancel,
) {
    let len = file.len();
    let mut at = 0;
    while at < len && cancel.check().is_ok() {
        let now = (len - at).min(CHUNK as u64);
        let chunk = read_chunk(file, at, now, free.try_recv().unwrap_or_default(), cancel);
        if send.send(chunk).is_err() {
            return;
        }
        at += now;
    }
}

fn read_chunk(
    file: &dyn ReadAt,
    offset: u64,
    len: u64,
    mut bytes: Vec<u8>,
    cancel: &Cancel,
) -> Chunk {
    bytes.resize(FRONT + in_window(len), 0);
    let mut unreadable = Vec::new();
    read_around(file, &mut bytes[FRONT..], offset, &mut unreadable, cancel);
    Chunk { bytes, unreadable }
}

/// Reads `out`, and where the medium fails, both halves by themselves, down to single sectors.
fn read_around(
    file: &dyn ReadAt,
    out: &mut [u8],
    offset: u64,
    unreadable: &mut Vec<Extent>,
    cancel: &Cancel,
) {
    match file.read_exact_at(out, offset) {
        Ok(()) => {}
        Err(_) if out.len() > SECTOR && cancel.check().is_ok() => {
            // At most 13 times: chunks are bounded.
            let half = (out.len() / 2).next_multiple_of(SECTOR);
            let (first, second) = out.split_at_mut(half);
            read_around(file, first, offset, unreadable, cancel);
            read_around(file, second, offset + half as u64, unreadable, cancel);
        }
        Err(_) => {
            let bad = Extent::new(offset, out.len() as u64);
            out.fill(0);
            match unreadable.last_mut() {
                Some(last) if last.end() == bad.start => last.len += bad.len,
                _ => unreadable.push(bad),
            }
        }
    }
}
