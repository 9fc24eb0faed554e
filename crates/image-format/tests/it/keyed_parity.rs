//! Parity over the pieces of images with a key: over what is stored, so that nobody needs the key
//! to prove it or to repair by it.

use std::sync::Arc;

use aiv_image_format::{
    Depth, Encoder, Features, ImageWriter, KeySlots, Keys, Mode, Seal, hash::leaf,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::areas::{Areas, PAGE, PARITY, number};
use crate::damage::for_each;
use crate::naive_parity;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise, open, open_with};
use crate::repairs::{assert_repaired, disk, repair_of, repair_with, with_burst};
use crate::round_trip::check;
use crate::sealed::{area, key, sealed, seals, slots};

const PIECE: usize = 64 << 10;
const STRIPE: usize = 128 * PIECE;
const SLOTS: usize = 32 << 10;

/// Every kind of block, with parity.
fn small(seal: Option<Seal>) -> Recipe {
    Recipe { features: Features::PARITY, seal, ..sealed() }
}

fn with_slots(mode: Mode) -> Option<Seal> {
    Some(Seal { mode, slots: Some(slots()), ..Seal::new(key(), 0x5a17_5a17) })
}

/// Noise of so many MiB in blocks of 256 KiB.
fn large(mib: u64, seal: Option<Seal>) -> Arc<Vec<u8>> {
    let blocks: Vec<_> = (0..mib * 4).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    Recipe { block_size: 256 << 10, seal, features: Features::PARITY, ..Recipe::new(&blocks) }
        .build()
}

/// `bytes` with other key slots in both places.
fn with_other_slots(bytes: &[u8], slots: &[u8]) -> Vec<u8> {
    let (areas, mut other) = (Areas::of(bytes), bytes.to_vec());
    for at in [areas.slots.start, areas.gap.start] {
        other[at..at + SLOTS].copy_from_slice(slots);
    }
    other
}

fn is_sound(bytes: &[u8], keys: &Keys) -> bool {
    let image = open_with(&Arc::new(bytes.to_vec()), keys).unwrap();
    image.verify(Depth::Data, Job::silent()).unwrap().is_sound()
}

#[test]
fn parity_and_every_sort_of_key_go_together() {
    for seal in seals() {
        check(&small(seal));
    }
}

#[test]
fn parity_is_that_of_the_stored_bytes_with_zeros_for_the_key_slots() {
    for bytes in seals()
        .into_iter()
        .map(|seal| small(seal).build())
        .chain([large(9, with_slots(Mode::Sealed))])
    {
        let areas = Areas::of(&bytes);
        let mut stored = bytes.to_vec();
        stored[areas.slots.clone()].fill(0);
        let end = areas.index.start - 266_240;
        let frames: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
        assert_eq!(frames.len(), end.div_ceil(STRIPE));
        for (stripe, frame) in frames.iter().enumerate() {
            assert_eq!(number(&bytes, frame.header.start + 32), stripe);
            assert_eq!(bytes[frame.header.start + 20..][..4], [0; 4], "it is not sealed");
            let from = stripe * STRIPE;
            let pieces: Vec<&[u8]> = stored[from..(from + STRIPE).min(end)].chunks(PIECE).collect();
            let parity = naive_parity::parity(&pieces, PIECE);
            assert!(bytes[frame.payload.clone()][..4 * PIECE] == parity, "stripe {stripe}");
        }
    }
}

#[test]
fn a_burst_of_192_kib_anywhere_is_repaired_without_the_key() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let good = small(with_slots(mode)).build();
        for at in (0..good.len()).step_by(29_000) {
            let damaged = with_burst(&good, at, 192 << 10);
            assert_repaired(&good, &damaged, &format!("{mode:?}, burst at {at}"));
        }
    }
}

#[test]
fn a_burst_at_the_borders_of_stripes_is_repaired_and_the_last_frame_is_made_anew() {
    let good = large(17, with_slots(Mode::Sealed));
    let areas = Areas::of(&good);
    let frames_end = areas.index.start;
    let frames: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
    let places = [
        0,
        STRIPE - 100_000,
        frames[0].header.start - 3000,
        2 * STRIPE - 65_536,
        frames_end - 266_240,
        frames_end - 190_000,
        good.len() - (330 << 10),
    ];
    for at in places {
        assert_repaired(&good, &with_burst(&good, at, 192 << 10), &format!("burst at {at}"));
    }
    // Four pieces of every stripe, with the header of the parity of the one before.
    let mut damaged = good.to_vec();
    for (stripe, frame) in frames.iter().enumerate() {
        [3, 50, 77].into_iter().for_each(|piece| {
            if let Some(byte) = damaged.get_mut(stripe * STRIPE + piece * PIECE + 9) {
                *byte ^= 1;
            }
        });
        damaged[frame.header.start] ^= 1;
    }
    let report = assert_repaired(&good, &damaged, "a chain of stripes");
    assert!(report.pieces_by_parity > 8, "{report:?}");
}

