//! The bytes of salvaged blocks: decoded, and compared with everything that is known of them.

use super::open::open_frame;
use super::{Evidence, Fate, Loss, Salvage};
use crate::block::{
    BaseBlock, BaseReader, Buffer, OwnScratch, Scratch, Working, decode_frame, no_parent, no_prefix,
};
use crate::codec::{CODEC_ZSTD, Decoder};
use crate::error::{Corrupt, Error, Fault, Result, Section};
use crate::hash;
use crate::ids::BlockIndex;
use crate::layout::{
    DeltaHead, FRAME_HEADER_SIZE, FrameKind, IndexEntry, Kind, LocalHead, NamedBase,
};
use crate::limits::DELTA_DEPTH_MAX;

/// Reads salvaged blocks; keeps the working memory of one thread.
pub struct SalvageReader<'s> {
    salvage: &'s Salvage,
    scratch: Scratch,
}

impl Salvage {
    /// A reader for one thread.
    #[must_use]
    pub fn reader(&self) -> SalvageReader<'_> {
        SalvageReader { salvage: self, scratch: Scratch::default() }
    }

    /// Reads the frame of `entry` with its header.
    fn load<'b>(&self, buffer: &'b mut Buffer, entry: &IndexEntry) -> Result<&'b [u8]> {
        let (file, at) = (&*self.file, entry.address);
        let failed = || Error::io("read frame", at);
        let mut header = [0; FRAME_HEADER_SIZE];
        file.read_exact_at(&mut header, at).map_err(failed())?;
        let stored = crate::block::frame_header(&header, at)?.stored_len as usize;
        let frame = buffer.of_len(FRAME_HEADER_SIZE + stored);
        file.read_exact_at(frame, at).map_err(failed())?;
        Ok(frame)
    }

    /// Fills `out` with the blocks that the LOCAL frame of `entry` is a difference to, as
    /// [`crate::Image`] does, wherever their frames are found.
    fn read_prefix(
        &self,
        own: &mut OwnScratch,
        entry: &IndexEntry,
        head: &LocalHead,
        decoder: &mut Decoder,
        out: &mut Buffer,
    ) -> Result<usize> {
        let len = self.geometry.block_size().get() as usize;
        let out = out.of_len(len * head.bases().len());
        for (base, out) in head.bases().iter().zip(out.chunks_exact_mut(len)) {
            if !self.read_whole(own, base, decoder, out) {
                return Err(Fault::Base.at(Section::Frame, entry.address));
            }
        }
        Ok(len * head.bases().len())
    }

    /// Reads a block that was stored whole, if any frame that is left has it.
    fn read_whole(
        &self,
        own: &mut OwnScratch,
        base: &NamedBase,
        decoder: &mut Decoder,
        out: &mut [u8],
    ) -> bool {
        let wanted = IndexEntry { leaf: base.leaf, ..IndexEntry::run(base.block, 1, Kind::Data) };
        let mut reads = |entry: IndexEntry| {
            let OwnScratch { frame, plain } = &mut *own;
            let Ok(frame) = self.load(frame, &entry) else { return false };
            let (access, buffer) = (&self.access, &mut Buffer::default());
            let prefix = &mut no_prefix;
            let working = Working { access, plain, decoder, buffer, prefix };
            decode_frame(working, frame, &entry, base.block, 0, out, &mut no_parent).is_ok()
        };
        // What was remembered of frames costs nothing to look through.
        if self.lookalikes(&wanted).any(&mut reads) {
            return true;
        }
        match self.fate(base.block) {
            Fate::Decided(Evidence::Index | Evidence::Checkpoint, entry) => {
                entry.is_whole() && entry.leaf == base.leaf && reads(entry)
            }
            _ => false,
        }
    }
}

