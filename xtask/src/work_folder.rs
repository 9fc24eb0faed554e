//! Folders that commands empty or write over, which somebody may have named by mistake.

use std::fs;
use std::path::Path;

use crate::Outcome;

/// A file that says that the folder is one of these.
const MARK: &str = ".aiv-work-folder";

/// Marks `folder`, which exists and is empty or marked before; any other is refused, and nothing
/// in it touched.
pub(crate) fn claim(folder: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mark = folder.join(MARK);
    if !mark.exists() && fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let shown = folder.display();
        return Err(format!(
            "{shown} holds files that are not this command's and would be lost: name a folder \
             that is empty or not there yet"
        ));
    }
    fs::write(&mark, "cargo xtask empties this folder\n").map_err(failed)
}

/// Makes `folder` an empty one that is marked, parents included; see [`claim`].
pub(crate) fn emptied(folder: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    claim(folder)?;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A stop in between must not make the rest somebody else's.
        if entry.file_name() == MARK {
            continue;
        }
        let removed = match entry.file_type().map_err(failed)?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        fs::read_dir(folder).unwrap().map(|e| name(e).into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_with_files_of_somebody_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter"), "dear").unwrap();
        for refused in [claim(folder.path()), emptied(folder.path())] {
            let refused = refused.unwrap_err();
            assert!(refused.contains("name a folder that is empty"), "{refused}");
        }
        assert_eq!(names(folder.path()), ["letter"]);
    }

    #[test]
    fn a_folder_that_was_made_for_it_is_emptied_each_time() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("new/one");
        for _ in 0..2 {
            emptied(&folder).unwrap();
            assert_eq!(names(&folder), [MARK]);
            fs::create_dir_all(folder.join("run/deep")).unwrap();
            fs::write(folder.join("disk.img"), "bytes").unwrap();
        }
        claim(&folder).unwrap();
        assert_eq!(names(&folder).len(), 3);
    }

    #[test]
    fn what_a_link_points_to_is_left_alone() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("letter"), "dear").unwrap();
        emptied(folder.path()).unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
        emptied(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [MARK]);
        assert_eq!(names(other.path()), ["letter"]);
    }
}
