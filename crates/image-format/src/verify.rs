//! Proves an image: that every stored byte is what was written, and that every block decodes
//! to the bytes its hash names.

use std::sync::Mutex;
use std::sync::PoisonError;

use aiv_volume_io::{Job, ReadAt, Step};
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::codec::Decoder;
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash::{self, SectionHasher, StateTree, Tree};
use crate::ids::Digest;
use crate::image::{BlockReader, Image, TAIL_LEN, decode_frame, read_page};
use crate::index::Entries;
use crate::layout::{
    IndexEntry, Kind, PageHeader, PageKind, Superblock, Totals, TreeNode, first_nonzero,
};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};

/// How thorough a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Every structure: superblocks, trailers, index, trees, META, stored list.
    Quick,
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
}

impl VerifyReport {
    /// Damages listed at most, so that a wholly overwritten image gives a readable report.
    pub const DAMAGE_LISTED_MAX: usize = 1000;

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    fn note(&mut self, corrupt: Corrupt) {
        self.damage_count += 1;
        if self.damage.len() < Self::DAMAGE_LISTED_MAX {
            self.damage.push(corrupt);
        }
    }

    /// Keeps damage and lets everything else through.
    fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
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

/// Bytes of the file one unit of parallel work covers.
const WINDOW: u64 = 4 << 20;

impl Image {
    /// Verifies the image. Runs in the rayon pool of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Canceled`]; damage is no error but
    /// part of the report.
    pub fn verify(&self, depth: Depth, job: Job<'_>) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        for corrupt in self.damage() {
            report.note(corrupt.clone());
        }
        let total = if depth == Depth::Data { self.trailer().stored_offset } else { 0 };
        job.progress.begin(Step::VerifyImage, total);
        self.verify_tail(&mut report)?;
        let index_sound = self.verify_index(&mut report, job)?;
        self.verify_stored_list(&mut report)?;
        if depth == Depth::Data {
            self.verify_bytes_and_blocks(&mut report, index_sound, job)?;
        }
        job.progress.end(Step::VerifyImage);
        report.damage.sort_by_key(|c| c.offset);
        Ok(report)
    }

