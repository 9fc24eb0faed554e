//! The program, and the disks, loop devices and mounts to run it on.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How a run of `aiv` ended.
pub(crate) struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.stdout, self.stderr));
        assert!(value.is_object(), "{value}");
        assert_eq!(self.stdout.lines().count(), 1, "one object on one line");
        value
    }

    /// Status, `error.code` and `error.message`.
    pub(crate) fn error(&self) -> (i32, String, String) {
        let error = &self.json()["error"];
        let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(error.is_object(), "no failure: {} {}", self.stdout, self.stderr);
        assert!(!word("hint").is_empty(), "every failure has a next step: {error}");
        (self.status, word("code"), word("message"))
    }

    /// Asserts how the run ended; prints what it said otherwise.
    pub(crate) fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts a failure and returns its message.
    pub(crate) fn failed(&self, status: i32, code: &str) -> String {
        let (found, found_code, message) = self.error();
        assert_eq!((found, found_code.as_str()), (status, code), "{message}");
        message
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_aiv"))
}

/// Runs `aiv`.
pub(crate) fn aiv<S: AsRef<OsStr>>(args: &[S]) -> Run {
    finished(program().args(args).stdin(Stdio::null()).output().unwrap())
}

/// Runs `aiv` with `--json`.
pub(crate) fn aiv_json<S: AsRef<OsStr>>(args: &[S]) -> Run {
    finished(program().arg("--json").args(args).stdin(Stdio::null()).output().unwrap())
}

/// Starts `aiv` with `--json`.
pub(crate) fn start<S: AsRef<OsStr>>(args: &[S]) -> Child {
    let (out, err) = (Stdio::piped(), Stdio::piped());
    program().arg("--json").args(args).stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap()
}

pub(crate) fn wait(child: Child) -> Run {
    finished(child.wait_with_output().unwrap())
}

fn finished(output: std::process::Output) -> Run {
    Run {
        status: output.status.code().expect("ended by itself"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Runs a tool that must be there and succeed.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) const MIB: u64 = 1 << 20;

/// Bytes that do not compress and do not repeat; another seed gives others.
pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(usize::try_from(len).unwrap()).collect()
}

/// A temporary folder with room for disks and a folder of images.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.arg(name)
    }

    /// A disk of noise without a partition table.
    pub(crate) fn disk(&self, name: &str, len: u64) -> String {
        let seed = name.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
        self.write(name, &noise(len, seed))
    }

    /// Backs `source` up into the folder `images` and returns the path of the image.
    pub(crate) fn back_up(&self, source: &str) -> PathBuf {
        let images = self.arg("images");
        let run = aiv_json(&["backup", source, "--to", images.as_str()]).ended(0);
        PathBuf::from(run.json()["images"][0]["image"].as_str().unwrap())
    }

    /// A small image of noise.
    pub(crate) fn image(&self) -> PathBuf {
        let disk = self.disk("disk.raw", 2 * MIB);
        self.back_up(&disk)
    }

    /// Names in the folder of images, temporary files and all, without leases and catalogue.
    pub(crate) fn images(&self) -> Vec<String> {
        names_in(&self.path("images"))
    }
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with(".aiv-")).collect();
    names.sort();
    names
}

/// Waits until a backup into `folder` is under way.
pub(crate) fn wait_for_part(folder: &Path) {
    for _ in 0..6000 {
        if names_in(folder).iter().any(|name| name.ends_with(".part")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no backup began in {}", folder.display());
}

/// Waits until somebody listens at a socket. Its file is there a moment before that.
pub(crate) fn wait_for_listener(socket: &Path) {
    let is_it = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The flag of those that listen.
        words.get(3) == Some(&"00010000") && words.get(7).copied() == socket.to_str()
    };
    for _ in 0..3000 {
        let sockets = fs::read("/proc/net/unix").unwrap();
        if String::from_utf8_lossy(&sockets).lines().any(is_it) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody listens at {}", socket.display());
}

/// A file shown as a device, until dropped.
pub(crate) struct Loop(PathBuf);

impl Loop {
    pub(crate) fn new(file: &Path, options: &[&str]) -> Self {
        let mut args = vec!["--find", "--show"];
        args.extend(options);
        args.push(file.to_str().unwrap());
        Self(run("losetup", &args).into())
    }

    /// The part of a disk file a partition lies on.
    pub(crate) fn part(file: &Path, (start, len): (u64, u64), read_only: bool) -> Self {
        let (start, len) = (start.to_string(), len.to_string());
        let mut options = vec!["--offset", start.as_str(), "--sizelimit", len.as_str()];
        options.extend(read_only.then_some("--read-only"));
        Self::new(file, &options)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn arg(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    /// Whoever else looks at the device keeps it, and what was written to it from its file. It
    /// would be a second disk beside the next device on that file, which a restore warns of.
    fn drop(&mut self) {
        run("blockdev", &["--flushbufs", self.arg()]);
        let name = self.0.file_name().unwrap().to_str().unwrap();
        let file = format!("/sys/block/{name}/loop/backing_file");
        let shown = fs::read(&file).unwrap();
        run("losetup", &["--detach", self.arg()]);
        for _ in 0..1000 {
            if fs::read(&file).ok().as_ref() != Some(&shown) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A failed test drops its devices as well.
        assert!(std::thread::panicking(), "{} stays attached", self.0.display());
    }
}

/// A mounted filesystem, until dropped.
pub(crate) struct Mount(tempfile::TempDir);

impl Mount {
    pub(crate) fn new(device: &str, options: &str) -> Self {
        Self::with(&["-o", options, device])
    }

    /// A filesystem in memory of `bytes`.
    pub(crate) fn memory(bytes: u64) -> Self {
        Self::with(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
    }

    /// One whose filesystem is a program.
    pub(crate) fn program(program: &str, device: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        run(program, &[device, at.path().to_str().unwrap()]);
        Self(at)
    }

    fn with(args: &[&str]) -> Self {
        let at = tempfile::tempdir().unwrap();
        let mut args = args.to_vec();
        args.push(at.path().to_str().unwrap());
        run("mount", &args);
        Self(at)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn arg(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Mount {
    /// Until a program that another test starts is under way, the new process has every file open
    /// that any test had, closed meanwhile or not: a mount is busy that nobody uses.
    fn drop(&mut self) {
        for _ in 0..3000 {
            let mut umount = Command::new("umount");
            let tried = umount.arg(self.path()).env("LC_ALL", "C").output().unwrap();
            if !String::from_utf8_lossy(&tried.stderr).contains("busy") {
                assert!(tried.status.success(), "umount: {tried:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} stays busy", self.path().display());
    }
}
