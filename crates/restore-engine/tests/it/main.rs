//! Everything that needs an image and a target, in one binary.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod build;
mod cancel;
mod corpus;
mod delta;
mod devices;
mod failures;
mod files;
mod grow;
mod identity;
mod made_gpt;
mod many;
mod plans;
mod real;
mod recover;
mod refusals;
mod round_trip;
mod sectors;
mod shrink;
mod spellings;
mod tables;
mod targets;
mod undo;
mod unused;
mod zips;
