use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::{ReadAt, SlotFile, check_reopened};

/// A folder of named files: the only way core code touches image files.
///
/// The durable life of a file is always the same: [`create`](Storage::create) under a
/// temporary name, [`append`](AppendFile::append), [`sync`](AppendFile::sync),
/// [`publish`](Storage::publish) under its final name, [`sync_dir`](Storage::sync_dir).
/// Nothing else makes a file visible, so a test that fails or loses any one of these
/// operations explores every state a crash can leave.
///
/// Names are relative to the folder, use `/` between subfolders, and never leave the folder:
/// an implementation refuses empty, absolute and `..` components with
/// [`io::ErrorKind::InvalidInput`].
pub trait Storage: Send + Sync {
    /// Creates an empty file for appending.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the name is taken; nothing is ever truncated.
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>>;

    /// Goes on with a file that was never finished: cuts it to `len` bytes, makes that durable
    /// together with all that is left, and appends behind. Only for names that end in
    /// [`PART_EXTENSION`](crate::PART_EXTENSION), so that no published file is ever cut, and only
    /// when nobody else is writing the file, which the caller has to know. What is left has to be proven by reading
    /// it back: an earlier writer may have been told that its bytes were lost.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for any other name, a file that is shorter, or one that
    /// has a second name: nothing was changed. [`io::ErrorKind::NotFound`];
    /// [`io::ErrorKind::Unsupported`], the default, when the storage cannot. After any other
    /// error the file must be given up.
    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        check_reopened(name)?;
        let _ = len;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a finished file to change its key slots, which are all that can be written there.
    /// The caller knows that it has such slots, and where.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]; [`io::ErrorKind::PermissionDenied`] and the like when the
    /// file may only be read; [`io::ErrorKind::Unsupported`], the default, when the storage
    /// cannot write over anything.
    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        let _ = name;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>>;

    /// Opens a file that was written and synced, to prove what came of it: where that is possible,
    /// reads of a MiB and more show what the medium has and not what memory has, if they begin at
    /// a page of the file and with a page of memory, and nothing of them stays in memory. The
    /// default is [`open`](Storage::open).
    ///
    /// # Errors
    /// As [`open`](Storage::open).
    fn open_past_cache(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.open(name)
    }

    /// Renames `from` to `to` in one step and never replaces: whoever comes second fails.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when `to` exists; both files are then untouched.
    fn publish(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All regular files, subfolders included, sorted by name. Links are not followed, and what
    /// [`is_listed`](crate::is_listed) leaves out is left out.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn list(&self) -> io::Result<Vec<FileEntry>>;

    /// Makes earlier [`create`](Storage::create), [`publish`](Storage::publish) and
    /// [`remove`](Storage::remove) calls durable.
    ///
    /// # Errors
    /// Whatever the medium reports; nothing may be assumed about earlier calls then.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that can still be written here, `None` when the storage cannot tell. A statement
    /// about this moment: others write, too.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// What people call the folder, in messages; `None` for one that has no path.
    fn place(&self) -> Option<&Path> {
        None
    }

    /// Takes an exclusive lease, held until the returned value is dropped or the process dies.
    /// `name` is a key of letters, digits and dashes, not a file name.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it; whatever the medium reports
    /// when the token of the lease cannot be kept.
    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>>;
}

/// A file that is being written front to back.
pub trait AppendFile: Send + Sync {
    /// Appends a prefix of `data` and returns its length, as the `write` system call does: a
    /// short count is no error. Use [`append_all`](AppendFile::append_all).
    ///
    /// # Errors
    /// Whatever the medium reports; after an error the length of the file is unspecified and
    /// the file must be given up.
    fn append(&mut self, data: &[u8]) -> io::Result<usize>;

    /// Reads back bytes that were appended earlier.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`].
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes everything appended so far durable. A failed sync must never be repeated: the
    /// kernel may have dropped the dirty pages and would report success.
    ///
    /// # Errors
    /// Whatever the medium reports; the file must then be given up.
    fn sync(&mut self) -> io::Result<()>;

    /// Appends all of `data`, going on after short counts and interruptions.
    ///
    /// # Errors
    /// As [`append`](AppendFile::append), and [`io::ErrorKind::WriteZero`] when the medium
    /// takes no more bytes.
    fn append_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.append(data) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => data = data.get(count..).ok_or(io::ErrorKind::InvalidData)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Appends `data`, which the caller has just read from `source` at `offset`; an
    /// implementation may let the filesystem share the storage of those bytes instead of
    /// writing them. That takes the bytes `source` has now, so it is for sources that do not
    /// change.
    ///
    /// # Errors
    /// As [`append_all`](AppendFile::append_all).
    fn append_from(&mut self, source: &dyn ReadAt, offset: u64, data: &[u8]) -> io::Result<()> {
        let _ = (source, offset);
        self.append_all(data)
    }
}

/// An exclusive lease on a name in a [`Storage`]; dropping it gives it back.
///
/// A lease can be lost without its holder noticing: a network filesystem forgets its locks when
/// the connection breaks, a machine sleeps through the end of its lock. So whoever is about to
/// do what cannot be undone asks [`check`](Lease::check) right before.
pub trait Lease: Send + Sync {
    /// The fencing number of this acquisition: larger than that of every earlier one of this
    /// name in this folder.
    fn token(&self) -> u64;

    /// Proves that nobody took the lease over since it was acquired. True of the moment of the
    /// call only.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] when the lease is lost, which is final; else whatever
    /// the medium reports, which proves nothing.
    fn check(&self) -> io::Result<()>;
}

/// One file of a [`Storage`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Name relative to the folder, with `/` between subfolders.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// Changes whenever the file may have been changed or replaced; zero when the storage does
    /// not know. Two changes closer together than the clock of the filesystem ticks (up to some
    /// milliseconds on local disks, two seconds on FAT) may share a stamp, so it vouches for
    /// files that are written once and published, not for one being written.
    pub stamp: u64,
}
