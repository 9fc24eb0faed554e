//! Loop devices, mounts and tools of the machine the tests run on. Everything set up here is
//! taken down when its value is dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Output of a tool; its absence or failure fails the test.
pub(crate) fn run<A: AsRef<OsStr>>(tool: &str, arguments: &[A]) -> String {
    let output = Command::new(tool).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{tool} is needed: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} failed: {text} {errors}");
    text
}

/// A loop device on a file.
pub(crate) struct Loop {
    pub(crate) path: PathBuf,
}

impl Loop {
    pub(crate) fn on(file: &Path, options: &[&str]) -> Self {
        let mut arguments: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        arguments.extend(["--find", "--show"].map(OsStr::new));
        arguments.push(file.as_os_str());
        Self { path: run("losetup", &arguments).into() }
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &[OsStr::new("--detach"), self.path.as_os_str()]);
    }
}

/// A mounted filesystem.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
}

impl Mounted {
    pub(crate) fn new(arguments: &[&str], source: &Path, at: &Path) -> Self {
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.extend([source.as_os_str(), at.as_os_str()]);
        run("mount", &all);
        Self { path: at.to_path_buf() }
    }

    pub(crate) fn tmpfs(size: &str, at: &Path) -> Self {
        let options = format!("size={size}");
        Self::new(&["-t", "tmpfs", "-o", &options], Path::new("aiv-test"), at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The kernel detaches a loop device a moment after it was told to, and its file keeps
        // the filesystem below it busy until then.
        for _ in 0..100 {
            let umount = Command::new("umount").arg("--quiet").arg(&self.path).output().unwrap();
            if umount.status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        run("umount", &[&self.path]);
    }
}

/// A folder on an ext4 of 512 MiB that lives in memory: a disk whose speed does not depend on
/// who else uses the machine.
pub(crate) struct FastDisk {
    // In the order in which they are taken down.
    ext4: Mounted,
    _device: Loop,
    _memory: Mounted,
    _folder: tempfile::TempDir,
}

impl FastDisk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (at, image) = (folder.path().join("mnt"), folder.path().join("memory/image"));
        std::fs::create_dir(&at).unwrap();
        std::fs::create_dir(folder.path().join("memory")).unwrap();
        let memory = Mounted::tmpfs("600m", &folder.path().join("memory"));
        sparse(&image, 512 << 20);
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        let device = Loop::on(&image, &[]);
        let ext4 = Mounted::new(&[], &device.path, &at);
        Self { ext4, _device: device, _memory: memory, _folder: folder }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.ext4.path
    }
}

/// A sparse file.
pub(crate) fn sparse(path: &Path, len: u64) {
    File::create_new(path).unwrap().set_len(len).unwrap();
}

/// Bytes of a file that are in the page cache.
pub(crate) fn resident(path: &Path) -> u64 {
    let options = ["--bytes", "--noheadings", "--output", "RES"].map(OsStr::new);
    let arguments: Vec<&OsStr> = options.into_iter().chain([path.as_os_str()]).collect();
    run("fincore", &arguments).parse().unwrap()
}

/// Takes a file whose data is on the medium out of the page cache.
pub(crate) fn evict(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
    let mut input = std::ffi::OsString::from("if=");
    input.push(path);
    run(
        "dd",
        &[&input, OsStr::new("iflag=nocache"), OsStr::new("count=0"), OsStr::new("status=none")],
    );
    assert_eq!(resident(path), 0, "could not be evicted");
}
