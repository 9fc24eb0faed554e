//! Reads the blocks of an image: from frames, as differences, or by the kind alone. The one
//! place where bytes leave an image, and none does before its leaf was compared.

use aiv_volume_io::ReadAt;

use crate::codec::{CODEC_ZSTD, Decoder, check_leaf};
use crate::error::{Error, Fault, Result, Section};
use crate::hash;
use crate::ids::{BlockIndex, Digest};
use crate::image::Image;
use crate::layout::{
    DeltaHead, FRAME_HEADER_SIZE, FrameHeader, FrameKind, IndexEntry, Kind, LocalHead, NamedBase,
};
use crate::limits::{DELTA_DEPTH_MAX, PAGE_SIZE};
use crate::seal::Access;

impl Image {
    /// A reader with working memory of its own, for one thread.
    #[must_use]
    pub fn block_reader(&self) -> BlockReader<'_> {
        BlockReader { image: self, scratch: Scratch::default() }
    }

    /// Reads `block`, which `entry` of this image covers, into `out` of exactly its length, and
    /// returns its depth: how many differences may have to be undone for it, by whichever images
    /// its state is provided. More than `limit` of them are not followed. `base` provides blocks
    /// of the parent's state: it fills the buffer with the block that is asked for and says its
    /// depth. What is returned has been checked against the leaf.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the frame is damaged, [`Error::Io`]; [`Error::Misuse`] when `out`
    /// has the wrong length; whatever `base` answers.
    pub fn read_entry(
        &self,
        scratch: &mut Scratch,
        entry: &IndexEntry,
        block: BlockIndex,
        limit: u8,
        out: &mut [u8],
        base: &mut BaseReader<'_>,
    ) -> Result<u8> {
        if out.len() != self.geometry().block_len(block) as usize {
            return Err(Error::Misuse("a buffer of the wrong length"));
        }
        if entry.kind == Kind::Parent {
            let wanted = BaseBlock { block: entry.parent_block, leaf: entry.leaf, limit };
            let depth = base(&wanted, out)?;
            if hash::leaf(out) != entry.leaf {
                let (field, other) = ("leaf of a copied block", "state of the parent");
                let at = self.trailer().index_offset;
                return Err(Fault::Differs { field, other }.at(Section::IndexPage, at));
            }
            return Ok(depth);
        }
        if !entry.has_frame() {
            match entry.kind {
                Kind::Unreadable => hash::fill_unreadable(out, 0),
                _ => out.fill(0),
            }
            return Ok(0);
        }
        let Scratch { decoder, frame, base: buffer, plain, own } = scratch;
        let bytes = self.load_frame(frame, entry)?;
        let prefix = &mut |head: &LocalHead, decoder: &mut Decoder, out: &mut Buffer| {
            self.read_prefix(own, entry, head, decoder, out)
        };
        let working = Working { access: &self.access, decoder, buffer, plain, prefix };
        decode_frame(working, bytes, entry, block, limit, out, base)
    }

    /// Fills `out` with the bytes of the blocks that the LOCAL frame of `entry` is a difference
    /// to, one behind the other, and says how many they are. Each has been checked against the
    /// leaf that `head` gives it.
    pub(crate) fn read_prefix(
        &self,
        own: &mut OwnScratch,
        entry: &IndexEntry,
        head: &LocalHead,
        decoder: &mut Decoder,
        out: &mut Buffer,
    ) -> Result<usize> {
        // A base comes before another block, so it is never the last one, which may be short.
        let len = self.geometry().block_size().get() as usize;
        let bases = head.bases();
        let out = out.of_len(len * bases.len());
        for (base, out) in bases.iter().zip(out.chunks_exact_mut(len)) {
            let found = self.base_of(entry, base)?;
            let bytes = self.load_frame(&mut own.frame, &found)?;
            let working = Working {
                access: &self.access,
                plain: &mut own.plain,
                decoder,
                buffer: &mut Buffer::default(),
                prefix: &mut no_prefix,
            };
            decode_frame(working, bytes, &found, base.block, 0, out, &mut no_parent)?;
        }
        Ok(len * bases.len())
    }

    /// The entry of a block that the LOCAL frame of `entry` names: stored whole, with that leaf.
    fn base_of(&self, entry: &IndexEntry, base: &NamedBase) -> Result<IndexEntry> {
        let at = |fault: Fault| fault.at(Section::Frame, entry.address);
        let found = self.entry(base.block)?.filter(IndexEntry::is_whole).ok_or_else(|| {
            let (field, found) = ("base block", base.block);
            at(Fault::Value { field, found, allowed: "a block the image stores whole" })
        })?;
        if found.leaf != base.leaf {
            return Err(at(Fault::Differs { field: "base leaf", other: "index" }));
        }
        Ok(found)
    }

    /// What is wrong with this image when it leaves `block` to a parent whose state does not
    /// have it, or has it with another length.
    #[must_use]
    pub fn lacks(&self, block: BlockIndex) -> Error {
        let allowed = "covered by the index or the parent's state";
        let fault = Fault::Value { field: "block", found: block, allowed };
        fault.at(Section::IndexPage, self.trailer().index_offset)
    }

    /// Loads the frame of `entry` and checks it as [`Image::check_loaded`] does.
    pub(crate) fn check_entry(&self, scratch: &mut Scratch, entry: &IndexEntry) -> Result<()> {
        let Scratch { frame, plain, .. } = scratch;
        self.check_loaded(plain, self.load_frame(frame, entry)?, entry)
    }

    /// Checks the frame of `entry`, which `frame` begins with, as far as that goes without decoding
    /// any: also that the image has what a LOCAL one builds on.
    pub(crate) fn check_loaded(
        &self,
        plain: &mut Buffer,
        frame: &[u8],
        entry: &IndexEntry,
    ) -> Result<()> {
        let (_, payload) = check_frame(&self.access, plain, frame, entry, entry.block)?;
        if entry.kind == Kind::Local {
            let at = |fault: Fault| fault.at(Section::Frame, entry.address);
            let (head, _) = LocalHead::split(payload, entry.block).map_err(at)?;
            head.bases().iter().try_for_each(|base| self.base_of(entry, base).map(drop))?;
        }
        Ok(())
    }

    /// What the DELTA frame that `entry` names, and `frame` begins with, is a difference to. The
    /// frame is checked as far as that goes without decoding it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the frame is damaged, or is not the one of the entry;
    /// [`Error::Locked`].
    pub fn delta_head(
        &self,
        scratch: &mut Scratch,
        frame: &[u8],
        entry: &IndexEntry,
    ) -> Result<DeltaHead> {
        let (_, payload) =
            check_frame(&self.access, &mut scratch.plain, frame, entry, entry.block)?;
        if entry.kind != Kind::Delta {
            return Err(Error::Misuse("the base of a block that is no difference"));
        }
        let at = |fault: Fault| fault.at(Section::Frame, entry.address);
        DeltaHead::split(payload).map(|(head, _)| head).map_err(at)
    }

    /// What the LOCAL frame that `entry` names, and `frame` begins with, is a difference to. The
    /// frame is checked as far as that goes without decoding it.
    ///
    /// # Errors
    /// As [`Image::delta_head`].
    pub fn local_head(
        &self,
        scratch: &mut Scratch,
        frame: &[u8],
        entry: &IndexEntry,
    ) -> Result<LocalHead> {
        let (_, payload) =
            check_frame(&self.access, &mut scratch.plain, frame, entry, entry.block)?;
        if entry.kind != Kind::Local {
            return Err(Error::Misuse("the bases of a block that is no difference to any"));
        }
        let at = |fault: Fault| fault.at(Section::Frame, entry.address);
        LocalHead::split(payload, entry.block).map(|(head, _)| head).map_err(at)
    }

    /// Reads the frame of `entry`, header and padding included.
    pub(crate) fn load_frame<'b>(
        &self,
        buffer: &'b mut Buffer,
        entry: &IndexEntry,
    ) -> Result<&'b [u8]> {
        let address = entry.address;
        if entry.frame_size != 0 {
            return load(&*self.file, buffer, address, entry.frame_size);
        }
        load(&*self.file, buffer, address, self.frame_size(entry)?)
    }

    /// Bytes the frame of `entry` takes in the file, with header and padding.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`], only for frames of 4,194,240 bytes and more: the
    /// index cannot hold their size, so their header is read.
    pub fn frame_size(&self, entry: &IndexEntry) -> Result<u64> {
        if entry.frame_size != 0 || !entry.has_frame() {
            return Ok(entry.frame_size);
        }
        let address = entry.address;
        let mut header = [0; FRAME_HEADER_SIZE];
        self.file.read_exact_at(&mut header, address).map_err(Error::io("read frame", address))?;
        let size = frame_header(&header, address)?.frame_size();
        if address.checked_add(size).is_none_or(|end| end > self.trailer().frames_end) {
            return Err(Fault::Bounds.at(Section::Frame, address));
        }
        Ok(size)
    }
}

