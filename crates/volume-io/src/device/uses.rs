//! Why a device or file must not be overwritten.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::inventory::{Inventory, examine};
use super::mounts::MountLine;
use super::{BlockDevice, DeviceKind};
use crate::Result;

/// Filesystems in files in filesystems that are followed down: more than anybody stacks on
/// purpose, and a bound on a made-up circle.
const NESTING_MAX: usize = 16;

/// One reason why writing would destroy something in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Use {
    /// The kernel refuses writes to the device.
    ReadOnly {
        /// The device.
        device: String,
    },
    /// A filesystem on the device is mounted.
    Mounted {
        /// The device that is mounted: the one asked for, a part of it, or one stacked on it.
        device: String,
        /// Where.
        path: PathBuf,
    },
    /// The device, or the file itself (then `device` is `None`), is active swap space.
    Swap {
        /// The device.
        device: Option<String>,
    },
    /// Another device is stacked on the device.
    Held {
        /// The device.
        device: String,
        /// Kernel name of the one on top.
        by: String,
        /// Its name below `/dev/mapper`, where it has one.
        by_name: Option<String>,
    },
    /// A loop device shows the file or device.
    BacksLoop {
        /// The loop device.
        by: String,
    },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly { device } => write!(f, "{device} is read-only"),
            Self::Mounted { device, path } => {
                write!(f, "{device} is mounted at {}", path.display())
            }
            Self::Swap { device: Some(device) } => write!(f, "{device} is active swap space"),
            Self::Swap { device: None } => write!(f, "the file is active swap space"),
            Self::Held { device, by, by_name: Some(name) } => {
                write!(f, "{device} is held by {by} ({name})")
            }
            Self::Held { device, by, by_name: None } => write!(f, "{device} is held by {by}"),
            Self::BacksLoop { by } => write!(f, "loop device {by} shows it"),
        }
    }
}

/// Everything that speaks against writing to `path`, a block device or a regular file, sorted;
/// empty when nothing does. Looks at the device, its partitions, the disk it is part of, and
/// whatever is stacked on any of these. A path that does not exist has no uses.
///
/// This is an explanation for people; what keeps others away is
/// [`FileDisk::open_target`](crate::FileDisk::open_target) with `exclusive`.
///
/// # Errors
/// [`crate::Error::Path`] when the path or the kernel's lists cannot be read.
pub fn uses_of(root: &Path, path: &Path) -> Result<Vec<Use>> {
    let id = match FileId::of(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        id => id.map_err(examine(path))?,
    };
    let inventory = Inventory::read(root)?;
    Ok(survey(&inventory, id).uses.into_iter().collect())
}

/// Names of all devices that show bytes of `path`: itself, its parts, and what is stacked on
/// any of these.
pub(super) fn devices_above(inventory: &Inventory, path: &Path) -> Result<BTreeSet<String>> {
    Ok(survey(inventory, FileId::of(path).map_err(examine(path))?).seen)
}

fn survey(inventory: &Inventory, id: FileId) -> Survey<'_> {
    let mut survey = Survey { inventory, seen: BTreeSet::new(), uses: BTreeSet::new() };
    match id {
        FileId::Device { major, minor } => {
            if let Some(device) = inventory.numbered(major, minor) {
                survey.disk_above(device);
                survey.device(device);
            }
        }
        FileId::File { .. } => {
            if inventory.swaps.iter().any(|swap| id.is_at(&below(&inventory.root, swap))) {
                survey.uses.insert(Use::Swap { device: None });
            }
            survey.loops_on(id);
        }
    }
    survey
}

/// See [`super::at`].
pub(super) fn device_at(root: &Path, path: &Path) -> Result<Option<BlockDevice>> {
    match FileId::of(path).map_err(examine(path))? {
        FileId::Device { major, minor } => {
            Ok(Inventory::read(root)?.numbered(major, minor).cloned())
        }
        FileId::File { .. } => Ok(None),
    }
}

/// Whether two paths name the same file or, through whatever nodes, the same device.
///
/// # Errors
/// When either cannot be examined.
pub fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(FileId::of(a)? == FileId::of(b)?)
}

/// Whether overwriting `target` (a device, or the file behind a loop device) would destroy the
/// filesystem that `path` lies on: because it is on the device, on a part of it, or on
/// something stacked on it. A `path` that does not exist yet counts as the folder it would be
/// created in. Network and other filesystems without a device of this machine are on none.
///
/// # Errors
/// [`crate::Error::Path`] when either path or the kernel's lists cannot be read.
pub fn holds_path(root: &Path, target: &Path, path: &Path) -> Result<bool> {
    let target_id = FileId::of(target).map_err(examine(target))?;
    let inventory = Inventory::read(root)?;
    let mut ground = Ground { inventory: &inventory, on: BTreeSet::new(), files: Vec::new() };
    ground.below_path(&existing_part(path), 0);
    let FileId::Device { major, minor } = target_id else {
        return Ok(ground.files.contains(&target_id));
    };
    let Some(device) = inventory.numbered(major, minor) else { return Ok(false) };
    // A disk is lost with any of its partitions, a partition with the disk as a whole.
    let parent_of = |name: &String| inventory.named(name)?.parent.clone();
    Ok(ground.on.contains(&device.name)
        || ground.on.iter().filter_map(parent_of).any(|parent| parent == device.name)
        || device.parent.as_ref().is_some_and(|parent| ground.on.contains(parent)))
}

