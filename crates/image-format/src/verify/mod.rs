//! Proves an image: that every stored byte is what was written, and that every block decodes
//! to the bytes its hash names.

mod checkpoints;
mod frames;
mod parity;
mod tree_check;
mod windows;

use std::sync::{Mutex, PoisonError};

use aiv_volume_io::{Job, ReadAt, Step};
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash::Tree;
use crate::ids::Digest;
use crate::image::{Image, read_page, tail_len};
use crate::layout::{IndexEntry, Kind, Superblock, Totals, Trailer, first_nonzero};
use crate::limits::PAGE_SIZE;
use crate::parent::ParentState;
use crate::state::StateBuilder;
use tree_check::TreeCheck;
use windows::{WindowChecker, Windows};

/// How thorough a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Every structure: superblocks, trailers, index, trees, META, stored list.
    Quick,
    /// Every structure, every stored byte, the checksum of every frame, and that the image has
    /// what its own differences build on: what proves a copy of frames that were proven before.
    Stored,
    /// Every structure, every stored byte, and every block decoded and hashed.
    Data,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Every damage found, in file order; empty for a sound image. At most
    /// [`VerifyReport::DAMAGE_LISTED_MAX`] are listed.
    pub damage: Vec<Corrupt>,
    /// Number of damages found, listed or not.
    pub damage_count: u64,
    /// Blocks decoded and compared with their hash.
    pub blocks_checked: u64,
    /// Bytes of the file compared with the stored list.
    pub bytes_checked: u64,
    /// Whether roots, differences and copies of the parent's blocks were left unproven, because
    /// the image was verified without the state it builds on.
    pub without_parent: bool,
    /// Whether the image is sealed and its key was not given: every stored byte was proven, and
    /// nothing of what they mean.
    pub locked: bool,
}

impl VerifyReport {
    /// Damages listed at most, so that a wholly overwritten image gives a readable report.
    pub const DAMAGE_LISTED_MAX: usize = 1000;

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    pub(crate) fn note(&mut self, corrupt: Corrupt) {
        self.damage_count += 1;
        if self.damage.len() < Self::DAMAGE_LISTED_MAX {
            self.damage.push(corrupt);
        }
    }

    /// Adds what was found in one part of the file.
    fn merge(&mut self, part: Self) {
        let room = Self::DAMAGE_LISTED_MAX - self.damage.len();
        self.damage.extend(part.damage.into_iter().take(room));
        self.damage_count += part.damage_count;
        self.blocks_checked += part.blocks_checked;
        self.bytes_checked += part.bytes_checked;
    }

