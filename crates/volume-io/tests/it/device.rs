use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use aiv_volume_io::Error;
use aiv_volume_io::device::{
    self, BlockDevice, DeviceKind, Mount, Use, holds_path, uses_of, written_filesystems,
};

use crate::machine::{Loop, Mounted, run, sparse};

/// A made-up `/sys`, `/proc`, `/dev` and `/run`.
struct Machine {
    root: tempfile::TempDir,
    mounts: String,
    swaps: String,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        let swaps = "Filename\tType\tSize\tUsed\tPriority\n".to_owned();
        Self { root, mounts: String::new(), swaps }.told()
    }

    /// Writes the lists of mounts and swaps down.
    fn told(self) -> Self {
        self.write("proc/self/mountinfo", &self.mounts);
        self.write("proc/swaps", &self.swaps);
        self
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A device with its node; `place` is where its folder is below `sys/devices`.
    fn device(self, place: &str, number: (u32, u32), attributes: &[(&str, &str)]) -> Self {
        let name = place.rsplit('/').next().unwrap();
        let at = format!("sys/devices/{place}");
        self.write(&format!("{at}/dev"), format!("{}:{}\n", number.0, number.1));
        for (attribute, value) in attributes {
            self.write(&format!("{at}/{attribute}"), format!("{value}\n"));
        }
        let link = self.root().join("sys/class/block").join(name);
        symlink(Path::new("../../devices").join(place), link).unwrap();
        let (major, minor) = (number.0.to_string(), number.1.to_string());
        let node = self.node(&name.replace('!', "/"));
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        run("mknod", &[node.as_os_str(), "b".as_ref(), major.as_ref(), minor.as_ref()]);
        self
    }

    fn stacked(self, upper: &str, lower: &str) -> Self {
        self.write(&format!("sys/class/block/{upper}/slaves/{lower}"), "");
        self.write(&format!("sys/class/block/{lower}/holders/{upper}"), "");
        self
    }

    fn mounted(
        mut self,
        number: &str,
        at: &str,
        fstype: &str,
        source: &str,
        options: &str,
    ) -> Self {
        self.mounts +=
            &format!("36 25 {number} / {at} {options} shared:1 - {fstype} {source} {options}\n");
        self.told()
    }

    fn swapping(mut self, path: &str) -> Self {
        self.swaps += &format!("{path} partition\t1000\t0\t-2\n");
        self.told()
    }

    fn node(&self, name: &str) -> PathBuf {
        self.root().join("dev").join(name)
    }

    fn list(&self) -> Vec<BlockDevice> {
        device::list(self.root()).unwrap()
    }

    fn named(&self, name: &str) -> BlockDevice {
        self.list().into_iter().find(|device| device.name == name).expect(name)
    }

    fn uses(&self, name: &str) -> Vec<String> {
        let uses = uses_of(self.root(), &self.node(name)).unwrap();
        uses.iter().map(Use::to_string).collect()
    }

    /// A SATA disk with four partitions: a mounted one, one that carries a mounted logical
    /// volume, swap, and an unused one.
    fn with_sda(self) -> Self {
        let disk = [
            ("size", "2097152"),
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
            ("queue/rotational", "1"),
            ("device/vendor", "ATA     "),
            ("device/model", "WDC WD40EFRX-68N "),
            ("device/wwid", "naa.50014ee2b1234567"),
        ];
        let part = |number: &'static str, start| {
            [("partition", number), ("start", start), ("size", "204800")]
        };
        let machine = self
            .device("pci/ata1/block/sda", (8, 0), &disk)
            .device("pci/ata1/block/sda/sda1", (8, 1), &part("1", "2048"))
            .device("pci/ata1/block/sda/sda2", (8, 2), &part("2", "206848"))
            .device("pci/ata1/block/sda/sda3", (8, 3), &part("3", "411648"))
            .device("pci/ata1/block/sda/sda10", (8, 10), &part("10", "616448"))
            .device("virtual/block/dm-0", (252, 0), &[("dm/name", "vg-root"), ("size", "8")])
            .stacked("dm-0", "sda2")
            .mounted("8:1", "/boot", "ext4", "/dev/sda1", "rw,relatime")
            .mounted("252:0", "/", "xfs", "/dev/mapper/vg-root", "rw")
            .swapping("/dev/sda3");
        machine
            .write("sys/devices/pci/ata1/block/sda/device/vpd_pg80", b"\0\x80\0\x0c WD-WCC7K0XY");
        machine
    }
}

