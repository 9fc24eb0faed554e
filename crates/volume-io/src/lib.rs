//! Floor 0 of Aivory: where bytes live.
//!
//! A disk is *bytes at offsets*. Everything above this crate reads its input through
//! [`ReadAt`], whether the bytes come from a raw file, a block device, a partition of either,
//! or a recovery point; it writes image files only through [`Storage`], so that a test can
//! fail or lose any single operation; and it reports progress and honours cancellation
//! through the [`Job`] it is handed.
//!
//! ```
//! use aiv_volume_io::{Extent, MemDisk, ReadAt, Slice};
//!
//! let disk = MemDisk::from_bytes(vec![7; 8192]);
//! let part = Slice::new(&disk, Extent::new(4096, 1024))?;
//! let mut out = [0; 16];
//! part.read_exact_at(&mut out, 0)?;
//! assert_eq!((part.len(), out), (1024, [7; 16]));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! This crate never prints, never reads the environment or the clock, keeps no global state,
//! and opens sources read-only.

mod changes;
pub mod device;
mod dir_storage;
mod error;
mod extent;
mod file_disk;
mod job;
mod locks;
mod mem;
mod page_cache;
pub mod partition;
pub mod programs;
mod read_at;
mod slot_copy;
mod storage;
mod storage_name;
mod tail;

pub use changes::{CHANGED_RUNS_MAX, ChangeTracker, TrackerFacts, Watch};
pub use dir_storage::DirStorage;
pub use error::{Corrupt, Error, Result, causes};
pub use extent::{Extent, ExtentSet};
pub use file_disk::{FileDisk, FileKind};
pub use job::{Cancel, Canceled, Job, Notice, Progress, Step};
pub use locks::is_written_by_qemu;
pub use mem::MemDisk;
pub use read_at::{ReadAt, Slice, WriteAt};
pub use slot_copy::{SlotCopy, SlotFile};
pub use storage::{AppendFile, FileEntry, Lease, Storage};
pub use storage_name::{
    CATALOGUE_NAME, FOLDER_DEPTH_MAX, PART_EXTENSION, check_lease_name, check_name, check_reopened,
    is_listed,
};
pub use tail::Tail;
