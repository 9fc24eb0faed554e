//! Memory does not follow the sizes in an image. A process of its own: the largest memory it ever
//! had is that of this test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use aiv_disk_formats::{DiskImage, OpenOptions};
use aiv_volume_io::{Extent, ReadAt};

const MIB: u64 = 1 << 20;

#[test]
fn the_largest_disks_of_all_formats_are_read_in_a_few_mebibytes() {
    let dir = tempfile::tempdir().unwrap();
    for (format, options, name, size) in [
        // An L1 table of 2 MiB, L2 tables of 2 MiB.
        ("qcow2", "cluster_size=2M", "disk.qcow2", "60000T"),
        ("qcow2", "cluster_size=512", "small.qcow2", "100G"),
        // A table of 60 MiB.
        ("vhdx", "block_size=8M", "disk.vhdx", "60T"),
        ("vpc", "force_size=on", "disk.vhd", "2040G"),
    ] {
        let path = dir.path().join(name);
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format, "-o", options]).arg(&path).arg(size);
        assert!(create.status().unwrap().success(), "{create:?}");
        let before = peak_memory();
        let disk = DiskImage::open(&path, &OpenOptions::default()).unwrap();
        let len = disk.len();
        for at in (0..200).map(|part| len / 200 * part).chain([len - 512]) {
            disk.read_exact_at(&mut [1; 512], at).unwrap();
            assert!(!disk.holes(Extent::new(at, 16 * MIB)).unwrap().is_empty(), "{name} at {at}");
        }
        let grown = peak_memory() - before;
        assert!(grown < 6 * MIB, "{name}: {grown} bytes");
    }
}

/// Largest memory this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
