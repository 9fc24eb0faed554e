//! Files of Btrfs volumes, as the kernel has them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_filesystems::{FileType, ReaderNote};

use crate::btrfs_tools::{MOUNT, fill, mkfs};
use crate::ext_tools::MIB;
use crate::reader_tools::{Seen, Tree, assert_same, opened, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

/// Our tree and the kernel's. Folders that only the kernel makes up are of the moment they are
/// looked at.
pub(crate) fn check(volume: &Volume) -> Tree {
    let mounted = Mounted::new(volume, "ro,rescue=nologreplay,subvolid=5");
    let theirs = tree_of_mount(mounted.path());
    let ours = tree_of(volume);
    assert_same(&ours, &theirs);
    ours
}

pub(crate) fn plant(volume: &Volume, options: &str) {
    let mounted = Mounted::new(volume, options);
    let root = mounted.path();
    for len in [0, 1, 100, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 100_000, 131_071, 131_073] {
        fs::write(root.join(format!("noise{len}")), noise(len, len as usize)).unwrap();
        fs::write(root.join(format!("zeros{len}")), vec![0; len as usize]).unwrap();
        let text = "one line of the text\n".repeat(10_000);
        fs::write(root.join(format!("text{len}")), &text[..len as usize]).unwrap();
    }
}

#[test]
fn files_of_all_sizes_and_subvolumes_are_those_of_the_kernel() {
    let volume = mkfs(128 * MIB, "");
    fill(&volume, MOUNT, 4 * MIB);
    plant(&volume, MOUNT);
    let tree = check(&volume);
    assert!(tree.len() > 200, "{}", tree.len());
}