#[test]
fn a_disk_and_its_partitions_are_described() {
    let machine = Machine::new().with_sda();
    let names: Vec<String> = machine.list().into_iter().map(|device| device.name).collect();
    assert_eq!(names, ["dm-0", "sda", "sda1", "sda2", "sda3", "sda10"]);
    let sda1 = machine.named("sda1");
    let expected = BlockDevice {
        name: "sda1".into(),
        path: "/dev/sda1".into(),
        major: 8,
        minor: 1,
        size: 204_800 * 512,
        logical_sector: 512,
        physical_sector: 4096,
        vendor: Some("ATA".into()),
        model: Some("WDC WD40EFRX-68N".into()),
        serial: Some("WD-WCC7K0XY".into()),
        wwn: Some("naa.50014ee2b1234567".into()),
        read_only: false,
        removable: false,
        rotational: true,
        kind: DeviceKind::Partition { number: 1, start: 1 << 20 },
        parent: Some("sda".into()),
        holders: vec![],
        slaves: vec![],
        mounts: vec![Mount { path: "/boot".into(), read_only: false, fstype: "ext4".into() }],
        swap: false,
        backing_file: None,
    };
    assert_eq!(sda1, expected);
    let (sda, dm0) = (machine.named("sda"), machine.named("dm-0"));
    assert_eq!((sda.kind, sda.size, sda.parent), (DeviceKind::Disk, 1 << 30, None));
    assert_eq!(dm0.kind, DeviceKind::DeviceMapper { name: "vg-root".into() });
    assert_eq!(
        (dm0.slaves, machine.named("sda2").holders),
        (vec!["sda2".into()], vec!["dm-0".to_owned()])
    );
    assert!(machine.named("sda3").swap && !machine.named("sda10").swap);
}

#[test]
fn a_disk_is_in_use_by_everything_on_it() {
    let machine = Machine::new().with_sda();
    let everything = [
        "sda1 is mounted at /boot",
        "dm-0 is mounted at /",
        "sda3 is active swap space",
        "sda2 is held by dm-0 (vg-root)",
    ];
    let found = machine.uses("sda");
    assert_eq!(found.len(), everything.len(), "{found:?}");
    assert!(everything.iter().all(|used| found.iter().any(|found| found == used)), "{found:?}");
}

#[test]
fn a_partition_is_in_use_by_what_is_on_it_and_not_by_its_neighbours() {
    let machine = Machine::new().with_sda();
    assert_eq!(machine.uses("sda1"), ["sda1 is mounted at /boot"]);
    assert_eq!(machine.uses("sda2"), ["dm-0 is mounted at /", "sda2 is held by dm-0 (vg-root)"]);
    assert_eq!(machine.uses("sda3"), ["sda3 is active swap space"]);
    assert_eq!(machine.uses("sda10"), [""; 0]);
    assert_eq!(machine.uses("nonexistent"), [""; 0]);
}

#[test]
fn a_partition_is_in_use_when_the_disk_as_a_whole_is() {
    let machine = Machine::new()
        .device("block/sdb", (8, 16), &[("ro", "1")])
        .device("block/sdb/sdb1", (8, 17), &[("partition", "1")])
        .device("virtual/md0", (9, 0), &[("md/level", "raid1")])
        .stacked("md0", "sdb")
        .mounted("9:0", "/raid\\040set", "ext4", "/dev/md0", "ro");
    assert_eq!(machine.named("md0").kind, DeviceKind::Md);
    assert!(machine.named("md0").mounts[0].read_only);
    let uses = machine.uses("sdb1");
    for expected in ["sdb is read-only", "sdb is held by md0", "md0 is mounted at /raid set"] {
        assert!(uses.contains(&expected.to_owned()), "{expected} in {uses:?}");
    }
}

