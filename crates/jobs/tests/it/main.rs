//! Jobs on real files and devices of this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests stand for the outside world")]

mod backup;
mod keys;
mod look;
mod outside;
mod salvage;
