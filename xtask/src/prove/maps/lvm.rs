//! Disks of LVM2, which is told that there is no device-mapper, and has folders of its own.

use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::volumes::{Loop, Scratch, said_by};
use crate::process;

const MIB: u64 = 1 << 20;

/// A disk with a filesystem in pieces, swap space and something unknown.
pub(super) fn one_disk(root: &[u8], swap: &[u8]) -> Result<Vec<u8>, String> {
    let group = Group::new(&[16 * MIB])?;
    for volume in ["root -l 3", "swap -l 1", "raw -l 2"] {
        group.create(volume)?;
    }
    group.call("lvextend -l +1 vg/root")?;
    let disk = &group.disks[0].0;
    // Extents are handed out from the first on.
    let (front, back) = root.split_at(root.len().min(3 << 20));
    for (extent, bytes) in [(0, front), (3, swap), (6, back)] {
        let file = std::fs::File::options().write(true).open(&disk.path);
        let written = file.and_then(|file| file.write_all_at(bytes, (1 + extent) * MIB));
        written.map_err(|e| format!("{}: {e}", disk.path.display()))?;
    }
    disk.bytes()
}

/// A disk that shares volumes with another.
pub(super) fn one_of_two_disks(root: &[u8]) -> Result<Vec<u8>, String> {
    let group = Group::new(&[16 * MIB, 16 * MIB])?;
    group.create("root -l 4 @0")?;
    group.create("stripes -i 2 -l 4")?;
    group.create("both -l 2 @0")?;
    group.call("lvextend -l +2 vg/both @1")?;
    let disk = &group.disks[0].0;
    let file = std::fs::File::options().write(true).open(&disk.path);
    let written = file.and_then(|file| file.write_all_at(root, MIB));
    written.map_err(|e| format!("{}: {e}", disk.path.display()))?;
    disk.bytes()
}

/// The group `vg` on new disks, in extents of a mebibyte.
struct Group {
    system: TempDir,
    disks: Vec<(Scratch, Loop)>,
}

impl Group {
    fn new(lens: &[u64]) -> Result<Self, String> {
        let system = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut disks = Vec::new();
        for &len in lens {
            let disk = Scratch::new(len)?;
            let device = Loop::over(&disk.path)?;
            disks.push((disk, device));
        }
        let only: String =
            disks.iter().map(|(_, device)| format!("\"a|^{}$|\",", device.0)).collect();
        let folder = system.path().display();
        let text = format!(
            "devices {{ dir=\"/dev\" scan=[\"/dev\"] filter=[{only}\"r|.*|\"] use_devicesfile=0\n\
             hints=\"none\" obtain_device_list_from_udev=0 sysfs_scan=0\n\
             external_device_info_source=\"none\" md_component_detection=0 }}\n\
             global {{ locking_dir=\"{folder}/locks\" use_lvmpolld=0 event_activation=0 }}\n\
             backup {{ backup=0 archive=0 }}\n\
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }}\n"
        );
        std::fs::write(system.path().join("lvm.conf"), text).map_err(|e| e.to_string())?;
        let group = Self { system, disks };
        group.call("pvcreate @*")?;
        group.call("vgcreate -s 1m vg @*")?;
        Ok(group)
    }

    fn create(&self, volume: &str) -> Result<(), String> {
        self.call(&format!("lvcreate -an -Zn -Wn -y vg -n {volume}"))
    }

    /// Runs an LVM command. `@0` is the first device, `@*` are all.
    fn call(&self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let mut command = process::command(words.next().unwrap_or_default());
        command.env("LVM_SYSTEM_DIR", self.system.path()).env("LVM_SUPPRESS_FD_WARNINGS", "1");
        command.arg("--driverloaded=n");
        for word in words {
            match word.strip_prefix('@') {
                Some("*") => drop(command.args(self.disks.iter().map(|disk| &disk.1.0))),
                Some(n) => {
                    let disk = n.parse().ok().and_then(|n: usize| self.disks.get(n));
                    command.args(disk.map(|disk| &disk.1.0));
                }
                None => drop(command.arg(word)),
            }
        }
        said_by(&mut command).map(drop)
    }
}
