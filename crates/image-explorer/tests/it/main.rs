//! The faces: what is drawn, the program on a real terminal, and in a real browser.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "figures, for whoever measures")]
#![expect(clippy::disallowed_methods, reason = "tests stand for the outside world")]

mod drawn;
mod points;
mod quick;
mod seen;
mod terminal;
mod web;
mod words;

#[path = "../../../explorer-work/tests/it/made.rs"]
mod made;
#[path = "../../../explorer-model/tests/it/samples.rs"]
mod samples;
