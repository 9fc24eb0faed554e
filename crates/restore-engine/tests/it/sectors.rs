//! Whole disks on targets with other sectors, judged by the kernel and the checkers of
//! filesystems on loop devices with such sectors.

use std::fs;

use aiv_restore_engine::{Error, Note, Refusal, RestorePlan, TargetFacts, Unusable};
use aiv_volume_io::Job;
use aiv_volume_io::partition::Partition;

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, Mount, RealDisk, check_table, partitions, restore, run, view};
use crate::targets::device;

const FILES: [(&str, usize); 3] = [("small", 100), ("large", 3 << 20), ("other", 70_000)];

fn fill(disk: &RealDisk, number: u32) {
    let files: Vec<(&str, Vec<u8>)> =
        FILES.iter().map(|(name, len)| (*name, noise(*len as u64))).collect();
    disk.fill(number, &files);
}

fn check_files(device: &Loop) {
    let mounted = Mount::new(device, "ro");
    for (name, len) in FILES {
        assert!(fs::read(mounted.path().join(name)).unwrap() == noise(len as u64), "{name}");
    }
}

/// Restores to a loop device with sectors of `sector` bytes; the partitions stay where they were.
fn convert(disk: &RealDisk, sector: u32) -> (std::path::PathBuf, Vec<Partition>) {
    let path = disk.folder().join("target.raw");
    let len = fs::metadata(&disk.path).unwrap().len() + 8 * MIB;
    fs::write(&path, noise(len)).unwrap();
    let target = Loop::whole(&path, sector);
    let (plan, _) = restore(&disk.image(), &target.0, threads(2));
    drop(target);
    let (from, to) = (disk.sector, sector);
    let note = Note::SectorsConverted { source: from, target: to };
    assert!(plan.notes().contains(&note), "{:?}", plan.notes());
    let found = check_table(&path, sector);
    assert_eq!(found, disk.partitions());
    (path, found)
}

#[test]
fn ext4_with_blocks_of_4096_bytes_moves_between_sectors_of_512_and_4096() {
    for (from, to) in [(512, 4096), (4096, 512)] {
        let mut disk = RealDisk::gpt(32 * MIB, from, &["--new=1:1M:+24M", "--new=3:26M:+4M"]);
        disk.format(1, "ext4", 4096, &["mkfs.ext4", "-q", "-b", "4096"]);
        disk.format(3, "swap", 4096, &["mkswap"]);
        fill(&disk, 1);
        let (path, found) = convert(&disk, to);
        let device = Loop::part(&path, to, &found[0]);
        run("e2fsck", &["-fn", device.node()]);
        check_files(&device);
        let swap = Loop::part(&path, to, &found[1]);
        assert_eq!(run("blkid", &["-p", "-o", "value", "-s", "TYPE", swap.node()]), "swap");
    }
}

#[test]
fn xfs_with_sectors_of_4096_bytes_moves_to_such_a_disk() {
    let mut disk = RealDisk::gpt(400 * MIB, 512, &["--new=1:1M:+350M"]);
    disk.format(1, "xfs", 4096, &["mkfs.xfs", "-q", "-f", "-s", "size=4096"]);
    fill(&disk, 1);
    let (path, found) = convert(&disk, 4096);
    let device = Loop::part(&path, 4096, &found[0]);
    run("xfs_repair", &["-n", device.node()]);
    check_files(&device);
}

#[test]
fn btrfs_moves_to_sectors_of_4096_bytes() {
    let mut disk = RealDisk::gpt(160 * MIB, 512, &["--new=1:1M:+128M"]);
    disk.format(1, "btrfs", 4096, &["mkfs.btrfs", "-q", "-f", "-s", "4096"]);
    let (path, found) = convert(&disk, 4096);
    let device = Loop::part(&path, 4096, &found[0]);
    run("btrfs", &["check", "--readonly", device.node()]);
}

