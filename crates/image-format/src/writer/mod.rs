//! Writes one image front to back in a single pass, in memory that does not grow with it.
//!
//! Order of writes (`docs/format.md` section 9): superblock, frames with a checkpoint every
//! 64 MiB, index, tree, META, stored list, parity, sync, both trailers with the superblock copy, sync.
//! Until the trailers are there no reader accepts the file, so a crash leaves no half image.

mod copy;
mod finish;
mod frames;
mod pages;
mod parity;
mod resume;
mod sections;
mod split;
#[cfg(test)]
mod turned;

pub use copy::RowItem;
use frames::NewFrame;

use std::sync::Arc;

use aiv_volume_io::AppendFile;

use crate::appender::Appender;
use crate::codec::EncodedBlock;
use crate::error::{Error, Result, Section};
use crate::hash::Roots;
use crate::ids::{BlockIndex, Digest, SessionTag};
use crate::layout::{
    CheckpointHead, Features, FrameKind, IndexEntry, Kind, LocalHead, NamedBase, ORIGIN_SIZE,
    Superblock, Totals, Trailer, covering,
};
use crate::limits::{
    BLOCKS_MAX, CHECKPOINT_BYTES, CHECKPOINT_ENTRIES_MAX, FRAME_ALIGN, PIECE_SIZE, RUN_MAX,
};
use crate::seal::{Access, Seal};
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
    /// The last trailer, as written.
    pub trailer: Trailer,
    /// The roots of the state: those of the trailer, except in sealed images.
    pub roots: Roots,
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
    /// The chain key and what it is for, of an image that has one.
    seal: Option<Seal>,
    access: Access,
    /// Bytes stored between two checkpoints.
    checkpoint_bytes: u64,
}

impl<'f> ImageWriter<'f> {
    /// Begins an image without a key in an empty file.
    ///
    /// # Errors
    /// [`Error::Io`] when the storage fails; [`Error::Misuse`] for a superblock this version
    /// would refuse to read.
    pub fn create(file: Box<dyn AppendFile + 'f>, superblock: Superblock) -> Result<Self> {
        Self::create_with(file, superblock, None)
    }

