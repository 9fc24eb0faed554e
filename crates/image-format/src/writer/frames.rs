//! One frame at the end of the file, sealed where the image is.

use super::{ImageWriter, in_memory};
use crate::error::{Error, Result};
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use crate::limits::{ADDRESS_UNITS_MAX, FRAME_ALIGN, PAGE_SIZE, STORED_LEN_MAX};
use crate::seal::{Access, SealJob, padded};

/// What a frame header says besides what the writer knows by itself.
pub(super) struct NewFrame {
    pub kind: FrameKind,
    pub codec: u8,
    pub is_damaged: bool,
    pub depth: u8,
    pub subject: u64,
    pub plain_len: u32,
    pub leaf_prefix: [u8; 8],
    /// Bytes that a sealed frame stores, where that does not follow from its content.
    pub stored_len: Option<usize>,
}

impl NewFrame {
    /// A frame that holds no block, stored as it is.
    pub(super) fn plain(kind: FrameKind, subject: u64, plain_len: u32) -> Self {
        let leaf_prefix = [0; 8];
        Self {
            kind,
            codec: 0,
            is_damaged: false,
            depth: 0,
            subject,
            plain_len,
            leaf_prefix,
            stored_len: None,
        }
    }
}

impl ImageWriter<'_> {
    /// Appends a frame, behind the parity that is due, and returns its address and size.
    pub(super) fn append_frame(&mut self, about: &NewFrame, payload: &[u8]) -> Result<(u64, u64)> {
        self.parity_if_due()?;
        self.append_frame_here(about, payload)
    }

    /// Appends a frame right here.
    pub(super) fn append_frame_here(
        &mut self,
        about: &NewFrame,
        payload: &[u8],
    ) -> Result<(u64, u64)> {
        let address = self.file.position();
        if address / FRAME_ALIGN >= ADDRESS_UNITS_MAX {
            return Err(Error::Misuse("an image above 16 PiB"));
        }
        // A number that came again would be a nonce that came again.
        let next_seq = self.next_seq.checked_add(1);
        let next_seq = next_seq.ok_or(Error::Misuse("a session of more than 2^64 frames"))?;
        let seal = self.seal.as_ref().filter(|_| self.seals(about.kind));
        let seal = seal.map(|seal| seal.nonce_salt);
        let (stored, padding) = match seal {
            Some(_) => match about.stored_len {
                Some(stored) => (stored, stored - padded(payload.len(), false).0),
                None => self.stored_len(payload.len()),
            },
            None => (payload.len(), 0),
        };
        let narrow = |len| u32::try_from(len).map_err(|_| Error::Misuse("a payload above 16 MiB"));
        let (stored_len, pad_len) = (narrow(stored)?, narrow(padding)?);
        if stored_len > STORED_LEN_MAX {
            return Err(Error::Misuse("a payload above 16 MiB"));
        }
        let header = FrameHeader {
            kind: about.kind,
            codec: about.codec,
            is_damaged: about.is_damaged,
            depth: about.depth,
            session: self.session,
            seq: self.next_seq,
            subject: about.subject,
            plain_len: about.plain_len,
            stored_len,
            payload_crc: if seal.is_some() { 0 } else { FrameHeader::payload_crc(payload) },
            leaf_prefix: about.leaf_prefix,
            seal,
        };
        if let Some(salt) = seal {
            let (header, inner) = header.closed(pad_len);
            let (session, seq) = (header.session, header.seq);
            let job = SealJob { at: 0, stored_len: stored, session, seq, salt };
            let len = in_memory(header.frame_size());
            self.file.append_sealed(job, len, |out| {
                let end = out.len() + len;
                out.extend_from_slice(&header.to_bytes());
                out.extend_from_slice(&inner);
                out.extend_from_slice(payload);
                out.resize(end, 0);
            })?;
        } else {
            self.file.append(&header.to_bytes())?;
            self.file.append(payload)?;
            let padding = payload.len().next_multiple_of(in_memory(FRAME_ALIGN)) - payload.len();
            self.file.append_zeros(padding)?;
        }
        self.next_seq = next_seq;
        self.totals.frames += 1;
        Ok((address, header.frame_size()))
    }

    /// Whether frames of `kind` are sealed in this image.
    pub(super) fn seals(&self, kind: FrameKind) -> bool {
        matches!(self.access, Access::Open(_)) && kind.is_sealable()
    }

    /// Bytes that a frame with `content` bytes of a block, checkpoint or section stores, and how
    /// many of them are padding.
    pub(super) fn stored_len(&self, content: usize) -> (usize, usize) {
        match &self.seal {
            Some(seal) if matches!(self.access, Access::Open(_)) => padded(content, seal.padding),
            _ => (content, 0),
        }
    }

    /// Fills up to the next 4 KiB boundary with a PAD frame.
    pub(super) fn pad_to_page(&mut self) -> Result<()> {
        let past = in_memory(self.file.position() % PAGE_SIZE as u64);
        self.pad((PAGE_SIZE - past) % PAGE_SIZE)
    }

    /// Appends a PAD frame of `count` bytes right here, header included: a multiple of 64, as all
    /// positions are, and less than a piece.
    pub(super) fn pad(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let payload = vec![0; count - FRAME_HEADER_SIZE];
        let len = u32::try_from(payload.len()).expect("less than a piece");
        self.append_frame_here(&NewFrame::plain(FrameKind::Pad, 0, len), &payload)?;
        Ok(())
    }
}
