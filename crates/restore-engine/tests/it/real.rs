//! Disks made by other people's tools, imaged here, and judged by those tools again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiv_chain::meta::{Capture, DiskInfo, Meta, PartitionInfo, RegionInfo, RegionKind, VolumeInfo};
use aiv_image_format::{BlockSize, Compression, Encoder, Geometry, ImageWriter, RunKind, hash};
use aiv_restore_engine::{RestoreOptions, RestorePlan, RestoreReport, TargetFacts, View};
use aiv_testkit::MemStorage;
use aiv_volume_io::partition::{
    Partition, Region, RegionKind as Owner, SectorSize, TableKind, read_table, regions,
};
use aiv_volume_io::{FileDisk, Job, MemDisk, Storage};

use crate::build::{FILE, superblock};

pub(crate) const MIB: u64 = 1 << 20;

/// Serial number of every disk that is imaged here.
pub(crate) const SERIAL: &str = "S4EV-1";

/// Runs a tool; its absence or failure fails the test.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {text} {errors}");
    text.trim().to_owned()
}

/// A file, or a part of it, shown as a device until dropped.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn whole(file: &Path, sector: u32) -> Self {
        Self::on(file, &["--sector-size", &sector.to_string()])
    }

    pub(crate) fn part(file: &Path, sector: u32, partition: &Partition) -> Self {
        let (offset, size) = (partition.extent.start.to_string(), partition.extent.len.to_string());
        let sector = sector.to_string();
        Self::on(file, &["--offset", &offset, "--sizelimit", &size, "--sector-size", &sector])
    }

    fn on(file: &Path, options: &[&str]) -> Self {
        let mut args = vec!["--find", "--show"];
        args.extend(options);
        args.push(file.to_str().unwrap());
        Self(run("losetup", &args).into())
    }

    pub(crate) fn node(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    /// Whoever else looks at the device keeps it: it would be a second disk beside the next device
    /// on its file.
    fn drop(&mut self) {
        let name = self.0.file_name().unwrap().to_str().unwrap();
        let file = format!("/sys/block/{name}/loop/backing_file");
        let shown = std::fs::read(&file).unwrap();
        run("losetup", &["--detach", self.node()]);
        for _ in 0..1000 {
            if std::fs::read(&file).ok().as_ref() != Some(&shown) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(std::thread::panicking(), "{} stays attached", self.node());
    }
}

/// A mounted device, until dropped.
pub(crate) struct Mount(tempfile::TempDir);

impl Mount {
    pub(crate) fn new(device: &Loop, options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        run("mount", &["-o", options, device.node(), at.path().to_str().unwrap()]);
        Self(at)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

/// A disk in a sparse file.
pub(crate) struct RealDisk {
    pub(crate) path: PathBuf,
    pub(crate) sector: u32,
    volumes: Vec<(u32, &'static str, u32)>,
    dir: tempfile::TempDir,
}

impl RealDisk {
    pub(crate) fn blank(len: u64, sector: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        File::create(&path).unwrap().set_len(len).unwrap();
        Self { path, sector, volumes: Vec::new(), dir }
    }

    pub(crate) fn gpt(len: u64, sector: u32, sgdisk: &[&str]) -> Self {
        let disk = Self::blank(len, sector);
        let device = Loop::whole(&disk.path, sector);
        let mut args = vec!["--clear"];
        args.extend(sgdisk);
        args.push(device.node());
        run("sgdisk", &args);
        drop(device);
        disk
    }

    pub(crate) fn mbr(len: u64, sector: u32, script: &str) -> Self {
        let disk = Self::blank(len, sector);
        let device = Loop::whole(&disk.path, sector);
        let path = disk.dir.path().join("script");
        fs::write(&path, script).unwrap();
        let mut sfdisk = Command::new("sfdisk");
        sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel", device.node()]);
        let done = sfdisk.stdin(File::open(path).unwrap()).status().unwrap();
        assert!(done.success());
        drop(device);
        disk
    }

    /// Makes a filesystem in a partition; `blkid`'s name and bytes per block go into META.
    pub(crate) fn format(&mut self, number: u32, name: &'static str, block: u32, mkfs: &[&str]) {
        let device = Loop::part(&self.path, self.sector, &self.partition(number));
        let mut args = mkfs[1..].to_vec();
        args.push(device.node());
        run(mkfs[0], &args);
        self.volumes.push((number, name, block));
    }

    /// Puts files into a partition through the kernel.
    pub(crate) fn fill(&self, number: u32, files: &[(&str, Vec<u8>)]) {
        let device = Loop::part(&self.path, self.sector, &self.partition(number));
        let mounted = Mount::new(&device, "rw");
        for (name, bytes) in files {
            fs::write(mounted.path().join(name), bytes).unwrap();
        }
    }

    /// Writes behind the filesystem's and the table's back.
    pub(crate) fn poke(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        partitions(&self.path, self.sector)
    }

    pub(crate) fn partition(&self, number: u32) -> Partition {
        self.partitions().into_iter().find(|p| p.number == number).expect("the partition")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Images the disk: zeros as zeros, all else as data.
    pub(crate) fn image(&self) -> MemStorage {
        self.image_losing(None)
    }

    /// The same, made from a disk on which the block at this byte cannot be read.
    pub(crate) fn image_losing(&self, lost: Option<u64>) -> MemStorage {
        let bytes = self.bytes();
        let size = BlockSize::new(64 << 10).unwrap();
        let geometry = Geometry::new(bytes.len() as u64, size, self.sector).unwrap();
        let storage = MemStorage::new();
        let file = storage.create(FILE).unwrap();
        let mut writer = ImageWriter::create(file, superblock(geometry, 1)).unwrap();
        let mut encoder = Encoder::new(Compression::Lz4, false);
        for (block, start) in bytes.chunks(size.bytes()).zip((0..).step_by(size.bytes())) {
            if lost == Some(start) {
                writer.push_run(RunKind::Unreadable, 1).unwrap();
            } else if block.iter().all(|&byte| byte == 0) {
                writer.push_run(RunKind::Zero, 1).unwrap();
            } else {
                writer.push_block(&encoder.encode(block, hash::leaf(block)).unwrap()).unwrap();
            }
        }
        writer.finish(Meta { disk: self.describe(bytes), ..Meta::default() }).unwrap();
        storage
    }

    fn describe(&self, bytes: Vec<u8>) -> DiskInfo {
        let len = bytes.len() as u64;
        let size = SectorSize::new(self.sector).unwrap();
        let table = read_table(&MemDisk::from_bytes(bytes), size).unwrap();
        let region = |region: Region| {
            let (kind, number) = match region.kind {
                Owner::BootCode => (RegionKind::BootCode, None),
                Owner::Table => (RegionKind::Table, None),
                Owner::Gap => (RegionKind::Gap, None),
                Owner::Partition(number) => (RegionKind::Partition, Some(number)),
            };
            let found = table.partitions.iter().find(|p| Some(p.number) == number);
            let partition = found.map(|p| PartitionInfo {
                number: p.number,
                type_id: p.kind.to_string(),
                ..PartitionInfo::default()
            });
            let volume = self.volumes.iter().find(|(formatted, ..)| Some(*formatted) == number);
            let volume = volume.map(|&(_, name, cluster_size)| VolumeInfo {
                filesystem: name.to_owned(),
                cluster_size,
                label: String::new(),
                uuid: String::new(),
                capture: Capture::Whole,
                reason: String::new(),
                used_bytes: region.extent.len,
            });
            RegionInfo { kind, extent: region.extent, partition, volume }
        };
        let word = match table.kind {
            TableKind::None => "none",
            TableKind::Mbr => "mbr",
            TableKind::Gpt => "gpt",
        };
        DiskInfo {
            len,
            serial: SERIAL.to_owned(),
            logical_sector: self.sector,
            physical_sector: self.sector,
            table: word.to_owned(),
            regions: regions(&table, len).into_iter().map(region).collect(),
            ..DiskInfo::default()
        }
    }

    /// Where targets may be put.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

pub(crate) fn partitions(path: &Path, sector: u32) -> Vec<Partition> {
    let disk = FileDisk::open_source(path).unwrap();
    let table = read_table(&disk, SectorSize::new(sector).unwrap()).unwrap();
    assert_eq!(table.problems, [], "{}", path.display());
    table.partitions
}

pub(crate) fn view(image: &MemStorage) -> View {
    View::open(image, FILE, Job::silent()).unwrap()
}

/// Restores to an existing file or device.
pub(crate) fn restore(
    image: &MemStorage,
    target: &Path,
    options: RestoreOptions,
) -> (RestorePlan, RestoreReport) {
    let view = view(image);
    let facts = TargetFacts::gather(Path::new("/"), target, Path::new("/proc")).unwrap();
    let plan = RestorePlan::new(&view, &facts, options, Job::silent()).unwrap();
    let disk = FileDisk::open_target(target, true).unwrap();
    if plan.extends_target() {
        disk.set_len(plan.target_len_needed()).unwrap();
    }
    let report = plan.clone().apply(&view, &disk, Job::silent()).unwrap();
    assert!(report.verified);
    (plan, report)
}

/// What sgdisk, sfdisk and our own reader say about the table on a file seen in such sectors.
pub(crate) fn check_table(path: &Path, sector: u32) -> Vec<Partition> {
    let found = partitions(path, sector);
    let device = Loop::whole(path, sector);
    let dump = run("sfdisk", &["--dump", device.node()]);
    if dump.contains("label: gpt") {
        let verdict = run("sgdisk", &["--verify", device.node()]);
        assert!(verdict.contains("No problems found"), "{verdict}");
    }
    let verdict = run("sfdisk", &["--verify", device.node()]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    found
}
