//! Btrfs filesystems with a past: new identities, converted, grown, left over from a set of
//! devices, caught in the middle of something.

use std::fs;
use std::path::PathBuf;

use aiv_filesystems::{BtrfsReason, WholeReason};
use aiv_volume_io::Extent;

use crate::btrfs_maps::check_map;
use crate::btrfs_tools::{MOUNT, dump_tree, files_in, fill, mkfs, super_field};
use crate::ext_tools::{MIB, churn, mke2fs, used_bytes, whole_reason};
use crate::tools::{Mounted, Volume, files_below, noise, run, try_run};

/// A balance moves every block group to another place, and leaves old copies everywhere.
#[test]
fn after_a_balance_and_growth() {
    let volume = mkfs(384 * MIB, "-b 256M");
    let files = fill(&volume, MOUNT, 4 * MIB);
    let mounted = Mounted::new(&volume, MOUNT);
    let path = mounted.path().to_str().unwrap();
    run("btrfs", &["balance", "start", "--full-balance", path]);
    run("btrfs", &["filesystem", "resize", "320M", path]);
    drop(mounted);
    check_map(&volume, &files);
    let used = used_bytes(&volume).0;
    let behind = Extent::between(320 * MIB, 384 * MIB);
    assert_eq!(used.within(behind).next(), Some(behind), "what follows the filesystem");
}

#[test]
fn a_filesystem_with_a_new_identity() {
    let volume = mkfs(128 * MIB, "-m single");
    let files = fill(&volume, MOUNT, 4 * MIB);
    // All metadata written again.
    run("btrfstune", &["-u", "-f", volume.path()]);
    check_map(&volume, &files);
    // A new name, and metadata that keep the old one.
    run("btrfstune", &["-m", "-f", volume.path()]);
    assert_ne!(super_field(&volume, "incompat_flags") & 1 << 10, 0);
    check_map(&volume, &files);
}

#[test]
fn a_seed_belongs_to_filesystems_on_other_devices() {
    let volume = mkfs(128 * MIB, "-m single");
    run("btrfstune", &["-S", "1", "-f", volume.path()]);
    let expected = BtrfsReason::Flags { bits: 1 << 32 };
    assert_eq!(whole_reason(&volume), WholeReason::Btrfs(expected));
}

#[test]
fn quotas_and_a_default_subvolume() {
    let volume = mkfs(128 * MIB, "");
    let files = fill(&volume, MOUNT, 4 * MIB);
    let mounted = Mounted::new(&volume, MOUNT);
    let path = mounted.path().to_str().unwrap();
    run("btrfs", &["quota", "enable", path]);
    run("btrfs", &["quota", "rescan", "-w", path]);
    run("btrfs", &["subvolume", "set-default", mounted.path().join("home").to_str().unwrap()]);
    drop(mounted);
    assert!(dump_tree(&volume, "quota").contains("QGROUP_STATUS"));
    let home = files
        .into_iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("home").ok()?.to_owned(), bytes)));
    check_map(&volume, &home.collect());
}

/// Data lie where ext had them, all over the device, and an image of that filesystem is a file.
#[test]
fn a_filesystem_that_was_ext4() {
    let volume = mke2fs(128 * MIB, "-t ext4 -b 4096");
    let mounted = Mounted::new(&volume, "rw");
    churn(mounted.path(), 8 * MIB);
    drop(mounted);
    run("btrfs-convert", &[volume.path()]);
    let files = files_in(&volume);
    assert!(files.contains_key(&PathBuf::from("ext2_saved/image")));
    check_map(&volume, &files);
}

/// A loop device; given back when dropped.
struct Loop(String);

impl Loop {
    fn new(volume: &Volume) -> Self {
        Self(run("losetup", &["--find", "--show", volume.path()]).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

#[test]
fn a_member_of_two_devices_and_the_one_that_is_left() {
    let volumes = [Volume::new(256 * MIB), Volume::new(256 * MIB)];
    let loops = volumes.each_ref().map(Loop::new);
    let [first, second] = loops.each_ref().map(|device| &device.0[..]);
    run("mkfs.btrfs", &["-q", "-f", "-m", "raid1", "-d", "raid0", first, second]);
    for volume in &volumes {
        let expected = BtrfsReason::Devices { count: 2 };
        assert_eq!(whole_reason(volume), WholeReason::Btrfs(expected));
    }
    let mounted = Mounted::of_device(first, &format!("{MOUNT},device={second}"));
    let path = mounted.path().to_str().unwrap();
    churn(mounted.path(), 6 * MIB);
    let moved = ["balance", "start", "-f", "-mconvert=dup", "-dconvert=single", path];
    run("btrfs", &moved);
    run("btrfs", &["device", "remove", first, path]);
    let files = files_below(mounted.path());
    drop(mounted);
    drop(loops);
    // Its number is still 2.
    assert_eq!(super_field(&volumes[1], "dev_item.devid"), 2);
    check_map(&volumes[1], &files);
}

/// A relocation that was interrupted, and a subvolume that is half removed.
#[test]
fn a_filesystem_that_is_frozen_in_the_middle_of_its_work() {
    let volume = mkfs(160 * MIB, "");
    fill(&volume, MOUNT, 8 * MIB);
    let mounted = Mounted::new(&volume, MOUNT);
    let path = mounted.path().to_str().unwrap();
    run("btrfs", &["balance", "start", "--bg", "--full-balance", path]);
    run("btrfs", &["subvolume", "delete", mounted.path().join("frozen").to_str().unwrap()]);
    let mut frozen = Vec::new();
    for n in 0..40u64 {
        fs::write(mounted.path().join(format!("new{n}")), noise(n, 40_000)).unwrap();
        if n % 20 == 10 {
            run("fsfreeze", &["-f", path]);
            frozen.push(volume.duplicate());
            run("fsfreeze", &["-u", path]);
        }
    }
    // Whoever balances keeps the filesystem in use until that ends, however long it takes.
    try_run("btrfs", &["balance", "cancel", path]);
    // Two of one identity cannot be relied on to be mounted at a time.
    drop(mounted);
    for volume in frozen {
        check_map(&volume, &files_in(&volume));
    }
}
