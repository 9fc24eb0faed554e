//! Backups end to end: disks in memory and real filesystems, media that fail, power cuts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bad_sectors;
mod blocks;
mod common;
mod compared;
mod continuity;
mod crashes;
mod excluded;
mod faults;
mod filesystems;
mod flips;
mod held;
mod hints;
mod holes;
mod identity;
mod increments;
mod liars;
mod logical_volumes;
mod marks;
mod planted;
mod repeats;
mod resumed;
mod resumed_crashes;
mod resumed_forged;
mod resumed_not;
mod resumed_sealed;
mod resumed_split;
mod resumed_split_crashes;
mod resumed_split_sealed;
mod round_trip;
mod sealed;
mod splits;
mod stopping;
mod tools;
