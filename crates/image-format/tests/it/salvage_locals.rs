//! Differences to blocks of the same image come back when the frames they build on do, and are
//! named with that reason when those do not.

use std::ops::Range;
use std::sync::Arc;

use aiv_image_format::hash::leaf;
use aiv_image_format::salvage::{Evidence, Fate, Hints, Loss};
use aiv_image_format::{Compression, Encoder, ImageWriter, Kind, LocalBase, RunKind, Seal};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::Storage;

use crate::areas::{Areas, CHECKPOINT, DATA, Frame, LOCAL, PAGE, number};
use crate::damage::for_each;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise};
use crate::salvage::{Salvaged, framed, hints, judge, read, scan, scan_with, truth};
use crate::sealed::key;

/// Differences across two blocks each, some of them far behind those.
fn shifted() -> Recipe {
    let mut blocks: Vec<(Block, u64)> = Vec::new();
    for n in 0..8 {
        blocks.extend([
            (Block::Data(Fill::Noise(n as u64)), 1),
            (Block::Data(Fill::Words(n as u64)), 1),
            (Block::Shifted(2 * n), 1),
            (Block::Unused, 3),
            (Block::Shifted(n), 1),
        ]);
    }
    blocks.push((Block::Ref(3), 1));
    Recipe { checkpoint_every: 12, small_meta: true, ..Recipe::new(&blocks) }
}

/// A frame with a difference: its block, and those it builds on.
struct Local {
    block: usize,
    bases: Vec<usize>,
    frame: Frame,
}

fn locals(bytes: &[u8]) -> Vec<Local> {
    let frames = Areas::of(bytes).frames.into_iter().filter(|frame| frame.kind == LOCAL);
    let of = |frame: Frame| {
        let payload = frame.payload.start;
        let count = usize::from(bytes[payload]);
        let bases = (0..count).map(|at| number(bytes, payload + 8 + 40 * at)).collect();
        Local { block: number(bytes, frame.header.start + 32), bases, frame }
    };
    frames.map(of).collect()
}

/// Checks that each difference is there whose frames none of `lost` touches, and says how many
/// were lost with a base.
fn judge_locals(found: &Salvaged, bytes: &[u8], lost: &[Range<usize>]) -> usize {
    let data = framed(bytes);
    let is_touched = |frame: &Frame| {
        lost.iter().any(|l| l.start < frame.payload.end && frame.header.start < l.end)
    };
    let mut with_base = 0;
    for Local { block, bases, frame } in locals(bytes) {
        let loses_base = bases.iter().any(|base| is_touched(&data[base]));
        match &found[block] {
            Ok((kind, _)) => assert_eq!(*kind, Kind::Local),
            Err(why) => {
                assert!(is_touched(&frame) || loses_base, "block {block} is lost: {why:?}");
                if !is_touched(&frame) {
                    assert_eq!(*why, Loss::Base, "block {block}");
                    with_base += 1;
                }
            }
        }
    }
    with_base
}

#[test]
fn a_sound_image_is_salvaged_with_its_differences_by_index_checkpoints_and_frames() {
    let recipe = shifted();
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let truth = truth(&recipe);
    let whole = Patched::new(&bytes);
    let without_index = whole.clone().cut(areas.index.start);
    let checkpoints = areas.frames.iter().filter(|frame| frame.kind == CHECKPOINT);
    let zeros = |frame: &Frame| vec![0; frame.payload.end - frame.header.start];
    let frames_only = checkpoints
        .fold(without_index.clone(), |file, frame| file.with(frame.header.start, &zeros(frame)));
    for (file, by) in [
        (whole, Evidence::Index),
        (without_index, Evidence::Checkpoint),
        (frames_only, Evidence::Frame),
    ] {
        let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
        let found = read(&salvage);
        assert_eq!(judge_locals(&found, &bytes, &[]), 0);
        for Local { block, .. } in locals(&bytes) {
            assert!(found[block] == Ok(truth[block].clone()), "block {block} by {by:?}");
            let fate = salvage.fate(block as u64);
            assert!(matches!(fate, Fate::Decided(evidence, _) if evidence == by), "{fate:?}");
        }
    }
}

