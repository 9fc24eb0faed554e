//! Segments as far as they are there: the stream of a split image with holes in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use super::examine::{End, Examined};
use super::join::SegmentFile;
use super::{PAGE, PIECE, base_name, segment_name};
use crate::error::{Error, Result, Section, SegmentError};
use crate::ids::ImageId;
use crate::image::read_page;
use crate::layout::{Features, SegmentPlace, Superblock};
use crate::limits::SEGMENTS_MAX;

/// What can be told about a segment, however damaged.
#[derive(Clone)]
struct Look {
    name: String,
    file: Arc<dyn ReadAt>,
    place: SegmentPlace,
    /// Bytes of its slice; `None` when its tail does not tell.
    slice_len: Option<u64>,
    /// Of the last one: how many there are, and the bytes of the stream.
    ends: Option<(u32, u64)>,
}

impl Look {
    fn at(file: &SegmentFile, image: ImageId) -> Option<Self> {
        let SegmentFile { name, file } = file.clone();
        if let Ok(examined) = Examined::of(&*file) {
            let ends = match &examined.end {
                End::Image(trailer) => Some((trailer.segment_count, trailer.file_len)),
                End::Segment(_) => None,
            };
            let (place, slice_len) = (examined.place, Some(examined.slice_len));
            return (examined.image == image).then_some(Self {
                name,
                file,
                place,
                slice_len,
                ends,
            });
        }
        let page = read_page(&*file, 0).ok()?;
        let (superblock, place) = Superblock::of_segment(&page, Section::Superblock, 0).ok()?;
        let is_ours =
            superblock.image == image && superblock.features.incompat & Features::SPLIT != 0;
        is_ours.then_some(Self { name, file, place, slice_len: None, ends: None })
    }
}

/// One segment of a torn image.
pub(crate) struct Slice {
    pub place: SegmentPlace,
    /// Where in the stream its slice ends.
    pub end: u64,
    /// Its file among those that were given; `None` when there is none, or nothing tells what is
    /// in it.
    pub file: Option<Arc<dyn ReadAt>>,
    /// Where the bytes of the stream come from instead.
    copy: Option<Arc<dyn ReadAt>>,
}

impl Slice {
    pub(crate) fn new(place: SegmentPlace, end: u64, file: &Arc<dyn ReadAt>) -> Self {
        Self { place, end, file: Some(file.clone()), copy: Some(file.clone()) }
    }
}

/// The stream of a split image: what is missing, or cut off, cannot be read.
pub(crate) struct Torn {
    pub slices: Vec<Slice>,
    len: u64,
}

impl Torn {
    /// The stream of slices that follow each other.
    pub(crate) fn of_slices(slices: Vec<Slice>) -> Self {
        let len = slices.last().map_or(0, |slice| slice.end);
        Self { slices, len }
    }

    /// Puts together what is left of `image` in `files`, and what of it others of `copies` have.
    ///
    /// # Errors
    /// [`Error::Segments`] when the last segment is missing, by which the others are proven, or so
    /// many in a row that nobody knows where one ended.
    pub(crate) fn of(
        image: ImageId,
        files: &[SegmentFile],
        copies: &[SegmentFile],
    ) -> Result<Self> {
        let own = by_number(image, files);
        let others = by_number(image, copies);
        let mut chosen: BTreeMap<u32, &Look> = BTreeMap::new();
        // What its tail tells, too, goes before what only a superblock does.
        for (whole, looks) in [(true, &own), (true, &others), (false, &own), (false, &others)] {
            for (no, look) in looks {
                if look.slice_len.is_some() == whole {
                    chosen.entry(*no).or_insert(look);
                }
            }
        }
        let base =
            own.values().chain(others.values()).next().map_or("NAME.aiv".to_owned(), |look| {
                if look.place.no == 0 { look.name.clone() } else { base_name(&look.name) }
            });
        let missing = |no: u32| {
            let pattern = segment_name(&base, no);
            Error::from(SegmentError::Missing { number: no.saturating_add(1), pattern })
        };
        let last = chosen.values().find_map(|look| Some((look.place.no, look.ends?)));
        let next = chosen.keys().next_back().map_or(0, |no| no + 1);
        let (no, (count, len)) = last.ok_or_else(|| missing(next))?;
        if no.checked_add(1) != Some(count) || count > SEGMENTS_MAX || next > count {
            let number = next.max(no + 1);
            return Err(SegmentError::Count { told: count, number }.into());
        }
        let mut slices: Vec<Slice> = Vec::new();
        let mut at = Some(0);
        for no in 0..count {
            let look = chosen.get(&no);
            let told = look.map(|look| look.place.start);
            let start = told.or(at).ok_or_else(|| missing(no))?;
            if let Some(before) = slices.last_mut() {
                // Where its own tail does not tell, the next one does.
                before.end = at.unwrap_or(start);
            }
            if at.is_some_and(|at| at != start)
                || slices.last().is_some_and(|s| s.place.start >= start)
            {
                let (number, expected) = (no + 1, at.unwrap_or(0));
                return Err(SegmentError::Misplaced { number, found: start, expected }.into());
            }
            at = look.and_then(|look| look.slice_len).and_then(|slice| start.checked_add(slice));
            slices.push(Slice {
                place: SegmentPlace { no, start },
                end: len,
                file: own.get(&no).map(|look| look.file.clone()),
                copy: look.map(|look| look.file.clone()),
            });
        }
        Ok(Self { slices, len })
    }

