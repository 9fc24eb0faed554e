//! Images that were begun and not finished: how they are written, and those that mutants are made of.

use std::sync::{Arc, OnceLock};

use aiv_chain::{BegunParts, PartFiles, View};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::meta::{DiskInfo, Meta};
use aiv_image_format::{
    BlockPlace, BlockSize, Compression, DeltaBase, Digest, Encoder, Features, Geometry, Image,
    ImageId, ImageKind, ImageSummary, ImageWriter, LocalBase, Mode, ParentState, PointId, Result,
    RunKind, Seal, SessionTag, SetId, Superblock, Unfinished, hash, peek, segment_name,
};
use aiv_keys::{ChainKey, KeyArea, KeyFile, NewSlot, Way};
use aiv_testkit::disks::Content;
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, Storage};

use crate::seeds;

/// What an image is called that is being written, and what stands behind that meanwhile.
pub(super) const FILE: &str = "image.aiv";
pub(super) const PART: &str = ".part";

const BLOCK: usize = 16 << 10;
const BLOCKS: u64 = 21;
/// Of every process that writes.
const SALT: u32 = 0x5a17;
/// What goes on where a seed was interrupted the first time.
const SECOND: SessionTag = SessionTag([0xee; 12]);
/// Bytes of blocks between two checkpoints.
const CHECKPOINT_BYTES: u64 = 16 << 10;

/// The temporary name of a segment.
pub(super) fn part(no: u32) -> String {
    format!("{}{PART}", segment_name(FILE, no))
}

/// The folder that `files` are the segments in.
pub(super) fn folder(files: &[Vec<u8>]) -> MemStorage {
    let storage = MemStorage::new();
    for (no, file) in (0..).zip(files) {
        storage.insert(&part(no), file.clone());
    }
    storage
}

/// The segments that are in a folder.
fn files(storage: &MemStorage) -> Vec<Vec<u8>> {
    let contents = |no| storage.contents(&part(no)).map(|bytes| bytes.to_vec());
    (0..).map_while(contents).collect()
}

/// Key slots that a key file opens.
fn slots() -> &'static [u8] {
    static SLOTS: OnceLock<Vec<u8>> = OnceLock::new();
    SLOTS.get_or_init(|| {
        let file = KeyFile::new(&[9; 32]).expect("long enough");
        let random = &[7; NewSlot::RANDOM];
        let slot = NewSlot { way: Way::KeyFile(&file), label: "", created_unix_ms: 0, random };
        KeyArea::new(&key(), &slot).expect("a slot").to_bytes()
    })
}

fn key() -> ChainKey {
    ChainKey::new(*b"a chain key of thirty-two bytes.")
}

/// How an image with such a superblock is sealed by whoever has begun it.
pub(super) fn seal(begun: &Superblock) -> Option<Seal> {
    let mode = if begun.is_sealed() { Mode::Sealed } else { Mode::Authenticated };
    let slots = (begun.slot_area_len() > 0).then(|| slots().into());
    let seal = Seal { mode, slots, padding: true, ..Seal::new(key(), SALT) };
    begun.is_keyed().then_some(seal)
}

/// What a block holds that is new, or was before.
fn block(is_new: bool, number: u64) -> Vec<u8> {
    let seed = number * 2 + u64::from(is_new);
    match number % 3 {
        0 => Content::Text(seed).bytes(BLOCK),
        _ => Content::Random(seed).bytes(BLOCK),
    }
}

/// The state that increments build on: that of sealed ones is sealed, too.
pub(super) fn parent(is_sealed: bool) -> &'static View {
    static PARENTS: [OnceLock<View>; 2] = [OnceLock::new(), OnceLock::new()];
    PARENTS[usize::from(is_sealed)].get_or_init(|| {
        let superblock = superblock(0, 0, None);
        let seal = is_sealed.then(|| Seal::new(key(), SALT));
        let storage = MemStorage::new();
        let file = storage.create(FILE).expect("memory");
        let begun = ImageWriter::create_with(file, superblock, seal);
        let mut writer = begun.expect("a sound superblock");
        let mut encoder = Encoder::new(Compression::Lz4, false);
        for number in 0..BLOCKS {
            let bytes = block(false, number);
            let encoded = encoder.encode(&bytes, hash::leaf(&bytes)).expect("it compresses");
            writer.push_block(&encoded).expect("memory");
        }
        writer.finish(meta(BLOCKS * BLOCK as u64)).expect("memory");
        let file = storage.open(FILE).expect("just made");
        let image = Image::open_with(file, &seeds::keys()).expect("sound");
        View::of_full(Arc::new(image), FILE.to_owned())
    })
}

