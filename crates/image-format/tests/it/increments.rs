//! Whatever changed since the parent's state: image and parent together give the new state.

use aiv_image_format::hash::FAN_OUT;
use aiv_image_format::{
    BlockSize, Compression, Depth, Digest, Geometry, GroupNode, Image, Kind, ParentState, PointId,
};
use aiv_volume_io::Job;
use proptest::prelude::*;

use crate::change::{Change, Increment, full_image};
use crate::naive;
use crate::parents::{Files, Model, read_block};
use crate::recipe::open;
use crate::round_trip::check_dump;

pub(crate) const BLOCK: u64 = 16 << 10;

fn geometry(len: u64) -> Geometry {
    Geometry::new(len, BlockSize::new(16 << 10).unwrap(), 512).unwrap()
}

/// A state that came about by `changes` on a disk that was zero.
pub(crate) fn state(changes: &[(Change, u64)], len: u64) -> Model {
    let zero = Model::new(geometry(1), PointId([1; 16]), vec![(Kind::Zero, vec![0])]);
    Increment { len, id: 8, ..Increment::new(changes) }.state(&zero)
}

/// Verifying at any depth finds nothing, with `parent` and without it.
fn verify(image: &Image, parent: &dyn ParentState) {
    for depth in [Depth::Quick, Depth::Stored, Depth::Data] {
        let report = image.verify_on(parent, depth, Job::silent()).expect("memory reads");
        assert_eq!(report.damage, [], "{depth:?}");
        assert!(report.is_sound() && !report.without_parent);
        let report = image.verify(depth, Job::silent()).expect("memory reads");
        assert_eq!(report.damage, [], "{depth:?} without the parent");
        assert!(report.is_sound() && report.without_parent);
    }
}

/// Everything that must hold for an increment on `old`, read through `parent`; returns it.
fn check(increment: &Increment, old: &Model, parent: &dyn ParentState) -> (Image, Model) {
    let bytes = increment.build(old);
    assert!(bytes == increment.build_on(old, parent), "same inputs, same bytes");
    let image = open(&bytes).expect("a fresh image opens");
    let new = increment.state(old);
    assert_eq!(*image.geometry(), new.geometry);
    for (block, cell) in (0..).zip(&new.cells) {
        let mut out = vec![0xaa; cell.1.len()];
        read_block(&image, Some(parent), block, &mut out).expect("it reads");
        assert!(out == cell.1, "block {block}");
    }
    let trailer = image.trailer();
    let roots = naive::roots(&new.geometry, &new.cells);
    assert_eq!(trailer.content_root, roots.content);
    assert_eq!(trailer.map_root, roots.map);
    assert_eq!(trailer.state_root, roots.state);
    let full = open(&full_image(&new, 7)).expect("a fresh image opens");
    assert_eq!(full.trailer().state_root, roots.state, "a full image of the same state");
    assert_eq!(full.trailer().content_root, roots.content);
    assert_eq!(full.trailer().map_root, roots.map);
    check_groups(&full, &geometry(1), &new);
    verify(&image, parent);
    check_groups(&image, &old.geometry, &new);
    check_dump(&image, bytes.len() as u64);
    (image, new)
}

/// The image knows the nodes of the groups it touches, and of those that gained or lost blocks,
/// and of no others.
fn check_groups(image: &Image, old: &Geometry, new: &Model) {
    let end = |of: &Geometry, group: u64| {
        let end = ((group + 1) * FAN_OUT as u64).min(of.blocks());
        (end, of.block_len(end - 1))
    };
    let entries: Vec<_> = image.entries(0).map(Result::unwrap).collect();
    let is_touched = |group: u64| {
        let first = group * FAN_OUT as u64;
        let (next, _) = end(&new.geometry, group);
        entries.iter().any(|entry| entry.block < next && entry.end() > first)
            || first >= old.blocks()
            || end(old, group) != end(&new.geometry, group)
    };
    let nodes = (0..).zip(new.nodes()).map(|(group, node)| (group, node.unwrap()));
    let wanted: Vec<(u64, GroupNode)> = nodes.filter(|(group, _)| is_touched(*group)).collect();
    let spans = image.groups().map(Result::unwrap);
    let found: Vec<(u64, GroupNode)> = spans
        .flat_map(|span| (span.first..span.first + span.count).map(move |group| (group, span.node)))
        .collect();
    assert_eq!(found, wanted);
}

