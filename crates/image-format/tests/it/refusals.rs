//! Each way an image can be refused, by name and with its message.

use std::ops::Range;
use std::sync::Arc;

use aiv_image_format::{Depth, Error, Image, Section, Unsupported, VerifyReport};
use aiv_testkit::disks::FlakyDisk;
use aiv_volume_io::{Extent, Job, MemDisk};

use crate::areas::{Areas, CHECKPOINT, DATA, PAD, PAGE};
use crate::forge::Forgery;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, read_all, refusal};

fn sample() -> (Arc<Vec<u8>>, Areas) {
    let blocks =
        [(Block::Data(Fill::Words(1)), 2), (Block::Unused, 5), (Block::Data(Fill::Words(2)), 1)];
    let bytes = Recipe::new(&blocks).build();
    let areas = Areas::of(&bytes);
    (bytes, areas)
}

/// The image with one bit of a byte inverted.
fn flipped(bytes: &Arc<Vec<u8>>, at: usize) -> Arc<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    Arc::new(bytes)
}

/// Opens the image with one bit inverted and verifies it.
fn verified(bytes: &Arc<Vec<u8>>, at: usize) -> (Image, VerifyReport) {
    let image = Image::open(Arc::new(Patched::new(bytes).flipped(at, 4))).expect("it opens");
    let report = image.verify(Depth::Data, Job::silent()).expect("memory reads");
    (image, report)
}

