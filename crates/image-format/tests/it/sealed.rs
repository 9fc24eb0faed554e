//! Sealed and authenticated images: what is in them, and what is shown without a key.

use std::sync::Arc;

use aiv_image_format::hash::leaf;
use aiv_image_format::{
    ChainKey, Compression, Depth, Error, Image, ImageWriter, Keys, Mode, RunKind, Scratch, Seal,
    dump,
};
use aiv_keys::{KeyArea, KeyFile, NewSlot, Way};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise, open, open_with, read_all};
use crate::round_trip::{check, check_dump};

pub(crate) fn key() -> ChainKey {
    ChainKey::new(*b"a chain key of thirty-two bytes.")
}

/// A key-slot area with one key file, the same every time.
pub(crate) fn slots() -> Box<[u8]> {
    area(1).to_bytes().into_boxed_slice()
}

/// As [`slots`], after so many changes.
pub(crate) fn area(generation: u64) -> KeyArea {
    let file = KeyFile::new(&[0x42; 64]).unwrap();
    let random = [9; NewSlot::RANDOM];
    let new = NewSlot {
        way: Way::KeyFile(&file),
        label: "a key file",
        created_unix_ms: 1_790_000_000_000,
        random: &random,
    };
    let first = KeyArea::new(&key(), &new).unwrap();
    (1..generation).fold(first, |area, _| area.change(&key(), 1, &new).unwrap())
}

/// Every way an image can be written with regard to keys.
pub(crate) fn seals() -> Vec<Option<Seal>> {
    let sealed = Seal::new(key(), 0x5a17_5a17);
    let with_slots = Seal { slots: Some(slots()), ..sealed.clone() };
    vec![
        None,
        Some(Seal { mode: Mode::Authenticated, ..sealed.clone() }),
        Some(Seal { mode: Mode::Authenticated, ..with_slots.clone() }),
        Some(Seal { padding: true, ..with_slots.clone() }),
        Some(Seal { padding: true, ..sealed.clone() }),
        Some(with_slots),
        Some(sealed),
    ]
}

/// A sealed image with key slots: every kind of block, several checkpoints.
pub(crate) fn sealed() -> Recipe {
    Recipe {
        short_by: 5000,
        checkpoint_every: 4,
        seal: seals().pop().flatten().map(|seal| Seal { slots: Some(slots()), ..seal }),
        ..Recipe::new(&[
            (Block::Data(Fill::Noise(1)), 1),
            (Block::Zero, 3),
            (Block::Data(Fill::Words(2)), 1),
            (Block::Unused, 130),
            (Block::Ref(1), 1),
            (Block::Excluded, 2),
            (Block::PartlyUnreadable(Fill::Words(3)), 1),
            (Block::Unreadable, 1),
            (Block::Data(Fill::Words(4)), 1),
        ])
    }
}

#[test]
fn every_codec_gives_back_what_was_written_in_every_mode() {
    for seal in seals() {
        for compression in
            [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)]
        {
            check(&Recipe { seal: seal.clone(), compression, ..sealed() });
        }
    }
}

#[test]
fn an_index_of_several_levels_is_sealed_too() {
    let mut blocks = vec![(Block::Data(Fill::Words(6)), 1)];
    blocks
        .extend((0..60).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 2), (Block::Excluded, 1)]));
    blocks.push((Block::Data(Fill::Words(7)), 1));
    check(&Recipe { checkpoint_every: 70, seal: sealed().seal, ..Recipe::new(&blocks) });
}

#[test]
fn large_frames_are_sealed_too() {
    let blocks = [(Block::Data(Fill::Noise(1)), 1), (Block::Data(Fill::Words(2)), 2)];
    for seal in seals() {
        check(&Recipe { block_size: 4 << 20, seal, ..Recipe::new(&blocks) });
    }
}