    /// Begins an image in an empty file, sealed or authenticated where `seal` says so: that is
    /// then added to the superblock. The session must be one that never wrote with this key; see
    /// [`SessionTag::hedged`].
    ///
    /// # Errors
    /// As [`ImageWriter::create`]; [`Error::Misuse`] for key slots of a wrong size.
    pub fn create_with(
        file: Box<dyn AppendFile + 'f>,
        mut superblock: Superblock,
        seal: Option<Seal>,
    ) -> Result<Self> {
        match &seal {
            Some(seal) => seal.mark(&mut superblock)?,
            None if superblock.is_keyed() => {
                return Err(Error::Misuse("a sealed or authenticated image without its key"));
            }
            None => {}
        }
        let bytes = superblock.to_bytes();
        let superblock = Superblock::from_bytes(&bytes, Section::Superblock, 0)
            .map_err(|_| Error::Misuse("a superblock no reader would accept"))?;
        let (image, session) = (superblock.image, superblock.session);
        let access = seal.as_ref().map_or(Access::Clear, |seal| seal.access(image, session));
        let mut file = Appender::new(file, superblock.features.has_data_parity())
            .with_slots(superblock.slot_area_len());
        if let Access::Open(key) = &access {
            file = file.sealing(key.clone());
        }
        file.append(&bytes)?;
        if let Some(slots) = seal.as_ref().and_then(|seal| seal.slots.as_deref()) {
            file.append(slots)?;
        }
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
            seal,
            access,
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
    /// [`Error::Io`] when the storage fails; the image must then be given up.
    pub fn suspend(mut self) -> Result<()> {
        if self.next_unlisted != self.next_block {
            self.checkpoint()?;
        }
        self.file.flush()
    }

    /// Lets the threads of `pool` encrypt: else the one that calls does. The image is the same.
    pub fn seal_in(&mut self, pool: Arc<rayon::ThreadPool>) {
        self.file.seal_in(pool);
    }

    /// The superblock as it was written.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
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
    /// length, there is no next block, differences are not among the features, or a base of this
    /// image is not a lower block that was stored whole with this leaf, as far as that is known:
    /// of blocks that no checkpoint lists yet.
    pub fn push_block(&mut self, block: &EncodedBlock) -> Result<BlockPlace> {
        let kind = match block.kind {
            FrameKind::Delta => Kind::Delta,
            FrameKind::Local => Kind::Local,
            _ => Kind::Data,
        };
        self.needs(kind.needs())?;
        if kind == Kind::Local {
            let head = LocalHead::split(&block.payload, self.next_block);
            let (head, _) = head.map_err(|_| Error::Misuse("a base that does not come before"))?;
            self.check_bases(&head)?;
        }
        self.push_framed(block, kind)
    }

    /// Refuses bases that are known not to be what their leaf says, or not to be stored whole.
    fn check_bases(&self, head: &LocalHead) -> Result<()> {
        let mut recent = head.bases().iter().filter(|base| base.block >= self.next_unlisted);
        let is_right = |base: &NamedBase| {
            let found = covering(&self.pending, base.block);
            found.is_some_and(|found| found.is_whole() && found.leaf == base.leaf)
        };
        match recent.all(is_right) {
            true => Ok(()),
            false => Err(Error::Misuse("a base that this image does not store whole")),
        }
    }

    /// Refuses what readers would not expect by the superblock, which is written already.
    fn needs(&self, feature: u64) -> Result<()> {
        match self.superblock.features.incompat & feature == feature {
            false => Err(Error::Misuse("a kind of block the superblock does not announce")),
            true => Ok(()),
        }
    }

    /// Stores the next block in a frame and marks it unreadable: the block holds the fill
    /// pattern where the source could not be read.
    ///
    /// # Errors
    /// As [`ImageWriter::push_block`].
    pub fn push_damaged_block(&mut self, block: &EncodedBlock) -> Result<BlockPlace> {
        if !block.is_whole() {
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
            stored_len: None,
        };
        self.parity_if_due()?;
        self.cut_before(self.stored_len(block.payload.len()).0)?;
        let (address, frame_size) = self.append_frame(&about, &block.payload)?;
        self.totals.payload_bytes += self.stored_len(block.payload.len()).0 as u64;
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
        if place.address < self.superblock.frames_start()
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
        // What may have to stand in front of it comes first, so that the pieces it completes are
        // listed, too.
        self.parity_if_due()?;
        let complete = self.file.position() / PIECE_SIZE as u64 - self.pieces_listed;
        let most = self.checkpoint_head(in_memory(complete + PIECES_IN_FRONT));
        self.cut_before(self.stored_len(most.payload_len()).0)?;
        self.parity_if_due()?;
        let pieces = self.file.take_pieces(false)?;
        let head = self.checkpoint_head(pieces.len());
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
        let (address, _) = self.append_frame(&about, &payload)?;
        self.checkpoints.push(address);
        self.last_checkpoint_end = self.file.position();
        self.next_unlisted = self.next_block;
        Ok(())
    }

    /// What a checkpoint that lists so many pieces says of itself.
    fn checkpoint_head(&self, pieces: usize) -> CheckpointHead {
        CheckpointHead {
            previous_address: self.checkpoints.last().copied().unwrap_or(0),
            number: self.checkpoints.len() as u64,
            next_block: self.next_block,
            first_piece: self.pieces_listed,
            piece_count: narrow(pieces),
            entry_count: narrow(self.pending.len()),
            origin_count: narrow(self.origins.len()),
        }
    }
}

/// Pieces that PAD and PARITY frames in front of a checkpoint complete at most.
const PIECES_IN_FRONT: u64 = 8;

fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("bounded by the limits")
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
