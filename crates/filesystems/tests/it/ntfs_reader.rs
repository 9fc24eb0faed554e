//! Files of NTFS as the reader tells them, and as ntfs-3g does.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{FileFlags, FileType, Filesystem};
use aiv_volume_io::{Job, ReadAt};

use crate::ext_tools::MIB;
use crate::ntfs_tools::{mkntfs, mount};
use crate::reader_tools::{Tree, assert_same, opened, tree_of, tree_of_mount};
use crate::tools::{Volume, noise, run};

/// Attributes that ntfs-3g has, too, and says when it is asked for them by name.
const ATTRIBUTES: [&str; 3] = ["system.ntfs_acl", "system.ntfs_ea", "system.ntfs_reparse_data"];

/// What ntfs-3g says, with those attributes in place of what it lists, and without permissions,
/// which it makes up.
pub(crate) fn tree_of_driver(volume: &Volume, options: &str) -> Tree {
    let mounted = mount(volume, options);
    let mut tree = tree_of_mount(mounted.path());
    for (path, seen) in &mut tree {
        let path = mounted.path().join(std::ffi::OsStr::from_bytes(path));
        (seen.mode, seen.owner) = (None, None);
        seen.attributes.clear();
        for name in ATTRIBUTES {
            let mut value = vec![0; 1 << 16];
            if let Ok(len) = rustix::fs::lgetxattr(&path, name, value.as_mut_slice()) {
                value.truncate(len);
                seen.attributes.insert(name.as_bytes().to_vec(), value);
            }
        }
    }
    tree
}

pub(crate) fn without_permissions(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|seen| (seen.mode, seen.owner) = (None, None));
    tree
}

pub(crate) fn assert_as_driver(volume: &Volume) -> Tree {
    let ours = without_permissions(tree_of(volume));
    assert_same(&ours, &tree_of_driver(volume, "ro"));
    ours
}

