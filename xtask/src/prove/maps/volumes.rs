//! Sound volumes of each family, made by the tools people have.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aiv_testkit::disks::Content;
use tempfile::TempDir;

use super::judge::Target;
use super::{Family, lvm};
use crate::process;

const MIB: u64 = 1 << 20;

/// The volumes of a family.
pub(super) fn of(family: Family) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        targets.push(Target::new(family, name, bytes)?);
        Ok::<_, String>(())
    };
    match family {
        Family::Ext => {
            let plain = "-b 1024 -O ^metadata_csum,^uninit_bg";
            add("ext2", ext(&format!("-t ext2 {plain} -g 1024"))?)?;
            let spread = format!("-t ext4 {plain},meta_bg,^resize_inode -g 512");
            add("ext4 with meta_bg", ext(&spread)?)?;
            add("ext4 with bigalloc", ext(&format!("-t ext4 {plain},bigalloc -C 4096"))?)?;
            add("ext4", ext("-t ext4 -b 1024 -g 2048")?)?;
            add("ext4 in blocks of 4 KiB", ext("-t ext4 -b 4096")?)?;
            add("ext3 in use", in_use("-t ext3 -b 1024 -O ^resize_inode")?)?;
            add("ext4 in use", in_use("-t ext4 -b 1024")?)?;
        }
        Family::Xfs => {
            let old = "-m crc=0 -d agcount=2 -b size=";
            add("xfs 4 in blocks of 512 bytes", mkfs_xfs(&format!("{old}512"))?.bytes()?)?;
            add("xfs 4", mkfs_xfs(&format!("{old}4096"))?.bytes()?)?;
            for options in ["-b size=1024 -d agcount=2 -m rmapbt=1", "-b size=4096 -d agcount=2"] {
                let file = mkfs_xfs(options)?;
                file.mounted("xfs", "rw", |folder| fragment(folder, 1000, true))?;
                add(&format!("xfs {options}"), file.bytes()?)?;
            }
            add("xfs frozen", frozen_xfs()?)?;
        }
        Family::Btrfs => {
            let small = "-m single -O ^skinny-metadata -R ^free-space-tree";
            for (mib, options) in [(48, "-M -n 4096"), (112, ""), (48, small)] {
                add(&format!("btrfs {options}"), filled_btrfs(mib, options)?)?;
            }
            let fresh = Scratch::made(48 * MIB, "mkfs.btrfs", "-q -f -m single")?;
            add("btrfs without files", fresh.bytes()?)?;
            add("btrfs in use", btrfs_in_use()?)?;
        }
        Family::Ntfs => {
            for options in ["-c 512", "-c 4096", "-s 4096"] {
                let file = Scratch::made(2 * MIB, "mkntfs", &format!("-q -Q -F {options}"))?;
                file.mounted("ntfs-3g", "noatime", |folder| fragment(folder, 60, false))?;
                add(&format!("ntfs {options}"), file.bytes()?)?;
            }
        }
        Family::Fat => {
            for (mib, options) in [(1, "-F 12 -s 1"), (3, "-F 16 -s 1"), (35, "-F 32 -s 1")] {
                let file = Scratch::made(mib * MIB, "mkfs.fat", options)?;
                fill_fat(&file)?;
                add(&format!("fat {options}"), file.bytes()?)?;
            }
        }
        Family::ExFat => {
            for options in ["-c 512", "-c 4096"] {
                let file = Scratch::made(6 * MIB, "mkfs.exfat", options)?;
                file.mounted("exfat-fuse", "rw", |folder| fragment(folder, 60, true))?;
                add(&format!("exfat {options}"), file.bytes()?)?;
            }
        }
        Family::Swap => {
            for options in ["-q", "-q -p 65536 -L label"] {
                add(options, Scratch::made(MIB, "mkswap", options)?.bytes()?)?;
            }
        }
        Family::F2fs => {
            let fresh = Scratch::made(64 * MIB, "mkfs.f2fs", "-q -f")?;
            add("f2fs with a compact checkpoint", fresh.bytes()?)?;
            let files = tempfile::tempdir().map_err(|e| e.to_string())?;
            fragment(files.path(), 60, true).map_err(|e| e.to_string())?;
            call("sload.f2fs", &format!("-f {} {}", files.path().display(), fresh.path.display()))?;
            add("f2fs", fresh.bytes()?)?;
        }
        Family::Lvm => {
            let root = ext("-t ext2 -b 1024")?;
            let swap = Scratch::made(MIB, "mkswap", "-q")?.bytes()?;
            add("one disk of lvm", lvm::one_disk(&root, &swap)?)?;
            add("one of two disks of lvm", lvm::one_of_two_disks(&root)?)?;
        }
    }
    Ok(targets)
}

