//! Blocks to payloads and back. Decoding is bounded by the length the header promises, which
//! the caller has checked against the block size.

use zstd::zstd_safe;

use crate::error::{Error, Fault, Result, Section};
use crate::hash;
use crate::ids::{BlockIndex, Digest};
use crate::layout::{DeltaHead, FrameKind, LocalHead, NamedBase};
use crate::limits::DELTA_DEPTH_MAX;

/// How new blocks are compressed; each block says for itself how it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 block format: about twice the speed of zstd level 1, a third larger.
    Lz4,
    /// Zstandard at this level, 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// The highest zstd level offered: above it the window outgrows a block and nothing gains.
    pub const ZSTD_LEVEL_MAX: i32 = 19;
}

pub(crate) const CODEC_NONE: u8 = 0;
pub(crate) const CODEC_LZ4: u8 = 1;
pub(crate) const CODEC_ZSTD: u8 = 2;

/// The name of a codec number in dumps.
pub(crate) const fn codec_name(codec: u8) -> &'static str {
    match codec {
        CODEC_LZ4 => "lz4",
        CODEC_ZSTD => "zstd",
        _ => "none",
    }
}

/// A compressed payload must save this share of the block, or reading it back costs more than
/// the space is worth.
const WORTHWHILE_SHARE: usize = 32;

/// A block ready to be framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    /// DATA, DELTA or LOCAL.
    pub(crate) kind: FrameKind,
    pub(crate) codec: u8,
    /// Of a DATA frame; a difference has it in its payload.
    pub(crate) depth: u8,
    pub(crate) plain_len: u32,
    pub(crate) payload: Vec<u8>,
    /// Leaf hash of the block.
    pub leaf: Digest,
}

impl EncodedBlock {
    /// Bytes the payload takes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// The same, stating the `depth`, at most [`DELTA_DEPTH_MAX`], that the block has in the image
    /// this one will take the place of. Depth belongs to a block of a *state*: images that build
    /// on it count from there, and are read on top of either image. A difference to blocks of its
    /// own image states none: it is one deep.
    #[must_use]
    pub fn standing_for(mut self, depth: u8) -> Self {
        let depth = depth.min(DELTA_DEPTH_MAX);
        match self.kind {
            FrameKind::Delta => DeltaHead::raise(&mut self.payload, depth),
            FrameKind::Local => {}
            _ => self.depth = depth,
        }
        self
    }

    /// Whether the payload is a difference to a block of the parent's state.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.kind == FrameKind::Delta
    }

    /// Whether the payload is a difference to other blocks of the same image.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.kind == FrameKind::Local
    }

    /// Whether the payload is the block itself: only then others may refer to it, or be
    /// differences to it within the image.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.kind == FrameKind::Data
    }
}

/// A block of the parent's state that a changed block may be stored as a difference to.
#[derive(Debug, Clone, Copy)]
pub struct DeltaBase<'b> {
    /// Number of the block.
    pub block: BlockIndex,
    /// Its leaf.
    pub leaf: Digest,
    /// Its depth, as reading it tells.
    pub depth: u8,
    /// Its bytes.
    pub bytes: &'b [u8],
}

/// A block of the same image that a later one may be stored as a difference to.
#[derive(Debug, Clone, Copy)]
pub struct LocalBase<'b> {
    /// Number of the block.
    pub block: BlockIndex,
    /// Its leaf.
    pub leaf: Digest,
    /// Its bytes: as many as every block but the last has.
    pub bytes: &'b [u8],
}

/// Differences a reader has to undo for one block of images we write by default: a random read costs at
/// most this many decompressions more than in a full image. Measured in `docs/performance.md`.
pub const DELTA_DEPTH_WRITTEN: u8 = 2;

/// A difference of at most this share of the block is taken without asking how large the whole
/// block would be: it rarely is smaller, and asking doubles the time.
const DELTA_SMALL_SHARE: usize = 16;

/// Above this level zstd's own tables are large enough for base and block.
const DELTA_TABLE_LEVEL_MAX: i32 = 4;

