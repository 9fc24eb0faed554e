//! Differences to blocks of the same image: read, and refused where they are not what they say.

use std::sync::Arc;

use aiv_image_format::hash::leaf;
use aiv_image_format::{
    Compression, Depth, Encoder, Error, Features, Image, ImageWriter, Kind, LocalBase, RunKind,
    Scratch, Seal,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::areas::{DATA, Frame, LOCAL};
use crate::change::{Change, Increment};
use crate::forge::Forgery;
use crate::increments::noisy;
use crate::memory::peak_of;
use crate::parents::read_block;
use crate::recipe::{Block, Fill, Recipe, noise, open, open_with, read_all};
use crate::round_trip::check_dump;
use crate::sealed::key;

const BLOCK: usize = 16 << 10;

/// Blocks 0 and 1 are stored whole, 2 is zeros, 3 a repetition of 0, 4 lies across 0 and 1, 5
/// across 1 and 0.
fn recipe() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 1),
        (Block::Data(Fill::Noise(2)), 1),
        (Block::Zero, 1),
        (Block::Ref(0), 1),
        (Block::Shifted(0), 1),
        (Block::Shifted(1), 1),
    ];
    Recipe { small_meta: true, ..Recipe::new(&blocks) }
}

fn built() -> Forgery {
    Forgery::of(&recipe().build())
}

/// The frame of block 4.
fn local(forgery: &Forgery) -> Frame {
    forgery.areas.frame(LOCAL).clone()
}

/// Where the entry of a block begins.
fn entry(forgery: &Forgery, block: usize) -> usize {
    forgery.areas.index.start + 64 + block * 48
}

/// What verifying finds, which has to be what reading `block` fails with, too.
fn damage(bytes: &Arc<Vec<u8>>, block: u64) -> Vec<String> {
    let image = open(bytes).expect("frames and entries are read later");
    let report = image.verify(Depth::Data, Job::silent()).expect("memory reads");
    let said: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let read = image.block_reader().read(block, &mut vec![0; BLOCK]);
    let error = read.expect_err("not what it says").to_string();
    assert!(said.contains(&error), "verifying finds {said:?}, reading {error:?}");
    said
}

/// What is found of block 4 is this, in its frame.
#[track_caller]
fn assert_found(forgery: Forgery, wanted: &str) {
    let at = local(&forgery).header.start;
    let said = damage(&forgery.seal(), 4);
    assert_eq!(said[0], format!("the frame at byte {at} is damaged: {wanted}"));
}

/// The payload of block 4 with `value` at `at`.
fn with(at: usize, value: &[u8]) -> Forgery {
    let forgery = built();
    let place = local(&forgery).payload.start + at;
    forgery.at(place, value)
}

#[test]
fn a_shifted_block_is_a_difference_to_two_others_and_reads_as_it_was() {
    let image = recipe().open();
    let expected = recipe().expected();
    let read = read_all(&image).unwrap();
    assert_eq!(
        read[4],
        (Kind::Local, [noise(1, BLOCK), noise(2, BLOCK)].concat()[8192..24576].to_vec())
    );
    assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes));
    assert_eq!(image.trailer().totals.blocks_local, 2);
    assert_eq!(image.trailer().totals.blocks_decided(), 6);
    assert_eq!(image.superblock().features.incompat, Features::LOCAL);
    let frame = local(&built());
    assert!(frame.payload.len() < 200, "{}", frame.payload.len());
    let text = check_dump(&image, image.trailer().file_len);
    let leaf_of = |seed| leaf(&noise(seed, BLOCK));
    for wanted in [
        format!("LOCAL block 4, 16384 -> {}", frame.payload.len()),
        format!("on block 0, leaf {}", leaf_of(1)),
        format!("on block 1, leaf {}", leaf_of(2)),
        format!("block 4 LOCAL at {:#x}", frame.header.start),
        "2 local".to_owned(),
    ] {
        assert!(text.contains(&wanted), "{wanted} is not in\n{text}");
    }
}

