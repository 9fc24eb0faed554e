//! Images in which every checksum and hash is right, and a rule of the document is broken that no
//! reader of blocks depends on: they open, and verification names them as damaged.

use std::sync::Arc;

use aiv_image_format::{Compression, Depth, Features, Keys, VerifyReport};
use aiv_volume_io::Job;

use crate::areas::{Areas, CHECKPOINT, DATA, Frame, PAD, PAGE};
use crate::forge::Forgery;
use crate::recipe::{Block, Fill, Recipe, open, open_with};

/// Frames of several windows, some of them across their borders, and every kind of block.
fn sample() -> Arc<Vec<u8>> {
    let mut blocks = vec![
        (Block::Data(Fill::Words(1)), 2),
        (Block::Zero, 3),
        (Block::Unused, 200),
        (Block::Ref(1), 1),
        (Block::PartlyUnreadable(Fill::Words(3)), 1),
    ];
    blocks.extend((0..360).map(|seed| (Block::Data(Fill::Noise(seed)), 1)));
    Recipe { compression: Compression::Lz4, checkpoint_every: 150, ..Recipe::new(&blocks) }.build()
}

fn verify(bytes: &Arc<Vec<u8>>, depth: Depth) -> VerifyReport {
    let image = open(bytes).expect("what nobody needs for reading does not keep it from opening");
    image.verify(depth, Job::silent()).unwrap()
}

/// What verification says of `forgery`, which is one thing, at both depths that read all bytes.
/// Checkpoints, whose list of pieces is not made to fit, do not count.
fn said(forgery: Forgery) -> String {
    let bytes = forgery.seal();
    let [stored, data] = [Depth::Stored, Depth::Data].map(|depth| {
        let mut damage = verify(&bytes, depth).damage;
        damage.retain(|damage| damage.what() != "its pieces and the stored list do not agree");
        damage
    });
    assert_eq!(stored, data);
    let [damage] = &data[..] else { panic!("{data:?}") };
    damage.to_string()
}

fn frames(bytes: &[u8], kind: u8) -> Vec<Frame> {
    Areas::of(bytes).frames.into_iter().filter(|frame| frame.kind == kind).collect()
}

#[test]
fn a_sound_image_of_several_windows_breaks_no_rule() {
    let bytes = sample();
    assert!(bytes.len() > 5 << 20);
    assert!(verify(&Forgery::of(&bytes).seal(), Depth::Data).is_sound());
}

#[test]
fn a_frame_of_a_session_that_is_not_among_the_origins_is_found() {
    let bytes = sample();
    for kind in [DATA, CHECKPOINT, PAD] {
        let frame = frames(&bytes, kind).pop().unwrap();
        let text = said(Forgery::of(&bytes).at(frame.header.start + 8, b"somebodyelse"));
        let place = format!("the frame at byte {} is damaged: ", frame.header.start);
        assert_eq!(text, place + "its session and the origins in META do not agree");
    }
}

#[test]
fn a_superblock_of_a_session_that_is_not_among_the_origins_is_found() {
    let forgery = Forgery::of(&sample()).superblock(176, b"somebodyelse");
    let text = said(forgery);
    assert!(text.ends_with("its origins and the session of the superblock do not agree"), "{text}");
}

#[test]
fn a_byte_of_a_pad_frame_that_is_not_zero_is_found() {
    let bytes = sample();
    let areas = Areas::of(&bytes);
    let behind_meta = areas.meta_padding.clone();
    let frame = frames(&bytes, PAD).pop().unwrap();
    let text = said(Forgery::of(&bytes).at(frame.payload.end - 1, &[1]));
    let at = frame.payload.end - 1 - frame.header.start;
    assert!(text.ends_with(&format!("reserved byte {at} is not zero")), "{text}");
    assert!(behind_meta.len() > 64, "the PAD behind META has a payload");
}

#[test]
fn a_byte_of_the_padding_of_a_frame_that_is_not_zero_is_found() {
    let bytes = sample();
    let padded: Vec<Frame> =
        frames(&bytes, DATA).into_iter().filter(|frame| !frame.padding.is_empty()).collect();
    for frame in [padded.first().unwrap(), padded.last().unwrap()] {
        let text = said(Forgery::of(&bytes).at(frame.padding.end - 1, &[1]));
        assert!(text.starts_with(&format!("the frame at byte {} ", frame.header.start)), "{text}");
        assert!(text.contains("is not zero"), "{text}");
    }
    let section = Areas::of(&bytes).sections.into_iter().find(|s| !s.padding.is_empty()).unwrap();
    let text = said(Forgery::of(&bytes).at(section.padding.start, &[1]));
    assert!(text.contains("is not zero"), "{text}");
}

#[test]
fn counts_for_display_that_do_not_fit_the_frames_are_found() {
    let bytes = sample();
    let last = bytes.len() - PAGE;
    for at in [432, 488] {
        let value = bytes[last + at].wrapping_add(1);
        let text = said(Forgery::of(&bytes).trailer(at, &[value]));
        assert!(text.ends_with("its frame counts and the frames do not agree"), "{text}");
    }
}

#[test]
fn a_frame_of_a_type_that_does_not_belong_into_its_area_is_found() {
    let bytes = sample();
    // A PAD becomes parity, of an image that has none.
    let frame = frames(&bytes, PAD).pop().unwrap();
    let text = said(Forgery::of(&bytes).at(frame.header.start + 4, &[5]));
    assert!(text.ends_with("its type and the area do not agree"), "{text}");
    let text = said(Forgery::of(&bytes).at(frame.header.start + 24, &[0xff; 8]));
    assert!(text.contains("number is 18446744073709551615"), "{text}");
}

#[test]
fn a_full_image_with_the_number_zero_is_found_without_reading_its_bytes() {
    let bytes = sample();
    let manifest = &Areas::of(&bytes).sections[0];
    let item = [5, 0, 0, 0, 8, 0, 0, 0];
    let payload = &bytes[manifest.payload.clone()];
    let place = payload.windows(8).position(|window| window == item).expect("stored as it is");
    let forged = Forgery::of(&bytes).at(manifest.payload.start + place + 8, &[0; 8]).seal();
    let report = verify(&forged, Depth::Quick);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let text = report.damage[0].to_string();
    assert!(text.ends_with("number of the full image is 0, allowed is 1 and more"), "{text}");
}

/// What the rules are looked up in is not what every image has.
#[test]
fn images_of_every_sort_break_no_rule() {
    let blocks = [(Block::Data(Fill::Noise(1)), 90), (Block::Zero, 3), (Block::Ref(2), 1)];
    let parity = Recipe { features: Features::PARITY, ..Recipe::new(&blocks) };
    assert!(verify(&parity.build(), Depth::Data).is_sound());
    let sealed = crate::sealed::sealed();
    for keys in [sealed.keys(), Keys::none()] {
        let image = open_with(&sealed.build(), &keys).unwrap();
        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    }
}