/// Whether `part` is somewhere in `bytes`.
fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_sealed_image_shows_no_block_no_name_and_no_hash() {
    let recipe = Recipe { compression: Compression::None, ..sealed() };
    let sealed = recipe.build();
    let clear = Recipe { seal: None, ..recipe.clone() }.build();
    let image = open(&clear).unwrap();
    let roots = image.roots().unwrap();
    let mut secrets = vec![
        recipe.meta().manifest.host.into_bytes(),
        recipe.meta().manifest.name.into_bytes(),
        recipe.meta().disk.model.into_bytes(),
        roots.content.0.to_vec(),
        roots.map.0.to_vec(),
        roots.state.0.to_vec(),
        b"sector ".to_vec(),
        b"!AIV-UNREADABLE!".to_vec(),
    ];
    for entry in image.entries(0).map(Result::unwrap).filter(|entry| entry.has_leaf()) {
        secrets.push(entry.leaf.0[..8].to_vec());
    }
    let first = recipe.expected()[0].bytes[100..132].to_vec();
    secrets.push(first);
    for secret in secrets.iter().filter(|secret| secret.len() > 4) {
        assert!(holds(&clear, secret), "{secret:02x?} tells nothing");
        assert!(!holds(&sealed, secret), "{:?}", String::from_utf8_lossy(secret));
    }
    assert!(!holds(&sealed, key().expose()));
}

#[test]
fn frames_of_one_session_never_share_a_nonce() {
    let bytes = sealed().build();
    let areas = crate::areas::Areas::of(&bytes);
    let sealed = areas.frames.iter().chain(&areas.sections).filter(|frame| frame.kind < 5);
    let mut nonces: Vec<&[u8]> = sealed.map(|f| &bytes[f.header.start + 8..][..24]).collect();
    let count = nonces.len();
    assert!(count > 8);
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), count);
}

#[test]
fn a_locked_image_tells_what_it_is_and_nothing_of_what_it_holds() {
    let recipe = sealed();
    let bytes = recipe.build();
    let image = open(&bytes).unwrap();
    assert!(image.is_locked() && !image.is_authentic() && !image.has_meta());
    assert_eq!(*image.superblock(), recipe.superblock());
    assert_eq!(image.roots(), None);
    let locked = |error: Error| {
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("locked"), "{message}");
        let prefix = &recipe.superblock().key_commitment.to_string()[..8];
        assert!(message.contains(prefix), "{message}");
    };
    locked(image.entry(0).unwrap_err());
    locked(image.entries(0).next().unwrap().unwrap_err());
    locked(image.groups().next().unwrap().unwrap_err());
    locked(image.block_reader().read(0, &mut vec![0; 16 << 10]).unwrap_err());
    let entry = recipe.open().entry(0).unwrap().unwrap();
    let mut out = vec![0; 16 << 10];
    let read = image.read_entry(&mut Scratch::default(), &entry, 0, 8, &mut out, &mut |_, _| Ok(0));
    locked(read.unwrap_err());
    assert!(out.iter().all(|&byte| byte == 0));
}

#[test]
fn every_stored_byte_of_a_locked_image_is_proven() {
    for seal in seals().into_iter().flatten() {
        let is_sealed = seal.mode == Mode::Sealed;
        let recipe = Recipe { seal: Some(seal), ..sealed() };
        let image = open(&recipe.build()).unwrap();
        let report = image.verify(Depth::Data, Job::silent()).unwrap();
        assert_eq!((report.is_sound(), report.locked), (true, is_sealed));
        assert_eq!(report.bytes_checked, image.trailer().stored_offset);
        assert_eq!(report.blocks_checked == 0, is_sealed);
        let report = recipe.open().verify(Depth::Data, Job::silent()).unwrap();
        assert!(report.is_sound() && !report.locked && report.blocks_checked > 0);
    }
}

