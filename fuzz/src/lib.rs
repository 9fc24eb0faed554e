//! Every parser of bytes that an attacker may have written, each as a function over them.
//!
//! A function ends for whatever bytes, within [`TIME_MAX`] and [`MEMORY_MAX`], and asserts what
//! must hold of the answer. What it may not do is panic. Coverage-guided fuzzers call them through the
//! programs in `fuzz_targets`, `cargo xtask prove parsers` with mutants of the
//! [seeds](Target::seeds), and the tests with some of those.

mod image;
mod layers;
mod seeds;
mod sparse;
mod volume;
mod wire;

use std::time::Duration;

pub use image::{catalogue, folder, image, image_mended, key_slots, salvaged, segment};
pub use layers::layers;
pub use sparse::SparseDisk;
pub use volume::{files, partitions, virtual_disk, volume};
pub use wire::nbd;

/// Longest that a parser may take for one input, on a machine that does nothing else.
pub const TIME_MAX: Duration = Duration::from_millis(250);

/// Memory that a parser may take beside the input.
pub const MEMORY_MAX: u64 = 16 << 20;

/// A parser, and what to begin with.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of the function, and of the program in `fuzz_targets`.
    pub name: &'static str,
    /// Feeds the parser, and says whether the input got past its first checks.
    pub run: fn(&[u8]) -> bool,
    /// Sound inputs, made by the writers of the formats.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "image", run: image, seeds: seeds::images },
    Target { name: "image_mended", run: image_mended, seeds: seeds::images },
    Target { name: "segment", run: segment, seeds: seeds::segments },
    Target { name: "salvaged", run: salvaged, seeds: seeds::images },
    Target { name: "key_slots", run: key_slots, seeds: seeds::slots },
    Target { name: "folder", run: folder, seeds: seeds::images },
    Target { name: "catalogue", run: catalogue, seeds: seeds::catalogues },
    Target { name: "partitions", run: partitions, seeds: seeds::disks },
    Target { name: "volume", run: volume, seeds: seeds::volumes },
    Target { name: "files", run: files, seeds: seeds::trees },
    Target { name: "layers", run: layers, seeds: layers::seeds },
    Target { name: "virtual_disk", run: virtual_disk, seeds: seeds::virtual_disks },
    Target { name: "nbd", run: nbd, seeds: seeds::conversations },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
