//! A disk without partitions, with an ext4 of any files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::made::run;

/// It is there until this is dropped.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Of so many MiB, with what `fill` puts into a folder.
    pub(crate) fn new(mib: u64, label: &str, fill: impl FnOnce(&Path)) -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let tree = disk.dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fill(&tree);
        let (tree, raw) = (tree.to_str().unwrap(), disk.raw());
        let raw = raw.to_str().unwrap();
        run("truncate", &["-s", &format!("{mib}M"), raw]);
        let plain =
            ["-q", "-O", "^has_journal", "-i", "1024", "-I", "128", "-L", label, "-d", tree, raw];
        run("mkfs.ext4", &plain);
        disk
    }

    /// The same, filled by the kernel: of many files in one folder, `mkfs.ext4` takes minutes.
    pub(crate) fn filled_by_kernel(mib: u64, fill: impl FnOnce(&Path)) -> Self {
        let disk = Self::new(mib, "", |_| {});
        let mounted = Mounted(disk.dir.path().join("mounted"));
        fs::create_dir(&mounted.0).unwrap();
        let (raw, place) = (disk.raw(), mounted.0.to_str().unwrap());
        run("mount", &["-o", "loop", raw.to_str().unwrap(), place]);
        fill(&mounted.0);
        drop(mounted);
        disk
    }

    pub(crate) fn raw(&self) -> PathBuf {
        self.dir.path().join("disk.raw")
    }
}

/// It is mounted until this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
