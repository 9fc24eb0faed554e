//! Partitions and filesystems that grow on a larger target.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aiv_restore_engine::{
    Around, Error, Grow, Note, Refusal, RestoreOptions, RestorePlan, SystemTools, TableMode,
    TargetFacts, ToolRun, Tools, Unfit,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::partition::Partition;
use aiv_volume_io::{Extent, Job};

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, Mount, RealDisk, check_table, run, view};
use crate::targets::device;

fn options(grow: &str) -> RestoreOptions {
    RestoreOptions { grow: grow.parse().unwrap(), ..threads(2) }
}

fn plan(
    image: &MemStorage,
    facts: &TargetFacts,
    options: RestoreOptions,
) -> Result<RestorePlan, Error> {
    RestorePlan::new(&view(image), facts, options, Job::silent())
}

fn refusal(image: &MemStorage, facts: &TargetFacts, options: RestoreOptions) -> Refusal {
    match plan(image, facts, options) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Restores to a device of `len` bytes, filesystems and all; the table and the notes.
fn restore(
    disk: &RealDisk,
    len: u64,
    grow: &str,
    tools: &dyn Tools,
) -> (PathBuf, Vec<Partition>, Vec<Note>) {
    let image = disk.image();
    let path = disk.folder().join("target.raw");
    fs::write(&path, noise(len)).unwrap();
    let target = Loop::whole(&path, disk.sector);
    let facts = TargetFacts::gather(Path::new("/"), &target.0, Path::new("/proc")).unwrap();
    let plan = plan(&image, &facts, options(grow)).unwrap();
    let around = Around { tools: Some(tools), ..Around::default() };
    let report = plan.apply_at(&view(&image), &target.0, around, Job::silent()).unwrap();
    drop(target);
    let table = check_table(&path, disk.sector);
    (path, table, report.notes)
}

fn system(disk: &RealDisk) -> SystemTools {
    SystemTools::new(disk.folder())
}

/// A disk whose last partition holds a filesystem with a file in it.
fn disk(name: &'static str, len: u64, mkfs: &[&str]) -> RealDisk {
    let parts = ["--new=1:1M:+2M", "--typecode=1:ef00", "--new=2:4M:0"];
    let mut disk = RealDisk::gpt(len, 512, &parts);
    disk.format(2, name, 4096, mkfs);
    disk.fill(2, &[("file", noise(2 * MIB))]);
    disk
}

/// The filesystem has all of its partition but `slack` bytes, and its file.
fn check_grown(path: &Path, partition: &Partition, slack: u64) {
    let device = Loop::part(path, 512, partition);
    let mounted = Mount::new(&device, "ro");
    let at = mounted.path().to_str().unwrap();
    let size = run("stat", &["-f", "-c", "%b %S", at]);
    let (blocks, bytes) = size.split_once(' ').unwrap();
    let size = blocks.parse::<u64>().unwrap() * bytes.parse::<u64>().unwrap();
    assert!(size + slack >= partition.extent.len, "{size} of {}", partition.extent.len);
    assert!(fs::read(mounted.path().join("file")).unwrap() == noise(2 * MIB));
}

#[test]
fn the_last_partition_grows_with_its_ext4() {
    let disk = disk("ext4", 24 * MIB, &["mkfs.ext4", "-q"]);
    let (path, table, notes) = restore(&disk, 90 * MIB, "last", &system(&disk));
    assert_eq!(table[0], disk.partition(1));
    assert_eq!(table[1].extent, Extent::between(4 * MIB, 89 * MIB));
    let grown = Note::FilesystemGrown { number: 2, filesystem: "ext4".to_owned() };
    assert!(notes.contains(&grown), "{notes:?}");
    let device = Loop::part(&path, 512, &table[1]);
    run("e2fsck", &["-fn", device.node()]);
    let blocks = run("dumpe2fs", &["-h", device.node()]);
    assert!(blocks.contains(&format!("Block count:              {}", 85 * MIB / 1024)), "{blocks}");
    drop(device);
    check_grown(&path, &table[1], 20 * MIB);
}

#[test]
fn the_last_partition_grows_with_its_ntfs() {
    let disk = {
        let parts = ["--new=1:1M:+2M", "--typecode=1:ef00", "--new=2:4M:0"];
        let mut disk = RealDisk::gpt(24 * MIB, 512, &parts);
        disk.format(2, "ntfs", 4096, &["mkfs.ntfs", "-Q", "-q", "-F"]);
        disk
    };
    let (path, table, notes) = restore(&disk, 64 * MIB, "last", &system(&disk));
    let grown = Note::FilesystemGrown { number: 2, filesystem: "ntfs".to_owned() };
    assert!(notes.contains(&grown), "{notes:?}");
    let device = Loop::part(&path, 512, &table[1]);
    let info = run("ntfsresize", &["--info", "--force", device.node()]);
    let size = info.lines().find_map(|line| line.strip_prefix("Current volume size: ")).unwrap();
    let size: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!(size + MIB > table[1].extent.len, "{info}");
}

#[test]
fn the_last_partition_grows_with_its_xfs() {
    let disk = disk("xfs", 330 * MIB, &["mkfs.xfs", "-q", "-f"]);
    let (path, table, notes) = restore(&disk, 500 * MIB, "last", &system(&disk));
    let grown = Note::FilesystemGrown { number: 2, filesystem: "xfs".to_owned() };
    assert!(notes.contains(&grown), "{notes:?}");
    check_grown(&path, &table[1], 100 * MIB);
    let device = Loop::part(&path, 512, &table[1]);
    run("xfs_repair", &["-n", device.node()]);
}

#[test]
fn the_last_partition_grows_with_its_btrfs() {
    let disk = disk("btrfs", 160 * MIB, &["mkfs.btrfs", "-q", "-f"]);
    let (path, table, notes) = restore(&disk, 300 * MIB, "last", &system(&disk));
    let grown = Note::FilesystemGrown { number: 2, filesystem: "btrfs".to_owned() };
    assert!(notes.contains(&grown), "{notes:?}");
    check_grown(&path, &table[1], MIB);
}

#[test]
fn partitions_named_by_number_grow_up_to_the_next_one() {
    let parts = ["--new=1:1M:+2M", "--new=2:4M:+8M", "--new=3:15M:+4M"];
    let mut disk = RealDisk::gpt(24 * MIB, 512, &parts);
    disk.format(2, "ext4", 1024, &["mkfs.ext4", "-q"]);
    let (path, table, notes) = restore(&disk, 40 * MIB, "2,1", &system(&disk));
    let ends: Vec<u64> = table.iter().map(|p| p.extent.end()).collect();
    assert_eq!(ends, [4 * MIB, 15 * MIB, 19 * MIB]);
    let is_first = |note: &Note| matches!(note, Note::FilesystemNotGrown { number: 1, .. });
    assert!(notes.iter().any(is_first), "nothing is known to be in it: {notes:?}");
    let part = Loop::part(&path, 512, &table[1]);
    run("e2fsck", &["-fn", part.node()]);
    // A second time there is no room.
    let image = disk.image();
    let same = plan(&image, &device(24 * MIB), options("3,1")).unwrap();
    let end = same.table().unwrap().rows[2].after.end();
    assert_eq!(end, 23 * MIB, "room there is on the same disk, too");
    let none = RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+6M"]).image();
    let none = plan(&none, &device(8 * MIB), options("last")).unwrap();
    assert!(none.notes().contains(&Note::NoRoomToGrow { number: 1 }), "{:?}", none.notes());
}

#[test]
fn what_is_never_scaled_by_itself_stays_and_is_told() {
    let kinds = [
        ("8200", "swap space"),
        ("ef00", "an EFI system partition"),
        ("ef02", "a BIOS boot partition"),
        ("0c01", "a Microsoft reserved partition"),
        ("2700", "a Windows recovery partition"),
    ];
    for (code, what) in kinds {
        let kind = format!("--typecode=2:{code}");
        let image =
            RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+2M", "--new=2:4M:+2M", &kind]).image();
        let planned = plan(&image, &device(16 * MIB), options("last")).unwrap();
        assert!(planned.notes().contains(&Note::NotScaled { number: 2, what }), "{what}");
        assert_eq!(planned.table().unwrap().rows[1].after, Extent::new(4 * MIB, 2 * MIB));
        let named = plan(&image, &device(16 * MIB), options("2")).unwrap();
        assert_eq!(named.table().unwrap().rows[1].after, Extent::between(4 * MIB, 15 * MIB));
    }
    for (code, what) in [("82", "swap space"), ("27", "a Windows recovery partition")] {
        let script = format!("label: dos\n1: start=1MiB, size=4MiB, type={code}\n");
        let image = RealDisk::mbr(8 * MIB, 512, &script).image();
        let planned = plan(&image, &device(16 * MIB), options("last")).unwrap();
        assert!(planned.notes().contains(&Note::NotScaled { number: 1, what }), "{what}");
    }
}

#[test]
fn an_mbr_partition_does_not_grow_past_two_tebibytes() {
    let script = "label: dos\n1: start=1MiB, size=4MiB, type=83\n";
    let image = RealDisk::mbr(8 * MIB, 512, script).image();
    let refused = refusal(&image, &device(3 << 40), options("last"));
    assert!(matches!(refused, Refusal::Table { unfit: Unfit::TooFar { .. }, .. }), "{refused}");
    let text = "an MBR cannot describe sectors from 4294967296 on";
    assert!(refused.to_string().contains(text), "{refused}");
    plan(&image, &device(3 << 40), options("none")).expect("without growing it fits");
    let planned = plan(&image, &device(16 * MIB), options("last")).unwrap();
    assert_eq!(planned.table().unwrap().rows[0].after, Extent::between(MIB, 16 * MIB));
}

#[test]
fn growing_what_cannot_grow_is_refused_before_the_first_write() {
    let disk = RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+2M"]);
    let image = disk.image();
    let facts = device(16 * MIB);
    let keep = RestoreOptions { table: TableMode::Keep, ..options("last") };
    assert!(matches!(refusal(&image, &facts, keep), Refusal::NothingToGrow(_)));
    let one = RestoreOptions { partition: Some(1), ..options("last") };
    assert!(matches!(refusal(&image, &facts, one), Refusal::NothingToGrow(_)));
    let missing = refusal(&image, &facts, options("1,7"));
    let unfit = Unfit::NoSuchPartition { number: 7 };
    assert_eq!(missing, Refusal::Table { target: "/dev/target".to_owned(), unfit });
    let script =
        "label: dos\n1: start=1MiB, size=4MiB, type=5\n5: start=2MiB, size=1MiB, type=83\n";
    let logical = RealDisk::mbr(8 * MIB, 512, script).image();
    let refused = refusal(&logical, &facts, options("5"));
    assert!(matches!(refused, Refusal::Table { unfit: Unfit::Logical { number: 5 }, .. }));
    disk.poke(512 + 60, b"x");
    let refused = refusal(&disk.image(), &facts, options("last"));
    assert!(matches!(refused, Refusal::Table { unfit: Unfit::Damaged(_), .. }), "{refused}");
}

/// The tools of the system, but one.
struct Without<'a> {
    system: SystemTools,
    program: &'a str,
    status: Option<i32>,
    ran: Mutex<Vec<String>>,
}

