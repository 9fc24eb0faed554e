//! LVM2 physical volumes: which extents hold a logical volume, and what of those is used.
//!
//! A physical volume begins with a label in one of its first four sectors and a header behind
//! it, which name up to two metadata areas. Each is a header and a ring of texts; the header
//! names the valid one. Checksums cover all three. The text describes the whole volume group:
//! its disks, and each logical volume as segments of extents on them. All copies on the volume
//! that are kept up to date must say the same.
//!
//! Everything but the physical extents is kept, and of the extents those that belong to a
//! logical volume. A logical volume whose segments all lie here, one after another, is read like
//! a volume of its own: the map of the filesystem in it, led back through its segments, takes
//! the place of all of it. Every other one is kept whole: stripes, mirrors, RAID and their
//! images, pools and thin volumes, caches, snapshots and their origins (a snapshot reads what its
//! origin calls free), whatever lies on several disks, whatever has a property unknown here.
//!
//! Allocation is believed only as far as it is understood: a segment of an unknown type that
//! names this disk, two owners of one extent, a change that was not finished, any doubt about the
//! text, and the whole volume is kept.
//!
//! To read files, logical volumes are also put together from several disks, from stripes, from an
//! image of a mirror that is right, and from the blocks of a pool; nothing about maps depends on
//! that.
//!
//! # What one disk cannot know
//! In a volume group of several disks each has its copy of the metadata. When the last change
//! reached the others and not this disk (it was unplugged), its copy is sound and old, and so is
//! its data.
//!
//! # Cost
//! Read are two sectors and the text of each area, at most 4 MiB, and what the maps inside read.
//! Memory is about ten times the text, and one map at a time.
//!
//! Facts: `lib/format_text/layout.h`, `lib/label/label.c`, `lib/format_text/import_vsn1.c` and
//! `lib/format_text/flags.c` of LVM2, and `pvck --dump`; `dm-raid.c` of Linux.

mod area;
mod files;
mod group;
mod joined;
mod label;
mod layout;
mod members;
mod pieces;
mod raid;
mod reason;
mod text;
mod thin;
mod used;
mod volume;

use aiv_volume_io::{Job, ReadAt};

use crate::stop::Stop;
use crate::{Result, UsedMap};
pub(crate) use files::find as find_files;
pub(crate) use members::read as logical_volumes;
pub use reason::{LogicalVolumeReason, LvmReason};

/// Reads the used-block map of a physical volume that lies inside `depth` others.
pub(crate) fn used_map(volume: &dyn ReadAt, depth: usize, job: Job<'_>) -> Result<UsedMap> {
    Stop::answer(used::read(volume, depth, job))
}

/// The checksum of all records.
fn checksum(bytes: &[u8]) -> u32 {
    crate::crc32::crc32(0xf597_a6cf, bytes)
}
