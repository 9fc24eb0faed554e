//! Tables made by sgdisk and sfdisk, read by us and by them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use aiv_volume_io::partition::{
    DiskId, PartitionKind, PartitionTable, SectorSize, TableKind, TableProblem, detect_sector_size,
    read_table,
};
use aiv_volume_io::{FileDisk, ReadAt};
use serde_json::Value;

use super::{check_regions, has};
use crate::machine::Loop;

/// Runs a tool and returns what it prints. A missing tool is a failed test.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("tools print text")
}

/// A sparse file of 64 MiB that goes away with its folder.
struct Disk {
    path: PathBuf,
    sector_size: u32,
    _dir: tempfile::TempDir,
}

impl Disk {
    const LEN: u64 = 64 << 20;

    fn new(sector_size: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(Self::LEN).unwrap();
        Self { path, sector_size, _dir: dir }
    }

    /// Runs a tool on the disk: on the file itself, or on a loop device with the sector size
    /// of the disk, because these tools take every file to have sectors of 512 bytes.
    fn run(&self, command: &mut Command) -> String {
        if self.sector_size == 512 {
            return run(command.arg(&self.path));
        }
        let device = Loop::on(&self.path, &["--sector-size", &self.sector_size.to_string()]);
        run(command.arg(&device.path))
    }

    fn sgdisk(&self, arguments: &[&str]) -> String {
        self.run(Command::new("sgdisk").args(arguments))
    }

    fn sfdisk(&self, script: &str) {
        let path = self.path.with_extension("sfdisk");
        fs::write(&path, script).unwrap();
        let script = File::open(path).unwrap();
        let mut sfdisk = Command::new("sfdisk");
        self.run(sfdisk.args(["--no-reread", "--no-tell-kernel"]).stdin(script));
    }

    fn read(&self) -> PartitionTable {
        let disk = FileDisk::open_source(&self.path).unwrap();
        let table = read_table(&disk, SectorSize::new(self.sector_size).unwrap()).unwrap();
        check_regions(&table, disk.len());
        table
    }

    fn detected_sector_size(&self) -> Option<SectorSize> {
        detect_sector_size(&FileDisk::open_source(&self.path).unwrap())
    }

    /// Compares our reading with `sfdisk --json`, partition by partition and field by field.
    fn check_against_sfdisk(&self, table: &PartitionTable) {
        let json = self.run(Command::new("sfdisk").arg("--json"));
        let json: Value = serde_json::from_str(&json).unwrap();
        let theirs = &json["partitiontable"];

        let id = match table.disk_id.expect("tools give every disk an identity") {
            DiskId::Gpt(guid) => guid.to_string(),
            DiskId::Mbr(signature) => format!("{signature:#010x}"),
        };
        assert_eq!(text(&theirs["id"]), id);
        let label = if table.kind == TableKind::Gpt { "gpt" } else { "dos" };
        assert_eq!(text(&theirs["label"]), label);

        let unit = u64::from(self.sector_size);
        let partitions = theirs["partitions"].as_array().expect("a list");
        assert_eq!(partitions.len(), table.partitions.len());
        for (theirs, ours) in partitions.iter().zip(&table.partitions) {
            let disk = text(&json["partitiontable"]["device"]);
            let node = text(&theirs["node"]);
            let number = node.strip_prefix(&disk).expect("a partition of the disk");
            // A device that ends with a digit has a letter before the number.
            assert_eq!(number.trim_start_matches('p'), ours.number.to_string());
            assert_eq!(theirs["start"].as_u64().map(|at| at * unit), Some(ours.extent.start));
            assert_eq!(theirs["size"].as_u64().map(|len| len * unit), Some(ours.extent.len));
            let kind = match ours.kind {
                PartitionKind::Gpt(guid) => guid.to_string(),
                PartitionKind::Mbr(kind) => format!("{kind:x}"),
            };
            assert_eq!(text(&theirs["type"]), kind);
            assert_eq!(theirs["name"].as_str().unwrap_or_default(), ours.name);
            let id = ours.unique_id.map(|id| id.to_string()).unwrap_or_default();
            assert_eq!(text(&theirs["uuid"]), id);
            if let PartitionKind::Mbr(_) = ours.kind {
                assert_eq!(theirs["bootable"].as_bool().unwrap_or_default(), ours.bootable);
            } else {
                let attributes = theirs["attrs"].as_str().unwrap_or_default();
                assert_eq!(attributes.contains("LegacyBIOSBootable"), ours.bootable);
            }
        }
    }

    /// Compares with the table `sgdisk -p` prints: number, first and last sector, name.
    fn check_against_sgdisk(&self, table: &PartitionTable) {
        let printed = self.sgdisk(&["-p"]);
        let rows = printed.lines().skip_while(|line| !line.starts_with("Number")).skip(1);
        let theirs: Vec<(u32, u64, u64, String)> = rows
            .map(|row| {
                let words: Vec<&str> = row.split_whitespace().collect();
                let number = |at: usize| words[at].parse::<u64>().unwrap();
                let first = u32::try_from(number(0)).unwrap();
                (first, number(1), number(2), words[6..].join(" "))
            })
            .collect();
        let unit = u64::from(self.sector_size);
        let ours: Vec<(u32, u64, u64, String)> = table
            .partitions
            .iter()
            .map(|p| (p.number, p.extent.start / unit, p.extent.end() / unit - 1, p.name.clone()))
            .collect();
        assert_eq!(theirs, ours);
    }
}

