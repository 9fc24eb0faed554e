//! Files on XFS volumes of an attacker, one kind of damage at a time: no file that is damaged hides
//! another one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;

use aiv_filesystems::{Error, FileId, Filesystem, ReaderNote};
use aiv_volume_io::Job;
use rustix::fs::XattrFlags;

use crate::ext_tools::MIB;
use crate::tools::{Mounted, Volume, noise};
use crate::xfs_forge::Forged;
use crate::xfs_tools::{MOUNT, mkfs};

fn fill(root: &Path) {
    let set = |path: &Path, name: &str, len: usize| {
        let value = noise(len as u64, len);
        rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty()).unwrap();
    };
    for (folder, count) in [("short", 3), ("block", 12), ("large", 400), ("node", 800)] {
        let folder = root.join(folder);
        fs::create_dir(&folder).unwrap();
        for n in 0..count {
            let file = folder.join(format!("file{n}"));
            match n {
                0..10 => fs::write(file, noise(n, 10)).unwrap(),
                _ => fs::hard_link(folder.join("file0"), file).unwrap(),
            }
        }
    }
    for (file, count) in [("few", 3), ("leaf", 12), ("many", 200)] {
        let file = root.join(file);
        fs::write(&file, b"some bytes").unwrap();
        for n in 0..count {
            set(&file, &format!("user.name{n}"), n % 50);
        }
        set(&file, "trusted.large", 5000);
    }
    let pieces = fs::File::create(root.join("pieces")).unwrap();
    for n in 0..300 {
        std::os::unix::fs::FileExt::write_all_at(&pieces, &noise(n, 100), n * 8192).unwrap();
    }
    symlink("t".repeat(900), root.join("link")).unwrap();
    symlink("short", root.join("short link")).unwrap();
}

pub(crate) fn volume(options: &str) -> Volume {
    let volume = mkfs(32 * MIB, options);
    fill(Mounted::new(&volume, MOUNT).path());
    volume
}

static SOUND: LazyLock<Forged> =
    LazyLock::new(|| Forged::new(&volume("-b size=1024 -d agcount=2")));

pub(crate) fn sound() -> Forged {
    SOUND.clone()
}

/// Names that are told, and the error behind them.
fn told(filesystem: &dyn Filesystem, folder: FileId) -> (Vec<String>, Option<Error>) {
    let mut names = Vec::new();
    let read = filesystem.entries(folder, Job::silent(), &mut |entry| {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
        std::ops::ControlFlow::Continue(())
    });
    (names, read.err())
}

fn fault<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Damaged { what, .. }) => what,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it is read"),
    }
}

#[test]
fn a_damaged_inode_hides_no_other() {
    let mut forged = sound();
    let inode = forged.inode_of("large/file7");
    forged.bytes[inode + 40] ^= 1;
    let filesystem = forged.open().unwrap();
    let (names, error) = told(&*filesystem, forged.find("large"));
    assert_eq!((names.len(), error.is_none()), (400, true));
    let failed = filesystem.metadata(forged.find("large/file7"));
    assert!(fault(failed).contains("checksum is wrong"));
    filesystem.metadata(forged.find("large/file8")).unwrap();
}

#[test]
fn an_inode_of_another_place_is_not_believed() {
    let mut forged = sound();
    let [from, to] = ["large/file7", "large/file8"].map(|path| forged.inode_of(path));
    let bytes = forged.bytes[from..from + forged.inode].to_vec();
    forged.put(to, &bytes);
    let filesystem = forged.open().unwrap();
    assert!(fault(filesystem.metadata(forged.find("large/file8"))).contains("another place"));
}

#[test]
fn numbers_that_are_no_inodes_are_damage() {
    let forged = sound();
    let filesystem = forged.open().unwrap();
    for (space, number) in [(0, 0), (0, u64::MAX), (0, 1 << 40), (1, 64), (0, 3000), (0, 65_000)] {
        let id = FileId { space, number };
        assert!(matches!(filesystem.metadata(id), Err(Error::Damaged { .. })), "{number}");
        assert!(matches!(filesystem.open(id).err(), Some(Error::Damaged { .. })), "{number}");
        assert!(told(&*filesystem, id).1.is_some(), "{number}");
    }
}

/// Blocks that belong to a folder and begin like this.
fn blocks_of(
    forged: &Forged,
    folder: &str,
    magic: &[u8],
    magic_at: usize,
    owner_at: usize,
) -> Vec<usize> {
    let owner = forged.find(folder).number;
    let is_it = |at: &usize| {
        forged.bytes[at + magic_at..].starts_with(magic) && forged.be(at + owner_at, 8) == owner
    };
    (0..forged.bytes.len()).step_by(forged.block).filter(is_it).collect()
}

