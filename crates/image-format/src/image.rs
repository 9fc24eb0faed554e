//! Opens a finished image and reads blocks from it.

use std::sync::Arc;

use aiv_volume_io::ReadAt;

use crate::error::{Corrupt, Error, Fault, Foreign, Result, Section, SegmentError};
use crate::hash;
use crate::ids::{BlockIndex, Geometry, SetId};
use crate::index::{Entries, Index};
use crate::layout::{Features, IndexEntry, SegmentTrailer, Superblock, Trailer};
use crate::limits::{BLOCK_SIZE_MAX, META_TOTAL_MAX, PAGE_SIZE, PIECE_SIZE, TRAILER_GAP};
use crate::meta::{self, Meta};
use crate::segments::Segments;

/// Bytes after the stored list: trailer, gap, superblock copy, trailer.
pub(crate) const TAIL_LEN: u64 = 3 * PAGE_SIZE as u64 + TRAILER_GAP;

/// One finished image file, opened for reading.
///
/// Opening checks superblock, trailer, the bounds of every area and META, and reads nothing
/// else, so it costs the same for any size. Damage that a second copy makes up for does not
/// stop it and is listed by [`Image::damage`].
pub struct Image {
    pub(crate) file: Arc<dyn ReadAt>,
    superblock: Superblock,
    trailer: Trailer,
    meta: Meta,
    has_meta: bool,
    pub(crate) damage: Vec<Corrupt>,
    pub(crate) index: Index,
    /// Of a split image that was opened from its segments.
    pub(crate) segments: Option<Arc<Segments>>,
}

impl Image {
    /// Opens the image in `file`.
    ///
    /// # Errors
    /// [`Error::Foreign`] when it is no image of ours, [`Error::Incomplete`] when it was never
    /// finished or its end is missing, [`Error::Unsupported`] when it needs a newer program,
    /// [`Error::Corrupt`] when it is damaged beyond the second copies, [`Error::Io`].
    pub fn open(file: Arc<dyn ReadAt>) -> Result<Self> {
        let mut damage = Vec::new();
        let superblock = read_superblock(&*file, &mut damage)?;
        let trailer = read_trailer(&*file, &superblock, &mut damage)?;
        check_areas(&trailer)?;
        let (content, map) = (&trailer.content_root, &trailer.map_root);
        if hash::state_root(&superblock.geometry, content, map) != trailer.state_root {
            let fault = Fault::Differs { field: "state root", other: "roots it is made of" };
            return Err(fault.at(Section::Trailer, trailer.file_len - PAGE_SIZE as u64));
        }
        let meta = match meta::read_area(&*file, &trailer, &superblock.geometry) {
            Ok(meta) => Some(meta),
            // No block depends on META: the disk can still be read.
            Err(Error::Corrupt(corrupt)) => {
                damage.push(corrupt);
                None
            }
            Err(other) => return Err(other),
        };
        let has_meta = meta.is_some();
        let meta = meta.unwrap_or_default();
        let index = Index::new(file.clone(), &superblock, &trailer)?;
        Ok(Self { file, superblock, trailer, meta, has_meta, damage, index, segments: None })
    }

    /// What was known before the first block.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What was known after the last block.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Whether META could be read. Without it blocks can be, but nothing says whose they are.
    #[must_use]
    pub fn has_meta(&self) -> bool {
        self.has_meta
    }

    /// What the image says about its point; empty when META is damaged.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Length, block size and sector size.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.superblock.geometry
    }

    /// Damage found while opening that did not stop it: a second copy made up for it, or it is
    /// in META.
    #[must_use]
    pub fn damage(&self) -> &[Corrupt] {
        &self.damage
    }

    /// The bytes of the file, for copying frames as they are.
    #[must_use]
    pub fn file(&self) -> &dyn ReadAt {
        &*self.file
    }

    /// The index entry that covers `block`; `None` when the image does not decide it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an index page on the way is damaged, [`Error::Io`].
    pub fn entry(&self, block: BlockIndex) -> Result<Option<IndexEntry>> {
        self.index.find(block)
    }

    /// The index entries in block order, from the one that covers or follows `first`.
    #[must_use]
    pub fn entries(&self, first: BlockIndex) -> Entries<'_> {
        self.index.entries(first)
    }
}