    /// Keeps damage and lets everything else through.
    pub(crate) fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt(corrupt)) => {
                self.note(corrupt);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

impl Image {
    /// Verifies the image by itself. Runs in the rayon pool of the calling thread. Of an image
    /// with a parent this proves every stored byte and every block stored whole, and leaves out
    /// what only [`Image::verify_on`] can prove.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Canceled`]; damage is no error but
    /// part of the report.
    pub fn verify(&self, depth: Depth, job: Job<'_>) -> Result<VerifyReport> {
        self.verify_with(depth, None, job)
    }

    /// Verifies an image with a parent together with the state it builds on.
    ///
    /// # Errors
    /// As [`Image::verify`]; [`Error::Parent`] when the parent's state cannot be used,
    /// [`Error::Misuse`] when it is not the one the image builds on.
    pub fn verify_on(
        &self,
        parent: &dyn ParentState,
        depth: Depth,
        job: Job<'_>,
    ) -> Result<VerifyReport> {
        if Some(parent.link()) != self.superblock().parent {
            return Err(Error::Misuse("a parent state other than the one of the superblock"));
        }
        self.verify_with(depth, Some(parent), job)
    }

    fn verify_with(
        &self,
        depth: Depth,
        parent: Option<&dyn ParentState>,
        job: Job<'_>,
    ) -> Result<VerifyReport> {
        let without_parent = self.superblock().parent.is_some() && parent.is_none();
        let locked = self.is_locked();
        let mut report = VerifyReport { without_parent, locked, ..VerifyReport::default() };
        for corrupt in self.damage() {
            report.note(corrupt.clone());
        }
        let total = if depth == Depth::Quick { 0 } else { self.trailer().stored_offset };
        job.progress.begin(Step::VerifyImage, total);
        self.verify_tail(&mut report)?;
        self.verify_meta(&mut report);
        self.verify_segments(&mut report)?;
        let index_sound = match (locked, without_parent) {
            (true, _) => false,
            (false, true) => self.verify_entries(&mut report, job)?,
            (false, false) => self.verify_index(&mut report, parent, job)?,
        };
        self.verify_stored_list(&mut report)?;
        self.verify_page_parity(&mut report, job)?;
        if depth != Depth::Quick {
            let in_row =
                self.verify_bytes_and_blocks(&mut report, depth, parent, index_sound, job)?;
            if index_sound {
                self.verify_checkpoints(&mut report, job)?;
            }
            // Where bytes are not what was written, frames are not either: that is told already.
            let explains = |told: &Corrupt, found: &Corrupt| {
                told.section == Section::StoredPiece || told.offset == found.offset
            };
            if let Some(found) = in_row
                && !report.damage.iter().any(|told| explains(told, &found))
            {
                report.note(found);
            }
        }
        job.progress.end(Step::VerifyImage);
        report.damage.sort_by_key(|c| c.offset);
        Ok(report)
    }

    /// Superblock copy and gap; the rest of the tail was checked when the image was opened.
    fn verify_tail(&self, report: &mut VerifyReport) -> Result<()> {
        let len = self.trailer().file_len;
        let offset = len - 2 * PAGE_SIZE as u64;
        let page = read_page(&*self.file, offset)?;
        let copy = Superblock::from_bytes(&page, Section::SuperblockCopy, offset);
        let copy = copy.map_err(|error| match error {
            Error::Foreign(_) => Fault::Magic.at(Section::SuperblockCopy, offset),
            Error::Unsupported(_) => {
                let fault = Fault::Differs { field: "version", other: "superblock" };
                fault.at(Section::SuperblockCopy, offset)
            }
            other => other,
        });
        // Also where they only differ in what means nothing.
        if report.keep(copy)?.is_some() && page != *self.superblock_page {
            let (field, other) = ("content", "superblock");
            let fault = Fault::Differs { field, other };
            report.note(Corrupt { section: Section::SuperblockCopy, offset, fault });
        }
        self.verify_trailer_codes(report)?;
        for damage in self.check_slots()? {
            report.keep(Err::<(), _>(damage))?;
        }
        // Where the second copy of the key slots ends, if there are any.
        let gap_start = len - tail_len(self.superblock().features) + PAGE_SIZE as u64;
        let mut at = gap_start + self.superblock().slot_area_len();
        while at < offset {
            let page = read_page(&*self.file, at)?;
            if let Some(set) = first_nonzero(&page) {
                let fault = Fault::Reserved { at: set };
                report.note(Corrupt { section: Section::TrailerGap, offset: at, fault });
            }
            at += PAGE_SIZE as u64;
        }
        Ok(())
    }

    /// What META says and no reader needs, so that opening does not refuse it.
    fn verify_meta(&self, report: &mut VerifyReport) {
        if !self.has_meta() {
            return;
        }
        let offset = self.trailer().meta_offset;
        let mut note = |fault| report.note(Corrupt { section: Section::Meta, offset, fault });
        if self.meta().manifest.full_number == 0 {
            let (field, found) = ("number of the full image", 0);
            note(Fault::Value { field, found, allowed: "1 and more" });
        }
        if !self.meta().origins.contains(&self.superblock().session) {
            note(Fault::Differs { field: "origins", other: "session of the superblock" });
        }
    }

    /// Both trailers were written with the key; opening has looked at one of them.
    fn verify_trailer_codes(&self, report: &mut VerifyReport) -> Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        let len = self.trailer().file_len;
        for (copy, offset) in
            [(1, len - tail_len(self.superblock().features)), (2, len - PAGE_SIZE as u64)]
        {
            let page = read_page(&*self.file, offset)?;
            // One that is damaged was noted when the image was opened.
            let Ok(trailer) = Trailer::from_bytes(&page, copy, offset) else { continue };
            if trailer.mac_of(key, &self.superblock_page) != trailer.mac {
                let fault = Fault::Sealed;
                report.note(Corrupt { section: Section::Trailer, offset, fault });
            }
        }
        Ok(())
    }

    /// Walks every index page, recomputes roots and totals, and compares the tree pages.
    /// Returns whether the index can be used to check blocks.
    fn verify_index(
        &self,
        report: &mut VerifyReport,
        parent: Option<&dyn ParentState>,
        job: Job<'_>,
    ) -> Result<bool> {
        let trailer = self.trailer();
        let trailer_at = trailer.file_len - PAGE_SIZE as u64;
        let mut tree_nodes = TreeCheck::new(self);
        let mut state =
            StateBuilder::new(*self.geometry(), parent, trailer.index_offset, &self.access);
        let mut totals = Totals::default();
        let mut tree_damage = None;
        let mut lost = LostBlocks::new(self);
        for entry in self.entries(0) {
            job.check()?;
            let Some(entry) = report.keep(entry)? else { return Ok(false) };
            *totals.of(entry.kind) += entry.run;
            lost.compare(&entry);
            let pushed = state.push(&entry, &mut |node| tree_nodes.compare(node, &mut tree_damage));
            if report.keep(pushed)?.is_none() {
                return Ok(false);
            }
        }
        let roots = state.finish(&mut |node| tree_nodes.compare(node, &mut tree_damage));
        let Some(roots) = report.keep(roots)? else { return Ok(false) };
        tree_nodes.finish(&mut tree_damage);
        if let Some(error) = tree_damage {
            report.keep(Err::<(), _>(error))?;
        }
        let mut differs = |field, differs: bool| {
            if differs {
                let fault = Fault::Differs { field, other: "index" };
                report.note(Corrupt { section: Section::Trailer, offset: trailer_at, fault });
            }
        };
        differs("content root", self.access.clear_root(&roots.content) != trailer.content_root);
        differs("map root", self.access.clear_root(&roots.map) != trailer.map_root);
        differs("state root", self.access.clear_root(&roots.state) != trailer.state_root);
        self.compare_counts(&totals, &lost, report);
        Ok(true)
    }

    /// Walks every index page and tree page without the parent's state: what they are made of,
    /// and not the roots. Returns whether the index can be used to check blocks.
    fn verify_entries(&self, report: &mut VerifyReport, job: Job<'_>) -> Result<bool> {
        let mut totals = Totals::default();
        let mut lost = LostBlocks::new(self);
        for entry in self.entries(0) {
            job.check()?;
            let Some(entry) = report.keep(entry)? else { return Ok(false) };
            *totals.of(entry.kind) += entry.run;
            lost.compare(&entry);
        }
        self.compare_counts(&totals, &lost, report);
        let mut damage = None;
        TreeCheck::new(self).skip_all(&mut damage);
        if let Some(error) = damage {
            report.keep(Err::<(), _>(error))?;
        }
        Ok(true)
    }

    /// Compares what the entries add up to with what trailer and META say.
    fn compare_counts(&self, totals: &Totals, lost: &LostBlocks, report: &mut VerifyReport) {
        let trailer = self.trailer();
        let counted = Totals {
            frames: trailer.totals.frames,
            payload_bytes: trailer.totals.payload_bytes,
            ..*totals
        };
        if counted != trailer.totals {
            let fault = Fault::Differs { field: "block counts", other: "index" };
            let offset = trailer.file_len - PAGE_SIZE as u64;
            report.note(Corrupt { section: Section::Trailer, offset, fault });
        }
        if self.has_meta() && !lost.agree {
            let fault = Fault::Differs { field: "source errors", other: "index" };
            report.note(Corrupt { section: Section::Meta, offset: trailer.meta_offset, fault });
        }
    }

    /// Recomputes the stored root from the list, and checks the padding behind it.
    fn verify_stored_list(&self, report: &mut VerifyReport) -> Result<()> {
        let trailer = self.trailer();
        let offset = trailer.stored_offset;
        let mut tree = Tree::stored();
        let mut at = 0;
        while at < trailer.stored_pieces {
            let count = (trailer.stored_pieces - at).min(PIECES_PER_READ);
            read_pieces(self, at, count)?.into_iter().for_each(|p| tree.push(p));
            at += count;
        }
        if tree.finish() != trailer.stored_root {
            let fault = Fault::Hash { by: "trailer" };
            report.note(Corrupt { section: Section::StoredList, offset, fault });
        }
        let list_end = offset + trailer.stored_pieces * 32;
        let padding = trailer.parity_offset - list_end;
        let mut bytes = [0; PAGE_SIZE];
        let bytes = &mut bytes[..usize::try_from(padding).unwrap_or(0)];
        self.file.read_exact_at(bytes, list_end).map_err(Error::io("read image", list_end))?;
        if let Some(at) = first_nonzero(bytes) {
            let fault = Fault::Reserved { at };
            report.note(Corrupt { section: Section::StoredList, offset: list_end, fault });
        }
        Ok(())
    }

    /// One pass over the file in windows: each piece against the list, each frame that begins
    /// in the window against the index. Returns what is wrong with the row of all frames.
    fn verify_bytes_and_blocks(
        &self,
        report: &mut VerifyReport,
        depth: Depth,
        parent: Option<&dyn ParentState>,
        index_sound: bool,
        job: Job<'_>,
    ) -> Result<Option<Corrupt>> {
        let shared = Mutex::new(std::mem::take(report));
        let entries = index_sound.then(|| self.entries(0));
        let windows = Windows::new(self, entries);
        let stripes = parity::StripeCheck::new(self);
        let frames = frames::FrameWalk::new(self);
        let outcome: Result<()> = windows.par_bridge().try_for_each_init(
            || WindowChecker::new(self, depth, parent, stripes.as_ref(), &frames),
            |checker, window| {
                job.check()?;
                let window = window?;
                let bytes = window.len();
                let found = checker.check(&window)?;
                shared.lock().unwrap_or_else(PoisonError::into_inner).merge(found);
                job.progress.advance(Step::VerifyImage, bytes);
                Ok(())
            },
        );
        *report = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome?;
        frames.finish()
    }
}