/// A block of the parent's state that a block is stored as a difference to, or a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseBlock {
    /// Its number.
    pub block: BlockIndex,
    /// The leaf it has in the parent's state.
    pub leaf: Digest,
    /// Differences that may have to be undone for it: who provides it must not undo more, so
    /// that undoing ends.
    pub limit: u8,
}

/// Reads blocks of the parent's state: fills the buffer and returns the depth of the block.
pub type BaseReader<'f> = dyn FnMut(&BaseBlock, &mut [u8]) -> Result<u8> + 'f;

/// A [`BaseReader`] for images without a parent.
pub(crate) fn no_parent(_: &BaseBlock, _: &mut [u8]) -> Result<u8> {
    Err(Error::Misuse("a block of the parent's state, read without the parent"))
}

/// Working memory for reading blocks, for one thread.
#[derive(Default)]
pub struct Scratch {
    pub(crate) decoder: Decoder,
    pub(crate) frame: Buffer,
    /// The block that the one being read is a difference to.
    pub(crate) base: Buffer,
    /// What a sealed frame holds.
    pub(crate) plain: Buffer,
    pub(crate) own: OwnScratch,
}

/// Working memory for blocks of the image itself that another one is a difference to.
#[derive(Default)]
pub(crate) struct OwnScratch {
    pub(crate) frame: Buffer,
    pub(crate) plain: Buffer,
}

