//! Opens a finished image and reads blocks from it.

use std::sync::Arc;

use aiv_keys::{ChainKey, Keys};
use aiv_volume_io::ReadAt;

use crate::error::{Corrupt, Error, Fault, Foreign, Result, Section, SegmentError};
use crate::hash::{self, Roots};
use crate::ids::{BlockIndex, Digest, Geometry, SetId};
use crate::index::{Entries, Index};
use crate::layout::{Features, IndexEntry, SegmentTrailer, Superblock, Trailer};
use crate::limits::{
    BLOCK_SIZE_MAX, META_TOTAL_MAX, PAGE_SIZE, PIECE_SIZE, TRAILER_GAP, TRAILER_GAP_WITH_PARITY,
};
use crate::meta::{self, Meta};
use crate::parity::pages::ProtectedPages;
use crate::parity::stripes::Stripes;
use crate::seal::Access;
use crate::segments::Segments;

/// Bytes after the parity area at least: trailer, gap, superblock copy, trailer.
pub(crate) const TAIL_LEN: u64 = 3 * PAGE_SIZE as u64 + TRAILER_GAP;

/// Zeros between the trailers: more than the bursts that the image is to survive.
pub(crate) const fn trailer_gap(features: Features) -> u64 {
    if features.has_data_parity() { TRAILER_GAP_WITH_PARITY } else { TRAILER_GAP }
}

/// Bytes after the parity area.
pub(crate) const fn tail_len(features: Features) -> u64 {
    TAIL_LEN - TRAILER_GAP + trailer_gap(features)
}

/// Where the two copies of the key-slot area of an image are that has one.
pub(crate) fn slot_places(features: Features, trailer: &Trailer) -> [u64; 2] {
    let page = PAGE_SIZE as u64;
    [page, trailer.file_len - tail_len(features) + page]
}

/// One finished image file, opened for reading.
///
/// Opening checks superblock, trailer, the bounds of every area and META, and reads nothing
/// else, so it costs the same for any size. Damage that a second copy makes up for does not
/// stop it and is listed by [`Image::damage`].
pub struct Image {
    pub(crate) file: Arc<dyn ReadAt>,
    /// The bytes of the superblock that was taken, which both copies have to be.
    pub(crate) superblock_page: Box<[u8; PAGE_SIZE]>,
    superblock: Superblock,
    trailer: Trailer,
    meta: Meta,
    has_meta: bool,
    roots: Option<Roots>,
    /// The chain key, where there is one and it was given.
    pub(crate) key: Option<ChainKey>,
    pub(crate) access: Access,
    pub(crate) damage: Vec<Corrupt>,
    pub(crate) index: Index,
    /// Of a split image that was opened from its segments.
    pub(crate) segments: Option<Arc<Segments>>,
}

impl Image {
    /// Opens the image in `file` without a key. One that is sealed is *locked* then: it can be
    /// told apart, linked with others and every stored byte of it proven, and nothing it holds
    /// can be read: whoever asks for that gets [`Error::Locked`].
    ///
    /// # Errors
    /// [`Error::Foreign`] when it is no image of ours, [`Error::Incomplete`] when it was never
    /// finished or its end is missing, [`Error::Unsupported`] when it needs a newer program,
    /// [`Error::Corrupt`] when it is damaged beyond the second copies, [`Error::Io`].
    pub fn open(file: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_with(file, &Keys::none())
    }

    /// Opens the image in `file` with whichever of `keys` is its key.
    ///
    /// # Errors
    /// As [`Image::open`]; [`Error::WrongKey`] when there are keys and none is that of the image,
    /// [`Error::Forged`] when superblock and trailer were not written with its key, [`Error::NotKeyed`] when
    /// the keys are required and the image has none.
    pub fn open_with(file: Arc<dyn ReadAt>, keys: &Keys) -> Result<Self> {
        let mut damage = Vec::new();
        let (page, superblock) = read_superblock_page(&*file, &mut damage)?;
        let (copy, trailer) = read_trailer(&*file, &superblock, &mut damage)?;
        let key = find_key(&superblock, keys)?;
        if let Some(key) = &key
            && trailer.mac_of(key, &page) != trailer.mac
        {
            let back = if copy == 2 { PAGE_SIZE as u64 } else { tail_len(superblock.features) };
            return Err(Error::Forged { offset: trailer.file_len - back });
        }
        check_areas(&trailer, superblock.features)?;
        let access = match (superblock.is_sealed(), &key) {
            (false, _) => Access::Clear,
            (true, Some(key)) => Access::open(key, trailer.image, trailer.session),
            (true, None) => Access::Locked(superblock.key_commitment),
        };
        let mut image = Self {
            index: Index::new(file.clone(), &superblock, &trailer, access.clone())?,
            file,
            superblock_page: Box::new(page),
            superblock,
            trailer,
            meta: Meta::default(),
            has_meta: false,
            roots: None,
            key,
            access,
            damage,
            segments: None,
        };
        image.take_roots(trailer.content_root, trailer.map_root, trailer.state_root);
        if image.access.unlocked().is_ok() {
            image.read_meta()?;
        }
        image.check_roots()?;
        Ok(image)
    }

