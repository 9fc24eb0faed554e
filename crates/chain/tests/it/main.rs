//! Folders of images: what a scan finds, which point words mean, and views as bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod catalogue;
mod chain_maker;
mod chains;
mod common;
mod consolidate;
mod described;
mod doubles;
mod forge;
mod hostile_chains;
mod lost_slots;
mod merge_crashes;
mod merge_deltas;
mod merge_faults;
mod merge_locals;
mod merge_planted;
mod repairs;
mod salvage;
mod salvage_sealed;
mod scan;
mod sealed;
mod sealed_merges;
mod sealed_moves;
mod sealed_splits;
mod sealed_verified;
mod select;
mod slots;
mod split_leftovers;
mod split_repairs;
mod splits;
mod transfers;
mod verify_chains;
mod view;
mod wrappers;
