//! The test machinery, tested: what it accepts, and above all what it must catch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod alike;
mod crash_catches_bugs;
mod crash_model;
mod faults;
mod tiny_disks;
