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
mod holes;
mod identity;
mod increments;
mod logical_volumes;
mod planted;
mod round_trip;
mod stopping;
mod tools;
