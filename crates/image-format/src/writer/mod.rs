//! Writes one image front to back in a single pass, in memory that does not grow with it.
//!
//! Order of writes (`docs/format.md` section 9): superblock, frames with a checkpoint every
//! 64 MiB, index, tree, META, stored list, parity, sync, both trailers with the superblock copy, sync.
//! Until the trailers are there no reader accepts the file, so a crash leaves no half image.

mod copy;
mod pages;
mod parity;
mod resume;
mod sections;
mod split;

pub use copy::RowItem;

use aiv_volume_io::AppendFile;

use crate::appender::Appender;
use crate::codec::EncodedBlock;
use crate::error::{Error, Result, Section, Unsupported};
use crate::ids::{BlockIndex, Digest, SessionTag};
use crate::image::{tail_len, trailer_gap};
use crate::layout::{
    CheckpointHead, FRAME_HEADER_SIZE, Features, FrameHeader, FrameKind, IndexEntry, Kind,
    ORIGIN_SIZE, Superblock, Totals, Trailer,
};
use crate::limits::{
    ADDRESS_UNITS_MAX, BLOCKS_MAX, CHECKPOINT_BYTES, CHECKPOINT_ENTRIES_MAX, FRAME_ALIGN,
    PAGE_SIZE, RUN_MAX,
};
use crate::meta::Meta;
use crate::parent::ParentState;
use crate::segments::Cuts;

/// Where a block landed: what a later equal block refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlace {
    /// Byte offset of its frame.
    pub address: u64,
    /// Bytes the frame takes.
    pub frame_size: u64,
}

/// Blocks that need no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// In use and all zeros.
    Zero,
    /// Free by the filesystem's account.
    Unused,
    /// Left out on request.
    Excluded,
    /// Not one byte could be read.
    Unreadable,
}

impl RunKind {
    const fn kind(self) -> Kind {
        match self {
            Self::Zero => Kind::Zero,
            Self::Unused => Kind::Unused,
            Self::Excluded => Kind::Excluded,
            Self::Unreadable => Kind::Unreadable,
        }
    }
}

/// What a finished image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSummary {
    /// The trailer, as written.
    pub trailer: Trailer,
}

/// Writes an image, one call per block in ascending order without gaps. In an image with a
/// parent, [`ImageWriter::inherit`] leaves blocks as they are in the parent's state.
///
/// Dropping it commits nothing: only [`ImageWriter::finish`] writes the trailers.
pub struct ImageWriter<'f> {
    file: Appender<'f>,
    /// Of an image that is split: where.
    cuts: Option<Cuts>,
    superblock: Superblock,
    /// The session that writes: that of the superblock, unless the image was resumed.
    session: SessionTag,
    next_block: BlockIndex,
    next_seq: u64,
    /// Sessions whose frames the image holds, its own first.
    origins: Vec<SessionTag>,
    /// The one of them that the frame copied last is of.
    last_origin: SessionTag,
    /// Entries since the last checkpoint; the last one may still grow when it is a run.
    pending: Vec<IndexEntry>,
    checkpoints: Vec<u64>,
    last_checkpoint_end: u64,
    /// The first block the last checkpoint says nothing about.
    next_unlisted: BlockIndex,
    /// Pieces listed by checkpoints so far.
    pieces_listed: u64,
    totals: Totals,
    /// PARITY frames written; `None` without parity over the pieces.
    stripes_written: Option<u64>,
    /// Bytes stored between two checkpoints.
    checkpoint_bytes: u64,
}