#[test]
fn names_beside_a_damaged_block_are_told_and_the_damage_comes_last() {
    let mut forged = sound();
    let blocks = blocks_of(&forged, "large", b"XDD3", 0, 40);
    assert!(blocks.len() > 2, "{blocks:?}");
    forged.bytes[blocks[1] + 500] ^= 0x40;
    let filesystem = forged.open().unwrap();
    let (names, error) = told(&*filesystem, forged.find("large"));
    assert!((150..300).contains(&names.len()), "{}", names.len());
    assert!(error.unwrap().to_string().contains("wrong checksum"));
}

#[test]
fn a_block_of_names_of_another_folder_or_place_is_not_believed() {
    for field in [8, 24, 40] {
        let mut forged = sound();
        let block = blocks_of(&forged, "large", b"XDD3", 0, 40)[1];
        let folder = forged.find("large");
        forged.bytes[block + field + 7] ^= 1;
        forged.seal(block, forged.folder_block, 4);
        let (names, error) = told(&*forged.open().unwrap(), folder);
        assert!(names.len() < 400 && error.is_some(), "{field}");
    }
}

#[test]
fn a_damaged_index_is_gone_without() {
    for folder in ["large", "node"] {
        for mend in [true, false] {
            let mut forged = sound();
            let names = told(&*forged.open().unwrap(), forged.find(folder)).0;
            let id = forged.find(folder);
            for magic in [[0x3d, 0xf1], [0x3d, 0xff], [0x3e, 0xbe]] {
                for block in blocks_of(&forged, folder, &magic, 8, 48) {
                    // Where the entries are, and then the count of them.
                    let at = block + if magic[0] == 0x3e { 68 } else { 56 };
                    forged.put(at, &[0xff; 4]);
                    if mend {
                        forged.seal(block, forged.folder_block, 12);
                    }
                }
            }
            let filesystem = forged.open().unwrap();
            for name in names.iter().step_by(97) {
                let found = filesystem.lookup(id, name.as_bytes(), Job::silent()).unwrap();
                assert!(found.is_some(), "{folder}: {name}");
            }
            assert_eq!(filesystem.lookup(id, b"nobody", Job::silent()).unwrap(), None);
        }
    }
}

#[test]
fn an_index_in_circles_ends() {
    let mut forged = sound();
    let folder = forged.find("node");
    let nodes = blocks_of(&forged, "node", &[0x3e, 0xbe], 8, 48);
    assert!(!nodes.is_empty());
    let first = u32::try_from((1_u64 << 35) / forged.block as u64).unwrap();
    for node in nodes {
        for n in 0..usize::try_from(forged.be(node + 56, 2)).unwrap() {
            forged.put(node + 64 + n * 8 + 4, &first.to_be_bytes());
        }
        forged.seal(node, forged.folder_block, 12);
    }
    let filesystem = forged.open().unwrap();
    assert!(filesystem.lookup(folder, b"file77", Job::silent()).unwrap().is_some());
}

#[test]
fn names_that_are_none_are_not_told() {
    for name in [&b"f/le"[..], b"fi\0e"] {
        let mut forged = sound();
        let folder = forged.find("short");
        let inode = forged.inode_of("short");
        let at =
            inode + forged.bytes[inode..][..512].windows(4).position(|w| w == b"file").unwrap();
        forged.put(at, name);
        forged.seal(inode, forged.inode, 100);
        let (names, error) = told(&*forged.open().unwrap(), folder);
        assert_eq!(names, ["file1", "file2"]);
        assert!(error.unwrap().to_string().contains("a name that is none"));
    }
}

#[test]
fn a_folder_that_uses_a_block_twice_is_damaged() {
    let mut forged = sound();
    let (folder, inode) = (forged.find("node"), forged.inode_of("node"));
    assert!(forged.be(inode + 76, 4) > 1 && forged.bytes[inode + 5] == 2);
    // The second extent gets the place of the first.
    let first = forged.be(inode + 176 + 8, 8) >> 21;
    let second = forged.be(inode + 176 + 24, 8);
    forged.put(inode + 176 + 24, &(first << 21 | second & 0x1f_ffff).to_be_bytes());
    forged.seal(inode, forged.inode, 100);
    let error = told(&*forged.open().unwrap(), folder).1;
    assert!(error.unwrap().to_string().contains("uses a block twice"));
}

