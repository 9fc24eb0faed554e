//! Images from a compact description: what every block should be, and the bytes of the file.

use std::sync::Arc;

use aiv_image_format::hash::{fill_unreadable, leaf};
use aiv_image_format::meta::{DiskInfo, Meta};
use aiv_image_format::{
    BlockPlace, BlockSize, Compression, Digest, EncodedBlock, Encoder, Features, Geometry, GroupId,
    Image, ImageId, ImageKind, ImageSummary, ImageWriter, Keys, Kind, LocalBase, Mode, PointId,
    RunKind, Seal, SessionTag, SetId, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{AppendFile, Extent, Storage};

use crate::full_meta::full_meta;
use crate::patched::Patched;

/// The contents of a block that has a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes without structure.
    Noise(u64),
    /// Words, which every codec makes smaller.
    Words(u64),
}

/// What one block, or each of a run of blocks, should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Data(Fill),
    /// The same bytes as the n-th framed block before it, counted from the first and wrapped
    /// around; zeros when there is none of the same length.
    Ref(usize),
    Zero,
    Unused,
    Excluded,
    Unreadable,
    /// The second half could not be read.
    PartlyUnreadable(Fill),
    /// The second half of the n-th DATA block before it and the first half of the next one, wrapped
    /// around: a difference to both, where blocks are compressed. New bytes when there is none.
    Shifted(usize),
}

/// An image to be: the same recipe always gives the same bytes.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub blocks: Vec<(Block, u64)>,
    pub block_size: u32,
    pub sector_size: u32,
    /// Bytes missing from the last block.
    pub short_by: u64,
    pub compression: Compression,
    /// A checkpoint is asked for whenever this many blocks (or runs) were pushed; 0 for never.
    pub checkpoint_every: usize,
    /// Only what META must have, so that opening the image takes little time.
    pub small_meta: bool,
    /// Incompatible features of the superblock.
    pub features: u64,
    /// Goes into every id, so that two images can be told apart.
    pub id: u8,
    pub seal: Option<Seal>,
}

impl Recipe {
    pub(crate) fn new(blocks: &[(Block, u64)]) -> Self {
        Self {
            blocks: blocks.to_vec(),
            block_size: 16 << 10,
            sector_size: 512,
            short_by: 0,
            compression: Compression::Zstd(1),
            checkpoint_every: 0,
            small_meta: false,
            features: 0,
            id: 1,
            seal: None,
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        let blocks: u64 = self.blocks.iter().map(|b| b.1).sum();
        let len = blocks * u64::from(self.block_size) - self.short_by;
        let size = BlockSize::new(self.block_size).expect("recipes name block sizes");
        Geometry::new(len, size, self.sector_size).expect("recipes describe small disks")
    }

    pub(crate) fn superblock(&self) -> Superblock {
        let plain = Superblock {
            features: Features { incompat: self.features | self.local(), ..Features::default() },
            image: ImageId([self.id; 16]),
            set: SetId([0x20 + self.id; 16]),
            point: PointId([0x40 + self.id; 16]),
            kind: ImageKind::Full,
            parent: None,
            geometry: self.geometry(),
            created_unix_ms: 1_790_000_000_000,
            session: SessionTag([0x60 + self.id; 12]),
            writer: "aivory test 1".into(),
            source_token: Digest::default(),
            key_commitment: aiv_image_format::Digest::default(),
        };
        self.seal.as_ref().map_or(plain.clone(), |seal| marked(plain, seal))
    }

    /// The feature that differences to blocks of the image itself need, if there may be any.
    fn local(&self) -> u64 {
        let is_shifted = |block: &(Block, u64)| matches!(block.0, Block::Shifted(_));
        if self.blocks.iter().any(is_shifted) { Features::LOCAL } else { 0 }
    }

    /// What opens the image.
    pub(crate) fn keys(&self) -> Keys {
        self.seal.as_ref().map_or(Keys::none(), |seal| Keys::of(seal.key.clone()))
    }

    pub(crate) fn meta(&self) -> Meta {
        let (len, source_errors) = (self.geometry().len(), self.source_errors());
        if self.small_meta {
            let disk = DiskInfo::bare(len, self.sector_size);
            return Meta { disk, source_errors, ..Meta::default() };
        }
        full_meta(len, self.sector_size, GroupId([0x80 + self.id; 16]), source_errors)
    }

    /// What could not be read, as the unreadable blocks have it.
    fn source_errors(&self) -> Vec<Extent> {
        let geometry = self.geometry();
        let mut errors = Vec::new();
        let mut first = 0;
        for &(block, run) in &self.blocks {
            let (start, end) = (geometry.offset_of(first), geometry.offset_of(first + run));
            match block {
                Block::Unreadable => errors.push(Extent::between(start, end.min(geometry.len()))),
                Block::PartlyUnreadable(_) => errors.extend((first..first + run).map(|number| {
                    let len = u64::from(geometry.block_len(number));
                    Extent::new(geometry.offset_of(number) + len / 2, len - len / 2)
                })),
                _ => {}
            }
            first += run;
        }
        errors
    }

    /// Every block as it should read, one after the other. Only for small disks.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let geometry = self.geometry();
        let mut all: Vec<Expected> = Vec::new();
        for &(block, run) in &self.blocks {
            for _ in 0..run {
                let number = all.len() as u64;
                let len = geometry.block_len(number) as usize;
                all.push(Expected::of(block, len, &all, self.compression));
            }
        }
        all
    }