#[test]
fn sealed_it_reads_with_the_key_and_says_nothing_without() {
    let seal = Some(Seal::new(key(), 0x0102_0304));
    let recipe = Recipe { seal, ..recipe() };
    crate::round_trip::check(&recipe);
    let bytes = recipe.build();
    let header = Forgery::of(&bytes).areas.frame(LOCAL).header.clone();
    let said = &bytes[header.start + 32..header.start + 44];
    assert_eq!((bytes[header.start + 5], said), (0, &[0; 12][..]), "codec, subject and length");
    let image = open(&bytes).unwrap();
    assert!(image.is_locked());
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let image = open_with(&bytes, &recipe.keys()).unwrap();
    assert!(check_dump(&image, bytes.len() as u64).contains("LOCAL block 4"));
}

#[test]
fn its_depth_is_one_and_a_reader_that_may_undo_none_refuses_it() {
    let image = recipe().open();
    let entry = image.entry(4).unwrap().unwrap();
    let read = |limit| {
        let none = &mut |_: &_, _: &mut [u8]| Err(Error::Misuse("there is no parent"));
        let mut out = vec![0; BLOCK];
        image.read_entry(&mut Scratch::default(), &entry, 4, limit, &mut out, none)
    };
    assert_eq!(read(1).unwrap(), 1);
    assert_eq!(read(8).unwrap(), 1);
    let error = read(0).unwrap_err().to_string();
    assert!(error.contains("differences to undo is 9, allowed is at most 8"), "{error}");
}

#[test]
fn in_an_image_with_a_parent_it_reads_without_it_and_differences_to_it_count_on() {
    let old = noisy(6);
    let first = Increment::new(&[
        (Change::New(1), 1),
        (Change::Patch(7), 1),
        (Change::New(2), 1),
        (Change::Shifted(0), 1),
    ]);
    let image = first.open(&old);
    let kinds: Vec<Kind> = image.entries(0).map(|entry| entry.unwrap().kind).collect();
    assert_eq!(kinds, [Kind::Data, Kind::Delta, Kind::Data, Kind::Local]);
    let mut out = vec![0; BLOCK];
    image.block_reader().read(3, &mut out).expect("all of it is in this image");
    assert!(out == first.state(&old).cells[3].1);
    assert_eq!(read_block(&image, None, 3, &mut out).unwrap(), 1);
    assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
    // Without its parent, too, it is proven by more than its checksum.
    let forgery = Forgery::of(&first.build(&old));
    let at = forgery.areas.frame(LOCAL).payload.start + 16;
    let image = open(&forgery.at(at, &[0xaa]).seal()).unwrap();
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    assert_eq!(report.damage[0].what(), "its base leaf and the index do not agree");
}

#[test]
fn a_base_may_be_a_repetition_or_come_twice_or_alone() {
    let recipe = recipe();
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(1), true);
    let whole = [noise(1, BLOCK), noise(2, BLOCK)];
    let places = whole
        .each_ref()
        .map(|bytes| writer.push_block(&encoder.encode(bytes, leaf(bytes)).unwrap()).unwrap());
    writer.push_ref(places[1], leaf(&whole[1])).unwrap();
    let base =
        |block: u64, of: usize| LocalBase { block, leaf: leaf(&whole[of]), bytes: &whole[of] };
    let rotated = |first: usize, second: usize, by: usize| {
        [&whole[first][by..], &whole[second][..by]].concat()
    };
    let wanted = [
        (rotated(1, 0, 4096), vec![base(2, 1), base(0, 0)]),
        (rotated(0, 0, 100), vec![base(0, 0), base(0, 0)]),
        (rotated(1, 1, 12_000), vec![base(1, 1)]),
    ];
    for (bytes, bases) in &wanted {
        let encoded = encoder.encode_local(bytes, leaf(bytes), bases).unwrap();
        assert!(encoded.is_local() && !encoded.is_whole() && !encoded.is_delta());
        writer.push_block(&encoded).unwrap();
    }
    writer.finish(recipe.meta()).unwrap();
    let image = open(&storage.contents("image").unwrap()).unwrap();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let read = read_all(&image).unwrap();
    for ((bytes, _), read) in wanted.iter().zip(&read[3..]) {
        assert!(read.0 == Kind::Local && read.1 == *bytes);
    }
    assert_eq!(read[2].0, Kind::Ref);
}

