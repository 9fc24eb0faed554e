//! Which filesystems have to be frozen for a source, and whether that is safe.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aiv_volume_io::device::{self, Filesystem, Use};

use crate::error::{Refusal, Result};

/// What has to be frozen, and what goes on changing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// A mount point of each filesystem.
    pub(crate) mounts: Vec<PathBuf>,
    /// Swap in use on the source, in words.
    pub(crate) swap: Vec<String>,
    /// Everything else that could write and will not, in words: mounts, as facts name them.
    pub(crate) held: BTreeSet<String>,
}

/// What to freeze for a source that `made_of` devices and files show the bytes of. Nothing where
/// nobody could write to it.
pub(crate) fn choose(root: &Path, made_of: &[PathBuf]) -> Result<Choice> {
    let (mut mounts, mut swap, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for part in made_of {
        for filesystem in device::written_filesystems(root, part)? {
            mounts.insert(safe_to_freeze(filesystem)?);
        }
        let uses = device::uses_of(root, part)?;
        for found in uses {
            match found {
                Use::Swap { .. } => swap.insert(found.to_string()),
                Use::Mounted { .. } => held.insert(found.to_string()),
                _ => false,
            };
        }
        for file in written_by_us(root) {
            if device::holds_path(root, part, &file).unwrap_or(false) {
                return Err(Refusal::WritesThere { file }.into());
            }
        }
    }
    let (mounts, swap) = (mounts.into_iter().collect(), swap.into_iter().collect());
    Ok(Choice { mounts, swap, held })
}

/// The mount point to freeze a filesystem by.
fn safe_to_freeze(filesystem: Filesystem) -> Result<PathBuf> {
    let Filesystem { path, mounts, elsewhere, .. } = filesystem;
    let first = mounts.first().cloned().unwrap_or_default();
    if mounts.iter().any(|mount| mount == Path::new("/")) {
        return Err(Refusal::FreezesRoot.into());
    }
    if !elsewhere.is_empty() {
        return Err(Refusal::OnSeveral { mount: first, elsewhere: elsewhere.join(", ") }.into());
    }
    path.ok_or_else(|| Refusal::Covered { mount: first }.into())
}

/// Files this process has open for writing: reports, redirected messages.
fn written_by_us(root: &Path) -> Vec<PathBuf> {
    let open = root.join("proc/self/fd");
    let Ok(entries) = fs::read_dir(&open) else { return Vec::new() };
    let written = |name: &std::ffi::OsString| {
        let info = fs::read_to_string(root.join("proc/self/fdinfo").join(name)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        let access = u32::from_str_radix(flags, 8).ok()? & 3;
        let file = fs::read_link(open.join(name)).ok()?;
        (access != 0 && file.is_absolute() && file.is_file()).then_some(file)
    };
    entries.flatten().filter_map(|entry| written(&entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn mounted(mounts: &[&str], elsewhere: &[&str]) -> Filesystem {
        Filesystem {
            path: mounts.last().map(PathBuf::from),
            mounts: mounts.iter().map(PathBuf::from).collect(),
            kind: "ext4".to_owned(),
            devices: vec!["sda1".to_owned()],
            elsewhere: elsewhere.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn refused(filesystem: Filesystem) -> Refusal {
        match safe_to_freeze(filesystem) {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_root_filesystem_is_never_frozen_however_it_is_mounted_besides() {
        assert_eq!(refused(mounted(&["/"], &[])), Refusal::FreezesRoot);
        assert_eq!(refused(mounted(&["/mnt/whole", "/", "/srv"], &[])), Refusal::FreezesRoot);
    }

    #[test]
    fn a_filesystem_is_frozen_as_a_whole_and_where_it_can_be_reached() {
        let several = refused(mounted(&["/pool"], &["sdb", "sdc"]));
        assert_eq!(several.to_string(), "the filesystem at /pool lies on sdb, sdc too");
        let covered = Filesystem { path: None, ..mounted(&["/data"], &[]) };
        assert_eq!(refused(covered), Refusal::Covered { mount: "/data".into() });
        let at = safe_to_freeze(mounted(&["/data", "/srv/data"], &[])).expect("safe");
        assert_eq!(at, Path::new("/srv/data"));
    }
}
