//! exFAT volumes, filled by exfat-fuse and judged by exfatprogs.

use std::path::Path;

use aiv_volume_io::ReadAt;
use tempfile::TempDir;

use crate::ext_tools::{churn, complement, copy_of_used, used_bytes};
use crate::tools::{Files, Volume, files_below, run, try_run};

pub(crate) fn mkfs_exfat(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkfs.exfat", options)
}

/// A volume mounted through FUSE, which asks for a block device.
pub(crate) struct Fused {
    dir: TempDir,
    file: String,
    device: String,
}

impl Fused {
    pub(crate) fn new(volume: &Volume, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut attach = vec!["--find", "--show", volume.path()];
        if options == "ro" {
            attach.push("--read-only");
        }
        let device = run("losetup", &attach).trim().to_owned();
        let mounted = Self { dir, file: volume.path().to_owned(), device };
        let at = mounted.dir.path().to_str().unwrap();
        run("mount.exfat-fuse", &["-o", options, &mounted.device, at]);
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        // A child another test is about to start holds this test's open files for a moment.
        let unmounted = || try_run("umount", &[self.dir.path().to_str().unwrap()]);
        for _ in 0..1500 {
            if unmounted().status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        try_run("losetup", &["--detach", &self.device]);
        // The server writes its last blocks after the mount is gone, and keeps the device. The
        // file is asked for, because somebody else may have got the device since.
        for _ in 0..3000 {
            let devices = try_run("losetup", &["--associated", &self.file]);
            if devices.status.success() && devices.stdout.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(std::thread::panicking(), "{} stays busy", self.device);
    }
}

pub(crate) fn fill_exfat(volume: &Volume, bytes: u64) {
    churn(Fused::new(volume, "rw").path(), bytes);
}

pub(crate) fn exfat_files(volume: &Volume) -> Files {
    files_below(Fused::new(volume, "ro").path())
}

pub(crate) fn assert_clean_exfat(volume: &Volume) {
    let output = try_run("fsck.exfat", &["-n", volume.path()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(": clean."), "{output:?}");
}

/// Free clusters by dump.exfat, which counts bits of the bitmap.
pub(crate) fn free_by_dump_exfat(volume: &Volume) -> u64 {
    field_by_dump_exfat(volume, "Free Clusters:")
}

pub(crate) fn field_by_dump_exfat(volume: &Volume, name: &str) -> u64 {
    let text = run("dump.exfat", &[volume.path()]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

/// The map leaves out what dump.exfat calls free, and a volume of noise with only the used
/// bytes in it is sound, with all files.
pub(crate) fn check_exfat(volume: &Volume, cluster_size: u32) {
    assert_clean_exfat(volume);
    let source = volume.open();
    let (used, found_cluster_size, notes) = used_bytes(volume);
    assert_eq!(found_cluster_size, cluster_size);
    assert_eq!(notes, []);
    let free = complement(&used, source.len());
    assert!(!free.is_empty(), "a full volume proves nothing");
    assert_eq!(free.total_len(), free_by_dump_exfat(volume) * u64::from(cluster_size));
    let copy = copy_of_used(volume, &used);
    assert_clean_exfat(&copy);
    assert!(exfat_files(&copy) == exfat_files(volume), "contents differ");
}

/// Changes bytes of the main boot region and of its backup, and sums both anew.
pub(crate) fn patch_boot(volume: &Volume, at: u64, bytes: &[u8]) {
    for region in [0, 12] {
        patch_region(volume, region, at, bytes);
    }
}

/// Changes bytes of the boot region that begins at a sector, and sums it anew.
pub(crate) fn patch_region(volume: &Volume, first_sector: u64, at: u64, bytes: &[u8]) {
    let mut shift = [0];
    volume.open().read_exact_at(&mut shift, 108).unwrap();
    let sector = 1usize << shift[0];
    let start = first_sector * sector as u64;
    volume.patch(start + at, bytes);
    let mut region = vec![0; 11 * sector];
    volume.open().read_exact_at(&mut region, start).unwrap();
    let mut sum = 0u32;
    for (n, &byte) in region.iter().enumerate() {
        if ![106, 107, 112].contains(&n) {
            sum = sum.rotate_right(1).wrapping_add(byte.into());
        }
    }
    volume.patch(start + 11 * sector as u64, &sum.to_le_bytes().repeat(sector / 4));
}
