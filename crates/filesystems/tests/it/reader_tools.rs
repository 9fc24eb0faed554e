//! Everything a reader says about the files of a volume, and everything the kernel says.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{
    Error, FileData, FileId, FileType, Filesystem, Timestamp, open_filesystem, recognise,
};
use aiv_testkit::files::read_all;
use aiv_volume_io::{Extent, Job, ReadAt};
use sha2::{Digest, Sha256};

use crate::tools::Volume;

/// What is compared of a file. What a driver has no equal for is left out of both sides with
/// [`Seen::without`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) file_type: FileType,
    /// Of files and links.
    pub(crate) len: u64,
    /// SHA-256 of a file, and what a link says.
    pub(crate) content: Vec<u8>,
    pub(crate) mode: Option<u16>,
    pub(crate) owner: Option<(u32, u32)>,
    /// Of files.
    pub(crate) links: u32,
    /// Seconds and nanoseconds: modified, changed.
    pub(crate) times: [Option<(i64, u32)>; 2],
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// By path without `/` in front; the root is empty.
pub(crate) type Tree = BTreeMap<Vec<u8>, Seen>;

/// Opens what is on a volume.
pub(crate) fn opened(volume: Arc<dyn ReadAt>) -> Result<Box<dyn Filesystem>, Error> {
    let recognised = recognise(&volume).unwrap();
    open_filesystem(volume, &recognised, Job::silent())
}

/// All that the reader says about a volume.
pub(crate) fn tree_of(volume: &Volume) -> Tree {
    tree_in(&*opened(Arc::new(volume.open())).unwrap())
}

/// All that a reader says.
pub(crate) fn tree_in(filesystem: &dyn Filesystem) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(Vec::new(), filesystem.root())];
    while let Some((path, id)) = todo.pop() {
        let seen = seen(filesystem, id, &path);
        if seen.file_type == FileType::Folder {
            for (name, child) in names(filesystem, id) {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push(([&path, slash, &name].concat(), child));
            }
        }
        assert!(tree.insert(path, seen).is_none(), "a name was told twice");
    }
    tree
}

/// The names in a folder; each can be looked up.
pub(crate) fn names(filesystem: &dyn Filesystem, folder: FileId) -> BTreeMap<Vec<u8>, FileId> {
    let mut names = BTreeMap::new();
    let read = filesystem.entries(folder, Job::silent(), &mut |entry| {
        if let Some(told) = entry.file_type {
            let is = filesystem.metadata(entry.id).unwrap().file_type;
            assert!(is == told || told != FileType::File, "{entry:?} is {is:?}");
        }
        let name = entry.name.clone();
        assert!(names.insert(entry.name, entry.id).is_none(), "{name:?} was told twice");
        ControlFlow::Continue(())
    });
    read.unwrap();
    for (n, (name, id)) in names.iter().enumerate() {
        // In large folders not each: a look-up may have to read all of it.
        if n < 20 || n % 97 == 0 {
            let found = filesystem.lookup(folder, name, Job::silent()).unwrap();
            assert_eq!(found, Some(*id), "{}", name.escape_ascii());
        }
    }
    let nobody = filesystem.lookup(folder, b"no such name", Job::silent()).unwrap();
    assert_eq!(nobody, None);
    names
}

fn seen(filesystem: &dyn Filesystem, id: FileId, path: &[u8]) -> Seen {
    let metadata = filesystem.metadata(id).unwrap();
    let time = |time: Option<Timestamp>| time.map(|time| (time.seconds, time.nanoseconds));
    let (len, content) = match metadata.file_type {
        FileType::File => {
            let data = filesystem.open(id).unwrap();
            assert_eq!(data.len(), metadata.len, "{}", path.escape_ascii());
            (metadata.len, digest(&*data))
        }
        FileType::Link => {
            let target = filesystem.link_target(id).unwrap();
            (target.len() as u64, target)
        }
        _ => (0, Vec::new()),
    };
    let attributes = filesystem.attributes(id).unwrap();
    Seen {
        file_type: metadata.file_type,
        len,
        content,
        mode: metadata.mode,
        owner: metadata.owner.map(|owner| (owner.user, owner.group)),
        links: if metadata.file_type == FileType::File { metadata.links } else { 1 },
        times: [time(metadata.modified), time(metadata.changed)],
        device: metadata.device.map(|device| (device.major, device.minor)),
        attributes: attributes.into_iter().map(|one| (one.name, one.value)).collect(),
    }
}

