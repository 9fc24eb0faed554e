//! Filesystems grown to the length of their partitions, or made smaller, by their own tools.
//!
//! Growing happens after the restore was proven. A tool that is missing or fails leaves
//! a partition that is longer than its filesystem, which is nothing bad, and is told with what
//! to do by hand.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aiv_volume_io::{Extent, programs};

use crate::plan::RestorePlan;
use crate::report::Note;
use crate::table::TableRow;

/// Runs programs of the system. Nothing in this crate does, unless it is handed one of these.
pub trait Tools: Sync {
    /// Runs a program to its end without any input.
    ///
    /// # Errors
    /// When it cannot be started: of kind [`io::ErrorKind::NotFound`] when it is not installed.
    fn run(&self, program: &str, args: &[&OsStr]) -> io::Result<ToolRun>;

    /// An existing folder where folders to mount at may be made.
    fn mount_root(&self) -> &Path;
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRun {
    /// Its exit status, -1 when it was killed.
    pub status: i32,
    /// What it printed on standard output.
    pub output: String,
    /// What it printed on standard error.
    pub errors: String,
}

/// The programs of this machine. Ctrl-C does not reach them: a filesystem that is half as long as
/// it should be helps nobody.
#[derive(Debug, Clone)]
pub struct SystemTools {
    mount_root: PathBuf,
}

impl SystemTools {
    /// Programs that may mount below `mount_root`, an existing folder such as `/run`.
    #[must_use]
    pub fn new(mount_root: impl Into<PathBuf>) -> Self {
        Self { mount_root: mount_root.into() }
    }
}

impl Tools for SystemTools {
    fn run(&self, program: &str, args: &[&OsStr]) -> io::Result<ToolRun> {
        let output = programs::program(program).args(args).output()?;
        Ok(ToolRun {
            status: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            errors: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn mount_root(&self) -> &Path {
        &self.mount_root
    }
}

/// How a filesystem is grown.
#[derive(Debug, Clone, Copy)]
enum Way {
    Ext,
    Ntfs,
    Xfs,
    Btrfs,
}

impl Way {
    fn of(filesystem: &str) -> Option<Self> {
        match filesystem {
            "ext2" | "ext3" | "ext4" => Some(Self::Ext),
            "ntfs" => Some(Self::Ntfs),
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }

    const fn by_hand(self) -> &'static str {
        match self {
            Self::Ext => "e2fsck -f PARTITION && resize2fs PARTITION",
            Self::Ntfs => "ntfsresize PARTITION",
            Self::Xfs => "mount it, and xfs_growfs MOUNT_POINT",
            Self::Btrfs => "mount it, and btrfs filesystem resize max MOUNT_POINT",
        }
    }
}

/// Grows the filesystems of all partitions that the plan made longer; one note for each.
pub(crate) fn grow_filesystems(
    plan: &RestorePlan,
    target: &Path,
    sector_size: u32,
    tools: &dyn Tools,
) -> Vec<Note> {
    let rows = plan.table().map_or(&[][..], |table| &table.rows);
    let grown = rows.iter().filter(|row| row.after.len > row.before.len);
    grown.map(|row| grow(row, target, sector_size, tools)).collect()
}

/// Makes the filesystem in a file `len` bytes long, and the file with it, and checks it; why not,
/// when it cannot be done.
pub(crate) fn shrink_filesystem(
    filesystem: &str,
    file: &Path,
    len: u64,
    tools: &dyn Tools,
) -> Result<(), String> {
    let session = Session { tools };
    match Way::of(filesystem) {
        Some(Way::Ext) => session.shrink_ext(file, len),
        Some(Way::Ntfs) => session.shrink_ntfs(file, len),
        Some(Way::Btrfs) => session.shrink_btrfs(file, len),
        Some(Way::Xfs) => Err("XFS cannot be made smaller".to_owned()),
        None => Err("no tool is known that makes it smaller".to_owned()),
    }
}

/// Whether a tool is known that makes such a filesystem smaller.
pub(crate) fn can_shrink(filesystem: &str) -> bool {
    matches!(Way::of(filesystem), Some(Way::Ext | Way::Ntfs | Way::Btrfs))
}

fn grow(row: &TableRow, target: &Path, sector_size: u32, tools: &dyn Tools) -> Note {
    let (number, filesystem) = (row.number, row.filesystem.clone());
    let Some(way) = Way::of(&filesystem) else {
        let why = "no tool is known for it".to_owned();
        return Note::FilesystemNotGrown { number, filesystem, why, by_hand: "" };
    };
    let session = Session { tools };
    let grown = session.device(target, row.after, sector_size).and_then(|device| match way {
        Way::Ext => session.ext(&device),
        Way::Ntfs => session.ntfs(&device),
        Way::Xfs => session.xfs(&device),
        Way::Btrfs => session.btrfs(&device),
    });
    match grown {
        Ok(()) => Note::FilesystemGrown { number, filesystem },
        Err(why) => Note::FilesystemNotGrown { number, filesystem, why, by_hand: way.by_hand() },
    }
}

struct Session<'t> {
    tools: &'t dyn Tools,
}

/// A partition shown as a device of its own, until dropped. The kernel need not know the new
/// table for that, nor be able to read it.
struct Device<'t> {
    tools: &'t dyn Tools,
    path: OsString,
}

/// A mounted device, until dropped.
struct Mounted<'t> {
    tools: &'t dyn Tools,
    at: PathBuf,
}

type Done<T> = Result<T, String>;

impl<'t> Session<'t> {
    /// Runs a program that must end with one of these statuses.
    fn run(&self, program: &str, args: &[&OsStr], allowed: &[i32]) -> Done<String> {
        let run = self.tools.run(program, args).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{program} is not installed"),
            _ => format!("{program} cannot be started: {error}"),
        })?;
        if allowed.contains(&run.status) {
            return Ok(run.output);
        }
        // What it prints last is why it gave up.
        let said = if run.errors.is_empty() { &run.output } else { &run.errors };
        let last = said.lines().next_back().unwrap_or_default();
        Err(format!("{program} ended with status {}: {last}", run.status))
    }

    fn device(&self, target: &Path, partition: Extent, sector_size: u32) -> Done<Device<'t>> {
        let numbers =
            [partition.start.to_string(), partition.len.to_string(), sector_size.to_string()];
        let [offset, len, sector] = numbers.each_ref().map(OsStr::new);
        let words = ["--find", "--show", "--offset", "--sizelimit", "--sector-size"];
        let [find, show, at, limit, sectors] = words.map(OsStr::new);
        let args = [find, show, at, offset, limit, len, sectors, sector, target.as_os_str()];
        let path = self.run("losetup", &args, &[0])?.into();
        Ok(Device { tools: self.tools, path })
    }

    fn mount(&self, device: &Device<'_>, options: &str) -> Done<Mounted<'t>> {
        let name = Path::new(&device.path).file_name().unwrap_or_default().to_string_lossy();
        // What comes from an image is nobody's to look into, or to run, meanwhile.
        let closed = self.tools.mount_root().join(format!("aiv-grow-{name}"));
        let at = closed.join("volume");
        let made = DirBuilder::new().mode(0o700).create(&closed).and_then(|()| fs::create_dir(&at));
        made.map_err(|e| format!("cannot create {}: {e}", at.display()))?;
        let mounted = Mounted { tools: self.tools, at };
        let options = format!("nosuid,nodev,noexec,{options}");
        let at = mounted.at.as_os_str();
        let args = [OsStr::new("-o"), OsStr::new(&options), &device.path, at];
        self.run("mount", &args, &[0])?;
        Ok(mounted)
    }

    fn ext(&self, device: &Device<'t>) -> Done<()> {
        let path = device.path.as_os_str();
        // 1: it corrected something, as the replay of a journal does.
        self.run("e2fsck", &[OsStr::new("-f"), OsStr::new("-p"), path], &[0, 1])?;
        self.run("resize2fs", &[path], &[0])?;
        self.run("e2fsck", &[OsStr::new("-f"), OsStr::new("-n"), path], &[0]).map(drop)
    }

    fn ntfs(&self, device: &Device<'t>) -> Done<()> {
        let [force, info] = ["--force", "--info"].map(OsStr::new);
        let path = device.path.as_os_str();
        self.run("ntfsresize", &[force, force, path], &[0])?;
        self.run("ntfsresize", &[info, force, path], &[0]).map(drop)
    }

    fn xfs(&self, device: &Device<'t>) -> Done<()> {
        // The source disk, with the same UUID, may be mounted.
        let mounted = self.mount(device, "nouuid")?;
        self.run("xfs_growfs", &[OsStr::new("-d"), mounted.at.as_os_str()], &[0])?;
        mounted.unmount()?;
        self.run("xfs_repair", &[OsStr::new("-n"), &device.path], &[0]).map(drop)
    }

    fn btrfs(&self, device: &Device<'t>) -> Done<()> {
        self.resize_btrfs(device, "max")?;
        let check = ["check", "--readonly"].map(OsStr::new);
        self.run("btrfs", &[check[0], check[1], &device.path], &[0]).map(drop)
    }

    fn resize_btrfs(&self, device: &Device<'_>, size: &str) -> Done<()> {
        // The kernel tells Btrfs filesystems apart by their UUID alone: with another one of it
        // mounted, this would be taken for a second path to that.
        let uuid = ["-p", "-o", "value", "-s", "UUID"].map(OsStr::new);
        let [p, o, value, s, name] = uuid;
        let uuid = self.run("blkid", &[p, o, value, s, name, &device.path], &[0])?;
        if Path::new("/sys/fs/btrfs").join(&uuid).exists() {
            return Err(format!("a Btrfs with its UUID {uuid} is mounted"));
        }
        let mounted = self.mount(device, "rw")?;
        let words = ["filesystem", "resize", size].map(OsStr::new);
        let args = [words[0], words[1], words[2], mounted.at.as_os_str()];
        self.run("btrfs", &args, &[0])?;
        mounted.unmount()
    }
}

