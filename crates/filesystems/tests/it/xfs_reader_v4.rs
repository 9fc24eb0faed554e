//! What the kernel here does not read: version 4 of XFS, and names without case. mkfs puts files
//! in, and xfs_db attributes; what went in has to come out.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aiv_filesystems::{FileId, FileType, Filesystem};
use aiv_volume_io::Job;
use tempfile::TempDir;

use crate::ext_tools::MIB;
use crate::reader_tools::{names, opened, tree_in};
use crate::tools::{Volume, noise, run};
use crate::xfs_tools::{field, mkfs, xfs_db};

/// Folders of all forms, files, links and devices, as `mkfs.xfs -p` wants to be told.
pub(crate) struct Content {
    dir: TempDir,
    sizes: Vec<usize>,
    links: Vec<usize>,
}

/// Of many lengths.
fn name_of(n: usize) -> String {
    format!("Name{n:0>width$}", width = 1 + n % 40)
}

impl Content {
    pub(crate) fn new() -> Self {
        Self::with_links(&[1, 100, 155, 156, 157, 300, 511, 512, 513, 1000, 1022])
    }

    fn with_links(links: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sizes = vec![0, 1, 511, 512, 513, 4095, 4096, 4097, 65_537, 400_000];
        for (n, &size) in sizes.iter().enumerate() {
            fs::write(dir.path().join(format!("file{n}")), noise(n as u64, size)).unwrap();
        }
        let source = |n: usize| dir.path().join(format!("file{n}")).display().to_string();
        let mut proto = "nothing\n1 1\nd--755 3 4\n".to_owned();
        for n in 0..sizes.len() {
            writeln!(proto, "File{n} -u-640 {n} 70000 {}", source(n)).unwrap();
        }
        for count in [0, 3, 20, 100, 1500] {
            writeln!(proto, "full{count} d--700 0 0").unwrap();
            for n in 0..count {
                writeln!(proto, "{} ---600 0 0 {}", name_of(n), source(n % 2)).unwrap();
            }
            proto += "$\n";
        }
        for &len in links {
            writeln!(proto, "link{len} l--777 0 0 {}", "t".repeat(len)).unwrap();
        }
        proto += "char c--600 0 0 4 64\nblock b--600 0 0 200 100000\npipe p--600 0 0\n$\n";
        fs::write(dir.path().join("proto"), proto).unwrap();
        Self { dir, sizes, links: links.to_vec() }
    }

    pub(crate) fn made(&self, options: &str) -> Volume {
        let proto = self.dir.path().join("proto");
        mkfs(64 * MIB, &format!("{options} -p {}", proto.display()))
    }
}

fn find(filesystem: &dyn Filesystem, folder: FileId, name: &str) -> FileId {
    let found = filesystem.lookup(folder, name.as_bytes(), Job::silent()).unwrap();
    found.unwrap_or_else(|| panic!("{name} is not found"))
}

/// Compares what is in the volume with what went in.
fn check(content: &Content, volume: &Volume) -> Box<dyn Filesystem> {
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    assert_eq!(filesystem.notes(), []);
    let tree = tree_in(&*filesystem);
    let seen = |path: &str| tree.get(path.as_bytes()).unwrap_or_else(|| panic!("{path}"));
    for (n, &size) in content.sizes.iter().enumerate() {
        let file = seen(&format!("File{n}"));
        assert_eq!((file.file_type, file.len), (FileType::File, size as u64));
        assert_eq!(
            (file.mode, file.owner),
            (Some(0o4640), Some((u32::try_from(n).unwrap(), 70_000)))
        );
        let data = filesystem.open(find(&*filesystem, filesystem.root(), &format!("File{n}")));
        let mut bytes = vec![0; size];
        data.unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == noise(n as u64, size), "File{n}");
    }
    for count in [0, 3, 20, 100, 1500] {
        let folder = find(&*filesystem, filesystem.root(), &format!("full{count}"));
        assert_eq!(names(&*filesystem, folder).len(), count);
        for n in 0..count {
            let name = name_of(n);
            let id = find(&*filesystem, folder, &name);
            assert_eq!(filesystem.metadata(id).unwrap().len, (n % 2) as u64, "{name}");
        }
    }
    for &len in &content.links {
        assert_eq!(seen(&format!("link{len}")).content, "t".repeat(len).as_bytes());
    }
    assert_eq!(seen("char").device, Some((4, 64)));
    assert_eq!(seen("block").device, Some((200, 100_000)));
    assert_eq!(seen("pipe").file_type, FileType::Pipe);
    assert_eq!(tree.len(), 1 + content.sizes.len() + 5 + 1623 + content.links.len() + 3);
    filesystem
}

