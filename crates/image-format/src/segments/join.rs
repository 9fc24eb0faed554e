//! Segments as the stream they are slices of.

use std::io;
use std::sync::Arc;

use aiv_keys::Keys;
use aiv_volume_io::ReadAt;

use super::examine::{End, Examined};
use super::{base_name, segment_name};
use crate::error::{Corrupt, Error, Fault, Result, Section, SegmentError};
use crate::image::Image;
use crate::limits::SEGMENTS_MAX;

/// A file that may be a segment, and what it is called: names go into messages only.
#[derive(Clone)]
pub struct SegmentFile {
    /// The name.
    pub name: String,
    /// The bytes.
    pub file: Arc<dyn ReadAt>,
}

/// The segments of one image, checked against each other: the bytes of the image.
pub struct Segments {
    pub(super) parts: Vec<Part>,
    len: u64,
    damage: Vec<Corrupt>,
}

pub(super) struct Part {
    pub name: String,
    pub file: Arc<dyn ReadAt>,
    pub examined: Examined,
}

impl Part {
    fn start(&self) -> u64 {
        self.examined.place.start
    }
}

impl Segments {
    /// Joins segments, given in any order. Every one of the image must be among them, and
    /// nothing else.
    ///
    /// # Errors
    /// [`Error::Segments`] when one is missing, there twice, of another image, out of place or
    /// cut off; [`Error::Corrupt`] when one is damaged beyond its second copies; those of
    /// [`Image::open`](crate::Image::open) for a file that is no segment at all.
    pub fn join(files: Vec<SegmentFile>) -> Result<Self> {
        if files.len() > SEGMENTS_MAX as usize {
            return Err(Error::Misuse("more segments than an image has"));
        }
        let mut parts = Vec::with_capacity(files.len());
        for SegmentFile { name, file } in files {
            let examined = Examined::of(&*file)?;
            parts.push(Part { name, file, examined });
        }
        parts.sort_by(|a, b| (a.examined.place.no, &a.name).cmp(&(b.examined.place.no, &b.name)));
        check_together(&parts)?;
        let mut damage = Vec::new();
        parts.iter_mut().for_each(|part| damage.append(&mut part.examined.damage));
        let len = parts.last().map_or(0, |part: &Part| part.start() + part.examined.slice_len);
        Ok(Self { parts, len, damage })
    }

    /// Number of segments.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of all the files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.file.len()))
    }

    /// Bytes of the largest file.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.parts.iter().map(|part| part.file.len()).max().unwrap_or(0)
    }

    /// Damage found while joining that a second copy makes up for.
    #[must_use]
    pub fn damage(&self) -> &[Corrupt] {
        &self.damage
    }

    /// Where a byte of the image is: the name of its file, as it was given, and the place there.
    /// `None` behind the end.
    #[must_use]
    pub fn place_of(&self, offset: u64) -> Option<(&str, u64)> {
        let part = self.parts.get(self.part_at(offset)).filter(|_| offset < self.len)?;
        Some((&part.name, part.examined.place.head_len() + offset - part.start()))
    }

    fn part_at(&self, offset: u64) -> usize {
        self.parts.partition_point(|part| part.start() <= offset).saturating_sub(1)
    }
}

/// Each segment where it belongs, and all of one image. Sorted by number.
fn check_together(parts: &[Part]) -> Result<()> {
    let Some(first) = parts.first() else {
        return Err(Error::Misuse("an image of no segments"));
    };
    // The name of the first one, if it is there, tells those of the others.
    let base = match first.examined.place.no {
        0 => first.name.clone(),
        _ => base_name(&first.name),
    };
    let missing = |no: u32| {
        let pattern = segment_name(&base, no);
        Error::from(SegmentError::Missing { number: no.saturating_add(1), pattern })
    };
    let image = first.examined.image;
    for part in parts {
        if part.examined.image != image {
            let (number, file) = (part.examined.place.number(), part.name.clone());
            return Err(SegmentError::Stranger { number, file }.into());
        }
    }
    let mut at = 0;
    let mut ended = None;
    for (no, part) in (0..).zip(parts) {
        let Examined { place, .. } = part.examined;
        if no > 0 && place.no + 1 == no {
            let (number, file) = (place.number(), part.name.clone());
            return Err(SegmentError::Twice { number, file }.into());
        }
        if let Some(told) = ended {
            return Err(SegmentError::Count { told, number: place.number() }.into());
        }
        if place.no != no {
            return Err(missing(no));
        }
        if place.start != at {
            let (number, found) = (place.number(), place.start);
            return Err(SegmentError::Misplaced { number, found, expected: at }.into());
        }
        at = at.saturating_add(part.examined.slice_len);
        if let End::Image(trailer) = &part.examined.end {
            ended = Some(trailer.segment_count);
        }
        check_superblock(first, part)?;
    }
    match ended {
        Some(_) => Ok(()),
        None => Err(missing(u32::try_from(parts.len()).unwrap_or(u32::MAX))),
    }
}

/// All superblocks say the same but for the place; damaged ones were noted.
fn check_superblock(first: &Part, part: &Part) -> Result<()> {
    match (&first.examined.superblock, &part.examined.superblock) {
        (Some(first), Some(own)) if first != own => {
            let section = Section::SegmentSuperblock(part.examined.place.number());
            let fault = Fault::Differs { field: "content", other: "superblock of the first" };
            Err(fault.at(section, 0))
        }
        _ => Ok(()),
    }
}

impl ReadAt for Segments {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut out = out;
        while !out.is_empty() {
            let part = &self.parts[self.part_at(at)];
            let within = at - part.start();
            let left = part.examined.slice_len - within;
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
            let (some, later) = out.split_at_mut(now);
            part.file.read_exact_at(some, part.examined.place.head_len() + within)?;
            out = later;
            at += now as u64;
        }
        Ok(())
    }
}

impl Image {
    /// Tells an image that was opened from joined segments about them: their damage is damage of
    /// the image, and verifying it proves them, too.
    #[must_use]
    pub fn with_segments(mut self, segments: Arc<Segments>) -> Self {
        self.damage.extend(segments.damage().iter().cloned());
        self.segments = Some(segments);
        self
    }

    /// The segments of a split image; `None` for one that is a single file.
    #[must_use]
    pub fn segments(&self) -> Option<&Segments> {
        self.segments.as_deref()
    }

    /// Opens an image from its segments.
    ///
    /// # Errors
    /// Those of [`Segments::join`] and [`Image::open`].
    pub fn open_segments(files: Vec<SegmentFile>) -> Result<Self> {
        Self::open_segments_with(files, &Keys::none())
    }

    /// Opens an image from its segments with whichever of `keys` is its key.
    ///
    /// # Errors
    /// Those of [`Segments::join`] and [`Image::open_with`].
    pub fn open_segments_with(files: Vec<SegmentFile>, keys: &Keys) -> Result<Self> {
        let segments = Arc::new(Segments::join(files)?);
        Ok(Self::open_with(segments.clone(), keys)?.with_segments(segments))
    }
}
