//! Proves one segment by itself: every stored byte, without the others and without a key.

use std::sync::Arc;

use aiv_volume_io::{Job, ReadAt, Step};

use super::examine::{End, Examined, features_of};
use super::verify::{read_hashes, verify_list, verify_tail};
use super::{PAGE, PIECE};
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash::{self, SectionHasher, Tree};
use crate::ids::{Digest, ImageId, PointId, SetId};
use crate::image::{read_page, tail_len, trailer_gap};
use crate::layout::{Superblock, Trailer, first_nonzero};
use crate::limits::PAGE_SIZE;
use crate::seal::fault_of_slots;
use crate::verify::VerifyReport;

/// Hashes of a list read at once, and pieces proven between two looks at the stop button.
const PIECES_PER_READ: u64 = 64;

/// What proving a segment by itself found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SegmentReport {
    /// The image it is a part of.
    pub image: ImageId,
    /// The set of that.
    pub set: SetId,
    /// The point it provides.
    pub point: PointId,
    /// Which segment it is, from 1.
    pub number: u32,
    /// How many there are: only the last one knows.
    pub count: Option<u32>,
    /// What is wrong; offsets count in the file. Blocks cannot be checked by themselves.
    pub report: VerifyReport,
}

/// Proves a segment of a split image by itself: superblock, tail, its list of pieces, and every
/// piece. Every byte of the file is covered; whether the blocks in it are what the index of the
/// image says, only all segments together tell.
///
/// # Errors
/// [`Error::Segments`] when the file is no segment, was cut off or never finished, [`Error::Corrupt`] when it is
/// damaged beyond its second copies, those of [`Image::open`](crate::Image::open) for what is no
/// image, [`Error::Io`], [`Error::Canceled`].
pub fn verify_segment(file: &Arc<dyn ReadAt>, job: Job<'_>) -> Result<SegmentReport> {
    let file = &**file;
    let mut examined = Examined::of(file)?;
    let mut report = VerifyReport::default();
    std::mem::take(&mut examined.damage).into_iter().for_each(|damage| report.note(damage));
    if examined.superblock.is_none() && examined.place.no == 0 {
        // Of an image, the image says it.
        let section = Section::SegmentSuperblock(1);
        let page = read_page(file, 0)?;
        match Superblock::of_segment(&page, section, 0) {
            Err(Error::Corrupt(corrupt)) => report.note(corrupt),
            _ => report.note(Corrupt { section, offset: 0, fault: Fault::Magic }),
        }
    }
    let count = match &examined.end {
        End::Segment(_) => None,
        End::Image(trailer) => Some(trailer.segment_count),
    };
    job.progress.begin(Step::VerifyImage, examined.slice_len);
    let superblock = examined.either_superblock(file);
    let slots = superblock.as_ref().map_or(0, Superblock::slot_area_len);
    match &examined.end {
        End::Segment(trailer) => {
            verify_tail(file, &examined, &mut report)?;
            verify_list(file, &examined, trailer, &mut report)?;
            let list = examined.list_offset();
            let pieces = Pieces { list, first: 0, end: trailer.slice_len, slots };
            check_pieces(file, &examined, &pieces, &mut report, job)?;
        }
        End::Image(trailer) => verify_last(file, &examined, trailer, slots, &mut report, job)?,
    }
    if let Some(superblock) = superblock.filter(|_| slots > 0) {
        verify_slots(file, &examined, &superblock, &mut report)?;
    }
    job.progress.end(Step::VerifyImage);
    report.damage.sort_by_key(|damage| damage.offset);
    let Examined { image, set, point, place, .. } = examined;
    Ok(SegmentReport { image, set, point, number: place.number(), count, report })
}

/// The last segment: its pieces are in the list of the image, which lies in it as a whole.
fn verify_last(
    file: &dyn ReadAt,
    examined: &Examined,
    trailer: &Trailer,
    slots: u64,
    report: &mut VerifyReport,
    job: Job<'_>,
) -> Result<()> {
    let number = examined.place.number();
    let in_file = |at: u64| at - examined.place.start + examined.place.head_len();
    let list = in_file(trailer.stored_offset);
    let mut tree = Tree::stored();
    let mut at = 0;
    while at < trailer.stored_pieces {
        job.check()?;
        let count = (trailer.stored_pieces - at).min(PIECES_PER_READ);
        read_hashes(file, list + at * 32, count)?.into_iter().for_each(|d| tree.push(d));
        at += count;
    }
    let section = Section::SegmentList(number);
    if tree.finish() != trailer.stored_root {
        report.note(Corrupt { section, offset: list, fault: Fault::Hash { by: "trailer" } });
    }
    let end = list + trailer.stored_pieces * 32;
    check_zeros(file, end, in_file(trailer.parity_offset), section, report)?;
    verify_parity_area(file, in_file(trailer.parity_offset), trailer, report, job)?;
    verify_image_tail(file, examined, trailer, slots, report)?;
    let first = examined.place.start / PIECE;
    let end = trailer.stored_offset - examined.place.start;
    let pieces = Pieces { list, first, end, slots };
    check_pieces(file, examined, &pieces, report, job)
}