    /// What of it lies in the files themselves, and not in their copies.
    pub(crate) fn own(&self) -> Self {
        let own = |slice: &Slice| {
            let Slice { place, end, ref file, .. } = *slice;
            Slice { place, end, file: file.clone(), copy: file.clone() }
        };
        Self { slices: self.slices.iter().map(own).collect(), len: self.len }
    }

    /// Where the segments behind the first begin.
    pub(crate) fn borders(&self) -> Vec<u64> {
        self.slices.iter().skip(1).map(|slice| slice.place.start).collect()
    }

    /// Each of `files` that is a segment of `image`, as the part of the stream it is.
    pub(crate) fn alone(image: ImageId, files: &[SegmentFile]) -> Vec<Arc<dyn ReadAt>> {
        let looks = files.iter().filter_map(|file| Look::at(file, image));
        let streams = looks.map(|look| {
            let bytes = look.file.len().saturating_sub(look.place.head_len());
            let end = look.place.start.saturating_add(look.slice_len.unwrap_or(bytes));
            let (file, copy) = (None, Some(look.file));
            let slice = Slice { place: look.place, end, file, copy };
            Arc::new(Self { slices: vec![slice], len: end }) as Arc<dyn ReadAt>
        });
        streams.collect()
    }
}

/// The best file for each segment: of several the first that tells where it ends.
fn by_number(image: ImageId, files: &[SegmentFile]) -> BTreeMap<u32, Look> {
    let mut looks: BTreeMap<u32, Look> = BTreeMap::new();
    for look in files.iter().filter_map(|file| Look::at(file, image)) {
        let before = looks.get(&look.place.no);
        if before.is_none_or(|before| before.slice_len.is_none() && look.slice_len.is_some()) {
            looks.insert(look.place.no, look);
        }
    }
    looks
}

impl ReadAt for Torn {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut out, mut at) = (out, offset);
        while !out.is_empty() {
            let number = self.slices.partition_point(|slice| slice.place.start <= at);
            let slice = number.checked_sub(1).and_then(|number| self.slices.get(number));
            let slice = slice.filter(|slice| at < slice.end);
            let file = slice.and_then(|slice| Some((slice, slice.copy.as_ref()?)));
            let (slice, file) =
                file.ok_or_else(|| io::Error::other("no segment has these bytes"))?;
            let now = usize::try_from(slice.end - at).unwrap_or(usize::MAX).min(out.len());
            let (some, later) = out.split_at_mut(now);
            let place = slice.place.head_len() + (at - slice.place.start);
            file.read_exact_at(some, place).map_err(|error| match error.kind() {
                // A segment that was cut off is damage, not the end of the image.
                io::ErrorKind::UnexpectedEof => io::Error::other("the segment ends before"),
                _ => error,
            })?;
            out = later;
            at += now as u64;
        }
        Ok(())
    }
}

const _: () = assert!(PIECE.is_multiple_of(PAGE));