impl Session<'_> {
    fn cut(file: &Path, len: u64) -> Done<()> {
        let opened = fs::File::options().write(true).open(file);
        let cut = opened.and_then(|file| file.set_len(len).and_then(|()| file.sync_all()));
        cut.map_err(|error| format!("cannot cut {}: {error}", file.display()))
    }

    fn shrink_ext(&self, file: &Path, len: u64) -> Done<()> {
        let [force, preen, no] = ["-f", "-p", "-n"].map(OsStr::new);
        self.run("e2fsck", &[force, preen, file.as_os_str()], &[0, 1])?;
        // In sectors of 512 bytes, whatever its blocks are.
        let sectors = format!("{}s", len / 512);
        self.run("resize2fs", &[file.as_os_str(), OsStr::new(&sectors)], &[0])?;
        Self::cut(file, len)?;
        self.run("e2fsck", &[force, no, file.as_os_str()], &[0]).map(drop)
    }

    fn shrink_ntfs(&self, file: &Path, len: u64) -> Done<()> {
        let [force, size, info] = ["--force", "--size", "--info"].map(OsStr::new);
        let bytes = len.to_string();
        let args = [force, force, size, OsStr::new(&bytes), file.as_os_str()];
        self.run("ntfsresize", &args, &[0])?;
        Self::cut(file, len)?;
        self.run("ntfsresize", &[info, force, file.as_os_str()], &[0]).map(drop)
    }

    fn shrink_btrfs(&self, file: &Path, len: u64) -> Done<()> {
        let whole = Extent::new(0, fs::metadata(file).map_err(|e| e.to_string())?.len());
        let device = self.device(file, whole, 512)?;
        self.resize_btrfs(&device, &len.to_string())?;
        drop(device);
        Self::cut(file, len)?;
        let check = ["check", "--readonly"].map(OsStr::new);
        self.run("btrfs", &[check[0], check[1], file.as_os_str()], &[0]).map(drop)
    }
}

/// Ten seconds.
const UNMOUNT_TRIES: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(200);

impl Mounted<'_> {
    /// Somebody may look at every filesystem that is mounted, as programs that list disks do: it
    /// is tried again while it is busy.
    fn unmount(self) -> Done<()> {
        let session = Session { tools: self.tools };
        let mut tries = 1;
        loop {
            match session.run("umount", &[self.at.as_os_str()], &[0]) {
                Err(why) if why.contains("busy") && tries < UNMOUNT_TRIES => tries += 1,
                done => return done.map(drop),
            }
            sleep(UNMOUNT_PAUSE);
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Fails when it was unmounted before; what stays mounted keeps the folder.
        let _ = self.tools.run("umount", &[OsStr::new("--quiet"), self.at.as_os_str()]);
        let _ = fs::remove_dir(&self.at);
        let _ = self.at.parent().map(fs::remove_dir);
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        // The kernel takes it down with its last user.
        let _ = self.tools.run("losetup", &[OsStr::new("--detach"), &self.path]);
    }
}
