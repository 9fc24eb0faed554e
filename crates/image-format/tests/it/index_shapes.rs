//! Indexes of several levels, many checkpoints, and disks far larger than memory.

use std::time::{Duration, Instant};

use aiv_image_format::{
    BlockSize, Depth, Digest, Error, Geometry, Image, ImageWriter, IndexEntry, Kind, RunKind,
    limits,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, Job, Storage};

use crate::naive;
use crate::recipe::{Block, Fill, Recipe, open, read_all};

/// Entries one index page holds.
const PER_PAGE: u64 = 84;

/// Alternating runs of one block, with a data block now and then: one entry per block.
fn one_entry_per_block(blocks: u64, data_every: u64) -> Recipe {
    let block = |n: u64| match n {
        n if n % data_every == data_every - 1 => Block::Data(Fill::Words(n)),
        n if n % 2 == 0 => Block::Zero,
        _ => Block::Unused,
    };
    Recipe::new(&(0..blocks).map(|n| (block(n), 1)).collect::<Vec<_>>())
}

#[test]
fn an_index_of_three_levels_finds_every_block_at_every_page_border() {
    let blocks = 20_000;
    let recipe = one_entry_per_block(blocks, 1_999);
    let image = recipe.open();
    let trailer = image.trailer();
    let leaf_pages = blocks.div_ceil(PER_PAGE);
    assert_eq!(trailer.index_leaf_pages, leaf_pages);
    assert_eq!(trailer.index_pages, leaf_pages + leaf_pages.div_ceil(PER_PAGE) + 1);

    let borders =
        (0..leaf_pages).flat_map(|page| [page * PER_PAGE, page * PER_PAGE + PER_PAGE - 1]);
    for block in borders.filter(|&block| block < blocks).chain([blocks - 1]) {
        let entry = image.entry(block).unwrap().expect("the index covers every block");
        assert_eq!((entry.block, entry.run), (block, 1));
        let next: Vec<u64> = image.entries(block).take(3).map(|e| e.unwrap().block).collect();
        let expected: Vec<u64> = (block..blocks).take(3).collect();
        assert_eq!(next, expected);
    }
    let read = read_all(&image).expect("every block reads");
    let roots = naive::roots(image.geometry(), &read);
    assert_eq!(trailer.state_root, roots.state);
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn more_entries_than_one_checkpoint_may_hold_make_another_checkpoint() {
    let blocks = limits::CHECKPOINT_ENTRIES_MAX as u64 + 500;
    let recipe = one_entry_per_block(blocks, 30_011);
    let image = recipe.open();
    assert_eq!(image.trailer().index_leaf_pages, blocks.div_ceil(PER_PAGE));
    let text = crate::round_trip::check_dump(&image, image.trailer().file_len);
    assert_eq!(text.matches("CHECKPOINT 0, previous 0x0, ").count(), 1);
    assert_eq!(text.matches("CHECKPOINT 1, previous ").count(), 1);
    assert_eq!(text.matches(", 65536 entries, ").count(), 1, "the first is full");
    assert!(image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
    assert_eq!(image.entry(blocks - 1).unwrap().map(|e| e.block), Some(blocks - 1));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may look at the clock")]
fn many_bytes_make_a_checkpoint_every_64_mib() {
    let megabytes = 150;
    let blocks = vec![(Block::Data(Fill::Noise(1)), 1); megabytes];
    let recipe = Recipe { block_size: 1 << 20, ..Recipe::new(&blocks) };
    let bytes = recipe.build();
    let image = open(&bytes).expect("a fresh image is sound");
    let text = crate::round_trip::check_dump(&image, bytes.len() as u64);
    assert_eq!(text.matches(" CHECKPOINT ").count(), 3);

    let started = Instant::now();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    assert!(started.elapsed() < Duration::from_secs(20), "a verify of 150 MB takes seconds");
}

#[test]
fn a_hundred_sparse_tebibytes_cost_a_few_pages() {
    const TIB: u64 = 1 << 40;
    let size = BlockSize::recommended(100 * TIB);
    let geometry = Geometry::new(100 * TIB - 512, size, 512).expect("within the limits");
    let superblock =
        aiv_image_format::Superblock { geometry, ..Recipe::new(&[(Block::Zero, 1)]).superblock() };
    let storage = MemStorage::new();
    let mut writer = ImageWriter::create(storage.create("image").unwrap(), superblock).unwrap();
    let mut encoder = aiv_image_format::Encoder::new(aiv_image_format::Compression::Lz4, true);
    let block = vec![7; size.bytes()];
    let leaf = aiv_image_format::hash::leaf(&block);
    for tenth in 0..10 {
        writer.push_block(&encoder.encode(&block, leaf).unwrap()).unwrap();
        let end = (tenth + 1) * (geometry.blocks() / 11);
        writer.push_run(RunKind::Unused, end - writer.next_block()).unwrap();
    }
    writer.push_run(RunKind::Zero, geometry.blocks() - writer.next_block()).unwrap();
    let meta = aiv_image_format::meta::Meta {
        disk: aiv_image_format::meta::DiskInfo::bare(geometry.len(), 512),
        ..Default::default()
    };
    writer.finish(meta).unwrap();

    let image = open(&storage.contents("image").unwrap()).expect("a fresh image is sound");
    let runs = geometry.blocks() / limits::RUN_MAX;
    assert!((image.entries(0).count() as u64) < runs + 40, "runs are as long as they can be");
    assert!(image.trailer().file_len < 256 << 10);
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let mut out = vec![1; geometry.block_len(geometry.blocks() - 1) as usize];
    assert_eq!(out.len(), size.bytes() - 512);
    let kind = image.block_reader().read(geometry.blocks() - 1, &mut out).unwrap();
    assert_eq!((kind, out.iter().max()), (Kind::Zero, Some(&0)));
}

#[test]
fn the_iterator_over_entries_ends_for_good_after_an_error() {
    let recipe = one_entry_per_block(200, 1_000);
    let bytes = recipe.build();
    let sound = open(&bytes).expect("a fresh image is sound");
    let second_page = usize::try_from(sound.trailer().index_offset).unwrap() + 4096;
    let patched = crate::patched::Patched::new(&bytes).flipped(second_page + 100, 0);
    let image = Image::open(std::sync::Arc::new(patched)).expect("the index is read later");
    let mut entries = image.entries(0);
    let good = entries.by_ref().take_while(Result::is_ok).count() as u64;
    assert_eq!(good, PER_PAGE);
    assert!((0..5).all(|_| entries.next().is_none()));
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Noise(1)), 1), (Block::Zero, 3)]);
    let create = |change: fn(&mut aiv_image_format::Superblock)| {
        let mut superblock = recipe.superblock();
        change(&mut superblock);
        ImageWriter::create(MemStorage::new().create("image").unwrap(), superblock)
    };
    let refused = |change| matches!(create(change), Err(Error::Misuse(_)));
    assert!(refused(|s| s.writer = "nul\0inside".into()));
    assert!(refused(|s| s.features.incompat = 1));
    assert!(refused(|s| s.features.autoclear = 1));
    assert!(refused(|s| s.kind = aiv_image_format::ImageKind::Incremental));
    assert!(!refused(|s| s.writer = "a name longer than the 32 bytes there are".into()));

    let mut writer = create(|_| {}).unwrap();
    let place = aiv_image_format::BlockPlace { address: 4096, frame_size: 128 };
    assert!(writer.push_ref(place, Digest::default()).is_err(), "no frame there yet");
    assert!(writer.push_run(RunKind::Zero, 5).is_err(), "only four blocks");
    assert!(writer.push_run(RunKind::Zero, u64::MAX).is_err());
    writer.push_run(RunKind::Zero, 3).unwrap();
    assert!(writer.finish(recipe.meta()).is_err(), "one block is missing");
}

