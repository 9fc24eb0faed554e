//! Differences and copies of the parent's blocks that are not what they say, with every
//! checksum right.

use std::sync::Arc;

use aiv_image_format::{Depth, Error, Features, Image, Section};
use aiv_volume_io::Job;

use crate::areas::{DATA, DELTA, Frame};
use crate::change::{Change, Increment};
use crate::forge::Forgery;
use crate::increments::{BLOCK, noisy};
use crate::parents::{Files, Lie, Model, read_block};
use crate::recipe::open;

/// Block 0 is a difference, 1 a copy of block 3, 2 new, 3 a repetition of it, 4 a copy of
/// itself.
fn increment() -> Increment {
    Increment::new(&[
        (Change::Patch(5), 1),
        (Change::Moved(3), 1),
        (Change::New(2), 1),
        (Change::Repeat(0), 1),
        (Change::Moved(4), 1),
    ])
}

fn old() -> Model {
    noisy(6)
}

fn built() -> (Model, Forgery) {
    let old = old();
    let bytes = increment().build(&old);
    (old, Forgery::of(&bytes))
}

fn delta(forgery: &Forgery) -> Frame {
    forgery.areas.frame(DELTA).clone()
}

/// What verifying on `parent` finds, as section and reason; reading must fail the same way.
fn damage(bytes: &Arc<Vec<u8>>, parent: &Model, block: u64) -> Vec<String> {
    let image = open(bytes).expect("frames and entries are read later");
    let report = image.verify_on(parent, Depth::Data, Job::silent()).expect("memory reads");
    let len = image.geometry().block_len(block) as usize;
    let read = read_block(&image, Some(parent), block, &mut vec![0; len]);
    let said: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let error = read.expect_err("not what it says").to_string();
    let same = said.contains(&error);
    assert!(same, "verifying finds {said:?}, reading {error:?}");
    said
}

#[track_caller]
fn assert_found(forgery: Forgery, wanted: &str) {
    let at = delta(&forgery).header.start;
    let said = damage(&forgery.seal(), &old(), 0);
    let wanted = format!("the frame at byte {at} is damaged: {wanted}");
    assert_eq!(said[0], wanted);
}

/// The frame of block 0 with another payload of the same length.
fn with_payload(change: impl FnOnce(&mut Vec<u8>)) -> Forgery {
    let (_, forgery) = built();
    let place = delta(&forgery).payload;
    let mut payload = forgery.bytes[place.clone()].to_vec();
    change(&mut payload);
    assert!(payload.len() <= place.len(), "{} bytes for {}", payload.len(), place.len());
    let header = delta(&forgery).header.start;
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let forgery = forgery.at(header + 44, &len).at(place.start, &payload);
    resized(forgery, header, payload.len())
}

/// Seals the frame at `header` with another payload length, behind which zeros stand up to the
/// frame's old end: entries tell its new size.
fn resized(mut forgery: Forgery, header: usize, len: usize) -> Forgery {
    let number = forgery.areas.frames.iter().position(|f| f.header.start == header).unwrap();
    let old = forgery.areas.frames[number].clone();
    let size = (64 + len).next_multiple_of(64);
    forgery.areas.frames[number].payload = header + 64..header + 64 + len;
    forgery.bytes[header + 64 + len..old.padding.end].fill(0);
    let units = u16::try_from(size / 64).unwrap().to_le_bytes();
    let index = forgery.areas.index.start + 64;
    forgery.at(index + 14, &units)
}