#[test]
fn version_4_gives_what_mkfs_put_in() {
    let content = Content::new();
    for options in [
        "-m crc=0 -b size=512 -d agcount=2 -i size=256,attr=1,projid32bit=0 -l version=1 -n ftype=0",
        "-m crc=0 -b size=1024 -d agcount=3 -l lazy-count=0 -n size=8192 -n ftype=1",
        "-m crc=0 -b size=4096 -d agcount=2 -n ftype=0",
        "-m crc=0 -b size=4096 -s size=4096 -d agcount=2 -i size=2048 -n size=65536",
        "-m crc=0 -b size=32768 -d agcount=2 -n ftype=1",
    ] {
        check(&content, &content.made(options));
    }
}

#[test]
fn names_without_case_are_found_in_any() {
    // This mkfs forgets the headers of longer links in version 5, and no kernel reads those then.
    let content = Content::with_links(&[1, 100, 300]);
    for options in [
        "-b size=4096 -d agcount=2 -n version=ci",
        "-m crc=0 -b size=1024 -d agcount=2 -n version=ci",
    ] {
        let filesystem = check(&content, &content.made(options));
        let root = filesystem.root();
        assert_eq!(find(&*filesystem, root, "fIlE3"), find(&*filesystem, root, "File3"));
        for (folder, name) in [("full3", "nAME002"), ("FULL100", "NAME41"), ("fulL1500", "name0")] {
            let folder = find(&*filesystem, root, folder);
            find(&*filesystem, folder, name);
            let other = filesystem.lookup(folder, b"mame002", Job::silent()).unwrap();
            assert_eq!(other, None);
        }
    }
    // Where case counts, it does.
    let filesystem = check(&content, &content.made("-m crc=0 -b size=4096 -d agcount=2"));
    assert_eq!(filesystem.lookup(filesystem.root(), b"file3", Job::silent()).unwrap(), None);
}

