//! Whole images: written, read, damaged, cut off, forged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod areas;
mod change;
mod checkpoints;
mod copying;
mod counted;
mod cut_off;
mod damage;
mod deltas;
mod faults;
mod foreign;
mod forge;
mod full_meta;
mod golden;
mod increment_checkpoints;
mod increment_damage;
mod increments;
mod index_shapes;
mod lying_parents;
mod memory;
mod meta;
mod mutants;
mod naive;
mod naive_parity;
mod other_programs;
mod parents;
mod patched;
mod recipe;
mod refusals;
mod repairs;
mod resuming;
mod resuming_forged;
mod round_trip;
mod rows;
mod rules;
mod salvage;
mod salvage_hostile;
mod salvage_identity;
mod sealed;
mod sealed_damage;
mod sealed_parents;
mod segment_damage;
mod segments;
mod slot_repairs;
mod verify_reads;