fn superblock(n: u8, features: u64, parent: Option<&View>) -> Superblock {
    let size = BlockSize::new(u32::try_from(BLOCK).expect("small")).expect("a block size");
    let link = parent.map(ParentState::link);
    let point = if parent.is_none() && n == 0 { 2 } else { 3 };
    Superblock {
        features: Features { incompat: features, ..Features::default() },
        image: ImageId([10 + n; 16]),
        set: SetId([1; 16]),
        point: PointId([point; 16]),
        kind: if link.is_some() { ImageKind::Incremental } else { ImageKind::Full },
        parent: link,
        geometry: Geometry::new(BLOCKS * BLOCK as u64, size, 512).expect("a geometry"),
        created_unix_ms: 1_700_000_000_000,
        session: SessionTag([0xa0 + n; 12]),
        writer: "aiv".to_owned(),
        key_commitment: Digest::default(),
        source_token: Digest([5; 32]),
    }
}

fn meta(len: u64) -> Meta {
    Meta { disk: DiskInfo::bare(len, 512), ..Meta::default() }
}

/// Pushes blocks up to `end`, of every kind that the image may have; differences and copies are of
/// blocks that were pushed here.
pub(super) fn push(writer: &mut ImageWriter<'_>, end: u64) -> Result<()> {
    writer.set_checkpoint_bytes(CHECKPOINT_BYTES);
    let mut encoder = Encoder::new(Compression::Zstd(1), false);
    let has_parent = writer.superblock().parent.is_some();
    let mut last: Option<(u64, BlockPlace, Vec<u8>)> = None;
    while writer.next_block() < end {
        let number = writer.next_block();
        if u64::from(writer.superblock().geometry.block_len(number)) != BLOCK as u64 {
            writer.push_run(RunKind::Zero, 1)?;
            continue;
        }
        let mut bytes = block(true, number);
        let before = last.take();
        match (number % 7, before) {
            (2, _) if has_parent => writer.inherit(1)?,
            (3, _) if has_parent => {
                let moved = number / 2;
                writer.push_parent(moved, hash::leaf(&block(false, moved)))?;
            }
            (4, _) if has_parent => {
                let base = block(false, number);
                bytes.copy_from_slice(&base);
                bytes[100..108].fill(0xee);
                let leaf = hash::leaf(&base);
                let base = DeltaBase { block: number, leaf, depth: 0, bytes: &base };
                writer.push_block(&encoder.encode_against(&bytes, hash::leaf(&bytes), &base)?)?;
            }
            (5, _) => writer.push_run(RunKind::Zero, 1)?,
            (1, Some((_, place, same))) => writer.push_ref(place, hash::leaf(&same))?,
            (2, Some((base, place, whole))) => {
                bytes[4096..].copy_from_slice(&whole[..BLOCK - 4096]);
                let base = LocalBase { block: base, leaf: hash::leaf(&whole), bytes: &whole };
                writer.push_block(&encoder.encode_local(&bytes, hash::leaf(&bytes), &[base])?)?;
                last = Some((base.block, place, whole));
            }
            _ => {
                let place = writer.push_block(&encoder.encode(&bytes, hash::leaf(&bytes))?)?;
                last = Some((number, place, bytes));
            }
        }
    }
    Ok(())
}

/// Finishes an image, all blocks of which were pushed.
pub(super) fn finish(writer: ImageWriter<'_>) -> Result<ImageSummary> {
    let superblock = writer.superblock();
    let (meta, is_sealed) = (meta(superblock.geometry.len()), superblock.is_sealed());
    let parent = superblock.parent.map(|_| parent(is_sealed) as &dyn ParentState);
    writer.finish_on(meta, parent)
}

/// What of an image is whole in a folder, with the files that are its segments where it is split.
pub(super) fn read(storage: &MemStorage) -> Option<(Option<BegunParts>, Unfinished)> {
    let first = storage.open(&part(0)).ok()?;
    let superblock = peek(&*first)?;
    let parts = match superblock.features.incompat & Features::SPLIT {
        0 => None,
        _ => BegunParts::find(storage, &part(0), PART, superblock.image).expect("memory"),
    };
    let files = match &parts {
        None => vec![first],
        // Nobody goes on beside the file of another image.
        Some(parts) if parts.stranger().is_some() => return None,
        Some(parts) => parts.open(storage).expect("memory"),
    };
    let found = Unfinished::read_segments(&files, &seeds::keys(), Job::silent()).ok()??;
    assert!(!found.kept().is_empty() && found.kept().len() <= files.len());
    Some((parts, found))
}