impl Tools for Without<'_> {
    fn run(&self, program: &str, args: &[&OsStr]) -> io::Result<ToolRun> {
        self.ran.lock().unwrap().push(program.to_owned());
        match self.status {
            _ if program != self.program => self.system.run(program, args),
            None => Err(io::ErrorKind::NotFound.into()),
            Some(status) => {
                let errors = "first line\nlast line".to_owned();
                Ok(ToolRun { status, output: String::new(), errors })
            }
        }
    }

    fn mount_root(&self) -> &Path {
        self.system.mount_root()
    }
}

#[test]
fn a_missing_or_failing_tool_leaves_the_filesystem_as_it_was_restored() {
    for (program, status, why) in [
        ("resize2fs", None, "resize2fs is not installed"),
        ("e2fsck", Some(4), "e2fsck ended with status 4: last line"),
        ("losetup", None, "losetup is not installed"),
    ] {
        let disk = disk("ext4", 24 * MIB, &["mkfs.ext4", "-q"]);
        let tools = Without { system: system(&disk), program, status, ran: Mutex::default() };
        let (path, table, notes) = restore(&disk, 60 * MIB, "last", &tools);
        let told = Note::FilesystemNotGrown {
            number: 2,
            filesystem: "ext4".to_owned(),
            why: why.to_owned(),
            by_hand: "e2fsck -f PARTITION && resize2fs PARTITION",
        };
        assert!(notes.contains(&told), "{notes:?}");
        assert_eq!(table[1].extent, Extent::between(4 * MIB, 59 * MIB));
        let device = Loop::part(&path, 512, &table[1]);
        run("e2fsck", &["-fn", device.node()]);
    }
}

