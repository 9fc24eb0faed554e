//! Small images, made block by block.

use std::num::NonZeroUsize;

use aiv_chain::View;
use aiv_chain::meta::{DiskInfo, Meta, PartitionInfo, RegionInfo, RegionKind};
use aiv_image_format::{
    BlockIndex, BlockPlace, BlockSize, Compression, Digest, Encoder, Features, Geometry, ImageId,
    ImageKind, ImageWriter, Kind, PointId, RunKind, SessionTag, SetId, Superblock, hash,
};
use aiv_restore_engine::RestoreOptions;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, Storage};

/// Name of the image in its folder.
pub(crate) const FILE: &str = "disk.aiv";

/// One block of a made-up disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Random bytes of this seed.
    Data(u64),
    /// The bytes of the data block this many blocks back; data of its own where there is none.
    Ref(usize),
    Zero,
    Unused,
    Excluded,
    /// Nothing could be read.
    Lost,
    /// Data of this seed, of which the second sector could not be read.
    Damaged(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) block_size: u32,
    pub(crate) sector_size: u32,
    pub(crate) cells: Vec<Cell>,
    /// Bytes the last block is short of a whole one.
    pub(crate) short_by: u32,
    /// Number and bytes of partitions, ascending.
    pub(crate) parts: Vec<(u32, Extent)>,
    pub(crate) table: &'static str,
    pub(crate) table_problems: Vec<String>,
    pub(crate) point: u8,
    /// META says nothing about unreadable places.
    pub(crate) forgets_errors: bool,
}

/// A disk that was imaged.
pub(crate) struct Built {
    pub(crate) storage: MemStorage,
    /// What a restore has to write, free space as zeros.
    pub(crate) bytes: Vec<u8>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) block_size: usize,
    /// What META lists as unreadable.
    pub(crate) source_errors: Vec<Extent>,
}

impl Built {
    pub(crate) fn view(&self) -> View {
        View::open(&self.storage, FILE, aiv_volume_io::Job::silent()).expect("a sound image")
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn kind_at(&self, byte: usize) -> Kind {
        self.kinds[byte / self.block_size]
    }

    /// Turns over a bit in the payload of the frame of `block`; returns the frame's offset.
    pub(crate) fn damage_frame(&self, block: BlockIndex) -> u64 {
        let entry = self.view().image().entry(block).unwrap().expect("every block is decided");
        assert!(entry.has_frame());
        let mut bytes = self.storage.contents(FILE).unwrap().to_vec();
        bytes[usize::try_from(entry.address).unwrap() + 64 + 100] ^= 1;
        self.storage.insert(FILE, bytes);
        entry.address
    }
}

impl Disk {
    pub(crate) fn new(block_size: u32, cells: &[Cell]) -> Self {
        Self {
            block_size,
            sector_size: 512,
            cells: cells.to_vec(),
            short_by: 0,
            parts: Vec::new(),
            table: "none",
            table_problems: Vec::new(),
            point: 1,
            forgets_errors: false,
        }
    }

    /// Data, with every kind of block behind the head, and a short last block: 2.2 MiB.
    pub(crate) fn sample() -> Self {
        let mut cells: Vec<Cell> = (0..20).map(Cell::Data).collect();
        cells.extend([Cell::Zero, Cell::Zero, Cell::Unused, Cell::Data(30), Cell::Unused]);
        cells.extend([Cell::Excluded, Cell::Lost, Cell::Lost, Cell::Damaged(31), Cell::Ref(5)]);
        cells.extend([Cell::Zero, Cell::Data(32), Cell::Unused, Cell::Data(33), Cell::Data(34)]);
        Self { short_by: 5000, ..Self::new(64 << 10, &cells) }
    }

