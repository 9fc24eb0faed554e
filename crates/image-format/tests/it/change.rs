//! Images with a parent from a compact description: what happened to each block.

use std::collections::HashMap;
use std::sync::Arc;

use aiv_image_format::hash::{fill_unreadable, leaf};
use aiv_image_format::meta::{DiskInfo, Meta};
use aiv_image_format::{
    BlockPlace, Compression, DeltaBase, Digest, Encoder, Features, Geometry, Image, ImageId,
    ImageKind, ImageWriter, Kind, LocalBase, ParentState, PointId, RunKind, Seal, SessionTag,
    SetId, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{AppendFile, Extent, Storage};

use crate::parents::{Cell, Model};
use crate::recipe::{Fill, noise};

/// What happened to a block since the parent's state. What a block cannot do (inherit what is
/// not there, be equal to a block of another length) it does not: it has new bytes then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// As it was.
    Keep,
    /// New bytes, in a frame.
    New(u64),
    /// New words, in a frame.
    Words(u64),
    /// Some bytes are others: a difference to what it was, where that is worthwhile.
    Patch(u64),
    /// Some bytes of another block of the parent's state are others, and it came here.
    PatchOf(u64, u64),
    Zero,
    Unused,
    Excluded,
    Unreadable,
    /// The second half could not be read.
    PartlyUnreadable(u64),
    /// The bytes of this block of the parent's state.
    Moved(u64),
    /// The bytes of the n-th block before it in this image that has a DATA frame.
    Repeat(usize),
    /// The second half of the n-th block before it in this image that has a DATA frame, and the
    /// first half of the next one, wrapped around.
    Shifted(usize),
}

/// An image with a parent to be.
#[derive(Debug, Clone)]
pub(crate) struct Increment {
    /// Changes in block order, each for so many blocks; what is left is kept.
    pub changes: Vec<(Change, u64)>,
    /// Bytes of the address space; zero for those of the parent.
    pub len: u64,
    pub compression: Compression,
    /// A checkpoint is asked for after this many blocks; 0 for never.
    pub checkpoint_every: u64,
    pub features: u64,
    /// Goes into every id.
    pub id: u8,
    pub seal: Option<Seal>,
}

/// How a block gets into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Inherit,
    Frame,
    Delta(u64),
    Run(RunKind),
    Damaged,
    Parent(u64),
    Ref(u64),
    Local([u64; 2]),
}

/// The block of a state that `wanted`, which may be any number, stands for.
fn wrapped(wanted: u64, blocks: u64) -> u64 {
    wanted % blocks
}

impl Increment {
    pub(crate) fn new(changes: &[(Change, u64)]) -> Self {
        Self {
            changes: changes.to_vec(),
            len: 0,
            compression: Compression::Zstd(1),
            checkpoint_every: 0,
            features: Features::DELTA | Features::PARENT,
            id: 9,
            seal: None,
        }
    }

    pub(crate) fn geometry(&self, old: &Geometry) -> Geometry {
        let len = if self.len == 0 { old.len() } else { self.len };
        Geometry::new(len, old.block_size(), old.sector_size()).expect("a small disk")
    }

    pub(crate) fn superblock(&self, parent: &dyn ParentState) -> Superblock {
        Superblock {
            features: Features { incompat: self.features | self.local(), ..Features::default() },
            kind: ImageKind::Incremental,
            parent: Some(parent.link()),
            ..full_superblock(self.geometry(&parent.geometry()), self.id)
        }
    }

    /// The feature that differences to blocks of the image itself need, if there may be any.
    fn local(&self) -> u64 {
        let is_shifted = |change: &(Change, u64)| matches!(change.0, Change::Shifted(_));
        if self.changes.iter().any(is_shifted) { Features::LOCAL } else { 0 }
    }

    /// What becomes of each block: its way into the image, and what it then is.
    fn plan(&self, old: &Model) -> Vec<(Way, Cell)> {
        let geometry = self.geometry(&old.geometry);
        let told = self
            .changes
            .iter()
            .flat_map(|&(change, run)| std::iter::repeat_n(change, usize::try_from(run).unwrap()));
        let mut told = told.chain(std::iter::repeat(Change::Keep));
        let mut plan: Vec<(Way, Cell)> = Vec::new();
        for block in 0..geometry.blocks() {
            let change = told.next().expect("endless");
            let next = one(change, block, geometry.block_len(block) as usize, old, &plan);
            plan.push(next);
        }
        plan
    }

