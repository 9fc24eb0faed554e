//! Parity says again what the pages and pieces it is about say: it is computed anew from them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aiv_parity::add_shards;
use aiv_volume_io::{Job, ReadAt};

use super::VerifyReport;
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash::{self, SectionHasher};
use crate::image::Image;
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::pages::ProtectedPages;
use crate::parity::stripes::{LAST_PAYLOAD, PARITY_LEN, STRIPE_LEN, Stripes, is_parity_of};

impl Image {
    /// Proves the parity area by its hash, and, where the pages it is about were found sound,
    /// page by page by computing it anew.
    pub(super) fn verify_page_parity(&self, report: &mut VerifyReport, job: Job<'_>) -> Result<()> {
        let trailer = self.trailer();
        let with_data_parity = self.superblock().features.has_data_parity();
        let protected = ProtectedPages::of(trailer, with_data_parity);
        let can_compare = report.is_sound();
        let mut hasher = SectionHasher::new();
        for number in 0..protected.groups() {
            job.check()?;
            let group = protected.group(number);
            let mut stored = vec![0; usize::try_from(group.area_len()).unwrap_or(0)];
            let op = Error::io("read parity area", group.offset);
            self.file.read_exact_at(&mut stored, group.offset).map_err(op)?;
            hasher.update(&stored);
            if !can_compare {
                continue;
            }
            let mut bytes = vec![0; group.pages * PAGE_SIZE];
            for (run, at) in protected.runs(&group) {
                let op = Error::io("read image", at);
                self.file.read_exact_at(&mut bytes[run], at).map_err(op)?;
            }
            let computed = group.area(&bytes, self.superblock().image);
            let pages = stored.chunks(PAGE_SIZE).zip(computed.chunks(PAGE_SIZE));
            for (page, _) in pages.enumerate().filter(|(_, (stored, computed))| stored != computed)
            {
                let offset = group.offset + (page * PAGE_SIZE) as u64;
                let fault = Fault::Differs { field: "content", other: "pages it is made of" };
                report.note(Corrupt { section: Section::ParityArea, offset, fault });
            }
        }
        if hasher.finish() != trailer.parity_hash && (!can_compare || report.is_sound()) {
            let fault = Fault::Hash { by: "trailer" };
            let offset = trailer.parity_offset;
            report.note(Corrupt { section: Section::ParityArea, offset, fault });
        }
        Ok(())
    }
}

/// The parity of the pieces of an image, computed anew from the windows of a verification as
/// they come, and compared with the PARITY frame when a stripe is complete.
pub(super) struct StripeCheck<'a> {
    image: &'a Image,
    stripes: Stripes,
    /// By stripe: the parity of what was seen of it, and how many bytes that was. No more than
    /// there are windows at work.
    open: Mutex<HashMap<u64, (Vec<u8>, u64)>>,
}

impl<'a> StripeCheck<'a> {
    /// Of an image with parity over its pieces.
    pub(super) fn new(image: &'a Image) -> Option<Self> {
        let with_data_parity = image.superblock().features.has_data_parity();
        let stripes = Stripes::of(image.trailer()).filter(|_| with_data_parity)?;
        Some(Self { image, stripes, open: Mutex::default() })
    }

    /// Takes `bytes` from `start` on: whole pieces but for the end of the file, of one stripe.
    pub(super) fn take(&self, start: u64, bytes: &[u8], report: &mut VerifyReport) -> Result<()> {
        let room = usize::try_from(self.stripes.end.saturating_sub(start)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return Ok(());
        }
        let stripe = start / STRIPE_LEN;
        let first = usize::try_from(start % STRIPE_LEN).unwrap_or(0) / PIECE_SIZE;
        let mut sum = vec![0; PARITY_LEN];
        let slots = self.image.superblock().slot_area_len();
        let pieces = (start / PIECE_SIZE as u64..).zip(bytes.chunks(PIECE_SIZE));
        let pieces: Vec<_> = pieces.map(|(no, piece)| hash::as_proven(no, piece, slots)).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
        add_shards(first, &pieces, &mut sum);
        let whole = self.stripes.end_of(stripe) - stripe * STRIPE_LEN;
        let parity = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let (parity, seen) = open.entry(stripe).or_insert_with(|| (vec![0; PARITY_LEN], 0));
            parity.iter_mut().zip(&sum).for_each(|(parity, sum)| *parity ^= sum);
            *seen += bytes.len() as u64;
            if *seen < whole {
                return Ok(());
            }
            open.remove(&stripe).map(|(parity, _)| parity).unwrap_or_default()
        };
        report.keep(self.compare(stripe, parity)).map(drop)
    }

    fn compare(&self, stripe: u64, mut parity: Vec<u8>) -> Result<()> {
        let end = self.stripes.end_of(stripe);
        let is_last = stripe + 1 == self.stripes.count();
        let payload_len = if is_last { LAST_PAYLOAD } else { PARITY_LEN };
        parity.resize(payload_len, 0);
        let file = &*self.image.file;
        let mut fault = Fault::Differs { field: "place", other: "stripe before it" };
        let mut place = end;
        for address in self.stripes.search(file, stripe) {
            let address = address.map_err(Error::io("read image", end))?;
            let mut frame = vec![0; FRAME_HEADER_SIZE + payload_len];
            file.read_exact_at(&mut frame, address).map_err(Error::io("read frame", address))?;
            let (header, payload) = frame.split_at(FRAME_HEADER_SIZE);
            let mut head = [0; FRAME_HEADER_SIZE];
            head.copy_from_slice(header);
            place = address;
            if !is_parity_of(&head, stripe, payload_len) {
                fault = Fault::Differs { field: "header", other: "stripe before it" };
                continue;
            }
            if payload == parity {
                return FrameHeader::from_bytes(&head, address)?.check_payload(payload, address);
            }
            fault = Fault::Differs { field: "content", other: "pieces it is made of" };
        }
        Err(fault.at(Section::ParityFrame, place))
    }
}
