//! Frames of other images, copied as they are: headers name neither their image nor their
//! place, so merging decodes nothing.

use super::{BlockPlace, ImageWriter, NewFrame};
use crate::block::check_frame;
use crate::error::{Error, Fault, Result, Section};
use crate::layout::{FRAME_HEADER_SIZE, Features, FrameHeader, FrameKind, IndexEntry, Kind};
use crate::limits::{ADDRESS_UNITS_MAX, CHECKPOINT_ENTRIES_MAX, FRAME_ALIGN, ORIGINS_MAX};

impl ImageWriter {
    /// Decides the next blocks by frames of another image. `entries` are those of that image,
    /// one for each of the next blocks in order, with their frames one behind the other in
    /// `bytes`, which begin with the first frame. An entry may say REF where the frame is that
    /// of another block. Every frame is checked as far as that goes without decoding it. At most
    /// [`CHECKPOINT_ENTRIES_MAX`] frames at once.
    ///
    /// Returns where the first frame landed; the others follow it as they did before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a frame is damaged, at its offset in the other image;
    /// [`Error::Misuse`] when the entries are no such sequence, [`Error::Io`].
    pub fn copy_frames(&mut self, entries: &[IndexEntry], bytes: &[u8]) -> Result<BlockPlace> {
        let Some(first) = entries.first() else { return Err(Error::Misuse("no frame to copy")) };
        if entries.len() > CHECKPOINT_ENTRIES_MAX {
            return Err(Error::Misuse("more frames at once than a checkpoint lists"));
        }
        if entries.len() + self.pending.len() > CHECKPOINT_ENTRIES_MAX {
            self.checkpoint()?;
        }
        self.checkpoint_if_due()?;
        let start = self.file.position();
        if (start + bytes.len() as u64) / FRAME_ALIGN >= ADDRESS_UNITS_MAX {
            return Err(Error::Misuse("an image above 16 PiB"));
        }
        let mut at = 0;
        let mut first_size = 0;
        for (number, entry) in entries.iter().enumerate() {
            if entry.block != self.next_block || entry.address != first.address + at as u64 {
                return Err(Error::Misuse("frames that do not follow each other"));
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (header, payload) = check_frame(rest, entry, entry.block)?;
            if header.plain_len != self.superblock.geometry.block_len(entry.block) {
                let (field, found) = ("plain length", header.plain_len.into());
                let fault = Fault::Value { field, found, allowed: "the block length" };
                return Err(fault.at(Section::Frame, entry.address));
            }
            self.needs_of(entry.kind)?;
            let size = header.frame_size();
            let end = at.checked_add(super::in_memory(size)).filter(|&end| end <= bytes.len());
            let end = end.ok_or_else(|| Fault::Bounds.at(Section::Frame, entry.address))?;
            let place = start + at as u64;
            if self.knows_origin(&header) {
                self.file.append(&bytes[at..at + FRAME_HEADER_SIZE])?;
                self.file.append(payload)?;
                // Damage may lie in the padding, which no checksum of the frame covers.
                self.file.append_zeros(end - at - FRAME_HEADER_SIZE - payload.len())?;
                self.totals.frames += 1;
            } else {
                self.append_as_ours(&header, payload)?;
            }
            self.totals.payload_bytes += u64::from(header.stored_len);
            if number == 0 {
                first_size = size;
            }
            // A frame whose size the index cannot hold keeps the zero of the other index.
            self.push_entry(IndexEntry { address: place, ..*entry });
            at = end;
        }
        Ok(BlockPlace { address: start, frame_size: first_size })
    }

    fn needs_of(&self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Delta => self.needs(Features::DELTA),
            Kind::Data | Kind::Ref | Kind::Unreadable => Ok(()),
            _ => Err(Error::Misuse("an entry without a frame to copy")),
        }
    }

    /// Whether the session of a frame is among the origins, or can be taken into them.
    fn knows_origin(&mut self, header: &FrameHeader) -> bool {
        // Frames of one session come in long rows.
        if self.origins.last() == Some(&header.session) || self.origins.contains(&header.session) {
            return true;
        }
        if self.origins.len() == ORIGINS_MAX {
            return false;
        }
        self.origins.push(header.session);
        true
    }

    /// Copies a payload under a header of our own session: an image names only so many.
    fn append_as_ours(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<()> {
        let about = NewFrame {
            kind: header.kind,
            codec: header.codec,
            is_damaged: header.is_damaged,
            subject: header.subject,
            plain_len: header.plain_len,
            leaf_prefix: header.leaf_prefix,
        };
        debug_assert!(matches!(header.kind, FrameKind::Data | FrameKind::Delta));
        self.append_frame(&about, payload).map(drop)
    }
}