/// Least and most places of the base, as powers of two, that a fast level remembers. One for
/// each byte of the base: measured, it takes no longer than the default of 2^13 and makes
/// differences of 64 KiB half as large, those of 1 MiB a hundredth.
const DELTA_HASH_LOGS: (u32, u32) = (10, 20);

/// The smallest window zstd knows, and the largest one the format allows.
const WINDOW_LOG_MIN: u32 = 10;
const WINDOW_LOG_MAX: u32 = 23;

/// Compresses blocks; keeps the working memory of one thread.
pub struct Encoder {
    compression: Compression,
    delta_depth: u8,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    decoder: Option<Decoder>,
    check: Vec<u8>,
    /// The bytes of several bases, one behind the other.
    prefix: Vec<u8>,
}

impl Encoder {
    /// An encoder for `compression`. With `self_check`, every compressed payload is decoded
    /// again and compared before it is handed out, which catches a codec or a memory that lies.
    #[must_use]
    pub fn new(compression: Compression, self_check: bool) -> Self {
        let zstd = match compression {
            Compression::Zstd(level) => zstd::bulk::Compressor::new(level).ok(),
            _ => None,
        };
        Self {
            compression,
            delta_depth: DELTA_DEPTH_WRITTEN,
            zstd,
            decoder: self_check.then(Decoder::new),
            check: Vec::new(),
            prefix: Vec::new(),
        }
    }

    /// The same, but a reader of its differences may have to undo up to `depth` of them, at most
    /// [`DELTA_DEPTH_MAX`].
    #[must_use]
    pub fn with_delta_depth(self, depth: u8) -> Self {
        Self { delta_depth: depth.min(DELTA_DEPTH_MAX), ..self }
    }

    /// Encodes `block`, whose leaf hash is `leaf`, as far as that is worthwhile.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the codec fails or, with self-check, does not give the same bytes
    /// back; the block must then not be stored.
    pub fn encode(&mut self, block: &[u8], leaf: Digest) -> Result<EncodedBlock> {
        let plain_len = u32::try_from(block.len()).map_err(|_| Error::Misuse("a huge block"))?;
        let (codec, payload) = self.compress(block)?;
        if let Some(decoder) = self.decoder.as_mut().filter(|_| codec != CODEC_NONE) {
            self.check.resize(block.len(), 0);
            let same = decoder.decode(codec, &payload, &mut self.check).is_ok();
            if !same || self.check != block {
                return Err(Error::Misuse("a compressed block that does not decode to itself"));
            }
        }
        Ok(EncodedBlock { kind: FrameKind::Data, codec, depth: 0, plain_len, payload, leaf })
    }

