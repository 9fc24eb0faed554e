//! Checksums and hashes of an image that was never finished, which has no trailer that says where
//! things are.

use std::ops::Range;

use super::image::{PAGE, PIECE, TAIL, crc, keyed, le, mend_frames, mend_pieces, mend_superblock};
use super::image::{piece, put};

const CHECKPOINT: u8 = 3;
/// Of the first feature word.
const SEALED: u64 = 1;
/// The bytes of a superblock that differ from segment to segment.
const PLACE: [Range<usize>; 3] = [148..152, 1824..1832, 4092..4096];

/// Makes every checksum and hash fit that an image has before it is finished: of superblocks and of
/// frames, of the pieces that checkpoints list, and of all that stands around complete segments.
/// `files` are the segments of the image in order, or those from one of them on, or its only file.
///
/// What is sealed keeps its tags: those are made with a key.
pub fn mend_begun(files: &mut [Vec<u8>]) {
    let Some(first) = files.first().filter(|first| first.len() >= PAGE).cloned() else { return };
    for file in files.iter_mut().filter(|file| file.len() >= PAGE) {
        for at in 0..PAGE {
            if !PLACE.iter().any(|place| place.contains(&at)) {
                file[at] = first[at];
            }
        }
        mend_superblock(file, 0);
    }
    let slices: Vec<Range<usize>> = files.iter().map(|file| slice(file)).collect();
    let start = number(&first, 1824, 8) / PIECE;
    let mut stream = Vec::new();
    for (file, slice) in files.iter().zip(&slices) {
        stream.extend_from_slice(&file[slice.clone()]);
    }
    let head = if slices[0].start > 0 { 0 } else { PAGE.saturating_add(number(&first, 156, 4)) };
    let (end, is_sealed) = (stream.len(), le(&first, 16, 8) & SEALED != 0);
    mend_frames(&mut stream, head..end, |stream, payload| {
        if stream[payload.start - 60] == CHECKPOINT && !is_sealed {
            mend_checkpoint(stream, payload, start);
        }
    });
    let mut at = 0;
    for (file, slice) in files.iter_mut().zip(&slices) {
        let len = slice.len();
        file[slice.clone()].copy_from_slice(&stream[at..at + len]);
        if slice.end < file.len() {
            mend_segment(file, slice.clone(), start + at / PIECE);
        }
        at += len;
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    usize::try_from(le(bytes, at, width)).unwrap_or(usize::MAX)
}

/// Where in a file the bytes of the image are: up to its list, where it is complete.
fn slice(file: &[u8]) -> Range<usize> {
    if file.len() < PAGE {
        return 0..file.len();
    }
    let head = if le(file, 148, 4) == 0 { 0 } else { PAGE };
    let trailer = file.len().checked_sub(TAIL).map(|_| file.len() - PAGE);
    let told = trailer.filter(|&at| file[at..].starts_with(b"AIVSEGMT")).and_then(|trailer| {
        let end = head.checked_add(number(file, trailer + 80, 8))?;
        let list = (end.checked_sub(head)?).div_ceil(PIECE).checked_mul(32)?;
        (end.checked_add(list)? <= file.len() - TAIL).then_some(end)
    });
    head..told.unwrap_or(file.len())
}

/// The pieces in front of a checkpoint, as far as they are those of `stream`, the first of which is
/// number `start`.
fn mend_checkpoint(stream: &mut [u8], payload: Range<usize>, start: usize) {
    if payload.len() < 64 {
        return;
    }
    let head = |at: usize, width| number(stream, payload.start + at, width);
    let (first, count, origins) = (head(24, 8), head(32, 4), head(40, 4));
    let Some(list) = origins.checked_mul(16).and_then(|len| len.checked_add(payload.start + 64))
    else {
        return;
    };
    for listed in 0..count.min(payload.len() / 32) {
        let Some(no) = first.checked_add(listed) else { return };
        let from = no.checked_sub(start).and_then(|at| at.checked_mul(PIECE));
        let Some(from) = from.filter(|&from| from < stream.len()) else { return };
        let place = list + listed * 32;
        if from + PIECE > payload.start || place.saturating_add(32) > payload.end {
            return;
        }
        let hash = piece(no, &stream[from..from + PIECE]);
        put(stream, place, &hash);
    }
}

/// List, copy of the superblock and trailers of a segment.
fn mend_segment(file: &mut [u8], slice: Range<usize>, first: usize) {
    let root = mend_pieces(file, slice, first);
    let len = file.len();
    file.copy_within(..PAGE, len - 2 * PAGE);
    for trailer in [len - TAIL, len - PAGE] {
        put(file, trailer + 112, &root);
        let hash = keyed(b"aivory draft: segment trailer   ", &[&file[trailer..trailer + 4060]]);
        put(file, trailer + 4060, &hash);
        let sum = crc(*b"aiv.segt", &[&file[trailer..trailer + 4092]]);
        put(file, trailer + 4092, &sum);
    }
}
