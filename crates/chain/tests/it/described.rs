//! Chains of small images from a compact description: what happened to each block of a disk from
//! one point to the next.

use aiv_chain::{Folder, Kind, ParentLink, ParentState, PartFiles, PointId, Set, View};
use aiv_image_format::hash::{fill_unreadable, leaf};
use aiv_image_format::meta::{DiskInfo, Inventory, Manifest, Meta};
use aiv_image_format::{
    BlockPlace, BlockSize, Compression, DELTA_DEPTH_WRITTEN, DeltaBase, Digest, Encoder, Features,
    Geometry, Image, ImageId, ImageKind, ImageWriter, LocalBase, RunKind, SPECIFICATION,
    SessionTag, SetId, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, Job, ReadAt, Storage};
use proptest::prelude::*;

use crate::common::BLOCK;

pub(crate) const SET: SetId = SetId([7; 16]);

/// What happened to a block. What a block cannot do (be the copy of one of another length) it
/// does not: it has new bytes then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    /// New bytes, in a frame.
    New(u8),
    /// A few bytes are others: stored as a difference to what it was.
    Patch(u8),
    /// A few bytes are others, with 0 none, and the block is stored whole all the same.
    Rewritten(u8),
    /// The bytes of another block of the point before, with a few others: a difference to that.
    PatchOf(u8, u8),
    /// The bytes of another block of the point before.
    Moved(u8),
    /// The bytes of the n-th frame of this image.
    Repeat(u8),
    /// The second half of the n-th frame of this image and the first half of the next one: a
    /// difference to both.
    Shifted(u8),
    Zero,
    Unused,
    Excluded,
    Unreadable,
    PartlyUnreadable(u8),
}

/// One point of a chain.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// How many points before this one its parent is, from 1; `None` makes a full image.
    pub back: Option<usize>,
    /// Changes in block order, each for so many blocks; what is left is kept.
    pub changes: Vec<(Change, u8)>,
    /// Bytes of the disk.
    pub len: u64,
}

impl Step {
    pub(crate) fn full(len: u64, changes: &[(Change, u8)]) -> Self {
        Self { back: None, changes: changes.to_vec(), len }
    }

    pub(crate) fn on(back: usize, len: u64, changes: &[(Change, u8)]) -> Self {
        Self { back: Some(back), changes: changes.to_vec(), len }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    condition: Kind,
    bytes: Vec<u8>,
}

/// A point as it was written, and what it must go on to be.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub id: PointId,
    pub file: String,
    pub bytes: Vec<u8>,
    pub state_root: Digest,
    pub content_root: Digest,
    /// Position of its parent among the points.
    pub parent: Option<usize>,
    pub manifest: Manifest,
    cells: Vec<Cell>,
}

impl Built {
    pub(crate) fn link(&self) -> ParentLink {
        ParentLink { point: self.id, state_root: self.state_root }
    }
}

/// A folder with one set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub storage: MemStorage,
    pub points: Vec<Built>,
    prefix: String,
    /// Bytes of a file at most, when images are split.
    split: Option<u64>,
}

impl Chain {
    pub(crate) fn of(steps: &[Step]) -> Self {
        Self::named("p", steps)
    }

    /// With files whose names begin with `prefix`.
    pub(crate) fn named(prefix: &str, steps: &[Step]) -> Self {
        let mut chain = Self { prefix: prefix.to_owned(), ..Self::default() };
        steps.iter().for_each(|step| chain.add(step));
        chain
    }

    /// With images that are split into files of `split` bytes.
    pub(crate) fn split(split: u64, steps: &[Step]) -> Self {
        let (prefix, split) = ("p".to_owned(), Some(split));
        let mut chain = Self { prefix, split, ..Self::default() };
        steps.iter().for_each(|step| chain.add(step));
        chain
    }