    /// Superblock copy and gap; the rest of the tail was checked when the image was opened.
    fn verify_tail(&self, report: &mut VerifyReport) -> Result<()> {
        let len = self.trailer().file_len;
        let offset = len - 2 * PAGE_SIZE as u64;
        let copy = read_page(&*self.file, offset)?;
        let copy = Superblock::from_bytes(&copy, Section::SuperblockCopy, offset);
        let copy = copy.map_err(|error| match error {
            Error::Foreign(_) => Fault::Magic.at(Section::SuperblockCopy, offset),
            Error::Unsupported(_) => {
                let fault = Fault::Differs { field: "version", other: "superblock" };
                fault.at(Section::SuperblockCopy, offset)
            }
            other => other,
        });
        if let Some(copy) = report.keep(copy)?
            && copy != *self.superblock() {
                let (field, other) = ("contents", "superblock");
                let fault = Fault::Differs { field, other };
                report.note(Corrupt { section: Section::SuperblockCopy, offset, fault });
            }
        let gap_start = len - TAIL_LEN + PAGE_SIZE as u64;
        let mut at = gap_start;
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

    /// Walks every index page, recomputes roots and totals, and compares the tree pages.
    /// Returns whether the index can be used to check blocks.
    fn verify_index(&self, report: &mut VerifyReport, job: Job<'_>) -> Result<bool> {
        let trailer = self.trailer();
        let trailer_at = trailer.file_len - PAGE_SIZE as u64;
        let mut tree_nodes = TreePages::new(self);
        let mut state = StateTree::new(*self.geometry());
        let mut totals = Totals::default();
        let mut tree_damage = None;
        for entry in self.entries(0) {
            job.check()?;
            let Some(entry) = report.keep(entry)? else { return Ok(false) };
            if entry.block != state.next_block() {
                let (field, found) = ("block", state.next_block());
                let fault = Fault::Value { field, found, allowed: "covered by the index" };
                let offset = trailer.index_offset;
                report.note(Corrupt { section: Section::IndexPage, offset, fault });
                return Ok(false);
            }
            count(&mut totals, &entry);
            state.push(&entry, &mut |node| tree_nodes.compare(node, &mut tree_damage));
        }
        if state.next_block() != self.geometry().blocks() {
            let (field, found) = ("block", state.next_block());
            let fault = Fault::Value { field, found, allowed: "covered by the index" };
            report.note(Corrupt { section: Section::IndexPage, offset: trailer.index_offset, fault });
            return Ok(false);
        }
        let roots = state.finish(&mut |node| tree_nodes.compare(node, &mut tree_damage));
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
        differs("content root", roots.content != trailer.content_root);
        differs("map root", roots.map != trailer.map_root);
        differs("state root", roots.state != trailer.state_root);
        let counted = Totals {
            frames: trailer.totals.frames,
            payload_bytes: trailer.totals.payload_bytes,
            ..totals
        };
        differs("block counts", counted != trailer.totals);
        Ok(true)
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
        let padding = trailer.file_len - TAIL_LEN - list_end;
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
    /// in the window against the index.
    fn verify_bytes_and_blocks(
        &self,
        report: &mut VerifyReport,
        index_sound: bool,
        job: Job<'_>,
    ) -> Result<()> {
        let shared = Mutex::new(std::mem::take(report));
        let entries = index_sound.then(|| self.entries(0));
        let windows = Windows { image: self, entries, carried: None, next: 0 };
        let outcome = windows.par_bridge().try_for_each_init(
            || WindowChecker::new(self),
            |checker, window| {
                job.check()?;
                let window = window?;
                let bytes = window.end - window.start;
                let found = checker.check(&window)?;
                let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
                found.damage.into_iter().for_each(|c| all.note(c));
                all.blocks_checked += found.blocks_checked;
                all.bytes_checked += found.bytes_checked;
                job.progress.advance(Step::VerifyImage, bytes);
                Ok(())
            },
        );
        *report = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome
    }
}

fn count(totals: &mut Totals, entry: &IndexEntry) {
    let total = match entry.kind {
        Kind::Data => &mut totals.blocks_data,
        Kind::Zero => &mut totals.blocks_zero,
        Kind::Unused => &mut totals.blocks_unused,
        Kind::Excluded => &mut totals.blocks_excluded,
        Kind::Unreadable => &mut totals.blocks_unreadable,
        Kind::Ref => &mut totals.blocks_ref,
    };
    *total += entry.run;
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

/// Reads the tree pages in step with the nodes the index gives.
struct TreePages<'a> {
    image: &'a Image,
    next_page: u64,
    open: std::vec::IntoIter<TreeNode>,
    hasher: SectionHasher,
}

impl<'a> TreePages<'a> {
    fn new(image: &'a Image) -> Self {
        let open = Vec::new().into_iter();
        Self { image, next_page: 0, open, hasher: SectionHasher::new() }
    }

    fn next_node(&mut self) -> Result<Option<TreeNode>> {
        loop {
            if let Some(node) = self.open.next() {
                return Ok(Some(node));
            }
            let trailer = self.image.trailer();
            if self.next_page == trailer.tree_pages {
                return Ok(None);
            }
            let offset = trailer.tree_offset + self.next_page * PAGE_SIZE as u64;
            let page = read_page(&*self.image.file, offset)?;
            self.hasher.update(&page);
            let image = self.image.superblock().image;
            let header =
                PageHeader::from_page(&page, PageKind::Tree, image, self.next_page, offset)?;
            let nodes: std::result::Result<Vec<_>, Fault> =
                TreeNode::of_page(&page, &header).collect();
            self.open = nodes.map_err(|f| f.at(Section::TreePage, offset))?.into_iter();
            self.next_page += 1;
        }
    }

    fn compare(&mut self, expected: TreeNode, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        match self.next_node() {
            Ok(Some(node)) if node == expected => {}
            Ok(_) => {
                let fault = Fault::Differs { field: "node", other: "index" };
                *damage = Some(fault.at(Section::TreePage, self.image.trailer().tree_offset));
            }
            Err(error) => *damage = Some(error),
        }
    }

    fn finish(mut self, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        let offset = self.image.trailer().tree_offset;
        match self.next_node() {
            Ok(None) if self.hasher.finish() == self.image.trailer().tree_hash => {}
            Ok(None) => {
                *damage = Some(Fault::Hash { by: "trailer" }.at(Section::TreePage, offset));
            }
            Ok(Some(_)) => {
                let fault = Fault::Differs { field: "node count", other: "index" };
                *damage = Some(fault.at(Section::TreePage, offset));
            }
            Err(error) => *damage = Some(error),
        }
    }
}

/// A stretch of the file, and the entries whose frame begins in it. Entries whose frame lies
/// elsewhere (equal blocks, merged images) ride along and are read on their own.
struct Window {
    start: u64,
    end: u64,
    entries: Vec<IndexEntry>,
}

struct Windows<'a> {
    image: &'a Image,
    entries: Option<Entries<'a>>,
    carried: Option<IndexEntry>,
    next: u64,
}

/// Entries one window takes along at most, whatever their frames: bounds its memory.
const WINDOW_ENTRIES_MAX: usize = 1 << 16;

impl Iterator for Windows<'_> {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Self::Item> {
        let file_end = self.image.trailer().stored_offset;
        let start = self.next;
        let mut end = (start + WINDOW).min(file_end);
        let mut entries = Vec::new();
        while let Some(cursor) = self.entries.as_mut() {
            let entry = match self.carried.take().map(Ok).or_else(|| cursor.next()) {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    self.entries = None;
                    return Some(Err(error));
                }
                None => {
                    self.entries = None;
                    break;
                }
            };
            if !entry.has_frame() {
                continue;
            }
            let ahead = entry.address >= end && entry.kind != Kind::Ref;
            if (ahead && end < file_end) || entries.len() == WINDOW_ENTRIES_MAX {
                self.carried = Some(entry);
                break;
            }
            entries.push(entry);
        }
        if entries.len() == WINDOW_ENTRIES_MAX && self.carried.is_some() {
            // Too many for one window: stay where we are and give the rest to the next one.
            end = start;
        }
        self.next = end;
        (start < file_end || !entries.is_empty()).then_some(Ok(Window { start, end, entries }))
    }
}

