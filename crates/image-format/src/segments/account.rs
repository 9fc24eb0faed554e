//! The account of what wraps the slices of a split image.

use aiv_volume_io::ReadAt;

use super::examine::End;
use super::join::Part;
use super::{PAGE, Segments, list_len};
use crate::image::TAIL_LEN;
use crate::limits::TRAILER_GAP;

/// One line per part of every segment; the lengths of a segment add up to that of its file.
pub(crate) fn account(segments: &Segments) -> Vec<String> {
    let mut lines = Vec::new();
    for Part { file, examined, .. } in &segments.parts {
        let (number, start) = (examined.place.number(), examined.place.start);
        let end = start + examined.slice_len;
        lines.push(format!(
            "segment {number}: bytes {start:#x} to {end:#x} of the image, in a file of {} bytes",
            file.len()
        ));
        let mut at = 0;
        let mut line = |len: u64, text: String| {
            lines.push(format!("  {at:#012x} +{len:<8} {text}"));
            at += len;
        };
        if examined.place.no > 0 {
            line(PAGE, "superblock of the segment".to_owned());
        }
        line(examined.slice_len, "slice of the image".to_owned());
        if let End::Segment(trailer) = &examined.end {
            let (pieces, root) = (trailer.pieces(), trailer.stored_root);
            line(list_len(pieces), format!("stored list, {pieces} pieces, root {root}"));
            debug_assert_eq!(TAIL_LEN, 3 * PAGE + TRAILER_GAP);
            line(PAGE, "trailer 1 of the segment".to_owned());
            line(TRAILER_GAP, "gap".to_owned());
            line(PAGE, "superblock copy of the segment".to_owned());
            line(PAGE, "trailer 2 of the segment".to_owned());
        }
    }
    lines
}