    /// Writes one more point.
    pub(crate) fn add(&mut self, step: &Step) {
        let number = u8::try_from(self.points.len() + 1).unwrap();
        let extension = if step.back.is_some() { "aii" } else { "aiv" };
        let file = format!("{}{number:03}.{extension}", self.prefix);
        let storage = self.storage.clone();
        self.add_to(&storage, &file, step);
    }

    /// Writes one more point as `file` of `storage`, on top of those of the chain.
    pub(crate) fn add_to(&mut self, storage: &dyn Storage, file: &str, step: &Step) {
        let number = self.points.len() + 1;
        let parent = step.back.and_then(|back| self.points.len().checked_sub(back));
        let view = parent.map(|at| self.view(&self.points[at].id));
        let old = parent.map(|at| self.points[at].cells.clone()).unwrap_or_default();
        let built = write(storage, (file, self.split), number, step, view.as_ref(), &old);
        let (trailer, manifest, cells) = built;
        let superblock_id = point_id(number);
        self.points.push(Built {
            id: superblock_id,
            file: file.to_owned(),
            bytes: cells.iter().flat_map(|cell| cell.bytes.iter().copied()).collect(),
            state_root: trailer.state_root,
            content_root: trailer.content_root,
            parent,
            manifest,
            cells,
        });
    }

    pub(crate) fn set(&self) -> Set {
        set_of(&self.storage)
    }

    pub(crate) fn view(&self, id: &PointId) -> View {
        view(&self.storage, *id)
    }
}

pub(crate) fn point_id(number: usize) -> PointId {
    PointId([u8::try_from(number).unwrap(); 16])
}

pub(crate) fn scan(storage: &dyn Storage) -> Folder {
    Folder::scan(storage, Job::silent()).unwrap()
}

pub(crate) fn set_of(storage: &dyn Storage) -> Set {
    scan(storage).set(SET).unwrap().clone()
}

pub(crate) fn view(storage: &dyn Storage, id: PointId) -> View {
    let set = set_of(storage);
    View::of_point(storage, &set, set.point(id).unwrap()).unwrap()
}

pub(crate) fn read_all(view: &View) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(view.len()).unwrap()];
    view.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The most differences that have to be undone for a block.
fn depth(view: &View) -> Option<u8> {
    let geometry = *view.geometry();
    let blocks = 0..geometry.blocks();
    blocks
        .map(|block| {
            let mut bytes = vec![0; geometry.block_len(block) as usize];
            ParentState::read(view, block, &mut bytes).unwrap()
        })
        .max()
}

/// What is wrong with a point as the folder has it now, if anything.
pub(crate) fn wrong(storage: &dyn Storage, built: &Built) -> Option<String> {
    let folder = scan(storage);
    let Some(set) = folder.set(SET) else { return Some("its set is gone".to_owned()) };
    let point = set.points.iter().find(|point| point.link() == built.link());
    let Some(point) = point else { return Some(format!("point {} is gone", built.id)) };
    if !point.is_restorable() {
        return Some(format!("point {} is {:?}", built.id, point.state));
    }
    let view = match View::of_point(storage, set, point) {
        Ok(view) => view,
        Err(error) => return Some(format!("point {} does not open: {error:?}", built.id)),
    };
    let mut bytes = vec![0; usize::try_from(view.len()).unwrap()];
    if let Err(error) = view.read_exact_at(&mut bytes, 0) {
        return Some(format!("point {} does not read: {error:?}", built.id));
    }
    if bytes != built.bytes {
        let at = bytes.iter().zip(&built.bytes).position(|(a, b)| a != b);
        return Some(format!("point {} reads other bytes at {at:?}", built.id));
    }
    if let Some(depth) = depth(&view).filter(|depth| *depth > DELTA_DEPTH_WRITTEN) {
        return Some(format!("point {} takes {depth} differences for a block", built.id));
    }
    if point.content_root != built.content_root {
        return Some(format!("point {} has another content root", built.id));
    }
    let meta = view.image().meta();
    (meta.manifest != built.manifest).then(|| format!("point {} has another manifest", built.id))
}

