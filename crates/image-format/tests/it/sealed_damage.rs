//! What damage and forgery do to sealed and authenticated images: everything is found, and what
//! proves it does not need the key unless somebody took pains.

use std::sync::Arc;

use aiv_image_format::{Depth, Error, Image, Keys, Mode, Seal, SessionTag};
use aiv_volume_io::Job;

use crate::areas::{Areas, DATA, PAGE};
use crate::damage::{Truth, bits_of, sweep_with};
use crate::forge::Forgery;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, open, open_with, read_all};
use crate::sealed::{key, sealed, seals};

/// A sealed image of a few blocks.
fn small() -> Recipe {
    Recipe {
        small_meta: true,
        seal: seals().pop().flatten(),
        ..Recipe::new(&[(Block::Data(Fill::Words(1)), 1), (Block::Unused, 2), (Block::Zero, 1)])
    }
}

fn truth(recipe: &Recipe) -> Truth {
    recipe.expected().into_iter().map(|e| (e.kind, e.bytes)).collect()
}

/// What is encrypted is noise: one bit of each of its bytes is as good as another.
fn sweep(recipe: &Recipe, keys: &Keys, blocks: &[u64]) {
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let frames: Vec<_> = areas.frames.iter().chain(&areas.sections).collect();
    let is_noise = |byte: usize| {
        let in_page = (areas.index.start..areas.meta.start).contains(&byte) && byte % PAGE >= 64;
        in_page || frames.iter().any(|frame| frame.payload.contains(&byte))
    };
    sweep_with(&bytes, keys, &truth(recipe), blocks, |byte| {
        let here = byte..byte + usize::from(is_noise(byte));
        bits_of(&bytes, &areas, &here, byte)
    });
}

#[test]
fn every_flipped_bit_of_a_sealed_image_is_found_with_its_key() {
    sweep(&small(), &Keys::of(key()), &[0, 2]);
}

#[test]
fn every_flipped_bit_of_a_sealed_image_is_found_without_its_key_too() {
    sweep(&small(), &Keys::none(), &[]);
}

#[test]
fn every_flipped_bit_of_an_authenticated_image_is_found() {
    let seal = Seal { mode: Mode::Authenticated, ..small().seal.unwrap() };
    let recipe = Recipe { seal: Some(seal), ..small() };
    sweep(&recipe, &Keys::of(key()), &[0, 2]);
}

/// Makes every checksum and hash right that can be made right without the key.
fn forged(forgery: Forgery) -> Arc<Vec<u8>> {
    forgery.seal_without_key()
}