impl SalvageReader<'_> {
    /// Reads `block`, whose fate is `fate`, into `out` of exactly its length, and says how it
    /// was stored; [`Kind::Parent`] for an inherited one. `base` provides blocks of the parent's
    /// state, which it compares with the leaf that is asked for; where that is zero, none is
    /// known. After a loss `out` holds anything.
    ///
    /// # Errors
    /// [`Error::Misuse`] when `out` has the wrong length, [`Error::Canceled`] as `base` says it.
    /// Everything else that keeps the block from being read is a [`Loss`].
    pub fn read(
        &mut self,
        block: BlockIndex,
        fate: &Fate,
        out: &mut [u8],
        base: &mut BaseReader<'_>,
    ) -> Result<std::result::Result<Kind, Loss>> {
        if out.len() != self.salvage.geometry.block_len(block) as usize {
            return Err(Error::Misuse("a buffer of the wrong length"));
        }
        let (by, entry) = match fate {
            Fate::Lost(loss) => return Ok(Err(*loss)),
            Fate::Inherited(_) => {
                let wanted = BaseBlock { block, leaf: Default::default(), limit: DELTA_DEPTH_MAX };
                return judge(base(&wanted, out).map(|_| Kind::Parent), true);
            }
            Fate::Decided(by, entry) => (*by, entry),
        };
        let kind = entry.kind;
        if kind == Kind::Parent {
            let wanted =
                BaseBlock { block: entry.parent_block, leaf: entry.leaf, limit: DELTA_DEPTH_MAX };
            let read = base(&wanted, out).map(|_| kind);
            let same = read.is_err() || hash::leaf(out) == entry.leaf;
            return if same { judge(read, true) } else { Ok(Err(Loss::Parent)) };
        }
        if matches!(by, Evidence::Frame | Evidence::MovedFrame) {
            let read = self.read_lone(entry, out, base);
            return judge(read.map(|()| kind), kind == Kind::Delta);
        }
        if !entry.has_frame() {
            match kind {
                Kind::Unreadable => hash::fill_unreadable(out, 0),
                _ => out.fill(0),
            }
            return Ok(Ok(kind));
        }
        let first = self.read_entry(entry, block, out, base);
        if first.is_ok() {
            return Ok(Ok(kind));
        }
        // Not where the index says: but a frame with this leaf is the block, wherever it lies.
        let salvage = self.salvage;
        for other in salvage.lookalikes(entry) {
            if self.read_entry(&other, block, out, base).is_ok() {
                return Ok(Ok(kind));
            }
        }
        judge(first.map(|()| kind), false)
    }

    /// Reads a block whose leaf is known.
    fn read_entry(
        &mut self,
        entry: &IndexEntry,
        block: BlockIndex,
        out: &mut [u8],
        base: &mut BaseReader<'_>,
    ) -> Result<()> {
        let salvage = self.salvage;
        let Scratch { decoder, frame, plain, base: buffer, own } = &mut self.scratch;
        let frame = salvage.load(frame, entry)?;
        let prefix = &mut |head: &LocalHead, decoder: &mut Decoder, out: &mut Buffer| {
            salvage.read_prefix(own, entry, head, decoder, out)
        };
        let working = Working { access: &salvage.access, plain, decoder, buffer, prefix };
        let limit = DELTA_DEPTH_MAX;
        decode_frame(working, frame, entry, block, limit, out, base).map(drop)
    }

    /// Reads a block of which only its frame is left: what that says of itself has to agree.
    fn read_lone(
        &mut self,
        entry: &IndexEntry,
        out: &mut [u8],
        base: &mut BaseReader<'_>,
    ) -> Result<()> {
        let at = |fault: Fault| fault.at(Section::Frame, entry.address);
        let Scratch { decoder, frame, base: buffer, plain, own } = &mut self.scratch;
        let bytes = self.salvage.load(frame, entry)?;
        let frame = open_frame(&self.salvage.access, plain, bytes, entry.address)?;
        let kind = entry.kind.frame();
        if (frame.kind, frame.subject) != (kind, entry.block)
            || frame.plain_len as usize != out.len()
        {
            return Err(at(Fault::Differs { field: "header", other: "scan" }));
        }
        if kind.is_difference() && frame.codec != CODEC_ZSTD {
            return Err(at(Fault::Differs { field: "codec", other: "type" }));
        }
        match kind {
            FrameKind::Delta => {
                let (head, compressed) = DeltaHead::split(frame.content).map_err(at)?;
                let (block, leaf) = (head.base_block, head.base_leaf);
                let bytes = buffer.of_len(out.len());
                base(&BaseBlock { block, leaf, limit: DELTA_DEPTH_MAX - 1 }, bytes)?;
                decoder.decode_delta(bytes, compressed, out).map_err(at)?;
            }
            FrameKind::Local => {
                let (head, compressed) =
                    LocalHead::split(frame.content, entry.block).map_err(at)?;
                let len = self.salvage.read_prefix(own, entry, &head, decoder, buffer)?;
                decoder.decode_delta(buffer.of_len(len), compressed, out).map_err(at)?;
            }
            _ => decoder.decode(frame.codec, frame.content, out).map_err(at)?,
        }
        if hash::leaf(out).0[..8] != frame.leaf_prefix {
            return Err(at(Fault::Hash { by: "frame header" }));
        }
        Ok(())
    }
}

/// What a failure costs: the block, by its frame or by what it builds on.
fn judge(read: Result<Kind>, is_parents: bool) -> Result<std::result::Result<Kind, Loss>> {
    match read {
        Ok(kind) => Ok(Ok(kind)),
        Err(error @ Error::Canceled(_)) => Err(error),
        Err(Error::Parent { .. }) => Ok(Err(Loss::Parent)),
        Err(Error::Corrupt(Corrupt { fault: Fault::Base, .. })) => Ok(Err(Loss::Base)),
        Err(_) if is_parents => Ok(Err(Loss::Parent)),
        Err(_) => Ok(Err(Loss::Frame)),
    }
}