#[test]
fn an_mbr_disk_with_logical_partitions_is_converted() {
    let script = "label: dos\n1: start=1MiB, size=16MiB, type=83\n\
        2: start=18MiB, size=12MiB, type=f\n5: start=19MiB, size=8MiB, type=82\n";
    let mut disk = RealDisk::mbr(32 * MIB, 512, script);
    disk.format(1, "ext4", 4096, &["mkfs.ext4", "-q", "-b", "4096"]);
    disk.format(5, "swap", 4096, &["mkswap"]);
    fill(&disk, 1);
    let (path, found) = convert(&disk, 4096);
    let device = Loop::part(&path, 4096, &found[0]);
    run("e2fsck", &["-fn", device.node()]);
    check_files(&device);
}

/// What is refused on a device with sectors of `sector` bytes, and why.
fn refusal(disk: &RealDisk, sector: u32) -> (u32, String, Unusable) {
    let facts = TargetFacts { logical_sector_size: sector, ..device(1 << 30) };
    match RestorePlan::new(&view(&disk.image()), &facts, threads(1), Job::silent()) {
        Err(Error::Refused(Refusal::Sectors { number, holds, why, .. })) => (number, holds, why),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn filesystems_that_need_sectors_of_512_bytes_are_refused_by_name() {
    let mkfs: [(&str, &[&str], Unusable); 5] = [
        ("ext4", &["mkfs.ext4", "-q", "-b", "1024"], Unusable::Unit { bytes: 1024 }),
        ("xfs", &["mkfs.xfs", "-q", "-f", "-s", "size=512"], Unusable::Unit { bytes: 512 }),
        ("vfat", &["mkfs.fat"], Unusable::Stated),
        ("ntfs", &["mkfs.ntfs", "-Q", "-q", "-F"], Unusable::Stated),
        ("exfat", &["mkfs.exfat"], Unusable::Stated),
    ];
    for (name, mkfs, why) in mkfs {
        // The smallest XFS has 300 MiB.
        let len = if name == "xfs" { 310 } else { 20 };
        let parts = ["--new=1:1M:+2M", "--typecode=1:0c01", &format!("--new=2:4M:+{len}M")];
        let mut disk = RealDisk::gpt((len + 6) * MIB, 512, &parts);
        disk.format(2, name, 0, mkfs);
        assert_eq!(refusal(&disk, 4096), (2, name.to_owned(), why));
    }
}

#[test]
fn what_nobody_knows_is_refused_on_larger_sectors_and_taken_to_smaller_ones() {
    let disk = RealDisk::gpt(16 * MIB, 512, &["--new=4:1M:+2M"]);
    let unknown = "something unknown".to_owned();
    assert_eq!(refusal(&disk, 4096), (4, unknown, Unusable::Unknown));
    let mut disk = RealDisk::gpt(16 * MIB, 512, &["--new=1:1M:+2M"]);
    disk.format(1, "LVM2_member", 0, &["true"]);
    assert_eq!(refusal(&disk, 4096), (1, "LVM2_member".to_owned(), Unusable::Unknown));
    let disk = RealDisk::gpt(16 * MIB, 4096, &["--new=4:1M:+2M"]);
    let (path, _) = convert(&disk, 512);
    assert_eq!(partitions(&path, 512).len(), 1);
}

#[test]
fn a_refusal_names_the_partition_and_the_reason() {
    let mut disk = RealDisk::gpt(16 * MIB, 512, &["--new=2:1M:+8M"]);
    disk.format(2, "vfat", 0, &["mkfs.fat"]);
    let facts = TargetFacts { logical_sector_size: 4096, ..device(1 << 30) };
    let plan = RestorePlan::new(&view(&disk.image()), &facts, threads(1), Job::silent());
    let text = plan.unwrap_err().to_string();
    let wanted = "/dev/target has sectors of 4096 bytes, the disk was imaged with 512: partition \
                  2 holds vfat, which is made for sectors of one size";
    assert_eq!(text, wanted);
}