#[test]
fn what_is_not_forged_is_sound() {
    let (old, forgery) = built();
    let kinds: Vec<u8> = forgery.areas.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [DELTA, DATA, 3, 6]);
    let image = open(&forgery.seal()).unwrap();
    assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
    let image = open(&with_payload(|_| ()).seal()).unwrap();
    assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_base_that_is_a_deeper_difference_than_the_frame_says_will_do_and_counts() {
    let (old, forgery) = built();
    let bytes = forgery.seal();
    let image = open(&bytes).unwrap();
    for depth in [1, 7, 8, 255] {
        let deeper = old.lying(Lie::Depth(depth));
        assert!(image.verify_on(&deeper, Depth::Data, Job::silent()).unwrap().is_sound());
        let read = read_block(&image, Some(&deeper), 0, &mut [0; 16 << 10]);
        assert_eq!(read.unwrap(), depth.saturating_add(1));
    }
}

#[test]
fn a_base_that_is_less_deep_than_the_frame_says_will_do_and_what_it_says_goes_on_to_count() {
    let old = old();
    for depth in [1, 2, 8] {
        let forged = with_payload(|payload| payload[40] = depth).seal();
        let image = open(&forged).unwrap();
        assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
        assert_eq!(read_block(&image, Some(&old), 0, &mut [0; 16 << 10]).unwrap(), depth);
    }
}

#[test]
fn a_depth_of_zero_and_one_above_eight_are_refused() {
    for depth in [0, 9, 255] {
        let wanted = format!("delta depth is {depth}, allowed is 1 to 8");
        assert_found(with_payload(|payload| payload[40] = depth), &wanted);
    }
}

#[test]
fn a_reserved_byte_of_the_head_is_refused() {
    for at in 41..48 {
        let wanted = format!("reserved byte {at} is not zero");
        assert_found(with_payload(|payload| payload[at] = 1), &wanted);
    }
}

#[test]
fn a_payload_shorter_than_the_head_is_refused() {
    for len in [0, 1, 47] {
        let wanted = "it ends in the middle of an item";
        let forgery = with_payload(|payload| payload.truncate(len));
        if len == 0 {
            // No entry can say it: a frame has a payload.
            let image = open(&forgery.seal()).unwrap();
            assert!(image.entry(0).is_err());
            continue;
        }
        assert_found(forgery, wanted);
    }
    assert_found(
        with_payload(|payload| payload.truncate(48)),
        "its compressed data does not decode to 16384 bytes",
    );
}

#[test]
fn a_base_that_does_not_exist_is_refused() {
    for base in [6, 1 << 39] {
        let forged = with_payload(|p| p[..8].copy_from_slice(&u64::to_le_bytes(base)));
        let image = open(&forged.seal()).unwrap();
        let report = image.verify_on(&old(), Depth::Data, Job::silent()).unwrap();
        let wanted = format!("base block is {base}, allowed is of equal length in the parent");
        assert_eq!(report.damage[0].what(), wanted);
    }
    let forged = with_payload(|p| p[..8].copy_from_slice(&u64::to_le_bytes(1 << 40)));
    assert_found(forged, &format!("base block is {}, allowed is below 2^40", 1u64 << 40));
}

#[test]
fn a_base_of_another_length_is_refused() {
    let old = crate::increments::state(&[(Change::New(1), 6)], 6 * BLOCK - 100);
    let bytes = increment().build(&old);
    let forgery = Forgery::of(&bytes);
    let head = delta(&forgery).payload.start;
    let image = open(&forgery.at(head, &[5]).seal()).unwrap();
    let report = image.verify_on(&old, Depth::Data, Job::silent()).unwrap();
    let wanted = "base block is 5, allowed is of equal length in the parent";
    assert_eq!(report.damage[0].what(), wanted);
}

#[test]
fn a_base_whose_leaf_is_not_the_one_the_frame_names_is_refused() {
    let forged = with_payload(|payload| payload[20] ^= 1).seal();
    let image = open(&forged).unwrap();
    let report = image.verify_on(&old(), Depth::Data, Job::silent()).unwrap();
    let said: Vec<String> = report.damage.iter().map(|damage| damage.what()).collect();
    assert_eq!(said, ["its base leaf and the state of the parent do not agree"]);
}

