//! Paths, walks and comparisons over filesystems in memory, hostile ones among them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compared;
mod hostile;
mod paths;

use std::sync::Arc;

use aiv_browse::{Disk, Error, File, Links, Path, Place};
use aiv_testkit::files::Tree;
use aiv_volume_io::{Job, MemDisk};

fn disk(tree: Tree) -> Disk {
    Disk::of_filesystem(Arc::new(tree), Arc::new(MemDisk::from_bytes(vec![0; 4096])))
}

fn resolve(disk: &Disk, path: &str, links: Links) -> Result<File, Error> {
    let place = disk.resolve(&Path::parse(path.as_bytes())?, links, Job::silent())?;
    let Place::File(file) = place else { unreachable!("{path} is no file") };
    Ok(file)
}

fn root(disk: &Disk) -> File {
    resolve(disk, "/p0", Links::Keep).unwrap()
}