/// SHA-256 of the bytes of a file; on the way, holes are zeros, and a read of another size gives
/// the same bytes.
pub(crate) fn digest(data: &dyn FileData) -> Vec<u8> {
    let mut sha = Sha256::new();
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while at < data.len() {
        let count = usize::try_from(data.len() - at).unwrap().min(buffer.len());
        let out = &mut buffer[..count];
        out.fill(7);
        data.read_exact_at(out, at).unwrap();
        for hole in data.holes(Extent::new(at, count as u64)).unwrap() {
            let start = usize::try_from(hole.start - at).unwrap();
            let end = start + usize::try_from(hole.len).unwrap();
            assert!(out[start..end].iter().all(|&byte| byte == 0), "{hole:?} is no hole");
        }
        let middle = count / 3..count / 2;
        let mut again = vec![1; middle.len()];
        data.read_exact_at(&mut again, at + middle.start as u64).unwrap();
        assert!(again == out[middle], "at {at}");
        sha.update(&out);
        at += count as u64;
    }
    sha.finalize().to_vec()
}

/// All that the kernel says about what is mounted at `root`.
pub(crate) fn tree_of_mount(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let (file_type, content) = if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            (FileType::Folder, Vec::new())
        } else if kind.is_symlink() {
            (FileType::Link, fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            let mut sha = Sha256::new();
            std::io::copy(&mut fs::File::open(&path).unwrap(), &mut Hashing(&mut sha)).unwrap();
            (FileType::File, sha.finalize().to_vec())
        } else if kind.is_fifo() {
            (FileType::Pipe, Vec::new())
        } else if kind.is_socket() {
            (FileType::Socket, Vec::new())
        } else if kind.is_char_device() {
            (FileType::CharDevice, Vec::new())
        } else {
            (FileType::BlockDevice, Vec::new())
        };
        let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        let device = metadata.rdev();
        let seen = Seen {
            file_type,
            len: match file_type {
                FileType::File => metadata.len(),
                FileType::Link => content.len() as u64,
                _ => 0,
            },
            content,
            mode: Some(u16::try_from(metadata.mode() & 0o7777).unwrap()),
            owner: Some((metadata.uid(), metadata.gid())),
            links: match file_type {
                FileType::File => u32::try_from(metadata.nlink()).unwrap(),
                _ => 1,
            },
            times: [
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            ]
            .map(|(seconds, nanoseconds)| Some((seconds, u32::try_from(nanoseconds).unwrap()))),
            device: is_device.then(|| (rustix::fs::major(device), rustix::fs::minor(device))),
            attributes: attributes_of(&path),
        };
        let path = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        tree.insert(path, seen);
    }
    tree
}

struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `getxattr` says of a file, not of where a link leads.
fn attributes_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let len = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        // A filesystem without any.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        len => len.unwrap(),
    };
    let names: Vec<&[u8]> = names[..len].split(|&byte| byte == 0).collect();
    let names = names.into_iter().filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Both trees have the same files, and the same is said of each.
pub(crate) fn assert_same(ours: &Tree, theirs: &Tree) {
    for (path, seen) in theirs {
        let name = path.escape_ascii();
        match ours.get(path) {
            None => panic!("{name} is missing"),
            Some(other) => assert_eq!(other, seen, "{name}"),
        }
    }
    for path in ours.keys() {
        assert!(theirs.contains_key(path), "{} is not there", path.escape_ascii());
    }
}

/// Reads all that can be read of a volume nobody vouches for, as far as a budget goes, and tells
/// how many files there were. No content may make this panic, or last.
pub(crate) fn exhaust(volume: Arc<dyn ReadAt>) -> usize {
    opened(volume).map_or(0, |filesystem| read_all(&*filesystem, 2000, 1 << 20))
}

/// The names in a folder that can be read, whatever cannot.
pub(crate) fn names_of(filesystem: &dyn Filesystem, folder: FileId) -> BTreeMap<Vec<u8>, FileId> {
    let mut names = BTreeMap::new();
    let _ = filesystem.entries(folder, Job::silent(), &mut |entry| {
        names.insert(entry.name, entry.id);
        ControlFlow::Continue(())
    });
    names
}
