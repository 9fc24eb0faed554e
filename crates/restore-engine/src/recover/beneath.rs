//! A folder, and nothing outside it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// Folders kept open.
const OPEN_MAX: usize = 128;
/// Bytes of a path one system call takes.
const PATH_MAX: usize = 4000;

/// A folder in which files are made. Names come from a volume: no step below the folder follows a
/// symbolic link or leads up, whoever made it and when.
pub(super) struct Beneath {
    root: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// A folder on each filesystem that was come to: others may be mounted below.
    filesystems: HashMap<u64, Rc<OwnedFd>>,
}

impl Beneath {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Rc::new(openat(CWD, dir, flags, Mode::empty())?);
        let filesystems = HashMap::from([(fstat(&*root)?.st_dev, Rc::clone(&root))]);
        Ok(Self { root, open: HashMap::new(), filesystems })
    }

    /// A folder on each filesystem in which one was opened.
    pub(super) fn filesystems(&self) -> impl Iterator<Item = &Rc<OwnedFd>> {
        self.filesystems.values()
    }

    /// The folder itself.
    pub(super) fn root(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.root)
    }

    /// The folder of a path, and the name in it. `path` has slashes between its parts only.
    pub(super) fn parent<'p>(&mut self, path: &'p [u8]) -> io::Result<(Rc<OwnedFd>, &'p [u8])> {
        match path.iter().rposition(|&byte| byte == b'/') {
            None => Ok((self.root(), path)),
            Some(at) => Ok((self.folder(&path[..at])?, &path[at + 1..])),
        }
    }

    /// A folder below.
    pub(super) fn folder(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if let Some(open) = self.open.get(path) {
            return Ok(Rc::clone(open));
        }
        let mut at = self.root();
        let mut rest = path;
        while !rest.is_empty() {
            let (now, later) = cut(rest);
            at = Rc::new(step(&*at, now)?);
            rest = later;
        }
        if self.filesystems.len() < OPEN_MAX {
            let device = fstat(&*at)?.st_dev;
            self.filesystems.entry(device).or_insert_with(|| Rc::clone(&at));
        }
        if self.open.len() == OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&at));
        Ok(at)
    }
}

/// As many parts of a path as one call takes, and the others.
fn cut(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PATH_MAX {
        return (path, &[]);
    }
    // A name is shorter than this, so there is a slash; a longer one is refused by the system.
    let at = path[..PATH_MAX].iter().rposition(|&byte| byte == b'/').unwrap_or(PATH_MAX);
    (&path[..at], path.get(at + 1..).unwrap_or_default())
}

fn step(from: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(from, path, flags, Mode::empty(), resolve)?)
}