pub(crate) fn read_page(file: &dyn ReadAt, offset: u64) -> Result<[u8; PAGE_SIZE]> {
    let mut page = [0; PAGE_SIZE];
    file.read_exact_at(&mut page, offset).map_err(Error::io("read image", offset))?;
    Ok(page)
}

/// The superblock at the start of `file`, whether or not the image was finished, and of whichever
/// segment of a split one; `None` when there is no sound one.
#[must_use]
pub fn peek(file: &dyn ReadAt) -> Option<Superblock> {
    let page = read_page(file, 0).ok()?;
    let found = Superblock::of_segment(&page, Section::Superblock, 0).ok()?;
    Some(found.0)
}

/// The set named by the superblock at the start of `file`: see [`peek`].
#[must_use]
pub fn peek_set(file: &dyn ReadAt) -> Option<SetId> {
    peek(file).map(|superblock| superblock.set)
}

/// Reads the superblock, or its copy when the first is damaged.
fn read_superblock(file: &dyn ReadAt, damage: &mut Vec<Corrupt>) -> Result<Superblock> {
    let len = file.len();
    if len < PAGE_SIZE as u64 {
        return Err(Error::Foreign(Foreign::TooShort { len }));
    }
    let first = read_copy(file, Section::Superblock, 0)
        .and_then(|page| Superblock::from_bytes(&page, Section::Superblock, 0));
    let first_error = match first {
        Ok(superblock) => return Ok(superblock),
        Err(error @ (Error::Corrupt(_) | Error::Foreign(_))) => error,
        Err(error) => return Err(error),
    };
    if len < TAIL_LEN + PAGE_SIZE as u64 {
        return Err(first_error);
    }
    let offset = len - 2 * PAGE_SIZE as u64;
    let copy = Superblock::from_bytes(&read_page(file, offset)?, Section::SuperblockCopy, offset);
    // Without a magic number here, one at the end still tells a damaged image from a foreign file.
    let ours = match &copy {
        Err(Error::Foreign(_)) => has_trailer(file)?,
        _ => true,
    };
    let first_error = match first_error {
        Error::Foreign(_) if ours => Fault::Magic.at(Section::Superblock, 0),
        error => error,
    };
    match (copy, first_error) {
        (Ok(superblock), Error::Corrupt(first)) => {
            damage.push(first);
            Ok(superblock)
        }
        (Err(error @ Error::Unsupported(_)), _) => Err(error),
        (_, first_error) => Err(first_error),
    }
}

/// A bad sector under one of two copies is damage of that copy, and no reason to stop.
fn read_copy(file: &dyn ReadAt, section: Section, offset: u64) -> Result<[u8; PAGE_SIZE]> {
    read_page(file, offset).map_err(|error| match error {
        Error::Io { source, .. } => Fault::Unreadable(source.to_string()).at(section, offset),
        other => other,
    })
}

/// Whether an intact trailer lies where one belongs.
fn has_trailer(file: &dyn ReadAt) -> Result<bool> {
    let (last, first) = (file.len() - PAGE_SIZE as u64, file.len() - TAIL_LEN);
    Ok(Trailer::from_bytes(&read_page(file, last)?, 2, last).is_ok()
        || Trailer::from_bytes(&read_page(file, first)?, 1, first).is_ok())
}