    /// The state the image provides.
    pub(crate) fn state(&self, old: &Model) -> Model {
        let cells = self.plan(old).into_iter().map(|(_, cell)| cell).collect();
        Model::new(self.geometry(&old.geometry), point(self.id), cells)
    }

    /// Writes the image to `file`. `parent` is the state of `old`.
    pub(crate) fn write(
        &self,
        file: Box<dyn AppendFile>,
        old: &Model,
        parent: &dyn ParentState,
    ) -> aiv_image_format::Result<()> {
        let seal = self.seal.clone();
        let mut writer = ImageWriter::create_with(file, self.superblock(parent), seal)?;
        let mut encoder = Encoder::new(self.compression, true);
        let mut places: HashMap<u64, BlockPlace> = HashMap::new();
        let plan = self.plan(old);
        for (block, (way, (_, bytes))) in (0..).zip(&plan) {
            let digest = leaf(bytes);
            match way {
                Way::Inherit => writer.inherit(1)?,
                Way::Run(kind) => writer.push_run(*kind, 1)?,
                Way::Parent(from) => writer.push_parent(*from, digest)?,
                Way::Ref(from) => writer.push_ref(places[from], digest)?,
                Way::Frame => {
                    let encoded = encoder.encode(bytes, digest)?;
                    places.insert(block, writer.push_block(&encoded)?);
                }
                Way::Local(from) => {
                    let bases = from.map(|block| {
                        let bytes = &plan[usize::try_from(block).unwrap()].1.1;
                        LocalBase { block, leaf: leaf(bytes), bytes }
                    });
                    writer.push_block(&encoder.encode_local(bytes, digest, &bases)?)?;
                }
                Way::Damaged => {
                    writer.push_damaged_block(&encoder.encode(bytes, digest)?)?;
                }
                Way::Delta(from) => {
                    let place = usize::try_from(*from).unwrap();
                    let bytes_of_base = &old.cells[place].1;
                    let base = DeltaBase {
                        block: *from,
                        leaf: leaf(bytes_of_base),
                        depth: old.depths[place],
                        bytes: bytes_of_base,
                    };
                    writer.push_block(&encoder.encode_against(bytes, digest, &base)?)?;
                }
            }
            if self.checkpoint_every > 0 && (block + 1) % self.checkpoint_every == 0 {
                writer.checkpoint()?;
            }
        }
        let cells: Vec<Cell> = plan.into_iter().map(|(_, cell)| cell).collect();
        let meta = small_meta(&self.geometry(&old.geometry), &cells);
        writer.finish_on(meta, Some(parent)).map(drop)
    }

    /// The bytes of the file.
    pub(crate) fn build(&self, old: &Model) -> Arc<Vec<u8>> {
        self.build_on(old, old)
    }

    /// As [`Increment::build`], with the state of `old` provided by `parent`.
    pub(crate) fn build_on(&self, old: &Model, parent: &dyn ParentState) -> Arc<Vec<u8>> {
        let storage = MemStorage::new();
        self.write(storage.create("image").unwrap(), old, parent).expect("memory does not fail");
        storage.contents("image").expect("just written")
    }

    /// The image, opened.
    pub(crate) fn open(&self, old: &Model) -> Image {
        crate::recipe::open(&self.build(old)).expect("a fresh image opens")
    }
}

