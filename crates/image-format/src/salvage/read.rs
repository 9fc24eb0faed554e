//! The bytes of salvaged blocks: decoded, and compared with everything that is known of them.

use super::open::open_frame;
use super::{Evidence, Fate, Loss, Salvage};
use crate::block::{BaseBlock, BaseReader, Scratch, Working, decode_frame};
use crate::codec::CODEC_ZSTD;
use crate::error::{Error, Result};
use crate::hash;
use crate::ids::BlockIndex;
use crate::layout::{DeltaHead, FRAME_HEADER_SIZE, FrameKind, IndexEntry, Kind};
use crate::limits::DELTA_DEPTH_MAX;

/// Reads salvaged blocks; keeps the working memory of one thread.
pub struct SalvageReader<'s> {
    salvage: &'s Salvage,
    scratch: Scratch,
    frame: Vec<u8>,
}

impl Salvage {
    /// A reader for one thread.
    #[must_use]
    pub fn reader(&self) -> SalvageReader<'_> {
        SalvageReader { salvage: self, scratch: Scratch::default(), frame: Vec::new() }
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
        self.load(entry)?;
        let Scratch { decoder, plain, base: buffer, .. } = &mut self.scratch;
        let access = &self.salvage.access;
        let working = Working { access, plain, decoder, buffer };
        let limit = DELTA_DEPTH_MAX;
        decode_frame(working, &self.frame, entry, block, limit, out, base).map(drop)
    }

    /// Reads a block of which only its frame is left: what that says of itself has to agree.
    fn read_lone(
        &mut self,
        entry: &IndexEntry,
        out: &mut [u8],
        base: &mut BaseReader<'_>,
    ) -> Result<()> {
        use crate::error::{Fault, Section};
        let at = |fault: Fault| fault.at(Section::Frame, entry.address);
        self.load(entry)?;
        let Scratch { decoder, base: buffer, plain, .. } = &mut self.scratch;
        let frame = open_frame(&self.salvage.access, plain, &self.frame, entry.address)?;
        let kind = if entry.kind == Kind::Delta { FrameKind::Delta } else { FrameKind::Data };
        if (frame.kind, frame.subject) != (kind, entry.block)
            || frame.plain_len as usize != out.len()
        {
            return Err(at(Fault::Differs { field: "header", other: "scan" }));
        }
        if kind == FrameKind::Delta {
            let (head, compressed) = DeltaHead::split(frame.content).map_err(at)?;
            if frame.codec != CODEC_ZSTD {
                return Err(at(Fault::Differs { field: "codec", other: "type" }));
            }
            let (block, leaf) = (head.base_block, head.base_leaf);
            let bytes = buffer.of_len(out.len());
            base(&BaseBlock { block, leaf, limit: DELTA_DEPTH_MAX - 1 }, bytes)?;
            decoder.decode_delta(bytes, compressed, out).map_err(at)?;
        } else {
            decoder.decode(frame.codec, frame.content, out).map_err(at)?;
        }
        if hash::leaf(out).0[..8] != frame.leaf_prefix {
            return Err(at(Fault::Hash { by: "frame header" }));
        }
        Ok(())
    }

    /// Reads the frame of `entry` with its header.
    fn load(&mut self, entry: &IndexEntry) -> Result<()> {
        let (file, at) = (&*self.salvage.file, entry.address);
        let failed = || Error::io("read frame", at);
        let mut header = [0; FRAME_HEADER_SIZE];
        file.read_exact_at(&mut header, at).map_err(failed())?;
        let stored = crate::block::frame_header(&header, at)?.stored_len as usize;
        self.frame.resize(FRAME_HEADER_SIZE + stored, 0);
        file.read_exact_at(&mut self.frame, at).map_err(failed())
    }
}

/// What a failure costs: the block, by its frame or by what it builds on.
fn judge(read: Result<Kind>, is_parents: bool) -> Result<std::result::Result<Kind, Loss>> {
    match read {
        Ok(kind) => Ok(Ok(kind)),
        Err(error @ Error::Canceled(_)) => Err(error),
        Err(Error::Parent { .. }) => Ok(Err(Loss::Parent)),
        Err(_) if is_parents => Ok(Err(Loss::Parent)),
        Err(_) => Ok(Err(Loss::Frame)),
    }
}
