//! Filesystems in files, loop mounts, and other people's tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use aiv_testkit::disks::Content;
use tempfile::TempDir;

/// Runs a tool that must succeed and returns what it printed. A missing tool is a failure.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = try_run(tool, arguments);
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        // Administrators' tools, where only root's shell looks for them; plain words.
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{tool} is needed: {error}"))
}

/// A filesystem in a part of a file, mounted; unmounted, and its loop device given back, when
/// dropped.
pub(crate) struct Mounted {
    dir: TempDir,
}

impl Mounted {
    pub(crate) fn new(file: &Path, at: u64, len: u64, options: &str) -> Self {
        Self::of_type("auto", file, at, len, options)
    }

    /// Mounts with a driver that the kernel would not choose itself.
    pub(crate) fn of_type(driver: &str, file: &Path, at: u64, len: u64, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("loop,offset={at},sizelimit={len},{options}");
        let place = dir.path().to_str().unwrap();
        run("mount", &["-t", driver, "-o", &options, file.to_str().unwrap(), place]);
        Self { dir }
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

/// Contents of all regular files below a folder, by path relative to it.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn files_below(root: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().to_path_buf();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// Fills a mounted filesystem with files of many sizes and deletes every third, so that its
/// free space is fragmented and full of what was deleted.
pub(crate) fn make_files(root: &Path) {
    for folder in 0..4u64 {
        let folder_path = root.join(format!("folder-{folder}"));
        fs::create_dir(&folder_path).unwrap();
        for file in 0..24u64 {
            let len = [0, 37, 4096, 5000, 40_000, 300_000][usize::try_from(file % 6).unwrap()];
            let seed = folder * 100 + file;
            let content = if file % 2 == 0 { Content::Text(seed) } else { Content::Random(seed) };
            fs::write(folder_path.join(format!("file-{file}")), content.bytes(len)).unwrap();
        }
    }
    sync(root);
    for folder in 0..4 {
        for file in (0..24).step_by(3) {
            fs::remove_file(root.join(format!("folder-{folder}/file-{file}"))).unwrap();
        }
    }
    sync(root);
}

fn sync(root: &Path) {
    run("sync", &["-f", root.to_str().unwrap()]);
}

/// Noise over the whole file, so that nothing that is not written reads as zeros.
pub(crate) fn fill_with_noise(file: &File, len: u64) {
    const PART: usize = 1 << 20;
    for at in (0..len).step_by(PART) {
        let count = usize::try_from((len - at).min(PART as u64)).unwrap();
        file.write_all_at(&Content::Random(at).bytes(count), at).unwrap();
    }
}

/// An ext4 filesystem of 4 MiB with blocks of 1 KiB, a few files, and noise in its free space.
pub(crate) fn small_ext4() -> Vec<u8> {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        const LEN: u64 = 4 << 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let file = File::create_new(&path).unwrap();
        fill_with_noise(&file, LEN);
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for n in 0..20 {
            let content = Content::Mixed(n).bytes(3000 * usize::try_from(n).unwrap());
            fs::write(tree.join(format!("file-{n}")), content).unwrap();
        }
        let (path, tree) = (path.to_str().unwrap(), tree.to_str().unwrap());
        run("mkfs.ext4", &["-q", "-b", "1024", "-E", "nodiscard", "-d", tree, path]);
        fs::read(path).unwrap()
    })
    .clone()
}
