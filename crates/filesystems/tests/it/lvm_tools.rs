//! Volume groups on loop devices, and what LVM2 says about them.
//!
//! No logical volume is ever activated, so no device-mapper is needed: LVM is told that there is
//! none. Each group has a configuration, a folder for locks and a list of devices of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;

use aiv_filesystems::MapNote;
use aiv_volume_io::{Extent, ExtentSet, ReadAt};
use tempfile::TempDir;

use crate::tools::{Volume, run};

/// Disks with a volume group, `vg` unless a test names it otherwise.
pub(crate) struct Lvm {
    system: TempDir,
    pub(crate) disks: Vec<Volume>,
    loops: Vec<String>,
}

impl Lvm {
    /// Disks as they are.
    pub(crate) fn over(disks: Vec<Volume>) -> Self {
        let mut lvm = Self { system: tempfile::tempdir().unwrap(), disks, loops: Vec::new() };
        for disk in &lvm.disks {
            let device = run("losetup", &["--find", "--show", disk.path()]);
            lvm.loops.push(device.trim().to_owned());
        }
        let only: String = lvm.loops.iter().map(|device| format!("\"a|^{device}$|\",")).collect();
        let system = lvm.system.path().display();
        let text = format!(
            "devices {{ dir=\"/dev\" scan=[\"/dev\"] filter=[{only}\"r|.*|\"] use_devicesfile=0\n\
             hints=\"none\" obtain_device_list_from_udev=0 sysfs_scan=0\n\
             external_device_info_source=\"none\" md_component_detection=0 }}\n\
             global {{ locking_dir=\"{system}/locks\" use_lvmpolld=0 event_activation=0 }}\n\
             backup {{ backup=0 archive=0 }}\n\
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }}\n"
        );
        std::fs::write(lvm.system.path().join("lvm.conf"), text).unwrap();
        lvm
    }

    /// New disks of these lengths with the group `vg` on them, in extents of a mebibyte.
    pub(crate) fn new(lens: &[u64], pvcreate: &str) -> Self {
        let lvm = Self::over(lens.iter().map(|&len| Volume::new(len)).collect());
        lvm.call(&format!("pvcreate {pvcreate} @*"));
        lvm.call("vgcreate -s 1m vg @*");
        lvm
    }

    /// Runs an LVM command that must succeed. `@0` is the first device, `@*` are all.
    pub(crate) fn call(&self, command: &str) -> String {
        let system = format!("LVM_SYSTEM_DIR={}", self.system.path().display());
        let mut words = vec![system.as_str(), "LVM_SUPPRESS_FD_WARNINGS=1"];
        for word in command.split_whitespace() {
            match word.strip_prefix('@') {
                Some("*") => words.extend(self.loops.iter().map(String::as_str)),
                Some(n) => words.push(&self.loops[n.parse::<usize>().unwrap()]),
                None => words.push(word),
            }
        }
        words.insert(3, "--driverloaded=n");
        run("env", &words)
    }

    /// Makes a logical volume of so many extents: `"name 5 @0"`.
    pub(crate) fn create(&self, name: &str, extents: u64, where_: &str) {
        self.call(&format!("lvcreate -an -Zn -Wn -y -n {name} -l {extents} vg {where_}"));
    }

    /// The metadata as LVM tells it, without what changes with every telling.
    pub(crate) fn told(&self) -> String {
        let path = self.system.path().join("told");
        self.call(&format!("vgcfgbackup -f {} vg", path.display()));
        let text = std::fs::read_to_string(path).unwrap();
        let told = |line: &&str| {
            !line.starts_with(['#', 'd', 'c']) && !line.trim().starts_with("device =")
        };
        text.lines().filter(told).map(|line| format!("{line}\n")).collect()
    }