impl<'f> ImageWriter<'f> {
    /// Begins an image in an empty file.
    ///
    /// # Errors
    /// [`Error::Io`] when the storage fails; [`Error::Misuse`] for a superblock this version
    /// would refuse to read.
    pub fn create(file: Box<dyn AppendFile + 'f>, superblock: Superblock) -> Result<Self> {
        let bytes = superblock.to_bytes();
        let superblock = Superblock::from_bytes(&bytes, Section::Superblock, 0)
            .map_err(|_| Error::Misuse("a superblock no reader would accept"))?;
        let mut file = Appender::new(file, superblock.features.has_data_parity());
        file.append(&bytes)?;
        Ok(Self {
            last_checkpoint_end: file.position(),
            file,
            cuts: None,
            stripes_written: superblock.features.has_data_parity().then_some(0),
            session: superblock.session,
            origins: vec![superblock.session],
            last_origin: superblock.session,
            superblock,
            next_block: 0,
            next_unlisted: 0,
            next_seq: 0,
            pending: Vec::new(),
            checkpoints: Vec::new(),
            pieces_listed: 0,
            totals: Totals::default(),
            checkpoint_bytes: CHECKPOINT_BYTES,
        })
    }

    /// Writes a checkpoint whenever so many bytes were stored since the last one, instead of
    /// [`CHECKPOINT_BYTES`], which is the most. Each costs a frame.
    pub fn set_checkpoint_bytes(&mut self, bytes: u64) {
        self.checkpoint_bytes = bytes.min(CHECKPOINT_BYTES);
    }

