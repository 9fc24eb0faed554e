//! What the machine knows about a source besides its bytes.

use std::fs;
use std::path::Path;

use aiv_volume_io::device::{self, BlockDevice, DeviceKind, Use};

use crate::error::{Error, Result};
use crate::facts::SourceFacts;
use crate::inventory::text;

impl SourceFacts {
    /// Looks at the device or file at `path`, below the system's `root` (`/` in production):
    /// identity, sector sizes, and who could write to it. Its name becomes the device's, or the
    /// file's without extension. Opens nothing.
    ///
    /// # Errors
    /// [`Error::Examine`] when the path or the kernel's lists cannot be read.
    pub fn gather(root: &Path, path: &Path) -> Result<Self> {
        let device = device::at(root, path).map_err(examine)?;
        let mut facts = device.as_ref().map(Self::of_device).unwrap_or_default();
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        facts.label = real.display().to_string();
        if facts.name.is_empty() {
            facts.name = real.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        facts.host = text(root, "proc/sys/kernel/hostname").trim().to_owned();
        facts.writers = writers(root, path)?;
        Ok(facts)
    }

    /// What the device says about itself. Nothing is asked about who uses it.
    #[must_use]
    pub fn of_device(device: &BlockDevice) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        // A partition carries the serial of its disk, which must not make it the same source.
        let is_part = matches!(device.kind, DeviceKind::Partition { .. });
        let own = |value: &Option<String>| if is_part { String::new() } else { text(value) };
        Self {
            label: device.path.display().to_string(),
            name: match &device.kind {
                DeviceKind::DeviceMapper { name } => name.clone(),
                _ => device.name.replace('!', "-"),
            },
            logical_sector: device.logical_sector,
            physical_sector: device.physical_sector,
            model: text(&device.model),
            serial: own(&device.serial),
            wwn: own(&device.wwn),
            ..Self::default()
        }
    }
}

/// Mounts that can write, and swap, on the source or on anything it is part of or carries.
fn writers(root: &Path, path: &Path) -> Result<Vec<String>> {
    let uses = device::uses_of(root, path).map_err(examine)?;
    let devices = if uses.is_empty() { Vec::new() } else { device::list(root).map_err(examine)? };
    let only_reads = |name: &str, at: &Path| {
        let device = devices.iter().find(|device| device.name == name);
        device.is_some_and(|d| d.mounts.iter().any(|m| m.path == at && m.read_only))
    };
    let writes = |found: &&Use| match found {
        Use::Mounted { device, path } => !only_reads(device, path),
        Use::Swap { .. } => true,
        _ => false,
    };
    Ok(uses.iter().filter(writes).map(ToString::to_string).collect())
}

fn examine(error: aiv_volume_io::Error) -> Error {
    Error::Examine(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A root in which `/proc` and `/sys` say what a test wants about a device that exists.
    fn machine(mountinfo: &str, swaps: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            fs::write(path, text).expect("written");
        };
        put("proc/sys/kernel/hostname", "web1\n");
        put("proc/self/mountinfo", mountinfo);
        put("proc/swaps", &format!("Filename Type Size Used Priority\n{swaps}"));
        let number = fs::metadata(LOOP).expect("this kernel has loop devices").rdev();
        assert_eq!(number, 7 << 8, "the first loop device is 7:0");
        put("sys/class/block/loop0/dev", "7:0\n");
        put("sys/class/block/loop0/size", "2048\n");
        put("sys/class/block/loop0/serial", "S3R1AL\n");
        put("sys/class/block/loop0/queue/logical_block_size", "4096\n");
        root
    }

    const LOOP: &str = "/dev/loop0";

    fn gather(root: &tempfile::TempDir) -> SourceFacts {
        SourceFacts::gather(root.path(), Path::new(LOOP)).expect("gathered")
    }

    #[test]
    fn a_device_gives_its_name_serial_sectors_and_host() {
        let facts = gather(&machine("", ""));
        assert_eq!((facts.name.as_str(), facts.label.as_str()), ("loop0", LOOP));
        assert_eq!((facts.serial.as_str(), facts.host.as_str()), ("S3R1AL", "web1"));
        assert_eq!((facts.logical_sector, facts.writers.len()), (4096, 0));
    }

    #[test]
    fn a_mount_that_can_write_and_swap_are_writers_and_a_read_only_mount_is_none() {
        let rw = "36 1 7:0 / /data rw,noatime - ext4 /dev/loop0 rw\n";
        let ro = "36 1 7:0 / /data ro,noatime - ext4 /dev/loop0 rw\n";
        assert_eq!(gather(&machine(rw, "")).writers, ["loop0 is mounted at /data"]);
        assert_eq!(gather(&machine(ro, "")).writers, [""; 0]);
        let swap = gather(&machine("", "/dev/loop0 partition 1020 0 -2\n")).writers;
        assert_eq!(swap, ["loop0 is active swap space"]);
    }

    #[test]
    fn a_file_is_called_by_its_name_without_extension_and_found_through_links() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("server.img");
        fs::write(&file, [0; 512]).expect("written");
        let link = dir.path().join("today");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let facts = SourceFacts::gather(machine("", "").path(), &link).expect("gathered");
        assert_eq!(facts.name, "server");
        assert!(facts.label.ends_with("server.img"), "{}", facts.label);
        assert_eq!((facts.logical_sector, facts.serial.as_str()), (0, ""));
    }
}
