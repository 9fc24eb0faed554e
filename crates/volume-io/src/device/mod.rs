//! Block devices of this machine: what there is, what uses it, what lies on it.
//!
//! Everything is read from what the kernel tells in `/sys` and `/proc` (and, for serial
//! numbers the kernel does not know, from udev's records in `/run`), below a root that is `/`
//! in production and a made-up tree in tests. Nothing is opened, scanned or changed.
//!
//! ```no_run
//! use std::path::Path;
//! use aiv_volume_io::device;
//!
//! for device in device::list(Path::new("/"))? {
//!     for mount in &device.mounts {
//!         let _ = (&device.name, &mount.path, mount.read_only);
//!     }
//! }
//! assert!(device::uses_of(Path::new("/"), Path::new("/dev/sdz"))?.is_empty(), "in use");
//! # Ok::<(), aiv_volume_io::Error>(())
//! ```

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use crate::Result;

mod attributes;
mod filesystems;
mod inventory;
mod mounts;
mod uses;

pub use filesystems::{Filesystem, written_filesystems};
pub use uses::{Use, holds_path, same_file, uses_of};

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// The kernel's name: `sda1`, `nvme0n1`, `dm-3`. A label: it may change with every boot.
    pub name: String,
    /// The device node, `/dev/NAME`.
    pub path: PathBuf,
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Length in bytes; zero for an empty drive or an unused loop device.
    pub size: u64,
    /// Bytes in a logical sector.
    pub logical_sector: u32,
    /// Bytes the medium writes at once.
    pub physical_sector: u32,
    /// Vendor as the device gives it. The disk's, for a partition; so are the next three.
    pub vendor: Option<String>,
    /// Model as the device gives it.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name, in the spelling of its source: `naa.5000…`, `eui.…`, `0x5000…`.
    pub wwn: Option<String>,
    /// The kernel refuses writes.
    pub read_only: bool,
    /// Medium or device can be taken out.
    pub removable: bool,
    /// Has spinning platters.
    pub rotational: bool,
    /// What it is.
    pub kind: DeviceKind,
    /// The disk a partition is part of.
    pub parent: Option<String>,
    /// Devices stacked on this one (device mapper, md, bcache).
    pub holders: Vec<String>,
    /// Devices this one is stacked on.
    pub slaves: Vec<String>,
    /// Where it is mounted in the mount namespace of this process.
    pub mounts: Vec<Mount>,
    /// Whether it is active swap space.
    pub swap: bool,
    /// What a loop device shows: a file, or another device.
    pub backing_file: Option<PathBuf>,
}

/// What a block device is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A whole disk, physical or virtual.
    Disk,
    /// A partition the kernel knows of.
    Partition {
        /// Number in the partition table.
        number: u32,
        /// First byte on the disk.
        start: u64,
    },
    /// A file shown as a device, or an unused device for that.
    Loop,
    /// A device-mapper device: LVM, LUKS, multipath.
    DeviceMapper {
        /// Its name below `/dev/mapper`.
        name: String,
    },
    /// A software RAID.
    Md,
    /// An optical drive.
    Rom,
    /// A RAM disk, compressed or not.
    Ram,
    /// A network block device.
    Nbd,
    /// A floppy drive.
    Floppy,
}

/// A place where a device is mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// The mount point.
    pub path: PathBuf,
    /// Whether nothing can be written through this mount.
    pub read_only: bool,
    /// The kernel's name of the filesystem.
    pub fstype: String,
}

/// All block devices below `root` (`/` in production), sorted by name with numbers in
/// numerical order: `sda`, `sda1`, `sda2`, `sda10`.
///
/// # Errors
/// [`crate::Error::Path`] when the kernel's lists cannot be read. A device that vanishes
/// meanwhile is left out.
pub fn list(root: &Path) -> Result<Vec<BlockDevice>> {
    Ok(inventory::Inventory::read(root)?.devices)
}

/// The block device behind `path`, through whatever node or link; `None` for anything else, such
/// as a regular file.
///
/// # Errors
/// [`crate::Error::Path`] when the path or the kernel's lists cannot be read.
pub fn at(root: &Path, path: &Path) -> Result<Option<BlockDevice>> {
    uses::device_at(root, path)
}

