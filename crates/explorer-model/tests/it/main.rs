//! The state machine, without a terminal.

mod journeys;
mod player;
mod random;
mod samples;
mod scenes;