/// The blocks META calls touched by source errors, against those the index calls unreadable:
/// none of these may be missing there. The list may name more, as the one of a dying disk with
/// more bad ranges than it may hold is rounded out.
struct LostBlocks {
    /// First and last block of each source error, ascending.
    told: Vec<(u64, u64)>,
    next: usize,
    agree: bool,
}

impl LostBlocks {
    fn new(image: &Image) -> Self {
        let size = u64::from(image.geometry().block_size().get());
        let errors = image.meta().source_errors.iter();
        let told = errors.map(|e| (e.start / size, (e.end() - 1) / size)).collect();
        Self { told, next: 0, agree: true }
    }

    /// Takes the entries in block order.
    fn compare(&mut self, entry: &IndexEntry) {
        let is_lost = entry.kind == Kind::Unreadable;
        let mut covered = entry.block;
        while let Some(&(first, last)) = self.told.get(self.next) {
            if first >= entry.end() {
                break;
            }
            // An unreadable entry must be touched block after block.
            self.agree &= !is_lost || first <= covered;
            covered = covered.max(last + 1);
            if last >= entry.end() {
                break;
            }
            self.next += 1;
        }
        self.agree &= !is_lost || covered >= entry.end();
    }
}

const PIECES_PER_READ: u64 = 8192;

fn read_pieces(image: &Image, first: u64, count: u64) -> Result<Vec<Digest>> {
    let offset = image.trailer().stored_offset + first * 32;
    let len = usize::try_from(count * 32).map_err(|_| Error::Misuse("a huge piece range"))?;
    let mut bytes = vec![0; len];
    image.file.read_exact_at(&mut bytes, offset).map_err(Error::io("read stored list", offset))?;
    let digest = |chunk: &[u8]| {
        let mut digest = Digest::default();
        digest.0.copy_from_slice(chunk);
        digest
    };
    Ok(bytes.chunks_exact(32).map(digest).collect())
}
