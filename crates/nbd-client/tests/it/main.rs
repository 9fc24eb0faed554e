//! Disks behind other people's NBD servers, and behind people who only pretend to be one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::cast_possible_truncation, reason = "tests run on 64-bit machines")]

mod tools;

mod hostile;
mod servers;