fn one(change: Change, block: u64, len: usize, old: &Model, before: &[(Way, Cell)]) -> (Way, Cell) {
    let fits = |wanted: u64| {
        let from = wrapped(wanted, old.geometry.blocks());
        (old.geometry.block_len(from) as usize == len).then_some(from)
    };
    let cell_of = |from: u64| &old.cells[usize::try_from(from).unwrap()];
    let same = (block < old.geometry.blocks()).then(|| fits(block)).flatten();
    let new = |seed: u64| (Way::Frame, (Kind::Data, noise(seed ^ block << 32, len)));
    let patched = |from: u64, seed: u64| {
        let mut bytes = cell_of(from).1.clone();
        let at = usize::try_from(seed % len as u64).unwrap();
        let end = (at + 20).min(len);
        bytes[at..end].copy_from_slice(&noise(seed, end - at));
        (Way::Delta(from), (Kind::Data, bytes))
    };
    let run = |way, kind| (Way::Run(way), (kind, vec![0; len]));
    match change {
        Change::Keep => match same.map(|from| (from, cell_of(from))) {
            Some((_, cell)) if cell.0 != Kind::Unreadable => {
                // Conditions are inherited, ways to store are not.
                (Way::Inherit, cell.clone())
            }
            _ => new(7),
        },
        Change::New(seed) => new(seed),
        Change::Words(seed) => (Way::Frame, (Kind::Data, Fill::Words(seed).bytes(len))),
        Change::Patch(seed) => same.map_or_else(|| new(seed), |from| patched(from, seed)),
        Change::PatchOf(from, seed) => {
            fits(from).map_or_else(|| new(seed), |from| patched(from, seed))
        }
        Change::Zero => run(RunKind::Zero, Kind::Zero),
        Change::Unused => run(RunKind::Unused, Kind::Unused),
        Change::Excluded => run(RunKind::Excluded, Kind::Excluded),
        Change::Unreadable => {
            let mut bytes = vec![0; len];
            fill_unreadable(&mut bytes, 0);
            (Way::Run(RunKind::Unreadable), (Kind::Unreadable, bytes))
        }
        Change::PartlyUnreadable(seed) => {
            let mut bytes = noise(seed, len);
            fill_unreadable(&mut bytes[len / 2..], len / 2);
            (Way::Damaged, (Kind::Unreadable, bytes))
        }
        Change::Moved(from) => match fits(from) {
            Some(from) => (Way::Parent(from), (Kind::Data, cell_of(from).1.clone())),
            None => new(from),
        },
        Change::Repeat(number) => {
            let framed = framed(before, |cell| cell.1.len() == len);
            match framed.len() {
                0 => new(number as u64),
                count => {
                    let from = framed[number % count];
                    let bytes = before[usize::try_from(from).unwrap()].1.1.clone();
                    (Way::Ref(from), (Kind::Data, bytes))
                }
            }
        }
        Change::Shifted(number) => {
            let framed = framed(before, |_| true);
            match framed.len() {
                0 => new(number as u64),
                count => {
                    let from = [framed[number % count], framed[(number % count + 1) % count]];
                    let [first, second] =
                        from.map(|block| &before[usize::try_from(block).unwrap()].1.1);
                    let half = first.len() / 2;
                    let mut bytes = [&first[half..], &second[..half]].concat();
                    bytes.truncate(len);
                    (Way::Local(from), (Kind::Data, bytes))
                }
            }
        }
    }
}

/// The blocks so far that have a DATA frame in this image, and are `fitting`.
fn framed(before: &[(Way, Cell)], fitting: impl Fn(&Cell) -> bool) -> Vec<u64> {
    let all = (0..).zip(before);
    all.filter(|(_, (way, cell))| *way == Way::Frame && fitting(cell))
        .map(|(block, _)| block)
        .collect()
}

fn point(id: u8) -> PointId {
    PointId([0x40 + id; 16])
}

fn full_superblock(geometry: Geometry, id: u8) -> Superblock {
    Superblock {
        features: Features::default(),
        image: ImageId([id; 16]),
        set: SetId([0x21; 16]),
        point: point(id),
        kind: ImageKind::Full,
        parent: None,
        geometry,
        created_unix_ms: 1_790_000_000_000,
        session: SessionTag([0x60 + id; 12]),
        writer: "aivory test 1".into(),
        key_commitment: aiv_image_format::Digest::default(),
        source_token: Digest::default(),
    }
}

/// META of a bare disk in which these blocks could not be read.
pub(crate) fn small_meta(geometry: &Geometry, cells: &[Cell]) -> Meta {
    let lost = (0..).zip(cells).filter(|(_, cell)| cell.0 == Kind::Unreadable);
    let errors =
        lost.map(|(block, cell)| Extent::new(geometry.offset_of(block), cell.1.len() as u64));
    let disk = DiskInfo::bare(geometry.len(), geometry.sector_size());
    Meta { disk, source_errors: errors.collect(), ..Meta::default() }
}

/// A full image of a state, written from nothing.
pub(crate) fn full_image(state: &Model, id: u8) -> Arc<Vec<u8>> {
    let storage = MemStorage::new();
    let superblock = Superblock { point: state.point, ..full_superblock(state.geometry, id) };
    let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(1), false);
    for (kind, bytes) in &state.cells {
        let encoded = encoder.encode(bytes, leaf(bytes)).unwrap();
        match kind {
            Kind::Zero => writer.push_run(RunKind::Zero, 1).unwrap(),
            Kind::Unused => writer.push_run(RunKind::Unused, 1).unwrap(),
            Kind::Excluded => writer.push_run(RunKind::Excluded, 1).unwrap(),
            Kind::Unreadable => drop(writer.push_damaged_block(&encoded).unwrap()),
            _ => drop(writer.push_block(&encoded).unwrap()),
        }
    }
    writer.finish(small_meta(&state.geometry, &state.cells)).expect("memory does not fail");
    storage.contents("image").expect("just written")
}
