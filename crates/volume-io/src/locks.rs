//! Who has a virtual disk open for writing.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};

use crate::{Error, Result};

/// QEMU locks byte 100 + N of an image for reading while it has permission N: 1 is to write.
const MAY_WRITE: i64 = 101;

/// Whether a program of QEMU's, a running machine for example, has the image file at `path` open
/// for writing. Asks for the lock it holds then; takes none. `false` for what is no regular file,
/// and on filesystems without such locks.
///
/// # Errors
/// [`Error::Path`] when the file cannot be opened or asked.
pub fn is_written_by_qemu(path: &Path) -> Result<bool> {
    let examine = || Error::path("examine", path);
    if !fs::metadata(path).map_err(examine())?.is_file() {
        return Ok(false);
    }
    let file = File::open(path).map_err(examine())?;
    // Would somebody who wants the byte for himself have to wait? The constants are small.
    let word = |constant: i32| i16::try_from(constant).unwrap_or_default();
    let mut asked = flock {
        l_type: word(F_WRLCK),
        l_whence: word(SEEK_SET),
        l_start: MAY_WRITE,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked)) {
        Ok(_) => Ok(asked.l_type != word(F_UNLCK)),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOLCK) => Ok(false),
        Err(e) => Err(examine()(io::Error::from(e))),
    }
}
