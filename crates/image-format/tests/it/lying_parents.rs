//! Parent states that are not what the link names, or do not hold what is asked of them.

use std::sync::Arc;

use aiv_image_format::meta::Meta;
use aiv_image_format::{
    Compression, DeltaBase, Depth, Encoder, Error, Features, Image, ImageWriter, ParentState,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::change::{Change, Increment};
use crate::forge::Forgery;
use crate::increments::{BLOCK, noisy, state};
use crate::parents::{Lie, Model, Part, read_block};
use crate::recipe::{Block, Fill, Recipe, open};

/// Three groups: the first is touched, the second inherited, the third decided as a whole.
fn increment() -> Increment {
    Increment::new(&[
        (Change::Keep, 3),
        (Change::Patch(1), 1),
        (Change::Moved(9), 1),
        (Change::Keep, 251),
        (Change::Unused, 128),
    ])
}

fn old() -> Model {
    noisy(3 * 128)
}

/// What finishing the image on this parent says.
fn finishing(increment: &Increment, old: &Model, parent: &dyn ParentState) -> Error {
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    increment.write(file, old, parent).expect_err("this is not the parent")
}

fn verifying(image: &Image, parent: &dyn ParentState) -> Error {
    image.verify_on(parent, Depth::Quick, Job::silent()).expect_err("this is not the parent")
}

#[track_caller]
fn assert_found(lie: Lie) {
    let (old, increment) = (old(), increment());
    let liar = old.lying(lie);
    let image = increment.open(&old);
    for error in [finishing(&increment, &old, &liar), verifying(&image, &liar)] {
        assert!(matches!(error, Error::Parent { .. }), "{error:?}");
        let wanted = format!("the parent state cannot be used: point {}", old.point);
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn a_parent_with_another_node_is_found_in_an_inherited_group() {
    assert_found(Lie::Node(1));
}

#[test]
fn a_parent_with_another_node_is_found_in_a_touched_group() {
    assert_found(Lie::Node(0));
}

#[test]
fn a_parent_with_another_node_is_found_in_a_group_that_nothing_is_taken_of() {
    assert_found(Lie::Node(2));
}

#[test]
fn a_parent_with_another_leaf_of_an_inherited_block_is_found() {
    assert_found(Lie::Leaf(100));
}

#[test]
fn a_parent_with_another_condition_of_an_inherited_block_is_found() {
    assert_found(Lie::Condition(2));
}

#[test]
fn a_parent_whose_stretches_leave_out_a_block_is_found() {
    assert_found(Lie::Gap(64));
}

#[test]
fn a_parent_whose_stretches_end_too_early_is_found() {
    assert_found(Lie::StretchesEnd(0));
}

#[test]
fn a_parent_with_too_few_nodes_is_found() {
    for count in [0, 1, 2] {
        assert_found(Lie::Nodes(count));
    }
}

#[test]
fn a_parent_with_a_node_too_many_is_found() {
    assert_found(Lie::ExtraNode);
}

#[test]
fn a_parent_whose_files_are_damaged_is_no_damage_of_the_image() {
    assert_found(Lie::Damaged(Part::Nodes));
    assert_found(Lie::Damaged(Part::Stretches));
    let (old, increment) = (old(), increment());
    let image = increment.open(&old);
    let broken = old.lying(Lie::Damaged(Part::Blocks));
    let error = image.verify_on(&broken, Depth::Data, Job::silent()).expect_err("no base");
    let Error::Parent { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, Error::Corrupt(_)), "{source:?}");
}

#[test]
fn a_parent_of_another_point_or_root_is_not_even_looked_at() {
    let (old, increment) = (old(), increment());
    let image = increment.open(&old);
    let mut root = old.clone();
    root.state_root.0[0] ^= 1;
    let mut point = old.clone();
    point.point.0[0] ^= 1;
    for other in [root, point] {
        let error = verifying(&image, &other);
        assert!(matches!(error, Error::Misuse(_)), "{error:?}");
        let storage = MemStorage::new();
        let superblock = increment.superblock(&old);
        let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
        writer.inherit(old.cells.len() as u64).unwrap();
        let error = writer.finish_on(Meta::default(), Some(&other)).expect_err("another parent");
        assert!(matches!(error, Error::Misuse(_)), "{error:?}");
    }
}

#[test]
fn an_increment_is_not_finished_without_its_parent_nor_a_full_image_with_one() {
    let old = old();
    let storage = MemStorage::new();
    let superblock = increment().superblock(&old);
    let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
    writer.inherit(old.cells.len() as u64).unwrap();
    assert!(matches!(writer.finish(Meta::default()), Err(Error::Misuse(_))));
    let recipe = Recipe::new(&[(Block::Zero, 3)]);
    let file = storage.create("full").unwrap();
    let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
    writer.push_run(aiv_image_format::RunKind::Zero, 3).unwrap();
    assert!(matches!(writer.finish_on(recipe.meta(), Some(&old)), Err(Error::Misuse(_))));
    let full = recipe.open();
    assert!(matches!(full.verify_on(&old, Depth::Quick, Job::silent()), Err(Error::Misuse(_))));
}

#[test]
fn a_block_is_not_inherited_without_a_parent() {
    let recipe = Recipe::new(&[(Block::Zero, 3)]);
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
    assert!(matches!(writer.inherit(1), Err(Error::Misuse(_))));
}

#[test]
fn a_writer_takes_no_block_beyond_the_end_of_the_disk() {
    let old = noisy(3);
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, increment().superblock(&old)).unwrap();
    let leaf = Default::default();
    assert!(matches!(writer.inherit(4), Err(Error::Misuse(_))));
    assert!(matches!(writer.inherit(u64::MAX), Err(Error::Misuse(_))));
    assert!(matches!(writer.push_parent(1 << 40, leaf), Err(Error::Misuse(_))));
    writer.inherit(2).unwrap();
    assert!(matches!(writer.inherit(u64::MAX), Err(Error::Misuse(_))));
    assert_eq!(writer.next_block(), 2, "what is refused decides nothing");
    let early = Some(&old as &dyn ParentState);
    writer.inherit(1).unwrap();
    assert!(matches!(writer.push_parent(0, leaf), Err(Error::Misuse(_))));
    assert!(matches!(writer.inherit(1), Err(Error::Misuse(_))));
    writer.inherit(0).unwrap();
    let meta = crate::change::small_meta(&old.geometry, &[]);
    writer.finish_on(meta, early).expect("all three are inherited");
}

#[test]
fn a_partly_unreadable_block_is_no_difference() {
    let old = noisy(3);
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, increment().superblock(&old)).unwrap();
    let bytes = &old.cells[0].1;
    let mut block = bytes.clone();
    block[9] ^= 1;
    let leaf = aiv_image_format::hash::leaf;
    let base = DeltaBase { block: 0, leaf: leaf(bytes), depth: 0, bytes };
    let encoded =
        Encoder::new(Compression::Zstd(1), true).encode_against(&block, leaf(&block), &base);
    let encoded = encoded.unwrap();
    assert!(encoded.is_delta());
    assert!(matches!(writer.push_damaged_block(&encoded), Err(Error::Misuse(_))));
    writer.push_block(&encoded).unwrap();
}