    /// Writes the image to `file`.
    pub(crate) fn write(
        &self,
        file: Box<dyn AppendFile>,
    ) -> aiv_image_format::Result<ImageSummary> {
        let writer = ImageWriter::create_with(file, self.superblock(), self.seal.clone())?;
        self.fill(writer)
    }

    /// Pushes all blocks and finishes.
    pub(crate) fn fill(
        &self,
        mut writer: ImageWriter<'_>,
    ) -> aiv_image_format::Result<ImageSummary> {
        let mut encoder = Encoder::new(self.compression, true);
        let mut framed: Vec<(Expected, BlockPlace, u64)> = Vec::new();
        let mut pushed = 0;
        for &(block, run) in &self.blocks {
            if let Some(kind) = run_kind(block) {
                writer.push_run(kind, run)?;
                self.checkpoint_if_due(&mut writer, &mut pushed)?;
                continue;
            }
            for _ in 0..run {
                let number = writer.next_block();
                let len = self.geometry().block_len(number) as usize;
                let earlier: Vec<Expected> = match block {
                    Block::Ref(_) | Block::Shifted(_) => {
                        framed.iter().map(|f| f.0.clone()).collect()
                    }
                    _ => Vec::new(),
                };
                let expected = Expected::of(block, len, &earlier, self.compression);
                let digest = leaf(&expected.bytes);
                match expected.kind {
                    Kind::Zero => writer.push_run(RunKind::Zero, 1)?,
                    Kind::Ref => {
                        let same = framed.iter().find(|f| f.0.bytes == expected.bytes);
                        writer.push_ref(same.expect("found by its bytes").1, digest)?;
                    }
                    Kind::Local => {
                        let bases = shifted(block, &earlier).expect("it is one");
                        let bases = bases.map(|at| (framed[at].2, &framed[at].0.bytes[..]));
                        let encoded = across(&mut encoder, &expected.bytes, bases);
                        writer.push_block(&encoded)?;
                    }
                    kind => {
                        let encoded = encoder.encode(&expected.bytes, digest)?;
                        let place = match kind {
                            Kind::Data => writer.push_block(&encoded)?,
                            _ => writer.push_damaged_block(&encoded)?,
                        };
                        framed.push((expected, place, number));
                    }
                }
                self.checkpoint_if_due(&mut writer, &mut pushed)?;
            }
        }
        writer.finish(self.meta())
    }

    fn checkpoint_if_due(
        &self,
        writer: &mut ImageWriter<'_>,
        pushed: &mut usize,
    ) -> aiv_image_format::Result<()> {
        *pushed += 1;
        if self.checkpoint_every > 0 && pushed.is_multiple_of(self.checkpoint_every) {
            writer.checkpoint()?;
        }
        Ok(())
    }

    /// The bytes of the file.
    pub(crate) fn build(&self) -> Arc<Vec<u8>> {
        let storage = MemStorage::new();
        self.write(storage.create("image").unwrap()).expect("memory does not fail");
        storage.contents("image").expect("just written")
    }

    /// The image, opened.
    pub(crate) fn open(&self) -> Image {
        open_with(&self.build(), &self.keys()).expect("a fresh image is sound")
    }
}

/// The superblock of a plain image as that of a sealed or authenticated one.
fn marked(mut superblock: Superblock, seal: &Seal) -> Superblock {
    superblock.features.incompat |= match seal.mode {
        Mode::Sealed => Features::SEALED,
        Mode::Authenticated => Features::AUTHENTICATED,
    };
    if seal.slots.is_some() {
        superblock.features.incompat |= Features::KEY_SLOTS;
    }
    superblock.key_commitment = aiv_image_format::Digest(seal.key.commitment());
    superblock
}

/// Opens the image in `bytes` with a key.
pub(crate) fn open_with(bytes: &Arc<Vec<u8>>, keys: &Keys) -> aiv_image_format::Result<Image> {
    Image::open_with(Arc::new(Patched::new(bytes)), keys)
}

/// Opens the image in `bytes`.
pub(crate) fn open(bytes: &Arc<Vec<u8>>) -> aiv_image_format::Result<Image> {
    Image::open(Arc::new(Patched::new(bytes)))
}

