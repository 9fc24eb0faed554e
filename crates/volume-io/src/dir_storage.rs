use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::{
    AppendFile, FOLDER_DEPTH_MAX, FileEntry, Lease, ReadAt, SlotFile, Storage, check_name,
    check_reopened, is_listed,
};

mod appender;
mod lease;
mod place;
mod slots;
mod stored;

use appender::Appender;
use lease::FileLease;
use place::Place;
use slots::Slots;
use stored::{PastCache, StoredFile};

/// Images hold whole disks, secrets included: nobody but the owner reads them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);
const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Made by `mkfs` in the root of ext filesystems and readable by root alone.
const LOST_AND_FOUND: &CStr = c"lost+found";

/// A local folder as [`Storage`].
///
/// The folder is opened once; all names are resolved below that open folder, one component at
/// a time and through no symbolic link, so neither a hostile name nor a link planted in the
/// folder leads out of it. Files are created readable by their owner only.
///
/// Names that are not UTF-8, links, devices, `lost+found`, the files that carry leases, the
/// remains of removed files on NFS and FUSE, and anything deeper than [`FOLDER_DEPTH_MAX`]
/// folders are not listed: no file created through this type is any of them. Nor are
/// catalogues, which are: they describe the others.
#[derive(Debug)]
pub struct DirStorage {
    root: Arc<OwnedFd>,
    place: Place,
    /// Whether it was not there before.
    is_made: bool,
    unsynced: Mutex<Unsynced>,
}

/// Folders whose entries changed since the last directory sync, by name.
#[derive(Debug, Default)]
struct Unsynced {
    folders: BTreeMap<String, Arc<OwnedFd>>,
    failed: bool,
}

/// An open folder below the root, with every folder on the way to it.
struct Folder {
    way: Vec<(String, Arc<OwnedFd>)>,
}