#[test]
fn blocks_of_every_size_can_lie_across_two_others() {
    for block_size in [16 << 10, 64 << 10, 1 << 20, 4 << 20] {
        let blocks = [
            (Block::Data(Fill::Noise(1)), 2),
            (Block::Data(Fill::Words(2)), 1),
            (Block::Shifted(0), 1),
            (Block::Shifted(1), 1),
        ];
        let mut codecs = vec![Compression::Zstd(1), Compression::Lz4];
        // Higher levels forget the far part of large bases.
        if block_size < 1 << 20 {
            codecs.extend([Compression::Zstd(5), Compression::Zstd(19)]);
        }
        for compression in codecs {
            let recipe = Recipe {
                block_size,
                compression,
                small_meta: true,
                short_by: 512,
                ..Recipe::new(&blocks)
            };
            let image = recipe.open();
            let read = read_all(&image).unwrap();
            let expected = recipe.expected();
            assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes));
            assert_eq!(read[4].0, Kind::Local, "the last block is shorter than its bases");
        }
    }
}

#[test]
fn a_base_that_does_not_come_before_its_block_is_refused() {
    for (place, block) in [(8, 4u64), (48, 4), (8, 5), (48, 1 << 39), (8, 1 << 40), (8, u64::MAX)] {
        let wanted = format!("base block is {block}, allowed is below the block itself");
        assert_found(with(place, &block.to_le_bytes()), &wanted);
    }
}

#[test]
fn a_base_that_the_image_does_not_store_whole_is_refused() {
    let wanted =
        |block| format!("base block is {block}, allowed is a block the image stores whole");
    assert_found(with(8, &2u64.to_le_bytes()), &wanted(2));
    // Block 5 on block 4, which is a difference itself.
    let forgery = built();
    let mut locals = forgery.areas.frames.iter().filter(|frame| frame.kind == LOCAL);
    let second = locals.next_back().unwrap().clone();
    let leaf = forgery.bytes[entry(&forgery, 4) + 16..entry(&forgery, 4) + 48].to_vec();
    let base = [&4u64.to_le_bytes()[..], &leaf].concat();
    let forged = forgery.at(second.payload.start + 8, &base).seal();
    let at = second.header.start;
    let said = damage(&forged, 5);
    assert_eq!(said, [format!("the frame at byte {at} is damaged: {}", wanted(4))]);
}

#[test]
fn a_copy_whose_differences_have_lost_their_bases_is_found_without_decoding_any() {
    let stored = |forgery: Forgery| -> Vec<String> {
        let image = open(&forgery.seal()).unwrap();
        let report = image.verify(Depth::Stored, Job::silent()).unwrap();
        report.damage.iter().map(ToString::to_string).collect()
    };
    assert_eq!(stored(built()), [""; 0]);
    let at = local(&built()).header.start;
    for (forgery, wanted) in [
        (
            with(8, &2u64.to_le_bytes()),
            "base block is 2, allowed is a block the image stores whole",
        ),
        (with(48, &1u64.to_le_bytes()), ""),
        (with(56, &[0xaa; 32]), "its base leaf and the index do not agree"),
        (with(8, &4u64.to_le_bytes()), "base block is 4, allowed is below the block itself"),
        (with(0, &[3]), "base count is 3, allowed is 1 or 2"),
    ] {
        let found = stored(forgery);
        match wanted {
            "" => assert_eq!(found, [""; 0]),
            wanted => assert_eq!(found, [format!("the frame at byte {at} is damaged: {wanted}")]),
        }
    }
}

