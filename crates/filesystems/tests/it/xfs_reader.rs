//! Files of XFS, read: all that the kernel says of them, by our own reader.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{FileFlags, FileType, Filesystem, ReaderNote, Timestamp};
use aiv_volume_io::{Job, ReadAt};
use rustix::fs::{FileType as Node, Mode, XattrFlags};

use crate::ext_tools::MIB;
use crate::reader_tools::{Tree, assert_same, names, opened, tree_in, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};
use crate::xfs_tools::{MOUNT, field, mkfs, xfs_db};

/// What the reader says is what the kernel says; both of the same bytes.
fn check(volume: &Volume) -> Tree {
    let ours = tree_of(volume);
    let mounted = Mounted::new(volume, "ro,norecovery,nouuid");
    let mut theirs = tree_of_mount(mounted.path());
    // Linux has two names for a list of access.
    for seen in theirs.values_mut() {
        seen.attributes.retain(|name, _| !name.starts_with(b"trusted.SGI_ACL_"));
    }
    assert_same(&ours, &theirs);
    ours
}

fn file_system(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

/// Files of all sizes around the borders of blocks, with holes, and in all types.
fn fill(root: &Path) {
    for block in [512_usize, 1024, 4096, 65_536] {
        for size in [0, 1, block - 1, block, block + 1, 3 * block + 17] {
            fs::write(root.join(format!("{block}-{size}")), noise(size as u64, size)).unwrap();
        }
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    for n in 0..40 {
        sparse.write_all_at(&noise(n, 700), n * 30_011).unwrap();
    }
    sparse.set_len(5_000_000).unwrap();
    let allocated = File::create(root.join("allocated")).unwrap();
    rustix::fs::fallocate(&allocated, rustix::fs::FallocateFlags::empty(), 0, 300_000).unwrap();
    allocated.write_all_at(&noise(1, 5000), 100_000).unwrap();
    let more = rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&allocated, more, 300_000, 200_000).unwrap();
    let far = File::create(root.join("far")).unwrap();
    far.write_all_at(b"far away", (1 << 43) + 12_345).unwrap();
    fs::remove_file(root.join("far")).unwrap();
    let mut deep = root.to_owned();
    for n in 0..30 {
        deep.push(format!("level {n}"));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("file"), noise(n, 100)).unwrap();
    }
    fs::hard_link(root.join("sparse"), deep.join("link")).unwrap();
    for (n, name) in
        ["\u{f6}\u{1f600}".as_bytes(), b"\xff\xfe\x80", &[b'n'; 255], b"...", b" ", b"\n\t\\"]
            .into_iter()
            .enumerate()
    {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::write(root.join(name), noise(n as u64, n * 1000)).unwrap();
    }
    for len in [1, 50, 300, 335, 336, 337, 400, 511, 968, 1000, 1023] {
        symlink("t".repeat(len), root.join(format!("symlink {len}"))).unwrap();
    }
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, Mode::RUSR, device).unwrap();
    };
    node("char", Node::CharacterDevice, rustix::fs::makedev(4, 64));
    node("block", Node::BlockDevice, rustix::fs::makedev(511, 200_000));
    node("pipe", Node::Fifo, 0);
    node("socket", Node::Socket, 0);
    for (n, (seconds, nanoseconds)) in
        [(-1_000_000_000, 999_999_999), (0, 1), (i32::MAX.into(), 5), (-1, 0)]
            .into_iter()
            .enumerate()
    {
        set_time(&root.join("4096-1"), seconds, nanoseconds);
        fs::copy(root.join("4096-1"), root.join(format!("time {n}"))).unwrap();
        set_time(&root.join(format!("time {n}")), seconds, nanoseconds);
    }
    fs::set_permissions(root.join("512-1"), fs::Permissions::from_mode(0o6751)).unwrap();
    std::os::unix::fs::chown(root.join("512-1"), Some(70_000), Some(4_000_000_000)).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn files_are_what_the_kernel_says_in_all_variants_of_mkfs() {
    for (mib, options) in [
        (48, "-b size=4096 -d agcount=3"),
        (48, "-b size=1024 -d agcount=2 -i size=512"),
        (64, "-b size=2048 -d agcount=2 -i size=1024 -n size=8192"),
        (48, "-b size=4096 -s size=4096 -i size=2048 -d agcount=2 -n size=65536"),
        (48, "-b size=4096 -d agcount=2 -m rmapbt=1,reflink=1,bigtime=1 -i nrext64=1"),
        (
            48,
            "-b size=1024 -d agcount=2 -m bigtime=0,reflink=0,finobt=0,inobtcount=0 -i sparse=0,nrext64=0",
        ),
    ] {
        let volume = mkfs(mib * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        fill(mounted.path());
        drop(mounted);
        let tree = check(&volume);
        assert!(tree.len() > 100, "{options}: {}", tree.len());
        assert_eq!(file_system(&volume).notes(), []);
    }
}

fn fill_folder(folder: &Path, count: usize) {
    fs::create_dir(folder).unwrap();
    for n in 0..count {
        File::create(folder.join(format!("{:>1$}", n, 5 + n % 60))).unwrap();
    }
}

/// In the inode, in a block, with one leaf, with a tree over leaves; then with gaps.
#[test]
fn folders_of_all_forms_and_with_deletions() {
    for options in
        ["-b size=4096 -d agcount=2", "-b size=1024 -d agcount=2", "-b size=1024 -n size=16384"]
    {
        let volume = mkfs(64 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        for count in [0, 1, 3, 20, 60, 200, 700, 4000] {
            fill_folder(&mounted.path().join(format!("full{count}")), count);
            let gaps = mounted.path().join(format!("gaps{count}"));
            fill_folder(&gaps, count);
            for (n, entry) in fs::read_dir(&gaps).unwrap().enumerate() {
                if n % 3 != 0 || count == 700 && n > 100 {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
        }
        drop(mounted);
        let tree = check(&volume);
        assert!(tree.len() > 6000, "{}", tree.len());
        let filesystem = file_system(&volume);
        let root = filesystem.root();
        let full = filesystem.lookup(root, b"full4000", Job::silent()).unwrap().unwrap();
        for (name, id) in names(&*filesystem, full) {
            assert_eq!(filesystem.lookup(full, &name, Job::silent()).unwrap(), Some(id));
        }
        let block = field(&volume, "sb 0", "blocksize") << field(&volume, "sb 0", "dirblklog");
        let forms = ["full3", "full20", "full60", "full200", "full4000"].map(|folder| {
            let core = xfs_db(&volume, &[&format!("path /{folder}"), "print core.format"]);
            (core.contains("local"), field(&volume, &format!("path /{folder}"), "core.size"))
        });
        assert!(forms[0].0, "in the inode");
        assert!(forms.contains(&(false, block)), "in one block: {forms:?}");
        assert!(forms[4].1 > block, "with an index");
    }
}

/// Thousands of extents: a tree of several levels.
#[test]
fn files_in_thousands_of_pieces() {
    for (options, count, levels) in [
        ("-b size=1024 -d agcount=1 -m reflink=1", 3000, 2),
        ("-b size=4096 -d agcount=2 -i nrext64=1", 1000, 1),
    ] {
        let volume = mkfs(96 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        let file = File::create(mounted.path().join("pieces")).unwrap();
        for n in 0..count {
            file.write_all_at(&noise(n, 200), n * 8192).unwrap();
        }
        drop(file);
        let words = ["pieces", "shared"].map(|name| mounted.path().join(name));
        let words = words.each_ref().map(|path| path.to_str().unwrap());
        run("cp", &["--reflink=always", words[0], words[1]]);
        let shared = File::options().write(true).open(words[1]).unwrap();
        shared.write_all_at(&noise(7, 50_000), 1_000_000).unwrap();
        drop(shared);
        drop(mounted);
        let level = xfs_db(&volume, &["path /pieces", "print u3.bmbt.level"]);
        assert!(level.contains(&format!("level = {levels}")), "{level}");
        check(&volume);
        let filesystem = file_system(&volume);
        let find = |name: &[u8]| {
            filesystem.lookup(filesystem.root(), name, Job::silent()).unwrap().unwrap()
        };
        let extents = filesystem.open(find(b"pieces")).unwrap().extents().unwrap();
        assert_eq!(extents.len() as u64, count);
        let marks = filesystem.metadata(find(b"shared")).unwrap().flags;
        assert!(marks.contains(FileFlags::SHARED));
    }
}

#[test]
fn a_file_of_nearly_the_largest_size_is_read_at_its_end_at_once() {
    let volume = mkfs(48 * MIB, "-b size=4096 -d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    let file = File::create(mounted.path().join("far")).unwrap();
    let end = i64::MAX as u64 - 4095;
    file.write_all_at(b"the end", end - 7).unwrap();
    drop(file);
    drop(mounted);
    let filesystem = file_system(&volume);
    let far = filesystem.lookup(filesystem.root(), b"far", Job::silent()).unwrap().unwrap();
    let data = filesystem.open(far).unwrap();
    assert_eq!(data.len(), end);
    let mut out = [1; 20];
    data.read_exact_at(&mut out, end - 20).unwrap();
    assert_eq!(&out, b"\0\0\0\0\0\0\0\0\0\0\0\0\0the end");
    data.read_exact_at(&mut out, 1 << 50).unwrap();
    assert_eq!(out, [0; 20]);
}

#[test]
fn what_is_left_of_a_volume_that_was_cut_off_is_read() {
    let volume = mkfs(48 * MIB, "-b size=4096 -d agcount=3");
    let mounted = Mounted::new(&volume, MOUNT);
    fill(mounted.path());
    drop(mounted);
    let sound = tree_of(&volume);
    volume.set_len(40 * MIB);
    let filesystem = file_system(&volume);
    assert!(filesystem.notes().contains(&ReaderNote::CutOff { missing: 8 * MIB }));
    let mut same = 0;
    for (name, id) in names(&*filesystem, filesystem.root()) {
        same += usize::from(
            filesystem.metadata(id).is_ok_and(|metadata| metadata.len == sound[&name].len),
        );
    }
    assert!(same > 30, "{same}");
}

/// In the inode, in a leaf, in a tree over leaves, with values in blocks of their own.
#[test]
fn attributes_of_all_forms_and_classes_and_access_lists() {
    for options in [
        "-b size=4096 -d agcount=2",
        "-b size=1024 -d agcount=2",
        "-b size=4096 -d agcount=2 -i size=2048,nrext64=1",
    ] {
        let volume = mkfs(64 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        let set = |path: &Path, name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
        };
        for count in [1, 5, 30, 100, 1000] {
            let path = mounted.path().join(format!("many {count}"));
            fs::write(&path, b"x").unwrap();
            for n in 0..count {
                set(&path, &format!("user.name {n}"), &noise(n, usize::try_from(n % 60).unwrap()));
            }
            for n in (0..count).filter(|n| n % 4 == 3) {
                rustix::fs::removexattr(&path, format!("user.name {n}")).unwrap();
            }
        }
        for len in [0, 255, 256, 900, 1000, 4000, 4096, 20_000, 65_536] {
            let path = mounted.path().join(format!("large {len}"));
            fs::create_dir(&path).unwrap();
            set(&path, "user.large", &noise(len, usize::try_from(len).unwrap()));
            set(&path, "trusted.some", b"");
            set(&path, "security.some", b"value");
            set(&path, &format!("user.{}", "n".repeat(250)), b"long name");
        }
        let listed = mounted.path().join("large 4000");
        let path = listed.to_str().unwrap();
        run("setfacl", &["-m", "u:1000:rwx,g:2000:r,u:70000:-,m::rx", path]);
        run("setfacl", &["-d", "-m", "u:1000:rw,o::-", path]);
        fs::write(listed.join("inherits"), b"x").unwrap();
        symlink("nowhere", mounted.path().join("link")).unwrap();
        set(&mounted.path().join("link"), "trusted.of a link", b"1");
        drop(mounted);
        let tree = check(&volume);
        let attributes = &tree[&b"large 4000".to_vec()].attributes;
        assert!(attributes.contains_key(&b"system.posix_acl_default".to_vec()));
        assert!(tree[&b"large 4000/inherits".to_vec()].attributes.len() == 1);
    }
}

#[test]
fn marks_and_the_times_only_a_record_knows() {
    let volume = mkfs(48 * MIB, "-d agcount=2 -m bigtime=1");
    let mounted = Mounted::new(&volume, MOUNT);
    let path = |name: &str| mounted.path().join(name);
    for name in ["plain", "immutable", "append", "nodump"] {
        fs::write(path(name), b"x").unwrap();
    }
    set_time(&path("plain"), 10_000_000_000, 123_456_789);
    for (mark, name) in [("+i", "immutable"), ("+a", "append"), ("+d", "nodump")] {
        run("chattr", &[mark, path(name).to_str().unwrap()]);
    }
    let made = fs::metadata(path("plain")).unwrap().created().unwrap();
    drop(mounted);
    let filesystem = file_system(&volume);
    let metadata = |name: &[u8]| {
        let id = filesystem.lookup(filesystem.root(), name, Job::silent()).unwrap().unwrap();
        filesystem.metadata(id).unwrap()
    };
    let plain = metadata(b"plain");
    let since = made.duration_since(std::time::UNIX_EPOCH).unwrap();
    let expected = Timestamp::utc(since.as_secs().cast_signed(), since.subsec_nanos());
    assert_eq!(plain.created, Some(expected));
    assert_eq!(plain.accessed, Some(Timestamp::utc(10_000_000_000, 123_456_789)));
    assert_eq!(plain.modified, plain.accessed);
    assert_eq!(plain.allocated, Some(4096));
    assert_eq!(plain.flags, FileFlags::default());
    assert_eq!(metadata(b"immutable").flags, FileFlags::IMMUTABLE);
    assert_eq!(metadata(b"append").flags, FileFlags::APPEND_ONLY);
    assert_eq!(metadata(b"nodump").flags, FileFlags::NO_DUMP);
    assert_eq!(filesystem.metadata(filesystem.root()).unwrap().file_type, FileType::Folder);
}

#[test]
fn a_copy_of_a_damaged_superblock_is_used() {
    for options in ["-b size=4096 -d agcount=4", "-b size=1024 -d agcount=2", "-d agcount=3"] {
        let volume = mkfs(64 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        fill(mounted.path());
        drop(mounted);
        let sound = tree_of(&volume);
        // Its checksum; the size of blocks, so that nothing says where groups begin; all but the magic.
        for damage in [20..21_u64, 4..8, 8..512] {
            let copy = volume.duplicate();
            let file = File::options().write(true).open(&copy.path).unwrap();
            let len = usize::try_from(damage.end - damage.start).unwrap();
            file.write_all_at(&vec![0x55; len], damage.start).unwrap();
            let filesystem = file_system(&copy);
            let notes = filesystem.notes();
            assert!(
                matches!(notes, [ReaderNote::CopyUsed { .. }]),
                "{options} {damage:?} {notes:?}"
            );
            assert_same(&tree_in(&*filesystem), &sound);
        }
    }
}
