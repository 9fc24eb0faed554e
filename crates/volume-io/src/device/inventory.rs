//! Putting the kernel's answers together into a list of devices.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};

use super::attributes::{flag, names_in, number, read_limited, text, vpd_serial};
use super::mounts::{MountLine, read_mounts, read_swaps};
use super::{BlockDevice, DeviceKind};
use crate::{Error, Result};

/// Unit of `size` and `start` in sysfs, whatever the sector size of the device.
const SYSFS_UNIT: u64 = 512;

/// Sector size where the kernel tells none.
const SECTOR_DEFAULT: u32 = 512;

/// udev's record of one device; a few KiB in practice.
const UDEV_RECORD_MAX: u64 = 1 << 20;

/// Everything known below one root, read once.
pub(super) struct Inventory {
    pub(super) root: PathBuf,
    pub(super) devices: Vec<BlockDevice>,
    pub(super) mounts: Vec<MountLine>,
    pub(super) swaps: Vec<PathBuf>,
}

impl Inventory {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let class = root.join("sys/class/block");
        // An empty answer must mean "no devices", never "could not look".
        std::fs::read_dir(&class).map_err(Error::path("list", &class))?;
        let mut devices: Vec<BlockDevice> =
            names_in(&class).iter().filter_map(|name| read_device(root, name)).collect();
        devices.sort_by(|a, b| natural_order(&a.name, &b.name));
        adopt_partitions(root, &mut devices);
        let mut inventory = Self {
            root: root.to_path_buf(),
            devices,
            mounts: read_mounts(root)?,
            swaps: read_swaps(root)?,
        };
        inventory.place_mounts();
        inventory.place_swaps();
        Ok(inventory)
    }

    pub(super) fn named(&self, name: &str) -> Option<&BlockDevice> {
        self.devices.iter().find(|device| device.name == name)
    }

    pub(super) fn numbered(&self, major: u32, minor: u32) -> Option<&BlockDevice> {
        self.devices.iter().find(|device| (device.major, device.minor) == (major, minor))
    }

    /// The devices a mounted filesystem lies on: several for a multi-device Btrfs.
    pub(super) fn devices_of(&self, mount: &MountLine) -> Vec<&BlockDevice> {
        // Filesystems over several devices, Btrfs above all, mount under a made-up number.
        let found = self.numbered(mount.major, mount.minor).or_else(|| self.by_path(&mount.source));
        let Some(device) = found else { return Vec::new() };
        let pools = self.root.join("sys/fs/btrfs");
        let members = |pool: &String| names_in(&pools.join(pool).join("devices"));
        let pool = names_in(&pools).iter().map(members).find(|pool| pool.contains(&device.name));
        match pool {
            Some(pool) => pool.iter().filter_map(|name| self.named(name)).collect(),
            None => vec![device],
        }
    }

    /// The device a path below `/dev` means.
    fn by_path(&self, path: &Path) -> Option<&BlockDevice> {
        let relative = path.strip_prefix("/dev").ok()?;
        let by_name = |path: &Path| self.devices.iter().find(|device| device.path == path);
        if let Some(device) = by_name(path) {
            return Some(device);
        }
        if let Ok(mapped) = relative.strip_prefix("mapper") {
            let is = |kind: &DeviceKind| matches!(kind, DeviceKind::DeviceMapper { name } if Path::new(name) == mapped);
            if let Some(device) = self.devices.iter().find(|device| is(&device.kind)) {
                return Some(device);
            }
        }
        // A link made by udev: /dev/disk/by-uuid/…, /dev/vg/lv.
        let target = std::fs::canonicalize(self.root.join("dev").join(relative)).ok()?;
        by_name(&Path::new("/dev").join(target.file_name()?))
    }

    fn place_mounts(&mut self) {
        let mut placed = Vec::new();
        for line in &self.mounts {
            for device in self.devices_of(line) {
                placed.push((device.name.clone(), line.mount.clone()));
            }
        }
        for device in &mut self.devices {
            let own = placed.iter().filter(|(name, _)| *name == device.name);
            device.mounts = own.map(|(_, mount)| mount.clone()).collect();
            device.mounts.sort_unstable();
        }
    }

    fn place_swaps(&mut self) {
        let names: Vec<String> =
            self.swaps.iter().filter_map(|swap| Some(self.by_path(swap)?.name.clone())).collect();
        for device in &mut self.devices {
            device.swap = names.contains(&device.name);
        }
    }
}

