//! Volumes in files, loop mounts, and other people's tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_volume_io::ReadAt;
use tempfile::TempDir;

/// A volume in a sparse file, in a folder of its own.
pub(crate) struct Volume {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
}

impl Volume {
    pub(crate) fn new(len: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        File::create(&path).unwrap().set_len(len).unwrap();
        Self { dir, path }
    }

    /// Runs `tool ARGUMENTS FILE`.
    pub(crate) fn made_by(len: u64, tool: &str, arguments: &str) -> Self {
        let volume = Self::new(len);
        run(tool, &volume.with_path(arguments));
        volume
    }

    /// The words of `arguments`, then the path.
    pub(crate) fn with_path<'a>(&'a self, arguments: &'a str) -> Vec<&'a str> {
        let mut words: Vec<&str> = arguments.split_whitespace().collect();
        words.push(self.path());
        words
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn open(&self) -> FileVolume {
        FileVolume::open(&self.path)
    }

    /// A copy of the whole volume, holes kept.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = Self::new(0);
        run("cp", &["--sparse=always", self.path(), copy.path()]);
        copy
    }

    pub(crate) fn set_len(&self, len: u64) {
        File::options().write(true).open(&self.path).unwrap().set_len(len).unwrap();
    }

    pub(crate) fn patch(&self, offset: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    /// Makes a byte what it was not, whatever it was.
    pub(crate) fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.open().read_exact_at(&mut byte, offset).unwrap();
        self.patch(offset, &[!byte[0]]);
    }
}

/// A file as a source, which counts what is read from it.
pub(crate) struct FileVolume {
    file: File,
    len: u64,
    bytes_read: AtomicU64,
}

impl FileVolume {
    fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { file, len, bytes_read: AtomicU64::new(0) }
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

impl ReadAt for FileVolume {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes_read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(out, offset)
    }
}

/// A mounted volume; unmounted, and its loop device given back, when dropped.
pub(crate) struct Mounted {
    dir: TempDir,
}

impl Mounted {
    pub(crate) fn new(volume: &Volume, options: &str) -> Self {
        Self::with(&["-o", &format!("loop,{options}"), volume.path()])
    }

    /// Mounts with a driver that the kernel would not choose itself.
    pub(crate) fn of_type(driver: &str, volume: &Volume, options: &str) -> Self {
        Self::with(&["-t", driver, "-o", &format!("loop,{options}"), volume.path()])
    }

    /// Mounts a device that is there already.
    pub(crate) fn of_device(device: &str, options: &str) -> Self {
        Self::with(&["-o", options, device])
    }

    fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments = [arguments, &[dir.path().to_str().unwrap()]].concat();
        // The kernel may still be busy with closing another filesystem of this identity, which
        // was unmounted just now; it then says that one exists.
        for _ in 0..1200 {
            let output = try_run("mount", &arguments);
            if output.status.success() {
                return Self { dir };
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(errors.contains("File exists"), "mount {arguments:?}: {output:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("mount {arguments:?}: another filesystem of this identity stays");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child another test is about to start holds this test's open files for a moment.
        for _ in 0..1500 {
            if try_run("umount", &[self.dir.path().to_str().unwrap()]).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(std::thread::panicking(), "{} stays busy", self.dir.path().display());
    }
}

/// Runs a tool that must succeed and returns what it printed. A missing tool is a failure.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = try_run(tool, arguments);
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a tool whatever its exit code.
pub(crate) fn try_run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        // Administrators' tools, where only root's shell looks for them; plain words.
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{tool} is needed: {error}"))
}

/// Contents of files by their path.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All regular files below `root`, by path relative to it. `lost+found` is left out.
pub(crate) fn files_below(root: &Path) -> Files {
    let mut files = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("lost+found") {
                continue;
            }
            if path.is_dir() {
                todo.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Bytes that are the same for the same seed, and never zero.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend((state | 0x0101_0101_0101_0101).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