/// What was ever written to the block device behind `path`, or discarded of it, as the kernel counts
/// it: where two answers are the same, nothing reached the device in between. `None` for anything
/// else, and where the kernel does not tell.
#[must_use]
pub fn writes_to(root: &Path, path: &Path) -> Option<Vec<u64>> {
    let found = std::fs::metadata(path).ok().filter(|found| found.file_type().is_block_device())?;
    let number = found.rdev();
    let stat = format!("sys/dev/block/{}:{}/stat", major(number), minor(number));
    written(&attributes::text(&root.join(stat))?)
}

/// Requests and sectors of writes, and of discards where they are counted (Linux 4.18), in a
/// `stat` of sysfs: numbers between blanks.
fn written(stat: &str) -> Option<Vec<u64>> {
    const WRITES: [usize; 2] = [4, 6];
    const DISCARDS: [usize; 2] = [11, 13];
    let numbers: Vec<u64> = stat.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
    let number = |at: usize| numbers.get(at).copied();
    let writes: Option<Vec<u64>> = WRITES.into_iter().map(number).collect();
    Some(writes?.into_iter().chain(DISCARDS.into_iter().filter_map(number)).collect())
}

/// The device node that `name` means: of the one disk with a serial number or world-wide name
/// when it begins with `serial:` or `wwn:`, else `name` itself. Names like `/dev/sdb` go from
/// one disk to another with the next boot; these do not. A file of such a name is `./serial:…`.
///
/// World-wide names are compared without the prefixes that their sources put in front
/// (`naa.`, `eui.`, `0x`) and without regard to case.
///
/// # Errors
/// [`crate::Error::NotOneDevice`] when no disk or more than one has it, as with two paths to one
/// disk; [`crate::Error::Path`] when the kernel's lists cannot be read.
pub fn named(root: &Path, name: &Path) -> Result<PathBuf> {
    let text = name.to_str().unwrap_or_default();
    let (serial, wwn) = (text.strip_prefix("serial:"), text.strip_prefix("wwn:"));
    let what = match (serial, wwn) {
        (Some(serial), _) => format!("serial number {serial}"),
        (_, Some(wwn)) => format!("world-wide name {wwn}"),
        _ => return Ok(name.to_path_buf()),
    };
    let has = |disk: &BlockDevice| match wwn.map(bare_wwn) {
        Some(wwn) => disk.wwn.as_deref().map(bare_wwn) == Some(wwn),
        None => disk.serial.as_deref() == serial,
    };
    // Partitions have what their disk has.
    let is_disk = |disk: &BlockDevice| !matches!(disk.kind, DeviceKind::Partition { .. });
    let disks = list(root)?.into_iter().filter(|device| is_disk(device) && has(device));
    let mut found: Vec<PathBuf> = disks.map(|disk| disk.path).collect();
    match found.as_slice() {
        [_] => Ok(found.remove(0)),
        _ => Err(crate::Error::NotOneDevice { what, found }),
    }
}

fn bare_wwn(wwn: &str) -> String {
    let lower = wwn.to_ascii_lowercase();
    let prefixes = ["naa.", "eui.", "0x"];
    let bare = prefixes.iter().find_map(|prefix| lower.strip_prefix(prefix));
    bare.unwrap_or(&lower).to_owned()
}

/// Whether the kernel refuses writes to an open device; `false` where it does not tell.
pub(crate) fn is_read_only(device: &File) -> bool {
    let Ok(metadata) = device.metadata() else { return false };
    let number = metadata.rdev();
    let ro = format!("/sys/dev/block/{}:{}/ro", major(number), minor(number));
    attributes::flag(Path::new(&ro))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_a_device_is_counted_and_older_kernels_count_less() {
        let stat = "  2170 5 188368 350   33 12 3264 18  0 140 370   7 0 512 2  3 4\n";
        assert_eq!(written(stat), Some(vec![33, 3264, 7, 512]));
        assert_eq!(written("1 2 3 4 5 6 7 8 9 10 11"), Some(vec![5, 7]));
        assert_eq!(written("1 2 3 4 5 6"), None);
        assert_eq!(written("nothing of the kind"), None);
    }

    #[test]
    fn nothing_is_counted_of_what_is_no_block_device() {
        assert_eq!(writes_to(Path::new("/"), Path::new("/dev/null")), None);
        assert_eq!(writes_to(Path::new("/"), Path::new("/")), None);
        assert_eq!(writes_to(Path::new("/"), Path::new("/missing")), None);
    }
}
