//! Floor 8 of Aivory: what the image explorer asks for, done.
//!
//! `aiv-explorer-model` decides what is to be done and what is made of the answer; a face draws.
//! [`Outside`] is what is between: each [`Work`](aiv_explorer_model::Work) is a call or two of the
//! libraries below, and its answer is rows the model can hold. [`Worker`] does that on a thread of
//! its own, with progress and a stop button, so that no face ever waits.
//!
//! Sources and images are only read. What is written are recovered files, where the user says, and
//! what a verification found, in the catalogue of its folder: by [`Outside::reading_only`] neither.
//! What that one has open lies on a [`Shelf`], and its files are [`Handed`] over from there.

mod answers;
mod handed;
mod worker;

pub use answers::Outside;
pub use handed::{Handed, Shelf, write_file, write_zip};
pub use worker::Worker;
