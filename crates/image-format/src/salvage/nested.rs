//! Images on the disk that was backed up, in damaged frames of the image of that disk.

use std::sync::Arc;

use aiv_keys::Keys;
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, Storage};

use super::open::{Openers, Under};
use super::{Fate, Finds, Hints, Salvage, Sessions, Whose, scan, whose};
use crate::block::BaseBlock;
use crate::codec::{Compression, Encoder};
use crate::error::{Error, Result};
use crate::hash::leaf;
use crate::ids::{BlockSize, Geometry, ImageId, PointId, SessionTag, SetId};
use crate::layout::{Features, ImageKind, Superblock};
use crate::meta::{DiskInfo, Meta};
use crate::writer::ImageWriter;

const BLOCK: usize = 16 << 10;

/// An image of `disk`.
fn image_of(disk: &[u8], id: u8, compression: Compression) -> Vec<u8> {
    let size = BlockSize::new(16384).unwrap();
    let geometry = Geometry::new(disk.len() as u64, size, 512).unwrap();
    let superblock = Superblock {
        features: Features::default(),
        image: ImageId([id; 16]),
        set: SetId([id; 16]),
        point: PointId([id; 16]),
        kind: ImageKind::Full,
        parent: None,
        geometry,
        created_unix_ms: 0,
        session: SessionTag([id; 12]),
        writer: String::new(),
        key_commitment: crate::Digest::default(),
        source_token: crate::Digest::default(),
    };
    let storage = MemStorage::new();
    let mut writer = ImageWriter::create(storage.create("a").unwrap(), superblock).unwrap();
    let mut encoder = Encoder::new(compression, false);
    for block in disk.chunks(BLOCK) {
        writer.push_block(&encoder.encode(block, leaf(block)).unwrap()).unwrap();
        if writer.next_block().is_multiple_of(10) {
            writer.checkpoint().unwrap();
        }
    }
    let disk = DiskInfo::bare(geometry.len(), 512);
    writer.finish(Meta { disk, ..Meta::default() }).unwrap();
    storage.contents("a").unwrap().to_vec()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A disk with an image on it, stored as it is, and its image. The inner one has the same block
/// numbers and the same length of blocks.
fn outer() -> (Vec<u8>, Vec<u8>) {
    let inner = image_of(&noise(1, 20 * BLOCK + 700), 7, Compression::None);
    // Frames so small that many of them lie in one frame of the outer image.
    let small: Vec<u8> = (0..60).flat_map(|block| vec![block; BLOCK]).collect();
    let small = image_of(&small, 8, Compression::Lz4);
    let parts = [
        &noise(2, 5 * BLOCK)[..],
        &small,
        &inner,
        &noise(4, 512),
        &small,
        &noise(5, BLOCK),
        &small,
    ];
    let disk = parts.concat();
    let image = image_of(&disk, 1, Compression::None);
    (disk, image)
}

/// What is lost: the heads of many frames, so that what is in them is looked at; or any sectors.
fn damaged(image: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(&[seed]);
    let mut bytes = image.to_vec();
    let share = 2 + random.below(6);
    for at in (0..bytes.len() - 64).step_by(64) {
        if bytes[at..].starts_with(b"AVF1")
            && bytes[at + 8..at + 20] == [1; 12]
            && random.below(share) == 0
        {
            bytes[at..at + 64].fill(0);
        }
    }
    // Sometimes nothing is left that says whose they are, but the frames themselves.
    match random.below(4) {
        0 => bytes[..4096].fill(0),
        1 => {
            let len = bytes.len();
            bytes[..4096].fill(0);
            bytes[len - (150 << 10)..].fill(0);
        }
        2 => {
            let len = bytes.len();
            bytes.truncate(len - (100 << 10));
        }
        _ => {}
    }
    bytes
}

/// Blocks that came back and are not those of the disk.
fn made_up(salvage: &Salvage, disk: &[u8]) -> (usize, usize) {
    let mut no_base = |_: &BaseBlock, _: &mut [u8]| -> Result<u8> { Err(Error::Misuse("none")) };
    let mut reader = salvage.reader();
    let (mut wrong, mut right) = (0, 0);
    for stretch in salvage.walk(0) {
        for block in stretch.first..stretch.end() {
            let mut out = vec![0; salvage.geometry().block_len(block) as usize];
            let read = reader.read(block, &stretch.fate, &mut out, &mut no_base).unwrap();
            let truth = disk.chunks(BLOCK).nth(usize::try_from(block).unwrap());
            match read {
                Ok(_) if truth == Some(&out) => right += 1,
                Ok(_) => wrong += 1,
                Err(_) => {}
            }
        }
    }
    (wrong, right)
}

fn hints(disk: &[u8]) -> Hints {
    Hints { len: Some(disk.len() as u64), block_size: None }
}

#[test]
fn an_image_on_a_disk_is_not_taken_for_the_image_of_the_disk() {
    let (disk, image) = outer();
    let mut all = 0;
    for seed in 0..150 {
        let file = Arc::new(MemDisk::from_bytes(damaged(&image, seed)));
        let salvage = Salvage::scan(file, &Keys::none(), &hints(&disk), Job::silent()).unwrap();
        assert_eq!(salvage.identity().session, SessionTag([1; 12]), "seed {seed}");
        let (wrong, right) = made_up(&salvage, &disk);
        assert_eq!(wrong, 0, "seed {seed}: blocks of the inner image");
        all += right;
    }
    assert!(all > 2500, "{all} blocks came back");
}

#[test]
fn a_whole_image_is_stepped_through_without_a_look_into_its_frames() {
    let (_, image) = outer();
    let mut finds = Finds::new(Some((SessionTag([1; 12]), Under::Nothing)));
    let file = MemDisk::from_bytes(image);
    scan::scan(&file, &mut Openers::new(&Keys::none()), &mut finds, Job::silent()).unwrap();
    assert_eq!(finds.sessions.len(), 1);
    assert!(finds.frames.is_empty(), "all are in checkpoints");
    assert_eq!((finds.superblocks.len(), finds.trailers.len()), (2, 2));
}

/// What would happen if the session of a frame were not looked at: the test above notices.
#[test]
fn planted_frames_of_any_session_are_made_up_blocks() {
    let (disk, image) = outer();
    let mut noticed = 0;
    for seed in 0..60 {
        let file = Arc::new(MemDisk::from_bytes(damaged(&image, seed)));
        let (keys, job) = (Keys::none(), Job::silent());
        let known = whose::superblock(&*file, &keys).unwrap();
        let first = known.as_ref().map(|known| (known.superblock.session, Under::Nothing));
        let mut finds = Finds::new(first);
        let unreadable = scan::scan(&*file, &mut Openers::new(&keys), &mut finds, job).unwrap();
        let whose = whose::identify(&*file, &mut finds, known, &keys, job).unwrap();
        let ours = Sessions(vec![true; finds.sessions.len()]);
        let whose = Whose { ours, ..whose };
        let salvage = Salvage::of(file, whose, finds, &hints(&disk), unreadable, job);
        let Ok(salvage) = salvage else { continue };
        noticed += usize::from(made_up(&salvage, &disk).0 > 0);
    }
    assert!(noticed > 3, "{noticed} of 60");
}

#[test]
fn the_fate_of_one_block_is_that_of_the_walk() {
    let (disk, image) = outer();
    let file = Arc::new(MemDisk::from_bytes(damaged(&image, 3)));
    let salvage = Salvage::scan(file, &Keys::none(), &hints(&disk), Job::silent()).unwrap();
    let mut decided = 0;
    for stretch in salvage.walk(0) {
        for block in stretch.first..stretch.end() {
            let fate = salvage.fate(block);
            match (stretch.fate, fate) {
                (Fate::Decided(by, a), Fate::Decided(other, b)) => {
                    assert_eq!((by, a.address), (other, b.address));
                    decided += 1;
                }
                (a, b) => assert_eq!(a, b),
            }
        }
    }
    assert!(decided > 10);
}
