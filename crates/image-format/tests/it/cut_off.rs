//! Images that end too early or too late are never taken for complete ones.

use std::sync::Arc;

use aiv_image_format::{Error, Foreign, Image};

use crate::areas::PAGE;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise, refusal};

fn sample() -> Arc<Vec<u8>> {
    let blocks =
        [(Block::Data(Fill::Noise(1)), 4), (Block::Zero, 3), (Block::Data(Fill::Words(2)), 9)];
    Recipe::new(&blocks).build()
}

fn assert_cut_off(bytes: &Arc<Vec<u8>>, len: usize) {
    match Image::open(Arc::new(Patched::new(bytes).cut(len))) {
        Ok(_) => panic!("{len} bytes open as an image"),
        Err(Error::Foreign(Foreign::TooShort { .. })) => assert!(len < PAGE),
        Err(Error::Incomplete { len: said }) => assert_eq!(said, len as u64),
        Err(other) => panic!("{len} bytes: {other}"),
    }
}

#[test]
fn an_image_cut_at_any_page_is_incomplete() {
    let bytes = sample();
    (0..bytes.len()).step_by(PAGE).for_each(|len| assert_cut_off(&bytes, len));
}

#[test]
fn an_image_cut_at_any_byte_of_its_end_is_incomplete() {
    let bytes = sample();
    (bytes.len() - (80 << 10)..bytes.len()).for_each(|len| assert_cut_off(&bytes, len));
}

#[test]
fn an_image_cut_and_filled_up_with_zeros_is_refused() {
    let bytes = sample();
    for cut in (0..bytes.len()).step_by(PAGE) {
        let zeros = vec![0; bytes.len() - cut];
        // Losing nothing but the last trailer or less is what the first one is there for.
        let opened = Image::open(Arc::new(Patched::new(&bytes).with(cut, &zeros)));
        let whole_first = cut > bytes.len() - 4 * PAGE - (64 << 10) + PAGE;
        assert_eq!(opened.is_ok(), whole_first, "zeros from {cut}");
        if let Ok(image) = opened {
            assert!(!image.damage().is_empty());
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let bytes = sample();
    for (what, more) in [
        ("one byte", vec![0]),
        ("a page of zeros", vec![0; PAGE]),
        ("noise", noise(9, 10_000)),
        ("another whole image", sample().to_vec()),
        ("its own last page again", bytes[bytes.len() - PAGE..].to_vec()),
        ("its own tail again", bytes[bytes.len() - 3 * PAGE - (64 << 10)..].to_vec()),
    ] {
        let message = refusal([bytes.to_vec(), more].concat());
        let clear = message.contains("continued with other bytes")
            || message.contains("its file length and the file do not agree");
        assert!(clear, "{what}: {message}");
    }
}

#[test]
fn what_a_crash_leaves_before_the_trailers_is_incomplete() {
    let bytes = sample();
    let message = refusal(bytes[..bytes.len() - 3 * PAGE - (64 << 10)].to_vec());
    assert!(message.contains("incomplete"), "{message}");
    assert!(message.contains("a backup that never finished"), "{message}");
}
