//! Volumes of each filesystem with the same kind of files, and deleted ones in their free space.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::disk::{self, Names};
use crate::{Outcome, process};

const PATIENCE_STEPS: u32 = 500;
const PATIENCE_STEP: Duration = Duration::from_millis(20);

/// How files get onto a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// This program mounts a device.
    Mounted(&'static str),
    /// Nobody mounts it here.
    Mtools,
}

/// A filesystem that is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) clone: &'static str,
    mkfs: &'static [&'static str],
    keeps_any_name: bool,
    way: Way,
}

pub(super) const KINDS: [Kind; 6] = [
    Kind {
        name: "ext4",
        clone: "partclone.ext4",
        mkfs: &["mkfs.ext4", "-q", "-F"],
        keeps_any_name: true,
        way: Way::Mounted("mount"),
    },
    Kind {
        name: "XFS",
        clone: "partclone.xfs",
        mkfs: &["mkfs.xfs", "-q", "-f"],
        keeps_any_name: true,
        way: Way::Mounted("mount"),
    },
    Kind {
        name: "Btrfs",
        clone: "partclone.btrfs",
        mkfs: &["mkfs.btrfs", "-q", "-f"],
        keeps_any_name: true,
        way: Way::Mounted("mount"),
    },
    Kind {
        name: "NTFS",
        clone: "partclone.ntfs",
        mkfs: &["mkfs.ntfs", "-q", "-F", "-f"],
        keeps_any_name: false,
        way: Way::Mounted("ntfs-3g"),
    },
    Kind {
        name: "FAT32",
        clone: "partclone.vfat",
        mkfs: &["mkfs.fat", "-F", "32", "-s", "8"],
        keeps_any_name: false,
        way: Way::Mtools,
    },
    Kind {
        name: "exFAT",
        clone: "partclone.exfat",
        mkfs: &["mkfs.exfat"],
        keeps_any_name: false,
        way: Way::Mounted("mount.exfat-fuse"),
    },
];

/// Makes a volume of `len` bytes, filled by about half.
pub(super) fn make(kind: &Kind, volume: &Path, len: u64, folder: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", volume.display());
    File::create(volume).and_then(|file| file.set_len(len)).map_err(failed)?;
    let (program, options) = kind.mkfs.split_first().ok_or("no program makes it")?;
    disk::run(program, options, volume, &[])?;
    let names = if kind.keeps_any_name { Names::Any } else { Names::Portable };
    match kind.way {
        Way::Mtools => fill_with_mtools(volume, len, folder),
        Way::Mounted(program) => {
            let mounted = Mounted::new(program, volume, folder)?;
            let made = disk::fill_volume(&mounted.folder, len, names)
                .and_then(|()| disk::remove_stale(&mounted.folder));
            let ended = mounted.unmount();
            made.and(ended)
        }
    }
}

/// Files are put together in a folder first; what is deleted later goes with them.
fn fill_with_mtools(volume: &Path, len: u64, folder: &Path) -> Outcome {
    let staged = folder.join("staged");
    let failed = |e: std::io::Error| format!("{}: {e}", staged.display());
    std::fs::create_dir_all(&staged).map_err(failed)?;
    let copied = disk::fill_volume(&staged, len, Names::Portable)
        .and_then(|()| {
            let mut command = process::command("mcopy");
            // It asks about names that differ in case only; the first of them stays.
            command.args(["-s", "-m", "-D", "s", "-i"]).arg(volume);
            for entry in std::fs::read_dir(&staged).map_err(failed)? {
                command.arg(entry.map_err(failed)?.path());
            }
            process::run(command.arg("::"))
        })
        .and_then(|()| disk::run("mdeltree", &["-i"], volume, &["::.stale"]));
    std::fs::remove_dir_all(&staged).map_err(failed)?;
    copied
}

/// A volume that is mounted until the value is dropped.
struct Mounted {
    folder: PathBuf,
    volume: PathBuf,
    device: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    fn new(program: &str, volume: &Path, folder: &Path) -> Result<Self, String> {
        let folder = folder.join("mnt");
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let device = losetup(&["--find", "--show"], volume)?.into();
        let mut mounted = Self { folder, volume: volume.to_owned(), device, is_mounted: false };
        let at = mounted.folder.to_string_lossy();
        disk::run(program, &[], &mounted.device, &[&at])?;
        mounted.is_mounted = true;
        Ok(mounted)
    }

    fn unmount(mut self) -> Outcome {
        self.end()
    }

    fn end(&mut self) -> Outcome {
        if std::mem::take(&mut self.is_mounted) {
            process::run(process::command("umount").arg(&self.folder))?;
        }
        if self.device.as_os_str().is_empty() {
            return Ok(());
        }
        disk::run("losetup", &["--detach"], &std::mem::take(&mut self.device), &[])?;
        // A server writes its last blocks after the mount is gone, and keeps the device.
        for _ in 0..PATIENCE_STEPS {
            if losetup(&["--noheadings", "--associated"], &self.volume)?.is_empty() {
                return Ok(());
            }
            std::thread::sleep(PATIENCE_STEP);
        }
        Err(format!("{} stays attached", self.volume.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            eprintln!("bench: {failure}");
        }
    }
}

/// What `losetup` says.
fn losetup(options: &[&str], volume: &Path) -> Result<String, String> {
    let output = process::command("losetup").args(options).arg(volume).output();
    let output = output.map_err(|e| format!("cannot start losetup: {e}"))?;
    process::expect_success("losetup", output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
