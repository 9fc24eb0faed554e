//! Proves what wraps the slices of a split image. The bytes inside are proven as those of any
//! image.

use aiv_volume_io::ReadAt;

use super::examine::{End, Examined};
use super::join::Part;
use super::{PAGE, list_len};
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash::Tree;
use crate::ids::Digest;
use crate::image::{Image, TAIL_LEN, read_page};
use crate::layout::{SegmentTrailer, Superblock, first_nonzero};
use crate::limits::{PAGE_SIZE, TRAILER_GAP};
use crate::verify::VerifyReport;

/// Hashes read at once.
const PIECES_PER_READ: u64 = 8192;

impl Image {
    /// The superblock copies, gaps and lists of all segments; their superblocks and trailers were
    /// checked when they were joined.
    pub(crate) fn verify_segments(&self, report: &mut VerifyReport) -> Result<()> {
        let Some(segments) = &self.segments else { return Ok(()) };
        for Part { file, examined, .. } in &segments.parts {
            // The parsed ones were compared; rows of features mean nothing, and are the same all
            // the same.
            let expected = Superblock::with_place(&self.superblock_page, examined.place);
            if examined.superblock.is_some() && read_page(&**file, 0)? != expected {
                let section = Section::SegmentSuperblock(examined.place.number());
                let fault = Fault::Differs { field: "content", other: "superblock of the first" };
                report.note(Corrupt { section, offset: 0, fault });
            }
            let End::Segment(trailer) = &examined.end else { continue };
            verify_tail(&**file, examined, report)?;
            self.compare_list(&**file, examined, trailer, report)?;
        }
        Ok(())
    }

    /// The list of a segment is a part of that of the image.
    fn compare_list(
        &self,
        file: &dyn ReadAt,
        examined: &Examined,
        trailer: &SegmentTrailer,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let listed = self.trailer().stored_offset + trailer.first_piece() * 32;
        let own = examined.list_offset();
        let mut agree = true;
        let mut at = 0;
        while at < trailer.pieces() {
            let count = (trailer.pieces() - at).min(PIECES_PER_READ);
            let own = read_hashes(file, own + at * 32, count)?;
            agree &= own == read_hashes(&*self.file, listed + at * 32, count)?;
            at += count;
        }
        if !agree {
            let fault = Fault::Differs { field: "hashes", other: "stored list of the image" };
            let section = Section::SegmentList(examined.place.number());
            report.note(Corrupt { section, offset: own, fault });
        }
        verify_list(file, examined, trailer, report)
    }
}

/// The superblock copy and the gap of a segment with a tail of its own.
pub(super) fn verify_tail(
    file: &dyn ReadAt,
    examined: &Examined,
    report: &mut VerifyReport,
) -> Result<()> {
    let len = file.len();
    let offset = len - 2 * PAGE;
    let section = Section::SegmentSuperblock(examined.place.number());
    let page = read_page(file, offset)?;
    let copy = Superblock::of_segment(&page, section, offset);
    let copy = copy.map_err(|error| match error {
        Error::Foreign(_) => Fault::Magic.at(section, offset),
        Error::Unsupported(_) => {
            Fault::Differs { field: "version", other: "superblock" }.at(section, offset)
        }
        other => other,
    });
    if let Some((copy, place)) = report.keep(copy)? {
        let same = examined.superblock.is_none() || read_page(file, 0)? == page;
        if !same || copy.image != examined.image || place != examined.place {
            let fault = Fault::Differs { field: "content", other: "superblock" };
            report.note(Corrupt { section, offset, fault });
        }
    }
    let section = Section::SegmentGap(examined.place.number());
    let mut at = len - TAIL_LEN + PAGE;
    while at < len - TAIL_LEN + PAGE + TRAILER_GAP {
        if let Some(set) = first_nonzero(&read_page(file, at)?) {
            report.note(Corrupt { section, offset: at, fault: Fault::Reserved { at: set } });
        }
        at += PAGE;
    }
    Ok(())
}

/// The list of a segment against its root, and the padding behind it.
pub(super) fn verify_list(
    file: &dyn ReadAt,
    examined: &Examined,
    trailer: &SegmentTrailer,
    report: &mut VerifyReport,
) -> Result<()> {
    let offset = examined.list_offset();
    let section = Section::SegmentList(examined.place.number());
    let mut tree = Tree::stored();
    let mut at = 0;
    while at < trailer.pieces() {
        let count = (trailer.pieces() - at).min(PIECES_PER_READ);
        read_hashes(file, offset + at * 32, count)?.into_iter().for_each(|d| tree.push(d));
        at += count;
    }
    if tree.finish() != trailer.stored_root {
        let fault = Fault::Hash { by: "trailer of the segment" };
        report.note(Corrupt { section, offset, fault });
    }
    let end = offset + trailer.pieces() * 32;
    let padding = offset + list_len(trailer.pieces()) - end;
    let mut bytes = [0; PAGE_SIZE];
    let bytes = &mut bytes[..usize::try_from(padding).unwrap_or(0)];
    file.read_exact_at(bytes, end).map_err(Error::io("read segment", end))?;
    if let Some(at) = first_nonzero(bytes) {
        report.note(Corrupt { section, offset: end, fault: Fault::Reserved { at } });
    }
    Ok(())
}

/// Hashes of a list; `count` is bounded by [`PIECES_PER_READ`].
pub(super) fn read_hashes(file: &dyn ReadAt, offset: u64, count: u64) -> Result<Vec<Digest>> {
    let mut bytes = vec![0; usize::try_from(count.min(PIECES_PER_READ) * 32).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset).map_err(Error::io("read stored list", offset))?;
    let digest = |chunk: &[u8; 32]| Digest(*chunk);
    Ok(bytes.as_chunks::<32>().0.iter().map(digest).collect())
}
