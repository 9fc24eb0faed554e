//! The command `zstd` (Debian package zstd) undoes our differences, as `docs/format.md` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use aiv_image_format::hash::leaf;
use aiv_image_format::{
    BlockSize, Compression, Depth, EncodedBlock, Encoder, Geometry, Kind, PointId,
};
use aiv_volume_io::Job;

use crate::areas::{Areas, DELTA, LOCAL};
use crate::change::{Change, Increment};
use crate::parents::{Model, read_block};
use crate::recipe::{Block, Fill, Recipe, noise, open};

#[track_caller]
fn zstd(arguments: &[&str], folder: &Path) {
    let output = Command::new("zstd").args(arguments).current_dir(folder).output();
    let output = output.expect("zstd runs; cargo xtask setup installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A state of two blocks: one to be changed, and one that makes the disk longer.
fn old(base: &[u8], block_size: u32) -> Model {
    let len = base.len() as u64;
    let geometry = Geometry::new(len, BlockSize::new(block_size).unwrap(), 512).unwrap();
    Model::new(geometry, PointId([1; 16]), vec![(Kind::Data, base.to_vec())])
}

/// Stores a block as a difference to `base`, and has it undone by zstd and by us.
#[track_caller]
fn check(base: &[u8], block_size: u32, compression: Compression) {
    let old = old(base, block_size);
    let seed = (base.len() / 2) as u64;
    let increment = Increment { compression, ..Increment::new(&[(Change::Patch(seed), 1)]) };
    let bytes = increment.build(&old);
    let wanted = &increment.state(&old).cells[0].1;
    assert!(wanted != base);
    let frame = Areas::of(&bytes).frame(DELTA).payload.clone();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("base"), base).unwrap();
    fs::write(folder.path().join("delta.zst"), &bytes[frame.start + 48..frame.end]).unwrap();
    zstd(&["-d", "--patch-from=base", "delta.zst", "-o", "block"], folder.path());
    assert!(fs::read(folder.path().join("block")).unwrap() == *wanted);
    let image = open(&bytes).unwrap();
    let mut out = vec![0; base.len()];
    read_block(&image, Some(&old), 0, &mut out).unwrap();
    assert!(out == *wanted);
    assert!(image.verify_on(&old, Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn zstd_undoes_a_difference() {
    for (len, block_size) in [
        (16 << 10, 16 << 10),
        (64 << 10, 64 << 10),
        (1 << 20, 1 << 20),
        (4 << 20, 4 << 20),
        (5000, 16 << 10),
        (900, 16 << 10),
    ] {
        check(&noise(1, len), block_size, Compression::Zstd(1));
    }
    check(&noise(2, 64 << 10), 64 << 10, Compression::Zstd(19));
    check(&noise(3, 64 << 10), 64 << 10, Compression::Lz4);
}

/// A block that lies across two others, undone by zstd with their bytes one behind the other.
#[test]
fn zstd_undoes_a_difference_to_two_blocks_of_the_same_image() {
    for (block_size, compression) in [
        (16 << 10, Compression::Zstd(1)),
        (64 << 10, Compression::Zstd(19)),
        (64 << 10, Compression::Lz4),
        (4 << 20, Compression::Zstd(1)),
    ] {
        let blocks = [
            (Block::Data(Fill::Noise(1)), 1),
            (Block::Data(Fill::Noise(2)), 1),
            (Block::Shifted(0), 1),
        ];
        let recipe = Recipe { block_size, compression, ..Recipe::new(&blocks) };
        let expected = recipe.expected();
        let bytes = recipe.build();
        let frame = Areas::of(&bytes).frame(LOCAL).payload.clone();
        let folder = tempfile::tempdir().unwrap();
        let bases = [&expected[0].bytes[..], &expected[1].bytes].concat();
        fs::write(folder.path().join("bases"), bases).unwrap();
        fs::write(folder.path().join("delta.zst"), &bytes[frame.start + 88..frame.end]).unwrap();
        zstd(&["-d", "--patch-from=bases", "delta.zst", "-o", "block"], folder.path());
        assert!(fs::read(folder.path().join("block")).unwrap() == expected[2].bytes);
    }
}

#[test]
fn a_difference_uses_the_whole_base_up_to_the_largest_block() {
    // The far end of the base comes first in the block: only a window over both finds it.
    let len = 4 << 20;
    let base = noise(6, len);
    let block = [&base[len / 2..], &base[..len / 2]].concat();
    let encoded: EncodedBlock = Encoder::new(Compression::Zstd(1), true)
        .encode_against(
            &block,
            leaf(&block),
            &aiv_image_format::DeltaBase { block: 0, leaf: leaf(&base), depth: 0, bytes: &base },
        )
        .unwrap();
    assert!(encoded.is_delta());
    assert!(encoded.payload_len() < len / 100, "{}", encoded.payload_len());
}