/// Reads the last trailer, or the first one when the last is damaged.
fn read_trailer(
    file: &dyn ReadAt,
    superblock: &Superblock,
    damage: &mut Vec<Corrupt>,
) -> Result<Trailer> {
    let len = file.len();
    if len < TAIL_LEN + PAGE_SIZE as u64 {
        return Err(Error::Incomplete { len });
    }
    let is_split = superblock.features.incompat & Features::SPLIT != 0;
    let read = |copy: u8, offset: u64| {
        let page = read_copy(file, Section::Trailer, offset)?;
        let trailer = Trailer::from_bytes(&page, copy, offset)?;
        let fault = if trailer.image != superblock.image {
            Fault::Stranger
        } else if trailer.file_len != len {
            Fault::Differs { field: "file length", other: "file" }
        } else if (trailer.set, trailer.point) != (superblock.set, superblock.point)
            || trailer.parent != superblock.parent
        {
            Fault::Differs { field: "identity", other: "superblock" }
        } else if (trailer.segment_count > 0) != is_split {
            Fault::Differs { field: "segment count", other: "superblock" }
        } else {
            return Ok(trailer);
        };
        Err(fault.at(Section::Trailer, offset))
    };
    // A segment of a split image ends with a tail of another kind.
    if is_split {
        for (copy, offset) in [(2, len - PAGE_SIZE as u64), (1, len - TAIL_LEN)] {
            let page = read_copy(file, Section::Trailer, offset);
            let own = page.and_then(|page| SegmentTrailer::from_bytes(&page, copy, 0, offset));
            if let Ok(own) = own {
                return Err(SegmentError::part(own.image, own.place.no).into());
            }
        }
    }
    let mut note = |error| match error {
        Error::Corrupt(corrupt) => {
            damage.push(corrupt);
            Ok(())
        }
        other => Err(other),
    };
    match (read(2, len - PAGE_SIZE as u64), read(1, len - TAIL_LEN)) {
        (Ok(last), Ok(first)) => {
            if last != first {
                let fault = Fault::Differs { field: "content", other: "last trailer" };
                damage.push(Corrupt { section: Section::Trailer, offset: len - TAIL_LEN, fault });
            }
            Ok(last)
        }
        (Ok(trailer), Err(error)) | (Err(error), Ok(trailer)) => {
            note(error)?;
            Ok(trailer)
        }
        (Err(Error::Corrupt(last)), Err(Error::Corrupt(first))) => {
            if let (Fault::Unreadable(why), Fault::Unreadable(_)) = (&last.fault, &first.fault) {
                let source = std::io::Error::other(why.clone());
                return Err(Error::Io { op: "read both trailers", offset: last.offset, source });
            }
            let there = [last, first].into_iter().find(|c| !means_absent(&c.fault));
            Err(there.map_or(Error::Incomplete { len }, Error::Corrupt))
        }
        (Err(Error::Corrupt(_)), Err(error)) | (Err(error), Err(_)) => Err(error),
    }
}

/// Whether the bytes at the place of a trailer are something else, rather than a damaged one:
/// data of an unfinished image, or the first trailer where the last should be.
fn means_absent(fault: &Fault) -> bool {
    matches!(fault, Fault::Magic | Fault::Value { field: "copy", .. })
}

/// Every area begins where the one before it ends; all sums are checked.
pub(crate) fn check_areas(trailer: &Trailer) -> Result<()> {
    let pages = |offset: u64, count: u64| {
        count.checked_mul(PAGE_SIZE as u64).and_then(|len| offset.checked_add(len))
    };
    let aligned = |offset: u64| offset.checked_next_multiple_of(PAGE_SIZE as u64);
    let meta_end = trailer.meta_offset.checked_add(trailer.meta_len);
    let list_len = trailer.stored_pieces.checked_mul(32);
    let list_end = list_len.and_then(|len| trailer.stored_offset.checked_add(len));
    let checks = [
        ("frame area", trailer.frames_end >= PAGE_SIZE as u64),
        ("frame area", trailer.frames_end.is_multiple_of(PAGE_SIZE as u64)),
        ("index offset", trailer.index_offset == trailer.frames_end),
        (
            "index pages",
            Some(trailer.tree_offset) == pages(trailer.index_offset, trailer.index_pages),
        ),
        ("tree pages", Some(trailer.meta_offset) == pages(trailer.tree_offset, trailer.tree_pages)),
        ("META length", trailer.meta_len <= META_TOTAL_MAX),
        ("META length", meta_end.and_then(aligned) == Some(trailer.stored_offset)),
        ("piece count", trailer.stored_pieces == trailer.stored_offset.div_ceil(PIECE_SIZE as u64)),
        (
            "file length",
            list_end.and_then(aligned).and_then(|end| end.checked_add(TAIL_LEN))
                == Some(trailer.file_len),
        ),
        ("last checkpoint", trailer.last_checkpoint < trailer.frames_end),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((field, _)) => {
            let fault = Fault::Differs { field, other: "areas around it" };
            Err(fault.at(Section::Trailer, trailer.file_len.saturating_sub(PAGE_SIZE as u64)))
        }
    }
}

const _: () = assert!(BLOCK_SIZE_MAX as usize + PAGE_SIZE < crate::limits::STORED_LEN_MAX as usize);
