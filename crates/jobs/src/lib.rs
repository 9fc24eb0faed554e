//! Floor 5 of Aivory: whole pieces of work, as every frontend runs them.
//!
//! The engines below know one source, opened, and one storage. A frontend knows words: paths and
//! options. Between the two stands a job: it opens what the words name, refuses what would do
//! harm, gathers the facts, plans, applies and remembers. The command line runs one job and
//! ends; a service runs the same job on a clock.
//!
//! A source in use is refused, read as it is, or held still: its filesystems are frozen while it
//! is read, and a second process sees to it that they are thawed whatever happens; or a snapshot
//! is read in its place.
//!
//! What the outside world gives, time, randomness and the place of `/sys` and `/proc`, comes in
//! through [`World`]. Nothing here prints, and nothing reads the environment.

mod backup;
mod compare;
mod error;
mod files;
mod freeze;
mod hooks;
mod keys;
mod look;
mod rest;
mod salvage;
mod seal;
mod snapshot;
mod source;
mod stamp;
mod still;
mod survey;
mod world;

pub use aiv_chain::salvage::{Fill, Hints};
pub use aiv_disk_formats::{Follow, Format, OpenOptions};
pub use backup::{BackupDone, BackupJob, Backups};
pub use compare::{Compared, VolumeCompared, compare_disks};
pub use error::{Error, FreezeError, Refusal, Result, SnapshotError};
pub use files::{Opened, RecoverJob, RecoverTo, newest_points, open_disk};
pub use freeze::freeze_guard;
pub use hooks::{Hook, HookReport, Hooks};
pub use keys::{KeyChange, KeyChanges, NewKey, change_keys};
pub use look::{Bytes, Listed, Look, Seen, Tell};
pub use salvage::{LostFiles, LostPart, SalvageDone, SalvageJob, SalvageTo};
pub use seal::SealJob;
pub use source::{SeenAs, Source};
pub use still::{Still, StillReport};
pub use survey::survey;
pub use world::World;
