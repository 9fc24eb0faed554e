//! The face: what is drawn, and the program on a real terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests stand for the outside world")]

mod drawn;
mod terminal;

#[expect(dead_code, reason = "its tests change disks, too")]
#[path = "../../../explorer-work/tests/it/made.rs"]
mod made;
#[path = "../../../explorer-model/tests/it/samples.rs"]
mod samples;
