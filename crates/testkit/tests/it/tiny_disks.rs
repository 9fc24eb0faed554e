//! Other people's tools must see on our disks what we say is there.

use std::fs;
use std::process::Command;

use aiv_testkit::arb;
use aiv_testkit::disks::{Content, DiskLayout, Part, Table, TinyDisk};
use proptest::prelude::*;

/// Output of a Debian tool; its absence is a failure.
fn run(tool: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(tool).args(arguments).output().unwrap_or_else(|e| panic!("{tool}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}{errors}");
    text
}

/// A loop device, which unlike a file can have sectors of 4096 bytes.
struct Loop {
    device: String,
    _folder: tempfile::TempDir,
}

impl Loop {
    fn of(disk: &TinyDisk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, &disk.bytes).unwrap();
        let sector_size = disk.sector_size.to_string();
        let path = path.to_str().unwrap();
        let device = run("losetup", &["-r", "-b", &sector_size, "-f", "--show", path]);
        Self { device: device.trim().to_owned(), _folder: folder }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.device]);
    }
}

/// (number, start, length) in sectors, as sfdisk reads the table.
fn sfdisk_parts(disk: &TinyDisk) -> Vec<(u32, u64, u64)> {
    let shown = Loop::of(disk);
    let dump = run("sfdisk", &["--dump", &shown.device]);
    let field = |line: &str, name: &str| -> u64 {
        let value = line.split_once(name).unwrap().1.trim_start();
        value.split(',').next().unwrap().trim().parse().unwrap()
    };
    let node = format!("{}p", shown.device);
    let mut parts: Vec<_> = dump
        .lines()
        .filter(|line| !line.contains("type=f"))
        .filter_map(|line| {
            let number = line.strip_prefix(&node)?.split_once(" :")?.0.trim();
            Some((number.parse().unwrap(), field(line, "start="), field(line, "size=")))
        })
        .collect();
    parts.sort_unstable();
    parts
}

fn check_seen(disk: &TinyDisk) {
    let sector = u64::from(disk.sector_size);
    let ours: Vec<_> = disk
        .parts
        .iter()
        .map(|p| (p.number, p.extent.start / sector, p.extent.len / sector))
        .collect();
    assert_eq!(sfdisk_parts(disk), ours);
    for part in &disk.parts {
        let expected = part.content.bytes(usize::try_from(part.extent.len).unwrap());
        assert!(disk.part_bytes(part) == expected, "contents of partition {}", part.number);
    }
}

#[test]
fn a_gpt_is_what_sfdisk_and_sgdisk_call_one() {
    for sector_size in [512, 4096] {
        let layout = DiskLayout::new(Table::Gpt)
            .sector_size(sector_size)
            .part(Part::new(40_000, Content::Text(1)))
            .part(Part::new(4096, Content::Zeros).after_gap(7));
        let disk = layout.build();
        check_seen(&disk);
        let shown = Loop::of(&disk);
        let report = run("sgdisk", &["--verify", &shown.device]);
        assert!(report.contains("No problems found"), "{report}");
    }
}

#[test]
fn an_mbr_with_logical_partitions_is_what_sfdisk_calls_one() {
    for sector_size in [512, 4096] {
        let layout = DiskLayout::new(Table::Mbr)
            .sector_size(sector_size)
            .part(Part::new(10_000, Content::Text(1)))
            .part(Part::new(10_000, Content::Random(2)).after_gap(3))
            .part(Part::new(20_000, Content::Mixed(3)).logical())
            .part(Part::new(1, Content::Zeros).logical().after_gap(5))
            .part(Part::new(8192, Content::Text(4)).logical());
        let disk = layout.build();
        let numbers: Vec<_> = disk.parts.iter().map(|part| part.number).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 7]);
        check_seen(&disk);
    }
}

#[test]
fn a_disk_without_a_table_is_its_contents() {
    let layout = DiskLayout { tail: 0, ..DiskLayout::new(Table::None) };
    let disk = layout.part(Part::new(10_240, Content::Text(9))).build();
    assert_eq!(disk.bytes, Content::Text(9).bytes(10_240));
}

#[test]
fn a_seed_is_an_identity() {
    let disk = |seed| DiskLayout::new(Table::Gpt).seed(seed).build();
    assert_eq!(disk(1), disk(1));
    assert_ne!(disk(1).disk_guid, disk(2).disk_guid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_made_up_layout_is_read_back_by_sfdisk(layout in arb::disk_layout()) {
        let disk = layout.build();
        if layout.table == Table::None {
            prop_assert_eq!(disk.part_bytes(&disk.parts[0]).len() as u64, disk.parts[0].extent.len);
        } else {
            check_seen(&disk);
        }
    }
}