#[test]
fn another_base_than_the_one_it_was_made_from_is_refused() {
    let forged = with_payload(|payload| payload[0] = 2).seal();
    let image = open(&forged).unwrap();
    let report = image.verify_on(&old(), Depth::Data, Job::silent()).unwrap();
    assert_eq!(report.damage_count, 1);
    // By its leaf; whoever does not compare that finds other bytes.
    let mut liar = |_: &aiv_image_format::BaseBlock, out: &mut [u8]| {
        out.copy_from_slice(&old().cells[2].1);
        Ok(0)
    };
    let entry = image.entry(0).unwrap().unwrap();
    let mut scratch = aiv_image_format::Scratch::default();
    let result = image.read_entry(&mut scratch, &entry, 0, 8, &mut [0; 16 << 10], &mut liar);
    let error = result.expect_err("other bytes").to_string();
    assert!(error.contains("its hash differs from the one the index keeps"), "{error}");
}

/// A zstd frame that gives 16 KiB of other bytes than the block has, without any base.
fn other_bytes(len: usize) -> Vec<u8> {
    zstd::bulk::compress(&vec![7; len], 1).unwrap()
}

#[test]
fn two_zstd_frames_behind_the_head_are_refused() {
    let forged = with_payload(|payload| {
        payload.truncate(48);
        payload.extend(other_bytes(8 << 10).repeat(2));
    });
    assert_found(forged, "its compressed data does not decode to 16384 bytes");
}

#[test]
fn a_zstd_frame_of_another_length_is_refused() {
    for len in [0, 1, (16 << 10) - 1, (16 << 10) + 1, 512 << 10] {
        let forged = with_payload(|payload| {
            payload.truncate(48);
            payload.extend(other_bytes(len));
        });
        assert_found(forged, "its compressed data does not decode to 16384 bytes");
    }
}

#[test]
fn a_zstd_frame_with_other_contents_is_refused() {
    let forged = with_payload(|payload| {
        payload.truncate(48);
        payload.extend(other_bytes(16 << 10));
    });
    assert_found(forged, "its hash differs from the one the index keeps");
}

#[test]
fn bytes_behind_the_zstd_frame_are_refused() {
    let forged = with_payload(|payload| {
        payload.truncate(48);
        payload.extend(other_bytes(16 << 10));
        payload.push(0);
    });
    assert_found(forged, "its compressed data does not decode to 16384 bytes");
}

#[test]
fn a_difference_in_another_codec_than_zstd_is_refused() {
    let (_, forgery) = built();
    let header = delta(&forgery).header.start;
    assert_found(forgery.at(header + 5, &[1]), "codec is 1, allowed is 2 (zstd) in DELTA frames");
    let (_, forgery) = built();
    let stored = forgery.bytes[header + 44..header + 48].to_vec();
    assert_found(
        forgery.at(header + 5, &[0]).at(header + 40, &stored),
        "codec is 0, allowed is 2 (zstd) in DELTA frames",
    );
}

#[test]
fn a_difference_that_is_called_partly_unreadable_is_refused() {
    let (_, forgery) = built();
    let header = delta(&forgery).header.start;
    assert_found(forgery.at(header + 6, &[1]), "flags is 1, allowed is 0, or 1 (damaged) for DATA");
}

#[test]
fn a_frame_that_is_a_difference_on_one_side_only_is_refused() {
    let (old, forgery) = built();
    let (frame, entry) = (delta(&forgery), forgery.areas.index.start + 64);
    // The entry says DATA: 1 in the upper half of the last byte of the key.
    let forged = forgery.clone().at(entry + 7, &[0x10]).seal();
    let said = damage(&forged, &old, 0);
    let wanted = format!("frame at byte {} is damaged: its type and the index", frame.header.start);
    assert!(said.iter().any(|said| said.contains(&wanted)), "{said:?}");
    // The frame says DATA.
    assert_found(
        forgery.at(frame.header.start + 4, &[DATA]),
        "its type and the index do not agree",
    );
}

