//! How much of a file verification reads.

use std::sync::Arc;

use aiv_image_format::{Depth, Features, Image};
use aiv_volume_io::Job;

use crate::areas::{Areas, PARITY};
use crate::counted::Counted;
use crate::recipe::{Block, Fill, Recipe};

/// Noise of so many MiB in blocks of 64 KiB.
fn image(mib: u64, features: u64) -> Arc<Vec<u8>> {
    let blocks: Vec<_> = (0..mib * 16).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    Recipe { block_size: 64 << 10, features, ..Recipe::new(&blocks) }.build()
}

/// How many hundredths of the file are read.
fn share(bytes: &Arc<Vec<u8>>, depth: Depth) -> u64 {
    let file = Counted::new(bytes);
    let image = Image::open(file.clone()).unwrap();
    assert!(image.verify(depth, Job::silent()).unwrap().is_sound());
    file.take() * 100 / bytes.len() as u64
}

#[test]
fn verification_reads_a_file_about_once_with_parity_as_without() {
    for features in [0, Features::PARITY] {
        let bytes = image(50, features);
        let frames = Areas::of(&bytes).frames;
        let stripes = frames.iter().filter(|frame| frame.kind == PARITY).count();
        assert_eq!(stripes, if features == 0 { 0 } else { 7 });
        for depth in [Depth::Stored, Depth::Data] {
            let share = share(&bytes, depth);
            assert!((100..112).contains(&share), "{share} % with features {features}");
        }
        let quick = share(&bytes, Depth::Quick);
        assert!(quick < 5, "{quick} %");
    }
}
