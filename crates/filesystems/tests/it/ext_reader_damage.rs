//! Files of ext volumes with one record that is damaged, or forged: an error for what hangs on it,
//! and everything else is read.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{Error, FileId, Filesystem};
use aiv_volume_io::{Cancel, Job, ReadAt};

use crate::ext_reader::set;
use crate::ext_reader_features::at;
use crate::ext_tools::{MIB, mke2fs};
use crate::reader_tools::{digest, names_of, opened};
use crate::tools::{Mounted, Volume, noise, run};

fn open(volume: &Volume) -> Box<dyn Filesystem> {
    opened(Arc::new(volume.open())).unwrap()
}

fn file(filesystem: &dyn Filesystem, path: &str) -> FileId {
    at(filesystem, Path::new(path))
}

fn debugfs(volume: &Volume, command: &str) -> String {
    run("debugfs", &["-w", "-R", command, volume.path()])
}

/// A small volume with blocks of 1 KiB that `fill` has filled.
fn filled(options: &str, fill: impl FnOnce(&Path)) -> Volume {
    let volume = mke2fs(16 * MIB, &format!("-b 1024 {options}"));
    fill(Mounted::new(&volume, "rw,user_xattr").path());
    volume
}

fn number_after(text: &str, word: &str) -> u64 {
    let rest = text.split(word).nth(1).unwrap().trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Byte of the volume where the inode of a file begins.
fn inode_of(volume: &Volume, path: &str) -> u64 {
    let place = debugfs(volume, &format!("imap {path}"));
    let offset = place.split("offset 0x").nth(1).unwrap().trim();
    number_after(&place, "located at block") * 1024 + u64::from_str_radix(offset, 16).unwrap()
}

/// Byte of the volume where a block of a file begins.
fn block_of(volume: &Volume, path: &str, block: u64) -> u64 {
    let text = debugfs(volume, &format!("bmap {path} {block}"));
    text.trim().parse::<u64>().unwrap() * 1024
}

fn damage_in<T>(read: Result<T, Error>) -> String {
    match read {
        Err(Error::Damaged { what, .. }) => what,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was read"),
    }
}

/// The names that are told, and what is said in the end.
fn entries(filesystem: &dyn Filesystem, folder: FileId) -> (usize, Result<(), Error>) {
    let mut count = 0;
    let read = filesystem.entries(folder, Job::silent(), &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    (count, read)
}

#[test]
fn an_inode_with_a_wrong_checksum_hides_no_other() {
    let volume = filled("-t ext4", |root| {
        fs::write(root.join("a"), noise(1, 5000)).unwrap();
        fs::write(root.join("b"), noise(2, 5000)).unwrap();
    });
    volume.patch(inode_of(&volume, "/b") + 8, &[0xff; 4]);
    let filesystem = open(&volume);
    let [a, b] = ["a", "b"].map(|path| file(&*filesystem, path));
    for what in [
        damage_in(filesystem.metadata(b)),
        damage_in(filesystem.open(b)),
        damage_in(filesystem.attributes(b)),
    ] {
        assert!(what.ends_with("its checksum is wrong"), "{what}");
    }
    assert_eq!(digest(&*filesystem.open(a).unwrap()).len(), 32);
}

/// Bytes of all copies of the table of group descriptors of a volume with blocks of 1 KiB.
fn descriptors(volume: &Volume) -> Vec<u64> {
    let text = run("dumpe2fs", &[volume.path()]);
    let lines = text.lines().filter(|line| line.contains("Group descriptors at"));
    lines.map(|line| number_after(line, "Group descriptors at") * 1024).collect()
}

#[test]
fn files_are_read_although_no_group_descriptor_matches_its_checksum() {
    for (options, size) in [("-t ext4", 64), ("-t ext4 -O ^metadata_csum,uninit_bg,^64bit", 32)] {
        let volume = filled(options, |root| {
            for n in 0..40 {
                fs::create_dir(root.join(format!("{n}"))).unwrap();
                fs::write(root.join(format!("{n}/file")), noise(n, 5000)).unwrap();
            }
        });
        let sound = open(&volume);
        assert_eq!(sound.notes(), []);
        let places = descriptors(&volume);
        assert!(places.len() > 1, "{places:?}");
        let mut sum = [0; 2];
        for (place, group) in places.iter().flat_map(|place| [(place, 0), (place, 1)]) {
            let at = place + group * size + 0x1e;
            volume.open().read_exact_at(&mut sum, at).unwrap();
            volume.patch(at, &[!sum[0], sum[1]]);
        }
        let filesystem = open(&volume);
        let [note] = filesystem.notes() else { panic!("{:?}", filesystem.notes()) };
        assert!(note.to_string().starts_with("2 group descriptors do not match"), "{note}");
        for n in 0..40 {
            let path = format!("{n}/file");
            let of = |filesystem: &dyn Filesystem| {
                digest(&*filesystem.open(file(filesystem, &path)).unwrap())
            };
            assert!(of(&*filesystem) == of(&*sound), "{options}: {path}");
        }
        // No map is made of what they say.
        let reason = crate::ext_tools::whole_reason(&volume).to_string();
        assert!(reason.contains("group descriptor"), "{reason}");
        // A table that is elsewhere is not taken for one: by its inodes, or by the copies.
        let mut table = [0; 4];
        volume.open().read_exact_at(&mut table, places[0] + size + 8).unwrap();
        volume.patch(places[0] + 8, &table);
        let filesystem = open(&volume);
        let what = damage_in(filesystem.metadata(filesystem.root()));
        assert!(what.contains("checksum"), "{what}");
    }
}

#[test]
fn a_root_that_is_no_folder_is_damage() {
    let volume = filled("-t ext4 -O ^metadata_csum", |root| {
        fs::write(root.join("a"), noise(1, 5000)).unwrap();
    });
    let mode = inode_of(&volume, "/");
    volume.patch(mode, &[0xa4, 0x81]);
    let filesystem = open(&volume);
    let root = filesystem.root();
    for what in [
        damage_in(filesystem.metadata(root)),
        damage_in(filesystem.open(root)),
        damage_in(filesystem.lookup(root, b"a", Job::silent())),
        damage_in(entries(&*filesystem, root).1),
    ] {
        assert_eq!(what, "inode 2: it is the root, and no folder");
    }
}

fn many_names(root: &Path) {
    for n in 0..300 {
        File::create(root.join(format!("a name of some length, of which this is {n}"))).unwrap();
    }
}

#[test]
fn a_block_of_a_folder_with_a_wrong_checksum_hides_what_is_in_it_alone() {
    let volume = filled("-t ext4", many_names);
    // Where a name lies depends on a number the filesystem has drawn: one of the blocks begins with
    // `lost+found`.
    let begins_with_a_name = |place: &u64| {
        let mut name = [0; 8];
        volume.open().read_exact_at(&mut name, place + 8).unwrap();
        &name == b"a name o"
    };
    let places = [5, 6].map(|block| block_of(&volume, "/", block));
    let place = places.into_iter().find(begins_with_a_name).unwrap();
    volume.patch(place + 8, b"A");
    let filesystem = open(&volume);
    let (count, read) = entries(&*filesystem, filesystem.root());
    assert!((270..300).contains(&count), "{count}");
    let what = damage_in(read);
    assert!(what.ends_with("a checksum is wrong"), "{what}");
    // Found where it is, and not known whether where it is not.
    assert_eq!(names_of(&*filesystem, filesystem.root()).len(), count);
    let absent = filesystem.lookup(filesystem.root(), b"no such name", Job::silent());
    damage_in(absent);
}

#[test]
fn a_folder_without_checksums_is_told_up_to_what_is_wrong_with_each_block() {
    let volume = filled("-t ext4 -O ^metadata_csum,^dir_index", many_names);
    let sound = entries(&*open(&volume), FileId { space: 0, number: 2 }).0;
    assert_eq!(sound, 301);
    // A name with a slash, one that ends at once, and an entry without length.
    let [slash, zero, cut] = [2, 4, 6].map(|block| block_of(&volume, "/", block));
    volume.patch(slash + 8, b"/");
    volume.patch(zero + 8, &[0]);
    let filesystem = open(&volume);
    let (count, read) = entries(&*filesystem, filesystem.root());
    assert_eq!(count, 299);
    assert!(damage_in(read).ends_with("a name is none"));
    volume.patch(cut + 4, &[0, 0]);
    let filesystem = open(&volume);
    let (count, read) = entries(&*filesystem, filesystem.root());
    assert!((270..299).contains(&count), "{count}");
    damage_in(read);
    // The same block twice: each name once.
    let first = block_of(&volume, "/", 8) / 1024;
    debugfs(&volume, &format!("set_inode_field / block[9] {first}"));
    debugfs(&volume, &format!("set_inode_field / block[8] {first}"));
    let filesystem = open(&volume);
    let mut told = std::collections::BTreeSet::new();
    let _ = filesystem.entries(filesystem.root(), Job::silent(), &mut |entry| {
        assert!(told.insert(entry.name));
        ControlFlow::Continue(())
    });
}

/// A file with an extent tree of two levels, or indirect blocks.
fn holes(root: &Path) {
    let holes = File::create(root.join("holes")).unwrap();
    for n in 0..500 {
        holes.write_all_at(&noise(n, 1024), n * 8192).unwrap();
    }
    fs::write(root.join("other"), noise(1, 5000)).unwrap();
}

#[test]
fn a_block_of_a_map_with_a_wrong_checksum_is_not_believed() {
    let volume = filled("-t ext4", holes);
    let tree = debugfs(&volume, "ex /holes");
    // The first line below the root that is about a block of the map.
    let line = tree.lines().find(|line| line.trim_start().starts_with("1/")).unwrap();
    let leaf: u64 = line.split_whitespace().nth(7).unwrap().parse().unwrap();
    volume.patch(leaf * 1024 + 12 + 8, &[0xfe, 0xfe]);
    let filesystem = open(&volume);
    let what = damage_in(filesystem.open(file(&*filesystem, "holes")));
    assert!(what.ends_with("checksum of an extent block"), "{what}");
    assert!(filesystem.open(file(&*filesystem, "other")).is_ok());
}

#[test]
fn maps_in_circles_end() {
    let volume = filled("-t ext2", holes);
    // Every block of the map is the same, and names itself.
    let block = block_of(&volume, "/other", 0) / 1024;
    let own = u32::try_from(block).unwrap().to_le_bytes().repeat(256);
    volume.patch(block * 1024, &own);
    for field in ["block[IND]", "block[DIND]", "block[TIND]"] {
        debugfs(&volume, &format!("set_inode_field /holes {field} {block}"));
    }
    volume.patch(inode_of(&volume, "/holes") + 4, &[0xff; 4]);
    volume.patch(inode_of(&volume, "/holes") + 0x6c, &[0xff; 2]);
    let filesystem = open(&volume);
    let what = damage_in(filesystem.open(file(&*filesystem, "holes")));
    assert!(what.ends_with("it claims more blocks than there are"), "{what}");

    let volume = filled("-t ext4 -O ^metadata_csum", holes);
    let tree = debugfs(&volume, "ex /holes");
    assert!(tree.contains(" 1/ 2 "), "{tree}");
    let place = inode_of(&volume, "/holes") + 0x28;
    let mut root = [0; 60];
    volume.open().read_exact_at(&mut root, place).unwrap();
    let child: [u8; 4] = *root[16..].first_chunk().unwrap();
    // The child of the root: its first entry leads to itself.
    volume.patch(u64::from(u32::from_le_bytes(child)) * 1024 + 16, &child);
    let filesystem = open(&volume);
    assert!(damage_in(filesystem.open(file(&*filesystem, "holes"))).ends_with("an extent block"));
}

#[test]
fn extents_that_overlap_or_run_backwards_are_damage() {
    let volume = filled("-t ext4 -O ^metadata_csum", |root| {
        let file = File::create(root.join("file")).unwrap();
        for n in 0..3 {
            file.write_all_at(&noise(n, 2048), n * 8192).unwrap();
        }
    });
    let place = inode_of(&volume, "/file") + 0x28 + 12;
    for (entry, logical) in [(1, 1u32), (2, 8), (1, 17)] {
        let copy = volume.duplicate();
        copy.patch(place + entry * 12, &logical.to_le_bytes());
        let filesystem = open(&copy);
        let what = damage_in(filesystem.open(file(&*filesystem, "file")));
        assert!(what.ends_with("extents out of order"), "{what}");
    }
    // Blocks that are not there.
    volume.patch(place + 8, &[0xff; 3]);
    let filesystem = open(&volume);
    let what = damage_in(filesystem.open(file(&*filesystem, "file")));
    assert!(what.ends_with("a block outside the filesystem"), "{what}");
}

#[test]
fn sizes_that_nothing_backs_are_read_in_no_time() {
    let volume = filled("-t ext4 -O ^metadata_csum,inline_data", |root| {
        fs::write(root.join("file"), noise(1, 5000)).unwrap();
        fs::write(root.join("small"), noise(2, 70)).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        many_names(&root.join("folder"));
    });
    debugfs(&volume, &format!("set_inode_field /file size {}", (1u64 << 62) + 5));
    debugfs(&volume, &format!("set_inode_field /small size {}", 1u64 << 50));
    debugfs(&volume, &format!("set_inode_field /folder size {}", 1u64 << 31));
    let filesystem = open(&volume);
    let data = filesystem.open(file(&*filesystem, "file")).unwrap();
    let mut bytes = vec![1; 4096];
    data.read_exact_at(&mut bytes, (1 << 62) + 5 - 4096).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    let mut bytes = vec![1; 5000];
    data.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(1, 5000));
    let small = filesystem.open(file(&*filesystem, "small")).unwrap();
    let mut bytes = vec![1; 100];
    small.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..70] == noise(2, 70) && bytes[70..] == [0; 30]);
    small.read_exact_at(&mut bytes, (1 << 50) - 100).unwrap();
    assert!(bytes == [0; 100]);
    assert!(small.read_exact_at(&mut bytes, (1 << 50) - 99).is_err());
    let (count, read) = entries(&*filesystem, file(&*filesystem, "folder"));
    assert_eq!(count, 300);
    assert!(damage_in(read).ends_with("a folder has a hole"));

    volume.patch(inode_of(&volume, "/file") + 0x6c + 3, &[0x80]);
    let filesystem = open(&volume);
    assert!(damage_in(filesystem.metadata(file(&*filesystem, "file"))).ends_with("is negative"));
}

