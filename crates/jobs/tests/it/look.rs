//! Listings of files.

use std::sync::Arc;

use aiv_browse::{Disk, FileType, Links, Path};
use aiv_jobs::{Error, Look};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Job, MemDisk};

#[test]
fn a_listing_of_more_files_than_memory_is_meant_for_is_refused() {
    let mut tree = Tree::new();
    let folder = tree.add(1, b"folder", Node::of(FileType::Folder));
    for n in 0..9 {
        tree.add(folder, &[b'a' + n], Node::file(b"x"));
    }
    let disk = Disk::of_filesystem(Arc::new(tree), Arc::new(MemDisk::from_bytes(vec![0; 512])));
    let path = Path::parse(b"/p0").unwrap();
    let place = disk.resolve(&path, Links::Keep, Job::silent()).unwrap();
    let listed = |look: Look| look.at(&disk, &place, Job::silent());
    assert_eq!(listed(Look { most: 10, ..Look::default() }).unwrap().files.len(), 10);
    let refused = listed(Look { most: 9, ..Look::default() });
    assert!(matches!(refused, Err(Error::TooManyListed { allowed: 9 })));
    // What is not entered or not meant does not count.
    assert!(listed(Look { most: 1, depth: 0, ..Look::default() }).is_ok());
}
