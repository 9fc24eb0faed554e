//! Whatever goes in comes out: bytes, kinds, roots, META.

use aiv_image_format::{Compression, Depth, Image, Kind, dump};
use aiv_volume_io::Job;
use proptest::prelude::*;

use crate::naive;
use crate::recipe::{Block, Fill, Recipe, open_with, read_all};

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![any::<u64>().prop_map(Fill::Noise), any::<u64>().prop_map(Fill::Words)]
}

fn block() -> impl Strategy<Value = (Block, u64)> {
    prop_oneof![
        4 => fill().prop_map(|fill| (Block::Data(fill), 1)),
        1 => (fill(), 2u64..4).prop_map(|(fill, run)| (Block::Data(fill), run)),
        2 => any::<usize>().prop_map(|n| (Block::Ref(n), 1)),
        2 => any::<usize>().prop_map(|n| (Block::Shifted(n), 1)),
        1 => fill().prop_map(|fill| (Block::PartlyUnreadable(fill), 1)),
        3 => (0usize..4, 1u64..6).prop_map(run),
        1 => (0usize..4, 100u64..300).prop_map(run),
    ]
}

fn run((kind, count): (usize, u64)) -> (Block, u64) {
    ([Block::Zero, Block::Unused, Block::Excluded, Block::Unreadable][kind], count)
}

fn recipe(block_log2: impl Strategy<Value = u32>) -> impl Strategy<Value = Recipe> {
    let compression = prop::sample::select(vec![
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1),
        Compression::Zstd(19),
    ]);
    let sector_size = prop::sample::select(vec![512u32, 4096]);
    let blocks = prop::collection::vec(block(), 1..14);
    let seal = prop::sample::select(crate::sealed::seals());
    let short_by = prop_oneof![Just(0u64), (0u64..32).prop_map(|n| n * 512), 1u64..16384];
    (blocks, block_log2, sector_size, short_by, compression, 0usize..5, seal).prop_map(
        |(blocks, block_log2, sector_size, short_by, compression, checkpoint_every, seal)| Recipe {
            block_size: 1 << block_log2,
            sector_size,
            short_by,
            compression,
            checkpoint_every,
            seal,
            ..Recipe::new(&blocks)
        },
    )
}

pub(crate) fn check(recipe: &Recipe) {
    let bytes = recipe.build();
    assert_eq!(bytes, recipe.build(), "same inputs, same bytes");
    let image = open_with(&bytes, &recipe.keys()).expect("a fresh image is sound");
    assert!(image.damage().is_empty());
    assert_eq!(*image.superblock(), recipe.superblock());
    let meta = aiv_image_format::meta::Meta {
        origins: vec![recipe.superblock().session],
        ..recipe.meta()
    };
    assert_eq!(*image.meta(), meta);

    let expected = recipe.expected();
    let read = read_all(&image).expect("every block reads");
    assert_eq!(read.len(), expected.len());
    for (number, (read, expected)) in read.iter().zip(&expected).enumerate() {
        assert_eq!(read.0, expected.kind, "kind of block {number}");
        assert!(read.1 == expected.bytes, "bytes of block {number}");
    }

    let trailer = image.trailer();
    let roots = naive::roots(image.geometry(), &read);
    assert_eq!(image.roots(), Some(roots));
    let is_sealed = image.superblock().is_sealed();
    let clear = [trailer.content_root, trailer.map_root, trailer.state_root];
    assert_eq!(clear == [roots.content, roots.map, roots.state], !is_sealed);
    let list_at = usize::try_from(trailer.stored_offset).unwrap();
    let mut stored = bytes[..list_at].to_vec();
    stored[crate::areas::Areas::of(&bytes).slots].fill(0);
    assert_eq!(trailer.stored_root, naive::stored_root(&stored));

    check_entries(&image, &expected.iter().map(|e| e.kind).collect::<Vec<_>>());
    check_totals(&image, &expected.iter().map(|e| e.kind).collect::<Vec<_>>());
    let report = image.verify(Depth::Data, Job::silent()).expect("memory does not fail");
    assert_eq!(report.damage, []);
    assert_eq!(report.bytes_checked, trailer.stored_offset);
    let totals = &trailer.totals;
    assert!(report.blocks_checked >= totals.blocks_data + totals.blocks_ref + totals.blocks_local);
    check_dump(&image, bytes.len() as u64);
}

