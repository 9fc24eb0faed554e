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
//! use aiv_restore_engine::{Around, RestoreOptions, RestorePlan, TargetFacts};
//! use aiv_volume_io::{DirStorage, Job};
//!
//! fn restore(folder: &Path, file: &str, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let view = View::open(&DirStorage::open(folder)?, file, Job::silent())?;
//!     let facts = TargetFacts::gather(Path::new("/"), to, &folder.join(file))?;
//!     let options = RestoreOptions::new(NonZeroUsize::MIN);
//!     let plan = RestorePlan::new(&view, &facts, options, Job::silent())?;
//!
//!     assert!(plan.apply_at(&view, to, Around::default(), Job::silent())?.verified);
//!     Ok(())
//! }
//! ```
//!
//! # What an interrupted restore leaves
//! The head of the target (its first MiB: partition table, boot sector, superblock) and the
//! backup partition table at its end are zeroed before anything else is written, and get their
//! contents last, the head after the end, when all the rest was synced and read back. Until then
//! the target looks neither like the disk it was nor like the disk it is going to be.
//!
//! # Other lengths and sectors
//! A whole disk with a sound partition table also goes onto a larger target, onto a smaller one
//! as far as its partitions fit, and onto one with other sectors: the table is made for the
//! target ([`RestorePlan::table`]), all else stays where it was. Partitions may grow into free
//! space behind them ([`Grow`]), and their filesystems with them, by their own tools.
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
mod grow;
mod guarded;
mod head;
mod identity;
mod many;
mod moved;
mod options;
mod pieces;
mod plan;
mod ranges;
pub mod recover;
mod region;
mod report;
mod run;
mod sectors;
mod shrink;
mod source;
mod steps;
mod table;
mod target;
mod tools;
mod touched;
mod turns;
mod undo;
mod write;
mod zeros;

pub use error::{Error, Refusal, Result};
pub use grow::{Grow, Numbers};
pub use identity::{Attached, Identity};
pub use many::{Entry, Prepared};
pub use moved::{Moved, mend as mend_boot_sectors};
pub use options::{RestoreOptions, TableMode, Unused};
pub use plan::{Amounts, RestorePlan};
pub use report::{Note, RestoreReport};
pub use run::{Around, Failed, Left};
pub use sectors::Unusable;
pub use shrink::{Shrunk, ToShrink};
pub use steps::PlanStep;
pub use table::{NewTable, TableRow};
pub use target::TargetFacts;
pub use tools::{SystemTools, ToolRun, Tools};
pub use undo::UndoLog;

pub use aiv_chain::{View, meta};
pub use aiv_volume_io::device::Use;
pub use aiv_volume_io::partition::{DiskId, TableKind, Unfit};
