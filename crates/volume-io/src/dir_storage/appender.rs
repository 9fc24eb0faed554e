use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, Advice};
use rustix::io::Errno;

use super::given_up;
use super::place::Place;
use crate::page_cache::WriteBehind;
use crate::read_at::check_range;
use crate::{AppendFile, Extent, ReadAt};

/// Unit in which filesystems share storage: the block of all common ones. Where blocks are
/// larger the kernel copies instead.
const SHARED_BLOCK: usize = 4096;

/// Fewer bytes than this are written: sharing costs the filesystem an entry for each run.
const SHARED_BYTES_MIN: usize = 64 << 10;

/// A file being written.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    place: Place,
    len: u64,
    failed: bool,
    behind: WriteBehind,
}

impl Appender {
    pub(super) fn new(file: File, place: Place) -> Self {
        Self { file, place, len: 0, failed: false, behind: WriteBehind::default() }
    }

    /// Cuts `file` to `len` bytes, which it has at least, and makes them durable. They are taken
    /// out of the page cache: what a failed write left there would be read back as if it were
    /// on the medium, and a second sync would not report it.
    pub(super) fn reopened(file: File, len: u64, place: Place) -> io::Result<Self> {
        file.set_len(len)?;
        file.sync_all()?;
        // Advice: where a filesystem does not take it, its cache is all there is to read.
        let _ = fs::fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Self { file, place, len, failed: false, behind: WriteBehind::default() })
    }

    fn check_usable(&self) -> io::Result<()> {
        if self.failed { Err(given_up("an earlier write or sync of this file")) } else { Ok(()) }
    }

    /// Whether more may be appended. A file that is no longer as long as we made it was cut, or
    /// written to, by somebody who has the lease that we lost: what we append would damage it.
    fn check_appendable(&mut self) -> io::Result<()> {
        self.check_usable()?;
        if self.file.metadata()?.len() != self.len {
            self.failed = true;
            return Err(io::Error::other("somebody else writes this file, too"));
        }
        Ok(())
    }

    fn grew(&mut self, count: usize) {
        self.behind.wrote(&self.file, Extent::new(self.len, count as u64));
        self.len += count as u64;
    }

    /// Lets the kernel append `count` bytes of `source`, as shared storage if it can. Returns
    /// how many it took; the caller has the bytes and writes what is missing.
    fn share(&mut self, source: &File, offset: u64, count: usize) -> io::Result<usize> {
        let mut done = 0;
        while done < count {
            let (mut from, mut to) = (offset.saturating_add(done as u64), self.len);
            let (from, to) = (Some(&mut from), Some(&mut to));
            match fs::copy_file_range(source, from, &self.file, to, count - done) {
                // The source ends here by now, or belongs to a filesystem that has no more to
                // say about it.
                Ok(0) => break,
                Ok(more) => {
                    self.grew(more);
                    done += more;
                }
                Err(Errno::INTR) => {}
                Err(error) if done == 0 && cannot_share(error) => break,
                Err(error) => {
                    self.failed = true;
                    return Err(error.into());
                }
            }
        }
        Ok(done)
    }
}

/// Whether the kernel says that these two files cannot be brought together, and not that
/// something is wrong with one of them.
fn cannot_share(error: Errno) -> bool {
    matches!(
        error,
        Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF | Errno::PERM
    )
}

/// How many of `count` bytes at `offset` can be shared with a file that is `len` bytes long.
fn shareable(len: u64, offset: u64, count: usize) -> usize {
    let aligned = |at: u64| at.is_multiple_of(SHARED_BLOCK as u64);
    let enough = count >= SHARED_BYTES_MIN;
    if enough && aligned(len) && aligned(offset) { count - count % SHARED_BLOCK } else { 0 }
}

impl AppendFile for Appender {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        self.place.clone().run(|| {
            self.check_appendable()?;
            match self.file.write_at(data, self.len) {
                Ok(count) => {
                    self.grew(count);
                    Ok(count)
                }
                // Nothing was written and nothing is wrong.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
                Err(e) => {
                    self.failed = true;
                    Err(e)
                }
            }
        })
    }

    fn append_from(&mut self, source: &dyn ReadAt, offset: u64, data: &[u8]) -> io::Result<()> {
        self.place.clone().run(|| {
            self.check_appendable()?;
            let count = shareable(self.len, offset, data.len());
            let shared = match source.file() {
                Some(file) => self.share(file, offset, count)?,
                None => 0,
            };
            self.append_all(&data[shared..])
        })
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_usable()?;
        check_range(out.len(), offset, self.len)?;
        self.file.read_exact_at(out, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.place.clone().run(|| {
            self.check_usable()?;
            if let Err(e) = self.file.sync_all() {
                self.failed = true;
                return Err(e);
            }
            self.behind.synced(&self.file);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_pieces_between_whole_blocks_are_shared_and_only_whole_blocks_of_them() {
        let min = SHARED_BYTES_MIN;
        assert_eq!(shareable(0, 0, min), min);
        assert_eq!(shareable(4096, 8192, min + 4095), min);
        assert_eq!(shareable(4096, 8192, min + 4096), min + 4096);
        for (len, offset, count) in [(0, 0, min - 1), (1, 0, min), (0, 512, min), (0, 0, 0)] {
            assert_eq!(shareable(len, offset, count), 0, "{len} {offset} {count}");
        }
    }

    #[test]
    fn an_error_of_the_medium_is_not_taken_for_a_filesystem_that_cannot_share() {
        for unable in [Errno::XDEV, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM, Errno::BADF] {
            assert!(cannot_share(unable), "{unable}");
        }
        for failed in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ISDIR, Errno::FBIG] {
            assert!(!cannot_share(failed), "{failed}");
        }
    }
}