#[test]
fn image_folders_are_traced_to_the_disks_below_them() {
    let machine = Machine::new()
        .with_sda()
        .device("block/sdb", (8, 16), &[])
        .mounted("8:16", "/mnt/backup", "ext4", "/dev/sdb", "rw")
        .mounted("0:50", "/mnt/nas", "nfs4", "nas:/images", "rw");
    let holds = |device: &str, path: &str| {
        holds_path(machine.root(), &machine.node(device), Path::new(path)).unwrap()
    };
    // Paths that exist nowhere on this machine, below mounts that exist only in the tree.
    assert!(holds("dm-0", "/"));
    assert!(holds("sda2", "/"));
    assert!(holds("sda", "/"));
    assert!(!holds("sda1", "/"));
    assert!(!holds("sdb", "/"));
}

#[test]
fn members_of_a_btrfs_are_all_mounted() {
    let machine = Machine::new()
        .device("block/sdc", (8, 32), &[])
        .device("block/sdd", (8, 48), &[])
        .device("block/sde", (8, 64), &[])
        .mounted("0:45", "/pool", "btrfs", "/dev/sdc", "rw");
    machine.write("sys/fs/btrfs/c0ffee/devices/sdc", "");
    machine.write("sys/fs/btrfs/c0ffee/devices/sdd", "");
    machine.write("sys/fs/btrfs/features/raid1c34", "");
    assert_eq!(machine.uses("sdc"), ["sdc is mounted at /pool"]);
    assert_eq!(machine.uses("sdd"), ["sdd is mounted at /pool"]);
    assert_eq!(machine.uses("sde"), [""; 0]);
}

#[test]
fn sources_named_by_links_are_found() {
    let machine = Machine::new().device("block/sdc", (8, 32), &[]).mounted(
        "0:45",
        "/pool",
        "btrfs",
        "/dev/disk/by-uuid/1234",
        "rw",
    );
    fs::create_dir_all(machine.node("disk/by-uuid")).unwrap();
    symlink("../../sdc", machine.node("disk/by-uuid/1234")).unwrap();
    assert_eq!(machine.uses("sdc"), ["sdc is mounted at /pool"]);
}

#[test]
fn a_device_is_found_through_any_node_or_link_and_a_file_is_none() {
    let machine =
        Machine::new().device("block/sdc", (8, 32), &[]).device("block/sdd", (8, 48), &[]);
    let found = |path: &Path| device::at(machine.root(), path).unwrap().map(|found| found.name);
    let link = machine.node("by-id");
    symlink("sdc", &link).unwrap();
    assert_eq!(found(&machine.node("sdc")).as_deref(), Some("sdc"));
    assert_eq!(found(&link).as_deref(), Some("sdc"));
    assert_eq!(found(&machine.root().join("proc/swaps")), None);
    device::at(machine.root(), &machine.node("sdz")).unwrap_err();
}

