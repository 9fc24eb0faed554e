//! A finished file gets its name.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

/// Gives the finished file `part` in `folder` the name `name`, unless that is taken.
///
/// Where the filesystem cannot promise that of a rename (NFS, most of FUSE), a hard link is made,
/// which is refused just as atomically. Where there are no hard links either, it is only looked
/// whether the name is taken: somebody who takes it in that moment loses his file.
///
/// # Errors
/// Those of the system; `part` is as it was then.
pub fn give_name(folder: impl AsFd, part: &[u8], name: &[u8]) -> io::Result<()> {
    let folder = folder.as_fd();
    match renameat_with(folder, part, folder, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        renamed => return Ok(renamed?),
    }
    match linkat(folder, part, folder, name, AtFlags::empty()) {
        Ok(()) => {
            // If this fails, too, the file is complete under both names.
            let removed = unlinkat(folder, part, AtFlags::empty());
            return removed.map_err(|error| {
                let _ = unlinkat(folder, name, AtFlags::empty());
                error.into()
            });
        }
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(renameat(folder, part, folder, name)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) => Err(error.into()),
    }
}
