//! The work folder: where it is, and the folders inside it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::options::Options;
use crate::work_folder;

const MEMORY_FOLDER: &str = "/dev/shm";
const NAME: &str = "aiv-bench";
const DISK: &str = "disk";
/// Room for the disk, its second state, an image of it and its restored copy, as a share of the
/// disk's size in percent: about 45 % of the disk is allocated, and not every tool restores
/// holes.
const ROOM_PERCENT: u64 = 250;

/// A folder that only its owner may enter: the disk holds copies of this machine's settings.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
}

/// What became of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// Some three percent of it changed.
    Second,
    /// A fifth of it changed.
    Fifth,
}

impl Later {
    pub(super) const ALL: [Self; 2] = [Self::Second, Self::Fifth];

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Fifth => "fifth",
        }
    }
}

impl Place {
    /// Chooses and creates the work folder, and checks that the run will fit.
    pub(super) fn prepare(options: &Options) -> Result<Self, String> {
        let needed = (options.size_gib << 30) * ROOM_PERCENT / 100;
        let folder = options.dir.clone().unwrap_or_else(|| default_folder(needed));
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        let created = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        if let Err(e) = created
            && e.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(format!("{}: {e}", folder.display()));
        }
        check_ours(&folder)?;
        work_folder::claim(&folder)?;
        let place = Self { folder };
        place.reset_run()?;
        let secret = place.secret();
        std::fs::write(&secret, "a passphrase for measuring\n")
            .map_err(|e| format!("{}: {e}", secret.display()))?;
        let has = free_bytes(&place.folder)? + allocated_disks(&place.folder);
        if has < needed {
            let (has, needed) = (has >> 30, needed >> 30);
            let folder = place.folder.display();
            return Err(format!("{folder} has {has} GiB, a run needs {needed}; see --size-gib"));
        }
        Ok(place)
    }

    /// The disk that everything is measured with.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join(DISK).with_extension("raw")
    }

    /// Says that the disk is complete, and how it was made.
    pub(super) fn disk_marker(&self) -> PathBuf {
        self.folder.join(DISK).with_extension("json")
    }

    /// The disk some time later.
    pub(super) fn second(&self) -> PathBuf {
        self.later(Later::Second)
    }

    /// A later state of the disk.
    pub(super) fn later(&self, state: Later) -> PathBuf {
        self.folder.join(state.name()).with_extension("raw")
    }

    /// Says that this state is complete.
    pub(super) fn later_marker(&self, state: Later) -> PathBuf {
        self.folder.join(state.name()).with_extension("json")
    }

    /// A file with a passphrase.
    pub(super) fn secret(&self) -> PathBuf {
        self.folder.join("secret")
    }

    /// A folder of one tool's run.
    pub(super) fn run(&self, name: &str) -> PathBuf {
        self.folder.join("run").join(name)
    }

    /// Removes what the last run left behind.
    pub(super) fn reset_run(&self) -> Result<(), String> {
        let run = self.folder.join("run");
        match std::fs::remove_dir_all(&run) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot empty {}: {e}", run.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(failure) = self.reset_run() {
            eprintln!("bench: {failure}");
        }
    }
}

fn default_folder(needed: u64) -> PathBuf {
    let in_memory = Path::new(MEMORY_FOLDER).join(NAME);
    let has = free_bytes(Path::new(MEMORY_FOLDER)).unwrap_or(0) + allocated_disks(&in_memory);
    if has >= needed { in_memory } else { std::env::temp_dir().join(NAME) }
}

/// The default folder lies where everybody may create names.
fn check_ours(folder: &Path) -> Result<(), String> {
    let found =
        std::fs::symlink_metadata(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let own = std::fs::metadata("/proc/self").map_err(|e| format!("/proc/self: {e}"))?;
    if found.is_dir() && found.uid() == own.uid() {
        Ok(())
    } else {
        Err(format!("{} is not a folder of yours; name another with --dir", folder.display()))
    }
}

fn free_bytes(folder: &Path) -> Result<u64, String> {
    let facts = statvfs(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Of the disk and its later states, as many as are in a work folder.
fn allocated_disks(folder: &Path) -> u64 {
    let disks = Later::ALL.map(Later::name).into_iter().chain([DISK]);
    disks.map(|name| allocated(&folder.join(name).with_extension("raw"))).sum()
}

fn allocated(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |facts| facts.blocks() * 512)
}

/// Bytes a file or the files of a folder take; holes take none.
pub(super) fn stored_bytes(path: &Path) -> std::io::Result<u64> {
    let facts = std::fs::symlink_metadata(path)?;
    if !facts.is_dir() {
        return Ok(facts.len().min(facts.blocks() * 512));
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        sum += stored_bytes(&entry?.path())?;
    }
    Ok(sum)
}

/// Makes the kernel forget every file that it has in memory: only root may ask it to.
pub(super) fn forget_caches() -> Result<(), String> {
    const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
    rustix::fs::sync();
    std::fs::write(DROP_CACHES, "3").map_err(|e| format!("{DROP_CACHES}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: PathBuf) -> Options {
        Options { dir: Some(dir), ..Options::parse(&["--size-gib".into(), "1".into()]).unwrap() }
    }

    #[test]
    fn the_folder_is_private_and_what_a_run_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let left = folder.join("run/x/y");
        let place = Place::prepare(&options(folder.clone())).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        std::fs::create_dir_all(&left).unwrap();
        drop(place);
        assert!(folder.exists() && !left.exists());
    }

    #[test]
    fn a_link_is_no_work_folder() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        let failure = Place::prepare(&options(link)).unwrap_err();
        assert!(
            failure.ends_with("is not a folder of yours; name another with --dir"),
            "{failure}"
        );
    }

    #[test]
    fn holes_do_not_count_and_folders_add_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [1; 5000]).unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::File::create(folder.path().join("d/hole")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(stored_bytes(folder.path()).unwrap(), 5000);
    }
}