/// A JSON string in lower case; empty when there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_lowercase()
}

const GPT_BY_SGDISK: [&str; 15] = [
    "--clear",
    "--set-alignment=1",
    "--new=1:64:2047",
    "--typecode=1:ef00",
    "--change-name=1:EFI system",
    "--new=3:2048:4095",
    "--change-name=3:größe 日本",
    "--new=2:8192:0",
    "--typecode=2:8300",
    "--attributes=2:set:2",
    "--attributes=2:set:63",
    "--new=128:4096:4096",
    "--change-name=128:last one",
    "--partition-guid=3:0F3B1C2D-4E5F-4071-8293-A4B5C6D7E8F9",
    "--disk-guid=6E3A1D43-2B57-4F8E-9C64-51F0A7D8B912",
];

#[test]
fn a_gpt_made_by_sgdisk_is_read_as_sgdisk_and_sfdisk_read_it() {
    for sector_size in [512, 4096] {
        let disk = Disk::new(sector_size);
        disk.sgdisk(&GPT_BY_SGDISK);
        let table = disk.read();
        assert_eq!((table.problems.as_slice(), table.partitions.len()), (&[][..], 4));
        disk.check_against_sfdisk(&table);
        disk.check_against_sgdisk(&table);
        assert_eq!(table.partitions[1].attributes, 1 << 63 | 1 << 2);
        assert_eq!(disk.detected_sector_size(), SectorSize::new(sector_size));
    }
}

#[test]
fn a_gpt_with_more_entries_is_read() {
    let disk = Disk::new(512);
    disk.sgdisk(&["--clear", "--resize-table=256", "--new=200:4096:8191"]);
    let table = disk.read();
    assert_eq!(table.problems, []);
    assert_eq!(table.partitions[0].number, 200);
    disk.check_against_sfdisk(&table);
}

#[test]
fn a_gpt_made_by_sfdisk_is_read_as_sfdisk_reads_it() {
    for sector_size in [512, 4096] {
        let disk = Disk::new(sector_size);
        disk.sfdisk(
            "label: gpt\n\
             size=4MiB, type=uefi, name=\"boot 😀\"\n\
             size=8MiB, type=linux, attrs=\"LegacyBIOSBootable,RequiredPartition\"\n\
             size=+, type=lvm\n",
        );
        let table = disk.read();
        assert_eq!((table.problems.as_slice(), table.partitions.len()), (&[][..], 3));
        disk.check_against_sfdisk(&table);
    }
}

#[test]
fn an_mbr_made_by_sfdisk_is_read_as_sfdisk_reads_it() {
    for sector_size in [512, 4096] {
        let disk = Disk::new(sector_size);
        disk.sfdisk(
            "label: dos\n\
             label-id: 0x8cad3deb\n\
             1: size=8MiB, type=7, bootable\n\
             3: size=40MiB, type=f\n\
             5: size=5MiB, type=83\n\
             6: size=6MiB, type=82\n\
             7: size=7MiB, type=b\n\
             4: size=2MiB, type=83\n",
        );
        let table = disk.read();
        assert_eq!(table.problems, []);
        let numbers: Vec<u32> = table.partitions.iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7]);
        disk.check_against_sfdisk(&table);
        assert_eq!(disk.detected_sector_size(), SectorSize::new(sector_size));
    }
}

#[test]
fn a_disk_that_grew_under_sgdisk_is_described_until_sgdisk_mends_it() {
    let disk = Disk::new(512);
    disk.sgdisk(&GPT_BY_SGDISK);
    let sound = disk.read();
    File::options().write(true).open(&disk.path).unwrap().set_len(Disk::LEN + (1 << 20)).unwrap();
    let grown = disk.read();
    assert_eq!(grown.partitions, sound.partitions);
    assert!(has(&grown, |p| matches!(p, TableProblem::BackupNotAtEnd { .. })));

    disk.sgdisk(&["--move-second-header"]);
    let mended = disk.read();
    assert_eq!(mended.partitions, sound.partitions);
    assert!(!has(&mended, |p| matches!(p, TableProblem::BackupNotAtEnd { .. })));
}

#[test]
fn a_hybrid_mbr_made_by_sgdisk_is_noted() {
    let disk = Disk::new(512);
    disk.sgdisk(&GPT_BY_SGDISK);
    let sound = disk.read();
    disk.sgdisk(&["--hybrid=1:3"]);
    let hybrid = disk.read();
    assert_eq!(hybrid.partitions, sound.partitions);
    assert!(hybrid.problems.contains(&TableProblem::HybridMbr { entries: 2 }));
}

#[test]
fn a_disk_zapped_by_sgdisk_has_no_table() {
    let disk = Disk::new(512);
    disk.sgdisk(&GPT_BY_SGDISK);
    disk.sgdisk(&["--zap-all"]);
    let table = disk.read();
    assert_eq!((table.kind, table.problems.len()), (TableKind::None, 0));
}
