//! Many points of a small disk, written by the library of the format: backups of so many would take
//! minutes.

use std::fs;
use std::path::Path;

use aiv_chain::{View, open_view};
use aiv_image_format::meta::{DiskInfo, Manifest, Meta, RegionInfo, RegionKind};
use aiv_image_format::{
    BlockSize, Compression, Digest, Encoder, Features, Geometry, ImageId, ImageKind, ImageWriter,
    ParentState, PointId, RunKind, SessionTag, SetId, Superblock, hash,
};
use aiv_volume_io::{DirStorage, Extent, Job, Storage};

const BLOCK: u32 = 16 << 10;
const BLOCKS: u32 = 4;

/// Points of one set: full ones, and so many in all that build on each of them.
pub(crate) fn many(folder: &Path, fulls: u32, each: u32) {
    fs::create_dir_all(folder).unwrap();
    let storage = DirStorage::open(folder).unwrap();
    for full in 1..=fulls {
        let file = write(&storage, full, 0, each, None);
        let base = open_view(&folder.join(file), Job::silent()).unwrap();
        for number in 1..each {
            write(&storage, full, number, each, Some(&base));
        }
    }
}

fn write(storage: &DirStorage, full: u32, number: u32, each: u32, base: Option<&View>) -> String {
    let at = full * each + number;
    let mut id = [0xA5; 16];
    id[..4].copy_from_slice(&at.to_be_bytes());
    let (incompat, kind) = match base {
        None => (0, ImageKind::Full),
        Some(_) => (Features::DELTA | Features::PARENT, ImageKind::Differential),
    };
    let len = u64::from(BLOCK * BLOCKS);
    let superblock = Superblock {
        features: Features { incompat, ..Features::default() },
        image: ImageId(id),
        set: SetId([1; 16]),
        point: PointId(id),
        kind,
        parent: base.map(ParentState::link),
        geometry: Geometry::new(len, BlockSize::new(BLOCK).unwrap(), 512).unwrap(),
        created_unix_ms: 0,
        session: SessionTag([7; 12]),
        writer: "a test".to_owned(),
        key_commitment: Digest::default(),
        source_token: Digest::default(),
    };
    let name = format!("small-{full:02}-{number:02}.aiv");
    let mut writer = ImageWriter::create(storage.create(&name).unwrap(), superblock).unwrap();
    let bytes = id.repeat(BLOCK as usize / id.len());
    let block = Encoder::new(Compression::None, false).encode(&bytes, hash::leaf(&bytes));
    writer.push_block(&block.unwrap()).unwrap();
    match base {
        None => writer.push_run(RunKind::Unused, u64::from(BLOCKS - 1)).unwrap(),
        Some(_) => writer.inherit(u64::from(BLOCKS - 1)).unwrap(),
    }
    let extent = Extent::new(0, len);
    let whole = RegionInfo { kind: RegionKind::Partition, extent, partition: None, volume: None };
    let manifest = Manifest {
        name: "small".to_owned(),
        full_number: full,
        increment_number: number,
        time_unix_ms: 1_790_000_000_000 + u64::from(at) * 3_600_000,
        ..Manifest::default()
    };
    let disk = DiskInfo { len, logical_sector: 512, regions: vec![whole], ..DiskInfo::default() };
    let meta = Meta { manifest, disk, ..Meta::default() };
    writer.finish_on(meta, base.map(|base| base as &dyn ParentState)).unwrap();
    name
}
