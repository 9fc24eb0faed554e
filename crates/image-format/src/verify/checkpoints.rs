//! The checkpoints of a finished image say again what index and stored list say. A reader does
//! not need them, salvage of a damaged file does: so they are held to it while the file is
//! whole.

use aiv_volume_io::{Job, ReadAt};

use super::{VerifyReport, read_pieces};
use crate::block::{Buffer, frame_header};
use crate::error::{Error, Fault, Result, Section};
use crate::image::Image;
use crate::index::Entries;
use crate::layout::{
    Checkpoint, CheckpointHead, FRAME_HEADER_SIZE, FrameHeader, FrameKind, IndexEntry,
};
use crate::limits::PIECE_SIZE;

impl Image {
    /// Compares every checkpoint with the index and the stored list, both already proven.
    pub(super) fn verify_checkpoints(&self, report: &mut VerifyReport, job: Job<'_>) -> Result<()> {
        let Some(addresses) = report.keep(self.checkpoint_addresses())? else { return Ok(()) };
        let mut told = Told { entries: self.entries(0), rest: None, pieces: 0, next_block: 0 };
        for address in addresses {
            job.check()?;
            if report.keep(self.compare_checkpoint(address, &mut told))?.is_none() {
                // What the next ones should say depends on this one.
                return Ok(());
            }
        }
        if told.rest.is_some() || told.entries.next().is_some() {
            let fault = Fault::Differs { field: "entries", other: "index" };
            let offset = self.trailer().last_checkpoint;
            report.keep(Err::<(), _>(fault.at(Section::Checkpoint, offset)))?;
        }
        Ok(())
    }

    /// Where the checkpoints are, the first one first: each names the one before it, which lies
    /// before it in the file, so the walk ends.
    fn checkpoint_addresses(&self) -> Result<Vec<u64>> {
        let mut addresses = Vec::new();
        let mut address = self.trailer().last_checkpoint;
        let mut number = None;
        loop {
            let at = |fault: Fault| fault.at(Section::Checkpoint, address);
            let (header, head) = self.checkpoint_head(address)?;
            if header.kind != FrameKind::Checkpoint || header.subject != head.number {
                return Err(at(Fault::Differs { field: "type", other: "checkpoint after it" }));
            }
            if number.is_some_and(|later: u64| later.checked_sub(1) != Some(head.number)) {
                return Err(at(Fault::Differs { field: "number", other: "checkpoint after it" }));
            }
            addresses.push(address);
            if head.number == 0 && head.previous_address == 0 {
                break;
            }
            if head.previous_address >= address {
                let (field, found) = ("previous address", head.previous_address);
                return Err(at(Fault::Value { field, found, allowed: "below its own" }));
            }
            (address, number) = (head.previous_address, Some(head.number));
        }
        addresses.reverse();
        Ok(addresses)
    }

    /// Header and head of the checkpoint at `address`; all of it is read only where that is the
    /// way to its head.
    fn checkpoint_head(&self, address: u64) -> Result<(FrameHeader, CheckpointHead)> {
        let at = |fault: Fault| fault.at(Section::Checkpoint, address);
        if self.superblock().is_sealed() {
            let (header, payload) = self.checkpoint_payload(address)?;
            return Ok((header, CheckpointHead::unbounded(&payload).map_err(at)?));
        }
        let mut bytes = [0; FRAME_HEADER_SIZE + CheckpointHead::SIZE];
        let op = Error::io("read checkpoint", address);
        self.file.read_exact_at(&mut bytes, address).map_err(op)?;
        let header = frame_header(&bytes, address)?;
        let head = CheckpointHead::unbounded(&bytes[FRAME_HEADER_SIZE..]).map_err(at)?;
        Ok((header, head))
    }

    /// The checkpoint frame at `address`: its header and its content.
    fn checkpoint_payload(&self, address: u64) -> Result<(FrameHeader, Vec<u8>)> {
        let at = |fault: Fault| fault.at(Section::Checkpoint, address);
        let mut frame = vec![0; FRAME_HEADER_SIZE];
        let op = Error::io("read checkpoint", address);
        self.file.read_exact_at(&mut frame, address).map_err(op)?;
        let header = frame_header(&frame, address)?;
        self.access.check_mode(&header).map_err(at)?;
        if address.saturating_add(header.frame_size()) > self.trailer().frames_end {
            return Err(at(Fault::Bounds));
        }
        frame.resize(FRAME_HEADER_SIZE + header.stored_len as usize, 0);
        let op = Error::io("read checkpoint", address);
        let payload = &mut frame[FRAME_HEADER_SIZE..];
        self.file.read_exact_at(payload, address + FRAME_HEADER_SIZE as u64).map_err(op)?;
        if header.seal.is_some() {
            let mut plain = Buffer::default();
            let (header, content) = self.access.open_frame(header, &frame, &mut plain, address)?;
            return Ok((header, content.to_vec()));
        }
        header.check_payload(payload, address)?;
        frame.drain(..FRAME_HEADER_SIZE);
        Ok((header, frame))
    }

    fn compare_checkpoint(&self, address: u64, told: &mut Told<'_>) -> Result<()> {
        let at = |fault: Fault| fault.at(Section::Checkpoint, address);
        let differs = |field, other| at(Fault::Differs { field, other });
        let (_, payload) = self.checkpoint_payload(address)?;
        let checkpoint = Checkpoint::from_payload(payload, address)?;
        let count = u64::from(checkpoint.head.piece_count);
        if checkpoint.head.first_piece != told.pieces
            || told.pieces + count > self.trailer().stored_pieces
            || !checkpoint.pieces().eq(read_pieces(self, told.pieces, count)?)
        {
            return Err(differs("pieces", "stored list"));
        }
        told.pieces += count;
        if told.pieces != address / PIECE_SIZE as u64 {
            return Err(differs("pieces", "place of the frame"));
        }
        if self.has_meta() && !checkpoint.origins().all(|o| self.meta().origins.contains(&o)) {
            return Err(differs("sessions", "origins in META"));
        }
        for entry in checkpoint.entries()? {
            if entry.block < told.next_block || !told.takes(&entry)? {
                return Err(differs("entries", "index"));
            }
        }
        // Inherited blocks have no entry, and may be the last ones before a checkpoint.
        let next = checkpoint.head.next_block;
        let inherits = self.superblock().parent.is_some();
        let in_order = (told.next_block..=self.geometry().blocks()).contains(&next);
        if !in_order || (!inherits && next != told.next_block) {
            return Err(differs("next block", "entries in it"));
        }
        told.next_block = next;
        Ok(())
    }
}

/// What the checkpoints so far have said, against what the index says.
struct Told<'a> {
    entries: Entries<'a>,
    /// The part of a run of the index that a checkpoint cut off.
    rest: Option<IndexEntry>,
    pieces: u64,
    next_block: u64,
}

impl Told<'_> {
    /// Whether the index goes on with `entry`.
    fn takes(&mut self, entry: &IndexEntry) -> Result<bool> {
        let next = match self.rest.take() {
            Some(rest) => Some(rest),
            None => self.entries.next().transpose()?,
        };
        let Some(mut expected) = next else { return Ok(false) };
        self.next_block = entry.end();
        if expected == *entry {
            return Ok(true);
        }
        if entry.has_leaf()
            || (expected.block, expected.kind) != (entry.block, entry.kind)
            || expected.run <= entry.run
        {
            return Ok(false);
        }
        expected.block += entry.run;
        expected.run -= entry.run;
        self.rest = Some(expected);
        Ok(true)
    }
}
