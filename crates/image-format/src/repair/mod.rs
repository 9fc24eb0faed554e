//! A damaged image made whole again, as a new file.
//!
//! What is written is what was: every byte of the new file is proven by the trailer of the old
//! one, or computed from bytes that are. The damaged file is only read.

mod mended;
mod metadata;
mod pieces;
mod segments;
mod slots;

use std::sync::Arc;

use aiv_keys::Keys;
use aiv_volume_io::{AppendFile, Extent, Job, ReadAt, Step};

use crate::error::{Error, Fault, Result, Section};
use crate::hash::SectionHasher;
use crate::image::{
    Image, check_areas, read_superblock, read_trailer, slot_places, tail_len, trailer_gap,
};
use crate::layout::{Superblock, Trailer};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::pages::ProtectedPages;
use mended::Mended;
use pieces::Pieces;

pub use segments::SegmentsRepair;
pub use slots::KeySlots;

/// What a repair finds and what it can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Pieces of 64 KiB found again by parity over the pieces.
    pub pieces_by_parity: u64,
    /// Pieces taken from another copy of the image.
    pub pieces_from_copies: u64,
    /// Pages of superblock, index, tree, META and stored list found again: by their parity, by
    /// the copy of the superblock, or from another copy of the image.
    pub pages: u64,
    /// Whether anything behind the stored list is damaged: the parity area, the trailers, the gap
    /// between them, or the superblock copy. All of it is made anew.
    pub tail: bool,
    /// Segments of a split image that are missing, or around whose slice something is damaged:
    /// superblock, list, trailers, gap. All of that is made anew.
    pub segments: u64,
    /// What becomes of the key slots, which no parity covers.
    pub key_slots: KeySlots,
    /// Bytes of the file that stay lost, rounded out to pieces: ascending, disjoint. At most
    /// [`RepairReport::LOST_LISTED_MAX`] are listed.
    pub lost: Vec<Extent>,
    /// Pieces that stay lost, listed or not.
    pub pieces_lost: u64,
    /// Blocks whose frame lies in what stays lost, as runs of first block and count; at most
    /// [`RepairReport::LOST_LISTED_MAX`] runs are listed. Blocks of later images that build on
    /// them are lost, too.
    pub lost_blocks: Vec<(u64, u64)>,
}

impl RepairReport {
    /// Ranges listed at most.
    pub const LOST_LISTED_MAX: usize = 1000;

    /// Whether there is nothing to repair.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let stay = matches!(self.key_slots, KeySlots::Sound | KeySlots::Differ);
        stay && *self == Self { key_slots: self.key_slots, ..Self::default() }
    }

    /// Whether every byte of the file can be told, key slots among them.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pieces_lost == 0 && self.key_slots != KeySlots::Lost
    }
}

/// A damaged image, looked through, and ready to be written anew.
pub struct Repair {
    superblock: Superblock,
    trailer: Trailer,
    mended: Arc<Mended>,
    pieces: Pieces,
    report: RepairReport,
}