#[test]
fn links_that_say_nothing_or_too_much_are_damaged() {
    let volume = filled("-t ext4 -O ^metadata_csum", |root| {
        for name in ["a", "b", "c"] {
            symlink("a target", root.join(name)).unwrap();
        }
        symlink("long/".repeat(30), root.join("d")).unwrap();
    });
    debugfs(&volume, "set_inode_field /a size 0");
    debugfs(&volume, "set_inode_field /d size 70000");
    volume.patch(inode_of(&volume, "/b") + 0x28, &[0]);
    volume.patch(inode_of(&volume, "/c") + 0x28 + 3, &[0]);
    let filesystem = open(&volume);
    let target = |name: &str| filesystem.link_target(file(&*filesystem, name));
    assert!(damage_in(target("a")).ends_with("a link says nothing"));
    assert!(damage_in(target("b")).ends_with("a link says nothing"));
    assert_eq!(target("c").unwrap(), b"a t");
    assert!(damage_in(target("d")).ends_with("a link is too long"));
    let not_one = filesystem.link_target(filesystem.root());
    assert!(matches!(not_one, Err(Error::WrongType { wanted: "link" })));
}

#[test]
fn attributes_that_are_damaged_or_forged_are_none() {
    let fill = |root: &Path| {
        for (name, len) in [("in inode", 20), ("in block", 500), ("in another inode", 3000)] {
            fs::write(root.join(name), noise(1, 100)).unwrap();
            set(&root.join(name), "user.name", &noise(2, len));
        }
    };
    let volume = filled("-t ext4 -O ea_inode", fill);
    let attributes = |volume: &Volume, name: &str| {
        let filesystem = open(volume);
        filesystem.attributes(file(&*filesystem, name))
    };
    let block = number_after(&debugfs(&volume, "stat \"/in block\""), "File ACL:");
    volume.patch(block * 1024 + 1020, b"x");
    let what = damage_in(attributes(&volume, "in block"));
    assert_eq!(what, "checksum of a block of attributes");
    assert_eq!(attributes(&volume, "in inode").unwrap()[0].value, noise(2, 20));
    // The contents of the inode that is an attribute.
    assert_eq!(attributes(&volume, "in another inode").unwrap()[0].value, noise(2, 3000));
    let mut entry = [0; 8];
    let place = inode_of(&volume, "\"/in another inode\"") + 128 + 32 + 4;
    volume.open().read_exact_at(&mut entry, place).unwrap();
    let number = u32::from_le_bytes(*entry.last_chunk().unwrap());
    let place = block_of(&volume, &format!("<{number}>"), 0);
    volume.patch(place, b"x");
    let what = damage_in(attributes(&volume, "in another inode"));
    assert!(what.ends_with("checksum of an attribute"), "{what}");

    let volume = filled("-t ext4 -O ea_inode,^metadata_csum", fill);
    let place = inode_of(&volume, "\"/in inode\"") + 128 + 32;
    for (at, bytes, expected) in [
        // Name and value that reach out of the inode; a value in an inode that is none, in one
        // that is a file, and in its own.
        (4, &[0xff][..], "an attribute does not fit its place"),
        (4 + 2, &[0xff, 0xff], "an attribute does not fit its place"),
        (4 + 8, &[0xff, 0xff, 0xff, 0xff], "an attribute does not fit its place"),
        (4 + 2, &[0, 0], "the value of an attribute is among names"),
        (4 + 2, &[20, 0], "the value of an attribute is among names"),
        (4 + 4, &[0xff, 0xff, 0xff, 0xff], "there is no such inode"),
        (4 + 4, &[2], "it is not the attribute of another one"),
        (4 + 4, &[13], "it is not the attribute of another one"),
    ] {
        let copy = volume.duplicate();
        copy.patch(place + at, bytes);
        let what = damage_in(attributes(&copy, "in inode"));
        assert!(what.ends_with(expected), "{what}");
        assert!(attributes(&copy, "in block").is_ok());
    }
    debugfs(&volume, "set_inode_field \"/in block\" file_acl 5");
    assert_eq!(damage_in(attributes(&volume, "in block")), "a block of attributes is none");
    debugfs(&volume, "set_inode_field \"/in block\" file_acl 16777000");
    let what = damage_in(attributes(&volume, "in block"));
    assert!(what.ends_with("its attributes lie outside the filesystem"), "{what}");
}