    /// Makes the metadata what `edit` makes of it.
    pub(crate) fn restore(&self, edit: impl Fn(&str) -> String) {
        let path = self.system.path().join("edited");
        self.call(&format!("vgcfgbackup -f {} vg", path.display()));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, edit(&text)).unwrap();
        self.call(&format!("vgcfgrestore --force -y -f {} vg", path.display()));
    }

    /// Where a logical volume lies, in its order: the disk, and bytes of it.
    pub(crate) fn places(&self, name: &str) -> Vec<(usize, Extent)> {
        let fields = "seg_start,seg_size,seg_pe_ranges,vg_extent_size";
        let rows = self.call(&format!(
            "lvs -a --noheadings --units b --nosuffix -o {fields} -O seg_start vg/{name}"
        ));
        let mut places = Vec::new();
        for row in rows.lines() {
            let words: Vec<&str> = row.split_whitespace().collect();
            let extent: u64 = words[words.len() - 1].parse().unwrap();
            for range in &words[2..words.len() - 1] {
                let (device, range) = range.split_once(':').unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let [first, last] = [first, last].map(|n| n.parse::<u64>().unwrap());
                let disk = self.loops.iter().position(|known| known == device).unwrap();
                let start = self.data_start(disk) + first * extent;
                places.push((disk, Extent::new(start, (last - first + 1) * extent)));
            }
        }
        places
    }

    /// First byte of the first extent.
    pub(crate) fn data_start(&self, disk: usize) -> u64 {
        let rows = self.call(&format!("pvs --noheadings --units b --nosuffix -o pe_start @{disk}"));
        rows.trim().parse().unwrap()
    }

    /// The extents of a disk, as bytes of it.
    pub(crate) fn data(&self, disk: usize) -> Extent {
        let fields = "pv_pe_count,vg_extent_size";
        let rows = self.call(&format!("pvs --noheadings --units b --nosuffix -o {fields} @{disk}"));
        let numbers: Vec<u64> = rows.split_whitespace().map(|n| n.parse().unwrap()).collect();
        Extent::new(self.data_start(disk), numbers[0] * numbers[1])
    }

    /// All that is no extent of a disk.
    pub(crate) fn records(&self, disk: usize) -> Vec<Extent> {
        let all = Extent::new(0, self.disks[disk].open().len());
        [self.data(disk)].into_iter().collect::<ExtentSet>().gaps_within(all)
    }

    /// Puts the bytes of `contents` into a logical volume.
    pub(crate) fn fill(&self, name: &str, contents: &Volume) {
        let bytes = std::fs::read(&contents.path).unwrap();
        let mut rest = bytes.as_slice();
        for (disk, place) in self.places(name) {
            let len = rest.len().min(usize::try_from(place.len).unwrap());
            let file = File::options().write(true).open(&self.disks[disk].path).unwrap();
            file.write_all_at(&rest[..len], place.start).unwrap();
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "{name} is too small");
    }

    /// The bytes of a logical volume.
    pub(crate) fn extract(&self, name: &str) -> Volume {
        let volume = Volume::new(0);
        let mut at = 0;
        for (disk, place) in self.places(name) {
            let mut bytes = vec![0; usize::try_from(place.len).unwrap()];
            self.disks[disk].open().read_exact_at(&mut bytes, place.start).unwrap();
            volume.patch(at, &bytes);
            at += place.len;
        }
        volume
    }
}

impl Drop for Lvm {
    fn drop(&mut self) {
        for device in &self.loops {
            crate::tools::try_run("losetup", &["--detach", device]);
        }
    }
}

/// A note about a logical volume: its name, what it holds, bytes, used bytes, and the reason.
pub(crate) fn told(note: &MapNote) -> (&str, &str, u64, u64, String) {
    match note {
        MapNote::LogicalVolume { name, filesystem, len, used, reason } => {
            let reason = reason.as_ref().map(ToString::to_string).unwrap_or_default();
            (name, filesystem.name(), *len, *used, reason)
        }
        other => panic!("{other:?}"),
    }
}

/// LVM's checksum, once more.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut sum = 0xf597_a6cf_u32;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    sum
}

/// Changes the first metadata area's header, its checksum mended.
pub(crate) fn edit_header(disk: &Volume, edit: impl Fn(&mut [u8])) {
    let mut header = [0; 512];
    disk.open().read_exact_at(&mut header, 4096).unwrap();
    edit(&mut header);
    let sum = crc(&header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    disk.patch(4096, &header);
}

/// Changes the text of the first metadata area, its checksums mended. The text must not go
/// round the end of the area.
pub(crate) fn edit_text(disk: &Volume, edit: impl Fn(&str) -> String) {
    let mut place = [0; 16];
    disk.open().read_exact_at(&mut place, 4096 + 40).unwrap();
    let [offset, len] = [0, 8].map(|at| u64::from_le_bytes(*place[at..].first_chunk().unwrap()));
    let mut text = vec![0; usize::try_from(len).unwrap()];
    disk.open().read_exact_at(&mut text, 4096 + offset).unwrap();
    let before = String::from_utf8(text).unwrap();
    let after = edit(&before);
    assert_ne!(after, before, "nothing was edited");
    disk.patch(4096 + offset, after.as_bytes());
    edit_header(disk, |header| {
        header[48..56].copy_from_slice(&(after.len() as u64).to_le_bytes());
        header[56..60].copy_from_slice(&crc(after.as_bytes()).to_le_bytes());
    });
}
