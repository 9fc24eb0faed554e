use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{self, Advice, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::page_cache::{Ahead, ReadBehind, WriteBehind};
use crate::read_at::check_range;
use crate::{Error, Extent, ReadAt, Result};

mod direct;
mod target;

/// Holes named by one call of [`ReadAt::holes`] at most: 1 MiB of memory, so that a file of
/// nothing but alternating holes costs no more. The rest is read as the zeros it is.
const HOLES_MAX: usize = 1 << 16;

/// Sector size assumed for regular files: what every table and filesystem inside can express.
const FILE_SECTOR: u32 = 512;

/// A raw disk image or a block device.
///
/// As a source it is opened read-only and, where permitted, without touching its access time.
/// What reading or writing it brings into the page cache is handed back to the kernel a few
/// MiB behind; what was there before stays.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    path: PathBuf,
    kind: FileKind,
    len: AtomicU64,
    logical_sector: u32,
    physical_sector: u32,
    read_behind: ReadBehind,
    write_behind: WriteBehind,
    /// Whether the kernel can read this file without waiting; cleared when it says it cannot.
    nowait: AtomicBool,
    /// Read past the page cache, which takes whole sectors and aligned memory.
    direct: bool,
    writable: bool,
    failed: AtomicBool,
}

/// What a [`FileDisk`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file in a filesystem; may be sparse.
    RegularFile,
    /// A whole disk, a partition, or a virtual device.
    BlockDevice,
}

impl FileDisk {
    /// Opens a file or device for reading. Nothing is locked: the disks of a running system
    /// are in use and must be readable.
    ///
    /// # Errors
    /// [`Error::NotADisk`], or [`Error::Path`] with what the system said.
    pub fn open_source(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_reading(path.as_ref(), OFlags::empty())
    }

    /// Opens a device for reading past the page cache, and a file as
    /// [`open_source`](Self::open_source) does. What a mounted filesystem writes into files
    /// reaches the medium, but not the cache of the device: what anybody read from the device
    /// earlier would hide it. So this is how a device is read whose filesystems are mounted.
    ///
    /// # Errors
    /// As [`open_source`](Self::open_source).
    pub fn open_source_direct(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = match kind_at(path)? {
            FileKind::BlockDevice => OFlags::DIRECT,
            FileKind::RegularFile => OFlags::empty(),
        };
        let mut disk = Self::open_reading(path, flags)?;
        disk.direct = flags == OFlags::DIRECT;
        Ok(disk)
    }

