//! Whether two volumes hold the same files, wherever they lie.

use std::path::Path;

use aiv_volume_io::Extent;

use super::mounted::Mounted;
use crate::{Outcome, process};

/// Compares the volume at `root` of `disk` with the one in the file `restored`: names, contents,
/// owners, modes, links, attributes, and times but those of folders. `folder` is for mounts.
pub(in super::super) fn check_files(
    disk: &Path,
    root: Extent,
    restored: &Path,
    folder: &Path,
) -> Outcome {
    let len = std::fs::metadata(restored).map_err(|e| format!("{}: {e}", restored.display()))?;
    let before = Mounted::read_only(disk, root, &folder.join("before"))?;
    let after = Mounted::read_only(restored, Extent::new(0, len.len()), &folder.join("after"))?;
    let mut command = process::command("rsync");
    command.args(["-aHAXcin", "--omit-dir-times", "--delete"]);
    command.args([before.folder(), after.folder()].map(|folder| folder.join("")));
    let output = command.output().map_err(|e| format!("cannot start rsync: {e}"))?;
    process::expect_success("rsync", output.status)?;
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(first) = said.lines().next() {
        return Err(format!("a file is not what was restored: {first}"));
    }
    before.unmount()?;
    after.unmount()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(tree: &Path, at: &Path) {
        std::fs::File::create_new(at).unwrap().set_len(4 << 20).unwrap();
        let mut command = process::command("mkfs.ext4");
        process::run(command.args(["-q", "-d"]).args([tree, at])).unwrap();
    }

    #[test]
    fn volumes_of_the_same_files_are_the_same_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("tree/below")).unwrap();
        std::fs::write(path("tree/below/file"), [1; 5000]).unwrap();
        volume(&path("tree"), &path("one"));
        volume(&path("tree"), &path("two"));
        let whole = Extent::new(0, 4 << 20);
        let check = |other: &str| check_files(&path("one"), whole, &path(other), folder.path());
        assert_eq!(check("two"), Ok(()));

        let file = std::fs::File::options().write(true).open(path("tree/below/file")).unwrap();
        let then = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[2], 4999).unwrap();
        file.set_modified(then).unwrap();
        volume(&path("tree"), &path("three"));
        let failure = check("three").unwrap_err();
        assert!(failure.ends_with("below/file"), "{failure}");
    }
}