/// Goes on with an image.
pub(super) fn reopen<'s>(
    storage: &'s MemStorage,
    parts: Option<&BegunParts>,
    found: &Unfinished,
    session: SessionTag,
) -> Result<ImageWriter<'s>> {
    let seal = seal(found.superblock());
    let Some(parts) = parts else {
        let file = storage.reopen(&part(0), found.len()).expect("it was read");
        return ImageWriter::resume(file, found, session, seal);
    };
    let (files, last) = parts.reopen(storage, &found.kept()).expect("they were read");
    ImageWriter::resume_split(Box::new(files), last, found, session, seal, SEGMENT_BYTES_MIN)
}

/// Which image is begun.
#[derive(Clone, Copy)]
struct Begun {
    mode: Option<Mode>,
    has_slots: bool,
    is_split: bool,
    has_parity: bool,
    has_parent: bool,
}

impl Begun {
    /// Some of all combinations, each of which has every single one with each mode.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for mode in [None, Some(Mode::Sealed), Some(Mode::Authenticated)] {
            for n in 0..5 {
                let (is_split, has_parity, has_parent) = (n == 1 || n == 3, n >= 2, n == 4);
                let has_slots = n != 2 && mode.is_some();
                let has_parity = has_parity && !has_parent;
                all.push(Self { mode, has_slots, is_split, has_parity, has_parent });
            }
        }
        all
    }

    /// Writes it up to block `end`, as number `n`, and leaves it as it is.
    fn written(self, n: u8, end: u64) -> MemStorage {
        let parity = if self.has_parity { Features::PARITY } else { 0 };
        let increment = if self.has_parent { Features::DELTA | Features::PARENT } else { 0 };
        let of = self.has_parent.then(|| parent(self.mode == Some(Mode::Sealed)));
        let superblock = superblock(n, Features::LOCAL | parity | increment, of);
        let seal = self.mode.map(|mode| {
            let slots = self.has_slots.then(|| slots().into());
            Seal { mode, slots, padding: true, ..Seal::new(key(), SALT) }
        });
        let storage = MemStorage::new();
        let first = storage.create(&part(0)).expect("memory");
        let begun = if self.is_split {
            let files = Box::new(PartFiles::new(&storage, FILE, PART, first));
            ImageWriter::create_split_with(files, superblock, SEGMENT_BYTES_MIN, seal)
        } else {
            ImageWriter::create_with(first, superblock, seal)
        };
        let mut writer = begun.expect("memory");
        push(&mut writer, end).expect("memory");
        match end {
            BLOCKS => drop(finish(writer).expect("memory")),
            _ => writer.suspend().expect("memory"),
        }
        storage
    }
}

/// Images that were interrupted in several places, some of them twice; one in several files has behind
/// the cut what was there before, now and then; and one of each sort that is finished.
pub(super) fn seeds() -> &'static [Vec<Vec<u8>>] {
    static SEEDS: OnceLock<Vec<Vec<Vec<u8>>>> = OnceLock::new();
    SEEDS.get_or_init(made)
}

fn made() -> Vec<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for (n, begun) in (1..).zip(Begun::all()) {
        let mut random = Random::new(&[u64::from(n), 0x6265_6775]);
        let whole = files(&begun.written(n, BLOCKS));
        for _ in 0..3 {
            let end = 11 + random.below(9) as u64;
            let mut parts = files(&begun.written(n, end));
            let last = parts.last_mut().expect("it was begun");
            last.truncate(last.len().saturating_sub(random.below(3000)));
            seeds.push(parts);
        }
        let mut twice = seeds[seeds.len() - 1].clone();
        let storage = folder(&twice);
        if let Some((parts, found)) = read(&storage) {
            let mut writer = reopen(&storage, parts.as_ref(), &found, SECOND).expect("sound");
            push(&mut writer, BLOCKS - 1).expect("memory");
            writer.suspend().expect("memory");
            twice = files(&storage);
        }
        seeds.push(twice);
        let mut cut = whole.clone();
        let middle = cut.len() / 2;
        let len = cut[middle].len();
        cut[middle].truncate(len - 1 - random.below(len / 3));
        seeds.extend([whole, cut]);
    }
    // Nobody can go on before the first whole checkpoint.
    seeds.retain(|parts| read(&folder(parts)).is_some());
    seeds
}