/// The root of the tree of extents of a file: its inode, and where its pointers are.
fn tree_of_pieces(forged: &Forged) -> (usize, usize) {
    let inode = forged.inode_of("pieces");
    assert_eq!(forged.bytes[inode + 5], 3, "no tree");
    let border = usize::from(forged.bytes[inode + 82]) * 8;
    let fork = if border == 0 { forged.inode - 176 } else { border };
    (inode, inode + 176 + 4 + (fork - 4) / 16 * 8)
}

#[test]
fn trees_of_extents_that_are_none_are_damage() {
    let (inode, pointers) = tree_of_pieces(&sound());
    let cases: [(usize, &[u8]); 7] = [
        (inode + 176, &[0, 0]),
        (inode + 176, &[0, 200]),
        (inode + 176, &[0, 2]),
        (inode + 178, &[0, 0]),
        (inode + 178, &[0xff, 0xff]),
        (pointers, &[0xff; 8]),
        (inode + 76, &[0, 0, 0, 1]),
    ];
    for (at, bytes) in cases {
        let mut forged = sound();
        let file = forged.find("pieces");
        forged.put(at, bytes);
        forged.seal(inode, forged.inode, 100);
        let filesystem = forged.open().unwrap();
        assert!(fault(filesystem.open(file)).contains("a fork of inode"), "{at} {bytes:?}");
        filesystem.metadata(file).unwrap();
    }
}

#[test]
fn a_leaf_of_extents_twice_or_of_another_file_is_damage() {
    let (inode, pointers) = tree_of_pieces(&sound());
    let mut forged = sound();
    let file = forged.find("pieces");
    let first = forged.bytes[pointers..pointers + 8].to_vec();
    forged.put(pointers + 8, &first);
    forged.seal(inode, forged.inode, 100);
    assert!(fault(forged.open().unwrap().open(file)).contains("out of order"));
    for (field, what) in [(24, "another place"), (40, "another filesystem"), (56, "another file")] {
        let mut forged = sound();
        let leaf = forged.block_at(forged.be(pointers, 8));
        forged.bytes[leaf + field + 7] ^= 1;
        assert!(fault(forged.open().unwrap().open(file)).contains("wrong checksum"));
        forged.seal(leaf, forged.block, 64);
        assert!(fault(forged.open().unwrap().open(file)).contains(what));
    }
}

#[test]
fn lengths_and_extents_outside_of_everything() {
    let file = sound().find("few");
    let read = |at: usize, bytes: &[u8]| {
        let mut forged = sound();
        forged.change_inode("few", at, bytes);
        let filesystem = forged.open().unwrap();
        let data = filesystem.open(file)?;
        let mut out = [1; 64];
        data.read_exact_at(&mut out, data.len() - 64).unwrap();
        Ok((data.len(), out))
    };
    assert!(fault(read(56, &[0x80, 0, 0, 0, 0, 0, 0, 0])).contains("negative"));
    let max = i64::MAX.to_be_bytes();
    assert_eq!(read(56, &max).unwrap(), (i64::MAX as u64, [0; 64]));
    // The largest place in a file, in a group, of a count; no extent at all.
    assert!(fault(read(176, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe])).contains("outside"));
    assert!(fault(read(184, &[0xff; 4])).contains("outside the filesystem"));
    assert!(fault(read(189, &[0x1f, 0xff, 0xff])).contains("outside the filesystem"));
    assert!(fault(read(189, &[0, 0, 0])).contains("out of order"));
    assert!(fault(read(76, &[0, 0, 0, 200])).contains("more extents"));
    assert!(fault(read(76, &[0xff; 4])).contains("more pieces"));
    assert!(fault(read(5, &[1])).contains("a format that files do not have"));
    assert!(fault(read(5, &[9])).contains("unknown format"));
    assert!(fault(read(82, &[200])).contains("do not fit"));
    assert!(fault(read(4, &[2])).contains("version"));
}

#[test]
fn files_on_a_realtime_device_are_not_read() {
    let mut forged = sound();
    let file = forged.find("few");
    forged.change_inode("few", 90, &[0, 1]);
    let filesystem = forged.open().unwrap();
    assert!(matches!(filesystem.open(file).err(), Some(Error::Unsupported { .. })));
    filesystem.metadata(file).unwrap();
}

fn attributes(forged: &Forged, file: FileId) -> Result<usize, Error> {
    forged.open().unwrap().attributes(file).map(|all| all.len())
}