#[test]
fn a_reference_to_a_difference_is_refused() {
    let (old, forgery) = built();
    let index = forgery.areas.index.start + 64;
    let (of_delta, of_ref) = (index, index + 3 * 48);
    let named = forgery.bytes[of_delta + 8..of_delta + 48].to_vec();
    let forged = forgery.at(of_ref + 8, &named).seal();
    let said = damage(&forged, &old, 3);
    assert!(said.iter().any(|said| said.ends_with("its type and the index do not agree")));
}

#[test]
fn kinds_of_entries_without_their_feature_bit_are_refused() {
    let (_, forgery) = built();
    for (bits, kind) in [(Features::PARENT, 2), (Features::DELTA, 8), (0, 2)] {
        let bits = u8::try_from(bits).unwrap();
        let image = open(&forgery.clone().superblock(16, &[bits]).seal()).unwrap();
        let report = image.verify_on(&old(), Depth::Quick, Job::silent()).unwrap();
        let wanted = format!("entry kind is {kind}, allowed is a kind of its feature bits");
        assert_eq!(report.damage[0].what(), wanted);
        assert_eq!(report.damage[0].section, Section::IndexPage);
        assert!(image.entry(0).is_err());
    }
}

#[test]
fn a_writer_refuses_kinds_that_its_superblock_does_not_announce() {
    let old = old();
    for features in [0, Features::DELTA, Features::PARENT] {
        let storage = aiv_testkit::MemStorage::new();
        let file = aiv_volume_io::Storage::create(&storage, "image").unwrap();
        let increment = Increment { features, ..increment() };
        let error = increment.write(file, &old, &old).expect_err("not announced");
        assert!(matches!(error, Error::Misuse(_)), "{error:?}");
    }
}

/// What verifying finds when entry `number` names other blocks of the parent.
fn forged_parent(number: usize, place: u64) -> (Image, Vec<String>) {
    let (old, forgery) = built();
    let entry = forgery.areas.index.start + 64 + number * 48;
    let image = open(&forgery.at(entry + 8, &place.to_le_bytes()).seal()).unwrap();
    let report = image.verify_on(&old, Depth::Data, Job::silent()).unwrap();
    let said = report.damage.iter().map(ToString::to_string).collect();
    (image, said)
}

#[test]
fn a_copy_of_a_block_of_the_parent_with_another_leaf_is_found() {
    // Entry 1 is a copy of block 3, entry 4 one of its own number.
    for (number, other) in [(1, 2), (4, 3)] {
        let (image, said) = forged_parent(number, other);
        let at = image.trailer().index_offset;
        let wanted = format!(
            "the index page at byte {at} is damaged: its leaf of a copied block and the state of \
             the parent do not agree"
        );
        assert!(said.contains(&wanted), "{said:?}");
    }
}

#[test]
fn a_copy_of_a_block_that_the_parent_does_not_have_is_found() {
    let (image, said) = forged_parent(1, 6);
    let at = image.trailer().index_offset;
    let wanted = format!(
        "the index page at byte {at} is damaged: parent block is 6, allowed is of equal length \
         in the parent"
    );
    assert!(said.contains(&wanted), "{said:?}");
}

#[test]
fn a_copy_of_a_block_of_the_parent_with_reserved_bits_is_refused() {
    for bit in [40, 47, 48, 63] {
        let (_, said) = forged_parent(1, 3 | 1 << bit);
        assert!(said[0].contains("allowed is one block of the parent's state"), "{said:?}");
    }
}

#[test]
fn a_copy_that_covers_two_blocks_is_refused() {
    let (old, forgery) = built();
    let entry = forgery.areas.index.start + 64 + 48;
    let image = open(&forgery.at(entry + 5, &[2]).seal()).unwrap();
    let report = image.verify_on(&old, Depth::Quick, Job::silent()).unwrap();
    assert!(report.damage[0].what().contains("allowed is one block of the parent's state"));
}

