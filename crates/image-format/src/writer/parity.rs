//! Parity frames between the others, and the parity area behind the stored list.

use super::{ImageWriter, NewFrame, in_memory};
use crate::error::{Error, Result};
use crate::hash::SectionHasher;
use crate::ids::Digest;
use crate::layout::FrameKind;
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::pages::ProtectedPages;
use crate::parity::stripes::{LAST_PAYLOAD, PARITY_LEN, STRIPE_LEN};

impl ImageWriter<'_> {
    /// Writes the PARITY frame of every stripe that is complete.
    pub(super) fn parity_if_due(&mut self) -> Result<()> {
        while let Some(written) = self.stripes_written
            && self.file.position() >= (written + 1) * STRIPE_LEN
        {
            // Where the parity lies is looked for; that of a segment that ended belongs to the next.
            self.cut_before(PARITY_LEN)?;
            self.write_stripe(written, PARITY_LEN, false)?;
            self.stripes_written = Some(written + 1);
        }
        Ok(())
    }

    /// Ends the stripes: the last one ends with a piece, and its PARITY frame with a page, so
    /// that both have places that can be computed.
    pub(super) fn write_last_stripe(&mut self) -> Result<()> {
        self.parity_if_due()?;
        let Some(written) = self.stripes_written.take() else { return Ok(()) };
        let past = in_memory(self.file.position() % PIECE_SIZE as u64);
        self.pad((PIECE_SIZE - past) % PIECE_SIZE)?;
        self.write_stripe(written, LAST_PAYLOAD, true)
    }

    fn write_stripe(&mut self, stripe: u64, payload_len: usize, is_last: bool) -> Result<()> {
        let parity = self.file.take_parity(is_last)?;
        let mut payload = parity.ok_or(Error::Misuse("parity of a stripe that is not there"))?;
        payload.resize(payload_len, 0);
        let len = u32::try_from(payload_len).expect("four pieces and a page");
        self.append_frame_here(&NewFrame::plain(FrameKind::Parity, stripe, len), &payload)?;
        Ok(())
    }

    /// Writes the parity of everything from the index to here, and of the superblock. Reads the
    /// pages back, one group after the other.
    pub(super) fn write_page_parity(&mut self, index_offset: u64) -> Result<ParityArea> {
        let offset = self.file.position();
        let with_data_parity = self.superblock.features.has_data_parity();
        let protected = ProtectedPages::new(index_offset, offset, with_data_parity);
        let mut hasher = SectionHasher::new();
        for number in 0..protected.groups() {
            let group = protected.group(number);
            let mut bytes = vec![0; group.pages * PAGE_SIZE];
            for (run, at) in protected.runs(&group) {
                self.file.read_back(&mut bytes[run], at)?;
            }
            let area = group.area(&bytes, self.superblock.image);
            hasher.update(&area);
            self.file.append(&area)?;
        }
        let len = self.file.position() - offset;
        Ok(ParityArea { offset, len, hash: hasher.finish() })
    }
}

pub(super) struct ParityArea {
    pub offset: u64,
    pub len: u64,
    pub hash: Digest,
}