/// From any first block, the entries cover all blocks from there on, in order.
fn check_entries(image: &Image, kinds: &[Kind]) {
    let blocks = kinds.len() as u64;
    for first in [0, 1, blocks / 2, blocks - 1] {
        let mut next = first;
        for entry in image.entries(first) {
            let entry = entry.expect("the index is sound");
            assert!(entry.block <= next && next < entry.end(), "{entry:?} covers {next}");
            for block in next..entry.end() {
                assert_eq!(entry.kind, kinds[usize::try_from(block).unwrap()]);
                assert_eq!(image.entry(block).unwrap(), Some(entry));
            }
            next = entry.end();
        }
        assert_eq!(next, blocks);
    }
    assert!(image.entries(blocks).next().is_none());
    assert_eq!(image.entry(blocks).unwrap(), None);
}

fn check_totals(image: &Image, kinds: &[Kind]) {
    let count = |kind| kinds.iter().filter(|&&k| k == kind).count() as u64;
    let totals = image.trailer().totals;
    assert_eq!(totals.blocks_data, count(Kind::Data));
    assert_eq!(totals.blocks_ref, count(Kind::Ref));
    assert_eq!(totals.blocks_local, count(Kind::Local));
    assert_eq!(totals.blocks_zero, count(Kind::Zero));
    assert_eq!(totals.blocks_unused, count(Kind::Unused));
    assert_eq!(totals.blocks_excluded, count(Kind::Excluded));
    assert_eq!(totals.blocks_unreadable, count(Kind::Unreadable));
}

/// Each line that begins with an offset goes on where the one before ended.
pub(crate) fn check_dump(image: &Image, len: u64) -> String {
    let mut text = String::new();
    dump(image, &mut text).expect("memory does not fail");
    let mut at = 0;
    for line in text.lines().filter(|line| line.starts_with("0x")) {
        let mut words = line.split_whitespace();
        let offset = words.next().and_then(|word| word.strip_prefix("0x")).expect("an offset");
        assert_eq!(u64::from_str_radix(offset, 16).expect("an offset"), at, "{line}");
        let count = words.next().and_then(|word| word.strip_prefix('+')).expect("a length");
        at += count.parse::<u64>().expect("a length");
    }
    assert_eq!(at, len, "every byte is accounted for");
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn an_image_gives_back_what_was_written(recipe in recipe(14u32..=16)) {
        check(&recipe);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]
    #[test]
    fn an_image_of_large_blocks_gives_back_what_was_written(recipe in recipe(20u32..=20)) {
        let few = recipe.blocks.iter().copied().filter(|b| b.1 < 6);
        check(&Recipe { blocks: few.chain([(Block::Zero, 2)]).collect(), ..recipe });
    }
}

#[test]
fn frames_too_large_for_the_index_are_read_by_their_header() {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 1),
        (Block::Data(Fill::Words(2)), 1),
        (Block::Ref(0), 1),
        (Block::PartlyUnreadable(Fill::Noise(3)), 1),
        (Block::Data(Fill::Noise(4)), 1),
    ];
    let recipe = Recipe { block_size: 4 << 20, short_by: 100, ..Recipe::new(&blocks) };
    check(&recipe);
    let entry = recipe.open().entry(0).unwrap().expect("the index covers every block");
    assert_eq!(entry.frame_size, 0, "the index cannot say how large it is");
}

#[test]
fn a_disk_smaller_than_a_sector_is_an_image_too() {
    let blocks = [(Block::Data(Fill::Noise(1)), 1)];
    check(&Recipe { short_by: (16 << 10) - 1, ..Recipe::new(&blocks) });
}

#[test]
fn an_image_says_the_same_however_its_runs_were_cut() {
    let whole = Recipe::new(&[(Block::Zero, 500), (Block::Unused, 10)]);
    let cut = Recipe::new(&[
        (Block::Zero, 1),
        (Block::Zero, 499),
        (Block::Unused, 9),
        (Block::Unused, 1),
    ]);
    assert_eq!(whole.build(), cut.build());
    let checkpoints = Recipe { checkpoint_every: 1, ..cut };
    assert_eq!(whole.open().trailer().state_root, checkpoints.open().trailer().state_root);
    assert_eq!(checkpoints.open().entries(0).count(), 2);
}
