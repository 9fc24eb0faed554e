//! Filesystems that are mounted from the bytes of a source, and could write to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::inventory::Inventory;
use super::uses::devices_above;
use crate::Result;

/// A filesystem that is mounted for writing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filesystem {
    /// Where it is mounted: the first of its mount points that is not covered by another mount.
    /// `None` when all are.
    pub path: Option<PathBuf>,
    /// All its mount points, covered or not.
    pub mounts: Vec<PathBuf>,
    /// The kernel's name of its kind.
    pub kind: String,
    /// Devices of the source it lies on.
    pub devices: Vec<String>,
    /// Devices it lies on that show no byte of the source: it is only captured in part.
    pub elsewhere: Vec<String>,
}

/// Filesystems below `root` that could write to `source`, a device or a file: on it, on a part of
/// it, or on something stacked on it. Each is listed once, however often it is mounted.
///
/// # Errors
/// [`crate::Error::Path`] when the source or the kernel's lists cannot be read.
pub fn written_filesystems(root: &Path, source: &Path) -> Result<Vec<Filesystem>> {
    let inventory = Inventory::read(root)?;
    let above = devices_above(&inventory, source)?;
    let mut found: BTreeMap<(u32, u32), Filesystem> = BTreeMap::new();
    for line in &inventory.mounts {
        let names = inventory.devices_of(line).into_iter().map(|device| device.name.clone());
        let (devices, elsewhere): (Vec<_>, Vec<_>) = names.partition(|name| above.contains(name));
        if devices.is_empty() || line.mount.read_only {
            continue;
        }
        let filesystem = found.entry((line.major, line.minor)).or_insert_with(|| Filesystem {
            path: None,
            mounts: Vec::new(),
            kind: line.mount.fstype.clone(),
            devices,
            elsewhere,
        });
        let at = &line.mount.path;
        if filesystem.path.is_none() && mount_id(at).is_ok_and(|id| id == line.id) {
            filesystem.path = Some(at.clone());
        }
        filesystem.mounts.push(at.clone());
    }
    Ok(found.into_values().collect())
}

/// The kernel's number of the mount that a path leads to.
fn mount_id(path: &Path) -> io::Result<u64> {
    let found = statx(File::open(path)?, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}