/// What makes two paths the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileId {
    Device { major: u32, minor: u32 },
    File { device: u64, inode: u64 },
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&std::fs::metadata(path)?))
    }

    fn is_at(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|other| other == self)
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            let number = metadata.rdev();
            Self::Device { major: major(number), minor: minor(number) }
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }
}

/// Walks upwards: from a device to all that is built on it.
struct Survey<'a> {
    inventory: &'a Inventory,
    seen: BTreeSet<String>,
    uses: BTreeSet<Use>,
}

impl Survey<'_> {
    /// Uses of the disk as a whole also concern each of its partitions; the other partitions
    /// do not.
    fn disk_above(&mut self, device: &BlockDevice) {
        if let Some(disk) = device.parent.as_ref().and_then(|name| self.inventory.named(name)) {
            self.direct(disk);
        }
    }

    fn device(&mut self, device: &BlockDevice) {
        let mut open = vec![device.name.clone()];
        while let Some(name) = open.pop() {
            let Some(device) = self.inventory.named(&name) else { continue };
            if !self.seen.insert(name.clone()) {
                continue;
            }
            self.direct(device);
            let part = |d: &&BlockDevice| d.parent.as_ref() == Some(&name);
            open.extend(self.inventory.devices.iter().filter(part).map(|d| d.name.clone()));
        }
    }

    /// What uses the device itself, and what is stacked on that.
    fn direct(&mut self, device: &BlockDevice) {
        let name = || device.name.clone();
        if device.read_only {
            self.uses.insert(Use::ReadOnly { device: name() });
        }
        if device.swap {
            self.uses.insert(Use::Swap { device: Some(name()) });
        }
        for mount in &device.mounts {
            self.uses.insert(Use::Mounted { device: name(), path: mount.path.clone() });
        }
        for by in &device.holders {
            let holder = self.inventory.named(by);
            let by_name = holder.and_then(|holder| match &holder.kind {
                DeviceKind::DeviceMapper { name } => Some(name.clone()),
                _ => None,
            });
            self.uses.insert(Use::Held { device: name(), by: by.clone(), by_name });
            if let Some(holder) = holder {
                self.device(holder);
            }
        }
        self.loops_on(FileId::Device { major: device.major, minor: device.minor });
    }

    fn loops_on(&mut self, id: FileId) {
        for device in &self.inventory.devices {
            let Some(file) = &device.backing_file else { continue };
            if id.is_at(&below(&self.inventory.root, file)) {
                self.uses.insert(Use::BacksLoop { by: device.name.clone() });
                self.device(device);
            }
        }
    }
}

/// Walks downwards: from a path to all that it is built on.
struct Ground<'a> {
    inventory: &'a Inventory,
    /// Devices whose bytes carry it.
    on: BTreeSet<String>,
    /// Files whose bytes carry it, through a loop device.
    files: Vec<FileId>,
}

impl Ground<'_> {
    fn below_path(&mut self, path: &Path, depth: usize) {
        if depth == NESTING_MAX {
            return;
        }
        let inventory = self.inventory;
        // Later lines cover earlier ones on the same mount point.
        let on_path = inventory.mounts.iter().filter(|line| path.starts_with(&line.mount.path));
        let Some(line) = on_path.max_by_key(|line| line.mount.path.components().count()) else {
            return;
        };
        for device in inventory.devices_of(line) {
            self.below_device(device, depth);
        }
        for folder in overlaid_folders(line) {
            self.below_path(&folder, depth + 1);
        }
    }

    fn below_device(&mut self, device: &BlockDevice, depth: usize) {
        if !self.on.insert(device.name.clone()) {
            return;
        }
        let inventory = self.inventory;
        let disk = device.parent.as_ref().and_then(|name| inventory.named(name));
        for slave in &device.slaves {
            if let Some(slave) = inventory.named(slave) {
                self.below_device(slave, depth);
            }
        }
        // A partition of a device that is itself built on something else.
        for file in [Some(device), disk].into_iter().flatten() {
            let Some(file) = &file.backing_file else { continue };
            match FileId::of(&below(&inventory.root, file)) {
                Ok(FileId::Device { major, minor }) => {
                    if let Some(under) = inventory.numbered(major, minor) {
                        self.below_device(under, depth);
                    }
                }
                Ok(id) => {
                    self.files.push(id);
                    self.below_path(file, depth + 1);
                }
                Err(_) => self.below_path(file, depth + 1),
            }
        }
        for slave in disk.map(|disk| &disk.slaves).into_iter().flatten() {
            if let Some(slave) = inventory.named(slave) {
                self.below_device(slave, depth);
            }
        }
    }
}

/// The folders an overlay filesystem is made of.
fn overlaid_folders(line: &MountLine) -> Vec<PathBuf> {
    if line.mount.fstype != "overlay" {
        return Vec::new();
    }
    let options = line.super_options.split(',').filter_map(|option| option.split_once('='));
    let folders = options.filter(|(key, _)| matches!(*key, "upperdir" | "lowerdir" | "workdir"));
    folders.flat_map(|(_, value)| value.split(':').map(PathBuf::from)).collect()
}

/// The nearest part of `path` that exists, without links.
fn existing_part(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = path.ancestors().find_map(|part| std::fs::canonicalize(part).ok());
    real.unwrap_or(path)
}

/// Where an absolute path of the examined system is found from here.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
