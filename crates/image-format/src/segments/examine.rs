//! What one segment says about itself, at both ends.

use aiv_volume_io::ReadAt;

use super::{PAGE, PIECE, list_len};
use crate::error::{Corrupt, Error, Fault, Foreign, Result, Section, SegmentError};
use crate::ids::{ImageId, PointId, SetId};
use crate::image::{TAIL_LEN, check_areas, read_page, tail_len};
use crate::layout::{Features, SegmentPlace, SegmentTrailer, Superblock, Trailer};
use crate::limits::{PAGE_SIZE, SEGMENTS_MAX};

const WITH_PARITY: Features =
    Features { incompat: Features::PARITY, ro_compat: 0, compat: 0, autoclear: 0 };

/// Which segment of which image a file is, as far as its superblock or its tail tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// The image.
    pub image: ImageId,
    /// Its set.
    pub set: SetId,
    /// The point it provides.
    pub point: PointId,
    /// Number of the segment, from 0.
    pub no: u32,
}

/// Which segment of a split image `file` is, finished or not; `None` when it is none or neither
/// end of it can be read.
#[must_use]
pub fn peek_segment(file: &dyn ReadAt) -> Option<SegmentHead> {
    let page = read_page(file, 0).ok();
    let sound = page.and_then(|p| Superblock::of_segment(&p, Section::Superblock, 0).ok());
    if let Some((superblock, place)) = sound {
        let Superblock { image, set, point, features, .. } = superblock;
        let is_split = features.incompat & Features::SPLIT != 0;
        return is_split.then_some(SegmentHead { image, set, point, no: place.no });
    }
    let examined = Examined::of(file).ok()?;
    let Examined { image, set, point, place, .. } = examined;
    Some(SegmentHead { image, set, point, no: place.no })
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// With a tail of its own: others follow.
    Segment(SegmentTrailer),
    /// With the tail of the image.
    Image(Box<Trailer>),
}

/// A segment both ends of which were looked at, and one of each kind of record is sound.
#[derive(Debug)]
pub(super) struct Examined {
    pub image: ImageId,
    pub set: SetId,
    pub point: PointId,
    pub place: SegmentPlace,
    /// `None` when it is damaged: the tail stands for it.
    pub superblock: Option<Superblock>,
    pub end: End,
    /// Bytes of the stream in it.
    pub slice_len: u64,
    /// Damage that the other copy makes up for.
    pub damage: Vec<Corrupt>,
}

impl Examined {
    /// Looks at a file and checks what it says about itself.
    pub(super) fn of(file: &dyn ReadAt) -> Result<Self> {
        let len = file.len();
        if len < PAGE {
            return Err(Error::Foreign(Foreign::TooShort { len }));
        }
        let mut damage = Vec::new();
        let head = read_page(file, 0)
            .map_err(unreadable(Section::Superblock, 0))
            .and_then(|page| Superblock::of_segment(&page, Section::Superblock, 0));
        let head = match head {
            Ok((superblock, _)) if superblock.features.incompat & Features::SPLIT == 0 => {
                return Err(SegmentError::NotSplit.into());
            }
            Ok(head) => Ok(head),
            Err(error @ (Error::Corrupt(_) | Error::Foreign(_))) => Err(error),
            Err(error) => return Err(error),
        };
        let number = head.as_ref().map_or(0, |(_, place)| place.number());
        if len < PAGE + TAIL_LEN {
            let (_, place) = head?;
            return Err(SegmentError::CutOff { number: place.number(), len }.into());
        }
        let end = match read_end(file, number, &mut damage)? {
            Some(end) => end,
            None => {
                let (_, place) = head?;
                return Err(SegmentError::CutOff { number: place.number(), len }.into());
            }
        };
        let (image, set, point, told) = identity(&end, len)?;
        let (superblock, place) = match head {
            Ok((superblock, place)) => {
                let number = place.number();
                let at = |fault: Fault| fault.at(Section::SegmentTrailer(number), len - PAGE);
                if superblock.image != image {
                    return Err(at(Fault::Stranger));
                }
                if (superblock.set, superblock.point) != (set, point) {
                    let (field, other) = ("identity", "superblock");
                    return Err(at(Fault::Differs { field, other }));
                }
                if place != told {
                    return Err(at(Fault::Differs { field: "place", other: "superblock" }));
                }
                (Some(superblock), place)
            }
            // The image notices the damage of its own superblock by itself.
            Err(error) => {
                let fault = match error {
                    Error::Corrupt(Corrupt { fault, .. }) => fault,
                    _ => Fault::Magic,
                };
                let section = Section::SegmentSuperblock(told.number());
                if told.no > 0 {
                    damage.push(Corrupt { section, offset: 0, fault });
                }
                (None, told)
            }
        };
        let slice_len = match &end {
            End::Segment(trailer) => trailer.slice_len,
            End::Image(_) => len - place.head_len(),
        };
        Ok(Self { image, set, point, place, superblock, end, slice_len, damage })
    }