#[test]
fn a_folder_within_itself_is_a_folder_each_time() {
    let volume = filled("-t ext2", |root| fs::create_dir_all(root.join("x/y")).unwrap());
    debugfs(&volume, "link /x /x/y/again");
    let filesystem = open(&volume);
    assert_eq!(file(&*filesystem, "x"), file(&*filesystem, "x/y/again/y/again"));
}

#[test]
fn what_is_asked_of_the_wrong_type_is_told() {
    let volume = filled("-t ext4", |root| fs::write(root.join("a"), "b").unwrap());
    let filesystem = open(&volume);
    let a = file(&*filesystem, "a");
    assert!(matches!(entries(&*filesystem, a).1, Err(Error::WrongType { wanted: "folder" })));
    let root = filesystem.open(filesystem.root());
    assert!(matches!(root, Err(Error::WrongType { wanted: "file" })));
    assert!(matches!(filesystem.link_target(a), Err(Error::WrongType { wanted: "link" })));
    let nowhere = filesystem.lookup(a, b"b", Job::silent());
    assert!(matches!(nowhere, Err(Error::WrongType { wanted: "folder" })));
}

#[test]
fn listing_ends_when_it_is_stopped_or_told_to() {
    let volume = filled("-t ext4", many_names);
    let filesystem = open(&volume);
    let cancel = Cancel::new();
    cancel.cancel();
    let job = Job { cancel: &cancel, ..Job::silent() };
    let never = &mut |_| panic!("a name was told");
    let read = filesystem.entries(filesystem.root(), job, never);
    assert!(matches!(read, Err(Error::Canceled(_))));
    let mut count = 0;
    let read = filesystem.entries(filesystem.root(), Job::silent(), &mut |_| {
        count += 1;
        if count == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    read.unwrap();
    assert_eq!(count, 7);
}
