//! The pieces of a damaged image: which are bad, and what they were.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_parity::{DATA_SHARDS_MAX, PARITY_SHARDS, add_shard, solve};
use aiv_volume_io::{Extent, Job, ReadAt, Step};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::RepairReport;
use super::mended::Mended;
use crate::error::{Error, Fault, Result, Section};
use crate::hash;
use crate::ids::Digest;
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, Superblock, Trailer};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::stripes::{
    LAST_FRAME, LAST_PAYLOAD, PARITY_LEN, STRIPE_LEN, Stripes, is_parity_of,
};

const PIECE: u64 = PIECE_SIZE as u64;
const PER_STRIPE: u64 = DATA_SHARDS_MAX as u64;

/// Pieces looked at as one unit of parallel work.
const WINDOW: u64 = 64;

/// Stripes repaired for the sake of one: where its PARITY frame is damaged, the stripe that holds
/// that frame comes first, and so on. Bounds the repaired pieces in memory.
const CHAIN_MAX: usize = 256;

/// Pieces of such stripes that are taken from copies: 64 MiB of memory.
const FOUND_MAX: usize = 1024;

/// The pieces of a file whose stored list is sound.
pub(super) struct Pieces {
    file: Arc<Mended>,
    copies: Vec<Arc<dyn ReadAt>>,
    trailer: Trailer,
    stripes: Option<Stripes>,
    /// Bytes of the key-slot area, which count as zeros.
    slots: u64,
    /// The pieces that are not what the list says.
    bad: Bits,
    /// Bad pieces that were found again, until they were handed out.
    found: BTreeMap<u64, Vec<u8>>,
    /// Stripes with nothing left to try.
    tried: HashSet<u64>,
    /// Bad pieces that could not be found again when all were tried.
    lost: Bits,
}

/// One bit for each piece: 2 MiB for an image of 1 TiB, whatever is damaged.
struct Bits(Vec<u64>);

impl Bits {
    fn new(pieces: u64) -> Result<Self> {
        let words = usize::try_from(pieces.div_ceil(64));
        Ok(Self(vec![0; words.map_err(|_| Error::Misuse("an image too large for this machine"))?]))
    }

    fn set(&mut self, piece: u64) {
        if let Some(bits) = usize::try_from(piece / 64).ok().and_then(|at| self.0.get_mut(at)) {
            *bits |= 1 << (piece % 64);
        }
    }

    fn has(&self, piece: u64) -> bool {
        let bits = usize::try_from(piece / 64).ok().and_then(|at| self.0.get(at));
        bits.is_some_and(|bits| bits >> (piece % 64) & 1 == 1)
    }
}

/// How far an attempt at a stripe came.
enum Attempt {
    /// Nothing more can be done for it.
    Done,
    /// The stripe with this number has to be tried first: it holds the parity.
    Needs(u64),
}

impl Pieces {
    /// Compares every piece with the stored list.
    pub(super) fn look_through(
        file: Arc<Mended>,
        copies: Vec<Arc<dyn ReadAt>>,
        superblock: &Superblock,
        trailer: &Trailer,
        job: Job<'_>,
    ) -> Result<Self> {
        let has_stripes = superblock.features.has_data_parity();
        let stripes = Stripes::of(trailer).filter(|_| has_stripes);
        let mut this = Self {
            file,
            copies,
            trailer: *trailer,
            stripes,
            slots: superblock.slot_area_len(),
            bad: Bits::new(trailer.stored_pieces)?,
            found: BTreeMap::new(),
            tried: HashSet::new(),
            lost: Bits::new(trailer.stored_pieces)?,
        };
        job.progress.begin(Step::VerifyImage, trailer.stored_offset);
        let bad = Mutex::new(Bits::new(trailer.stored_pieces)?);
        (0..trailer.stored_pieces.div_ceil(WINDOW)).into_par_iter().try_for_each(|window| {
            job.check()?;
            let end = ((window + 1) * WINDOW).min(trailer.stored_pieces);
            for piece in window * WINDOW..end {
                let bytes = this.raw(piece)?;
                if !bytes.is_some_and(|bytes| this.is_proven(piece, &bytes)) {
                    bad.lock().unwrap_or_else(PoisonError::into_inner).set(piece);
                }
                job.progress.advance(Step::VerifyImage, PIECE);
            }
            Ok::<(), Error>(())
        })?;
        this.bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
        job.progress.end(Step::VerifyImage);
        Ok(this)
    }