type Written = (aiv_image_format::Trailer, Manifest, Vec<Cell>);

fn write(
    storage: &dyn Storage,
    (file, split): (&str, Option<u64>),
    number: usize,
    step: &Step,
    parent: Option<&View>,
    old: &[Cell],
) -> Written {
    let block_size = BlockSize::new(u32::try_from(BLOCK).unwrap()).unwrap();
    let geometry = Geometry::new(step.len, block_size, 512).unwrap();
    let byte = u8::try_from(number).unwrap();
    let kind = match parent {
        None => ImageKind::Full,
        Some(parent) if parent.image().superblock().parent.is_none() => ImageKind::Differential,
        Some(_) => ImageKind::Incremental,
    };
    let is_shifted = |change: &(Change, u8)| matches!(change.0, Change::Shifted(_));
    let local = if step.changes.iter().any(is_shifted) { Features::LOCAL } else { 0 };
    let incompat = local | parent.map_or(0, |_| Features::DELTA | Features::PARENT);
    let superblock = Superblock {
        features: Features { incompat, ..Features::default() },
        image: ImageId([byte; 16]),
        set: SET,
        point: point_id(number),
        kind,
        parent: parent.map(ParentState::link),
        geometry,
        created_unix_ms: 1,
        session: SessionTag([byte; 12]),
        writer: "test".to_owned(),
        key_commitment: Digest::default(),
        source_token: Digest::default(),
    };
    let created = storage.create(file).unwrap();
    let mut writer = match split {
        None => ImageWriter::create(created, superblock).unwrap(),
        Some(limit) => {
            let files = Box::new(PartFiles::new(storage, file, "", created));
            ImageWriter::create_split(files, superblock, limit).unwrap()
        }
    };
    let told =
        step.changes.iter().flat_map(|&(change, run)| std::iter::repeat_n(change, run.into()));
    let told = told.chain(std::iter::repeat(Change::Keep));
    let mut maker = Maker { writer: &mut writer, parent, old, frames: Vec::new(), seed: byte };
    let blocks = 0..geometry.blocks();
    let cells: Vec<Cell> = blocks
        .zip(told)
        .map(|(block, change)| maker.block(block, geometry.block_len(block) as usize, change))
        .collect();
    let manifest = Manifest {
        host: "host".to_owned(),
        name: "sda".to_owned(),
        source_id: "user:sda".to_owned(),
        full_number: 1,
        increment_number: u32::try_from(number - 1).unwrap(),
        time_unix_ms: 1_790_000_000_000 + number as u64 * 1000,
        comment: format!("the comment of {number}"),
        ..Manifest::default()
    };
    let lost = (0..).zip(&cells).filter(|(_, cell)| cell.condition == Kind::Unreadable);
    let lost = lost.map(|(at, cell)| Extent::new(at * BLOCK as u64, cell.bytes.len() as u64));
    let meta = Meta {
        manifest: manifest.clone(),
        disk: DiskInfo::bare(geometry.len(), 512),
        inventory: Inventory { facts: vec![("number".to_owned(), number.to_string())] },
        source_errors: lost.collect(),
        specification: if parent.is_none() { SPECIFICATION.to_owned() } else { String::new() },
        ..Meta::default()
    };
    let state = parent.map(|parent| parent as &dyn ParentState);
    let trailer = writer.finish_on(meta, state).unwrap().trailer;
    (trailer, manifest, cells)
}

struct Maker<'a, 'f> {
    writer: &'a mut ImageWriter<'f>,
    parent: Option<&'a View>,
    old: &'a [Cell],
    /// What was stored whole, where, and as which block.
    frames: Vec<(Vec<u8>, BlockPlace, u64)>,
    seed: u8,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Content::Random(seed).bytes(len)
}

