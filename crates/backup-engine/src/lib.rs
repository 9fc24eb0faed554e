//! Floor 4 of Aivory: a source becomes a new recovery point.
//!
//! Plan, then apply. [`BackupPlan::new`] reads the partition table and the filesystems'
//! allocation data and decides which bytes matter; nothing is written. [`BackupPlan::apply`]
//! reads those bytes once, in order, through a pipeline of bounded memory, writes one image
//! under a temporary name, proves it by reading it back, and publishes it.
//!
//! Order of writes on the storage, each step only after the one before succeeded: lease of the
//! set, temporary file, image (see `docs/format.md`), sync, read back, publish without
//! replacing, sync of the folder. Whatever fails, published images are never touched.

mod apply;
mod attempt;
mod bad_ranges;
mod base;
mod compare;
mod dedup;
mod error;
mod exclude;
mod facts;
mod gather;
mod hints;
mod hold;
mod identity;
mod inventory;
mod marks;
mod moved;
mod ordered;
mod pace;
mod pages;
mod parent;
mod parts;
mod pipeline;
mod plan;
mod reached;
mod read;
mod recheck;
mod repeats;
mod resume;
mod seal;
mod section;
mod spans;
mod watched;
mod workshop;

pub use apply::{BackupIds, BackupReport};
pub use base::LostPoint;
pub use error::{Error, HintFailure, Refusal, Result};
pub use facts::{BackupOptions, Basis, Sectors, SourceFacts, SourceStamp};
pub use hints::{HintReport, NotUsed, SHARES};
pub use hold::{HeldSource, Hold};
pub use identity::{disk_identity, set_id};
pub use inventory::machine_inventory;
pub use marks::{Marks, MarksError, marks};
pub use pace::{Clock, RateLimit};
pub use plan::{BackupPlan, PlanNote};
pub use resume::Resumed;
pub use seal::{Hedge, SealOptions};

pub use aiv_filesystems::{
    BadPattern, FilesystemKind, KeptFile, KeptReason, MapNote, Pattern, WholeReason,
};
pub use aiv_image_format::{BlockSize, Compression, Mode};