#[test]
fn a_block_of_the_parent_that_reads_as_other_bytes_is_found() {
    let old = old();
    let image = increment().open(&old);
    for base in [0, 3] {
        let liar = old.lying(Lie::Bytes(base));
        let report = image.verify_on(&liar, Depth::Data, Job::silent()).unwrap();
        assert_eq!(report.damage_count, 1, "block {base}");
    }
}

#[test]
fn tree_pages_that_do_not_ascend_are_found_with_and_without_the_parent() {
    let old = noisy(2 * 128);
    let increment =
        Increment::new(&[(Change::New(1), 1), (Change::Keep, 200), (Change::New(2), 1)]);
    let bytes = increment.build(&old);
    let forgery = Forgery::of(&bytes);
    let nodes = forgery.areas.tree.start + 64;
    let second = forgery.bytes[nodes + 80..nodes + 160].to_vec();
    let repeated = forgery.clone().at(nodes, &second).at(nodes - 64 + 16, &[1]);
    let image = open(&repeated.seal()).unwrap();
    let alone = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert_eq!(alone.damage[0].what(), "group is 1, allowed is ascending");
    let report = image.verify_on(&old, Depth::Quick, Job::silent()).unwrap();
    assert_eq!(report.damage[0].what(), "its node and the index do not agree");
    // Ascending, and of other groups than those the entries touch.
    let image = open(&forgery.at(nodes + 80, &[7]).seal()).unwrap();
    assert!(!image.verify_on(&old, Depth::Quick, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_base_that_begins_like_a_formatted_dictionary_is_raw_content() {
    const MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];
    let mut old = noisy(3);
    old.cells[1].1[..4].copy_from_slice(&MAGIC);
    // What else a dictionary has there: an id and entropy tables of zeros.
    old.cells[1].1[4..200].fill(0);
    let old = Model::new(old.geometry, old.point, old.cells);
    let increment =
        Increment::new(&[(Change::Keep, 1), (Change::Patch(9000), 1), (Change::PatchOf(1, 3), 1)]);
    let image = increment.open(&old);
    for block in [1, 2] {
        assert_eq!(image.entry(block).unwrap().unwrap().kind, aiv_image_format::Kind::Delta);
        let mut out = vec![0; 16 << 10];
        read_block(&image, Some(&old), block, &mut out).unwrap();
        assert!(out == increment.state(&old).cells[usize::try_from(block).unwrap()].1);
    }
    assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_chain_of_files_is_read_down_to_its_full_image() {
    let old = old();
    let full = open(&crate::change::full_image(&old, 8)).unwrap();
    let files = Files::new(full, None).unwrap();
    let image = increment().open(&old);
    assert!(image.verify_on(&files, Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_difference_to_a_difference_that_calls_itself_one_is_read_as_what_it_is() {
    let old = old();
    let files = Files::new(open(&crate::change::full_image(&old, 8)).unwrap(), None).unwrap();
    let child = Increment { id: 20, ..Increment::new(&[(Change::Patch(5), 1)]) };
    let files = Files::new(open(&child.build(&old)).unwrap(), Some(files)).unwrap();
    let middle = files.model();
    assert_eq!(middle.depths[0], 1);
    let grandchild = Increment { id: 21, ..Increment::new(&[(Change::Patch(900), 1)]) };
    let forgery = Forgery::of(&grandchild.build(&middle));
    let depth = delta(&forgery).payload.start + 40;
    assert_eq!(forgery.bytes[depth], 2);
    let image = open(&forgery.at(depth, &[1]).seal()).unwrap();
    assert!(image.verify_on(&files, Depth::Data, Job::silent()).unwrap().is_sound());
    assert_eq!(read_block(&image, Some(&files), 0, &mut [0; 16 << 10]).unwrap(), 2);
}
