//! Floor 1 of Aivory: virtual disks as bytes at offsets.
//!
//! [`DiskImage::open`] looks at a file, says what it is, and reads it as the disk it describes:
//! raw, qcow2, VHD, VHDX or VMDK, with the parents it builds on. Nothing is converted and
//! nothing is written. Any number of threads may read at once; memory is a few MiB for each
//! file of a chain, whatever the sizes in it say.
//!
//! ```no_run
//! use aiv_disk_formats::{DiskImage, Follow, OpenOptions};
//! use aiv_volume_io::ReadAt;
//!
//! let options = OpenOptions { follow: Follow::Folder, ..OpenOptions::default() };
//! let disk = DiskImage::open("server.qcow2".as_ref(), &options)?;
//! println!("{}, {} bytes, read from {:?}", disk.format(), disk.len(), disk.files());
//! # Ok::<(), aiv_disk_formats::Error>(())
//! ```
//!
//! # Whom to believe
//!
//! Every byte of an image file may be an attacker's: the owner of a virtual machine writes the
//! whole content of a raw disk, and with it whatever a raw disk can be mistaken for. Therefore
//!
//! * a format found in the content is believed only when the name of the file says the same, or
//!   the caller does ([`OpenOptions::format`]): see [`Error::Ambiguous`];
//! * a file that an image names is opened only when the caller allowed it: see [`Follow`];
//! * a table is never larger in memory than the page that is looked at, no offset is used before
//!   it was compared with the length of the file, and a chain has at most
//!   [`CHAIN_MAX`] files.
//!
//! What cannot be read right is an error, at opening where that is seen there, else at the read
//! that meets it: [`std::io::ErrorKind::InvalidData`] with an [`Error`] inside. It never prints,
//! writes, or reads the environment or the clock.

mod bytes;
mod error;
mod follow;
mod format;
mod inflate;
mod layer;
mod open;
mod pages;
mod qcow2;
mod vhd;
mod vhdx;
mod vmdk;

pub use error::{Error, Result};
pub use follow::Follow;
pub use format::Format;
pub use open::{CHAIN_MAX, DiskImage, OpenOptions};
