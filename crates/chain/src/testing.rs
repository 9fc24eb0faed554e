//! Small images in a real folder, for the unit tests of this crate.

use std::path::Path;

use aiv_image_format::meta::{DiskInfo, Manifest, Meta, RegionInfo, RegionKind};
use aiv_image_format::{
    BlockSize, Compression, Digest, Encoder, Features, Geometry, ImageId, ImageKind, ImageWriter,
    PointId, RunKind, SessionTag, SetId, Superblock, hash,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{DirStorage, Extent, Storage};

const BLOCK: u32 = 16 << 10;

/// A full image of a disk of four blocks, number `full_number` of the set called `name`. Its
/// point is `id` sixteen times.
pub(crate) fn image(id: u8, name: &str, full_number: u32) -> Vec<u8> {
    image_of(id, name, full_number, &[id; BLOCK as usize])
}

/// As [`image`], of a disk that begins with whole blocks of `content`, stored as they are.
pub(crate) fn image_of(id: u8, name: &str, full_number: u32, content: &[u8]) -> Vec<u8> {
    let len = content.len() as u64 + 3 * u64::from(BLOCK);
    let storage = MemStorage::new();
    let block_size = BlockSize::new(BLOCK).expect("a power of two");
    let superblock = Superblock {
        features: Features::default(),
        image: ImageId([id; 16]),
        set: SetId([name.as_bytes()[name.len() - 1]; 16]),
        point: PointId([id; 16]),
        kind: ImageKind::Full,
        parent: None,
        geometry: Geometry::new(len, block_size, 512).expect("small"),
        created_unix_ms: 0,
        session: SessionTag([id; 12]),
        writer: "a test".to_owned(),
        key_commitment: aiv_image_format::Digest::default(),
        source_token: Digest::default(),
    };
    let file = storage.create("image").expect("an empty storage");
    let mut writer = ImageWriter::create(file, superblock).expect("created");
    for bytes in content.chunks(BLOCK as usize) {
        let block = Encoder::new(Compression::None, false).encode(bytes, hash::leaf(bytes));
        writer.push_block(&block.expect("encoded")).expect("written");
    }
    writer.push_run(RunKind::Unused, 3).expect("written");
    let extent = Extent::new(0, len);
    let whole = RegionInfo { kind: RegionKind::Partition, extent, partition: None, volume: None };
    let disk = DiskInfo { len, logical_sector: 512, regions: vec![whole], ..DiskInfo::default() };
    let manifest = Manifest { name: name.to_owned(), full_number, ..Manifest::default() };
    writer.finish(Meta { manifest, disk, ..Meta::default() }).expect("finished");
    storage.contents("image").expect("just written").to_vec()
}

/// A temporary folder with files in it.
pub(crate) struct Filled(tempfile::TempDir);

impl Filled {
    pub(crate) fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("created");
            std::fs::write(path, bytes).expect("written");
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn storage(&self) -> DirStorage {
        DirStorage::open(self.path()).expect("just created")
    }
}