impl Maker<'_, '_> {
    fn block(&mut self, block: u64, len: usize, change: Change) -> Cell {
        let this = usize::try_from(block).unwrap();
        let old = self.old;
        let fits = |from: usize| old.get(from).filter(|cell| cell.bytes.len() == len);
        let of = |number: u8| usize::from(number) % old.len().max(1);
        let fresh = |seed: u8| noise(u64::from(seed) << 32 | block << 8 | 1, len);
        match change {
            Change::Keep => match fits(this) {
                Some(cell) if cell.condition != Kind::Unreadable => {
                    self.writer.inherit(1).unwrap();
                    cell.clone()
                }
                _ => self.data(fresh(self.seed)),
            },
            Change::New(seed) => self.data(fresh(seed)),
            Change::Patch(seed) => self.patch(this, len, seed, true),
            Change::Rewritten(seed) => self.patch(this, len, seed, false),
            Change::PatchOf(from, seed) => self.patch(of(from), len, seed, true),
            Change::Moved(from) => match fits(of(from)) {
                Some(cell) => {
                    let digest = leaf(&cell.bytes);
                    self.writer.push_parent(of(from) as u64, digest).unwrap();
                    Cell { condition: Kind::Data, bytes: cell.bytes.clone() }
                }
                None => self.data(fresh(from)),
            },
            Change::Repeat(number) => {
                let frames: Vec<_> =
                    self.frames.iter().filter(|(bytes, ..)| bytes.len() == len).collect();
                match frames.get(usize::from(number) % frames.len().max(1)) {
                    Some((bytes, place, _)) => {
                        self.writer.push_ref(*place, leaf(bytes)).unwrap();
                        Cell { condition: Kind::Data, bytes: bytes.clone() }
                    }
                    None => self.data(fresh(number)),
                }
            }
            Change::Shifted(number) => self.shifted(number, len, fresh(number)),
            Change::Zero => self.run(RunKind::Zero, Kind::Zero, len),
            Change::Unused => self.run(RunKind::Unused, Kind::Unused, len),
            Change::Excluded => self.run(RunKind::Excluded, Kind::Excluded, len),
            Change::Unreadable => self.run(RunKind::Unreadable, Kind::Unreadable, len),
            Change::PartlyUnreadable(seed) => {
                let mut bytes = fresh(seed);
                fill_unreadable(&mut bytes[len / 2..], len / 2);
                let mut encoder = Encoder::new(Compression::Zstd(1), false);
                let encoded = encoder.encode(&bytes, leaf(&bytes)).unwrap();
                self.writer.push_damaged_block(&encoded).unwrap();
                Cell { condition: Kind::Unreadable, bytes }
            }
        }
    }

    fn run(&mut self, kind: RunKind, condition: Kind, len: usize) -> Cell {
        self.writer.push_run(kind, 1).unwrap();
        let mut bytes = vec![0; len];
        if condition == Kind::Unreadable {
            fill_unreadable(&mut bytes, 0);
        }
        Cell { condition, bytes }
    }

    fn shifted(&mut self, number: u8, len: usize, fresh: Vec<u8>) -> Cell {
        let nth = |at: usize| self.frames.get(at % self.frames.len().max(1));
        let number = usize::from(number);
        let (Some(first), Some(second)) = (nth(number), nth(number % 251 + 1)) else {
            return self.data(fresh);
        };
        let mut bytes = [&first.0[BLOCK / 2..], &second.0[..BLOCK / 2]].concat();
        bytes.truncate(len);
        let bases = [first, second].map(|(bytes, _, block)| LocalBase {
            block: *block,
            leaf: leaf(bytes),
            bytes,
        });
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let encoded = encoder.encode_local(&bytes, leaf(&bytes), &bases).unwrap();
        let (is_whole, block) = (encoded.is_whole(), self.writer.next_block());
        let place = self.writer.push_block(&encoded).unwrap();
        if is_whole {
            self.frames.push((bytes.clone(), place, block));
        }
        Cell { condition: Kind::Data, bytes }
    }

