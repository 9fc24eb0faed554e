//! Floor 2 of Aivory: the files of a disk, whatever volumes they are on.
//!
//! A [`Disk`] is made of bytes at offsets: a recovery point, a raw file, a virtual disk. Its
//! partitions are looked at once; the filesystem of a volume is opened when somebody asks for it.
//! A path names the volume and then the file: `/p2/etc/fstab` is `etc/fstab` on partition 2,
//! `/p0/...` is on a disk without a partition table, and the label of a volume may stand for its
//! number where only one has it. Volumes inside of others have longer names: `/p2/GROUP/NAME/etc/fstab`
//! is in a logical volume. A RAID member that holds the whole array is the array.
//!
//! ```
//! use std::sync::Arc;
//!
//! use aiv_browse::{Disk, Links, Path, Place};
//! use aiv_volume_io::partition::SectorSize;
//! use aiv_volume_io::{Job, MemDisk};
//!
//! let blank = Arc::new(MemDisk::from_bytes(vec![0; 1 << 20]));
//! let disk = Disk::open(blank, SectorSize::B512, Job::silent())?;
//! let top = disk.resolve(&Path::parse(b"/")?, Links::Follow, Job::silent())?;
//! assert!(matches!(top, Place::Top));
//! assert_eq!(disk.volumes()[0].name(), "p0");
//! # Ok::<(), aiv_browse::Error>(())
//! ```
//!
//! [`inspect`] reads every record of every filesystem, [`boot_report`] tells what is there of what a
//! machine needs to boot, and [`compare`] what became of each file between two states of a filesystem.
//!
//! Nothing is written, mounted or followed out of its volume: the absolute target of a symbolic
//! link counts from the root of the volume it is on.

mod boot;
mod compare;
mod differ;
mod disk;
mod error;
mod filter;
mod gathered;
mod inspect;
mod mounts;
mod names;
mod nested;
mod path;
mod resolve;
mod volume;
mod walk;

pub use boot::{BootFact, BootReport, boot_report};
pub use compare::{Change, Closely, Comparison, Difference, What, compare};
pub use disk::Disk;
pub use error::{Error, Result};
pub use filter::Filter;
pub use inspect::{Inspected, inspect};
pub use path::{Path, PathError};
pub use resolve::{File, Links, Place};
pub use volume::Volume;
pub use walk::{FOLDERS_MAX, Found, Step, Trouble, Walk};

pub use aiv_filesystems::{
    Attribute, Entry, FileData, FileFlags, FileId, FileType, Filesystem, FilesystemKind, LuksKey,
    LuksKeys, Metadata, Pattern, ReaderNote, Recognised, Stream, Timestamp,
};