    /// Takes the roots from the trailer; of a sealed image they stand in META.
    fn take_roots(&mut self, content: Digest, map: Digest, state: Digest) {
        if matches!(self.access, Access::Clear) {
            self.roots = Some(Roots { content, map, state });
        }
    }

    fn read_meta(&mut self) -> Result<()> {
        let geometry = &self.superblock.geometry;
        match meta::read_area(&*self.file, &self.trailer, geometry, &self.access) {
            Ok(area) => {
                self.meta = area.meta;
                self.has_meta = true;
                self.roots = area.roots.or(self.roots);
            }
            // No block depends on META: the disk can still be read.
            Err(Error::Corrupt(corrupt)) => self.damage.push(corrupt),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Compares the roots with each other, and with what stands for them in the trailer.
    fn check_roots(&self) -> Result<()> {
        let Some(roots) = &self.roots else { return Ok(()) };
        let trailer = &self.trailer;
        let differs = |field, other| {
            let fault = Fault::Differs { field, other };
            Err(fault.at(Section::Trailer, trailer.file_len - PAGE_SIZE as u64))
        };
        let state = hash::state_root(&self.superblock.geometry, &roots.content, &roots.map);
        if state != roots.state {
            return differs("state root", "roots it is made of");
        }
        let clear = [roots.content, roots.map, roots.state].map(|r| self.access.clear_root(&r));
        if clear != [trailer.content_root, trailer.map_root, trailer.state_root] {
            return differs("roots", "roots in META");
        }
        Ok(())
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

    /// Whether the image is sealed and its key was not given.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.access.unlocked().is_err()
    }

    /// Whether a chain key proved that whoever has it wrote the image: every stored byte, once it
    /// was compared with the stored list. Sealed images are, when they are not locked.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        self.key.is_some()
    }

    /// The roots of the state; `None` when the image is locked, or is sealed and its META is
    /// damaged. Those in trailer and links are the same, except in sealed images, where something
    /// stands for them that only the chain key leads to.
    #[must_use]
    pub fn roots(&self) -> Option<Roots> {
        self.roots
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
pub(crate) fn read_superblock(file: &dyn ReadAt, damage: &mut Vec<Corrupt>) -> Result<Superblock> {
    read_superblock_page(file, damage).map(|(_, superblock)| superblock)
}

/// As [`read_superblock`], with the bytes it stands in.
fn read_superblock_page(
    file: &dyn ReadAt,
    damage: &mut Vec<Corrupt>,
) -> Result<([u8; PAGE_SIZE], Superblock)> {
    let len = file.len();
    if len < PAGE_SIZE as u64 {
        return Err(Error::Foreign(Foreign::TooShort { len }));
    }
    let first = read_copy(file, Section::Superblock, 0)
        .and_then(|page| Ok((page, Superblock::from_bytes(&page, Section::Superblock, 0)?)));
    let first_error = match first {
        Ok(found) => return Ok(found),
        Err(error @ (Error::Corrupt(_) | Error::Foreign(_))) => error,
        Err(error) => return Err(error),
    };
    if len < TAIL_LEN + PAGE_SIZE as u64 {
        return Err(first_error);
    }
    let offset = len - 2 * PAGE_SIZE as u64;
    let page = read_page(file, offset)?;
    let copy = Superblock::from_bytes(&page, Section::SuperblockCopy, offset);
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
            Ok((page, superblock))
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
    // Of an image with a wider gap only the last one is looked for: a foreign file is not worth
    // more reads than it takes now.
    let (last, first) = (file.len() - PAGE_SIZE as u64, file.len() - TAIL_LEN);
    Ok(Trailer::from_bytes(&read_page(file, last)?, 2, last).is_ok()
        || Trailer::from_bytes(&read_page(file, first)?, 1, first).is_ok())
}

/// The key of the image among `keys`.
pub(crate) fn find_key(superblock: &Superblock, keys: &Keys) -> Result<Option<ChainKey>> {
    if !superblock.is_keyed() {
        return if keys.is_required() { Err(Error::NotKeyed) } else { Ok(None) };
    }
    let commitment = superblock.key_commitment;
    match keys.find(&commitment.0) {
        None if keys.is_empty() => Ok(None),
        None => Err(Error::WrongKey { commitment }),
        Some(key) => Ok(Some(key.clone())),
    }
}

/// Reads the last trailer, or the first one when the last is damaged, and says which it is.
pub(crate) fn read_trailer(
    file: &dyn ReadAt,
    superblock: &Superblock,
    damage: &mut Vec<Corrupt>,
) -> Result<(u8, Trailer)> {
    let len = file.len();
    let tail = tail_len(superblock.features);
    let is_split = superblock.features.incompat & Features::SPLIT != 0;
    // A segment of a split image ends with a tail of another kind, which is shorter than
    // that of an image with parity.
    if is_split && len >= TAIL_LEN + PAGE_SIZE as u64 {
        for (copy, offset) in [(2, len - PAGE_SIZE as u64), (1, len - TAIL_LEN)] {
            let page = read_copy(file, Section::Trailer, offset);
            let own = page.and_then(|page| SegmentTrailer::from_bytes(&page, copy, 0, offset));
            if let Ok(own) = own {
                return Err(SegmentError::part(own.image, own.place.no).into());
            }
        }
    }
    if len < tail + PAGE_SIZE as u64 {
        return Err(Error::Incomplete { len });
    }
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
        } else if trailer.mac.is_zero() == superblock.is_keyed() {
            Fault::Differs { field: "authentication code", other: "feature bits" }
        } else if (trailer.segment_count > 0) != is_split {
            Fault::Differs { field: "segment count", other: "superblock" }
        } else {
            return Ok(trailer);
        };
        Err(fault.at(Section::Trailer, offset))
    };
    let mut note = |error| match error {
        Error::Corrupt(corrupt) => {
            damage.push(corrupt);
            Ok(())
        }
        other => Err(other),
    };
    match (read(2, len - PAGE_SIZE as u64), read(1, len - tail)) {
        (Ok(last), Ok(first)) => {
            if last != first {
                let fault = Fault::Differs { field: "content", other: "last trailer" };
                damage.push(Corrupt { section: Section::Trailer, offset: len - tail, fault });
            }
            Ok((2, last))
        }
        (Ok(last), Err(error)) => note(error).map(|()| (2, last)),
        (Err(error), Ok(first)) => note(error).map(|()| (1, first)),
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
pub(crate) fn check_areas(trailer: &Trailer, features: Features) -> Result<()> {
    let pages = |offset: u64, count: u64| {
        count.checked_mul(PAGE_SIZE as u64).and_then(|len| offset.checked_add(len))
    };
    let aligned = |offset: u64| offset.checked_next_multiple_of(PAGE_SIZE as u64);
    let meta_end = trailer.meta_offset.checked_add(trailer.meta_len);
    let list_len = trailer.stored_pieces.checked_mul(32);
    let list_end = list_len.and_then(|len| trailer.stored_offset.checked_add(len));
    let with_data_parity = features.has_data_parity();
    let parity_end = trailer.parity_offset.checked_add(trailer.parity_len);
    let checks = [
        ("frame area", trailer.frames_end >= features.frames_start()),
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
        ("frame area", !with_data_parity || Stripes::of(trailer).is_some()),
        ("parity offset", list_end.and_then(aligned) == Some(trailer.parity_offset)),
        ("parity length", {
            let protected = ProtectedPages::of(trailer, with_data_parity);
            protected.area_len() == Some(trailer.parity_len)
        }),
        (
            "file length",
            parity_end.and_then(|end| end.checked_add(tail_len(features)))
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