#[test]
fn a_base_that_is_a_difference_to_the_parent_or_is_inherited_is_refused() {
    let old = noisy(6);
    let changes =
        [(Change::New(1), 1), (Change::Patch(7), 1), (Change::Keep, 1), (Change::Shifted(0), 1)];
    let forgery = Forgery::of(&Increment::new(&changes).build(&old));
    let frame = local(&forgery);
    for block in [1u64, 2] {
        let forged = forgery.clone().at(frame.payload.start + 8, &block.to_le_bytes()).seal();
        let image = open(&forged).unwrap();
        let wanted = format!("base block is {block}, allowed is a block the image stores whole");
        let report = image.verify_on(&old, Depth::Data, Job::silent()).unwrap();
        assert_eq!(report.damage[0].what(), wanted);
        let read = read_block(&image, Some(&old), 3, &mut [0; BLOCK]).unwrap_err().to_string();
        assert!(read.ends_with(&wanted), "{read}");
    }
}

#[test]
fn a_base_with_another_leaf_is_refused() {
    assert_found(with(16, &[0xaa; 32]), "its base leaf and the index do not agree");
    assert_found(with(8, &1u64.to_le_bytes()), "its base leaf and the index do not agree");
    // Another block stored whole, with its own leaf: the result is another one.
    let forgery = built();
    let leaf = forgery.bytes[entry(&forgery, 1) + 16..entry(&forgery, 1) + 48].to_vec();
    let base = [&1u64.to_le_bytes()[..], &leaf].concat();
    assert_found(with(8, &base), "its hash differs from the one the index keeps");
}

#[test]
fn a_head_of_none_or_three_bases_or_with_reserved_bytes_is_refused() {
    for count in [0u8, 3, 255] {
        let wanted = format!("base count is {count}, allowed is 1 or 2");
        assert_found(with(0, &[count]), &wanted);
    }
    assert_found(with(1, &[1]), "reserved byte 1 is not zero");
    assert_found(with(7, &[0x80]), "reserved byte 7 is not zero");
    // The second base stands where a zstd frame would.
    assert_found(with(0, &[1]), "its compressed data does not decode to 16384 bytes");
}

/// Block 4 with a shorter payload: its frame ends where it did, with more padding.
fn with_payload(payload: &[u8]) -> Forgery {
    let mut forgery = built();
    let number = forgery.areas.frames.iter().position(|frame| frame.kind == LOCAL).unwrap();
    let frame = forgery.areas.frames[number].clone();
    let start = frame.payload.start;
    let size = (64 + payload.len()).next_multiple_of(64);
    assert_eq!(
        size,
        frame.padding.end - frame.header.start,
        "frames behind it stay where they are"
    );
    let len = u32::try_from(payload.len()).unwrap();
    forgery.areas.frames[number].payload = start..start + payload.len();
    forgery.bytes[start..frame.padding.end].fill(0);
    forgery.at(frame.header.start + 44, &len.to_le_bytes()).at(start, payload)
}

/// The payload of block 4.
fn payload() -> Vec<u8> {
    let forgery = built();
    forgery.bytes[local(&forgery).payload].to_vec()
}

#[test]
fn a_payload_that_is_cut_off_or_goes_on_is_refused() {
    let payload = payload();
    let decode = "its compressed data does not decode to 16384 bytes";
    let least = payload.len().next_multiple_of(64) - 63;
    for len in least..payload.len() {
        let wanted = if len < 88 { "it ends in the middle of an item" } else { decode };
        assert_found(with_payload(&payload[..len]), wanted);
    }
    assert_found(with_payload(&[&payload[..], &[0]].concat()), decode);
    // Within the head.
    let lens = [88, 60, 48, 20, 8, 7, 1];
    for len in lens {
        let forgery = built();
        let frame = local(&forgery);
        let mut said =
            forgery.at(frame.header.start + 44, &u32::try_from(len).unwrap().to_le_bytes());
        let number = said.areas.frames.iter().position(|frame| frame.kind == LOCAL).unwrap();
        said.areas.frames[number].payload = frame.payload.start..frame.payload.start + len;
        let units = u16::try_from((64 + len).div_ceil(64)).unwrap().to_le_bytes();
        let place = entry(&said, 4) + 14;
        let said = damage(&said.at(place, &units).seal(), 4);
        let wanted = if len < 88 { "ends in the middle of an item" } else { "does not decode" };
        assert!(said.iter().any(|said| said.contains(wanted)), "{len}: {said:?}");
    }
}