/// The parity area by its hash: what it is made of lies in other segments, too.
fn verify_parity_area(
    file: &dyn ReadAt,
    from: u64,
    trailer: &Trailer,
    report: &mut VerifyReport,
    job: Job<'_>,
) -> Result<()> {
    let mut hasher = SectionHasher::new();
    let mut buffer = vec![0; crate::limits::PIECE_SIZE];
    let mut at = 0;
    while at < trailer.parity_len {
        job.check()?;
        let now = (trailer.parity_len - at).min(PIECE);
        let bytes = &mut buffer[..usize::try_from(now).unwrap_or(0)];
        file.read_exact_at(bytes, from + at).map_err(Error::io("read segment", from + at))?;
        hasher.update(bytes);
        at += now;
    }
    if hasher.finish() != trailer.parity_hash {
        let fault = Fault::Hash { by: "trailer" };
        report.note(Corrupt { section: Section::ParityArea, offset: from, fault });
    }
    Ok(())
}

/// Both trailers, the superblock copy and the gap, as those of an image.
fn verify_image_tail(
    file: &dyn ReadAt,
    examined: &Examined,
    trailer: &Trailer,
    slots: u64,
    report: &mut VerifyReport,
) -> Result<()> {
    let len = file.len();
    let features = features_of(trailer);
    let first = len - tail_len(features);
    for (copy, offset) in [(1, first), (2, len - PAGE)] {
        let read = Trailer::from_bytes(&read_page(file, offset)?, copy, offset);
        if let Some(read) = report.keep(read)?
            && read != *trailer
        {
            let fault = Fault::Differs { field: "content", other: "last trailer" };
            report.note(Corrupt { section: Section::Trailer, offset, fault });
        }
    }
    let gap = first + PAGE;
    let section = Section::SegmentGap(examined.place.number());
    check_zeros(file, gap + slots, gap + trailer_gap(features), section, report)?;
    let offset = len - 2 * PAGE;
    let page = read_page(file, offset)?;
    let copy = Superblock::from_bytes(&page, Section::SuperblockCopy, offset);
    let copy = copy.map_err(|error| match error {
        Error::Corrupt(_) => error,
        _ => Fault::Magic.at(Section::SuperblockCopy, offset),
    });
    if report.keep(copy)?.is_some()
        && examined.superblock.is_some()
        && Superblock::with_place(&page, examined.place) != read_page(file, 0)?
    {
        let fault = Fault::Differs { field: "content", other: "superblock" };
        report.note(Corrupt { section: Section::SuperblockCopy, offset, fault });
    }
    Ok(())
}

/// The copies of the key slots in this segment: the first one has that behind the superblock, the
/// last one that between the trailers. They are proven by their own checksums.
fn verify_slots(
    file: &dyn ReadAt,
    examined: &Examined,
    superblock: &Superblock,
    report: &mut VerifyReport,
) -> Result<()> {
    let first = (examined.place.no == 0).then_some(PAGE);
    let second = match &examined.end {
        End::Image(trailer) => Some(file.len() - tail_len(features_of(trailer)) + PAGE),
        End::Segment(_) => None,
    };
    let mut bytes = vec![0; usize::try_from(superblock.slot_area_len()).unwrap_or(0)];
    for offset in first.into_iter().chain(second) {
        file.read_exact_at(&mut bytes, offset).map_err(Error::io("read key slots", offset))?;
        if let Some(fault) = fault_of_slots(&bytes, superblock, None) {
            report.note(Corrupt { section: Section::KeySlots, offset, fault });
        }
    }
    Ok(())
}

/// Pieces of a slice, and where their hashes are.
struct Pieces {
    /// Place in the file of the list, and number in it of the first piece of the slice.
    list: u64,
    first: u64,
    /// Where in the slice the pieces end.
    end: u64,
    /// Bytes of the key-slot area of the image, which count as zeros.
    slots: u64,
}

fn check_pieces(
    file: &dyn ReadAt,
    examined: &Examined,
    pieces: &Pieces,
    report: &mut VerifyReport,
    job: Job<'_>,
) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(PIECE * PIECES_PER_READ).unwrap_or(0)];
    let mut at = 0;
    while at < pieces.end {
        job.check()?;
        let now = (pieces.end - at).min(PIECE * PIECES_PER_READ);
        let offset = examined.place.head_len() + at;
        let bytes = &mut buffer[..usize::try_from(now).unwrap_or(0)];
        file.read_exact_at(bytes, offset).map_err(Error::io("read segment", offset))?;
        let first = pieces.list + (pieces.first + at / PIECE) * 32;
        let listed: Vec<Digest> = read_hashes(file, first, now.div_ceil(PIECE))?;
        let chunks = bytes.chunks(crate::limits::PIECE_SIZE);
        let first = (examined.place.start + at) / PIECE;
        for (number, (bytes, digest)) in (0..).zip(chunks.zip(listed)) {
            if hash::piece(first + number, bytes, pieces.slots) != digest {
                let section = Section::SegmentPiece(examined.place.number());
                let offset = offset + number * PIECE;
                report.note(Corrupt { section, offset, fault: Fault::Hash { by: "stored list" } });
            }
        }
        report.bytes_checked += now;
        job.progress.advance(Step::VerifyImage, now);
        at += now;
    }
    Ok(())
}

/// Notes the first byte of each page of a stretch that is not zero.
fn check_zeros(
    file: &dyn ReadAt,
    from: u64,
    to: u64,
    section: Section,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut page = [0; PAGE_SIZE];
    let mut at = from;
    while at < to {
        let now = usize::try_from(to - at).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        file.read_exact_at(&mut page[..now], at).map_err(Error::io("read segment", at))?;
        if let Some(set) = first_nonzero(&page[..now]) {
            report.note(Corrupt { section, offset: at, fault: Fault::Reserved { at: set } });
        }
        at += now as u64;
    }
    Ok(())
}