    /// Encodes `block` as a difference to `base` where that is clearly smaller than the block by
    /// itself, and as [`Encoder::encode`] does otherwise.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_against(
        &mut self,
        block: &[u8],
        leaf: Digest,
        base: &DeltaBase<'_>,
    ) -> Result<EncodedBlock> {
        if base.depth >= self.delta_depth || base.bytes.len() != block.len() {
            return self.encode(block, leaf);
        }
        let depth = base.depth + 1;
        let head = DeltaHead { base_block: base.block, base_leaf: base.leaf, depth };
        self.encode_behind(FrameKind::Delta, &head.to_bytes(), base.bytes, block, leaf)
    }

    /// Encodes `block` as a difference to `bases`, one or two blocks that come before it in the
    /// image and are stored whole there, where that is clearly smaller than the block by itself,
    /// and as [`Encoder::encode`] does otherwise. Of two bases the bytes of the first stand in
    /// front.
    ///
    /// # Errors
    /// As [`Encoder::encode`], and [`Error::Misuse`] for more bases.
    pub fn encode_local(
        &mut self,
        block: &[u8],
        leaf: Digest,
        bases: &[LocalBase<'_>],
    ) -> Result<EncodedBlock> {
        let Some(first) = bases.first() else { return self.encode(block, leaf) };
        // Bases come before the block, so only it may be the last one, which may be shorter.
        let len = first.bytes.len();
        if len < block.len() || bases.iter().any(|base| base.bytes.len() != len) {
            return self.encode(block, leaf);
        }
        let named: Vec<NamedBase> =
            bases.iter().map(|base| NamedBase { block: base.block, leaf: base.leaf }).collect();
        let head = LocalHead::new(&named).ok_or(Error::Misuse("more than two bases"))?;
        let mut head_bytes = Vec::with_capacity(LocalHead::size(bases.len()));
        head.put(&mut head_bytes);
        let mut prefix = std::mem::take(&mut self.prefix);
        prefix.clear();
        bases.iter().for_each(|base| prefix.extend_from_slice(base.bytes));
        let encoded = self.encode_behind(FrameKind::Local, &head_bytes, &prefix, block, leaf);
        self.prefix = prefix;
        encoded
    }

    /// Encodes `block` as a difference of `kind` to `prefix`, which `head` tells of, or whole.
    fn encode_behind(
        &mut self,
        kind: FrameKind,
        head: &[u8],
        prefix: &[u8],
        block: &[u8],
        leaf: Digest,
    ) -> Result<EncodedBlock> {
        let level = match self.compression {
            Compression::None => return self.encode(block, leaf),
            Compression::Lz4 => 1,
            Compression::Zstd(level) => level,
        };
        let frame = compress_delta(level, block, prefix)?;
        let delta_len = head.len() + frame.len();
        if delta_len > block.len() / DELTA_SMALL_SHARE {
            let whole = self.encode(block, leaf)?;
            if delta_len > whole.payload.len() / 4 * 3 {
                return Ok(whole);
            }
        }
        if let Some(decoder) = self.decoder.as_mut() {
            self.check.resize(block.len(), 0);
            let same = decoder.decode_delta(prefix, &frame, &mut self.check).is_ok();
            if !same || self.check != block {
                return Err(Error::Misuse("a compressed block that does not decode to itself"));
            }
        }
        let mut payload = Vec::with_capacity(delta_len);
        payload.extend_from_slice(head);
        payload.extend_from_slice(&frame);
        let plain_len = u32::try_from(block.len()).map_err(|_| Error::Misuse("a huge block"))?;
        Ok(EncodedBlock { kind, codec: CODEC_ZSTD, depth: 0, plain_len, payload, leaf })
    }

    fn compress(&mut self, block: &[u8]) -> Result<(u8, Vec<u8>)> {
        let limit = block.len() - block.len() / WORTHWHILE_SHARE;
        if self.compression == Compression::None || looks_incompressible(block) {
            return Ok((CODEC_NONE, block.to_vec()));
        }
        let (codec, payload) = match (self.compression, self.zstd.as_mut()) {
            (Compression::Zstd(_), Some(context)) => {
                let refused = |_| Error::Misuse("a block the zstd codec refuses");
                (CODEC_ZSTD, context.compress(block).map_err(refused)?)
            }
            (Compression::Zstd(_), None) => return Err(Error::Misuse("a zstd level above 22")),
            _ => (CODEC_LZ4, lz4_flex::block::compress(block)),
        };
        if payload.len() >= limit {
            return Ok((CODEC_NONE, block.to_vec()));
        }
        Ok((codec, payload))
    }
}

/// One zstd frame of `block`, with the bytes of `base` as prefix. The context borrows the base,
/// so it cannot be kept; making one costs little beside the compression.
fn compress_delta(level: i32, block: &[u8], base: &[u8]) -> Result<Vec<u8>> {
    let refused = |_| Error::Misuse("a block the zstd codec refuses");
    // Base and block lie in one window, or the far part of the base would be forgotten.
    let both = (base.len() + block.len()).next_power_of_two();
    let window = both.ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
    let mut context = zstd_safe::CCtx::create();
    let level_parameter = zstd_safe::CParameter::CompressionLevel(level);
    context.set_parameter(level_parameter).map_err(refused)?;
    context.set_parameter(zstd_safe::CParameter::WindowLog(window)).map_err(refused)?;
    // Fast levels remember so few places that most of the base would be forgotten all the same.
    if level <= DELTA_TABLE_LEVEL_MAX {
        let places = base.len().max(1).ilog2().clamp(DELTA_HASH_LOGS.0, DELTA_HASH_LOGS.1);
        context.set_parameter(zstd_safe::CParameter::HashLog(places)).map_err(refused)?;
    }
    context.ref_prefix(base).map_err(refused)?;
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(block.len()));
    context.compress2(&mut out, block).map_err(refused)?;
    Ok(out)
}

