//! A disk with a partition of ext4, made by the tools people have, and points of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aiv_backup_engine::{BackupOptions, Clock};
use aiv_jobs::{BackupJob, Hooks, NewKey, OpenOptions, SealJob, World};
use aiv_keys::{Credential, Passphrase};
use aiv_volume_io::Job;

pub(crate) const HELLO: &str = "hello from the image\n";
/// A name that would clear a screen, were it printed as it is.
pub(crate) const HOSTILE: &str = "\u{1b}[2Jred";

/// This machine, where every question about the time takes an hour.
pub(crate) struct Outside {
    started: Instant,
    given: AtomicU64,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), given: AtomicU64::new(0) }
    }
}

impl Clock for Outside {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl World for Outside {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn clock(&self) -> &dyn Clock {
        self
    }

    fn now_unix_ms(&self) -> u64 {
        1_790_000_000_000 + self.given.fetch_add(1, Ordering::Relaxed) * 3_600_000
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(8) {
            let next = self.given.fetch_add(1, Ordering::Relaxed);
            let next = next.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
        Ok(())
    }

    fn guard(&self, _: Duration, _: &[PathBuf]) -> Command {
        Command::new("false")
    }
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A temporary folder with a disk and its images.
pub(crate) struct Made {
    dir: tempfile::TempDir,
    world: Outside,
}

impl Made {
    pub(crate) fn new() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap(), world: Outside::new() };
        let tree = made.path("tree");
        fs::create_dir_all(tree.join("etc/deep")).unwrap();
        fs::write(tree.join("etc/hello.txt"), HELLO).unwrap();
        fs::write(tree.join("etc/deep/other.conf"), "a = b\n").unwrap();
        fs::write(tree.join(HOSTILE), [0; 3000]).unwrap();
        std::os::unix::fs::symlink("etc/hello.txt", tree.join("link")).unwrap();
        let (volume, disk) = (made.arg("volume"), made.arg("disk.raw"));
        run("truncate", &["-s", "15M", &volume]);
        run("mkfs.ext4", &["-q", "-L", "files", "-d", &made.arg("tree"), &volume]);
        let script = "truncate -s 16M \"$2\" && echo 'start=2048,size=30720,type=83' | \
                      sfdisk -q \"$2\" && dd if=\"$1\" of=\"$2\" bs=1M seek=1 conv=notrunc status=none";
        run("sh", &["-c", script, "sh", &volume, &disk]);
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.path("images")
    }

    /// Adds a file to the filesystem on the disk.
    pub(crate) fn change(&self) {
        self.add("new", "x".repeat(200_000).as_bytes());
    }

    /// Adds a file of this content.
    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        fs::write(self.path("new"), content).unwrap();
        let write = format!("write {} {name}", self.arg("new"));
        let disk = format!("{}?offset=1048576", self.arg("disk.raw"));
        run("debugfs", &["-w", "-R", &write, &disk]);
    }

    /// A disk without partitions: an encrypted ext4 with the same files. Its passphrase is hard to
    /// guess, and quick to try.
    pub(crate) fn encrypted(&self, passphrase: &str) -> PathBuf {
        let (disk, key) = (self.arg("locked.raw"), self.arg("key"));
        fs::write(&key, passphrase).unwrap();
        run("cp", &[&self.arg("volume"), &disk]);
        // The tool wants twice as much room as it takes for its header.
        run("truncate", &["-s", "+4M", &disk]);
        let words = "reencrypt --encrypt --type luks2 --reduce-device-size 4M -q --pbkdf pbkdf2 \
                     --pbkdf-force-iterations 1000 --key-file";
        let words = words.split_whitespace().chain([key.as_str(), &disk]);
        run("cryptsetup", &words.collect::<Vec<_>>());
        run("truncate", &["-s", "-2M", &disk]);
        self.path("locked.raw")
    }

    /// Makes a point, sealed with a passphrase or not, and returns its file.
    pub(crate) fn back_up(&self, passphrase: Option<&str>) -> PathBuf {
        self.back_up_disk(&self.path("disk.raw"), passphrase)
    }

    /// The same of another disk.
    pub(crate) fn back_up_disk(&self, disk: &Path, passphrase: Option<&str>) -> PathBuf {
        let seal = passphrase.map(|text| SealJob {
            mode: None,
            padding: false,
            opened: Vec::new(),
            begun: Vec::new(),
            new: NewKey::Credential(Credential::Passphrase(Passphrase::new(text).unwrap())),
            recovery_code: None,
        });
        let job = BackupJob {
            name: None,
            source_id: None,
            open: OpenOptions::default(),
            marks: Vec::new(),
            options: BackupOptions::default(),
            rate_limit: None,
            still: None,
            hooks: Hooks::default(),
            seal,
        };
        let sources = [disk.to_owned()];
        let done = job.run(&sources, &self.images(), &self.world, Job::silent()).unwrap();
        let one = done.results.into_iter().next().unwrap().unwrap();
        self.images().join(one.report.image)
    }
}
