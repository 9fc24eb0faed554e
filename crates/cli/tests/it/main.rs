//! The command as its users meet it: words in, words and exit status out. Every test runs the
//! real program, most of them on real loop devices, filesystems and partition tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "tests run on 64-bit machines, on small disks"
)]

mod support;

mod bad_images;
mod bad_sources;
mod bad_targets;
mod chains;
mod changes;
mod concurrent;
mod destinations;
mod excluded;
mod files;
mod files_inside;
mod frozen;
mod help;
mod inside;
mod layers;
mod luks_inside;
mod many_disks;
mod marks;
mod output;
mod paper_keys;
mod places;
mod real_disk;
mod repairs;
mod resumed;
mod salvage;
mod sealed;
mod shapes;
mod splits;
mod virtual_disks;