/// Whether an image with this content is noticed with the key before a block is read wrong.
#[track_caller]
fn found(bytes: &Arc<Vec<u8>>, recipe: &Recipe) -> String {
    match open_with(bytes, &Keys::of(key()).required()) {
        Err(error) => error.to_string(),
        Ok(image) => {
            let mut reader = image.block_reader();
            for (block, (kind, cell)) in (0..).zip(truth(recipe)) {
                let mut out = vec![0; cell.len()];
                if let Ok(read) = reader.read(block, &mut out) {
                    assert!((read, &out) == (kind, &cell), "block {block} reads as other bytes");
                }
            }
            let report = image.verify(Depth::Data, Job::silent()).unwrap();
            assert!(!report.is_sound(), "nobody noticed");
            report.damage.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
    }
}

#[test]
fn a_forged_trailer_is_refused_with_the_key_and_cannot_be_told_without() {
    for seal in [small().seal, seals()[1].clone()] {
        let recipe = Recipe { seal, ..small() };
        let bytes = recipe.build();
        // The block counts: everything that has no secret is made right again.
        let changed = forged(Forgery::of(&bytes).trailer(440, &[9]));
        let error = open_with(&changed, &Keys::of(key())).err().unwrap();
        assert!(matches!(error, Error::Forged { .. }), "{error}");
        assert!(error.to_string().contains("forged or damaged"), "{error}");
        assert!(open(&changed).is_ok(), "without the key only the stored bytes are proven");
    }
}

/// What nobody but META compares with the superblock is not left to META, which may be damaged.
#[test]
fn a_superblock_forged_to_a_shorter_disk_beside_damaged_meta_is_refused_with_the_key() {
    let blocks: Vec<_> = (0..50).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]).collect();
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let seal = small().seal.map(|seal| Seal { mode, ..seal });
        let bytes = Recipe { small_meta: true, seal, ..Recipe::new(&blocks) }.build();
        let areas = Areas::of(&bytes);
        assert_eq!(areas.leaf_pages, 2, "a border between pages to cut at");
        let meta = areas.meta.start + 100;
        let cut = Forgery::of(&bytes)
            .superblock(160, &(84u64 * (16 << 10)).to_le_bytes())
            .at(meta, &[bytes[meta] ^ 1])
            .seal_superblocks_only();
        let error = open_with(&cut, &Keys::of(key())).err().unwrap();
        assert!(matches!(error, Error::Forged { .. }), "{mode:?}: {error}");
        // Of one forged copy, too, as soon as it is the one that counts.
        let first = areas.superblock.start + 192;
        let other = Forgery::of(&bytes).at(first, b"another").seal_superblocks_only();
        let error = open_with(&other, &Keys::of(key())).err().unwrap();
        assert!(matches!(error, Error::Forged { .. }), "{mode:?}: {error}");
        let mut other = other.to_vec();
        other.copy_within(areas.superblock.clone(), areas.superblock_copy.start);
        other[areas.superblock].fill(0);
        let error = open_with(&Arc::new(other), &Keys::of(key())).err().unwrap();
        assert!(matches!(error, Error::Forged { .. }), "{mode:?}: {error}");
    }
}

#[test]
fn a_damaged_superblock_beside_a_sound_copy_opens_with_the_key() {
    let recipe = small();
    let mut bytes = recipe.build().to_vec();
    bytes[170] ^= 1;
    let image = open_with(&Arc::new(bytes), &Keys::of(key())).unwrap();
    assert_eq!(image.damage().len(), 1);
    assert!(image.has_meta());
}

/// Rows of features are for messages only; both copies hold the same ones all the same.
#[test]
fn a_superblock_copy_with_other_bytes_of_no_meaning_is_found() {
    let bytes = small().build();
    let row = Areas::of(&bytes).superblock_copy.start + 224 + 31 * 48;
    let changed = Forgery::of(&bytes).at(row, &[3, 60, 0, 0, b'x']).seal_superblocks_only();
    let image = open_with(&changed, &Keys::of(key())).unwrap();
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].to_string().contains("superblock"), "{:?}", report.damage);
}

#[test]
fn one_trailer_forged_beside_a_true_one_is_found() {
    let recipe = small();
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let mac = areas.first_trailer.start + 512;
    let changed = Forgery::of(&bytes).at(mac, &[1; 32]).seal_trailers_only();
    let image = open_with(&changed, &Keys::of(key())).unwrap();
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert!(!report.is_sound());
    let mac = areas.last_trailer.start + 512;
    let changed = Forgery::of(&bytes).at(mac, &[1; 32]).seal_trailers_only();
    assert!(matches!(open_with(&changed, &Keys::of(key())), Err(Error::Forged { .. })));
    let changed = Forgery::of(&bytes).trailer(512, &[0; 32]).seal_trailers_only();
    let error = open(&changed).err().unwrap().to_string();
    assert!(error.contains("authentication code"), "{error}");
}

/// The data frames of an image by their places.
fn data_frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let areas = Areas::of(bytes);
    let frames = areas.frames.into_iter().filter(|frame| frame.kind == DATA);
    frames.map(|frame| frame.header.start..frame.padding.end).collect()
}

/// Three blocks whose frames have one size.
fn alike(fill: u64) -> Recipe {
    let blocks = [0, 1, 2].map(|n| (Block::Data(Fill::Noise(fill + n)), 1));
    Recipe { seal: seals().pop().flatten(), ..Recipe::new(&blocks) }
}