impl DirStorage {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::NotADirectory`] among others.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        // The folder itself may be a link: the user named it, nobody planted it.
        let root = fs::open(path, FOLDER_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let place = Place::new(path.to_path_buf());
        Ok(Self { root: Arc::new(root), place, is_made: false, unsynced: Mutex::default() })
    }

    /// Opens a folder, and creates it, durably, when no more than its last part is missing. One that
    /// was created here goes when this value does, if nothing came into it until then.
    ///
    /// # Errors
    /// As [`DirStorage::open`]; [`io::ErrorKind::NotFound`] when the folder around it is missing.
    pub fn open_or_create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match fs::mkdir(path, FOLDER_MODE) {
            Ok(()) => {
                sync_around(path)?;
                let mut made = Self::open(path)?;
                made.is_made = true;
                Ok(made)
            }
            Err(Errno::EXIST) => Self::open(path),
            // Whoever may not create it may still use what exists.
            Err(error) => Self::open(path).map_err(|_| error.into()),
        }
    }

    /// The folder as it was named when opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Opens the folder that `name` lies in and splits off the file's own name.
    fn resolve<'a>(&self, name: &'a str, create: bool) -> io::Result<(Folder, &'a str)> {
        check_name(name)?;
        let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
        let mut way = vec![(String::new(), Arc::clone(&self.root))];
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            let (above_name, above) = way.last().expect("starts with the root");
            if create {
                match fs::mkdirat(above, part, FOLDER_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let opened = fs::openat(above, part, FOLDER_FLAGS, Mode::empty())?;
            let name = if above_name.is_empty() {
                part.to_owned()
            } else {
                format!("{above_name}/{part}")
            };
            way.push((name, Arc::new(opened)));
        }
        Ok((Folder { way }, file))
    }

    /// Opens a file to read it.
    fn open_reading(&self, name: &str, more: OFlags) -> io::Result<File> {
        let (folder, file_name) = self.resolve(name, false)?;
        // Opening a pipe would otherwise wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | more;
        let file = File::from(fs::openat(folder.fd(), file_name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            let message = format!("{name:?} is not a regular file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(file)
    }

    /// Remembers a folder for [`Storage::sync_dir`]. With `way` also every folder above it:
    /// somebody else may have created one of those and not synced it yet, and our file is only
    /// as durable as the way to it.
    fn touch(&self, folder: &Folder) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.folders.extend(folder.way.iter().cloned());
    }
}

impl Drop for DirStorage {
    fn drop(&mut self) {
        let path = self.place.path();
        let is_it = |there: fs::Stat| {
            let opened = fs::fstat(&self.root);
            opened.is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
        };
        if self.is_made && fs::stat(path).is_ok_and(is_it) {
            // Refused where anything is in it.
            let _ = fs::rmdir(path);
        }
    }
}

impl Folder {
    fn fd(&self) -> &OwnedFd {
        &self.way.last().expect("starts with the root").1
    }
}

impl Storage for DirStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.place.run(|| {
            let (folder, name) = self.resolve(name, true)?;
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let created = fs::openat(folder.fd(), name, flags, FILE_MODE);
            self.touch(&folder);
            let created = Appender::new(created?.into(), self.place.clone());
            Ok(Box::new(created) as Box<dyn AppendFile>)
        })
    }

    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        self.place.run(|| {
            check_reopened(name)?;
            let (folder, file_name) = self.resolve(name, false)?;
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = File::from(fs::openat(folder.fd(), file_name, flags, Mode::empty())?);
            let refuse = |why: &str| {
                let message = format!("{name:?} {why}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            };
            let stat = fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return refuse("is not a regular file");
            }
            // A publish by link and unlink, interrupted: the other name is that of a finished image.
            if stat.st_nlink != 1 {
                return refuse("has a second name");
            }
            if u64::try_from(stat.st_size).unwrap_or(0) < len {
                return refuse("is shorter than what should be left of it");
            }
            self.touch(&folder);
            let reopened = Appender::reopened(file, len, self.place.clone())?;
            Ok(Box::new(reopened) as Box<dyn AppendFile>)
        })
    }

    fn open_slots(&self, name: &str) -> io::Result<Box<dyn SlotFile>> {
        self.place.run(|| {
            let (folder, file_name) = self.resolve(name, false)?;
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = File::from(fs::openat(folder.fd(), file_name, flags, Mode::empty())?);
            if !file.metadata()?.is_file() {
                let message = format!("{name:?} is not a regular file");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Ok(Box::new(Slots::new(file, self.place.clone())) as Box<dyn SlotFile>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.place.run(|| {
            let file = StoredFile::new(self.open_reading(name, OFlags::empty())?)?;
            Ok(Arc::new(file) as Arc<dyn ReadAt>)
        })
    }

    fn open_past_cache(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.place.run(|| {
            let file = StoredFile::new(self.open_reading(name, OFlags::empty())?)?;
            // Not every filesystem can: then its cache is all there is to read.
            match self.open_reading(name, OFlags::DIRECT) {
                Ok(direct) => Ok(Arc::new(PastCache::new(file, direct)?) as Arc<dyn ReadAt>),
                Err(_) => Ok(Arc::new(file)),
            }
        })
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.place.run(|| {
            let (from_folder, from) = self.resolve(from, false)?;
            let (to_folder, to) = self.resolve(to, true)?;
            let renamed = rename_noreplace(from_folder.fd(), from, to_folder.fd(), to);
            self.touch(&from_folder);
            self.touch(&to_folder);
            renamed
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.place.run(|| {
            let (folder, name) = self.resolve(name, false)?;
            let removed = fs::unlinkat(folder.fd(), name, AtFlags::empty());
            self.touch(&folder);
            Ok(removed?)
        })
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.place.run(|| {
            let mut found = Vec::new();
            let mut open = vec![(String::new(), self.root.try_clone()?, 0)];
            while let Some((prefix, folder, depth)) = open.pop() {
                for entry in Dir::read_from(&folder)? {
                    let entry = entry?;
                    let name = entry.file_name();
                    let Some(text) = name.to_str().ok().filter(|n| !matches!(*n, "." | ".."))
                    else {
                        continue;
                    };
                    if !is_listed(text) || (depth == 0 && name == LOST_AND_FOUND) {
                        continue;
                    }
                    let stat = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                        // Published or removed by somebody else since the folder was read.
                        Err(Errno::NOENT) => continue,
                        stat => stat?,
                    };
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::RegularFile => found.push(FileEntry {
                            name: format!("{prefix}{text}"),
                            len: u64::try_from(stat.st_size).unwrap_or(0),
                            stamp: stamp_of(&stat),
                        }),
                        FileType::Directory if depth < FOLDER_DEPTH_MAX => {
                            match fs::openat(&folder, name, FOLDER_FLAGS, Mode::empty()) {
                                Err(Errno::NOENT) => {}
                                below => open.push((format!("{prefix}{text}/"), below?, depth + 1)),
                            }
                        }
                        _ => {}
                    }
                }
            }
            found.sort_unstable();
            Ok(found)
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.place.run(|| {
            // The lock is held throughout: a second caller whose changes are being synced by the
            // first must not be told they are durable before they are.
            let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            if unsynced.failed {
                return Err(given_up("an earlier sync of this folder"));
            }
            for folder in std::mem::take(&mut unsynced.folders).into_values() {
                if let Err(e) = sync_folder(&folder) {
                    unsynced.failed = true;
                    return Err(e.into());
                }
            }
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.place.run(|| {
            let stat = fs::fstatvfs(&self.root)?;
            // No size at all is how a filesystem without one answers (tmpfs without a limit, FUSE).
            let known = stat.f_blocks > 0;
            Ok(known.then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
        })
    }

    fn place(&self) -> Option<&Path> {
        Some(self.path())
    }

    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.place.run(|| {
            let lease = FileLease::take(&self.root, name, self.place.clone())?;
            // The file may be new, and a count that a power cut takes back starts again.
            let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            unsynced.folders.insert(String::new(), Arc::clone(&self.root));
            Ok(Box::new(lease) as Box<dyn Lease>)
        })
    }
}

/// Inode number and change time in one number, never zero. Unlike the modification time the
/// change time cannot be set back, and a file renamed over another brings its own inode.
/// Stamps are kept in files, so another mixture makes what is kept there look stale.
fn stamp_of(stat: &fs::Stat) -> u64 {
    // The mixing step of SplitMix64 (Steele, Lea and Flood 2014) after each word: two files
    // share a stamp by an accident of one in 2^64 only.
    let mix = |mixed: u64, word: u64| {
        let mut z = (mixed ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    [stat.st_ino, stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec].into_iter().fold(0, mix).max(1)
}

fn sync_folder(folder: &OwnedFd) -> rustix::io::Result<()> {
    match fs::fsync(folder) {
        // The filesystem has no sync of single folders; it may have one of everything.
        Err(Errno::INVAL) => fs::syncfs(folder),
        synced => synced,
    }
}

/// Makes the name of a new folder durable.
fn sync_around(path: &Path) -> io::Result<()> {
    let around = match path.parent() {
        Some(around) if !around.as_os_str().is_empty() => around,
        _ => Path::new("."),
    };
    let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
    Ok(sync_folder(&fs::open(around, flags, Mode::empty())?)?)
}

/// Renames without replacing, also on filesystems whose rename cannot promise that (NFS, most
/// of FUSE): a hard link is refused when its name is taken, just as atomically.
fn rename_noreplace(from_dir: &OwnedFd, from: &str, to_dir: &OwnedFd, to: &str) -> io::Result<()> {
    match fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => link_and_unlink(from_dir, from, to_dir, to),
        renamed => Ok(renamed?),
    }
}

fn link_and_unlink(from_dir: &OwnedFd, from: &str, to_dir: &OwnedFd, to: &str) -> io::Result<()> {
    fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())?;
    match fs::unlinkat(from_dir, from, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => {
            // Reported as failed, so it must not stay visible. If this fails too, the file is
            // complete under both names, which a reader tolerates.
            let _ = fs::unlinkat(to_dir, to, AtFlags::empty());
            Err(e.into())
        }
    }
}

fn given_up(what: &str) -> io::Error {
    io::Error::other(format!("{what} failed, nothing may be assumed about what came before it"))
}
