//! Small images in one line.

use aiv_image_format::meta::{DiskInfo, Manifest, Meta, RegionInfo, RegionKind};
use aiv_image_format::{
    BlockSize, Compression, Digest, Encoder, Features, Geometry, ImageId, ImageKind, ImageWriter,
    PointId, RunKind, Seal, SessionTag, SetId, Superblock, hash,
};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, Storage};

/// The smallest blocks, so that tiny disks have several.
pub(crate) const BLOCK: usize = 16 << 10;

/// An image to be made.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) set: u8,
    pub(crate) point: PointId,
    pub(crate) name: String,
    pub(crate) full_number: u32,
    pub(crate) time_unix_ms: u64,
    pub(crate) bytes: Vec<u8>,
    /// Incompatible features of the superblock.
    pub(crate) features: u64,
}

impl Spec {
    pub(crate) fn new(set: u8, point: u8) -> Self {
        Self {
            set,
            point: PointId([point; 16]),
            name: format!("set{set}"),
            full_number: point.into(),
            time_unix_ms: u64::from(point) * 1000,
            bytes: Content::Mixed(point.into()).bytes(3 * BLOCK + 512),
            features: 0,
        }
    }

    /// Every block stored or a run of zeros, as its bytes are.
    pub(crate) fn write(&self, storage: &dyn Storage, file: &str) {
        let kinds = self
            .bytes
            .chunks(BLOCK)
            .map(|block| if block.iter().all(|&b| b == 0) { Some(RunKind::Zero) } else { None });
        self.write_as(storage, file, kinds);
    }

    /// `None` is a block with a frame. Blocks without one read as their kind has it.
    pub(crate) fn write_as(
        &self,
        storage: &dyn Storage,
        file: &str,
        kinds: impl IntoIterator<Item = Option<RunKind>>,
    ) {
        self.write_keyed(storage, file, kinds, None);
    }

    /// As [`Spec::write_as`], with a key.
    pub(crate) fn write_keyed(
        &self,
        storage: &dyn Storage,
        file: &str,
        kinds: impl IntoIterator<Item = Option<RunKind>>,
        seal: Option<Seal>,
    ) {
        let block_size = BlockSize::new(u32::try_from(BLOCK).unwrap()).unwrap();
        let geometry = Geometry::new(self.bytes.len() as u64, block_size, 512).unwrap();
        let superblock = Superblock {
            features: Features { incompat: self.features, ..Features::default() },
            image: ImageId(self.point.0),
            set: SetId([self.set; 16]),
            point: self.point,
            kind: ImageKind::Full,
            parent: None,
            geometry,
            created_unix_ms: self.time_unix_ms,
            session: SessionTag([self.point.0[0]; 12]),
            writer: "test".to_owned(),
            key_commitment: aiv_image_format::Digest::default(),
            source_token: Digest::default(),
        };
        let mut writer =
            ImageWriter::create_with(storage.create(file).unwrap(), superblock, seal).unwrap();
        let mut encoder = Encoder::new(Compression::Lz4, true);
        let mut seen = Vec::new();
        for (block, kind) in self.bytes.chunks(BLOCK).zip(kinds) {
            let leaf = hash::leaf(block);
            let known = seen.iter().find(|(l, _)| *l == leaf);
            match (kind, known) {
                (Some(kind), _) => writer.push_run(kind, 1).unwrap(),
                (None, Some(&(_, place))) => writer.push_ref(place, leaf).unwrap(),
                (None, None) => {
                    let place = writer.push_block(&encoder.encode(block, leaf).unwrap()).unwrap();
                    seen.push((leaf, place));
                }
            }
        }
        let whole = RegionInfo {
            kind: RegionKind::Partition,
            extent: Extent::new(0, geometry.len()),
            partition: None,
            volume: None,
        };
        let meta = Meta {
            manifest: Manifest {
                host: "host".to_owned(),
                name: self.name.clone(),
                source_id: format!("user:{}", self.set),
                full_number: self.full_number,
                time_unix_ms: self.time_unix_ms,
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
        };
        writer.finish(meta).unwrap();
    }
}

/// A folder with two sets: points 1, 2 and 3 of set 1, point 0x11 of set 2.
pub(crate) fn two_sets() -> MemStorage {
    let storage = MemStorage::new();
    for (set, point) in [(1, 1), (1, 2), (1, 3), (2, 0x11)] {
        Spec::new(set, point).write(&storage, &format!("{set}-{point}.aiv"));
    }
    storage
}

/// Flips a bit of a file.
pub(crate) fn damage(storage: &MemStorage, file: &str, at: usize) {
    let mut bytes = storage.contents(file).unwrap().to_vec();
    bytes[at] ^= 0x10;
    storage.insert(file, bytes);
}

/// Everything in a folder, proven in depth: the images, and what is none.
pub(crate) fn verify_all(
    storage: &dyn Storage,
) -> (Vec<aiv_chain::Checked>, Vec<aiv_chain::Stray>) {
    let options = aiv_chain::VerifyOptions {
        depth: aiv_chain::Depth::Data,
        not_verified_since: None,
        now_unix_ms: 0,
        set: None,
    };
    let done = aiv_chain::verify_folder(storage, &options, aiv_volume_io::Job::silent()).unwrap();
    (done.images, done.strays)
}