/// What decoding needs: the key of sealed frames, the codec's memory, room for what a sealed
/// frame holds and for the blocks that a difference builds on, and where those of the same image
/// come from.
pub(crate) struct Working<'s> {
    pub(crate) access: &'s Access,
    pub(crate) plain: &'s mut Buffer,
    pub(crate) decoder: &'s mut Decoder,
    pub(crate) buffer: &'s mut Buffer,
    pub(crate) prefix: &'s mut PrefixReader<'s>,
}

/// Reads the blocks of the same image that a LOCAL frame names into the buffer, one behind the
/// other and each compared with its leaf, and returns their length.
pub(crate) type PrefixReader<'f> =
    dyn FnMut(&LocalHead, &mut Decoder, &mut Buffer) -> Result<usize> + 'f;

/// A [`PrefixReader`] for frames that were asked to hold a whole block.
pub(crate) fn no_prefix(_: &LocalHead, _: &mut Decoder, _: &mut Buffer) -> Result<usize> {
    Err(Error::Misuse("a difference in place of a block stored whole"))
}

/// Reads blocks of one image that needs no other; keeps the working memory of one thread.
pub struct BlockReader<'a> {
    image: &'a Image,
    scratch: Scratch,
}

/// Working memory that grows to the largest use and is not cleared between uses.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// `len` bytes of any value.
    pub(crate) fn of_len(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            self.0 = vec![0; len];
        }
        &mut self.0[..len]
    }

    /// `len` bytes of any value that begin with a page of memory, as reads past the page cache
    /// have to. For a buffer that is asked for nothing else.
    pub(crate) fn pages_of_len(&mut self, len: usize) -> &mut [u8] {
        let all = self.of_len(len + PAGE_SIZE);
        // Where memory begins is not ours to choose.
        let start = all.as_ptr().align_offset(PAGE_SIZE).min(PAGE_SIZE);
        &mut all[start..start + len]
    }
}

impl BlockReader<'_> {
    /// Reads `block` into `out`, which must have exactly the block's length, and returns how
    /// it is stored. What is returned has been checked against the leaf hash in the index.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when index or frame are damaged, [`Error::Io`]; [`Error::Misuse`]
    /// when `out` has the wrong length, or the bytes lie in the parent's state.
    pub fn read(&mut self, block: BlockIndex, out: &mut [u8]) -> Result<Kind> {
        let entry = self.image.entry(block)?.ok_or_else(|| {
            let fault = Fault::Value { field: "block", found: block, allowed: "in the index" };
            fault.at(Section::IndexPage, self.image.trailer().index_offset)
        })?;
        self.read_entry(&entry, block, out)?;
        Ok(entry.kind)
    }

    /// Reads `block`, which `entry` covers, into `out`.
    ///
    /// # Errors
    /// As [`BlockReader::read`].
    pub fn read_entry(
        &mut self,
        entry: &IndexEntry,
        block: BlockIndex,
        out: &mut [u8],
    ) -> Result<()> {
        let limit = DELTA_DEPTH_MAX;
        self.image.read_entry(&mut self.scratch, entry, block, limit, out, &mut no_parent)?;
        Ok(())
    }
}

/// Reads the `len` bytes at `address`: those of a frame, at most 16 MiB.
fn load<'b>(file: &dyn ReadAt, buffer: &'b mut Buffer, address: u64, len: u64) -> Result<&'b [u8]> {
    let len = usize::try_from(len).map_err(|_| Fault::Bounds.at(Section::Frame, address))?;
    let frame = buffer.of_len(len);
    file.read_exact_at(frame, address).map_err(Error::io("read frame", address))?;
    Ok(frame)
}