#[test]
fn attributes_of_version_4_are_what_xfs_db_set() {
    let content = Content::new();
    for options in [
        "-m crc=0 -b size=512 -d agcount=2 -i size=256,attr=2",
        "-m crc=0 -b size=4096 -d agcount=2 -i attr=2",
    ] {
        let volume = content.made(options);
        let set = |file: &str, sets: &[(&str, String, usize)]| {
            let mut words = vec!["-x".to_owned(), "-f".to_owned()];
            words.extend(["-c".to_owned(), format!("path /{file}")]);
            for (class, name, len) in sets {
                words.extend(["-c".to_owned(), format!("attr_set {class} -v {len} {name}")]);
            }
            words.push(volume.path().to_owned());
            run("xfs_db", &words.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let classes = [("-u", "user"), ("-r", "trusted"), ("-s", "security")];
        let many = |count: usize| -> Vec<_> {
            (0..count).map(|n| (classes[n % 3].0, format!("name{n}"), 1 + n % 70)).collect()
        };
        set("File1", &many(3));
        set("File2", &many(20));
        set("File3", &many(200));
        set("File4", &[("-u", "large".to_owned(), 30_000), ("-u", "full".to_owned(), 65_536)]);
        let filesystem = opened(Arc::new(volume.open())).unwrap();
        let attributes = |file: &str| {
            let id = find(&*filesystem, filesystem.root(), file);
            let mut attributes = filesystem.attributes(id).unwrap();
            attributes.sort();
            attributes.into_iter().map(|one| (String::from_utf8(one.name).unwrap(), one.value))
        };
        for (file, count) in [("File0", 0), ("File1", 3), ("File2", 20), ("File3", 200)] {
            let mut expected: Vec<_> = (0..count)
                .map(|n| (format!("{}.name{n}", classes[n % 3].1), vec![b'v'; 1 + n % 70]))
                .collect();
            expected.sort();
            assert_eq!(attributes(file).collect::<Vec<_>>(), expected, "{options}: {file}");
        }
        let large = [("user.full", 65_536), ("user.large", 30_000)];
        let large = large.map(|(name, len)| (name.to_owned(), vec![b'v'; len]));
        assert!(attributes("File4").eq(large), "{options}");
    }
}

/// mkfs makes no file in many pieces. So one of its files gets a tree of extents, by hand; xfs_db
/// has to find what it found before.
#[test]
fn a_tree_of_extents_of_version_4() {
    const BLOCK: u64 = 4096;
    let content = Content::new();
    let volume = content.made("-m crc=0 -b size=4096 -d agcount=1 -i size=256");
    let number = opened(Arc::new(volume.open()))
        .map(|filesystem| find(&*filesystem, filesystem.root(), "File9").number)
        .unwrap();
    let words = xfs_db(&volume, &["path /File9", "bmap -d"]);
    let first: u64 = words.split_whitespace().nth(4).unwrap().parse().unwrap();
    let blocks = 400_000_u64.div_ceil(BLOCK);
    let free = field(&volume, "sb 0", "agblocks") - 4;
    let medium = File::options().write(true).open(&volume.path).unwrap();
    let block = |level: u16, count: u64| {
        let mut bytes = b"BMAP".to_vec();
        bytes.extend(level.to_be_bytes());
        bytes.extend(u16::try_from(count).unwrap().to_be_bytes());
        bytes.extend([0xff; 16]);
        bytes
    };
    // Two leaves of extents of one block each, a node over them, and the root in the inode.
    for (leaf, range) in [0..60, 60..blocks].into_iter().enumerate() {
        let mut bytes = block(0, range.end - range.start);
        for n in range {
            let address = first + n;
            bytes.extend((n << 9 | address >> 43).to_be_bytes());
            bytes.extend((address << 21 | 1).to_be_bytes());
        }
        medium.write_all_at(&bytes, (free + leaf as u64) * BLOCK).unwrap();
    }
    let mut node = block(1, 2);
    node.extend([0_u64, 60].into_iter().flat_map(u64::to_be_bytes));
    medium.write_all_at(&node, (free + 2) * BLOCK).unwrap();
    let room = (BLOCK - 24) / 16;
    let pointers: Vec<u8> = [free, free + 1].into_iter().flat_map(u64::to_be_bytes).collect();
    medium.write_all_at(&pointers, (free + 2) * BLOCK + 24 + 8 * room).unwrap();
    let inode = number * 256;
    medium.write_all_at(&[3], inode + 5).unwrap();
    medium.write_all_at(&u32::try_from(blocks).unwrap().to_be_bytes(), inode + 76).unwrap();
    let mut root = vec![0; 156];
    root[..4].copy_from_slice(&[0, 2, 0, 1]);
    let room = (156 - 4) / 16;
    root[4 + 8 * room..][..8].copy_from_slice(&(free + 2).to_be_bytes());
    medium.write_all_at(&root, inode + 100).unwrap();
    let words = xfs_db(&volume, &["path /File9", "bmap -d"]);
    assert_eq!(words.lines().count() as u64, blocks, "{words}");
    check(&content, &volume);
    // One extent more than the inode knows of.
    medium.write_all_at(&u32::try_from(blocks - 1).unwrap().to_be_bytes(), inode + 76).unwrap();
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    assert!(filesystem.open(FileId { space: 0, number }).is_err());
}