#[test]
fn meta_that_could_not_be_read_back_is_refused_before_anything_is_lost() {
    let recipe = Recipe::new(&[(Block::Zero, 3)]);
    let finish = |change: &dyn Fn(&mut aiv_image_format::meta::Meta)| {
        let file = MemStorage::new().create("image").unwrap();
        let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
        writer.push_run(RunKind::Zero, 3).unwrap();
        let mut meta = recipe.meta();
        change(&mut meta);
        match writer.finish(meta) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let large = |seed| -> String {
        let noise = crate::recipe::noise(seed, (16 << 20) - 4096);
        noise.into_iter().map(|b| char::from(b'0' + b % 64)).collect()
    };
    assert_eq!(finish(&|_| {}), "");
    assert!(finish(&|m| m.disk.len += 1).contains("size of the disk"));
    let errors = |starts: [u64; 2]| starts.map(|start| Extent::new(start, 1)).to_vec();
    assert_eq!(finish(&|m| m.source_errors = errors([5, 9])), "");
    assert!(finish(&|m| m.source_errors = errors([9, 5])).contains("out of order"));
    assert!(finish(&|m| drop(m.disk.regions.pop())).contains("size of the disk"));
    assert!(finish(&|m| m.disk.regions.reverse()).contains("out of order"));
    assert!(finish(&|m| m.specification = "x".repeat(17 << 20)).contains("16 MiB"));
    assert_eq!(finish(&|m| m.specification = large(1)), "", "nearly 16 MiB are fine");
    let too_much = finish(&|m| {
        m.specification = large(1);
        m.disk.model = large(2);
        m.inventory.facts.push((large(3), String::new()));
    });
    assert!(too_much.contains("32 MiB of META"), "{too_much}");
}

#[test]
fn entries_of_an_empty_frame_free_image_need_no_tree_pages() {
    let image = Recipe::new(&[(Block::Zero, 1000)]).open();
    assert_eq!(image.trailer().tree_pages, 0);
    let entries: Vec<IndexEntry> = image.entries(0).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].run, entries[0].kind), (1000, Kind::Zero));
}

#[test]
fn source_errors_name_every_lost_block_and_may_be_rounded_out() {
    let recipe = Recipe::new(&[(Block::Zero, 2), (Block::Unreadable, 2), (Block::Zero, 2)]);
    let size = u64::from(recipe.block_size);
    let damage = |start: u64, end: u64| {
        let storage = MemStorage::new();
        let mut writer =
            ImageWriter::create(storage.create("image").unwrap(), recipe.superblock()).unwrap();
        for (kind, count) in [(RunKind::Zero, 2), (RunKind::Unreadable, 2), (RunKind::Zero, 2)] {
            writer.push_run(kind, count).unwrap();
        }
        let source_errors = vec![Extent::between(start, end)];
        writer.finish(aiv_image_format::meta::Meta { source_errors, ..recipe.meta() }).unwrap();
        let image = open(&storage.contents("image").unwrap()).unwrap();
        let report = image.verify(Depth::Quick, Job::silent()).unwrap();
        report.damage.iter().map(|damage| damage.what()).collect::<Vec<_>>()
    };
    // A dying disk has more bad ranges than META lists; its list is rounded out to larger units.
    assert_eq!(damage(2 * size, 4 * size), [""; 0]);
    assert_eq!(damage(0, 6 * size), [""; 0]);
    let missed = ["its source errors and the index do not agree"];
    assert_eq!(damage(2 * size, 3 * size), missed);
    assert_eq!(damage(3 * size, 4 * size), missed);
    assert_eq!(damage(0, size), missed);
}
