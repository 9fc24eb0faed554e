//! Leases of a local folder: a locked file that counts how often it was taken.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::FILE_MODE;
use super::place::Place;
use crate::storage_name::LEASE_PREFIX;
use crate::{Lease, check_lease_name};

/// Bytes of a lease file that are looked at: more than the 20 digits a token can have.
const TOKEN_BYTES_MAX: u64 = 32;

/// The lock on the file `.aiv-lease-NAME`, and the token that was written into it.
///
/// The file stays when the lease ends: removing it would let a third party lock a new file of
/// that name while the second still waits on the old one. The kernel gives the lock back when
/// the process dies, however it dies.
#[derive(Debug)]
pub(super) struct FileLease {
    root: Arc<OwnedFd>,
    place: Place,
    file_name: String,
    file: File,
    token: u64,
}

impl FileLease {
    pub(super) fn take(root: &Arc<OwnedFd>, name: &str, place: Place) -> io::Result<Self> {
        check_lease_name(name)?;
        let file_name = format!("{LEASE_PREFIX}{name}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(root, &file_name, flags, FILE_MODE)?);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // Whatever stands there instead of a token says nothing about earlier ones.
        let token = read_token(&file)?.and_then(|before| before.checked_add(1)).unwrap_or(1);
        let text = token.to_string();
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)?;
        // A token that a power cut takes back would be given out twice.
        file.sync_all()?;
        Ok(Self { root: Arc::clone(root), place, file_name, file, token })
    }

    fn lost(&self, how: &str) -> io::Error {
        let message = format!("the lease {} was lost: {how}", self.file_name);
        io::Error::new(io::ErrorKind::PermissionDenied, message)
    }
}

impl Lease for FileLease {
    fn token(&self) -> u64 {
        self.token
    }

    fn check(&self) -> io::Result<()> {
        self.place.run(|| {
            // By its name and not through the open file: only so a file put in its place shows,
            // and a network filesystem asks the server instead of its own memory.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let now = match fs::openat(&self.root, &self.file_name, flags, Mode::empty()) {
                Ok(now) => File::from(now),
                Err(Errno::NOENT) => return Err(self.lost("its file is gone")),
                // A link, or a socket: what we locked was neither.
                Err(Errno::LOOP | Errno::NXIO) => return Err(self.lost("its file was replaced")),
                Err(e) => return Err(e.into()),
            };
            let (held, found) = (fs::fstat(&self.file)?, fs::fstat(&now)?);
            if (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino) {
                return Err(self.lost("its file was replaced"));
            }
            match read_token(&now)? {
                Some(token) if token == self.token => Ok(()),
                Some(token) => {
                    let ours = self.token;
                    Err(self.lost(&format!("it was taken over with token {token}, ours is {ours}")))
                }
                None => Err(self.lost("its file no longer holds a token")),
            }
        })
    }
}

/// The token in a lease file that was not read from yet, `None` when it holds none.
fn read_token(file: &File) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    file.take(TOKEN_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok()))
}
