//! Checkpoints that contradict the image they are in, with every checksum right.

use aiv_image_format::{Depth, Section};
use aiv_volume_io::Job;

use crate::forge::Forgery;
use crate::recipe::{Block, Fill, Recipe, open};

/// Damages `verify` finds when `value` stands at `offset` of the payload of the checkpoint
/// `number` of a small image with several.
fn found(number: usize, offset: usize, value: &[u8]) -> Vec<String> {
    forged(number, |payload| vec![(payload + offset, value.to_vec())])
}

/// As [`found`], for values at places that are counted from the payload of the checkpoint.
fn forged(number: usize, places: impl Fn(usize) -> Vec<(usize, Vec<u8>)>) -> Vec<String> {
    let mut recipe = Recipe::new(&[
        (Block::Data(Fill::Words(1)), 3),
        (Block::Unused, 10),
        (Block::Data(Fill::Words(2)), 2),
        (Block::Zero, 4),
    ]);
    recipe.checkpoint_every = 2;
    let bytes = recipe.build();
    let forgery = Forgery::of(&bytes);
    let checkpoints: Vec<usize> = forgery
        .areas
        .frames
        .iter()
        .filter(|frame| bytes[frame.header.start + 4] == 3)
        .map(|frame| frame.payload.start)
        .collect();
    assert!(checkpoints.len() >= 3, "the recipe makes several checkpoints");
    let change = |forgery: Forgery, (at, value): (usize, Vec<u8>)| forgery.at(at, &value);
    let sealed = places(checkpoints[number]).into_iter().fold(forgery, change).seal();
    let image = open(&sealed).expect("checkpoints are not needed for reading");
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    assert!(report.damage.iter().all(|damage| damage.section == Section::Checkpoint));
    report.damage.iter().map(|damage| damage.what()).collect()
}

const HEAD: usize = 64;
const ORIGIN: usize = 16;

#[test]
fn a_checkpoint_that_says_what_the_index_says_is_sound() {
    assert!(found(1, 0, &[]).is_empty());
}

#[test]
fn a_checkpoint_with_another_leaf_than_the_index_is_found() {
    let leaf = HEAD + ORIGIN + 16;
    assert_eq!(found(0, leaf, &[0xee; 32]), ["its entries and the index do not agree"]);
}

#[test]
fn a_checkpoint_with_another_block_than_the_index_is_found() {
    let key = HEAD + ORIGIN;
    assert_eq!(found(1, key, &[0xee]), ["its entries and the index do not agree"]);
}

#[test]
fn a_checkpoint_that_names_another_session_is_found() {
    assert_eq!(found(0, HEAD, &[0xee]), ["its sessions and the origins in META do not agree"]);
}

#[test]
fn a_checkpoint_that_names_no_earlier_one_is_found() {
    let found = found(2, 0, &u64::MAX.to_le_bytes());
    assert!(found[0].contains("previous address"), "{found:?}");
}

#[test]
fn a_checkpoint_that_is_ahead_of_its_entries_is_found() {
    let next_block = 16;
    let what = "its next block and the entries in it do not agree";
    assert_eq!(found(0, next_block, &[0xee]), [what]);
}

#[test]
fn a_reserved_byte_behind_an_origin_is_found() {
    let found = found(0, HEAD + 12, &[1]);
    assert!(found[0].contains("reserved byte"), "{found:?}");
}

#[test]
fn a_checkpoint_with_the_largest_number_is_found() {
    let last = u64::MAX.to_le_bytes().to_vec();
    // The subject of the frame says it, too.
    let found =
        forged(1, |payload| vec![(payload + 8, last.clone()), (payload - 32, last.clone())]);
    assert_eq!(found, ["its number and the checkpoint after it do not agree"]);
}

#[test]
fn a_checkpoint_that_reaches_past_the_frames_is_found() {
    let len = (16u32 << 20).to_le_bytes().to_vec();
    let found = forged(1, |payload| vec![(payload - 24, len.clone()), (payload - 20, len.clone())]);
    assert_eq!(found, ["it reaches past the end of its area"]);
}
