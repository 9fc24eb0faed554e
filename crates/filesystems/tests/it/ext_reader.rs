//! Files of ext volumes, read: the same as the kernel reads.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::XattrFlags;

use crate::ext_tools::{MIB, mke2fs};
use crate::reader_tools::{Tree, assert_same, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

/// Names that are no plain words: not UTF-8, of 255 bytes, and such as shells trip over.
const NAMES: [&[u8]; 9] = [
    b"\xff\xfe no utf-8 \x80",
    "\u{e9}t\u{e9} \u{1f600} \u{65e5}\u{672c}".as_bytes(),
    b"new\nline",
    b" ",
    b"-rf *",
    b"...",
    b"back\\slash",
    &[b'n'; 255],
    b"\x01\x7f",
];

/// Sizes on either side of blocks, and of where maps get another level.
fn sizes(root: &Path) {
    let block = 1024;
    for (n, blocks) in [0, 1, 2, 4, 12, 13, 64, 12 + 256, 12 + 256 + 3].into_iter().enumerate() {
        for more in [-1i64, 0, 1] {
            let Ok(len) = usize::try_from(blocks * block + more) else { continue };
            fs::write(root.join(format!("size {len}")), noise(n as u64, len)).unwrap();
        }
    }
    for len in [59, 60, 61, 100, 150, 160] {
        fs::write(root.join(format!("small {len}")), noise(len as u64, len)).unwrap();
    }
}

/// Files with holes, in thousands of pieces, and with blocks that were never written.
fn maps(root: &Path) {
    let path = root.join("begins with an indirect hole");
    File::create(path).unwrap().write_all_at(&noise(1, 3000), 400_000).unwrap();
    let holes = File::create(root.join("holes")).unwrap();
    for n in 0..2500 {
        holes.write_all_at(&noise(n, 1024), n * 8192).unwrap();
    }
    holes.set_len(30 << 20).unwrap();
    let only = File::create(root.join("nothing but a hole")).unwrap();
    only.set_len(5_000_001).unwrap();
    // Two that grow in turns.
    let two = ["one", "other"].map(|name| File::create(root.join(name)).unwrap());
    for n in 0..200 {
        for (file, seed) in two.iter().zip([1000, 2000]) {
            file.write_all_at(&noise(seed + n, 1500), n * 1500).unwrap();
            file.sync_data().unwrap();
        }
    }
}

/// Blocks that are a file's and were never written.
fn preallocated(root: &Path) {
    let path = root.join("preallocated");
    run("fallocate", &["-l", "700000", path.to_str().unwrap()]);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&noise(5, 10_000), 50_000).unwrap();
    file.write_all_at(&noise(6, 10), 699_990).unwrap();
    let beyond = root.join("preallocated beyond its end");
    fs::write(&beyond, noise(7, 5000)).unwrap();
    run("fallocate", &["-n", "-l", "300000", beyond.to_str().unwrap()]);
}