    /// Checkpoints of the image so far, those of earlier sessions included.
    #[must_use]
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }

    /// Writes a checkpoint of all that was pushed and hands everything to the storage, so that a
    /// later session can go on from here. Nothing is synced: what a power cut takes is seen by
    /// who goes on.
    ///
    /// # Errors
    /// [`Error::Io`] when the storage fails, and [`Unsupported::GoingOn`] for an image that is
    /// split or has parity over its pieces; it must then be given up.
    pub fn suspend(mut self) -> Result<()> {
        if let Some(names) = self.superblock.features.names_against_going_on() {
            return Err(Unsupported::GoingOn { names }.into());
        }
        if self.next_unlisted != self.next_block {
            self.checkpoint()?;
        }
        self.file.flush()
    }

    /// The next block to be decided.
    #[must_use]
    pub fn next_block(&self) -> BlockIndex {
        self.next_block
    }

    /// Bytes written so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.file.position()
    }

    /// Stores the next block in a frame, whole or as a difference.
    ///
    /// # Errors
    /// [`Error::Io`] when the storage fails, [`Error::Misuse`] when the block has the wrong
    /// length, there is no next block, or differences are not among the features.
    pub fn push_block(&mut self, block: &EncodedBlock) -> Result<BlockPlace> {
        if block.is_delta() {
            self.needs(Features::DELTA)?;
            return self.push_framed(block, Kind::Delta);
        }
        self.push_framed(block, Kind::Data)
    }

    /// Refuses what readers would not expect by the superblock, which is written already.
    fn needs(&self, feature: u64) -> Result<()> {
        match self.superblock.features.incompat & feature {
            0 => Err(Error::Misuse("a kind of block the superblock does not announce")),
            _ => Ok(()),
        }
    }

    /// Stores the next block in a frame and marks it unreadable: the block holds the fill
    /// pattern where the source could not be read.
    ///
    /// # Errors
    /// As [`ImageWriter::push_block`].
    pub fn push_damaged_block(&mut self, block: &EncodedBlock) -> Result<BlockPlace> {
        if block.is_delta() {
            return Err(Error::Misuse("a partly unreadable block as a difference"));
        }
        self.push_framed(block, Kind::Unreadable)
    }

    fn push_framed(&mut self, block: &EncodedBlock, kind: Kind) -> Result<BlockPlace> {
        if block.plain_len != self.superblock.geometry.block_len(self.next_block)
            || block.plain_len == 0
        {
            return Err(Error::Misuse("a block of the wrong length"));
        }
        self.checkpoint_if_due()?;
        let mut leaf_prefix = [0; 8];
        leaf_prefix.copy_from_slice(&block.leaf.0[..8]);
        let about = NewFrame {
            kind: block.kind,
            codec: block.codec,
            is_damaged: kind == Kind::Unreadable,
            depth: block.depth,
            subject: self.next_block,
            plain_len: block.plain_len,
            leaf_prefix,
        };
        self.parity_if_due()?;
        self.cut_before(block.payload.len())?;
        let (address, frame_size) = self.append_frame(&about, &block.payload)?;
        self.totals.payload_bytes += block.payload.len() as u64;
        let entry = IndexEntry {
            block: self.next_block,
            run: 1,
            kind,
            address,
            frame_size,
            parent_block: 0,
            leaf: block.leaf,
        };
        self.push_entry(entry);
        Ok(BlockPlace { address, frame_size })
    }

    /// Decides the next block.
    fn push_entry(&mut self, entry: IndexEntry) {
        *self.totals.of(entry.kind) += 1;
        self.pending.push(entry);
        self.next_block += 1;
    }

    /// Leaves the next `count` blocks as they are in the parent's state.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the image has no parent, or there are not as many blocks left.
    pub fn inherit(&mut self, count: u64) -> Result<()> {
        let end = self.next_block.checked_add(count);
        let end = end.filter(|&end| end <= self.superblock.geometry.blocks());
        if self.superblock.parent.is_none() {
            return Err(Error::Misuse("inherited blocks without a parent"));
        }
        self.next_block = end.ok_or(Error::Misuse("a block beyond the end"))?;
        Ok(())
    }

    /// Records that the next block has the bytes that `block` has in the parent's state.
    ///
    /// # Errors
    /// As [`ImageWriter::push_block`]; [`Error::Misuse`] when the feature is not announced.
    pub fn push_parent(&mut self, block: BlockIndex, leaf: Digest) -> Result<()> {
        self.needs(Features::PARENT)?;
        if self.next_block >= self.superblock.geometry.blocks() || block >= BLOCKS_MAX {
            return Err(Error::Misuse("a block beyond the end"));
        }
        self.checkpoint_if_due()?;
        let entry = IndexEntry {
            parent_block: block,
            leaf,
            ..IndexEntry::run(self.next_block, 1, Kind::Parent)
        };
        self.push_entry(entry);
        Ok(())
    }

    /// Records that the next block has the same bytes as the one stored at `place`.
    ///
    /// # Errors
    /// As [`ImageWriter::push_block`]; [`Error::Misuse`] when this image has no frame there.
    pub fn push_ref(&mut self, place: BlockPlace, leaf: Digest) -> Result<()> {
        if self.next_block >= self.superblock.geometry.blocks() {
            return Err(Error::Misuse("a block beyond the end"));
        }
        let end = place.address.checked_add(place.frame_size);
        let written = end.is_some_and(|end| end <= self.file.position());
        if place.address < PAGE_SIZE as u64
            || !place.address.is_multiple_of(FRAME_ALIGN)
            || !written
        {
            return Err(Error::Misuse("a place of another image"));
        }
        self.checkpoint_if_due()?;
        self.push_entry(IndexEntry {
            block: self.next_block,
            run: 1,
            kind: Kind::Ref,
            address: place.address,
            frame_size: place.frame_size,
            parent_block: 0,
            leaf,
        });
        Ok(())
    }

    /// Records that the next `count` blocks need no frame.
    ///
    /// # Errors
    /// As [`ImageWriter::push_block`].
    pub fn push_run(&mut self, kind: RunKind, count: u64) -> Result<()> {
        let end = self.next_block.checked_add(count);
        if end.is_none_or(|end| end > self.superblock.geometry.blocks()) {
            return Err(Error::Misuse("a block beyond the end"));
        }
        let mut left = count;
        while left > 0 {
            let now = left.min(RUN_MAX);
            let entry = IndexEntry::run(self.next_block, now, kind.kind());
            if !extend_last(&mut self.pending, &entry) {
                self.checkpoint_if_due()?;
                self.pending.push(entry);
            }
            self.next_block += now;
            left -= now;
        }
        *self.totals.of(kind.kind()) += count;
        Ok(())
    }

    /// Appends a frame, behind the parity that is due, and returns its address and size.
    fn append_frame(&mut self, about: &NewFrame, payload: &[u8]) -> Result<(u64, u64)> {
        self.parity_if_due()?;
        self.append_frame_here(about, payload)
    }

    /// Appends a frame right here.
    fn append_frame_here(&mut self, about: &NewFrame, payload: &[u8]) -> Result<(u64, u64)> {
        let address = self.file.position();
        if address / FRAME_ALIGN >= ADDRESS_UNITS_MAX {
            return Err(Error::Misuse("an image above 16 PiB"));
        }
        let stored_len =
            u32::try_from(payload.len()).map_err(|_| Error::Misuse("a payload above 16 MiB"))?;
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
            payload_crc: FrameHeader::payload_crc(payload),
            leaf_prefix: about.leaf_prefix,
        };
        self.file.append(&header.to_bytes())?;
        self.file.append(payload)?;
        let padding = payload.len().next_multiple_of(in_memory(FRAME_ALIGN)) - payload.len();
        self.file.append_zeros(padding)?;
        self.next_seq += 1;
        self.totals.frames += 1;
        Ok((address, header.frame_size()))
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        let far = self.file.position() - self.last_checkpoint_end >= self.checkpoint_bytes;
        if far || self.pending.len() >= CHECKPOINT_ENTRIES_MAX {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes a checkpoint: everything decided so far could be recovered from the file alone.
    ///
    /// # Errors
    /// [`Error::Io`] when the storage fails.
    pub fn checkpoint(&mut self) -> Result<()> {
        let pieces = self.file.take_pieces(false)?;
        let narrow = |count: usize| u32::try_from(count).expect("bounded by the limits");
        let head = CheckpointHead {
            previous_address: self.checkpoints.last().copied().unwrap_or(0),
            number: self.checkpoints.len() as u64,
            next_block: self.next_block,
            first_piece: self.pieces_listed,
            piece_count: narrow(pieces.len()),
            entry_count: narrow(self.pending.len()),
            origin_count: narrow(self.origins.len()),
        };
        let mut payload = Vec::with_capacity(head.payload_len());
        payload.extend_from_slice(&head.to_bytes());
        for (number, origin) in (1..).zip(&self.origins) {
            payload.extend_from_slice(&origin.0);
            payload.resize(CheckpointHead::SIZE + number * ORIGIN_SIZE, 0);
        }
        pieces.iter().for_each(|p| payload.extend_from_slice(&p.0));
        self.pending.iter().for_each(|e| payload.extend_from_slice(&e.to_bytes()));
        self.pending.clear();
        self.pieces_listed += pieces.len() as u64;
        let len = narrow(payload.len());
        let about = NewFrame::plain(FrameKind::Checkpoint, head.number, len);
        self.parity_if_due()?;
        self.cut_before(payload.len())?;
        let (address, _) = self.append_frame(&about, &payload)?;
        self.checkpoints.push(address);
        self.last_checkpoint_end = self.file.position();
        self.next_unlisted = self.next_block;
        Ok(())
    }

    /// Completes a full image: every block must have been pushed. On success the file is durable
    /// and complete; publishing it under its final name is the caller's next step.
    ///
    /// # Errors
    /// [`Error::Misuse`] when blocks are missing or META is one a reader would refuse (too
    /// large, or against the geometry), [`Error::Io`] when the storage fails; the file is then
    /// worthless and must be removed.
    pub fn finish(self, meta: Meta) -> Result<ImageSummary> {
        self.finish_on(meta, None)
    }

    /// Completes an image whose blocks were all pushed or inherited. `parent` is the state it
    /// builds on, present exactly when the superblock names one; it is proven against the link
    /// on the way, since the roots are made of its nodes.
    ///
    /// # Errors
    /// As [`ImageWriter::finish`]; [`Error::Parent`] when the parent's state is not the one the
    /// link names, or one of its files cannot be used.
    pub fn finish_on(
        mut self,
        mut meta: Meta,
        parent: Option<&dyn ParentState>,
    ) -> Result<ImageSummary> {
        if parent.map(ParentState::link) != self.superblock.parent {
            return Err(Error::Misuse("a parent state other than the one of the superblock"));
        }
        if self.next_block != self.superblock.geometry.blocks() {
            return Err(Error::Misuse("an image without all its blocks"));
        }
        meta.origins.clone_from(&self.origins);
        let meta = meta.encode(&self.superblock.geometry)?;
        // Also for inherited blocks, of which there are no entries.
        if self.next_unlisted != self.next_block {
            self.checkpoint()?;
        }
        self.cut_before_pages(&meta)?;
        let frames_end = self.file.position();
        let index = self.write_index()?;
        let tree = self.write_tree(&index, parent)?;
        self.end_cuts();
        let meta_area = self.write_meta(&meta)?;
        let stored = self.write_stored_list()?;
        let parity = self.write_page_parity(index.offset)?;
        self.file.sync()?;
        let end = self.file.position();
        let features = self.superblock.features;
        let trailer = Trailer {
            image: self.superblock.image,
            set: self.superblock.set,
            point: self.superblock.point,
            parent: self.superblock.parent,
            content_root: tree.roots.content,
            map_root: tree.roots.map,
            state_root: tree.roots.state,
            stored_root: stored.root,
            file_len: end + tail_len(features),
            frames_end,
            index_offset: frames_end,
            index_pages: index.pages,
            index_leaf_pages: index.leaf_pages,
            index_root: index.root,
            tree_offset: tree.offset,
            tree_pages: tree.pages,
            tree_hash: tree.hash,
            meta_offset: meta_area.offset,
            meta_len: meta_area.len,
            meta_hash: meta_area.hash,
            stored_offset: stored.offset,
            stored_pieces: stored.pieces,
            last_checkpoint: self.checkpoints.last().copied().unwrap_or(0),
            segment_count: self.segment_count(),
            totals: self.totals,
            parity_offset: parity.offset,
            parity_len: parity.len,
            parity_hash: parity.hash,
        };
        self.file.append(&trailer.to_bytes(1))?;
        self.file.append_zeros(in_memory(trailer_gap(features)))?;
        self.file.append(&self.superblock.to_bytes())?;
        self.file.append(&trailer.to_bytes(2))?;
        self.file.sync()?;
        Ok(ImageSummary { trailer })
    }

    /// Fills up to the next 4 KiB boundary with a PAD frame.
    fn pad_to_page(&mut self) -> Result<()> {
        let past = in_memory(self.file.position() % PAGE_SIZE as u64);
        self.pad((PAGE_SIZE - past) % PAGE_SIZE)
    }

    /// Appends a PAD frame of `count` bytes right here, header included: a multiple of 64, as all
    /// positions are, and less than a piece.
    fn pad(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let payload = vec![0; count - FRAME_HEADER_SIZE];
        let len = u32::try_from(payload.len()).expect("less than a piece");
        self.append_frame_here(&NewFrame::plain(FrameKind::Pad, 0, len), &payload)?;
        Ok(())
    }
}

/// Grows the last entry of `entries` by `next` when both are runs of the same kind and touch.
fn extend_last(entries: &mut [IndexEntry], next: &IndexEntry) -> bool {
    match entries.last_mut() {
        Some(last)
            if last.kind == next.kind
                && !last.has_leaf()
                && !next.has_leaf()
                && last.end() == next.block
                && last.run + next.run <= RUN_MAX =>
        {
            last.run += next.run;
            true
        }
        _ => false,
    }
}

/// A count that is known to fit a buffer.
fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("counts inside a buffer fit the address space")
}

/// What a frame header says besides what the writer knows by itself.
struct NewFrame {
    kind: FrameKind,
    codec: u8,
    is_damaged: bool,
    depth: u8,
    subject: u64,
    plain_len: u32,
    leaf_prefix: [u8; 8],
}

impl NewFrame {
    /// A frame that holds no block, stored as it is.
    fn plain(kind: FrameKind, subject: u64, plain_len: u32) -> Self {
        let leaf_prefix = [0; 8];
        Self { kind, codec: 0, is_damaged: false, depth: 0, subject, plain_len, leaf_prefix }
    }
}
