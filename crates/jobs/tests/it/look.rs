//! Listings of files.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_browse::{Disk, Links, Path, Place};
use aiv_filesystems::{
    Attribute, Entry, FileData, FileId, FileType, Filesystem, FilesystemKind, Metadata, ReaderNote,
    Result, Stream,
};
use aiv_jobs::{Error, Look};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Job, MemDisk};

/// Counts how many records were asked for.
struct Counted(Tree, AtomicU64);

impl Filesystem for Counted {
    fn kind(&self) -> FilesystemKind {
        self.0.kind()
    }

    fn notes(&self) -> &[ReaderNote] {
        self.0.notes()
    }

    fn root(&self) -> FileId {
        self.0.root()
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.metadata(file)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.0.entries(folder, job, visit)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        self.0.open(file)
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        self.0.link_target(link)
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.0.attributes(file)
    }

    fn streams(&self, file: FileId) -> Result<Vec<Stream>> {
        self.0.streams(file)
    }

    fn open_stream(&self, file: FileId, name: &[u8]) -> Result<Box<dyn FileData + '_>> {
        self.0.open_stream(file, name)
    }
}

/// A folder with nine files, and where it is.
fn counted() -> (Arc<Counted>, Disk, Place) {
    let mut tree = Tree::new();
    let folder = tree.add(1, b"folder", Node::of(FileType::Folder));
    for n in 0..9 {
        tree.add(folder, &[b'a' + n], Node::file(b"x"));
    }
    let counted = Arc::new(Counted(tree, AtomicU64::new(0)));
    let bytes = Arc::new(MemDisk::from_bytes(vec![0; 512]));
    let disk = Disk::of_filesystem(Arc::clone(&counted) as Arc<dyn Filesystem>, bytes);
    let path = Path::parse(b"/p0").unwrap();
    let place = disk.resolve(&path, Links::Keep, Job::silent()).unwrap();
    (counted, disk, place)
}

#[test]
fn each_file_is_told_before_the_next_one_is_looked_at() {
    let (counted, disk, place) = counted();
    for look in [Look::default(), Look { sha256: true, ..Look::default() }] {
        counted.1.store(0, Ordering::Relaxed);
        let mut names = Vec::new();
        let seen = look.at(&disk, &place, Job::silent(), &mut |file| {
            names.push(file.path.to_string());
            // The folder itself is no file, and has a record all the same.
            let so_far = names.len() as u64 + u64::from(look.sha256);
            assert_eq!(counted.1.load(Ordering::Relaxed), so_far);
            Ok(())
        });
        assert!(seen.unwrap().troubles.is_empty());
        assert_eq!(names.len(), 10 - usize::from(look.sha256));
        assert_eq!(names.last().unwrap(), "/p0/folder/i");
    }
}

#[test]
fn a_listing_ends_where_nobody_takes_it_and_says_so() {
    let (_, disk, place) = counted();
    let told = Cell::new(0);
    let ended = Look::default().at(&disk, &place, Job::silent(), &mut |_| {
        told.set(told.get() + 1);
        if told.get() == 3 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    assert!(matches!(ended, Err(Error::Written(why)) if why.kind() == io::ErrorKind::BrokenPipe));
    assert_eq!(told.get(), 3);
}