/// A file in a folder of its own.
pub(in crate::prove) struct Scratch {
    folder: TempDir,
    pub(in crate::prove) path: PathBuf,
}

impl Scratch {
    pub(super) fn new(len: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = folder.path().join("volume");
        let file = std::fs::File::create(&path).and_then(|file| file.set_len(len));
        file.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { folder, path })
    }

    /// A new volume by `tool OPTIONS FILE`.
    pub(in crate::prove) fn made(len: u64, tool: &str, options: &str) -> Result<Self, String> {
        let scratch = Self::new(len)?;
        call(tool, &format!("{options} {}", scratch.path.display()))?;
        Ok(scratch)
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.path).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    /// Mounts the volume, lets `fill` work on it, and returns what is in it before it is
    /// unmounted.
    fn mounted(
        &self,
        driver: &str,
        options: &str,
        fill: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<Vec<u8>, String> {
        self.with_mounted(driver, options, |folder| {
            let filled = fill(folder).map_err(|e| format!("{}: {e}", folder.display()));
            let hot = self.bytes();
            filled.and(hot)
        })
    }

    /// Mounts the volume, and returns what `work` says before it is unmounted.
    pub(in crate::prove) fn with_mounted<T>(
        &self,
        driver: &str,
        options: &str,
        work: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Result<T, String> {
        let folder = self.folder.path().join("mounted");
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let device = Loop::over(&self.path)?;
        let words = format!("-o {options} {} {}", device.0, folder.display());
        match driver {
            "exfat-fuse" => call("mount.exfat-fuse", &words)?,
            driver => call("mount", &format!("-t {driver} {words}"))?,
        };
        let done = work(&folder);
        let folder = folder.display().to_string();
        patiently(|| call("umount", &folder).map(drop))?;
        // The driver may write its last blocks after the mount is gone.
        drop(device);
        let file = format!("--associated {}", self.path.display());
        patiently(|| match call("losetup", &file)?.as_str() {
            "" => Ok(()),
            busy => Err(format!("still busy: {busy}")),
        })?;
        done
    }
}

/// A file as a block device; detached when dropped.
pub(super) struct Loop(pub(super) String);

impl Loop {
    pub(super) fn over(file: &Path) -> Result<Self, String> {
        let device = call("losetup", &format!("--find --show {}", file.display()))?;
        Ok(Self(device.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(failure) = call("losetup", &format!("--detach {}", self.0)) {
            eprintln!("maps: {failure}");
        }
    }
}

/// Tries for ten seconds: a busy machine is no failure.
fn patiently(action: impl Fn() -> Result<(), String>) -> Result<(), String> {
    for _ in 0..200 {
        if action().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    action()
}

/// Runs a tool that must succeed, and returns what it says. Words have no blanks in them.
fn call(tool: &str, words: &str) -> Result<String, String> {
    let mut command = process::command(tool);
    command.args(words.split_whitespace()).env("LC_ALL", "C.UTF-8");
    said_by(&mut command)
}

/// Runs a command that must succeed, and returns what it says.
pub(super) fn said_by(command: &mut std::process::Command) -> Result<String, String> {
    let line = process::describe(command);
    let output = command.output().map_err(|e| format!("cannot start `{line}`: {e}"))?;
    process::expect_success(&line, output.status)
        .map_err(|failure| format!("{failure}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Small files, and holes between them; with room to spare, a longer one too.
fn fragment(folder: &Path, files: usize, long: bool) -> std::io::Result<()> {
    let contents = |n: usize, len| Content::Random(n as u64).bytes(len);
    let small = folder.join("small");
    std::fs::create_dir(&small)?;
    for n in 0..files {
        std::fs::write(small.join(n.to_string()), contents(n, 500 * (n % 5) + 10))?;
    }
    for n in (0..files).step_by(2) {
        std::fs::remove_file(small.join(n.to_string()))?;
    }
    if long {
        std::fs::write(folder.join("long"), contents(files, 300_000))?;
    }
    let root = std::fs::File::open(folder)?;
    rustix::fs::syncfs(&root)?;
    Ok(())
}

/// An ext filesystem with files in it.
fn ext(options: &str) -> Result<Vec<u8>, String> {
    let files = tempfile::tempdir().map_err(|e| e.to_string())?;
    fragment(files.path(), 100, true).map_err(|e| e.to_string())?;
    let options = format!("-q -F {options} -d {}", files.path().display());
    Scratch::made(4 * MIB, "mke2fs", &options)?.bytes()
}

/// A filesystem whose journal waits to be replayed.
fn in_use(options: &str) -> Result<Vec<u8>, String> {
    let file = Scratch::made(10 * MIB, "mke2fs", &format!("-q -F {options}"))?;
    file.mounted("auto", "rw,commit=600", |folder| {
        std::fs::create_dir(folder.join("dir"))?;
        let path = folder.join("dir/file");
        std::fs::write(&path, Content::Random(1).bytes(70_000))?;
        std::fs::File::open(path)?.sync_all()
    })
}

fn mkfs_xfs(options: &str) -> Result<Scratch, String> {
    Scratch::made(32 * MIB, "mkfs.xfs", &format!("-q -f --unsupported {options}"))
}

/// As it lies on the medium while it is frozen: its log is not empty.
fn frozen_xfs() -> Result<Vec<u8>, String> {
    let file = mkfs_xfs("-b size=1024 -d agcount=2")?;
    let frozen = RefCell::new(Ok(Vec::new()));
    file.mounted("xfs", "rw", |folder| {
        fragment(folder, 300, true)?;
        let name = folder.display();
        let freeze = |how| call("fsfreeze", &format!("{how} {name}")).map_err(io::Error::other);
        freeze("--freeze")?;
        *frozen.borrow_mut() = file.bytes();
        freeze("--unfreeze").map(drop)
    })?;
    frozen.into_inner()
}

/// Options of a mount that writes when it is told to.
const BTRFS_MOUNT: &str = "rw,discard=async,commit=300";

/// Subvolumes, snapshots, files that share extents, preallocated space.
fn filled_btrfs(mib: u64, options: &str) -> Result<Vec<u8>, String> {
    let file = Scratch::made(mib * MIB, "mkfs.btrfs", &format!("-q -f {options}"))?;
    file.mounted("btrfs", BTRFS_MOUNT, |folder| {
        let call = |tool, words: String| call(tool, &words).map_err(io::Error::other);
        let name = folder.display();
        call("btrfs", format!("subvolume create {name}/home"))?;
        fragment(&folder.join("home"), 200, true)?;
        call("btrfs", format!("subvolume snapshot {name}/home {name}/before"))?;
        call("btrfs", format!("subvolume snapshot -r {name}/home {name}/kept"))?;
        fragment(folder, 60, true)?;
        call("cp", format!("--reflink=always {name}/long {name}/shared"))?;
        // Nobody shares these, and they do not fit into a record.
        std::fs::create_dir(folder.join("own"))?;
        for n in 0..20 {
            let path = folder.join(format!("own/{}", n * 2));
            std::fs::write(path, Content::Random(n).bytes(9000))?;
        }
        call("fallocate", format!("-l 300K {name}/set-aside"))?;
        call("btrfs", format!("subvolume delete {name}/before"))?;
        call("btrfs", format!("filesystem sync {name}")).map(drop)
    })?;
    file.bytes()
}

/// A filesystem whose log waits to be replayed.
fn btrfs_in_use() -> Result<Vec<u8>, String> {
    /// Of the superblock, where the log begins.
    const LOG_ROOT: usize = (64 << 10) + 0x60;
    let file = Scratch::made(112 * MIB, "mkfs.btrfs", "-q -f -m single -n 4096")?;
    file.mounted("btrfs", BTRFS_MOUNT, |folder| fragment(folder, 100, true))?;
    let hot = RefCell::new(Vec::new());
    file.mounted("btrfs", BTRFS_MOUNT, |folder| {
        let synced = |name: String, seed| {
            let path = folder.join(name);
            std::fs::write(&path, Content::Random(seed).bytes(9000))?;
            std::fs::File::open(path)?.sync_all()
        };
        let bytes = || file.bytes().map_err(io::Error::other);
        // A file that takes a new chunk makes a sync a commit, and others come by themselves:
        // until there was none, before, during or behind the copy.
        for round in 0..20 {
            for n in 0..30 {
                synced(format!("synced{n}"), round * 30 + n)?;
            }
            let (before, after) = (bytes()?, bytes()?);
            if before == after && before[LOG_ROOT..LOG_ROOT + 8] != [0; 8] {
                *hot.borrow_mut() = before;
                return Ok(());
            }
        }
        Err(io::Error::other("everything was committed"))
    })?;
    Ok(hot.into_inner())
}

fn fill_fat(volume: &Scratch) -> Result<(), String> {
    let files = tempfile::tempdir().map_err(|e| e.to_string())?;
    fragment(files.path(), 60, true).map_err(|e| e.to_string())?;
    let image = volume.path.display();
    let small = files.path().join("small");
    let long = files.path().join("long");
    call("mcopy", &format!("-s -i {image} {} ::/", small.display()))?;
    call("mcopy", &format!("-i {image} {} ::/", long.display()))?;
    call("mdel", &format!("-i {image} ::/small/21"))?;
    Ok(())
}