#[test]
fn two_zstd_frames_and_another_codec_are_refused() {
    let head = &payload()[..88];
    let small = zstd::bulk::compress(&[7; 500], 1).unwrap();
    let room = payload().len().next_multiple_of(64) - 88;
    let twice = small.repeat(2);
    assert!(twice.len() <= room);
    let mut filled = [head, &twice].concat();
    filled.resize(payload().len().max(filled.len()), 0);
    assert_found(with_payload(&filled), "its compressed data does not decode to 16384 bytes");
    for codec in [0u8, 1] {
        let forgery = built();
        let at = local(&forgery).header.start;
        let forged = forgery.at(at + 5, &[codec]);
        if codec == 1 {
            assert_found(forged, "codec is 1, allowed is 2 (zstd) in LOCAL frames");
        } else {
            let said = damage(&forged.seal(), 4);
            assert!(said[0].contains("allowed is the plain length"), "{said:?}");
        }
    }
}

#[test]
fn a_depth_or_a_mark_of_damage_in_its_header_is_refused() {
    let forgery = built();
    let at = local(&forgery).header.start;
    let said = damage(&forgery.clone().at(at + 7, &[1]).seal(), 4);
    assert!(said[0].contains("depth is 1, allowed is 0, or up to 8 for DATA"), "{said:?}");
    let said = damage(&forgery.at(at + 6, &[1]).seal(), 4);
    assert!(said[0].contains("flags is 1, allowed is 0, or 1 (damaged) for DATA"), "{said:?}");
}

#[test]
fn entries_and_frames_of_other_kinds_do_not_go_together() {
    let forgery = built();
    let (frame, data) = (local(&forgery), forgery.areas.frame(DATA).clone());
    // The entry says DATA, or DELTA by its bits, or the frame says DATA.
    let says = |kind: u8| forgery.clone().at(entry(&forgery, 4) + 7, &[kind << 4]);
    assert_found(says(1), "its type and the index do not agree");
    assert_found(
        forgery.clone().at(frame.header.start + 4, &[DATA]),
        "its type and the index do not agree",
    );
    // A repetition of a difference, and a difference where a block is stored whole.
    let place =
        |block| forgery.bytes[entry(&forgery, block) + 8..entry(&forgery, block) + 48].to_vec();
    let forged = forgery.clone().at(entry(&forgery, 3) + 8, &place(4)).seal();
    let said = damage(&forged, 3);
    assert!(said.iter().any(|said| said.ends_with("its type and the index do not agree")));
    let forged = forgery.clone().at(entry(&forgery, 4) + 8, &place(0)).seal();
    let at = data.header.start;
    let wanted = format!("the frame at byte {at} is damaged: its type and the index do not agree");
    assert!(damage(&forged, 4).contains(&wanted));
}

#[test]
fn an_entry_without_the_feature_bit_is_refused() {
    let image = open(&built().superblock(17, &[0]).seal()).unwrap();
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    let wanted = "entry kind is 10, allowed is a kind of its feature bits";
    assert_eq!(report.damage[0].what(), wanted);
    assert!(image.entry(4).is_err());
}

#[test]
fn a_count_that_is_not_that_of_the_entries_is_found() {
    let image = open(&built().trailer(616, &[3]).seal()).unwrap();
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert!(!report.is_sound());
}

#[test]
fn a_frame_that_promises_gigabytes_or_a_huge_window_costs_no_memory() {
    let head = &payload()[..88];
    // One RLE block of a frame with a window of 3.75 TiB, and one that says it holds 2^60 bytes.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x03, 0x00, 0x02, 0x00];
    let size = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x03, 0x00, 0x02, 0x00];
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    for frame in [&window[..], &size, &bomb[..bomb.len().min(30)]] {
        let mut filled = [head, frame].concat();
        filled.resize(payload().len().max(filled.len()), 0);
        filled.truncate(payload().len().next_multiple_of(64));
        let forged = with_payload(&filled).seal();
        let (said, peak) = peak_of(|| damage(&forged, 4));
        assert!(said[0].contains("does not decode to 16384 bytes"), "{said:?}");
        assert!(peak < 32 << 20, "{peak} bytes");
    }
}

