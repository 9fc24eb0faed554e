//! What the parts of the hot loops cost by themselves: `cargo bench -p aiv-testkit`.

mod setup;

use std::hint::black_box;

use aiv_image_format::{BlockIndex, Compression, DeltaBase, Encoder, hash};
use aiv_testkit::MemStorage;
use aiv_volume_io::ReadAt;
use divan::Bencher;
use divan::counter::BytesCount;

use setup::{BLOCK, BLOCKS, backup, chain, disk};

const FAST: Compression = Compression::Zstd(1);

fn main() {
    divan::main();
}

/// The bytes of one block of the disk.
fn block(number: usize, change: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    disk(change).read_exact_at(&mut bytes, (number * BLOCK) as u64).expect("a block of the disk");
    bytes
}

#[divan::bench]
fn hash_of_a_block(bencher: Bencher<'_, '_>) {
    let block = block(1, 0);
    bencher.counter(BytesCount::new(BLOCK)).bench(|| hash::leaf(black_box(&block)));
}

#[divan::bench(args = [("lz4", Compression::Lz4), ("zstd:1", FAST), ("zstd:3", Compression::Zstd(3))])]
fn encode_a_block(bencher: Bencher<'_, '_>, (_, compression): (&str, Compression)) {
    let block = block(1, 0);
    let leaf = hash::leaf(&block);
    let mut encoder = Encoder::new(compression, false);
    bencher
        .counter(BytesCount::new(BLOCK))
        .bench_local(|| encoder.encode(black_box(&block), leaf).expect("a codec that works"));
}

#[divan::bench]
fn pass_over_noise(bencher: Bencher<'_, '_>) {
    let block = block(2, 0);
    let leaf = hash::leaf(&block);
    let mut encoder = Encoder::new(FAST, false);
    bencher
        .counter(BytesCount::new(BLOCK))
        .bench_local(|| encoder.encode(black_box(&block), leaf).expect("a codec that works"));
}

#[divan::bench]
fn encode_a_difference_of_a_page(bencher: Bencher<'_, '_>) {
    let (old, new) = (block(1, 0), block(1, 1));
    assert_ne!(old, new);
    let leaf = hash::leaf(&new);
    let base = DeltaBase { block: 1, leaf: hash::leaf(&old), depth: 0, bytes: &old };
    let mut encoder = Encoder::new(FAST, false);
    bencher.counter(BytesCount::new(BLOCK)).bench_local(|| {
        let encoded = encoder.encode_against(black_box(&new), leaf, &base);
        assert!(encoded.expect("a codec that works").is_delta());
    });
}

/// From the root page down, every page checked.
#[divan::bench]
fn look_a_block_up(bencher: Bencher<'_, '_>) {
    let (_storage, view) = chain(FAST);
    let mut number: BlockIndex = 0;
    bencher.bench_local(|| {
        number = (number + 37) % BLOCKS as u64;
        view.image().entry(number).expect("a sound index")
    });
}

/// A block of a full image, or one that is stored as a difference.
#[divan::bench(args = [0, 1])]
fn read_a_block(bencher: Bencher<'_, '_>, number: BlockIndex) {
    let (_storage, view) = chain(FAST);
    let (mut reader, mut out) = (view.reader(), vec![0; BLOCK]);
    bencher
        .counter(BytesCount::new(BLOCK))
        .bench_local(|| reader.read(number, black_box(&mut out)).expect("a sound image"));
}

/// All of a small disk, with planning, publishing and reading back.
#[divan::bench]
fn full_image(bencher: Bencher<'_, '_>) {
    let disk = disk(0);
    bencher
        .counter(BytesCount::new(BLOCKS * BLOCK))
        .bench_local(|| backup(&disk, &MemStorage::new(), FAST, 1));
}
