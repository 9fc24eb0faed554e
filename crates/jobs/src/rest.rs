//! Whether a source that nobody was seen to write to was written to all the same.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aiv_backup_engine::Hold;
use aiv_volume_io::device;

use crate::error::Error;

/// The files and devices a source is made of, as they were when it was opened. Who writes to them
/// past everything that shows who uses a disk is found here, when all was read: a program with the
/// file open, a filesystem that was mounted meanwhile, another mount namespace.
pub(crate) struct AtRest<'a> {
    root: &'a Path,
    seen: Vec<(PathBuf, Seen)>,
}

/// What of a file or device is another whenever somebody wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Device and inode; length and time of the last write.
    File([u64; 2], (u64, i64, i64)),
    /// What the kernel counted of writes.
    Device(Vec<u64>),
    /// Nobody tells.
    Nothing,
}

impl<'a> AtRest<'a> {
    /// Takes down what `made_of` is like. `root` is where `/sys` is found.
    pub(crate) fn of(root: &'a Path, made_of: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| {
            // What others have written and the kernel still holds would be counted when it goes to
            // the medium, though it is what we read from the beginning.
            let is_device = |found: Metadata| found.file_type().is_block_device();
            if fs::metadata(path).is_ok_and(is_device) {
                let _ = File::open(path).and_then(|device| device.sync_all());
            }
            (path.clone(), Seen::at(root, path))
        };
        Self { root, seen: made_of.iter().map(look).collect() }
    }
}

impl Hold for AtRest<'_> {
    fn release(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let written = |(path, before): &&(PathBuf, Seen)| match (before, Seen::at(self.root, path))
        {
            (Seen::File(id, then), Seen::File(id_now, now)) => *id == id_now && *then != now,
            (Seen::Device(then), Seen::Device(now)) => *then != now,
            // Another file of the name is not what was read.
            _ => false,
        };
        match self.seen.iter().find(written) {
            Some((path, _)) => Err(Error::Changed { path: path.clone() }.into()),
            None => Ok(()),
        }
    }

    fn keeps(&self) -> bool {
        false
    }
}

impl Seen {
    fn at(root: &Path, path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(file) if file.is_file() => {
                let times = (file.size(), file.mtime(), file.mtime_nsec());
                Self::File([file.dev(), file.ino()], times)
            }
            Ok(_) => device::writes_to(root, path).map_or(Self::Nothing, Self::Device),
            Err(_) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_at_rest_until_somebody_writes_to_it_or_cuts_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, other) = (dir.path().join("a.raw"), dir.path().join("b.raw"));
        let anew = || {
            fs::write(&file, "content").expect("written");
            fs::write(&other, "other").expect("written");
            // Of two writes between ticks of its clock a filesystem shows one.
            std::thread::sleep(Duration::from_millis(20));
            AtRest::of(Path::new("/"), &[other.clone(), file.clone()])
        };
        let rest = anew();
        fs::read(&file).expect("read");
        assert!(rest.release().is_ok() && !rest.keeps());
        let open = || fs::File::options().append(true).open(&file).expect("there");
        let changes: [&dyn Fn(); 3] = [
            &|| fs::write(&file, "CONTENT").expect("written"),
            &|| open().set_len(3).expect("cut"),
            &|| fs::write(&other, "OTHER").expect("written"),
        ];
        for (change, which) in changes.into_iter().zip([&file, &file, &other]) {
            let rest = anew();
            change();
            let error = rest.release().expect_err("written to").to_string();
            assert!(error.contains(&which.display().to_string()), "{error}");
        }
    }

    #[test]
    fn another_file_in_the_place_of_one_that_is_read_does_not_matter() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, other) = (dir.path().join("a.raw"), dir.path().join("b.raw"));
        fs::write(&file, "content").expect("written");
        fs::write(&other, "others").expect("written");
        let rest = AtRest::of(Path::new("/"), &[file.clone(), "/dev/null".into()]);
        fs::rename(&other, &file).expect("renamed");
        assert!(rest.release().is_ok());
        fs::remove_file(&file).expect("removed");
        assert!(rest.release().is_ok());
    }
}