#[test]
fn lost_sectors_cost_the_frames_they_touch_and_the_differences_to_them() {
    let recipe = shifted();
    let seal = Some(Seal::new(key(), 0x0102_0304));
    let sealed = Recipe { seal, ..recipe.clone() };
    for (recipe, has_index) in [(&recipe, true), (&recipe, false), (&sealed, true)] {
        let bytes = recipe.build();
        let (truth, frames) = (truth(recipe), framed(&recipe_of(recipe).build()));
        let index = Areas::of(&bytes).index.start;
        let lost_with_base = std::sync::atomic::AtomicUsize::new(0);
        for_each(
            0..40,
            || (),
            |(), seed| {
                let mut random = Random::new(&[seed as u64]);
                let mut lost: Vec<Range<usize>> = (0..1 + random.below(4))
                    .map(|_| {
                        let sector = 1 + random.below(index / PAGE - 1);
                        sector * PAGE..(sector + 1) * PAGE
                    })
                    .collect();
                let file = lost.iter().fold(Patched::new(&bytes), |file, lost| {
                    file.with(lost.start, &noise(seed as u64, PAGE))
                });
                let file = if has_index { file } else { file.cut(index) };
                if !has_index {
                    lost.push(index..bytes.len());
                }
                let keys = recipe.keys();
                let salvage = scan_with(Arc::new(file), &keys, &hints(recipe)).unwrap();
                let found = read(&salvage);
                if recipe.seal.is_none() {
                    judge(&found, &truth, &frames, &lost);
                    let count = judge_locals(&found, &bytes, &lost);
                    lost_with_base.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
                }
                for (block, (found, truth)) in found.iter().zip(&truth).enumerate() {
                    let Ok((_, bytes)) = found else { continue };
                    assert!(*bytes == truth.1, "block {block} is made up");
                }
                let is_there = |local: &Local| found[local.block].is_ok();
                let plain = locals(&recipe_of(recipe).build());
                assert!(plain.iter().any(is_there), "seed {seed}");
            },
        );
        let count = lost_with_base.into_inner();
        assert!(recipe.seal.is_some() || count > 20, "{count} lost with a base");
    }
}

/// The same image without a key.
fn recipe_of(recipe: &Recipe) -> Recipe {
    Recipe { seal: None, ..recipe.clone() }
}

#[test]
fn a_base_that_is_a_repetition_is_found_while_anything_says_so() {
    let storage = MemStorage::new();
    let superblock = Recipe::new(&[(Block::Shifted(0), 6)]).superblock();
    let geometry = superblock.geometry;
    let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(1), true);
    let whole = noise(1, 16 << 10);
    let block = [&whole[5000..], &whole[..5000]].concat();
    let place = writer.push_block(&encoder.encode(&whole, leaf(&whole)).unwrap()).unwrap();
    writer.push_ref(place, leaf(&whole)).unwrap();
    let base = LocalBase { block: 1, leaf: leaf(&whole), bytes: &whole };
    let encoded = encoder.encode_local(&block, leaf(&block), &[base]).unwrap();
    writer.push_block(&encoded).unwrap();
    writer.push_run(RunKind::Zero, 3).unwrap();
    writer.finish(crate::change::small_meta(&geometry, &[])).unwrap();
    let bytes = storage.contents("image").unwrap();
    let areas = Areas::of(&bytes);
    let read = |file: Patched| read(&scan(Arc::new(file), &Hints::default()).unwrap());
    let file = Patched::new(&bytes);
    assert!(read(file.clone())[2] == Ok((Kind::Local, block.clone())));
    let cut = file.cut(areas.index.start);
    assert!(read(cut.clone())[2] == Ok((Kind::Local, block)), "by the checkpoint");
    let checkpoint = areas.frame(CHECKPOINT).header.start;
    let found = read(cut.with(checkpoint, &[0; 64]));
    assert!(found[0].is_ok(), "its frame says which block it is");
    assert_eq!(found[1..3], [Err(Loss::Unknown), Err(Loss::Base)]);
}

#[test]
fn a_frame_in_the_place_of_a_base_with_another_content_is_none() {
    let recipe = shifted();
    let bytes = recipe.build();
    let first = locals(&bytes).remove(0);
    let data = framed(&bytes);
    let (base, other) = (&data[&first.bases[0]], &data[&first.bases[1]]);
    assert_eq!((base.kind, other.kind), (DATA, DATA));
    // The frame of another block where that of the base was.
    let at = base.header.start;
    let frame = &bytes[other.header.start..other.padding.end];
    let file = Patched::new(&bytes).with(at, &vec![0; base.padding.end - at]).with(at, frame);
    let found = read(&scan(Arc::new(file), &hints(&recipe)).unwrap());
    assert_eq!(found[first.block], Err(Loss::Base));
}
