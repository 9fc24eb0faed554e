//! Floor 6 of Aivory: the words all frontends share.
//!
//! Libraries return typed values and never text. This crate turns them into what people and
//! scripts see, once for the command line, the agent and whatever comes later:
//!
//! - [`Failure`]: an error as a stable code, an exit status, one line that tells the whole
//!   story, and the next step.
//! - [`Outcome`]: what there is to say about a command that went well.
//! - [`backups`]: what became of the sources of one backup.
//! - [`json`]: results with stable field names. Fields are added, never renamed.
//! - [`text`]: the same results for people, safe to print.
//! - [`chains`]: both for what merges, copies and moves images.
//! - [`keys`]: both for who can open images.
//! - [`repairs`]: both for damaged images that were made whole.
//! - [`diff`]: both for what is different between two points.
//! - [`files`]: both for files of a disk, and for those that were recovered.
//! - [`salvage`]: both for what is left of damaged ones.
//! - [`Remarks`]: notes and warnings of plans and reports as sentences.
//! - [`parse`]: words of the user as typed values.
//! - [`words`]: sizes, times, ids, and text from a disk made safe.
//!
//! ```
//! use aiv_report::{Exit, Failure};
//!
//! let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
//! let failure = Failure::of(&missing);
//! assert_eq!((failure.verdict.code, failure.verdict.exit), ("not_found", Exit::Failed));
//! ```
//!
//! Pure functions: nothing here does I/O, and nothing fails.

mod backups;
pub mod chains;
pub mod diff;
mod failure;
pub mod files;
mod inside;
pub mod json;
mod judge;
pub mod keys;
mod outcome;
pub mod parse;
mod remarks;
pub mod repairs;
pub mod salvage;
pub mod text;
pub mod words;

pub use backups::backups;
pub use failure::{Exit, Failure, Verdict};
pub use inside::add_inside;
pub use judge::{LOCKED, SEALED, VOLUME_LOCKED, VOLUME_WRONG_KEY};
pub use outcome::Outcome;
pub use remarks::Remarks;
