//! Where a split image may be cut: in front of frames, which PAD frames move to a border, and
//! between pages.

use super::{ImageWriter, in_memory};
use crate::error::{Error, Result};
use crate::layout::{FRAME_HEADER_SIZE, Features, FrameKind, Superblock, frame_size};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE, PIECE_SIZE};
use crate::meta::EncodedSection;
use crate::parity::stripes::LAST_PAYLOAD;
use crate::seal::Seal;
use crate::segments::{SegmentFiles, SegmentedFile};

/// Bytes of the META section that holds the roots of a sealed image, at most.
const ROOTS_LEN: usize = 3 * (8 + 32);

impl<'f> ImageWriter<'f> {
    /// Begins an image that is split into files of `limit` bytes at most, which must be
    /// [`SEGMENT_BYTES_MIN`](crate::limits::SEGMENT_BYTES_MIN) or more. From 64 MiB on no file is
    /// larger, unless the stored list, META and the
    /// parity area, which stay together in the last one, are; below,
    /// a frame larger than a segment also makes its segment larger.
    ///
    /// # Errors
    /// As [`ImageWriter::create`]; [`Error::Misuse`] for a limit that is too small, and later for
    /// more than [`SEGMENTS_MAX`](crate::limits::SEGMENTS_MAX) segments.
    pub fn create_split(
        files: Box<dyn SegmentFiles + 'f>,
        superblock: Superblock,
        limit: u64,
    ) -> Result<Self> {
        Self::create_split_with(files, superblock, limit, None)
    }

    /// As [`ImageWriter::create_split`], sealed or authenticated where `seal` says so, as
    /// [`ImageWriter::create_with`] does.
    ///
    /// # Errors
    /// Those of both.
    pub fn create_split_with(
        files: Box<dyn SegmentFiles + 'f>,
        mut superblock: Superblock,
        limit: u64,
        seal: Option<Seal>,
    ) -> Result<Self> {
        superblock.features.incompat |= Features::SPLIT;
        // Every segment begins with it.
        seal.iter().try_for_each(|seal| seal.mark(&mut superblock))?;
        let (file, cuts) = SegmentedFile::create(files, superblock.clone(), limit)?;
        let mut writer = Self::create_with(Box::new(file), superblock, seal)?;
        writer.cuts = Some(cuts);
        Ok(writer)
    }

    /// Ends the segment if a frame with so many bytes of payload, as stored, does not fit into it.
    pub(super) fn cut_before(&mut self, payload: usize) -> Result<()> {
        match &self.cuts {
            Some(cuts) if cuts.is_due(self.file.position(), frame_size(payload as u64)) => {
                self.cut()
            }
            _ => Ok(()),
        }
    }

    /// Ends the frame area, with the parity of its last stripe: from here on pages may be cut
    /// anywhere, and META nowhere.
    pub(super) fn cut_before_pages(&mut self, meta: &[EncodedSection]) -> Result<()> {
        // The roots of a sealed image become one more, when they are known.
        let roots = self.seals(FrameKind::Meta).then_some(ROOTS_LEN);
        let sizes = meta.iter().map(|section| section.payload.len()).chain(roots);
        let sizes = sizes.map(|size| self.stored_len(size).0 as u64);
        let framed = sizes.map(|size| size + FRAME_HEADER_SIZE as u64 + FRAME_ALIGN);
        // Of which the last page is filled with a frame of its own.
        let meta = framed.sum::<u64>() + PAGE_SIZE as u64;
        self.parity_if_due()?;
        let position = self.file.position();
        let stripe =
            self.stripes_written.map_or(0, |_| (PIECE_SIZE + LAST_PAYLOAD + PAGE_SIZE) as u64);
        if self.cuts.as_ref().is_some_and(|cuts| cuts.is_due_for_pages(position, meta + stripe)) {
            self.cut()?;
        }
        self.write_last_stripe()?;
        self.pad_to_page()?;
        if let Some(cuts) = &self.cuts {
            cuts.begin_pages(self.file.position(), meta);
        }
        Ok(())
    }

    /// Nothing is cut from here on.
    pub(super) fn end_cuts(&self) {
        if let Some(cuts) = &self.cuts {
            cuts.end_pages(self.file.position());
        }
    }

    /// Number of segments, as the trailer has it, when everything in front of it was handed over.
    pub(super) fn segment_count(&self) -> u32 {
        let is_split = self.superblock.features.incompat & Features::SPLIT != 0;
        match &self.cuts {
            Some(cuts) => cuts.count(),
            // A split image in a single file is its only segment.
            None => u32::from(is_split),
        }
    }

    /// Fills the piece with a PAD frame and ends the segment behind it.
    fn cut(&mut self) -> Result<()> {
        let past = in_memory(self.file.position() % PIECE_SIZE as u64);
        self.pad((PIECE_SIZE - past) % PIECE_SIZE)?;
        let position = self.file.position();
        match &mut self.cuts {
            Some(cuts) => cuts.cut(position),
            None => Err(Error::Misuse("cutting an image that is not split")),
        }
    }
}
