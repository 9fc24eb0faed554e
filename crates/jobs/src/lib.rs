//! Floor 5 of Aivory: whole pieces of work, as every frontend runs them.
//!
//! The engines below know one source, opened, and one storage. A frontend knows words: paths and
//! options. Between the two stands a job: it opens what the words name, refuses what would do
//! harm, gathers the facts, plans, applies and remembers. The command line runs one job and
//! ends; a service runs the same job on a clock.
//!
//! What the outside world gives, time, randomness and the place of `/sys` and `/proc`, comes in
//! through [`World`]. Nothing here prints, and nothing reads the environment.

mod backup;
mod error;
mod source;
mod world;

pub use backup::{BackupDone, BackupJob, Backups};
pub use error::{Error, Refusal, Result};
pub use source::Source;
pub use world::World;