    /// The sample with a partition from within one block to within another.
    pub(crate) fn partitioned_sample() -> Self {
        let parts = vec![(2, Extent::new(70_000, 300_001)), (7, Extent::new(500_000, 1_200_003))];
        Self { parts, table: "gpt", ..Self::sample() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.cells.len() as u64 * u64::from(self.block_size) - u64::from(self.short_by)
    }

    pub(crate) fn build(&self) -> Built {
        let size = BlockSize::new(self.block_size).expect("a block size");
        let geometry = Geometry::new(self.len(), size, self.sector_size).expect("small");
        let storage = MemStorage::new();
        let superblock = superblock(geometry, self.point);
        let mut writer = ImageWriter::create(storage.create(FILE).unwrap(), superblock).unwrap();
        let mut encoder = Encoder::new(Compression::Lz4, false);
        let mut built = Built {
            storage,
            bytes: Vec::new(),
            kinds: Vec::new(),
            block_size: size.bytes(),
            source_errors: Vec::new(),
        };
        let mut places: Vec<Option<(BlockPlace, Digest)>> = Vec::new();
        for (number, &cell) in (0u64..).zip(&self.cells) {
            let len = geometry.block_len(number) as usize;
            let start = built.bytes.len();
            let place_back = |back: usize| places.len().checked_sub(back).and_then(|at| places[at]);
            let (bytes, kind) = match cell {
                Cell::Ref(back) if len == size.bytes() && place_back(back).is_some() => {
                    let from = start - back * size.bytes();
                    (built.bytes[from..from + len].to_vec(), Kind::Ref)
                }
                Cell::Data(seed) => (Content::Random(seed + 1).bytes(len), Kind::Data),
                Cell::Ref(back) => (Content::Random(back as u64 + 900).bytes(len), Kind::Data),
                Cell::Zero => (vec![0; len], Kind::Zero),
                Cell::Unused => (vec![0; len], Kind::Unused),
                Cell::Excluded => (vec![0; len], Kind::Excluded),
                Cell::Lost => {
                    let mut bytes = vec![0; len];
                    hash::fill_unreadable(&mut bytes, 0);
                    built.source_errors.push(Extent::new(start as u64, len as u64));
                    (bytes, Kind::Unreadable)
                }
                Cell::Damaged(seed) => {
                    let mut bytes = Content::Random(seed + 1).bytes(len);
                    let (from, to) = (512.min(len - 1), 1024.min(len));
                    hash::fill_unreadable(&mut bytes[from..to], from);
                    let lost = Extent::new((start + from) as u64, (to - from) as u64);
                    built.source_errors.push(lost);
                    (bytes, Kind::Unreadable)
                }
            };
            let leaf = hash::leaf(&bytes);
            let place = match (cell, kind) {
                (Cell::Ref(back), Kind::Ref) => {
                    let place = place_back(back).expect("looked up above");
                    writer.push_ref(place.0, leaf).unwrap();
                    Some(place)
                }
                (Cell::Damaged(_), _) => {
                    writer.push_damaged_block(&encoder.encode(&bytes, leaf).unwrap()).unwrap();
                    None
                }
                (_, Kind::Data) => {
                    let place = writer.push_block(&encoder.encode(&bytes, leaf).unwrap()).unwrap();
                    Some((place, leaf))
                }
                (_, kind) => {
                    writer.push_run(run_kind(kind), 1).unwrap();
                    None
                }
            };
            places.push(place);
            built.bytes.extend(bytes);
            built.kinds.push(kind);
        }
        if self.forgets_errors {
            built.source_errors.clear();
        }
        let meta = Meta {
            disk: self.disk_info(),
            source_errors: built.source_errors.clone(),
            ..Meta::default()
        };
        writer.finish(meta).unwrap();
        built
    }

    pub(crate) fn disk_info(&self) -> DiskInfo {
        let mut regions = Vec::new();
        let mut at = 0;
        let mut push = |at: u64, end: u64, number: Option<u32>| {
            let partition = number.map(|number| PartitionInfo { number, ..Default::default() });
            let kind = if number.is_some() { RegionKind::Partition } else { RegionKind::Gap };
            let extent = Extent::between(at, end);
            if !extent.is_empty() {
                regions.push(RegionInfo { kind, extent, partition, volume: None });
            }
        };
        for (number, extent) in &self.parts {
            push(at, extent.start, None);
            push(extent.start, extent.end(), Some(*number));
            at = extent.end();
        }
        push(at, self.len(), None);
        DiskInfo {
            len: self.len(),
            logical_sector: self.sector_size,
            physical_sector: self.sector_size,
            table: self.table.to_owned(),
            table_problems: self.table_problems.clone(),
            regions,
            ..DiskInfo::default()
        }
    }
}

/// The superblock of a full image.
pub(crate) fn superblock(geometry: Geometry, point: u8) -> Superblock {
    Superblock {
        features: Features::default(),
        image: ImageId([point; 16]),
        set: SetId([2; 16]),
        point: PointId([point; 16]),
        kind: ImageKind::Full,
        parent: None,
        geometry,
        created_unix_ms: 0,
        session: SessionTag([4; 12]),
        writer: "test".to_owned(),
        key_commitment: Digest::default(),
        source_token: Digest::default(),
    }
}

fn run_kind(kind: Kind) -> RunKind {
    match kind {
        Kind::Zero => RunKind::Zero,
        Kind::Unused => RunKind::Unused,
        Kind::Excluded => RunKind::Excluded,
        _ => RunKind::Unreadable,
    }
}

/// Options with this many threads.
pub(crate) fn threads(count: usize) -> RestoreOptions {
    RestoreOptions::new(NonZeroUsize::new(count).expect("at least one"))
}

/// Bytes that no image holds.
pub(crate) fn noise(len: u64) -> Vec<u8> {
    Content::Random(77_777).bytes(usize::try_from(len).expect("small"))
}