fn change() -> impl Strategy<Value = (Change, u64)> {
    let run = || prop_oneof![4 => 1u64..3, 1 => 3u64..140];
    prop_oneof![
        8 => run().prop_map(|run| (Change::Keep, run)),
        2 => any::<u64>().prop_map(|seed| (Change::New(seed), 1)),
        2 => any::<u64>().prop_map(|seed| (Change::Words(seed), 1)),
        3 => any::<u64>().prop_map(|seed| (Change::Patch(seed), 1)),
        2 => any::<(u64, u64)>().prop_map(|(from, seed)| (Change::PatchOf(from, seed), 1)),
        2 => any::<u64>().prop_map(|from| (Change::Moved(from), 1)),
        2 => any::<usize>().prop_map(|number| (Change::Repeat(number), 1)),
        2 => any::<usize>().prop_map(|number| (Change::Shifted(number), 1)),
        1 => any::<u64>().prop_map(|seed| (Change::PartlyUnreadable(seed), 1)),
        4 => (0usize..4, run()).prop_map(|(kind, run)| {
            let kinds = [Change::Zero, Change::Unused, Change::Excluded, Change::Unreadable];
            (kinds[kind], run)
        }),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(Change, u64)>> {
    prop::collection::vec(change(), 0..12)
}

/// Lengths around borders of blocks and groups.
fn length() -> impl Strategy<Value = u64> {
    let blocks = prop_oneof![Just(1u64), 2u64..20, 126u64..131, 254u64..259];
    (blocks, prop_oneof![3 => Just(0u64), 1 => 1u64..BLOCK, 1 => Just(512u64)])
        .prop_map(|(blocks, short_by)| blocks * BLOCK - short_by)
}

fn increment() -> impl Strategy<Value = Increment> {
    let compression = prop::sample::select(vec![
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1),
        Compression::Zstd(9),
    ]);
    // Half of all disks keep their length.
    let len = prop_oneof![Just(0u64), length()];
    (changes(), len, compression, prop_oneof![Just(0u64), 1u64..9, 60u64..200]).prop_map(
        |(changes, len, compression, checkpoint_every)| Increment {
            len,
            compression,
            checkpoint_every,
            ..Increment::new(&changes)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn an_increment_and_its_parent_give_the_new_state(
        parent in changes(), len in length(), increment in increment(),
    ) {
        let old = state(&parent, len);
        check(&increment, &old, &old);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn increments_on_increments_give_their_states(
        parent in changes(), len in length(), steps in prop::collection::vec(increment(), 1..4),
    ) {
        let mut old = state(&parent, len);
        let mut files = Files::new(open(&full_image(&old, 8))?, None)?;
        for (number, step) in (20..).zip(steps) {
            let step = Increment { id: number, ..step };
            let (image, new) = check(&step, &old, &files);
            files = Files::new(image, Some(files))?;
            old = files.model();
            prop_assert_eq!(old.state_root, new.state_root);
            prop_assert!(old.depths.iter().all(|&depth| depth <= 2));
        }
    }
}

/// A parent state with bytes worth a difference in each of its blocks.
pub(crate) fn noisy(blocks: u64) -> Model {
    state(&[(Change::New(1), blocks)], blocks * BLOCK)
}

fn kinds(image: &Image) -> Vec<(u64, Kind)> {
    image.entries(0).map(|entry| entry.unwrap()).map(|entry| (entry.block, entry.kind)).collect()
}

#[test]
fn an_increment_without_changes_is_a_handful_of_kib_and_has_no_index() {
    let old = noisy(300);
    let increment = Increment::new(&[]);
    let (image, _) = check(&increment, &old, &old);
    let trailer = image.trailer();
    assert_eq!((trailer.index_pages, trailer.tree_pages), (0, 0));
    assert_eq!(trailer.index_root, Digest::default());
    assert_eq!(trailer.state_root, old.state_root);
    assert_eq!(image.entries(0).count(), 0);
    // Of which 76 KiB are the tail: two trailers far apart, and the superblock copy.
    assert!(trailer.parity_len <= 24 << 10, "{}", trailer.parity_len);
    let without_parity = trailer.file_len - trailer.parity_len;
    assert!(without_parity < 100 << 10, "{without_parity}");
    assert!(trailer.stored_offset < 20 << 10, "{}", trailer.stored_offset);
}

#[test]
fn every_kind_of_entry_is_stored_as_it_was_asked_for() {
    let old = noisy(20);
    let changes = [
        (Change::Keep, 1),
        (Change::New(2), 1),
        (Change::Patch(3), 1),
        (Change::PatchOf(9, 4), 1),
        (Change::Moved(5), 1),
        (Change::Repeat(0), 1),
        (Change::Moved(6), 1),
        (Change::PartlyUnreadable(5), 1),
        (Change::Unreadable, 2),
        (Change::Zero, 1),
        (Change::Unused, 2),
        (Change::Excluded, 1),
    ];
    let (image, _) = check(&Increment::new(&changes), &old, &old);
    let wanted = [
        (1, Kind::Data),
        (2, Kind::Delta),
        (3, Kind::Delta),
        (4, Kind::Parent),
        (5, Kind::Ref),
        (6, Kind::Parent),
        (7, Kind::Unreadable),
        (8, Kind::Unreadable),
        (10, Kind::Zero),
        (11, Kind::Unused),
        (13, Kind::Excluded),
    ];
    assert_eq!(kinds(&image), wanted);
    assert_eq!(image.entry(6).unwrap().unwrap().parent_block, 6, "its own number will do");
    let totals = image.trailer().totals;
    assert_eq!((totals.blocks_delta, totals.blocks_parent), (2, 2));
    assert_eq!(totals.blocks_decided(), 13);
}

#[test]
fn a_grandchild_is_a_difference_to_a_difference_and_a_great_grandchild_is_not() {
    let mut old = noisy(3);
    let mut files = Files::new(open(&full_image(&old, 8)).unwrap(), None).unwrap();
    for (id, depth) in [(20, 1), (21, 2), (22, 0), (23, 1)] {
        let step = Increment { id, ..Increment::new(&[(Change::Patch(u64::from(id)), 1)]) };
        let (image, _) = check(&step, &old, &files);
        let kind = if depth == 0 { Kind::Data } else { Kind::Delta };
        assert_eq!(kinds(&image), [(0, kind)], "image {id}");
        files = Files::new(image, Some(files)).unwrap();
        old = files.model();
        assert_eq!(old.depths, [depth, 0, 0]);
    }
}

#[test]
fn a_disk_that_shrank_inside_a_group_has_the_root_of_what_is_left() {
    let old = noisy(140);
    for blocks in [139, 129, 128, 127, 1] {
        let increment = Increment { len: blocks * BLOCK, ..Increment::new(&[]) };
        let (image, _) = check(&increment, &old, &old);
        assert_eq!(kinds(&image), [], "{blocks} blocks are inherited");
    }
}

#[test]
fn a_disk_that_grew_inside_a_group_inherits_the_beginning_of_it() {
    let old = noisy(130);
    for blocks in [131, 140, 256, 257] {
        let increment = Increment { len: blocks * BLOCK, ..Increment::new(&[]) };
        let (image, _) = check(&increment, &old, &old);
        assert_eq!(kinds(&image).first(), Some(&(130, Kind::Data)), "{blocks} blocks");
    }
}

#[test]
fn a_last_block_whose_length_changed_is_decided() {
    for (before, after) in [(0, 1), (1, 0), (512, 513), (BLOCK - 1, 0)] {
        let old = state(&[(Change::New(1), 130)], 130 * BLOCK - before);
        let increment = Increment { len: 130 * BLOCK - after, ..Increment::new(&[]) };
        let (image, _) = check(&increment, &old, &old);
        assert_eq!(kinds(&image), [(129, Kind::Data)]);
    }
}

#[test]
fn a_group_that_constant_entries_do_not_wholly_cover_is_in_the_tree_section() {
    let old = noisy(3 * 128 + 5);
    let increment = Increment::new(&[(Change::Keep, 127), (Change::Zero, 130)]);
    let (image, _) = check(&increment, &old, &old);
    let mut text = String::new();
    aiv_image_format::dump(&image, &mut text).unwrap();
    let listed: Vec<&str> = text.lines().filter(|line| line.contains(": content ")).collect();
    let is_of = |(line, group): (&&str, u64)| line.contains(&format!("group {group}: "));
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().zip([0, 2]).all(is_of), "{listed:?}");
}

#[test]
fn runs_over_several_groups_give_each_of_them_its_nodes() {
    // The last group is short, and so is its last block.
    let old = state(&[(Change::Unused, 900)], 900 * BLOCK - 512);
    let changes: [&[(Change, u64)]; 5] = [
        &[(Change::Zero, 900)],
        &[(Change::Keep, 100), (Change::Zero, 700), (Change::New(1), 1), (Change::Unused, 99)],
        &[(Change::New(1), 1), (Change::Excluded, 700), (Change::Zero, 199)],
        &[(Change::Keep, 128), (Change::Zero, 256), (Change::Unreadable, 300), (Change::New(1), 1)],
        &[(Change::Zero, 50), (Change::Unused, 300), (Change::Keep, 300), (Change::Unused, 250)],
    ];
    for changes in changes {
        check(&Increment::new(changes), &old, &old);
    }
}

#[test]
fn a_group_that_lost_blocks_is_in_the_tree_section_though_no_entry_touches_it() {
    let old = noisy(140);
    let increment = Increment { len: 139 * BLOCK, ..Increment::new(&[]) };
    let mut text = String::new();
    aiv_image_format::dump(&increment.open(&old), &mut text).unwrap();
    assert!(text.contains("tree page 0, 1 nodes"), "{text}");
    assert!(text.contains("group 1: content"), "{text}");
}

#[test]
fn entries_with_gaps_are_found_from_any_block_across_pages() {
    // One entry for each odd block: 250 of them, on three pages.
    let old = state(&[(Change::Unused, 520)], 520 * BLOCK);
    let mut changes = vec![(Change::Keep, 1)];
    changes.extend((0..250).flat_map(|_| [(Change::Zero, 1), (Change::Keep, 1)]));
    let image = Increment { checkpoint_every: 61, ..Increment::new(&changes) }.open(&old);
    assert_eq!((image.trailer().index_leaf_pages, image.trailer().index_pages), (3, 4));
    let is_decided = |block: u64| block % 2 == 1 && block < 500;
    for first in 0..520 {
        let entry = image.entry(first).unwrap();
        assert_eq!(entry.map(|entry| entry.block), is_decided(first).then_some(first));
        let from: Vec<u64> = image.entries(first).map(|entry| entry.unwrap().block).collect();
        let wanted: Vec<u64> = (first..520).filter(|&block| is_decided(block)).collect();
        assert_eq!(from, wanted, "from block {first}");
    }
    verify(&image, &old);
}

#[test]
fn an_index_root_without_an_index_is_refused() {
    let old = noisy(3);
    let bytes = Increment::new(&[]).build(&old);
    let forged = crate::forge::Forgery::of(&bytes).trailer(280, &[1]).seal_trailers_only();
    let error = open(&forged).err().expect("there is no page it could be of").to_string();
    assert!(error.contains("its index root and the number of index pages do not agree"), "{error}");
}
