//! What is asked for, on real images.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests stand for the outside world")]

mod answers;
mod handed;
mod made;
mod worker;