    /// Tries every bad piece and counts what comes of it.
    pub(super) fn assess(&mut self, report: &mut RepairReport, job: Job<'_>) -> Result<()> {
        self.begin_pass();
        for piece in 0..self.trailer.stored_pieces {
            if !self.is_bad(piece) {
                continue;
            }
            job.check()?;
            self.find(piece)?;
            self.forget_before(piece);
            match self.found.remove(&piece) {
                Some(bytes) if self.copy_of(piece).is_some_and(|copy| copy == bytes) => {
                    report.pieces_from_copies += 1;
                }
                Some(_) => report.pieces_by_parity += 1,
                None => {
                    self.lost.set(piece);
                    report.pieces_lost += 1;
                    let end = ((piece + 1) * PIECE).min(self.trailer.stored_offset);
                    let extent = Extent::between(piece * PIECE, end);
                    let has_room = report.lost.len() < RepairReport::LOST_LISTED_MAX;
                    match report.lost.last_mut() {
                        Some(last) if last.end() == extent.start => last.len += extent.len,
                        _ if has_room => report.lost.push(extent),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Before the pieces are asked for in order.
    pub(super) fn begin_pass(&mut self) {
        self.found.clear();
        self.tried.clear();
    }

    /// Whether a piece could not be found again when all were tried.
    pub(super) fn is_lost(&self, piece: u64) -> bool {
        self.lost.has(piece)
    }

    /// A piece as it was. Pieces are asked for in ascending order.
    pub(super) fn proven(&mut self, piece: u64) -> Result<Vec<u8>> {
        if self.is_bad(piece) {
            self.find(piece)?;
            self.forget_before(piece);
        }
        let bytes = match self.found.remove(&piece) {
            Some(bytes) => Some(bytes),
            None => self.raw(piece)?,
        };
        match bytes {
            Some(bytes) if self.is_proven(piece, &bytes) => Ok(self.with_slots(piece, bytes)),
            _ => {
                let fault = Fault::Hash { by: "stored list" };
                Err(fault.at(Section::StoredPiece, piece * PIECE))
            }
        }
    }

    /// The piece with the key slots that the repaired file gets. The stored list says nothing
    /// about them: another copy of the image may have older ones, or somebody else's.
    fn with_slots(&self, piece: u64, mut bytes: Vec<u8>) -> Vec<u8> {
        let end = PAGE_SIZE.saturating_add(usize::try_from(self.slots).unwrap_or(0));
        if let Some(slots) = bytes.get_mut(PAGE_SIZE..end).filter(|_| piece == 0) {
            let mut known = vec![0; slots.len()];
            if self.file.read_exact_at(&mut known, PAGE_SIZE as u64).is_ok() {
                slots.copy_from_slice(&known);
            }
        }
        bytes
    }

    fn is_bad(&self, piece: u64) -> bool {
        self.bad.has(piece)
    }

    /// Repaired pieces that were passed need no memory any more.
    fn forget_before(&mut self, piece: u64) {
        self.found = self.found.split_off(&piece);
    }

    fn len_of(&self, piece: u64) -> usize {
        let left = self.trailer.stored_offset - piece * PIECE;
        usize::try_from(left.min(PIECE)).unwrap_or(PIECE_SIZE)
    }

    /// The bytes of a piece as the file has them, pages that were mended included; `None` when
    /// they cannot be read.
    fn raw(&self, piece: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.len_of(piece)];
        match self.file.read_exact_at(&mut bytes, piece * PIECE) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::io("read image", piece * PIECE)(e))
            }
            Err(_) => Ok(None),
        }
    }

    fn is_proven(&self, piece: u64, bytes: &[u8]) -> bool {
        let mut listed = Digest::default();
        let offset = self.trailer.stored_offset + piece * 32;
        self.file.read_exact_at(&mut listed.0, offset).is_ok()
            && hash::piece(piece, bytes, self.slots) == listed
    }

    /// The piece as one of the copies has it.
    fn copy_of(&self, piece: u64) -> Option<Vec<u8>> {
        self.copies.iter().find_map(|copy| {
            let mut bytes = vec![0; self.len_of(piece)];
            copy.read_exact_at(&mut bytes, piece * PIECE).ok()?;
            self.is_proven(piece, &bytes).then_some(bytes)
        })
    }

    /// A piece that is sound or was found again, as parity has it.
    fn sound(&self, piece: u64) -> Result<Option<Vec<u8>>> {
        let bytes = match self.found.get(&piece) {
            Some(bytes) => Some(bytes.clone()),
            None if self.is_bad(piece) => None,
            None => self.raw(piece)?,
        };
        Ok(bytes.map(|bytes| hash::as_proven(piece, &bytes, self.slots).into_owned()))
    }

    /// Finds a bad piece again, if it can be.
    fn find(&mut self, piece: u64) -> Result<()> {
        if self.found.contains_key(&piece) {
            return Ok(());
        }
        if let Some(bytes) = self.copy_of(piece) {
            self.found.insert(piece, bytes);
            return Ok(());
        }
        match self.stripes {
            Some(stripes) if piece * PIECE < stripes.end => self.find_stripe(piece / PER_STRIPE),
            Some(stripes) => self.find_last_frame(&stripes),
            None => Ok(()),
        }
    }

    /// Finds the bad pieces of a stripe again, and first of those that hold its parity.
    fn find_stripe(&mut self, stripe: u64) -> Result<()> {
        let mut chain = vec![stripe];
        while let Some(&next) = chain.last() {
            if self.tried.contains(&next) {
                chain.pop();
                continue;
            }
            match self.attempt(next)? {
                Attempt::Needs(other) if chain.len() < CHAIN_MAX => chain.push(other),
                Attempt::Needs(_) | Attempt::Done => {
                    self.tried.insert(next);
                }
            }
        }
        Ok(())
    }

    fn attempt(&mut self, stripe: u64) -> Result<Attempt> {
        let Some(stripes) = self.stripes else { return Ok(Attempt::Done) };
        let first = stripe * PER_STRIPE;
        let end = stripes.end_of(stripe) / PIECE;
        let mut lost: Vec<u64> = Vec::new();
        for piece in first..end {
            if !self.is_bad(piece) || self.found.contains_key(&piece) {
                continue;
            }
            let has_room = self.found.len() < FOUND_MAX;
            match self.copy_of(piece).filter(|_| has_room) {
                Some(bytes) => drop(self.found.insert(piece, bytes)),
                None => lost.push(piece),
            }
        }
        if lost.is_empty() || lost.len() > PARITY_SHARDS {
            return Ok(Attempt::Done);
        }
        // What the stripe's data adds to its parity, but for the lost pieces.
        let mut known = vec![0; PARITY_LEN];
        for piece in (first..end).filter(|piece| !lost.contains(piece)) {
            match self.sound(piece)? {
                Some(bytes) => add_shard(in_memory(piece - first), &bytes, &mut known),
                None => return Ok(Attempt::Done),
            }
        }
        let view = View { pieces: self, end: stripes.end + LAST_FRAME, missed: Mutex::default() };
        let addresses = stripes.candidates(&view, stripe);
        let addresses = addresses.map_err(Error::io("read image", first * PIECE))?;
        let mut found = None;
        for address in addresses {
            let (parity, rows) = self.parity_at(address)?;
            let mut difference = known.clone();
            difference.iter_mut().zip(&parity).for_each(|(sum, parity)| *sum ^= parity);
            let columns: Vec<usize> = lost.iter().map(|piece| in_memory(piece - first)).collect();
            let Some(solved) = solve(&columns, &rows, &difference) else { continue };
            if lost.iter().zip(&solved).all(|(&piece, bytes)| self.is_proven(piece, bytes)) {
                found = Some(solved);
                break;
            }
        }
        if let Some(found) = found {
            self.found.extend(lost.into_iter().zip(found));
            return Ok(Attempt::Done);
        }
        // The frame, or its header, may lie in a bad piece of a later stripe.
        Ok(match self.bad_behind(stripe, &stripes) {
            Some(other) => Attempt::Needs(other),
            None => Attempt::Done,
        })
    }

    /// The first later stripe that was not tried and has bad pieces where the parity of `stripe`
    /// may be.
    fn bad_behind(&self, stripe: u64, stripes: &Stripes) -> Option<u64> {
        let start = stripes.end_of(stripe) / PIECE;
        let limit = stripes.reach_of(stripe) / PIECE;
        let bad = (start..limit).filter(|&piece| self.is_bad(piece));
        bad.map(|piece| piece / PER_STRIPE).find(|other| !self.tried.contains(other))
    }

    /// The parity shards in the frame at `address`, zeros where they are not known, and which
    /// are: those that lie in sound pieces as a whole.
    fn parity_at(&self, address: u64) -> Result<(Vec<u8>, Vec<usize>)> {
        let start = address + FRAME_HEADER_SIZE as u64;
        let mut parity = vec![0; PARITY_LEN];
        let mut rows = Vec::new();
        let view = View { pieces: self, end: self.trailer.stored_offset, missed: Mutex::default() };
        for (row, shard) in parity.chunks_mut(PIECE_SIZE).enumerate() {
            let at = start + row as u64 * PIECE;
            view.read_exact_at(shard, at).map_err(Error::io("read frame", at))?;
            let mut missed = view.missed.lock().unwrap_or_else(PoisonError::into_inner);
            match missed.drain(..).next() {
                None => rows.push(row),
                Some(_) => shard.fill(0),
            }
        }
        Ok((parity, rows))
    }

    /// Makes the last PARITY frame anew from its stripe, and with it the bad pieces it lies in.
    fn find_last_frame(&mut self, stripes: &Stripes) -> Result<()> {
        let stripe = stripes.count() - 1;
        // What was found of it may have been handed out and forgotten.
        self.tried.remove(&stripe);
        self.find_stripe(stripe)?;
        let first = stripe * PER_STRIPE;
        let mut payload = vec![0; PARITY_LEN];
        for piece in first..stripes.end / PIECE {
            match self.sound(piece)? {
                Some(bytes) => add_shard(in_memory(piece - first), &bytes, &mut payload),
                None => return Ok(()),
            }
        }
        payload.resize(LAST_PAYLOAD, 0);
        // It is the frame before the first one of the META area.
        let mut next = [0; FRAME_HEADER_SIZE];
        if self.file.read_exact_at(&mut next, self.trailer.meta_offset).is_err() {
            return Ok(());
        }
        let Ok(next) = FrameHeader::from_bytes(&next, self.trailer.meta_offset) else {
            return Ok(());
        };
        let len = u32::try_from(LAST_PAYLOAD).expect("four pieces and a page");
        let header = FrameHeader {
            kind: FrameKind::Parity,
            codec: 0,
            seq: next.seq.wrapping_sub(1),
            subject: stripe,
            plain_len: len,
            stored_len: len,
            payload_crc: FrameHeader::payload_crc(&payload),
            // Those of META may be.
            seal: None,
            ..next
        };
        let frame = [&header.to_bytes()[..], &payload].concat();
        debug_assert!(is_parity_of(&header.to_bytes(), stripe, LAST_PAYLOAD));
        let pieces = stripes.end / PIECE..(stripes.end + LAST_FRAME).div_ceil(PIECE);
        for piece in pieces.filter(|&piece| self.is_bad(piece)).collect::<Vec<u64>>() {
            let from = in_memory(piece * PIECE - stripes.end);
            let part = &frame[from..(from + self.len_of(piece)).min(frame.len())];
            let mut bytes = part.to_vec();
            let rest = self.len_of(piece) - part.len();
            if rest > 0 {
                let mut behind = vec![0; rest];
                let at = stripes.end + LAST_FRAME;
                if self.file.read_exact_at(&mut behind, at).is_err() {
                    continue;
                }
                bytes.extend_from_slice(&behind);
            }
            if self.is_proven(piece, &bytes) {
                self.found.insert(piece, bytes);
            }
        }
        Ok(())
    }
}

/// The file as far as it is known: bad pieces read as zeros unless they were found again.
struct View<'a> {
    pieces: &'a Pieces,
    end: u64,
    /// Bad pieces that were read.
    missed: Mutex<Vec<u64>>,
}

impl ReadAt for View<'_> {
    fn len(&self) -> u64 {
        self.end
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let piece = at / PIECE;
            let from = in_memory(at % PIECE);
            let count = (PIECE_SIZE - from).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            let sound = self.pieces.sound(piece).map_err(io::Error::other)?;
            match sound.as_ref().and_then(|bytes| bytes.get(from..from + count)) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => {
                    now.fill(0);
                    self.missed.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
                }
            }
            rest = later;
            at += count as u64;
        }
        Ok(())
    }
}

/// A number inside a stripe, a piece or a frame.
fn in_memory(offset: u64) -> usize {
    usize::try_from(offset).expect("frames fit the address space")
}

const _: () = assert!(STRIPE_LEN == PER_STRIPE * PIECE);
