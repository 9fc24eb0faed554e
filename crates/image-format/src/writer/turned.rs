//! A bit turns over in memory between two steps of a backup, where no checksum covers it: once the
//! block was hashed, or once it was compressed. The image is made without an error, sealed over
//! the wrong bit where it is sealed, and verification finds it all the same.

use aiv_keys::{ChainKey, Keys};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, Storage};

use super::ImageWriter;
use crate::codec::{Compression, Decoder, Encoder};
use crate::hash::leaf;
use crate::ids::SessionTag;
use crate::image::Image;
use crate::layout::Superblock;
use crate::meta::{DiskInfo, Meta};
use crate::seal::Seal;
use crate::unfinished::nonces::{BLOCKS, superblock};
use crate::verify::Depth;

const BLOCK: usize = 16 << 10;

/// Images of each codec, each step, with and without a key.
const IMAGES: u64 = 8;

#[derive(Clone, Copy, PartialEq)]
enum After {
    Hashing,
    Compressing,
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
}

/// A block that compresses somewhat.
fn block(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    let half = BLOCK / 2 + random.below(BLOCK / 4);
    random.fill(&mut bytes[..half]);
    bytes
}

/// Writes an image in every block of which one bit turned over. Returns how many of these made
/// a difference, and how many damages verification tells of.
fn turned(after: After, compression: Compression, is_sealed: bool, seed: u64) -> (u64, u64) {
    let mut random = Random::new(&[seed]);
    let storage = MemStorage::new();
    let mut session = SessionTag([0; 12]);
    random.fill(&mut session.0);
    let seal = is_sealed.then(|| Seal::new(ChainKey::new([0x42; 32]), 9));
    let keys = seal.as_ref().map_or(Keys::none(), |seal| Keys::of(seal.key.clone()));
    let file = storage.create("image").unwrap();
    let superblock = Superblock { session, ..superblock() };
    let mut writer = ImageWriter::create_with(file, superblock, seal).unwrap();
    let mut encoder = Encoder::new(compression, true);
    let mut harm = 0;
    for _ in 0..BLOCKS {
        let right = block(&mut random);
        let digest = leaf(&right);
        let mut encoded = match after {
            After::Hashing => {
                let mut wrong = right.clone();
                flip(&mut wrong, &mut random);
                encoder.encode(&wrong, digest).unwrap()
            }
            After::Compressing => {
                let mut encoded = encoder.encode(&right, digest).unwrap();
                flip(&mut encoded.payload, &mut random);
                encoded
            }
        };
        let mut back = vec![0; BLOCK];
        let decoded = Decoder::new().decode(encoded.codec, &encoded.payload, &mut back);
        // A few bits of a compressed block mean nothing.
        harm += u64::from(decoded.is_err() || back != right);
        encoded.leaf = digest;
        writer.push_block(&encoded).unwrap();
    }
    let disk = DiskInfo::bare(BLOCKS * BLOCK as u64, 512);
    writer.finish(Meta { disk, ..Meta::default() }).unwrap();
    let image = Image::open_with(storage.open("image").unwrap(), &keys).unwrap();
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    (harm, report.damage_count)
}

#[test]
fn a_bit_that_turned_over_between_two_steps_is_found_by_verification() {
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd(1)];
    let mut flips = 0;
    for after in [After::Hashing, After::Compressing] {
        for compression in codecs {
            for is_sealed in [false, true] {
                for seed in 0..IMAGES {
                    let (harm, told) = turned(after, compression, is_sealed, seed);
                    assert_eq!(told, harm, "{compression:?}, sealed: {is_sealed}, seed {seed}");
                    assert!(after == After::Compressing || harm == BLOCKS);
                    flips += harm;
                }
            }
        }
    }
    assert!(flips > IMAGES * BLOCKS * 11, "{flips} of {}", IMAGES * BLOCKS * 12);
}