/// The message with which `bytes` are refused as an image, or their META as META.
pub(crate) fn refusal(bytes: impl Into<Arc<Vec<u8>>>) -> String {
    match open(&bytes.into()) {
        Ok(image) if !image.has_meta() => {
            image.damage().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        Ok(_) => panic!("the image was opened"),
        Err(error) => error.to_string(),
    }
}

fn run_kind(block: Block) -> Option<RunKind> {
    match block {
        Block::Zero => Some(RunKind::Zero),
        Block::Unused => Some(RunKind::Unused),
        Block::Excluded => Some(RunKind::Excluded),
        Block::Unreadable => Some(RunKind::Unreadable),
        Block::Data(_) | Block::Ref(_) | Block::PartlyUnreadable(_) | Block::Shifted(_) => None,
    }
}

/// Which of the blocks before it a shifted one has halves of.
fn shifted(block: Block, earlier: &[Expected]) -> Option<[usize; 2]> {
    let Block::Shifted(number) = block else { return None };
    let is_data = |at: &usize| earlier[*at].kind == Kind::Data;
    let whole: Vec<usize> = (0..earlier.len()).filter(is_data).collect();
    let nth = |number: usize| whole[number % whole.len()];
    (!whole.is_empty()).then(|| [nth(number), nth(number % whole.len() + 1)])
}

/// A block as a difference to two others, each its number and bytes, for which it must be worth it.
fn across(encoder: &mut Encoder, block: &[u8], bases: [(u64, &[u8]); 2]) -> EncodedBlock {
    let bases = bases.map(|(block, bytes)| LocalBase { block, leaf: leaf(bytes), bytes });
    let encoded = encoder.encode_local(block, leaf(block), &bases).expect("a sound codec");
    assert!(encoded.is_local(), "{} bytes", encoded.payload_len());
    encoded
}

/// Shorter blocks are not worth a head that names two others.
const SHIFTED_LEN_MIN: usize = 8192;

/// How a block should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    framed: bool,
}

impl Expected {
    fn of(block: Block, len: usize, earlier: &[Self], compression: Compression) -> Self {
        let (kind, framed, bytes) = match block {
            Block::Data(fill) => (Kind::Data, true, fill.bytes(len)),
            Block::PartlyUnreadable(fill) => {
                let mut bytes = fill.bytes(len);
                fill_unreadable(&mut bytes[len / 2..], len / 2);
                (Kind::Unreadable, true, bytes)
            }
            Block::Unreadable => {
                let mut bytes = vec![0; len];
                fill_unreadable(&mut bytes, 0);
                (Kind::Unreadable, false, bytes)
            }
            Block::Ref(number) => {
                let same: Vec<&Self> = earlier
                    .iter()
                    .filter(|e| e.kind == Kind::Data && e.bytes.len() == len)
                    .collect();
                match same.len() {
                    0 => (Kind::Zero, false, vec![0; len]),
                    count => (Kind::Ref, false, same[number % count].bytes.clone()),
                }
            }
            Block::Shifted(number) => match shifted(block, earlier) {
                None => (Kind::Data, true, noise(number as u64, len)),
                Some([first, second]) => {
                    let [first, second] = [first, second].map(|at| &earlier[at].bytes);
                    let half = first.len() / 2;
                    let mut bytes = [&first[half..], &second[..half]].concat();
                    bytes.truncate(len);
                    let is_worth_it = compression != Compression::None && len >= SHIFTED_LEN_MIN;
                    (if is_worth_it { Kind::Local } else { Kind::Data }, true, bytes)
                }
            },
            Block::Zero => (Kind::Zero, false, vec![0; len]),
            Block::Unused => (Kind::Unused, false, vec![0; len]),
            Block::Excluded => (Kind::Excluded, false, vec![0; len]),
        };
        Self { kind, bytes, framed }
    }
}

impl Fill {
    pub(crate) fn bytes(self, len: usize) -> Vec<u8> {
        match self {
            Self::Noise(seed) => noise(seed, len),
            Self::Words(seed) => {
                let words: Vec<u8> = noise(seed, 64).into_iter().flat_map(word).collect();
                words.into_iter().cycle().take(len).collect()
            }
        }
    }
}

fn word(number: u8) -> impl Iterator<Item = u8> {
    const WORDS: [&str; 8] =
        ["sector ", "of ", "the ", "disk ", "image ", "restored ", "block\n", "0123 "];
    WORDS[usize::from(number) % WORDS.len()].bytes()
}

/// Bytes without structure, the same for the same seed on every machine.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Every block of an image as it reads: kind and bytes.
pub(crate) fn read_all(image: &Image) -> aiv_image_format::Result<Vec<(Kind, Vec<u8>)>> {
    let mut reader = image.block_reader();
    let geometry = image.geometry();
    (0..geometry.blocks())
        .map(|block| {
            let mut out = vec![0xaa; geometry.block_len(block) as usize];
            let kind = reader.read(block, &mut out)?;
            Ok((kind, out))
        })
        .collect()
}
