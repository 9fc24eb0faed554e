//! The segments of an image that was never finished: the stream as far as it goes.

use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use super::examine::{End, Examined};
use super::torn::{Slice, Torn};
use super::verify::{read_hashes, verify_list, verify_tail};
use super::{PAGE, PIECE};
use crate::error::{Error, Fault, Result, Section};
use crate::ids::Digest;
use crate::image::read_page;
use crate::layout::{SegmentPlace, Superblock};
use crate::limits::{PAGE_SIZE, SEGMENTS_MAX};
use crate::verify::VerifyReport;

/// Segments that are whole and follow each other, and the one behind them, whatever has become of
/// its end. Their bytes are for who goes through the stream to hash: see [`Begun::check_piece`].
pub(crate) struct Begun {
    /// The bytes that the image begins with, which those of the other segments are like.
    first_page: Box<[u8; PAGE_SIZE]>,
    stream: Torn,
    /// Where in its file the list of each whole segment begins.
    lists: Vec<u64>,
}

impl Begun {
    /// Puts `files` together, in their order, as far as they are segments of the image that begins
    /// with `first_page`, which is sound.
    pub(crate) fn of(first_page: [u8; PAGE_SIZE], files: &[Arc<dyn ReadAt>]) -> Result<Self> {
        let (mut slices, mut lists) = (Vec::new(), Vec::new());
        let mut place = SegmentPlace::default();
        for file in files.iter().take(SEGMENTS_MAX as usize) {
            let expected = match place.no {
                0 => first_page,
                _ => Superblock::with_place(&first_page, place),
            };
            if file.len() < PAGE || read_page(&**file, 0)? != expected {
                break;
            }
            let whole = whole(&**file, place)?;
            let len = whole.map_or(file.len() - place.head_len(), |whole| whole.slice_len);
            let end = place.start.saturating_add(len);
            slices.push(Slice::new(place, end, file));
            let Some(whole) = whole else { break };
            lists.push(whole.list);
            place = SegmentPlace { no: place.no + 1, start: end };
        }
        let first_page = Box::new(first_page);
        Ok(Self { first_page, stream: Torn::of_slices(slices), lists })
    }

    /// Where the slice ends that has the byte at `at`: no frame goes beyond.
    pub(crate) fn border(&self, at: u64) -> u64 {
        let behind = self.stream.slices.partition_point(|slice| slice.end <= at);
        self.stream.slices.get(behind).map_or(self.stream.len(), |slice| slice.end)
    }

    /// Holds the hash of a piece to what its segment says about it, if that is whole.
    pub(crate) fn check_piece(&self, number: u64, digest: Digest) -> Result<()> {
        let at = number.saturating_mul(PIECE);
        let no = self.part_of(at.saturating_add(1));
        let (Some(list), Some(slice)) = (self.lists.get(no), self.stream.slices.get(no)) else {
            return Ok(());
        };
        let Some(file) = &slice.file else { return Ok(()) };
        let offset = list + (at - slice.place.start) / PIECE * 32;
        match read_hashes(&**file, offset, 1)?.as_slice() {
            [listed] if *listed == digest => Ok(()),
            _ => {
                let fault = Fault::Hash { by: "stored list" };
                Err(fault.at(Section::SegmentPiece(slice.place.number()), at))
            }
        }
    }

    /// The number of the segment in which the first `len` bytes of the stream end.
    fn part_of(&self, len: u64) -> usize {
        let begun = self.stream.slices.partition_point(|slice| slice.place.start < len);
        begun.saturating_sub(1)
    }

    /// Bytes of each file that are kept with the first `len` bytes of the stream.
    pub(crate) fn kept(&self, len: u64) -> Vec<u64> {
        let last = self.part_of(len);
        let slices = self.stream.slices.iter().enumerate().take(last + 1);
        let kept = slices.map(|(no, slice)| match &slice.file {
            Some(file) if no < last => file.len(),
            _ => slice.place.head_len() + (len - slice.place.start),
        });
        kept.collect()
    }

    /// Where the segments begin that are kept with the first `len` bytes of the stream.
    pub(crate) fn starts(&self, len: u64) -> Vec<u64> {
        let kept = self.stream.slices.iter().take(self.part_of(len) + 1);
        kept.map(|slice| slice.place.start).collect()
    }

    /// The bytes that the image begins with.
    pub(crate) fn first_page(&self) -> &[u8; PAGE_SIZE] {
        &self.first_page
    }
}

impl ReadAt for Begun {
    fn len(&self) -> u64 {
        self.stream.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.stream.read_exact_at(out, offset)
    }
}

/// A segment that is complete, but for its pieces.
#[derive(Clone, Copy)]
struct Whole {
    slice_len: u64,
    /// Where in the file the list of its pieces begins.
    list: u64,
}

/// What the tail of the segment at `place` says, if all of it is right.
fn whole(file: &dyn ReadAt, place: SegmentPlace) -> Result<Option<Whole>> {
    let examined = match Examined::of(file) {
        Ok(examined) => examined,
        Err(error @ (Error::Io { .. } | Error::Canceled(_))) => return Err(error),
        // This is where the writer was stopped, or where something was lost.
        Err(_) => return Ok(None),
    };
    let End::Segment(trailer) = &examined.end else { return Ok(None) };
    if examined.place != place || !examined.damage.is_empty() {
        return Ok(None);
    }
    let mut report = VerifyReport::default();
    verify_tail(file, &examined, &mut report)?;
    verify_list(file, &examined, trailer, &mut report)?;
    let whole = Whole { slice_len: examined.slice_len, list: examined.list_offset() };
    Ok(report.is_sound().then_some(whole))
}