#[test]
fn two_frames_of_one_image_that_changed_places_are_found() {
    let recipe = alike(1);
    let bytes = recipe.build();
    let frames = data_frames(&bytes);
    let (first, second) = (bytes[frames[0].clone()].to_vec(), bytes[frames[1].clone()].to_vec());
    let forgery = Forgery::of(&bytes).at(frames[0].start, &second).at(frames[1].start, &first);
    // The trailer cannot be made right again; even with one that is taken as it was, the frames
    // are those of other blocks.
    let stale = Arc::new(forgery.bytes.clone());
    assert!(found(&stale, &recipe).contains("block number"));
    assert!(found(&forged(forgery), &recipe).contains("forged"));
}

#[test]
fn an_older_frame_of_the_same_block_in_the_place_of_the_new_one_is_found() {
    let recipe = alike(1);
    // The same session and number, other bytes: what a writer without care would have made.
    let older = alike(10).build();
    let bytes = recipe.build();
    let place = data_frames(&bytes)[0].clone();
    let old = older[data_frames(&older)[0].clone()].to_vec();
    let stale = Arc::new(Forgery::of(&bytes).at(place.start, &old).bytes);
    assert!(found(&stale, &recipe).contains("leaf hash"));
}

#[test]
fn a_frame_of_another_session_in_the_place_of_one_is_found() {
    let recipe = alike(1);
    let bytes = recipe.build();
    let other = Recipe { id: 7, ..alike(1) }.build();
    let place = data_frames(&bytes)[0].clone();
    let frame = other[data_frames(&other)[0].clone()].to_vec();
    assert_ne!(bytes[place.clone()], frame);
    let changed = Arc::new(Forgery::of(&bytes).at(place.start, &frame).bytes);
    // It holds the right bytes: only the stored list tells.
    assert!(found(&changed, &recipe).contains("stored piece"));
    // With the tag of this session it does not open.
    let session = recipe.superblock().session;
    let relabelled = Forgery::of(&bytes).at(place.start, &frame).at(place.start + 8, &session.0);
    let relabelled = relabelled.seal_frames_only();
    assert!(found(&relabelled, &recipe).contains("does not open"));
}

#[test]
fn a_frame_of_another_chain_does_not_open() {
    let recipe = alike(1);
    let bytes = recipe.build();
    let foreign = aiv_image_format::ChainKey::new([3; 32]);
    let seal = Seal { key: foreign, ..recipe.seal.clone().unwrap() };
    let other = Recipe { seal: Some(seal), ..alike(1) }.build();
    let place = data_frames(&bytes)[0].clone();
    let frame = other[data_frames(&other)[0].clone()].to_vec();
    let changed = Arc::new(Forgery::of(&bytes).at(place.start, &frame).bytes);
    assert!(found(&changed, &recipe).contains("does not open"));
}

#[test]
fn pages_that_changed_places_or_come_from_another_image_do_not_open() {
    let blocks: Vec<_> = (0..200).map(|n| (Block::Data(Fill::Words(n)), 1)).collect();
    let with = |id| Recipe { id, seal: small().seal, small_meta: true, ..Recipe::new(&blocks) };
    let (recipe, other) = (with(1), with(2));
    let (bytes, strange) = (recipe.build(), other.build());
    let index = Areas::of(&bytes).index;
    let page = |bytes: &[u8], n: usize| bytes[index.start + n * PAGE..][..PAGE].to_vec();
    let (first, second) = (page(&bytes, 0), page(&bytes, 1));
    let swapped = Patched::new(&bytes).with(index.start, &second).with(index.start + PAGE, &first);
    let image = Image::open_with(Arc::new(swapped), &recipe.keys()).unwrap();
    assert!(image.entry(0).unwrap_err().to_string().contains("page number"));

    // Made to say that it belongs there, page by page: number, image, checksum.
    let mut moved = second.clone();
    moved[8..16].copy_from_slice(&0u64.to_le_bytes());
    let mut from_other = page(&strange, 0);
    from_other[24..40].copy_from_slice(&recipe.superblock().image.0);
    for page in [moved, from_other] {
        let changed = Forgery::of(&bytes).at(index.start, &page).seal_pages_only();
        let image = open_with(&changed, &recipe.keys()).unwrap();
        let error = image.entry(0).unwrap_err().to_string();
        assert!(error.contains("does not open"), "{error}");
    }
}