    fn open_reading(path: &Path, more: OFlags) -> Result<Self> {
        kind_at(path)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | more;
        // Only the owner of a file may leave its access time alone.
        let opened = match fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => fs::open(path, flags, Mode::empty()),
            opened => opened,
        };
        let file = opened.map_err(io::Error::from).map_err(Error::path("open", path))?;
        let disk = Self::from_file(file.into(), path, false)?;
        // Advice: a refusal changes nothing but speed.
        let _ = fs::fadvise(&disk.file, 0, None, Advice::Sequential);
        Ok(disk)
    }

    fn from_file(file: File, path: &Path, writable: bool) -> Result<Self> {
        let stat =
            fs::fstat(&file).map_err(io::Error::from).map_err(Error::path("examine", path))?;
        let kind = disk_kind(path, FileType::from_raw_mode(stat.st_mode))?;
        let (len, logical_sector, physical_sector) = match kind {
            FileKind::RegularFile => {
                (u64::try_from(stat.st_size).unwrap_or(0), FILE_SECTOR, FILE_SECTOR)
            }
            FileKind::BlockDevice => {
                device_geometry(&file).map_err(Error::path("measure", path))?
            }
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            kind,
            len: AtomicU64::new(len),
            logical_sector,
            physical_sector,
            read_behind: ReadBehind::default(),
            write_behind: WriteBehind::default(),
            nowait: AtomicBool::new(true),
            direct: false,
            writable,
            failed: AtomicBool::new(false),
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File or device.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Bytes in a logical sector: the unit of partition tables. 512 for files.
    #[must_use]
    pub fn logical_sector_size(&self) -> u32 {
        self.logical_sector
    }

    /// Bytes the medium writes at once. 512 for files.
    #[must_use]
    pub fn physical_sector_size(&self) -> u32 {
        self.physical_sector
    }

    /// How many of the bytes from `offset` could be had without waiting for the medium, and
    /// are now in `out`.
    fn read_resident(&self, out: &mut [u8], offset: u64) -> usize {
        if !self.nowait.load(Ordering::Relaxed) {
            return 0;
        }
        match preadv2(&self.file, &mut [IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => count,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.nowait.store(false, Ordering::Relaxed);
                0
            }
            // Not resident, interrupted, or a real error that the waiting read will meet too.
            Err(_) => 0,
        }
    }

    /// Whether the file is shorter now than it was when it was opened.
    fn has_shrunk(&self) -> io::Result<bool> {
        let now = u64::try_from(fs::fstat(&self.file)?.st_size).unwrap_or(0);
        Ok(now < self.len())
    }

    /// Whether a byte is in the page cache.
    fn look(&self, at: u64) -> Ahead {
        if at >= self.len() {
            Ahead::PastTheEnd
        } else if self.read_resident(&mut [0], at) == 1 {
            Ahead::Resident
        } else {
            Ahead::NotResident
        }
    }
}

impl ReadAt for FileDisk {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(out.len(), offset, self.len())?;
        if self.direct {
            return direct::read_exact_at(&self.file, self.len(), out, offset);
        }
        let range = Extent::new(offset, out.len() as u64);
        let resident = self.read_resident(out, offset);
        if resident < out.len() {
            self.file.read_exact_at(&mut out[resident..], offset + resident as u64)?;
            self.read_behind.miss(&self.file, range);
        } else if let Some(at) = self.read_behind.hit(&self.file, range) {
            self.read_behind.looked(range, at, self.look(at));
        }
        Ok(())
    }

    /// The holes of a sparse regular file; at most 65,536 per call.
    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let mut holes = Vec::new();
        let Some(range) = range.intersect(Extent::new(0, self.len())) else { return Ok(holes) };
        if self.kind == FileKind::BlockDevice {
            return Ok(holes);
        }
        let mut at = range.start;
        while at < range.end() && holes.len() < HOLES_MAX {
            let data = match fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(range.end()),
                // No data from here to the end of the file; when the file shrank, that is no
                // hole but an end, which whoever reads there has to meet.
                Err(Errno::NXIO) if self.has_shrunk()? => return Ok(holes),
                Err(Errno::NXIO) => range.end(),
                // The filesystem keeps no account of holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(e) => return Err(e.into()),
            };
            if data > at {
                holes.push(Extent::between(at, data));
            }
            if data >= range.end() {
                break;
            }
            at = match fs::seek(&self.file, SeekFrom::Hole(data)) {
                Ok(hole) if hole > data => hole,
                // The file shrank or a filesystem contradicts itself: no more hints.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
        }
        Ok(holes)
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        self.read_behind.finish(&self.file);
    }
}

/// Looks before opening: opening a pipe waits, opening a tape winds it.
fn kind_at(path: &Path) -> Result<FileKind> {
    let stat = fs::stat(path).map_err(io::Error::from).map_err(Error::path("open", path))?;
    disk_kind(path, FileType::from_raw_mode(stat.st_mode))
}

fn disk_kind(path: &Path, found: FileType) -> Result<FileKind> {
    let found = match found {
        FileType::RegularFile => return Ok(FileKind::RegularFile),
        FileType::BlockDevice => return Ok(FileKind::BlockDevice),
        FileType::Directory => "folder",
        FileType::CharacterDevice => "character device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => "special file",
    };
    Err(Error::NotADisk { path: path.to_path_buf(), found })
}

/// Length, logical and physical sector size of a block device.
fn device_geometry(file: &File) -> io::Result<(u64, u32, u32)> {
    let len = fs::seek(file, SeekFrom::End(0))?;
    let logical = fs::ioctl_blksszget(file)?;
    let physical = fs::ioctl_blkpbszget(file)?;
    Ok((len, logical, physical))
}