#[test]
fn pointers_to_folders_and_unfinished_attributes_are_not_shown() {
    let file = sound().find("leaf");
    let [leaf] = blocks_of(&sound(), "leaf", &[0x3b, 0xee], 8, 48)[..] else { panic!("one leaf") };
    for (flags, expected) in [(0x01, 13), (0x09, 12), (0x81, 12)] {
        let mut forged = sound();
        let n = (0..13).find(|n| forged.bytes[leaf + 80 + n * 8 + 6] == 1).unwrap();
        forged.put(leaf + 80 + n * 8 + 6, &[flags]);
        forged.seal(leaf, forged.block, 12);
        assert_eq!(attributes(&forged, file).unwrap(), expected);
    }
    for (at, bytes, what) in [
        (80 + 6, &[0x07][..], "two classes"),
        (80 + 6, &[0x41], "unknown flags"),
        (80 + 4, &[0x03, 0xff], "outside their block"),
        (56, &[0xff, 0xff], "its attributes"),
        (8, &[0x3b, 0xef], "another kind"),
        (0, &[0, 0, 0, 90], "lacks its block"),
    ] {
        let mut forged = sound();
        forged.put(leaf + at, bytes);
        assert!(fault(attributes(&forged, file)).contains("wrong checksum"), "{at}");
        forged.seal(leaf, forged.block, 12);
        assert!(fault(attributes(&forged, file)).contains(what), "{at} {bytes:?}");
    }
}

#[test]
fn leaves_of_attributes_in_circles_end() {
    let mut forged = sound();
    let file = forged.find("many");
    let leaves = blocks_of(&forged, "many", &[0x3b, 0xee], 8, 48);
    assert!(leaves.len() > 3);
    let last = *leaves.iter().find(|leaf| forged.be(**leaf, 4) == 0).unwrap();
    let before = u32::try_from(forged.be(last + 4, 4)).unwrap();
    forged.put(last, &before.to_be_bytes());
    forged.seal(last, forged.block, 12);
    assert!(fault(attributes(&forged, file)).contains("in circles"));
}

#[test]
fn a_value_or_a_link_in_other_pieces_is_damage() {
    let (file, link) = (sound().find("many"), sound().find("link"));
    for (path, magic, name) in [("many", b"XARM", "value"), ("link", b"XSLM", "link")] {
        for (field, bytes) in [(0, b"XXXX"), (4, &[0, 0, 0, 9]), (8, &[0, 0, 0, 9])] {
            let mut forged = sound();
            let block = blocks_of(&forged, path, magic, 0, 32)[0];
            forged.put(block + field, bytes);
            let read = |forged: &Forged| {
                let filesystem = forged.open().unwrap();
                match path {
                    "many" => filesystem.attributes(file).map(|_| ()),
                    _ => filesystem.link_target(link).map(|_| ()),
                }
            };
            assert!(fault(read(&forged)).contains("wrong checksum"), "{path} {field}");
            forged.seal(block, forged.block, 12);
            let what = fault(read(&forged));
            assert!(what.contains(name) && what.contains("other pieces"), "{what}");
        }
    }
    for len in [0_u64, 901, 1025, 1 << 40] {
        let mut forged = sound();
        forged.change_inode("link", 56, &len.to_be_bytes());
        assert!(fault(forged.open().unwrap().link_target(link)).contains("link"), "{len}");
    }
}

#[test]
fn unknown_features_are_not_read_and_known_damage_is_said() {
    let open = |at: usize, bytes: &[u8]| {
        let mut forged = sound();
        forged.put(at, bytes);
        forged.seal(0, 512, 224);
        forged.open()
    };
    let incompat = sound().be(216, 4);
    for bit in [8, 9, 31] {
        let bits = u32::try_from(incompat).unwrap() | 1 << bit;
        let refused = open(216, &bits.to_be_bytes()).err();
        assert!(matches!(refused, Some(Error::Unsupported { .. })), "{refused:?}");
    }
    // What may be written only by those who know it can be read by all.
    open(208, &[0xff; 8]).unwrap();
    let marked = u32::try_from(incompat).unwrap() | 0x10;
    let filesystem = open(216, &marked.to_be_bytes()).unwrap();
    assert_eq!(filesystem.notes(), [ReaderNote::HasErrors]);
    // The log lies on another device.
    let filesystem = open(48, &[0; 8]).unwrap();
    assert!(matches!(filesystem.notes(), [ReaderNote::NotReplayed { .. }]));
}