/// What verify says about the image with one bit inverted.
fn damage(bytes: &Arc<Vec<u8>>, at: usize) -> Vec<String> {
    verified(bytes, at).1.damage.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_says(messages: &[String], wanted: &str) {
    assert!(messages.iter().any(|m| m.contains(wanted)), "{wanted:?} is not in {messages:#?}");
}

#[test]
fn a_newer_major_version_is_refused_by_number() {
    let (bytes, _) = sample();
    let message = refusal(Forgery::of(&bytes).superblock(8, &[2]).seal());
    assert_eq!(message, "the image has format version 2.3, this program reads 0.3");
}

#[test]
fn another_draft_is_refused_by_number() {
    let (bytes, _) = sample();
    let message = refusal(Forgery::of(&bytes).superblock(10, &[7]).seal());
    assert_eq!(message, "the image has format version 0.7, this program reads 0.3");
}

#[test]
fn a_feature_of_later_versions_is_refused_by_its_name() {
    let (bytes, _) = sample();
    let forged = Forgery::of(&bytes).superblock(16, &[0b0010_0001, 1]).seal();
    let message = refusal(forged);
    let wanted = "the image needs features this program does not have: dedup-store, overlay";
    assert_eq!(message, wanted);
}

#[test]
fn an_unknown_feature_is_refused_by_the_name_in_the_image() {
    let (bytes, _) = sample();
    let row = [&[1, 63, 0, 0][..], b"holograms"].concat();
    let forged = Forgery::of(&bytes).superblock(23, &[0x80]).superblock(224, &row).seal();
    let message = refusal(forged.clone());
    assert!(message.ends_with("does not have: holograms"), "{message}");
    // Also when the first superblock is gone: a newer image is not called damaged.
    let copy_only = refusal(flipped(&forged, 100));
    assert!(copy_only.ends_with("does not have: holograms"), "{copy_only}");
    let error = crate::recipe::open(&forged).err().expect("refused");
    let features = Unsupported::Features { bits: 1 << 63, names: "holograms".into() };
    assert!(matches!(error, aiv_image_format::Error::Unsupported(u) if u == features));
}

#[test]
fn a_damaged_superblock_is_reported_and_its_copy_used() {
    let (bytes, _) = sample();
    let (image, report) = verified(&bytes, 100);
    let said = image.damage()[0].to_string();
    assert!(said.starts_with("the superblock at byte 0 is damaged: its checksum is 0x"), "{said}");
    assert_eq!(report.damage[0].to_string(), said);
    assert_eq!(read_all(&image).unwrap().len(), 8);
    let (image, _) = verified(&bytes, 3);
    let wanted = "the superblock at byte 0 is damaged: its magic number is wrong";
    assert_eq!(image.damage()[0].to_string(), wanted);
}

#[test]
fn two_damaged_superblocks_are_a_damaged_image() {
    let (bytes, areas) = sample();
    for (first, copy) in [(0, 0), (0, 100), (100, 0), (100, 100)] {
        let once = flipped(&bytes, areas.superblock.start + first);
        let message = refusal(flipped(&once, areas.superblock_copy.start + copy));
        assert!(message.starts_with("the superblock at byte 0 is damaged: "), "{message}");
    }
}

#[test]
fn a_damaged_superblock_copy_is_found() {
    let (bytes, areas) = sample();
    let at = areas.superblock_copy.start;
    let wanted = format!("the superblock copy at byte {at} is damaged: its checksum is");
    assert_says(&damage(&bytes, at + 700), &wanted);
    assert_says(&damage(&bytes, at), "its magic number is wrong");
    // An intact copy of other contents is found, too.
    let forged = Forgery::of(&bytes).at(at + 168, &[1]).seal();
    let image = crate::recipe::open(&forged).unwrap();
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert_says(&[report.damage[0].to_string()], "its content and the superblock do not agree");
}

#[test]
fn a_damaged_trailer_is_reported_and_the_other_used() {
    let (bytes, areas) = sample();
    for at in [areas.first_trailer.start, areas.last_trailer.start] {
        let (image, report) = verified(&bytes, at + 300);
        let said = image.damage()[0].to_string();
        let wanted = format!("the trailer at byte {at} is damaged: its checksum is");
        assert!(said.starts_with(&wanted), "{said}");
        assert!(!report.is_sound());
        assert_eq!(read_all(&image).unwrap().len(), 8);
    }
}

#[test]
fn two_trailers_that_differ_are_reported() {
    let (bytes, areas) = sample();
    let forged = Forgery::of(&bytes).at(areas.first_trailer.start + 432, &[99]).seal();
    let image = crate::recipe::open(&forged).expect("the last one counts");
    assert_says(&[image.damage()[0].to_string()], "its content and the last trailer do not agree");
}

#[test]
fn two_damaged_trailers_are_a_damaged_image_and_two_missing_ones_an_incomplete_one() {
    let (bytes, areas) = sample();
    let (first, last) = (areas.first_trailer.start, areas.last_trailer.start);
    let message = refusal(flipped(&flipped(&bytes, first + 300), last + 300));
    let wanted = format!("the trailer at byte {last} is damaged: its checksum is");
    assert!(message.starts_with(&wanted), "{message}");
    let message = refusal(flipped(&flipped(&bytes, first), last));
    let wanted = format!("the image is incomplete: its {} bytes do not end", bytes.len());
    assert!(message.starts_with(&wanted), "{message}");
}

#[test]
fn a_damaged_index_page_is_found_and_named() {
    let (bytes, areas) = sample();
    let at = areas.index.start;
    let (image, report) = verified(&bytes, at + 90);
    let wanted = format!("the index page at byte {at} is damaged: its checksum is");
    let said: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    assert_says(&said, &wanted);
    let error = image.entry(0).expect_err("the page is damaged").to_string();
    assert!(error.starts_with(&wanted), "{error}");
}

#[test]
fn an_intact_index_page_that_is_not_the_one_its_parent_names_is_found() {
    let (bytes, areas) = sample();
    let forged = Forgery::of(&bytes).at(areas.index.start + 64 + 16, &[1, 2, 3]).seal();
    let bytes = Forgery::of(&forged).trailer(280, &[0; 32]).seal_trailers_only();
    let error = crate::recipe::open(&bytes).unwrap().entry(0).expect_err("another page");
    assert!(error.to_string().contains("its hash differs from the one the trailer keeps"));
}

#[test]
fn a_damaged_frame_header_is_found_and_named() {
    let (bytes, areas) = sample();
    let at = areas.frame(DATA).header.start;
    let wanted = format!("the frame at byte {at} is damaged: its checksum is");
    assert_says(&damage(&bytes, at + 24), &wanted);
    assert_says(&damage(&bytes, at), "its magic number is wrong");
}

#[test]
fn a_damaged_frame_payload_is_found_and_named() {
    let (bytes, areas) = sample();
    let frame = areas.frame(DATA);
    let wanted = format!("the frame at byte {} is damaged: its checksum is", frame.header.start);
    assert_says(&damage(&bytes, frame.payload.start + 9), &wanted);
}

#[test]
fn a_payload_that_decodes_to_something_else_is_caught_by_its_leaf_hash() {
    let (bytes, areas) = sample();
    // The frame of block 7 in the place of that of block 0: intact, and the wrong one.
    let frames: Vec<_> = areas.frames.iter().filter(|f| f.kind == DATA).collect();
    let (first, other) = (frames[0], frames[2]);
    let forged = Forgery::of(&bytes)
        .at(
            first.payload.start,
            &bytes[other.payload.clone()][..first.payload.len().min(other.payload.len())],
        )
        .seal();
    let mut out = vec![0; 16 << 10];
    let image = crate::recipe::open(&forged).unwrap();
    let error = image.block_reader().read(0, &mut out).expect_err("other bytes").to_string();
    let caught = error.contains("its hash differs from the one the index keeps")
        || error.contains("does not decode");
    assert!(caught, "{error}");
}

#[test]
fn damaged_meta_is_refused() {
    let (bytes, areas) = sample();
    let message = refusal(flipped(&bytes, areas.sections[0].payload.start));
    let at = areas.meta.start;
    let wanted = format!(
        "the META section at byte {at} is damaged: its hash differs from the one the trailer keeps"
    );
    assert_eq!(message, wanted);
}

#[test]
fn a_damaged_checkpoint_is_found() {
    let (bytes, areas) = sample();
    let frame = areas.frame(CHECKPOINT);
    assert_says(&damage(&bytes, frame.payload.start + 70), "the stored piece at byte 0");
    let file = Patched::new(&bytes).flipped(frame.payload.start + 70, 0);
    let image = Image::open(Arc::new(file)).unwrap();
    let text = crate::round_trip::check_dump(&image, bytes.len() as u64);
    assert!(text.contains("CHECKPOINT, damaged: its checksum is"), "{text}");
}

#[test]
fn a_damaged_tree_page_is_found_and_named() {
    let (bytes, areas) = sample();
    let wanted = format!("the tree page at byte {} is damaged: its checksum", areas.tree.start);
    assert_says(&damage(&bytes, areas.tree.start + 100), &wanted);
}

#[test]
fn a_tree_node_that_contradicts_the_index_is_found() {
    let (bytes, areas) = sample();
    let forged = Forgery::of(&bytes).at(areas.tree.start + 64 + 16, &[1, 2, 3]).seal();
    let report = crate::recipe::open(&forged).unwrap().verify(Depth::Quick, Job::silent()).unwrap();
    assert_says(&[report.damage[0].to_string()], "its node and the index do not agree");
}

#[test]
fn a_damaged_stored_list_is_found() {
    let (bytes, areas) = sample();
    let at = areas.list.start;
    let wanted = format!("the stored list at byte {at} is damaged: its hash differs");
    assert_says(&damage(&bytes, at + 5), &wanted);
}

#[test]
fn a_byte_set_between_the_trailers_is_found() {
    let (bytes, areas) = sample();
    let page = areas.gap.start + 3 * PAGE;
    let wanted = format!(
        "the gap between the trailers at byte {page} is damaged: reserved byte 77 is not zero"
    );
    assert_says(&damage(&bytes, page + 77), &wanted);
}

#[test]
fn a_byte_set_in_any_padding_is_found() {
    let (bytes, areas) = sample();
    let list = areas.list_padding.start;
    let wanted = format!("the stored list at byte {list} is damaged: reserved byte 5");
    assert_says(&damage(&bytes, list + 5), &wanted);
    let data = areas.frames.iter().find(|f| f.kind == DATA && !f.padding.is_empty());
    let places = [
        data.expect("a payload that ends between boundaries").padding.start,
        areas.frame(PAD).payload.end - 1,
        areas.meta_padding.end - 1,
    ];
    for at in places {
        let piece = at / (64 << 10) * (64 << 10);
        let wanted = format!(
            "the stored piece at byte {piece} is damaged: its hash differs from the one the \
             stored list keeps"
        );
        assert_says(&damage(&bytes, at), &wanted);
    }
}

#[test]
fn roots_that_contradict_the_index_are_found() {
    let (bytes, _) = sample();
    for (at, wanted) in [(112, "content root"), (144, "map root"), (440, "block counts")] {
        let forged = Forgery::of(&bytes).trailer(at, &[0x55]).seal();
        let image = crate::recipe::open(&forged).unwrap();
        let report = image.verify(Depth::Quick, Job::silent()).unwrap();
        let said: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        assert_says(&said, &format!("its {wanted} and the index do not agree"));
    }
}

#[test]
fn areas_that_do_not_meet_are_refused_by_name() {
    let (bytes, _) = sample();
    let huge = u64::MAX.to_le_bytes();
    for (at, value, field) in [
        (248, &[1][..], "frame area"),
        (248, &huge[..], "frame area"),
        (256, &[0; 8], "index offset"),
        (264, &huge, "index pages"),
        (272, &huge, "index pages"),
        (272, &[0; 8], "index pages"),
        (320, &huge, "tree pages"),
        (368, &huge, "META length"),
        (416, &huge, "piece count"),
        (424, &huge, "last checkpoint"),
        (240, &huge, "file length"),
    ] {
        let message = refusal(Forgery::of(&bytes).trailer(at, value).seal());
        assert!(message.contains("the trailer at byte"), "{message}");
        assert!(message.contains(&format!("its {field} and the ")), "{at}: {message}");
    }
}

#[test]
fn an_index_that_leaves_out_a_block_is_found() {
    let (bytes, areas) = sample();
    // The run of five blocks becomes one of four.
    let run = areas.index.start + 64 + 2 * 48;
    let forged = Forgery::of(&bytes).at(run + 5, &[4]).seal();
    let image = crate::recipe::open(&forged).unwrap();
    assert_eq!(image.entry(6).unwrap(), None);
    let error = image.block_reader().read(6, &mut vec![0; 16 << 10]).expect_err("undecided");
    assert!(error.to_string().contains("block is 6, allowed is in the index"), "{error}");
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert_says(&[report.damage[0].to_string()], "block is 6, allowed is covered by the index");
}

/// An image whose index has three leaf pages under one inner page, one entry per block.
fn three_leaf_pages() -> (Arc<Vec<u8>>, Areas) {
    let runs = (0..115).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]);
    let bytes = Recipe::new(&runs.collect::<Vec<_>>()).build();
    let areas = Areas::of(&bytes);
    assert_eq!((areas.leaf_pages, areas.index.len() / PAGE), (3, 4));
    (bytes, areas)
}