#[test]
fn key_slots_that_were_changed_since_are_no_damage_and_are_kept_by_a_repair() {
    let written = small(with_slots(Mode::Sealed)).build();
    let good = with_other_slots(&written, &area(2).to_bytes());
    for keys in [Keys::none(), Keys::of(key())] {
        assert!(is_sound(&good, &keys));
        // The piece the slots lie in is found again by parity, and they by what is in the file.
        let at = Areas::of(&good).slots.end + 500;
        let damaged = with_burst(&good, at, 9000);
        let (report, repaired) = repair_with(disk(&damaged), Vec::new(), &keys).unwrap();
        assert!(*repaired.expect("one piece") == good);
        assert_eq!((report.pieces_by_parity, report.key_slots), (1, KeySlots::Sound));
        // Another piece of the stripe, while the first one counts with zeros.
        let damaged = with_burst(&good, 3 * PIECE, PIECE);
        let (_, repaired) = repair_with(disk(&damaged), Vec::new(), &keys).unwrap();
        assert!(*repaired.expect("one piece") == good);
        // Superblock, slots and all that follows: the slots come from their second copy.
        let damaged = with_burst(&good, 0, 3 * PIECE);
        let (report, repaired) = repair_with(disk(&damaged), Vec::new(), &keys).unwrap();
        assert!(*repaired.expect("three pieces") == good);
        assert_eq!(report.key_slots, KeySlots::Copied);
    }
}

#[test]
fn what_stays_lost_of_a_sealed_image_is_named_with_the_key() {
    let good = large(2, with_slots(Mode::Sealed));
    let mut damaged = good.to_vec();
    (0..5).for_each(|piece| damaged[(piece + 1) * PIECE - 9] ^= 1);
    let (report, repaired) = repair_of(disk(&damaged), Vec::new()).unwrap();
    assert!(repaired.is_none() && report.pieces_lost == 5 && report.lost_blocks.is_empty());
    let (report, repaired) = repair_with(disk(&damaged), Vec::new(), &Keys::of(key())).unwrap();
    assert!(repaired.is_none() && report.pieces_lost == 5);
    assert_eq!(report.lost_blocks, [(0, 2)]);
    let (_, repaired) = repair_of(disk(&damaged), vec![disk(&good)]).unwrap();
    assert!(*repaired.unwrap() == *good);
}

#[test]
fn a_flipped_bit_anywhere_is_found_with_and_without_the_key_and_repaired() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let good = small(with_slots(mode)).build();
        let areas = Areas::of(&good);
        let parity = areas.frames.iter().find(|frame| frame.kind == PARITY).unwrap();
        let records: Vec<usize> = [&areas.superblock, &parity.header, &areas.first_trailer]
            .into_iter()
            .chain([&areas.superblock_copy, &areas.last_trailer])
            .flat_map(|area| area.clone().step_by(163))
            .collect();
        let tried: Vec<usize> = (0..good.len()).step_by(9001).chain(records).collect();
        for_each(
            0..tried.len(),
            || (),
            |(), n| {
                let (byte, bit) = (tried[n], u32::try_from(tried[n] % 8).unwrap());
                for keys in [Keys::none(), Keys::of(key())] {
                    let file = Arc::new(Patched::new(&good).flipped(byte, bit));
                    let is_found = match aiv_image_format::Image::open_with(file, &keys) {
                        Ok(image) => !image.verify(Depth::Data, Job::silent()).unwrap().is_sound(),
                        Err(_) => true,
                    };
                    assert!(is_found, "{mode:?}, bit {bit} of byte {byte}");
                }
                if n.is_multiple_of(9) {
                    let mut damaged = good.to_vec();
                    damaged[byte] ^= 1 << bit;
                    assert_repaired(&good, &damaged, &format!("bit {bit} of byte {byte}"));
                }
            },
        );
    }
}

#[test]
fn parity_that_somebody_without_the_key_made_fit_is_noticed_with_it() {
    let good = small(with_slots(Mode::Sealed)).build();
    let areas = Areas::of(&good);
    let parity = areas.frames.iter().find(|frame| frame.kind == PARITY).unwrap();
    let changed = noise(1, 100);
    let forged = crate::forge::Forgery::of(&good).at(parity.payload.start, &changed);
    let forged = forged.seal_without_key();
    let error = open_with(&forged, &Keys::of(key())).err().unwrap().to_string();
    assert!(error.contains("forged"), "{error}");
    // Without the key it is noticed as parity of other pieces.
    let found = open(&forged).unwrap().verify(Depth::Data, Job::silent()).unwrap();
    assert!(found.damage.iter().any(|d| d.to_string().contains("PARITY frame")), "{found:?}");
}

#[test]
fn threads_that_seal_change_no_parity() {
    let recipe = |seal| Recipe { block_size: 64 << 10, ..small(seal) };
    let blocks = 140u64;
    let write = |pool: Option<usize>| {
        let recipe = recipe(with_slots(Mode::Sealed));
        let len = blocks * (64 << 10);
        let size = recipe.geometry().block_size();
        let geometry = aiv_image_format::Geometry::new(len, size, 512).unwrap();
        let superblock = aiv_image_format::Superblock { geometry, ..recipe.superblock() };
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        let mut writer = ImageWriter::create_with(file, superblock, recipe.seal.clone()).unwrap();
        if let Some(threads) = pool {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            writer.seal_in(Arc::new(pool));
        }
        let mut encoder = Encoder::new(aiv_image_format::Compression::None, false);
        for block in 0..blocks {
            let bytes = noise(block, 64 << 10);
            writer.push_block(&encoder.encode(&bytes, leaf(&bytes)).unwrap()).unwrap();
        }
        let disk = aiv_image_format::meta::DiskInfo::bare(len, 512);
        let meta = aiv_image_format::meta::Meta { disk, ..Default::default() };
        writer.finish(meta).unwrap();
        storage.contents("image").unwrap()
    };
    let alone = write(None);
    let frames = Areas::of(&alone).frames;
    assert_eq!(frames.iter().filter(|frame| frame.kind == PARITY).count(), 2);
    for threads in [1, 3] {
        assert!(write(Some(threads)) == alone, "{threads} threads");
    }
    assert!(is_sound(&alone, &Keys::of(key())) && is_sound(&alone, &Keys::none()));
    assert_eq!(Areas::of(&alone).slots.start, PAGE);
}
