//! Chains of small images: every kind of block, against a plain model of the bytes.

use std::collections::HashMap;

use aiv_chain::{ImageKind, MERGE_PART, ParentLink, PartFiles, View, publish_parts};
use aiv_image_format::meta::{DiskInfo, Manifest, Meta, RegionInfo, RegionKind};
use aiv_image_format::{
    BlockSize, Compression, DeltaBase, Digest, Encoder, Features, Geometry, ImageId, ImageWriter,
    Kind, LocalBase, ParentState, PointId, RunKind, Seal, SessionTag, SetId, Superblock, hash,
};
use aiv_volume_io::{Extent, Storage};

use crate::common::BLOCK;

/// How a block is decided that could be decided in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Left to the parent where it has the same bytes, else as a difference to the block there,
    /// or a copy of another one.
    Thrifty,
    /// Stored whole, or as a copy of one stored before in the same image.
    Whole,
    /// As a difference to the two blocks before it, where this image stores them whole.
    Local,
}

/// An image to be made.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) set: u8,
    pub(crate) point: PointId,
    pub(crate) full_number: u32,
    pub(crate) increment_number: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ways: Vec<Way>,
    pub(crate) seal: Option<Seal>,
    /// Bytes of a file, where it is split.
    pub(crate) split: Option<u64>,
    /// Features beside those that come by themselves.
    pub(crate) features: u64,
}

impl Step {
    /// The `number`-th point of set 1; the first one is full.
    pub(crate) fn new(number: u16, bytes: Vec<u8>) -> Self {
        Self {
            set: 1,
            point: point(number),
            full_number: 1,
            increment_number: u32::from(number) - 1,
            bytes,
            ways: vec![Way::Thrifty],
            seal: None,
            split: None,
            features: 0,
        }
    }

    /// Writes the image on top of `parent`.
    pub(crate) fn write(&self, storage: &dyn Storage, file: &str, parent: Option<&View>) {
        let superblock = self.superblock(parent.map(ParentState::link));
        let (geometry, seal) = (superblock.geometry, self.seal.clone());
        let part = format!("{file}{MERGE_PART}");
        let mut writer = match self.split {
            None => ImageWriter::create_with(storage.create(file).unwrap(), superblock, seal),
            Some(limit) => {
                let first = storage.create(&part).unwrap();
                let files = Box::new(PartFiles::new(storage, file, MERGE_PART, first));
                ImageWriter::create_split_with(files, superblock, limit, seal)
            }
        }
        .unwrap();
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let mut places = HashMap::new();
        let mut whole: HashMap<u64, &[u8]> = HashMap::new();
        let elsewhere = parent.map(blocks_by_leaf).unwrap_or_default();
        for (block, (bytes, number)) in (0..).zip(self.bytes.chunks(BLOCK).zip(0..)) {
            let way: usize = number;
            let way = self.ways[way % self.ways.len()];
            let leaf = hash::leaf(bytes);
            let below = parent.and_then(|parent| block_of(parent, block, bytes.len()));
            if way == Way::Thrifty
                && let Some((below, ..)) = &below
                && below == bytes
            {
                writer.inherit(1).unwrap();
                continue;
            }
            if bytes.iter().all(|&b| b == 0) {
                let kind = if way == Way::Whole { RunKind::Unused } else { RunKind::Zero };
                writer.push_run(kind, 1).unwrap();
            } else if let Some(&place) = places.get(&leaf) {
                writer.push_ref(place, leaf).unwrap();
            } else if let (Way::Thrifty, Some(&other)) = (way, elsewhere.get(&leaf))
                && geometry.block_len(block) as usize == BLOCK
            {
                writer.push_parent(other, leaf).unwrap();
            } else {
                let before = |back: u64| {
                    let block = u64::checked_sub(block, back)?;
                    let bytes = *whole.get(&block)?;
                    Some(LocalBase { block, leaf: hash::leaf(bytes), bytes })
                };
                let bases = before(2).zip(before(1)).filter(|_| way == Way::Local);
                let encoded = match (way, below) {
                    _ if bases.is_some() => {
                        let bases: Vec<LocalBase<'_>> =
                            bases.into_iter().flat_map(|(a, b)| [a, b]).collect();
                        encoder.encode_local(bytes, leaf, &bases).unwrap()
                    }
                    (Way::Thrifty, Some((below, depth))) => {
                        let leaf_below = hash::leaf(&below);
                        let base = DeltaBase { block, leaf: leaf_below, depth, bytes: &below };
                        encoder.encode_against(bytes, leaf, &base).unwrap()
                    }
                    _ => encoder.encode(bytes, leaf).unwrap(),
                };
                let is_whole = encoded.is_whole();
                let place = writer.push_block(&encoded).unwrap();
                if is_whole {
                    places.insert(leaf, place);
                    whole.insert(block, bytes);
                }
            }
        }
        let parent = parent.map(|parent| parent as &dyn ParentState);
        let trailer = writer.finish_on(self.meta(&geometry), parent).unwrap().trailer;
        if self.split.is_some() {
            publish_parts(storage, file, MERGE_PART, trailer.segment_count).unwrap();
            storage.sync_dir().unwrap();
        }
    }