    /// The superblock, or its copy in the tail where the first one is damaged.
    pub(super) fn either_superblock(&self, file: &dyn ReadAt) -> Option<Superblock> {
        self.superblock.clone().or_else(|| {
            let offset = file.len().checked_sub(2 * PAGE)?;
            let page = read_page(file, offset).ok()?;
            let copy = Superblock::of_segment(&page, Section::SuperblockCopy, offset).ok()?.0;
            (copy.image == self.image).then_some(copy)
        })
    }

    /// Where in its file the list of its pieces begins; only of a segment with a tail of its own.
    pub(super) fn list_offset(&self) -> u64 {
        self.place.head_len() + self.slice_len
    }
}

/// What the end of a file of `len` bytes says about which segment it is.
fn identity(end: &End, len: u64) -> Result<(ImageId, SetId, PointId, SegmentPlace)> {
    match end {
        End::Segment(t) => {
            let at = |fault: Fault| fault.at(Section::SegmentTrailer(t.place.number()), len - PAGE);
            if t.file_len != len {
                return Err(at(Fault::Differs { field: "file length", other: "file" }));
            }
            // All three are bounded far below where a sum could wrap.
            if t.place.head_len() + t.slice_len + list_len(t.pieces()) + TAIL_LEN != len {
                return Err(at(Fault::Differs { field: "slice length", other: "file" }));
            }
            Ok((t.image, t.set, t.point, t.place))
        }
        End::Image(t) => {
            let at = |fault: Fault| fault.at(Section::Trailer, len - PAGE);
            check_areas(t, features_of(t))?;
            let allowed = "1 to 1,000 in a split image";
            let no = t.segment_count.checked_sub(1).filter(|&no| no < SEGMENTS_MAX);
            let found = t.segment_count.into();
            let no = no.ok_or(at(Fault::Value { field: "segment_count", found, allowed }))?;
            let head = SegmentPlace { no, start: 0 }.head_len();
            let start = t.file_len.checked_sub(len - head);
            let start = start.filter(|start| {
                (no == 0) == (*start == 0) && start.is_multiple_of(PIECE) && *start <= t.meta_offset
            });
            let differs = Fault::Differs { field: "file length", other: "file" };
            let start = start.ok_or_else(|| at(differs))?;
            Ok((t.image, t.set, t.point, SegmentPlace { no, start }))
        }
    }
}

/// The features that the areas of an image show: with parity over its pieces its tail is longer.
pub(super) fn features_of(trailer: &Trailer) -> Features {
    let tail = trailer.parity_offset.checked_add(trailer.parity_len);
    match tail.and_then(|end| end.checked_add(tail_len(WITH_PARITY))) == Some(trailer.file_len) {
        true => WITH_PARITY,
        false => Features::default(),
    }
}

/// The trailer at the end of a file, of either kind, by the copy that is sound; `None` when there
/// is none, and damage when there was one.
fn read_end(file: &dyn ReadAt, number: u32, damage: &mut Vec<Corrupt>) -> Result<Option<End>> {
    let len = file.len();
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let read = |copy: u8, offset: u64| {
        let page =
            read_page(file, offset).map_err(unreadable(Section::SegmentTrailer(number), offset));
        page.and_then(|page| read_copy(&page, copy, number, offset))
    };
    for (copy, offset) in [(2, len - PAGE), (1, len - TAIL_LEN)] {
        // Where the first trailer of an image with parity over its pieces lies instead.
        let elsewhere = len.checked_sub(tail_len(WITH_PARITY)).filter(|_| copy == 1);
        let end = match (read(copy, offset), elsewhere.map(|other| read(copy, other))) {
            (Err(Error::Corrupt(_)), Some(Ok(end @ End::Image(_)))) => Ok(end),
            (end, _) => end,
        };
        match end {
            Ok(end) => found.push((offset, end)),
            Err(Error::Corrupt(corrupt)) => faults.push(corrupt),
            Err(error) => return Err(error),
        }
    }
    match found.as_slice() {
        [] => {
            let there = faults.into_iter().find(|corrupt| corrupt.fault != Fault::Magic);
            there.map_or(Ok(None), |corrupt| Err(corrupt.into()))
        }
        [(_, end)] => {
            // The image lists the damage of its own trailers by itself.
            if matches!(end, End::Segment(_)) {
                damage.extend(faults);
            }
            Ok(Some(end.clone()))
        }
        [(_, last), (offset, first), ..] => {
            if let (End::Segment(_), true) = (last, last != first) {
                let fault = Fault::Differs { field: "content", other: "last trailer" };
                let section = Section::SegmentTrailer(number);
                damage.push(Corrupt { section, offset: *offset, fault });
            }
            Ok(Some(last.clone()))
        }
    }
}

fn read_copy(page: &[u8; PAGE_SIZE], copy: u8, number: u32, offset: u64) -> Result<End> {
    if SegmentTrailer::is_one(page) {
        return SegmentTrailer::from_bytes(page, copy, number, offset).map(End::Segment);
    }
    Trailer::from_bytes(page, copy, offset).map(|trailer| End::Image(Box::new(trailer)))
}

fn unreadable(section: Section, offset: u64) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Io { source, .. } => Fault::Unreadable(source.to_string()).at(section, offset),
        other => other,
    }
}