/// Guesses from the byte statistics of a few samples whether compressing is a waste: true for
/// encrypted and already compressed data. Wrong guesses cost space or time, never bytes.
fn looks_incompressible(block: &[u8]) -> bool {
    const SAMPLES: usize = 4;
    const SAMPLE_LEN: usize = 1024;
    if block.len() < SAMPLES * SAMPLE_LEN * 2 {
        return false;
    }
    let mut counts = [0u32; 256];
    let stride = block.len() / SAMPLES;
    for sample in block.chunks_exact(stride).take(SAMPLES) {
        for &byte in &sample[stride / 2..stride / 2 + SAMPLE_LEN] {
            counts[usize::from(byte)] += 1;
        }
    }
    // For 4096 uniformly random bytes the sum of squared counts has mean 69,616 and standard
    // deviation about 740; text and code give several times as much.
    let squares: u64 = counts.iter().map(|&c| u64::from(c) * u64::from(c)).sum();
    squares < 73_000
}

/// Decompresses payloads; keeps the working memory of one thread.
#[derive(Default)]
pub struct Decoder {
    /// Made for the first payload that needs it: about 160 KiB.
    zstd: Option<zstd_safe::DCtx<'static>>,
}

/// What a formatted dictionary begins with.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

impl Decoder {
    /// A decoder for every codec of the format.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `out` exactly, or fails.
    pub(crate) fn decode(
        &mut self,
        codec: u8,
        payload: &[u8],
        out: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        let expected = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let len = match codec {
            CODEC_NONE if payload.len() == out.len() => {
                out.copy_from_slice(payload);
                Some(out.len())
            }
            CODEC_LZ4 => lz4_flex::block::decompress_into(payload, out).ok(),
            // One frame and nothing behind it: a decoder would skip or join what follows.
            CODEC_ZSTD if zstd_safe::find_frame_compressed_size(payload) == Ok(payload.len()) => {
                let zstd = self.zstd.get_or_insert_with(zstd_safe::DCtx::create);
                zstd.decompress(out, payload).ok()
            }
            _ => None,
        };
        if len == Some(out.len()) { Ok(()) } else { Err(Fault::Decode { expected }) }
    }

    /// Fills `out` exactly from the zstd frame of a difference to `base`, or fails.
    pub(crate) fn decode_delta(
        &mut self,
        base: &[u8],
        frame: &[u8],
        out: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        let expected = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let failed = || Fault::Decode { expected };
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(failed());
        }
        let len = if base.starts_with(&DICTIONARY_MAGIC) {
            let mut context = zstd_safe::DCtx::create();
            context.ref_prefix(base).map_err(|_| failed())?;
            context.decompress(out, frame)
        } else {
            // Any other dictionary is raw content, as a prefix is. A prefix is borrowed for as
            // long as the context lives, and making contexts costs more than most differences.
            let zstd = self.zstd.get_or_insert_with(zstd_safe::DCtx::create);
            zstd.decompress_using_dict(out, frame, base)
        };
        if len == Ok(out.len()) { Ok(()) } else { Err(failed()) }
    }
}

/// META sections below this stay as they are: a few KiB are no saving, and making a decoder for
/// them is a quarter of what opening an increment costs.
const META_COMPRESSED_MIN: usize = 16 << 10;

/// Compresses a META section that is worth it; written once, so at a level that saves space.
pub(crate) fn compress_meta(plain: &[u8]) -> (u8, Vec<u8>) {
    if plain.len() < META_COMPRESSED_MIN {
        return (CODEC_NONE, plain.to_vec());
    }
    match zstd::bulk::compress(plain, 9) {
        Ok(out) if out.len() < plain.len() => (CODEC_ZSTD, out),
        _ => (CODEC_NONE, plain.to_vec()),
    }
}

/// Checks decoded bytes against the leaf hash the index keeps.
pub(crate) fn check_leaf(block: &[u8], leaf: &Digest, address: u64) -> Result<()> {
    if hash::leaf(block) == *leaf {
        return Ok(());
    }
    Err(Fault::Hash { by: "index" }.at(Section::Frame, address))
}

#[cfg(test)]
mod tests;