#[test]
fn a_full_image_with_a_gap_between_its_entries_is_damaged() {
    let recipe = Recipe::new(&[
        (Block::Data(Fill::Words(1)), 1),
        (Block::Zero, 4),
        (Block::Data(Fill::Words(2)), 1),
    ]);
    let bytes = recipe.build();
    let entry = Forgery::of(&bytes).areas.index.start + 64 + 48;
    // One block instead of four.
    let forged = Forgery::of(&bytes).at(entry + 5, &[1]).seal();
    let image = open(&forged).unwrap();
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    let said: Vec<String> = report.damage.iter().map(|damage| damage.what()).collect();
    assert_eq!(said, ["block is 2, allowed is covered by the index"]);
    let error = image.block_reader().read(2, &mut [0; 16 << 10]).expect_err("no entry");
    assert!(error.to_string().contains("block is 2, allowed is in the index"), "{error}");
}

#[test]
fn a_block_beyond_the_end_of_the_parent_is_not_inherited() {
    let old = noisy(130);
    let increment = Increment { len: 132 * BLOCK, ..Increment::new(&[]) };
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, increment.superblock(&old)).unwrap();
    writer.inherit(132).expect("the parent is not asked yet");
    assert!(matches!(writer.inherit(1), Err(Error::Misuse(_))), "there are only 132");
    let meta = crate::change::small_meta(&increment.geometry(&old.geometry), &[]);
    let error = writer.finish_on(meta, Some(&old)).expect_err("130 is not there");
    let wanted = "block is 130, allowed is covered by the index or the parent's state";
    assert!(error.to_string().contains(wanted), "{error}");
}