#[test]
fn an_image_stripped_of_its_seal_is_refused() {
    let recipe = small();
    let bytes = recipe.build();
    let stripped = |forgery: Forgery| {
        forged(forgery.superblock(16, &[0]).superblock(1760, &[0; 32]).trailer(512, &[0; 32]))
    };
    let changed = stripped(Forgery::of(&bytes));
    assert!(matches!(open_with(&changed, &Keys::of(key()).required()), Err(Error::NotKeyed)));
    // Even who expects nothing gets no block: what is sealed is no frame of such an image.
    match open(&changed) {
        Ok(image) => assert!(read_all(&image).is_err()),
        Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
    }
    // Sealed called authenticated.
    let changed = forged(Forgery::of(&bytes).superblock(16, &[2]));
    assert!(found(&changed, &recipe).contains("forged") || open(&changed).is_err());
}

#[test]
fn an_unsealed_frame_in_a_sealed_image_is_refused() {
    let recipe = alike(1);
    let bytes = recipe.build();
    let plain = Recipe { seal: None, ..alike(1) }.build();
    let place = data_frames(&bytes)[0].clone();
    let mut frame = plain[data_frames(&plain)[0].clone()].to_vec();
    frame.resize(place.len(), 0);
    let changed = Arc::new(Forgery::of(&bytes).at(place.start, &frame).bytes);
    assert!(found(&changed, &recipe).contains("not sealed although"));
    let place = data_frames(&plain)[0].clone();
    let frame = bytes[data_frames(&bytes)[0].clone()][..place.len()].to_vec();
    let changed = Arc::new(Forgery::of(&plain).at(place.start, &frame).bytes);
    let image = open(&changed).unwrap();
    let error = image.block_reader().read(0, &mut vec![0; 16 << 10]).unwrap_err().to_string();
    assert!(error.contains("sealed although"), "{error}");
}

#[test]
fn an_image_of_another_session_in_the_tail_of_this_one_is_refused() {
    // The trailers of a twin that differs in its session only: the index was sealed by another.
    let recipe = small();
    let bytes = recipe.build();
    let mut changed = Forgery::of(&bytes);
    let twin = SessionTag([0xee; 12]);
    changed = changed.trailer(544, &twin.0);
    assert!(matches!(open_with(&forged(changed), &recipe.keys()), Err(Error::Forged { .. })));
}

#[test]
fn every_changed_byte_of_the_key_slots_is_found_with_and_without_the_key() {
    let recipe = sealed();
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let second = areas.gap.start..areas.gap.start + 0x8000;
    let behind = second.end..second.end + 2;
    for keys in [Keys::of(key()), Keys::none()] {
        let places = areas.slots.clone().step_by(251).chain(second.clone().step_by(251));
        for at in places.chain(behind.clone()) {
            let image = Image::open_with(Arc::new(Patched::new(&bytes).flipped(at, 3)), &keys);
            let report = image.unwrap().verify(Depth::Quick, Job::silent()).unwrap();
            assert_eq!(report.damage_count, 1, "byte {at}");
            let text = report.damage[0].to_string();
            assert_eq!(text.matches("is damaged").count(), 1, "{text}");
        }
    }
}

#[test]
fn key_slots_of_another_chain_are_found() {
    let recipe = sealed();
    let bytes = recipe.build();
    let other = aiv_image_format::ChainKey::new([3; 32]);
    let file = aiv_keys::KeyFile::new(&[1; 32]).unwrap();
    let random = [1; aiv_keys::NewSlot::RANDOM];
    let way = aiv_keys::Way::KeyFile(&file);
    let new = aiv_keys::NewSlot { way, label: "", created_unix_ms: 0, random: &random };
    let foreign = aiv_keys::KeyArea::new(&other, &new).unwrap().to_bytes();
    for keys in [Keys::of(key()), Keys::none()] {
        let file = Patched::new(&bytes).with(PAGE, &foreign);
        let image = Image::open_with(Arc::new(file), &keys).unwrap();
        assert!(!image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
    }
}