/// The checked header at the start of `frame`.
pub(crate) fn frame_header(frame: &[u8], address: u64) -> Result<FrameHeader> {
    match frame.first_chunk::<FRAME_HEADER_SIZE>() {
        Some(bytes) => FrameHeader::from_bytes(bytes, address),
        None => Err(Fault::Bounds.at(Section::Frame, address)),
    }
}

/// Decodes the frame in `frame` (header, payload, padding) as `block` into `out`, checks it
/// against the entry that names it, and returns its depth: what its frame states, or what was
/// undone when that is more. It may be less where a merge has stored a base whole, and is more
/// only where a frame lies; what ends a row of hostile frames is `limit`, which falls with every
/// one.
pub(crate) fn decode_frame(
    Working { access, plain, decoder, buffer, prefix }: Working<'_>,
    frame: &[u8],
    entry: &IndexEntry,
    block: BlockIndex,
    limit: u8,
    out: &mut [u8],
    base: &mut BaseReader<'_>,
) -> Result<u8> {
    let address = entry.address;
    let at = |fault: Fault| fault.at(Section::Frame, address);
    let (header, payload) = check_frame(access, plain, frame, entry, block)?;
    if header.plain_len as usize != out.len() {
        let (field, found) = ("plain length", header.plain_len.into());
        return Err(at(Fault::Value { field, found, allowed: "the block length" }));
    }
    // Before a base is read: a row of hostile frames must not be followed.
    let below = limit.checked_sub(1).ok_or_else(|| {
        let (field, found) = ("differences to undo", u64::from(DELTA_DEPTH_MAX) + 1);
        at(Fault::Value { field, found, allowed: "at most 8" })
    });
    let mut depth = header.depth;
    match header.kind {
        FrameKind::Delta => {
            let (head, compressed) = DeltaHead::split(payload).map_err(at)?;
            let (block, leaf, limit) = (head.base_block, head.base_leaf, below?);
            let bytes = buffer.of_len(out.len());
            let under = base(&BaseBlock { block, leaf, limit }, bytes)?;
            depth = under.saturating_add(1).max(head.depth);
            decoder.decode_delta(bytes, compressed, out).map_err(at)?;
        }
        FrameKind::Local => {
            let (head, compressed) = LocalHead::split(payload, block).map_err(at)?;
            // What it builds on is stored whole.
            below?;
            let len = prefix(&head, decoder, buffer)?;
            decoder.decode_delta(buffer.of_len(len), compressed, out).map_err(at)?;
            depth = 1;
        }
        _ => decoder.decode(header.codec, payload, out).map_err(at)?,
    }
    check_leaf(out, &entry.leaf, address)?;
    Ok(depth)
}

/// Checks everything about the frame that `entry` names for `block` that can be checked without
/// decoding it, and splits it.
pub(crate) fn check_frame<'f>(
    access: &Access,
    plain: &'f mut Buffer,
    frame: &'f [u8],
    entry: &IndexEntry,
    block: BlockIndex,
) -> Result<(FrameHeader, &'f [u8])> {
    let address = entry.address;
    let at = |fault: Fault| fault.at(Section::Frame, address);
    let header = frame_header(frame, address)?;
    access.check_mode(&header).map_err(at)?;
    let (header, content) = match header.seal {
        None => (header, None),
        Some(_) => {
            let (header, content) = access.open_frame(header, frame, plain, address)?;
            (header, Some(content))
        }
    };
    if header.kind != entry.kind.frame() {
        return Err(at(Fault::Differs { field: "type", other: "index" }));
    }
    if header.kind.is_difference() && header.codec != CODEC_ZSTD {
        let (field, found) = ("codec", header.codec.into());
        let allowed = match header.kind {
            FrameKind::Delta => "2 (zstd) in DELTA frames",
            _ => "2 (zstd) in LOCAL frames",
        };
        return Err(at(Fault::Value { field, found, allowed }));
    }
    if header.is_damaged != (entry.kind == Kind::Unreadable) {
        return Err(at(Fault::Differs { field: "damage flag", other: "index" }));
    }
    if entry.kind != Kind::Ref && header.subject != block {
        let (field, found) = ("block number", header.subject);
        return Err(at(Fault::Value { field, found, allowed: "the one the index names" }));
    }
    if header.leaf_prefix[..] != entry.leaf.0[..8] {
        return Err(at(Fault::Differs { field: "leaf hash", other: "index" }));
    }
    if entry.frame_size != 0 && entry.frame_size != header.frame_size() {
        return Err(at(Fault::Differs { field: "size", other: "index" }));
    }
    if let Some(content) = content {
        return Ok((header, content));
    }
    let end = FRAME_HEADER_SIZE + header.stored_len as usize;
    let payload = frame.get(FRAME_HEADER_SIZE..end).ok_or_else(|| at(Fault::Bounds))?;
    header.check_payload(payload, address)?;
    Ok((header, payload))
}
