use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{self, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{FileDisk, FileKind, kind_at};
use crate::{Error, Extent, ReadAt, Result, WriteAt, device, page_cache};

/// Only the owner reads what a disk is restored to.
const TARGET_MODE: Mode = Mode::from_raw_mode(0o600);

/// Zeros written at a time where the medium cannot make them itself.
static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

impl FileDisk {
    /// Opens an existing file or device for reading and writing.
    ///
    /// With `exclusive`, a device that the kernel uses (mounted, swap, part of a stacked
    /// device) or that another program claimed is refused, and so is a file locked by another
    /// restore; both stay claimed until this value is dropped.
    ///
    /// # Errors
    /// [`Error::NotADisk`]; [`Error::Path`], of kind [`io::ErrorKind::ResourceBusy`] for a
    /// device and [`io::ErrorKind::WouldBlock`] for a file in use, of kind
    /// [`io::ErrorKind::ReadOnlyFilesystem`] for a device that refuses writes.
    pub fn open_target(path: impl AsRef<Path>, exclusive: bool) -> Result<Self> {
        let path = path.as_ref();
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
        // Without O_CREAT, O_EXCL is the claim on a block device and means nothing on a file.
        flags.set(OFlags::EXCL, kind_at(path)? == FileKind::BlockDevice && exclusive);
        let opened = fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
        let disk = Self::from_file(opened.map_err(Error::path("open", path))?.into(), path, true)?;
        match disk.kind {
            FileKind::RegularFile if exclusive => {
                lock(&disk.file).map_err(Error::path("lock", path))?;
            }
            // The kernel lets a read-only device be opened for writing and refuses the writes.
            FileKind::BlockDevice if device::is_read_only(&disk.file) => {
                return Err(Error::path("open", path)(io::ErrorKind::ReadOnlyFilesystem.into()));
            }
            _ => {}
        }
        Ok(disk)
    }

    /// Creates a file of `len` bytes that read as zeros and take no space, locks it, and makes
    /// its name durable.
    ///
    /// # Errors
    /// [`Error::Path`], of kind [`io::ErrorKind::AlreadyExists`] when the name is taken:
    /// nothing is ever replaced. A file that could not be made long enough is removed again.
    pub fn create_target(path: impl AsRef<Path>, len: u64) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        let file = fs::open(path, flags, TARGET_MODE).map_err(io::Error::from);
        let file = File::from(file.map_err(Error::path("create", path))?);
        let prepared =
            lock(&file).and_then(|()| file.set_len(len)).and_then(|()| sync_folder(path));
        if let Err(e) = prepared {
            // Best effort: the error that matters is the one being reported.
            let _ = std::fs::remove_file(path);
            return Err(Error::path("create", path)(e));
        }
        Self::from_file(file, path, true)
    }

    /// Changes the length of a regular file; new bytes read as zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for a device, else whatever the filesystem reports.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.kind == FileKind::BlockDevice {
            let message = "a block device has the length it has";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        if !self.writable {
            let message = "opened as a source, sources are never written";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        if self.failed.load(Ordering::Acquire) {
            let message = "an earlier sync failed, nothing may be assumed about what came before";
            return Err(io::Error::other(message));
        }
        Ok(())
    }

    fn check_room(&self, range: Extent) -> io::Result<()> {
        self.check_writable()?;
        let len = self.len();
        if range.end() <= len {
            return Ok(());
        }
        let message = format!("bytes {range:?} reach past the end at {len}");
        Err(io::Error::new(io::ErrorKind::WriteZero, message))
    }

    fn write_zeros(&self, range: Extent) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end() {
            let count = (range.end() - at).min(ZEROS.len() as u64);
            let zeros = usize::try_from(count).map_or(&ZEROS[..], |count| &ZEROS[..count]);
            self.write_all_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    /// The part of `range` that is made of whole sectors: devices deallocate nothing smaller.
    fn whole_sectors(&self, range: Extent) -> Option<Extent> {
        let sector = u64::from(self.logical_sector.max(1));
        let start = range.start.checked_next_multiple_of(sector)?;
        let whole = Extent::between(start, range.end() - range.end() % sector);
        (!whole.is_empty()).then_some(whole)
    }

    /// Whether the medium did it; `false` when it does not know how.
    fn fallocate(&self, mode: FallocateFlags, range: Extent) -> io::Result<bool> {
        match fs::fallocate(&self.file, mode, range.start, range.len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl WriteAt for FileDisk {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, data.len() as u64);
        self.check_room(range)?;
        self.file.write_all_at(data, offset)?;
        self.write_behind.wrote(&self.file, range);
        Ok(())
    }

    fn zero_range(&self, range: Extent) -> io::Result<()> {
        self.check_room(range)?;
        let Some(whole) = self.whole_sectors(range) else { return self.write_zeros(range) };
        // Punching gives the space back, on a file and on a thin device alike, and promises
        // zeros; zeroing promises the same and keeps the space.
        let done = self.fallocate(PUNCH, whole)? || self.fallocate(ZERO, whole)?;
        if !done {
            return self.write_zeros(range);
        }
        self.write_zeros(Extent::between(range.start, whole.start))?;
        self.write_zeros(Extent::between(whole.end(), range.end()))
    }

    fn discard_range(&self, range: Extent) -> io::Result<()> {
        self.check_room(range)?;
        if let Some(whole) = self.whole_sectors(range)
            && !(self.kind == FileKind::BlockDevice && self.fallocate(DISCARD, whole)?)
        {
            // Newer kernels know no plain discard here; what they can deallocate with a
            // promise of zeros they deallocate this way. A medium that can do neither keeps
            // its bytes.
            self.fallocate(PUNCH, whole)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.check_writable()?;
        if let Err(e) = self.file.sync_data() {
            self.failed.store(true, Ordering::Release);
            return Err(e);
        }
        self.write_behind.synced(&self.file);
        Ok(())
    }

    fn drop_cache(&self, range: Extent) {
        page_cache::drop_range(&self.file, range);
    }

    fn takes_writes_side_by_side(&self) -> bool {
        self.kind == FileKind::BlockDevice
    }
}

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);
const DISCARD: FallocateFlags = PUNCH.union(FallocateFlags::NO_HIDE_STALE);

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(e) => e,
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