#[test]
fn a_damaged_base_costs_what_builds_on_it_and_nothing_else() {
    let forgery = built();
    let place = forgery.areas.frame(DATA).payload.start + 100;
    let bytes = Arc::new(forgery.bytes.clone());
    let file = crate::patched::Patched::new(&bytes).flipped(place, 3);
    let image = Image::open(Arc::new(file)).unwrap();
    let mut reader = image.block_reader();
    let fails = |block: u64| reader.read(block, &mut [0; BLOCK]).is_err();
    let failed: Vec<bool> = (0..6).map(fails).collect();
    assert_eq!(failed, [true, false, false, true, true, true]);
    assert!(!image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
}

/// A writer of an image like that of the recipe, whose first two blocks and the zeros are written.
fn begun(storage: &MemStorage, features: u64) -> ImageWriter<'_> {
    let mut superblock = recipe().superblock();
    superblock.features.incompat = features;
    let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(1), true);
    for seed in [1, 2] {
        let bytes = noise(seed, BLOCK);
        writer.push_block(&encoder.encode(&bytes, leaf(&bytes)).unwrap()).unwrap();
    }
    writer.push_run(RunKind::Zero, 1).unwrap();
    writer
}

#[test]
fn a_writer_refuses_bases_that_it_knows_to_be_wrong() {
    let (first, second) = (noise(1, BLOCK), noise(2, BLOCK));
    let bytes = [&first[8192..], &second[..8192]].concat();
    let local = |block: u64, base_leaf| {
        let bases = [
            LocalBase { block, leaf: base_leaf, bytes: &first },
            LocalBase { block: 1, leaf: leaf(&second), bytes: &second },
        ];
        Encoder::new(Compression::Zstd(1), true).encode_local(&bytes, leaf(&bytes), &bases).unwrap()
    };
    let right = local(0, leaf(&first));
    assert!(right.is_local());
    let storage = MemStorage::new();
    assert!(begun(&storage, Features::LOCAL).push_block(&right).is_ok());
    for (features, wrong, why) in [
        (0, right.clone(), "announce"),
        (Features::PARITY, right.clone(), "announce"),
        (Features::LOCAL, local(0, leaf(&second)), "store whole"),
        (Features::LOCAL, local(1, leaf(&first)), "store whole"),
        (Features::LOCAL, local(2, leaf(&first)), "store whole"),
        (Features::LOCAL, local(3, leaf(&first)), "come before"),
        (Features::LOCAL, local(9, leaf(&first)), "come before"),
    ] {
        let storage = MemStorage::new();
        let error = begun(&storage, features).push_block(&wrong).expect_err("refused");
        assert!(matches!(&error, Error::Misuse(said) if said.contains(why)), "{error}");
    }
    let storage = MemStorage::new();
    assert!(begun(&storage, Features::LOCAL).push_damaged_block(&right).is_err());
}

#[test]
fn an_encoder_refuses_three_bases_and_takes_none_that_are_shorter_than_the_block() {
    let whole = noise(1, BLOCK);
    let mut encoder = Encoder::new(Compression::Zstd(1), true);
    let base = LocalBase { block: 0, leaf: leaf(&whole), bytes: &whole };
    let short = LocalBase { bytes: &whole[..BLOCK - 1], ..base };
    let mut encode = |bases: &[LocalBase<'_>]| encoder.encode_local(&whole, leaf(&whole), bases);
    assert!(encode(&[base]).unwrap().is_local());
    assert!(matches!(encode(&[base; 3]), Err(Error::Misuse(_))));
    for bases in [&[][..], &[short], &[base, short], &[short, base]] {
        assert!(encode(bases).unwrap().is_whole());
    }
}
