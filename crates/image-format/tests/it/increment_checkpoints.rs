//! Checkpoints of images with a parent: gaps, trailing inherited blocks, runs that were cut.

use std::sync::Arc;

use aiv_image_format::{Depth, ImageWriter, RunKind, Section};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::areas::CHECKPOINT;
use crate::change::{Change, Increment, small_meta};
use crate::forge::Forgery;
use crate::increments::noisy;
use crate::parents::Model;
use crate::recipe::open;

const HEAD: usize = 64;
const ORIGIN: usize = 16;
const ENTRY: usize = 48;

/// Blocks 2, 3 new; 8 to 15 zero; 20 new; the rest inherited.
fn increment() -> Increment {
    Increment {
        checkpoint_every: 6,
        ..Increment::new(&[
            (Change::Keep, 2),
            (Change::New(1), 2),
            (Change::Keep, 4),
            (Change::Zero, 8),
            (Change::Keep, 4),
            (Change::New(2), 1),
        ])
    }
}

fn payloads(forgery: &Forgery) -> Vec<usize> {
    let frames = forgery.areas.frames.iter().filter(|frame| frame.kind == CHECKPOINT);
    frames.map(|frame| frame.payload.start).collect()
}

/// For each checkpoint the block it says it reaches and the number of its entries.
fn heads(bytes: &[u8]) -> Vec<(u64, u64)> {
    let number = |at: usize, len: usize| {
        let mut raw = [0; 8];
        raw[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(raw)
    };
    let at = payloads(&Forgery::of(bytes));
    at.into_iter().map(|at| (number(at + 16, 8), number(at + 36, 4))).collect()
}

fn assert_sound(bytes: &Arc<Vec<u8>>, old: &Model) {
    let image = open(bytes).unwrap();
    assert_eq!(image.verify_on(old, Depth::Data, Job::silent()).unwrap().damage, []);
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

#[test]
fn checkpoints_with_gaps_and_cut_runs_compare_clean() {
    let old = noisy(30);
    let bytes = increment().build(&old);
    assert_eq!(heads(&bytes), [(6, 2), (12, 1), (18, 1), (24, 1), (30, 0)]);
    assert_sound(&bytes, &old);
    assert_eq!(open(&bytes).unwrap().entries(0).count(), 4, "the run is one again");
    for every in 1..31 {
        assert_sound(&Increment { checkpoint_every: every, ..increment() }.build(&old), &old);
    }
}

#[test]
fn the_last_checkpoint_says_that_the_blocks_behind_the_last_entry_are_inherited() {
    let old = noisy(30);
    // At the end of the last entry, nothing but inherited blocks is left to be decided.
    let bytes = Increment { checkpoint_every: 21, ..increment() }.build(&old);
    assert_eq!(heads(&bytes), [(21, 4), (30, 0)]);
    assert_sound(&bytes, &old);
    let bytes = Increment { checkpoint_every: 0, ..increment() }.build(&old);
    assert_eq!(heads(&bytes), [(30, 4)]);
    let bytes = Increment::new(&[]).build(&old);
    assert_eq!(heads(&bytes), [(30, 0)], "also of an image without entries");
    assert_sound(&bytes, &old);
}

#[test]
fn a_full_image_has_no_checkpoint_more_than_before() {
    let recipe = crate::recipe::Recipe {
        checkpoint_every: 1,
        ..crate::recipe::Recipe::new(&[
            (crate::recipe::Block::Zero, 4),
            (crate::recipe::Block::Unused, 3),
        ])
    };
    assert_eq!(heads(&recipe.build()), [(4, 1), (7, 1)]);
}

/// What verifying finds when `value` stands at `offset` of the payload of checkpoint `number`.
fn found(number: usize, changes: &[(usize, &[u8])]) -> Vec<String> {
    let old = noisy(30);
    let forgery = Forgery::of(&increment().build(&old));
    let at = payloads(&forgery)[number];
    let forged = changes
        .iter()
        .fold(forgery, |forgery, (offset, value)| forgery.at(at + offset, value))
        .seal();
    let image = open(&forged).expect("checkpoints are not needed for reading");
    let report = image.verify_on(&old, Depth::Data, Job::silent()).unwrap();
    assert!(report.damage.iter().all(|damage| damage.section == Section::Checkpoint));
    let alone = image.verify(Depth::Data, Job::silent()).unwrap();
    assert_eq!(alone.damage, report.damage, "the parent says nothing about checkpoints");
    report.damage.iter().map(|damage| damage.what()).collect()
}

const ENTRIES: &str = "its entries and the index do not agree";
const NEXT_BLOCK: &str = "its next block and the entries in it do not agree";

#[test]
fn entries_of_a_checkpoint_that_are_out_of_order_are_found() {
    let old = noisy(30);
    let forgery = Forgery::of(&increment().build(&old));
    let at = payloads(&forgery)[0] + HEAD + ORIGIN;
    let [first, second] =
        [0, ENTRY].map(|skip| forgery.bytes[at + skip..at + skip + ENTRY].to_vec());
    let swapped = [&second[..], &first].concat();
    assert_eq!(found(0, &[(HEAD + ORIGIN, &swapped)]), [ENTRIES]);
    let twice = [&first[..], &first].concat();
    assert_eq!(found(0, &[(HEAD + ORIGIN, &twice)]), [ENTRIES]);
}

#[test]
fn a_checkpoint_whose_next_block_lies_inside_its_entries_is_found() {
    assert_eq!(found(0, &[(16, &[3])]), [NEXT_BLOCK]);
    assert_eq!(found(1, &[(16, &[11])]), [NEXT_BLOCK]);
}

#[test]
fn a_checkpoint_whose_next_block_lies_behind_the_next_entry_is_found() {
    assert_eq!(found(0, &[(16, &[9])]), [ENTRIES]);
    assert_eq!(found(1, &[(16, &[13])]), [ENTRIES], "also inside a run that is cut there");
}

#[test]
fn a_checkpoint_whose_next_block_lies_beyond_the_disk_is_found() {
    assert_eq!(found(4, &[(16, &[31])]), [NEXT_BLOCK]);
    assert_eq!(found(4, &[(16, &[0xff; 8])]), [NEXT_BLOCK]);
}

#[test]
fn a_checkpoint_that_falls_back_behind_the_one_before_it_is_found() {
    // Number 4 has no entries, and the one before it reached block 24.
    assert_eq!(found(4, &[(16, &[23])]), [NEXT_BLOCK]);
}

#[test]
fn checkpoints_that_leave_out_the_last_entry_are_found() {
    let old = noisy(30);
    let without = [(Change::Keep, 20), (Change::New(2), 1), (Change::New(3), 1)];
    let increment = Increment { checkpoint_every: 21, ..Increment::new(&without) };
    let forgery = Forgery::of(&increment.build(&old));
    let last = payloads(&forgery)[1];
    // The checkpoint of the second entry says that it has none: its entry goes, and its size.
    let len = u32::try_from(HEAD + ORIGIN).unwrap().to_le_bytes();
    let header = last - 64;
    let mut forgery = forgery.at(last + 36, &[0]).at(header + 40, &len).at(header + 44, &len);
    let gone = last + HEAD + ORIGIN..last + HEAD + ORIGIN + 48;
    forgery.bytes[gone].fill(0);
    let frame = forgery.areas.frames.iter_mut().find(|f| f.payload.start == last).unwrap();
    frame.payload.end = last + HEAD + ORIGIN;
    let image = open(&forgery.seal()).unwrap();
    let report = image.verify_on(&old, Depth::Data, Job::silent()).unwrap();
    let said: Vec<String> = report.damage.iter().map(|damage| damage.what()).collect();
    assert_eq!(said, [ENTRIES]);
}

#[test]
fn a_run_goes_on_behind_inherited_blocks_as_a_run_of_its_own() {
    let old = noisy(30);
    let storage = MemStorage::new();
    let increment = Increment::new(&[]);
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, increment.superblock(&old)).unwrap();
    writer.push_run(RunKind::Zero, 4).unwrap();
    writer.inherit(2).unwrap();
    writer.push_run(RunKind::Zero, 3).unwrap();
    writer.checkpoint().unwrap();
    writer.inherit(0).unwrap();
    writer.push_run(RunKind::Zero, 1).unwrap();
    writer.inherit(20).unwrap();
    writer.finish_on(small_meta(&old.geometry, &[]), Some(&old)).unwrap();
    let bytes = storage.contents("image").unwrap();
    let runs: Vec<(u64, u64)> =
        open(&bytes).unwrap().entries(0).map(|e| e.unwrap()).map(|e| (e.block, e.run)).collect();
    assert_eq!(runs, [(0, 4), (6, 4)]);
    assert_sound(&bytes, &old);
}