#[test]
fn odd_names_and_missing_attributes_are_no_obstacle() {
    let machine = Machine::new()
        .device("block/cciss!c0d0", (104, 0), &[])
        .device("block/nvme0n1", (259, 0), &[("wwid", "eui.0025385"), ("device/serial", "S4EV ")])
        .device("block/nvme0n1/nvme0n1p1", (259, 1), &[("partition", "1")])
        .device("block/mmcblk0", (179, 0), &[("removable", "1")])
        .device("block/sr0", (11, 0), &[])
        .device("block/zram0", (253, 0), &[])
        .device("block/loop7", (7, 7), &[("size", "garbage")]);
    machine.write("sys/class/block/vanishing/size", "8");
    machine.write("run/udev/data/b104:0", "S:disk/x\nE:ID_SERIAL=Smart_Array\nE:ID_WWN=0x6001\n");
    let kinds: Vec<_> = machine.list().into_iter().map(|d| (d.name, d.kind)).collect();
    let expected = [
        ("cciss!c0d0", DeviceKind::Disk),
        ("loop7", DeviceKind::Loop),
        ("mmcblk0", DeviceKind::Disk),
        ("nvme0n1", DeviceKind::Disk),
        ("nvme0n1p1", DeviceKind::Partition { number: 1, start: 0 }),
        ("sr0", DeviceKind::Rom),
        ("zram0", DeviceKind::Ram),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
    let raid = machine.named("cciss!c0d0");
    assert_eq!(raid.path, Path::new("/dev/cciss/c0d0"));
    assert_eq!(
        (raid.serial.as_deref(), raid.wwn.as_deref()),
        (Some("Smart_Array"), Some("0x6001"))
    );
    let nvme = machine.named("nvme0n1p1");
    assert_eq!((nvme.serial.as_deref(), nvme.wwn.as_deref()), (Some("S4EV"), Some("eui.0025385")));
    assert!(machine.named("mmcblk0").removable);
}

#[test]
fn a_disk_is_found_by_its_serial_number_or_world_wide_name() {
    let machine = Machine::new()
        .with_sda()
        .device("block/nvme0n1", (259, 0), &[("wwid", "eui.0025385"), ("device/serial", "S4EV ")])
        .device("block/sdx", (8, 112), &[("device/wwid", "naa.6"), ("serial", "TWICE")])
        .device("block/sdy", (8, 128), &[("device/wwid", "naa.6"), ("serial", "TWICE")]);
    let named = |name: &str| device::named(machine.root(), Path::new(name));
    assert_eq!(named("serial:WD-WCC7K0XY").unwrap(), Path::new("/dev/sda"), "not a partition");
    assert_eq!(named("serial:S4EV").unwrap(), Path::new("/dev/nvme0n1"));
    for wwn in ["naa.50014ee2b1234567", "0x50014EE2B1234567", "50014ee2b1234567"] {
        assert_eq!(named(&format!("wwn:{wwn}")).unwrap(), Path::new("/dev/sda"));
    }
    for path in ["/dev/sda", "disk.raw", "./serial:S4EV", "SERIAL:S4EV"] {
        assert_eq!(named(path).unwrap(), Path::new(path));
    }
    let refused = |name: &str| named(name).unwrap_err().to_string();
    assert_eq!(refused("serial:S4"), "no disk has serial number S4");
    assert_eq!(refused("serial:"), "no disk has serial number ");
    assert_eq!(refused("wwn:0x"), "no disk has world-wide name 0x");
    assert_eq!(refused("wwn:6"), "2 disks have world-wide name 6: /dev/sdx, /dev/sdy");
    assert_eq!(refused("serial:TWICE"), "2 disks have serial number TWICE: /dev/sdx, /dev/sdy");
}

#[test]
fn not_being_able_to_look_is_an_error_and_not_an_empty_list() {
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(device::list(nothing.path()), Err(Error::Path { op: "list", .. })));
    let machine = Machine::new();
    fs::remove_file(machine.root().join("proc/self/mountinfo")).unwrap();
    assert!(matches!(device::list(machine.root()), Err(Error::Path { op: "read", .. })));
}

