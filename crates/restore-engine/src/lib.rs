//! Floor 4 of Aivory: a recovery point goes back onto a disk or a file.
//!
//! Plan, then apply. [`RestorePlan::new`] decides from the index of the image and from what is
//! known about the target ([`TargetFacts`]) what would be written, and refuses whatever would
//! destroy something in use; nothing is opened for writing before that. [`RestorePlan::apply`]
//! writes, syncs, reads everything back, and only then returns a [`RestoreReport`].
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::path::Path;
//!
//! use aiv_chain::View;
//! use aiv_restore_engine::{RestoreOptions, RestorePlan, TargetFacts};
//! use aiv_volume_io::{DirStorage, FileDisk, Job};
//!
//! fn restore(folder: &Path, file: &str, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let view = View::open(&DirStorage::open(folder)?, file, Job::silent())?;
//!     let facts = TargetFacts::gather(Path::new("/"), to, &folder.join(file))?;
//!     let options = RestoreOptions::new(NonZeroUsize::MIN);
//!     let plan = RestorePlan::new(&view, &facts, options, Job::silent())?;
//!
//!     let needed = plan.target_len_needed();
//!     let target = match facts.exists {
//!         true => FileDisk::open_target(to, true)?,
//!         false => FileDisk::create_target(to, needed)?,
//!     };
//!     if plan.extends_target() {
//!         target.set_len(needed)?;
//!     }
//!     assert!(plan.apply(&view, &target, Job::silent())?.verified);
//!     Ok(())
//! }
//! ```
//!
//! # What an interrupted restore leaves
//! The head of the target (its first MiB: partition table, boot sector, superblock) is zeroed
//! before anything else is written and gets its contents last, when all the rest was synced
//! and read back. Until then the target looks neither like the disk it was nor like the disk
//! it is going to be.
//!
//! # Errors
//! [`Error::Refused`] before the first write; after it, any error means that the target holds
//! part of a disk. Nothing but a returned report says otherwise.
//!
//! The crate writes nothing outside the region a plan names, never prints, and never retries
//! a failed sync.

mod apply;
mod batch;
mod check;
mod error;
mod head;
mod options;
mod pieces;
mod plan;
mod region;
mod report;
mod source;
mod steps;
mod target;
mod write;
mod zeros;

pub use error::{Error, Refusal, Result};
pub use options::{RestoreOptions, Unused};
pub use plan::{Amounts, RestorePlan};
pub use report::{Note, RestoreReport};
pub use steps::PlanStep;
pub use target::TargetFacts;

pub use aiv_chain::{View, meta};
pub use aiv_volume_io::device::Use;