pub(crate) fn reader(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

pub(crate) fn filled(
    len: u64,
    options: &str,
    mount_options: &str,
    fill: impl FnOnce(&Path),
) -> Volume {
    let volume = mkntfs(len, options);
    let mounted = mount(&volume, mount_options);
    fill(mounted.path());
    drop(mounted);
    volume
}

/// Sizes around every border: of records, clusters and units of compression.
fn sizes(root: &Path, cluster: usize) {
    let borders = [0, 1, 100, 300, 500, 600, 700, 900, 1024, cluster, 2 * cluster, 16 * cluster];
    for border in borders {
        for len in border.saturating_sub(1)..=border + 1 {
            fs::write(root.join(format!("size {len}")), noise(len as u64, len)).unwrap();
        }
    }
}

fn tree(root: &Path, cluster: usize) {
    sizes(root, cluster);
    let sparse = File::create(root.join("sparse")).unwrap();
    for n in 0..40 {
        sparse.write_all_at(&noise(n, 700), n * 200_000).unwrap();
    }
    sparse.set_len(9_000_001).unwrap();
    fs::create_dir_all(root.join("a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p")).unwrap();
    fs::write(root.join("a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/deep"), "deep").unwrap();
    for name in
        ["\u{f6}l", "\u{1f600}", "\u{65e5}\u{672c}", "e\u{301}", "CASE", "case", "a:b?c*d\"e\\f"]
    {
        fs::write(root.join("a").join(name), name).unwrap();
    }
    fs::write(root.join("a").join("\u{65e5}".repeat(80)), "long").unwrap();
    fs::write(root.join("a").join("x".repeat(255)), "longest").unwrap();
    fs::write(root.join("a/one"), noise(9, 5000)).unwrap();
    for n in 0..5 {
        fs::hard_link(root.join("a/one"), root.join(format!("a/b/other {n}"))).unwrap();
    }
    symlink("a/one", root.join("link")).unwrap();
    symlink("x".repeat(3000), root.join("long link")).unwrap();
    symlink("../\u{f6}/..", root.join("a/link")).unwrap();
    run("mkfifo", &[root.join("pipe").to_str().unwrap()]);
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")));
    run("mknod", &[root.join("char").to_str().unwrap(), "c", "5", "300"]);
    run("mknod", &[root.join("block").to_str().unwrap(), "b", "259", "70000"]);
    run("touch", &["-d", "1901-02-03 04:05:06 UTC", root.join("a/one").to_str().unwrap()]);
    run("touch", &["-d", "2999-02-03 04:05:06.765432100 UTC", root.join("a/b").to_str().unwrap()]);
}

#[test]
fn files_of_ntfs_are_what_its_driver_says_in_clusters_of_every_size() {
    for size in [512, 1024, 4096, 65_536, 2 << 20] {
        let volume = filled(
            if size > 65_536 { 1024 * MIB } else { 48 * MIB },
            &format!("-c {size}"),
            "noatime",
            |root| {
                tree(root, size.min(65_536));
            },
        );
        let tree = assert_as_driver(&volume);
        for (name, file_type) in [
            ("pipe", FileType::Pipe),
            ("socket", FileType::Socket),
            ("char", FileType::CharDevice),
            ("block", FileType::BlockDevice),
            ("link", FileType::Link),
        ] {
            assert_eq!(tree[name.as_bytes()].file_type, file_type);
        }
        assert_eq!(reader(&volume).notes(), []);
    }
}

/// Text that compresses, noise that does not, and holes between.
pub(crate) fn compressible(root: &Path) {
    let text = |seed: usize, len: usize| {
        let words = ["record", "cluster", "of", "the", "a file", "is", "\n", "0123456789"];
        let random = noise(seed as u64, len);
        let mut text = Vec::new();
        for byte in random {
            text.extend(words[usize::from(byte) / 3 % words.len()].bytes());
            if text.len() >= len {
                break;
            }
        }
        text.truncate(len);
        text
    };
    for (n, len) in [100, 5000, 65_535, 65_536, 65_537, 200_000, 1_000_000].into_iter().enumerate()
    {
        fs::write(root.join(format!("text {len}")), text(n, len)).unwrap();
        fs::write(root.join(format!("noise {len}")), noise(n as u64, len)).unwrap();
        let mixed = [text(n, len / 2), noise(n as u64, len / 3), text(n + 1, len / 2)].concat();
        fs::write(root.join(format!("mixed {len}")), mixed).unwrap();
        fs::write(root.join(format!("ones {len}")), vec![1; len]).unwrap();
    }
    let holes = File::create(root.join("holes")).unwrap();
    for n in 0..20 {
        let bytes = if n % 2 == 0 { text(n, 9000) } else { noise(n as u64, 9000) };
        holes.write_all_at(&bytes, n as u64 * 150_000).unwrap();
    }
    let grown = File::create(root.join("grown")).unwrap();
    grown.write_all_at(&text(3, 30_000), 0).unwrap();
    grown.set_len(700_000).unwrap();
}

#[test]
fn compressed_files_are_what_the_driver_makes_of_them() {
    for size in [512, 2048, 4096] {
        let options = "compression,noatime";
        let volume = filled(32 * MIB, &format!("-C -c {size}"), options, compressible);
        let tree = assert_as_driver(&volume);
        let reader = reader(&volume);
        let id = reader.lookup(reader.root(), b"text 1000000", Job::silent()).unwrap().unwrap();
        let metadata = reader.metadata(id).unwrap();
        assert!(metadata.flags.contains(FileFlags::COMPRESSED));
        assert!(metadata.allocated.unwrap() < 800_000, "{metadata:?}");
        let data = reader.open(id).unwrap();
        let stored: u64 = data.extents().unwrap().iter().map(|extent| extent.len).sum();
        assert_eq!(Some(stored), metadata.allocated);
        assert_eq!(tree[&b"holes"[..]].len, 19 * 150_000 + 9000);
    }
}

#[test]
fn a_range_of_a_compressed_file_costs_no_more_than_the_units_it_is_in() {
    let volume = filled(32 * MIB, "-C -c 4096", "compression", compressible);
    let counted = Arc::new(volume.open());
    let reader = opened(counted.clone()).unwrap();
    let id = reader.lookup(reader.root(), b"text 1000000", Job::silent()).unwrap().unwrap();
    let data = reader.open(id).unwrap();
    let before = counted.bytes_read();
    for at in (200_000..250_000).step_by(100) {
        data.read_exact_at(&mut [0; 100], at).unwrap();
    }
    assert!(counted.bytes_read() - before <= 2 * 65_536);
}

#[test]
fn sectors_and_records_of_4096_bytes_are_read() {
    let volume = filled(48 * MIB, "-s 4096 -c 4096", "noatime", |root| tree(root, 4096));
    assert_as_driver(&volume);
}