#[test]
fn an_inner_page_that_names_more_pages_than_there_are_is_refused() {
    let (bytes, areas) = three_leaf_pages();
    let inner = areas.index.start + 3 * PAGE;
    for (count, first_block) in [(4, 220u64), (2, 0), (84, 0)] {
        let forged = Forgery::of(&bytes)
            .at(inner + 6, &[count, 0])
            .at(inner + 64 + 3 * 48, &first_block.to_le_bytes())
            .seal();
        let image = crate::recipe::open(&forged).expect("the index is read later");
        let error = image.entry(225).expect_err("a page that is not there").to_string();
        let wanted = format!("entry count is {count}, allowed is the pages below");
        let unused = "reserved byte";
        assert!(error.contains(&wanted) || error.contains(unused), "{error}");
        assert!(image.entries(0).next().is_some_and(|entry| entry.is_err()));
    }
}

#[test]
fn an_entry_that_reaches_into_the_next_page_is_found() {
    let (bytes, areas) = three_leaf_pages();
    let last_of_first_page = areas.index.start + 64 + 83 * 48;
    let forged = Forgery::of(&bytes).at(last_of_first_page + 5, &[2]).seal();
    let image = crate::recipe::open(&forged).expect("the index is read later");
    let end = image.entries(0).find_map(Result::err).expect("blocks are covered twice").to_string();
    let wanted = format!("the index page at byte {} is damaged", areas.index.start + PAGE);
    assert!(end.starts_with(&wanted), "{end}");
    assert!(end.contains("block is 84, allowed is ascending, without overlap"), "{end}");
    assert!(!image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_bad_sector_under_one_of_two_copies_is_damage_and_no_reason_to_stop() {
    let (bytes, areas) = sample();
    let open_without = |bad: &[Range<usize>]| {
        let bad = bad.iter().map(|r| Extent::between(r.start as u64, r.end as u64));
        Image::open(Arc::new(FlakyDisk::new(MemDisk::from_bytes(bytes.to_vec()), bad)))
    };
    let (first, last) = (areas.first_trailer.clone(), areas.last_trailer.clone());
    for (bad, section) in [
        (areas.superblock.clone(), Section::Superblock),
        (first.clone(), Section::Trailer),
        (last.clone(), Section::Trailer),
    ] {
        let image = open_without(&[bad]).expect("the other copy is fine");
        let damage: Vec<Section> = image.damage().iter().map(|d| d.section).collect();
        assert_eq!(damage, [section]);
        assert!(image.damage()[0].what().contains("cannot be read"));
    }
    let both = open_without(&[first, last]).map(drop);
    assert!(matches!(both, Err(Error::Io { .. })), "{both:?}");
    let both = open_without(&[areas.superblock, areas.superblock_copy]).map(drop);
    assert!(matches!(both, Err(Error::Io { .. })), "{both:?}");
}