#[test]
fn a_dump_accounts_for_every_byte_of_a_locked_image_too() {
    let bytes = sealed().build();
    let text = check_dump(&open(&bytes).unwrap(), bytes.len() as u64);
    for part in ["locked", "DATA, sealed", "META, sealed", "CHECKPOINT, sealed", "key slots"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("leaf") && !text.contains("block 0"), "{text}");
    let text = check_dump(&sealed().open(), bytes.len() as u64);
    for part in ["key is there", "DATA block 0", "META roots", "leaf", "authentication code"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_wrong_key_is_named_as_one_and_a_ring_of_keys_finds_the_right_one() {
    let recipe = sealed();
    let bytes = recipe.build();
    let other = ChainKey::new([9; 32]);
    let error = open_with(&bytes, &Keys::of(other.clone())).err().unwrap();
    let commitment = recipe.superblock().key_commitment;
    assert!(matches!(error, Error::WrongKey { commitment: c } if c == commitment), "{error}");
    assert!(error.to_string().contains(&commitment.to_string()[..8]), "{error}");
    let mut keys = Keys::of(other);
    keys.add(key());
    assert!(open_with(&bytes, &keys).unwrap().is_authentic());
}

#[test]
fn a_reader_that_expects_a_key_refuses_an_image_without_one() {
    let plain = Recipe { seal: None, ..sealed() }.build();
    let keys = Keys::of(key());
    assert!(!open_with(&plain, &keys).unwrap().is_authentic());
    let error = open_with(&plain, &keys.clone().required()).err().unwrap();
    assert!(matches!(error, Error::NotKeyed), "{error}");
    assert!(open_with(&sealed().build(), &keys.required()).is_ok());
}

#[test]
fn key_slots_are_where_they_belong_and_may_be_rewritten() {
    let bytes = sealed().build();
    let image = open(&bytes).unwrap();
    let [first, second] = image.slot_copies().unwrap().expect("the image has key slots");
    assert!(first == slots() && second == slots());
    let [at, copy_at] = image.slot_places().map(|place| usize::try_from(place).unwrap());
    let mut changed = bytes.to_vec();
    changed[copy_at..copy_at + (32 << 10)].copy_from_slice(&area(2).to_bytes());
    for keys in [Keys::of(key()), Keys::none()] {
        let image = open_with(&Arc::new(changed.clone()), &keys).unwrap();
        let [first, second] = image.slot_copies().unwrap().unwrap();
        assert!(first == slots() && *second == *area(2).to_bytes());
        // A change that was cut off between the copies is no damage.
        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    }
    let seal = open_with(&Arc::new(changed.clone()), &Keys::of(key())).unwrap().seal(7).unwrap();
    let seal = seal.unwrap();
    assert_eq!((seal.nonce_salt, seal.mode, &seal.key), (7, Mode::Sealed, &key()));
    assert!(seal.slots.unwrap()[..] == area(2).to_bytes()[..], "the newer ones go on");
    // One damaged copy: the other one goes on, and a verification says so.
    changed[at + 2000] ^= 1;
    let image = open_with(&Arc::new(changed.clone()), &Keys::of(key())).unwrap();
    assert!(image.seal(7).unwrap().unwrap().slots.unwrap()[..] == area(2).to_bytes()[..]);
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert_eq!(report.damage[0].section, aiv_image_format::Section::KeySlots);
    // Both: nobody goes on with slots that open nothing.
    changed[copy_at + 2000] ^= 1;
    let image = open_with(&Arc::new(changed), &Keys::of(key())).unwrap();
    assert!(matches!(image.seal(7), Err(Error::Corrupt(_))));
    assert!(matches!(open(&bytes).unwrap().seal(7), Err(Error::Locked { .. })));
    assert!(Recipe { seal: None, ..sealed() }.open().seal(7).unwrap().is_none());
    assert!(Recipe { seal: None, ..sealed() }.open().slot_copies().unwrap().is_none());
}

#[test]
fn a_key_slot_area_of_another_size_is_refused() {
    let recipe = sealed();
    let slots = Some(vec![0; 4096].into_boxed_slice());
    let seal = Seal { slots, ..recipe.seal.clone().unwrap() };
    let file = MemStorage::new().create("image").unwrap();
    let created = ImageWriter::create_with(file, recipe.superblock(), Some(seal));
    assert!(matches!(created.err(), Some(Error::Misuse(_))));
    let file = MemStorage::new().create("image").unwrap();
    let keyless = ImageWriter::create(file, recipe.superblock());
    assert!(matches!(keyless.err(), Some(Error::Misuse(_))), "a sealed image needs its key");
}

#[test]
fn padding_hides_small_differences_of_size() {
    let stored = |seed: u64, padding: bool| {
        let seal = Seal { padding, ..Seal::new(key(), 1) };
        let blocks = [(Block::Data(Fill::Words(seed)), 1)];
        let recipe = Recipe { seal: Some(seal), block_size: 64 << 10, ..Recipe::new(&blocks) };
        recipe.open().trailer().totals.payload_bytes
    };
    let distinct = |padding| {
        let sizes: std::collections::BTreeSet<u64> = (0..40).map(|s| stored(s, padding)).collect();
        sizes.len()
    };
    assert!(distinct(true) * 2 < distinct(false), "{} {}", distinct(true), distinct(false));
}

#[test]
fn the_threads_of_a_pool_seal_the_same_image() {
    let write = |pool: Option<usize>| {
        let recipe = Recipe { block_size: 64 << 10, ..sealed() };
        let geometry =
            aiv_image_format::Geometry::new(150 * (64 << 10), recipe.geometry().block_size(), 512);
        let superblock =
            aiv_image_format::Superblock { geometry: geometry.unwrap(), ..recipe.superblock() };
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        let mut writer = ImageWriter::create_with(file, superblock, recipe.seal.clone()).unwrap();
        if let Some(threads) = pool {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            writer.seal_in(Arc::new(pool));
        }
        let mut encoder = aiv_image_format::Encoder::new(Compression::None, false);
        for block in 0..149 {
            let bytes = noise(block, 64 << 10);
            writer.push_block(&encoder.encode(&bytes, leaf(&bytes)).unwrap()).unwrap();
            if block % 40 == 39 {
                writer.checkpoint().unwrap();
            }
        }
        writer.push_run(RunKind::Zero, 1).unwrap();
        let disk = aiv_image_format::meta::DiskInfo::bare(150 * (64 << 10), 512);
        let meta = aiv_image_format::meta::Meta { disk, ..Default::default() };
        writer.finish(meta).unwrap();
        storage.contents("image").unwrap()
    };
    let alone = write(None);
    for threads in [1, 2, 5] {
        assert!(write(Some(threads)) == alone, "{threads} threads");
    }
    let image = open_with(&alone, &Keys::of(key())).unwrap();
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

#[test]
fn errors_and_debug_output_show_no_key() {
    let seal = Seal::new(key(), 1);
    let hex: String = key().expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = [
        format!("{seal:?}"),
        format!("{:?}", Keys::of(key())),
        format!("{:?}", open_with(&sealed().build(), &Keys::of(ChainKey::new([1; 32]))).err()),
    ];
    for text in shown {
        assert!(!text.contains(&hex) && !text.contains("thirty-two"), "{text}");
        assert!(!text.contains("[97, 32, 99"), "{text}");
    }
}

#[test]
fn damaged_meta_leaves_the_blocks_of_a_sealed_image_readable() {
    let recipe = sealed();
    let bytes = recipe.build();
    let meta = crate::areas::Areas::of(&bytes).meta.start;
    let file = Patched::new(&bytes).with(meta + 100, &[0xff; 8]);
    let image = Image::open_with(Arc::new(file), &recipe.keys()).unwrap();
    assert!(!image.has_meta() && image.roots().is_none());
    let expected: Vec<_> = recipe.expected().into_iter().map(|e| (e.kind, e.bytes)).collect();
    assert!(read_all(&image).unwrap() == expected);
    assert!(!image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
    let mut text = String::new();
    dump(&image, &mut text).unwrap();
}