fn folders(root: &Path) {
    let large = root.join("large");
    fs::create_dir(&large).unwrap();
    for n in 0..4000 {
        File::create(large.join(format!("one name of many, of which this is {n}"))).unwrap();
    }
    for n in (0..4000).step_by(3) {
        fs::remove_file(large.join(format!("one name of many, of which this is {n}"))).unwrap();
    }
    let deep: std::path::PathBuf = (0..60).map(|n| format!("level {n}")).collect();
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(deep).join("at last"), b"down here").unwrap();
    let names = root.join("names");
    fs::create_dir(&names).unwrap();
    for name in NAMES {
        fs::write(names.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
    fs::hard_link(names.join(" "), root.join("second name")).unwrap();
    fs::hard_link(names.join(" "), root.join("empty/third name")).unwrap();
}

fn special(root: &Path) {
    for (name, kind, major, minor) in
        [("null", "c", "1", "3"), ("disk", "b", "8", "17"), ("big", "c", "300", "70000")]
    {
        run("mknod", &[root.join(name).to_str().unwrap(), kind, major, minor]);
    }
    run("mkfifo", &[root.join("pipe").to_str().unwrap()]);
    drop(UnixListener::bind(root.join("socket")).unwrap());
    for len in [1, 58, 59, 60, 61, 159, 1000] {
        let target = "/target".repeat(200);
        symlink(&target[..len], root.join(format!("link {len}"))).unwrap();
    }
    symlink(OsStr::from_bytes(b"\xff\xfe"), root.join("link to no utf-8")).unwrap();
}

pub(crate) fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Attributes in inodes and blocks of their own, one shared, and access control lists.
fn attributes(root: &Path) {
    let dir = root.join("attributes");
    fs::create_dir(&dir).unwrap();
    for n in 0..20 {
        let path = dir.join(format!("file {n}"));
        fs::write(&path, noise(n, 100)).unwrap();
        set(&path, "user.number", n.to_string().as_bytes());
        if n % 2 == 0 {
            set(&path, "user.same in all", &noise(77, 600));
        }
        if n % 5 == 0 {
            set(&path, "trusted.\u{fc}ber", &noise(n, 40));
            set(&path, "security.test", b"");
        }
    }
    set(&dir, "user.of a folder", b"\0\xff");
    symlink("nowhere", dir.join("link")).unwrap();
    set(&dir.join("link"), "trusted.of a link", &noise(3, 300));
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    run("setfacl", &["-m", "u:1000:rw,g:70000:r,u:4000000000:x", &path("file 1")]);
    run("setfacl", &["-m", "u:2:rwx,m::r", &path("file 2")]);
    run("setfacl", &["-d", "-m", "u:5:rx,g:6:w", &path("")]);
}

fn times_and_owners(root: &Path) {
    let epoch = SystemTime::UNIX_EPOCH;
    let nano = Duration::from_nanos(123_456_789);
    for (name, time) in [
        ("epoch", epoch),
        ("before", epoch - Duration::from_secs(1_000_000_000) + nano),
        ("1901", epoch - Duration::from_secs(1 << 31)),
        ("now", epoch + Duration::from_secs(1_700_000_000) + nano),
        ("2038", epoch + Duration::from_secs(1 << 31)),
        ("2100", epoch + Duration::from_secs(4_102_444_800) + nano),
        ("2440", epoch + Duration::from_secs(14_831_769_600) + nano),
    ] {
        let file = File::create(root.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    }
    for (name, mode, user, group) in [
        ("nobody", 0o000, 65534, 65534),
        ("all bits", 0o7777, 65_536, 70_000),
        ("large", 0o640, 4_294_967_294, 1 << 31),
    ] {
        let path = root.join(format!("owned by {name}"));
        fs::write(&path, name).unwrap();
        lchown(&path, Some(user), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
}

pub(crate) fn everything(root: &Path) {
    sizes(root);
    maps(root);
    folders(root);
    special(root);
    attributes(root);
    times_and_owners(root);
}

pub(crate) fn of_kernel(volume: &Volume) -> Tree {
    tree_of_mount(Mounted::new(volume, "ro").path())
}

/// The reader and the kernel say the same of a volume that the kernel has filled.
fn check(mib: u64, options: &str, fill: impl Fn(&Path)) -> Tree {
    let volume = mke2fs(mib * MIB, options);
    let mounted = Mounted::new(&volume, "rw,user_xattr,acl");
    fill(mounted.path());
    drop(mounted);
    let ours = tree_of(&volume);
    assert_same(&ours, &of_kernel(&volume));
    ours
}

#[test]
fn files_of_ext4_are_what_the_kernel_reads() {
    let ours = check(64, "-t ext4 -b 4096", |root| {
        everything(root);
        preallocated(root);
    });
    assert!(ours.len() > 2800, "{}", ours.len());
    check(64, "-t ext4 -b 1024 -g 2048 -N 20000", |root| {
        everything(root);
        preallocated(root);
    });
}

#[test]
fn so_are_those_of_small_inodes_and_of_ext2_and_ext3() {
    let fill = |root: &Path| {
        sizes(root);
        maps(root);
        folders(root);
        special(root);
    };
    check(64, "-t ext2 -b 1024 -I 128 -N 20000", fill);
    check(64, "-t ext3 -b 4096 -O ^dir_index,^filetype -N 20000", fill);
    check(64, "-t ext4 -b 2048 -O ^64bit,^metadata_csum,uninit_bg,^extent -N 20000", |root| {
        fill(root);
        attributes(root);
        times_and_owners(root);
    });
}

#[test]
fn so_are_those_within_inodes() {
    let fill = |root: &Path| {
        everything(root);
        preallocated(root);
        // Folders that grow out of the inode, and such as do not.
        for count in [1, 2, 3, 4, 5, 8, 12, 20, 60] {
            let folder = root.join(format!("folder of {count}"));
            fs::create_dir(&folder).unwrap();
            for n in 0..count {
                fs::write(folder.join(format!("name {n}")), noise(n, 40)).unwrap();
            }
            fs::remove_file(folder.join("name 0")).unwrap();
        }
        let grown = root.join("grown");
        fs::write(&grown, noise(3, 80)).unwrap();
        File::options().write(true).open(&grown).unwrap().set_len(130).unwrap();
    };
    check(64, "-t ext4 -b 4096 -O inline_data -N 20000", fill);
    check(64, "-t ext4 -b 1024 -I 512 -O inline_data,^metadata_csum -N 20000", fill);
}

#[test]
fn so_are_those_in_clusters_and_groups_of_groups() {
    let fill = |root: &Path| {
        everything(root);
        preallocated(root);
    };
    check(192, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 4096 -N 20000", fill);
    check(64, "-t ext4 -b 2048 -O large_dir,^flex_bg,sparse_super2 -N 20000", fill);
}

#[test]
fn so_are_attributes_in_inodes_of_their_own() {
    check(32, "-t ext4 -b 1024 -O ea_inode", |root| {
        attributes(root);
        for (n, len) in [900, 3000, 5000, 20_000, 60_000].into_iter().enumerate() {
            for copy in ["a", "b"] {
                let path = root.join(format!("{copy} {len}"));
                fs::write(&path, []).unwrap();
                set(&path, "user.large", &noise(n as u64, len));
                set(&path, "user.larger", &noise(99, len + 5));
            }
        }
    });
    check(32, "-t ext4 -b 4096 -O ea_inode,^metadata_csum", |root| {
        fs::write(root.join("a"), []).unwrap();
        set(&root.join("a"), "user.large", &noise(1, 50_000));
    });
}