#[test]
fn a_block_of_another_length_than_in_the_parent_is_not_inherited() {
    for (old_short, new_short) in [(0, 100), (100, 0), (100, 101)] {
        let old = state(&[(Change::New(1), 3)], 3 * BLOCK - old_short);
        let increment = Increment { len: 3 * BLOCK - new_short, ..Increment::new(&[]) };
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        let mut writer = ImageWriter::create(file, increment.superblock(&old)).unwrap();
        writer.inherit(3).unwrap();
        let meta = crate::change::small_meta(&increment.geometry(&old.geometry), &[]);
        let error = writer.finish_on(meta, Some(&old)).expect_err("another length");
        let wanted = "block is 2, allowed is covered by the index or the parent's state";
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_verified_image_inherits_nothing_that_the_parent_does_not_have() {
    let old = noisy(130);
    let image = Increment::new(&[]).open(&old);
    // The same link, and a block less under it.
    let mut short = noisy(129);
    (short.point, short.state_root) = (old.point, old.state_root);
    let report = image.verify_on(&short, Depth::Data, Job::silent()).unwrap();
    let said: Vec<String> = report.damage.iter().map(|damage| damage.what()).collect();
    assert_eq!(said, ["block is 129, allowed is covered by the index or the parent's state"]);
}

#[test]
fn a_block_of_the_parent_is_not_read_without_the_parent() {
    let old = old();
    let image = increment().open(&old);
    let mut reader = image.block_reader();
    let mut out = vec![0; 16 << 10];
    for block in [3, 4] {
        let error = reader.read(block, &mut out).expect_err("it lies in the parent's state");
        assert!(matches!(error, Error::Misuse(_)), "{error:?}");
    }
    assert!(reader.read(0, &mut out).is_err(), "inherited");
    assert!(read_block(&image, None, 0, &mut out).is_err());
    assert!(read_block(&image, Some(&old), 3, &mut out).is_ok());
    assert!(read_block(&image, Some(&old), 3, &mut out[..100]).is_err(), "a buffer too short");
}

#[test]
fn the_feature_bits_of_increments_in_a_full_image_are_damage() {
    let bytes = Recipe::new(&[(Block::Zero, 3)]).build();
    for bits in [Features::DELTA, Features::PARENT, Features::DELTA | Features::PARENT] {
        let bits = u8::try_from(bits).unwrap();
        let forged: Arc<Vec<u8>> = Forgery::of(&bytes).superblock(16, &[bits]).seal();
        let error = open(&forged).err().expect("no parent").to_string();
        let wanted =
            format!("incompat is {bits}, allowed is no delta, no parent-blocks without a parent");
        assert!(error.contains(&wanted), "{error}");
        let mut superblock = Recipe::new(&[(Block::Zero, 3)]).superblock();
        superblock.features.incompat = bits.into();
        let file = MemStorage::new().create("image").unwrap();
        assert!(matches!(ImageWriter::create(file, superblock), Err(Error::Misuse(_))));
    }
}