/// What the kernel of this machine says about a loop device at every stage of its life.
#[test]
fn a_real_loop_device_is_seen_with_all_that_uses_it() {
    let root = Path::new("/");
    let folder = tempfile::tempdir().unwrap();
    let folder = fs::canonicalize(folder.path()).map(|path| (folder, path)).unwrap();
    let (image, at) = (folder.1.join("image"), folder.1.join("mnt"));
    fs::create_dir(&at).unwrap();
    sparse(&image, 16 << 20);
    let lower = Loop::on(&image, &["--sector-size", "4096"]);
    let listed = |wanted: &Loop| {
        let devices = device::list(root).unwrap();
        devices.into_iter().find(|device| device.path == wanted.path).unwrap()
    };
    let seen = listed(&lower);
    assert_eq!((seen.size, seen.logical_sector, &seen.kind), (16 << 20, 4096, &DeviceKind::Loop));
    assert_eq!(seen.backing_file.as_deref(), Some(image.as_path()));
    assert_eq!(uses_of(root, &lower.path).unwrap(), []);
    assert_eq!(uses_of(root, &image).unwrap(), [Use::BacksLoop { by: lower.name() }]);

    let upper = Loop::on(&lower.path, &[]);
    assert_eq!(uses_of(root, &lower.path).unwrap(), [Use::BacksLoop { by: upper.name() }]);
    run("mkfs.ext4", &[Path::new("-q"), &upper.path]);
    {
        let mounted = Mounted::new(&[], &upper.path, &at);
        let on_top = Use::Mounted { device: upper.name(), path: mounted.path.clone() };
        for path in [&image, &lower.path, &upper.path] {
            assert!(uses_of(root, path).unwrap().contains(&on_top), "{}", path.display());
            assert!(holds_path(root, path, &at.join("not/yet/there")).unwrap());
            assert!(!holds_path(root, path, Path::new("/proc")).unwrap());
        }
        assert!(!holds_path(root, &lower.path, &folder.1).unwrap());
        assert_eq!(listed(&upper).mounts[0].fstype, "ext4");
    }
    run("mkswap", &[&upper.path]);
    run("swapon", &[&upper.path]);
    let swapping = uses_of(root, &upper.path);
    let listed_swap = listed(&upper).swap;
    run("swapoff", &[&upper.path]);
    assert_eq!(swapping.unwrap(), [Use::Swap { device: Some(upper.name()) }]);
    assert!(listed_swap);
}

#[test]
fn a_filesystem_that_can_write_to_a_source_is_found_once_by_a_mount_that_leads_to_it() {
    let root = Path::new("/");
    let folder = tempfile::tempdir().unwrap();
    let folder = fs::canonicalize(folder.path()).map(|path| (folder, path)).unwrap();
    let image = folder.1.join("image");
    let [first, second] = ["first", "second"].map(|name| folder.1.join(name));
    for at in [&first, &second] {
        fs::create_dir(at).unwrap();
    }
    sparse(&image, 16 << 20);
    let device = Loop::on(&image, &[]);
    run("mkfs.ext4", &[Path::new("-q"), &device.path]);
    let written = |source: &Path| written_filesystems(root, source).unwrap();
    assert_eq!(written(&device.path), []);
    let mount = Mounted::new(&[], &device.path, &first);
    let again = Mounted::new(&["--bind"], &first, &second);
    for source in [&image, &device.path] {
        let [found] = &written(source)[..] else { panic!("{source:?}") };
        assert_eq!((found.kind.as_str(), &found.devices), ("ext4", &vec![device.name()]));
        assert_eq!(found.mounts, [first.clone(), second.clone()]);
        assert_eq!((&found.path, found.elsewhere.len()), (&Some(first.clone()), 0));
    }
    // Whoever opens the first folder now meets another filesystem.
    let over = Mounted::tmpfs("1M", &first);
    assert_eq!(written(&device.path)[0].path.as_ref(), Some(&second));
    drop(again);
    assert_eq!(written(&device.path)[0].path, None);
    drop(over);
    run("mount", &["-o", "remount,ro", first.to_str().unwrap()]);
    assert_eq!(written(&device.path), []);
    drop(mount);
}

#[test]
fn a_read_only_device_is_in_use_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    sparse(&image, 1 << 20);
    let device = Loop::on(&image, &["--read-only"]);
    let uses = uses_of(Path::new("/"), &device.path).unwrap();
    assert_eq!(uses, [Use::ReadOnly { device: device.name() }]);
}

#[test]
fn two_names_of_one_thing_are_recognised() {
    let machine = Machine::new().with_sda();
    let other = machine.node("other");
    run("mknod", &[other.as_os_str(), "b".as_ref(), "8".as_ref(), "1".as_ref()]);
    assert!(device::same_file(&other, &machine.node("sda1")).unwrap());
    assert!(!device::same_file(&other, &machine.node("sda2")).unwrap());
    let (a, b) = (machine.root().join("a"), machine.root().join("b"));
    fs::write(&a, "").unwrap();
    fs::hard_link(&a, &b).unwrap();
    assert!(device::same_file(&a, &b).unwrap());
    device::same_file(&a, &machine.root().join("c")).unwrap_err();
}
