//! A damaged split image made whole again: what its segments hold as that of any image, and what
//! wraps their slices computed anew.

use std::sync::Arc;

use aiv_keys::Keys;
use aiv_volume_io::{Job, ReadAt};

use super::{Repair, RepairReport};
use crate::error::{Error, Result};
use crate::ids::{Digest, ImageId};
use crate::layout::{SegmentPlace, Superblock, Trailer};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::segments::{SegmentFile, SegmentFiles, SegmentedFile, Torn, segment_tail};

/// Bytes compared at once.
const CHUNK: usize = 1 << 20;

/// A damaged image of several files, looked through, and ready to be written anew.
pub struct SegmentsRepair {
    repair: Repair,
    torn: Arc<Torn>,
}

impl SegmentsRepair {
    /// Reads all of the segments `files` of `image`, in any order, of which some may be missing,
    /// and finds out what can be repaired: by parity, and by `copies`, other files of which some
    /// are segments of the same image. What is none of `image` is left alone. Of `keys`, that of
    /// the image does what it does in [`Repair::of`].
    ///
    /// # Errors
    /// As [`Repair::of`]; [`Error::Segments`] when the last segment is nowhere, or so many are not
    /// there that nobody knows where they began.
    pub fn of(
        image: ImageId,
        files: &[SegmentFile],
        copies: &[SegmentFile],
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Self> {
        let torn = Arc::new(Torn::of(image, files, copies)?);
        // A second file of a segment may be better in places.
        let mut others = Torn::alone(image, copies);
        others.extend(Torn::alone(image, files));
        let stream = Arc::clone(&torn) as Arc<dyn ReadAt>;
        let mut repair = Repair::of(stream, others, keys, job)?;
        repair.report.segments = wrappers(&repair, &torn)?;
        Ok(Self { repair, torn })
    }

    /// What was found. Places count in the image, whose bytes are those of all slices.
    #[must_use]
    pub fn report(&self) -> &RepairReport {
        self.repair.report()
    }

    /// What the image is.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        self.repair.superblock()
    }

    /// What the repaired image has to be.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        self.repair.trailer()
    }

    /// Writes all segments as they were, each made durable, into files that did not exist.
    ///
    /// # Errors
    /// As [`Repair::write`].
    pub fn write(&mut self, files: Box<dyn SegmentFiles + '_>, job: Job<'_>) -> Result<()> {
        if !self.report().is_complete() {
            return Err(Error::Misuse("an image of which bytes are missing"));
        }
        let first = self.repair.mended.page(0)?;
        let superblock = self.repair.superblock.clone();
        let mut out = SegmentedFile::again(files, superblock, first, &self.torn.borders())?;
        self.repair.write(&mut out, job)
    }
}

/// Segments that are not there, or are around their slices not what they were.
fn wrappers(repair: &Repair, torn: &Torn) -> Result<u64> {
    let first = repair.mended.page(0)?;
    let mut damaged = 0;
    for slice in &torn.slices {
        let is_last = slice.end == repair.trailer.file_len;
        let is_sound = match &slice.file {
            None => false,
            Some(file) => {
                let head = Superblock::with_place(&first, slice.place);
                let tail =
                    if is_last { Vec::new() } else { tail_of(repair, slice.place, slice.end)? };
                let behind = slice.place.head_len() + slice.end - slice.place.start;
                file.len() == behind + tail.len() as u64
                    // That of the image is a part of its slice.
                    && (slice.place.no == 0 || is_at(&**file, &head, 0))
                    && is_at(&**file, &tail, behind)
            }
        };
        damaged += u64::from(!is_sound);
    }
    Ok(damaged)
}

/// What follows a slice that ends at `end`, by the stored list of the image.
fn tail_of(repair: &Repair, place: SegmentPlace, end: u64) -> Result<Vec<u8>> {
    let piece = PIECE_SIZE as u64;
    let (from, to) = (place.start / piece, end / piece);
    let count =
        usize::try_from(to.saturating_sub(from)).map_err(|_| Error::Misuse("a huge segment"))?;
    let mut bytes = vec![0; count * 32];
    let offset = repair.trailer.stored_offset + from * 32;
    let op = Error::io("read stored list", offset);
    repair.mended.read_exact_at(&mut bytes, offset).map_err(op)?;
    let pieces: Vec<Digest> = bytes.as_chunks::<32>().0.iter().map(|hash| Digest(*hash)).collect();
    let first: [u8; PAGE_SIZE] = repair.mended.page(0)?;
    Ok(segment_tail(&repair.superblock, &first, place, &pieces))
}

/// Whether a file has these bytes there; bytes that cannot be read are others.
fn is_at(file: &dyn ReadAt, expected: &[u8], offset: u64) -> bool {
    let mut found = vec![0; expected.len().min(CHUNK)];
    let places = (offset..).step_by(CHUNK);
    expected.chunks(CHUNK).zip(places).all(|(expected, at)| {
        let found = &mut found[..expected.len()];
        file.read_exact_at(found, at).is_ok() && found == expected
    })
}
