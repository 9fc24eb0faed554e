//! Every parser of bytes that an attacker may have written, each as a function over them.
//!
//! A function ends for whatever bytes, within [`TIME_MAX`] and [`MEMORY_MAX`], and asserts what
//! must hold of the answer. What it may not do is panic. Coverage-guided fuzzers call them through the
//! programs in `fuzz_targets`, `cargo xtask prove parsers` with mutants of the
//! [seeds](Target::seeds), and the tests with some of those.

mod begun;
mod image;
mod layers;
mod mend;
mod seeds;
mod sparse;
mod trees;
mod volume;
mod wire;

use std::time::Duration;

pub use begun::reopened;
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
    /// The same, where several parsers hide behind one function: what each of them is fed with.
    pub families: &'static [Family],
}

/// One of several parsers behind a [`Target`].
#[derive(Clone, Copy)]
pub struct Family {
    /// What it is called.
    pub name: &'static str,
    /// Sound inputs of it.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]) -> bool, seeds: fn() -> Vec<Vec<u8>>) -> Self {
        Self { name, run, seeds, families: &[] }
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target::new("image", image, seeds::images),
    Target::new("image_mended", image_mended, seeds::images),
    Target::new("segment", segment, seeds::segments),
    Target::new("salvaged", salvaged, seeds::images),
    Target::new("reopened", reopened, begun::inputs),
    Target::new("key_slots", key_slots, seeds::slots),
    Target::new("folder", folder, seeds::images),
    Target::new("catalogue", catalogue, seeds::catalogues),
    Target::new("partitions", partitions, seeds::disks),
    Target::new("volume", volume, seeds::volumes),
    Target { families: trees::FAMILIES, ..Target::new("files", files, trees::seeds) },
    Target { families: layers::FAMILIES, ..Target::new("layers", layers, layers::seeds) },
    Target::new("virtual_disk", virtual_disk, seeds::virtual_disks),
    Target::new("nbd", nbd, seeds::conversations),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
