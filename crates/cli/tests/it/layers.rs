//! Volume groups and RAIDs on parts of a disk file, without a driver for either: LVM writes its
//! metadata to loop devices, members of RAIDs get a superblock that `mdadm` calls right.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::{Loop, MIB, run};

/// A volume group `vg` in extents of a mebibyte, on parts of a disk.
pub(crate) struct Group {
    system: tempfile::TempDir,
    disk: PathBuf,
    parts: Vec<(u64, u64)>,
    loops: Vec<Loop>,
}

impl Group {
    /// On these parts: first byte and length.
    pub(crate) fn new(disk: &Path, parts: &[(u64, u64)]) -> Self {
        let loops: Vec<Loop> = parts.iter().map(|part| Loop::part(disk, *part, false)).collect();
        let system = tempfile::tempdir().unwrap();
        let only: String = loops.iter().map(|one| format!("\"a|^{}$|\",", one.arg())).collect();
        let locks = system.path().display();
        let text = format!(
            "devices {{ dir=\"/dev\" scan=[\"/dev\"] filter=[{only}\"r|.*|\"] use_devicesfile=0\n\
             hints=\"none\" obtain_device_list_from_udev=0 sysfs_scan=0\n\
             external_device_info_source=\"none\" md_component_detection=0 }}\n\
             global {{ locking_dir=\"{locks}/locks\" use_lvmpolld=0 event_activation=0 }}\n\
             backup {{ backup=0 archive=0 }}\n\
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }}\n"
        );
        fs::write(system.path().join("lvm.conf"), text).unwrap();
        let group = Self { system, disk: disk.to_owned(), parts: parts.to_vec(), loops };
        group.call("pvcreate @*");
        group.call("vgcreate -s 1m vg @*");
        group
    }

    /// Runs an LVM command that must succeed. `@0` is the first part, `@*` are all.
    pub(crate) fn call(&self, command: &str) -> String {
        let system = format!("LVM_SYSTEM_DIR={}", self.system.path().display());
        let mut words = vec![system.as_str(), "LVM_SUPPRESS_FD_WARNINGS=1"];
        for word in command.split_whitespace() {
            match word.strip_prefix('@') {
                Some("*") => words.extend(self.loops.iter().map(Loop::arg)),
                Some(n) => words.push(self.loops[n.parse::<usize>().unwrap()].arg()),
                None => words.push(word),
            }
        }
        words.insert(3, "--driverloaded=n");
        run("env", &words)
    }

    pub(crate) fn create(&self, name: &str, how: &str) {
        self.call(&format!("lvcreate -an -Zn -Wn -y -n {name} {how} vg"));
    }

    /// Puts text in front of the logical volumes of the metadata; LVM checks it.
    pub(crate) fn add(&self, volumes: &str) {
        let path = self.system.path().join("edited");
        self.call(&format!("vgcfgbackup -f {} vg", path.display()));
        let text = fs::read_to_string(&path).unwrap();
        let marker = "logical_volumes {";
        fs::write(&path, text.replace(marker, &format!("{marker}\n{volumes}"))).unwrap();
        self.call(&format!("vgcfgrestore --force -y -f {} vg", path.display()));
    }

    /// Puts bytes into a logical volume of one area for each segment, or in stripes of 64 KiB.
    pub(crate) fn fill(&self, name: &str, bytes: &[u8]) {
        let rows = self.call(&format!(
            "lvs -a --noheadings --units b --nosuffix -o seg_start,seg_pe_ranges -O seg_start vg/{name}"
        ));
        let disk = fs::File::options().write(true).open(&self.disk).unwrap();
        let mut rest = bytes;
        for row in rows.lines() {
            let areas: Vec<u64> =
                row.split_whitespace().skip(1).map(|range| self.place(range)).collect();
            let extents = row.split_whitespace().nth(1).unwrap().rsplit_once(':').unwrap().1;
            let (first, last) = extents.split_once('-').unwrap();
            let each = (last.parse::<u64>().unwrap() - first.parse::<u64>().unwrap() + 1) * MIB;
            let stripe = if areas.len() == 1 { each } else { 64 << 10 };
            for row in 0..each / stripe {
                for area in &areas {
                    let (now, later) = rest.split_at(rest.len().min(stripe as usize));
                    disk.write_all_at(now, area + row * stripe).unwrap();
                    rest = later;
                }
            }
        }
        assert!(rest.is_empty(), "{name} is too small");
    }

    /// Where `DEVICE:FIRST-LAST` begins on the disk.
    fn place(&self, range: &str) -> u64 {
        let (device, extents) = range.split_once(':').unwrap();
        let at = self.loops.iter().position(|known| known.arg() == device).unwrap();
        let first: u64 = extents.split_once('-').unwrap().0.parse().unwrap();
        let start = self.call(&format!("pvs --noheadings --units b --nosuffix -o pe_start @{at}"));
        self.parts[at].0 + start.parse::<u64>().unwrap() + first * MIB
    }
}

/// Writes a superblock of format 1.2 to a part of a disk, of which the rest is the array: member
/// `role` of so many. What it holds begins a mebibyte behind the beginning of the part.
pub(crate) fn md_member(disk: &Path, part: (u64, u64), level: i32, members: u32, role: u16) {
    md_member_of(disk, part, level, members, (role, 0));
}

/// The same, one that has seen so many changes.
pub(crate) fn md_member_of(
    disk: &Path,
    (start, len): (u64, u64),
    level: i32,
    members: u32,
    (role, events): (u16, u64),
) {
    let mut record = vec![0; 512];
    let mut set = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &0xa92b_4efc_u32.to_le_bytes());
    set(4, &1_u32.to_le_bytes());
    set(16, b"0123456789abcdef");
    set(72, &level.to_le_bytes());
    let sectors = len / 512 - 2048;
    set(80, &(if level == 1 { sectors } else { 0 }).to_le_bytes());
    set(88, &(if level == 0 { 128_u32 } else { 0 }).to_le_bytes());
    set(92, &members.to_le_bytes());
    set(128, &2048_u64.to_le_bytes());
    set(136, &sectors.to_le_bytes());
    set(144, &8_u64.to_le_bytes());
    set(200, &events.to_le_bytes());
    set(208, &u64::MAX.to_le_bytes());
    set(220, &128_u32.to_le_bytes());
    set(256, &[0xff; 256]);
    set(256, &role.to_le_bytes());
    let words =
        record.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum = words.sum::<u64>();
    let sum = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
    record[216..220].copy_from_slice(&sum.to_le_bytes());
    let file = fs::File::options().write(true).open(disk).unwrap();
    file.write_all_at(&record, start + 4096).unwrap();
    let part = Loop::part(disk, (start, len), true);
    assert!(run("mdadm", &["--examine", part.arg()]).contains("- correct"));
}