/// One device; `None` when it is gone by the time it is looked at.
fn read_device(root: &Path, name: &str) -> Option<BlockDevice> {
    let at = root.join("sys/class/block").join(name);
    let number_pair = text(&at.join("dev"))?;
    let (major, minor) = number_pair.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let bytes =
        |attribute: &str| Some(number::<u64>(&at.join(attribute))?.saturating_mul(SYSFS_UNIT));
    let identity = Identity::read(root, &at, major, minor);
    Some(BlockDevice {
        name: name.to_owned(),
        // A slash in a device name is written as an exclamation mark in sysfs.
        path: Path::new("/dev").join(name.replace('!', "/")),
        major,
        minor,
        size: bytes("size").unwrap_or(0),
        logical_sector: number(&at.join("queue/logical_block_size")).unwrap_or(SECTOR_DEFAULT),
        physical_sector: number(&at.join("queue/physical_block_size")).unwrap_or(SECTOR_DEFAULT),
        vendor: identity.vendor,
        model: identity.model,
        serial: identity.serial,
        wwn: identity.wwn,
        read_only: flag(&at.join("ro")),
        removable: flag(&at.join("removable")),
        rotational: flag(&at.join("queue/rotational")),
        kind: read_kind(&at, name, bytes("start").unwrap_or(0)),
        parent: None,
        holders: names_in(&at.join("holders")),
        slaves: names_in(&at.join("slaves")),
        mounts: Vec::new(),
        swap: false,
        backing_file: text(&at.join("loop/backing_file")).map(PathBuf::from),
    })
}

fn read_kind(at: &Path, name: &str, start: u64) -> DeviceKind {
    if let Some(number) = number(&at.join("partition")) {
        return DeviceKind::Partition { number, start };
    }
    if let Some(name) = text(&at.join("dm/name")) {
        return DeviceKind::DeviceMapper { name };
    }
    // The name in front of the number is part of the kernel's documented device list.
    match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "loop" => DeviceKind::Loop,
        "md" | "md_d" => DeviceKind::Md,
        "sr" => DeviceKind::Rom,
        "ram" | "zram" => DeviceKind::Ram,
        "nbd" => DeviceKind::Nbd,
        "fd" => DeviceKind::Floppy,
        _ if at.join("md").is_dir() => DeviceKind::Md,
        _ => DeviceKind::Disk,
    }
}

#[derive(Default)]
struct Identity {
    vendor: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
}

impl Identity {
    /// The kernel's own knowledge first: it is the same with and without udev, on the running
    /// system and on a rescue medium, so a disk keeps its identity across both.
    fn read(root: &Path, at: &Path, major: u32, minor: u32) -> Self {
        let record = root.join(format!("run/udev/data/b{major}:{minor}"));
        let record = read_limited(&record, UDEV_RECORD_MAX).unwrap_or_default();
        let record = String::from_utf8_lossy(&record);
        let udev = |key: &str| {
            let value = |line: &str| {
                line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned)
            };
            record.lines().find_map(value).filter(|value| !value.is_empty())
        };
        let first = |places: &[&str]| places.iter().find_map(|place| text(&at.join(place)));
        Self {
            vendor: first(&["device/vendor"]).or_else(|| udev("ID_VENDOR")),
            model: first(&["device/model"]).or_else(|| udev("ID_MODEL")),
            serial: first(&["serial", "device/serial"])
                .or_else(|| vpd_serial(&at.join("device/vpd_pg80")))
                .or_else(|| udev("ID_SERIAL_SHORT"))
                .or_else(|| udev("ID_SERIAL")),
            wwn: first(&["wwid", "device/wwid"]).or_else(|| udev("ID_WWN")),
        }
    }
}

/// Tells partitions apart from disks that happen to be named alike: the kernel keeps the folder
/// of a partition inside that of its disk. What the partition does not know it takes from there.
fn adopt_partitions(root: &Path, devices: &mut [BlockDevice]) {
    let is_partition = |d: &BlockDevice| matches!(d.kind, DeviceKind::Partition { .. });
    let disks: Vec<BlockDevice> = devices.iter().filter(|d| !is_partition(d)).cloned().collect();
    for device in devices.iter_mut().filter(|d| is_partition(d)) {
        let inside = |disk: &&BlockDevice| {
            root.join("sys/class/block")
                .join(&disk.name)
                .join(&device.name)
                .join("partition")
                .exists()
        };
        let Some(disk) =
            disks.iter().filter(|disk| device.name.starts_with(&disk.name)).find(inside)
        else {
            continue;
        };
        device.parent = Some(disk.name.clone());
        device.logical_sector = disk.logical_sector;
        device.physical_sector = disk.physical_sector;
        device.vendor.clone_from(&disk.vendor);
        device.model.clone_from(&disk.model);
        device.serial.clone_from(&disk.serial);
        device.wwn.clone_from(&disk.wwn);
        device.removable = disk.removable;
        device.rotational = disk.rotational;
        device.read_only |= disk.read_only;
    }
}

/// Letters by letter, runs of digits by value.
fn natural_order(a: &str, b: &str) -> Ordering {
    let key = |name: &str| -> Vec<(String, u64)> {
        let mut parts = vec![(String::new(), 0u64)];
        let mut in_number = false;
        for c in name.chars() {
            if let Some(digit) = c.to_digit(10) {
                let value = &mut parts.last_mut().expect("never empty").1;
                *value = value.saturating_mul(10).saturating_add(u64::from(digit));
                in_number = true;
            } else {
                if std::mem::take(&mut in_number) {
                    parts.push((String::new(), 0));
                }
                parts.last_mut().expect("never empty").0.push(c);
            }
        }
        parts
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

/// Wraps the errors of looking at a path the caller named.
pub(super) fn examine(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::path("examine", path)
}