#[test]
fn no_program_runs_when_nothing_grew() {
    let disk = disk("ext4", 24 * MIB, &["mkfs.ext4", "-q"]);
    let tools = Without { system: system(&disk), program: "", status: None, ran: Mutex::default() };
    restore(&disk, 60 * MIB, "none", &tools);
    assert!(tools.ran.lock().unwrap().is_empty());
    assert_eq!(Grow::default(), Grow::None);
}

#[test]
fn a_failed_mount_leaves_no_folder() {
    let disk = disk("xfs", 330 * MIB, &["mkfs.xfs", "-q", "-f"]);
    let root = disk.folder().join("mounts");
    fs::create_dir(&root).unwrap();
    let system = SystemTools::new(&root);
    let tools = Without { system, program: "xfs_growfs", status: Some(1), ran: Mutex::default() };
    let (path, table, notes) = restore(&disk, 400 * MIB, "last", &tools);
    assert!(notes.iter().any(|n| matches!(n, Note::FilesystemNotGrown { .. })), "{notes:?}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "still mounted");
    check_grown(&path, &table[1], 200 * MIB);
}

/// The tools of the system; a filesystem is busy when it is unmounted for the first time.
struct Watched {
    system: SystemTools,
    unmounts: AtomicU32,
    was_busy: AtomicBool,
}

impl Tools for Watched {
    fn run(&self, program: &str, args: &[&OsStr]) -> io::Result<ToolRun> {
        // Giving up on what failed is quiet.
        let is_unmount = program == "umount" && args.len() == 1;
        if !is_unmount || self.unmounts.fetch_add(1, Ordering::Relaxed) > 0 {
            return self.system.run(program, args);
        }
        // Whoever lists disks has it open for a moment.
        let _open = std::fs::File::open(args[0])?;
        self.system.run(program, args).inspect(|run| {
            let is_busy = run.status != 0 && run.errors.contains("busy");
            self.was_busy.store(is_busy, Ordering::Relaxed);
        })
    }

    fn mount_root(&self) -> &Path {
        self.system.mount_root()
    }
}

#[test]
fn a_filesystem_that_somebody_looks_at_when_it_is_unmounted_grows_all_the_same() {
    let disk = disk("btrfs", 160 * MIB, &["mkfs.btrfs", "-q"]);
    let tools = Watched {
        system: system(&disk),
        unmounts: AtomicU32::new(0),
        was_busy: AtomicBool::new(false),
    };
    let (_, _, notes) = restore(&disk, 300 * MIB, "last", &tools);
    let grown = Note::FilesystemGrown { number: 2, filesystem: "btrfs".to_owned() };
    assert!(notes.contains(&grown), "{notes:?}");
    assert!(tools.was_busy.into_inner() && tools.unmounts.into_inner() >= 2);
}