    fn data(&mut self, bytes: Vec<u8>) -> Cell {
        let mut encoder = Encoder::new(Compression::Lz4, false);
        let block = self.writer.next_block();
        let place = self.writer.push_block(&encoder.encode(&bytes, leaf(&bytes)).unwrap()).unwrap();
        self.frames.push((bytes.clone(), place, block));
        Cell { condition: Kind::Data, bytes }
    }

    fn patch(&mut self, from: usize, len: usize, seed: u8, as_delta: bool) -> Cell {
        let same = self.old.get(from).filter(|cell| cell.bytes.len() == len);
        let (Some(cell), Some(parent)) = (same, self.parent) else {
            return self.data(noise(u64::from(seed) << 8 | 2, len));
        };
        let mut old = vec![0; len];
        let depth = ParentState::read(parent, from as u64, &mut old).unwrap();
        assert!(old == cell.bytes, "the chain reads as it was written");
        let mut bytes = old.clone();
        let at = usize::from(seed) * 61 % len;
        let end = if as_delta || seed > 0 { (at + 9).min(len) } else { at };
        bytes[at..end].copy_from_slice(&noise(u64::from(seed) << 8 | 3, end - at));
        if !as_delta {
            return self.data(bytes);
        }
        let base = DeltaBase { block: from as u64, leaf: leaf(&old), depth, bytes: &old };
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let encoded = encoder.encode_against(&bytes, leaf(&bytes), &base).unwrap();
        let (is_delta, block) = (encoded.is_delta(), self.writer.next_block());
        let place = self.writer.push_block(&encoded).unwrap();
        if !is_delta {
            self.frames.push((bytes.clone(), place, block));
        }
        Cell { condition: Kind::Data, bytes }
    }
}

pub(crate) fn arb_change() -> impl Strategy<Value = Change> {
    let n = any::<u8>();
    prop_oneof![
        5 => Just(Change::Keep),
        3 => n.prop_map(Change::New),
        4 => n.prop_map(Change::Patch),
        2 => prop_oneof![Just(0), n].prop_map(Change::Rewritten),
        2 => (n, n).prop_map(|(from, seed)| Change::PatchOf(from, seed)),
        3 => n.prop_map(Change::Moved),
        2 => n.prop_map(Change::Repeat),
        3 => n.prop_map(Change::Shifted),
        1 => Just(Change::Zero),
        1 => Just(Change::Unused),
        1 => Just(Change::Excluded),
        1 => Just(Change::Unreadable),
        1 => n.prop_map(Change::PartlyUnreadable),
    ]
}

fn arb_step() -> impl Strategy<Value = Step> {
    let back = prop_oneof![
        8 => Just(Some(1)),
        1 => (2usize..4).prop_map(Some),
        1 => Just(None),
    ];
    let changes =
        prop::collection::vec((arb_change(), prop_oneof![4 => 1u8..4, 1 => 1u8..60]), 0..9);
    let len = prop_oneof![3 => Just(10u64), 1 => 3u64..14, 1 => Just(140u64)];
    (back, changes, len, prop_oneof![2 => Just(0u64), 1 => 1u64..30]).prop_map(
        |(back, changes, blocks, short)| Step {
            back,
            changes,
            len: blocks * BLOCK as u64 - short * 512,
        },
    )
}

/// Chains of 2 to 8 points with branches, shrinking and growing disks.
pub(crate) fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(arb_step(), 2..9).prop_map(|mut steps| {
        steps[0].back = None;
        steps
    })
}

/// The index entries of a file.
pub(crate) fn entries(storage: &dyn Storage, file: &str) -> Vec<aiv_image_format::IndexEntry> {
    let image = Image::open(storage.open(file).unwrap()).unwrap();
    image.entries(0).map(Result::unwrap).collect()
}