    pub(crate) fn superblock(&self, parent: Option<ParentLink>) -> Superblock {
        let block_size = BlockSize::new(u32::try_from(BLOCK).unwrap()).unwrap();
        let (incompat, kind) = match parent {
            None => (0, ImageKind::Full),
            Some(_) => (Features::DELTA | Features::PARENT, ImageKind::Incremental),
        };
        Superblock {
            features: Features {
                incompat: incompat | self.features | self.local(),
                ..Features::default()
            },
            image: ImageId(self.point.0),
            set: SetId([self.set; 16]),
            point: self.point,
            kind,
            parent,
            geometry: Geometry::new(self.bytes.len() as u64, block_size, 512).unwrap(),
            created_unix_ms: 0,
            // Sessions that seal must not come again.
            session: match &self.seal {
                None => SessionTag([7; 12]),
                Some(_) => SessionTag(*self.point.0.first_chunk().unwrap()),
            },
            writer: "test".to_owned(),
            key_commitment: Digest::default(),
            source_token: Digest::default(),
        }
    }

    /// The feature that differences to blocks of the image itself need.
    fn local(&self) -> u64 {
        if self.ways.contains(&Way::Local) { Features::LOCAL } else { 0 }
    }

    pub(crate) fn meta(&self, geometry: &Geometry) -> Meta {
        let extent = Extent::new(0, geometry.len());
        let kind = RegionKind::Partition;
        let whole = RegionInfo { kind, extent, partition: None, volume: None };
        Meta {
            manifest: Manifest {
                host: "host".to_owned(),
                name: format!("set{}", self.set),
                source_id: format!("user:{}", self.set),
                full_number: self.full_number,
                increment_number: self.increment_number,
                time_unix_ms: u64::from(self.increment_number + 1) * 1000,
                ..Manifest::default()
            },
            disk: DiskInfo {
                len: geometry.len(),
                logical_sector: 512,
                physical_sector: 512,
                table: "none".to_owned(),
                regions: vec![whole],
                ..DiskInfo::default()
            },
            ..Meta::default()
        }
    }
}

/// The id of the `number`-th point.
pub(crate) fn point(number: u16) -> PointId {
    let mut id = [0xA5; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    PointId(id)
}

/// The bytes of a block of `len` bytes in a state, and the differences undone for it.
fn block_of(parent: &View, block: u64, len: usize) -> Option<(Vec<u8>, u8)> {
    if parent.geometry().block_len(block) as usize != len {
        return None;
    }
    let mut bytes = vec![0; len];
    let depth = ParentState::read(parent, block, &mut bytes).unwrap();
    Some((bytes, depth))
}

/// Whole blocks of a state by their leaves.
fn blocks_by_leaf(parent: &View) -> HashMap<Digest, u64> {
    let mut blocks = HashMap::new();
    for stretch in parent.stretches(0) {
        let stretch = stretch.unwrap();
        let is_whole = parent.geometry().block_len(stretch.block()) as usize == BLOCK;
        if let Some(leaf) = stretch.leaf().filter(|_| is_whole && stretch.kind() != Kind::Ref) {
            blocks.entry(leaf).or_insert(stretch.block());
        }
    }
    blocks
}