impl Repair {
    /// Reads all of the image in `file` and finds out what can be repaired: by its parity, and by
    /// `copies`, other files of the same bytes, which may be damaged as well. Bytes that cannot be
    /// read are damage. Of `keys`, that of the image proves which copy of its key slots counts, and
    /// names the blocks that a sealed one loses; nothing else needs it. Runs in the rayon pool of the calling thread.
    ///
    /// # Errors
    /// As [`Image::open`] when there is neither a sound superblock nor a sound trailer left;
    /// [`Error::Corrupt`] when the stored list, by which pieces are proven, stays lost;
    /// [`Error::Io`], [`Error::Canceled`].
    pub fn of(
        file: Arc<dyn ReadAt>,
        copies: Vec<Arc<dyn ReadAt>>,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Self> {
        let mut damage = Vec::new();
        let superblock = read_superblock(&*file, &mut damage)?;
        let (_, trailer) = read_trailer(&*file, &superblock, &mut damage)?;
        check_areas(&trailer, superblock.features)?;
        let mut report = RepairReport::default();
        let mut mended = Mended::new(file, &superblock, &trailer);
        let found = slots::find(mended.raw(), &copies, keys, &superblock, &trailer);
        report.key_slots = found.state;
        found.places.iter().for_each(|(at, slots)| mended.put_slots(*at, slots));
        let mended = metadata::mend(mended, &superblock, &trailer, &copies, &mut report, job)?;
        let mended = Arc::new(mended);
        report.tail = !tail_is_sound(&mended, &superblock, &trailer)?;
        let mut pieces = Pieces::look_through(mended.clone(), copies, &superblock, &trailer, job)?;
        pieces.assess(&mut report, job)?;
        let mut repair = Self { superblock, trailer, mended, pieces, report };
        if repair.report.pieces_lost > 0 {
            repair.report.lost_blocks = repair.lost_blocks(keys, job)?;
        }
        Ok(repair)
    }

    /// What was found.
    #[must_use]
    pub fn report(&self) -> &RepairReport {
        &self.report
    }

    /// What the image is.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What the repaired file has to be.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Writes the image as it was into the empty `out`, and makes it durable. Every piece is
    /// proven once more on its way.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the report is not complete; [`Error::Corrupt`] when the file
    /// changed meanwhile, [`Error::Io`], [`Error::Canceled`]. `out` is worthless then.
    pub fn write(&mut self, out: &mut dyn AppendFile, job: Job<'_>) -> Result<()> {
        if !self.report.is_complete() {
            return Err(Error::Misuse("an image of which bytes are missing"));
        }
        let trailer = self.trailer;
        job.progress.begin(Step::CopyImage, trailer.file_len);
        let mut at = 0;
        let mut append = |bytes: &[u8]| {
            out.append_all(bytes).map_err(Error::io("write image", at))?;
            at += bytes.len() as u64;
            job.progress.advance(Step::CopyImage, bytes.len() as u64);
            Ok::<(), Error>(())
        };
        self.pieces.begin_pass();
        for piece in 0..trailer.stored_pieces {
            job.check()?;
            append(&self.pieces.proven(piece)?)?;
        }
        let mut offset = trailer.stored_offset;
        while offset < trailer.parity_offset {
            append(&self.mended.page(offset)?)?;
            offset += PAGE_SIZE as u64;
        }
        let mut hasher = SectionHasher::new();
        let protected = self.protected();
        for number in 0..protected.groups() {
            job.check()?;
            let area = self.area_of(&protected, number)?;
            hasher.update(&area);
            append(&area)?;
        }
        if hasher.finish() != trailer.parity_hash {
            let fault = Fault::Hash { by: "trailer" };
            return Err(fault.at(Section::ParityArea, trailer.parity_offset));
        }
        tail(&self.mended, &self.superblock, &trailer)?.iter().try_for_each(|part| append(part))?;
        let end = trailer.file_len;
        out.sync().map_err(Error::io("sync image", end))?;
        job.progress.end(Step::CopyImage);
        Ok(())
    }

    fn protected(&self) -> ProtectedPages {
        ProtectedPages::of(&self.trailer, self.superblock.features.has_data_parity())
    }

    fn area_of(&self, protected: &ProtectedPages, number: u64) -> Result<Vec<u8>> {
        area_of(&self.mended, protected, number, &self.superblock)
    }

    /// The blocks whose frame touches what stays lost, by the index, if that can be read.
    fn lost_blocks(&self, keys: &Keys, job: Job<'_>) -> Result<Vec<(u64, u64)>> {
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        let opened = Image::open_with(self.mended.clone(), keys);
        let Ok(image) = opened else { return Ok(blocks) };
        for entry in image.entries(0) {
            job.check()?;
            let Ok(entry) = entry else { break };
            let piece = PIECE_SIZE as u64;
            let end = entry.address.saturating_add(entry.frame_size.max(1)) - 1;
            let mut touched = entry.address / piece..=end / piece;
            if !entry.has_frame() || !touched.any(|piece| self.pieces.is_lost(piece)) {
                continue;
            }
            let has_room = blocks.len() < RepairReport::LOST_LISTED_MAX;
            match blocks.last_mut() {
                Some((first, count)) if *first + *count == entry.block => *count += 1,
                _ if has_room => blocks.push((entry.block, 1)),
                _ => break,
            }
        }
        Ok(blocks)
    }
}

fn area_of(
    mended: &Mended,
    protected: &ProtectedPages,
    number: u64,
    superblock: &Superblock,
) -> Result<Vec<u8>> {
    let group = protected.group(number);
    let mut bytes = vec![0; group.pages * PAGE_SIZE];
    for (run, at) in protected.runs(&group) {
        mended.read_exact_at(&mut bytes[run], at).map_err(Error::io("read image", at))?;
    }
    Ok(group.area(&bytes, superblock.image))
}

/// Everything behind the parity area.
fn tail(mended: &Mended, superblock: &Superblock, trailer: &Trailer) -> Result<[Vec<u8>; 4]> {
    let [first, mut gap, copy, last] = tail_without_slots(mended, superblock, trailer)?;
    let slots = usize::try_from(superblock.slot_area_len()).unwrap_or(0);
    let [_, place] = slot_places(superblock.features, trailer);
    mended.read_exact_at(&mut gap[..slots], place).map_err(Error::io("read image", place))?;
    Ok([first, gap, copy, last])
}

/// The same with zeros in the place of the key slots.
fn tail_without_slots(
    mended: &Mended,
    superblock: &Superblock,
    trailer: &Trailer,
) -> Result<[Vec<u8>; 4]> {
    let gap = vec![0; usize::try_from(trailer_gap(superblock.features)).unwrap_or(0)];
    Ok([trailer.to_bytes(1).to_vec(), gap, mended.page(0)?.to_vec(), trailer.to_bytes(2).to_vec()])
}

/// Whether parity area and tail are what they should be. Bytes that cannot be read are not.
fn tail_is_sound(mended: &Mended, superblock: &Superblock, trailer: &Trailer) -> Result<bool> {
    let protected = ProtectedPages::of(trailer, superblock.features.has_data_parity());
    let is_at = |expected: &[u8], offset: u64| {
        let mut found = vec![0; expected.len()];
        mended.raw().read_exact_at(&mut found, offset).is_ok() && found == expected
    };
    let mut is_sound = true;
    for number in 0..protected.groups() {
        let offset = protected.group(number).offset;
        // Where pages stay lost, so does this.
        let area = area_of(mended, &protected, number, superblock);
        is_sound &= area.is_ok_and(|area| is_at(&area, offset));
    }
    let [_, slots] = slot_places(superblock.features, trailer);
    let slots_len = superblock.slot_area_len();
    let mut offset = trailer.file_len - tail_len(superblock.features);
    for part in tail_without_slots(mended, superblock, trailer)? {
        // The key slots in the gap are told of by themselves.
        let skip = if offset == slots { slots_len } else { 0 };
        let rest = &part[usize::try_from(skip).unwrap_or(0).min(part.len())..];
        is_sound &= is_at(rest, offset + skip);
        offset += part.len() as u64;
    }
    Ok(is_sound)
}