struct WindowChecker<'a> {
    image: &'a Image,
    decoder: Decoder,
    strays: BlockReader<'a>,
    bytes: Vec<u8>,
    block: Vec<u8>,
}

impl<'a> WindowChecker<'a> {
    fn new(image: &'a Image) -> Self {
        let strays = image.block_reader();
        Self { image, decoder: Decoder::new(), strays, bytes: Vec::new(), block: Vec::new() }
    }

    fn check(&mut self, window: &Window) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        // Read on past the window so that the frame that crosses its end is complete.
        let overlap = u64::from(self.image.geometry().block_size().get()) + PAGE_SIZE as u64;
        let read_end = (window.end + overlap).min(self.image.trailer().stored_offset);
        let len = usize::try_from(read_end - window.start).unwrap_or(usize::MAX);
        self.bytes.resize(if window.start == window.end { 0 } else { len }, 0);
        let op = Error::io("read image", window.start);
        self.image.file.read_exact_at(&mut self.bytes, window.start).map_err(op)?;
        self.check_pieces(window, &mut report)?;
        for entry in &window.entries {
            let len = self.image.geometry().block_len(entry.block) as usize;
            self.block.resize(len, 0);
            let inside = entry.address.checked_sub(window.start).and_then(|from| {
                let from = usize::try_from(from).ok()?;
                let size = usize::try_from(entry.frame_size).ok().filter(|&size| size > 0)?;
                self.bytes.get(from..from.checked_add(size)?)
            });
            let result = match inside {
                Some(frame) => {
                    decode_frame(&mut self.decoder, frame, entry, entry.block, &mut self.block)
                }
                None => self.strays.read_entry(entry, entry.block, &mut self.block),
            };
            report.keep(result)?;
            report.blocks_checked += 1;
        }
        Ok(report)
    }

    fn check_pieces(&self, window: &Window, report: &mut VerifyReport) -> Result<()> {
        let piece = PIECE_SIZE as u64;
        let first = window.start / piece;
        let count = (window.end - window.start).div_ceil(piece);
        let inside = usize::try_from(window.end - window.start).unwrap_or(usize::MAX);
        let stored = self.bytes.get(..inside).unwrap_or_default().chunks(PIECE_SIZE);
        let listed = read_pieces(self.image, first, count)?;
        for (number, (bytes, digest)) in (first..).zip(stored.zip(listed)) {
            if hash::piece(bytes) != digest {
                let fault = Fault::Hash { by: "stored list" };
                let offset = number * piece;
                report.note(Corrupt { section: Section::StoredPiece, offset, fault });
            }
            report.bytes_checked += bytes.len() as u64;
        }
        Ok(())
    }
}
