//! Files of NTFS, one thing at a time: names, references, streams, links, permissions.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{Error, FileFlags, FileId, FileType, Owner, Stream, Timestamp};
use aiv_volume_io::{Extent, Job, ReadAt};

use crate::ext_tools::MIB;
use crate::ntfs_reader::{assert_as_driver, filled, reader, tree_of_driver, without_permissions};
use crate::ntfs_tools::{attribute, edit_table, mount, put};
use crate::reader_tools::{assert_same, names, opened, tree_of};
use crate::tools::{noise, run, try_run};

#[test]
fn times_before_1970_have_their_fractions() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        let path = root.join("old");
        fs::write(&path, "old").unwrap();
        run("touch", &["-d", "1901-02-03 04:05:06.123456700 UTC", path.to_str().unwrap()]);
    });
    let reader = reader(&volume);
    let old = reader.lookup(reader.root(), b"old", Job::silent()).unwrap().unwrap();
    let modified = reader.metadata(old).unwrap().modified.unwrap();
    assert_eq!(modified, Timestamp::utc(-2_174_586_894, 123_456_700));
}

#[test]
fn large_folders_are_told_and_searched_whatever_was_deleted() {
    let volume = filled(32 * MIB, "-c 1024", "noatime", |root| {
        for n in 0..4000 {
            let name = if n % 3 == 0 { format!("File {n} of a folder") } else { format!("ö{n}") };
            fs::write(root.join(name), []).unwrap();
        }
        for n in (0..4000).step_by(4).chain(1000..2500) {
            let _ = fs::remove_file(root.join(format!("ö{n}")));
        }
    });
    let tree = assert_as_driver(&volume);
    assert!(tree.len() > 2000);
    let counted = Arc::new(volume.open());
    let reader = opened(counted.clone()).unwrap();
    let find = |name: &str| reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap();
    for n in (2700..3999).step_by(17).filter(|n| n % 3 != 0 && n % 4 != 0) {
        let (lower, upper) = (find(&format!("ö{n}")), find(&format!("Ö{n}")));
        assert!(lower.is_some() && lower == upper, "{n}");
    }
    for n in (0..4000).step_by(51) {
        assert!(find(&format!("fILE {n} OF a folder")).is_some());
        assert_eq!(find(&format!("file {n} of a folder.")), None);
    }
    assert_eq!(find("ö4"), None);
}

#[test]
fn names_that_differ_in_case_alone_are_found_each_and_another_case_finds_one() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        for name in ["Name", "NAME", "name", "names", "nam"] {
            fs::write(root.join(name), name).unwrap();
        }
    });
    let reader = reader(&volume);
    let content = |name: &str| {
        let id = reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap().unwrap();
        let mut bytes = vec![0; name.len()];
        reader.open(id).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    for name in ["Name", "NAME", "name", "names", "nam"] {
        assert_eq!(content(name), name);
    }
    assert_eq!(content("nAmE").to_lowercase(), "name");
    assert_eq!(content("NAMES"), "names");
}

#[test]
fn the_filesystems_own_files_are_not_told_but_can_be_read() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |_| {});
    let reader = reader(&volume);
    assert_eq!(names(&*reader, reader.root()).len(), 0);
    for (number, name) in
        [(2, "$LogFile"), (4, "$AttrDef"), (6, "$Bitmap"), (7, "$Boot"), (10, "$UpCase")]
    {
        let found = reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap().unwrap();
        for id in [found, FileId { space: 0, number }] {
            let data = reader.open(id).unwrap();
            let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
            data.read_exact_at(&mut bytes, 0).unwrap();
            let number = number.to_string();
            let output = try_run("ntfscat", &["-f", "-i", &number, volume.path()]);
            assert!(output.status.success() && output.stdout == bytes, "{name}");
        }
    }
    let deep = reader.lookup(reader.root(), b"$Extend", Job::silent()).unwrap().unwrap();
    assert!(names(&*reader, deep).contains_key(&b"$Quota"[..]));
}

#[test]
fn a_reference_that_is_older_than_its_record_leads_nowhere() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        fs::write(root.join("first"), "first").unwrap();
    });
    let old = reader(&volume);
    let id = old.lookup(old.root(), b"first", Job::silent()).unwrap().unwrap();
    let mounted = mount(&volume, "noatime");
    fs::remove_file(mounted.path().join("first")).unwrap();
    fs::write(mounted.path().join("second"), "second").unwrap();
    drop(mounted);
    let new = reader(&volume);
    let second = new.lookup(new.root(), b"second", Job::silent()).unwrap().unwrap();
    assert_eq!(id.number & 0xffff_ffff_ffff, second.number & 0xffff_ffff_ffff);
    for wrong in [
        id,
        FileId { space: 1, ..second },
        FileId { space: 0, number: u64::MAX },
        FileId { space: 0, number: 1 << 40 },
        FileId { space: 0, number: 20 },
    ] {
        assert!(matches!(new.metadata(wrong), Err(Error::Damaged { .. })), "{wrong:?}");
    }
}

#[test]
fn files_in_many_pieces_with_many_names_and_many_streams_are_read_from_all_their_records() {
    let volume = filled(64 * MIB, "-c 512", "noatime,streams_interface=windows", |root| {
        // Two that grow in turns have no two clusters side by side.
        let files = ["one", "two"].map(|name| File::create(root.join(name)).unwrap());
        for n in 0..3000 {
            for (which, file) in files.iter().enumerate() {
                file.write_all_at(&noise(n * 2 + which as u64, 512), n * 1024).unwrap();
            }
        }
        fs::write(root.join("named"), noise(1, 3000)).unwrap();
        for n in 0..300 {
            let name = format!("{n} {}", "long name ".repeat(10));
            fs::hard_link(root.join("named"), root.join(name)).unwrap();
        }
        fs::write(root.join("streams"), noise(1, 3000)).unwrap();
        for n in 0..200_usize {
            fs::write(root.join(format!("streams:ö {n}")), noise(n as u64, n * 20)).unwrap();
        }
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("folder:of folder"), "bytes").unwrap();
    });
    for path in ["/one", "/named", "/streams"] {
        let said = run("ntfsinfo", &["-F", path, "-f", volume.path()]);
        assert!(said.contains("$ATTRIBUTE_LIST"), "{said}");
    }
    assert_as_driver(&volume);
    let reader = reader(&volume);
    let find = |name: &[u8]| reader.lookup(reader.root(), name, Job::silent()).unwrap().unwrap();
    let data = reader.open(find(b"one")).unwrap();
    assert!(data.extents().unwrap().len() > 2900);
    let streams = reader.streams(find(b"streams")).unwrap();
    assert_eq!(streams.len(), 200);
    let mounted = mount(&volume, "ro,streams_interface=windows");
    for stream in streams {
        let name = String::from_utf8(stream.name).unwrap();
        let theirs = fs::read(mounted.path().join(format!("streams:{name}"))).unwrap();
        assert_eq!(stream.len, theirs.len() as u64);
        let data = reader.open_stream(find(b"streams"), name.as_bytes()).unwrap();
        let mut ours = vec![0; theirs.len()];
        data.read_exact_at(&mut ours, 0).unwrap();
        assert!(ours == theirs && data.len() == stream.len, "{name}");
    }
    assert!(reader.open_stream(find(b"streams"), b"none").is_err());
    assert!(reader.open_stream(find(b"streams"), b"").is_err());
    let of_folder = reader.streams(find(b"folder")).unwrap();
    assert_eq!(of_folder, [Stream { name: b"of folder".to_vec(), len: 5 }]);
}

#[test]
fn security_descriptors_are_those_the_driver_returns() {
    let volume = filled(32 * MIB, "-c 4096", "noatime,permissions", |root| {
        for n in 0..300_u32 {
            let path = root.join(format!("{n}"));
            fs::write(&path, []).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode((n * 3) & 0o777)).unwrap();
            if n % 2 == 0 {
                std::os::unix::fs::chown(&path, Some(1000 + n), Some(2000 + n / 3)).unwrap();
            }
        }
    });
    let ours = without_permissions(tree_of(&volume));
    assert_same(&ours, &tree_of_driver(&volume, "ro,permissions"));
    let all = ours.values().map(|seen| &seen.attributes[&b"system.ntfs_acl"[..]]);
    let all: BTreeSet<_> = all.collect();
    assert!(all.len() > 200, "{}", all.len());
}

#[test]
fn what_wsl_makes_is_what_it_was_meant_to_be() {
    let volume = filled(16 * MIB, "-c 4096", "noatime,special_files=wsl", |root| {
        symlink("some/where", root.join("link")).unwrap();
        run("mkfifo", &[root.join("pipe").to_str().unwrap()]);
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")));
        run("mknod", &[root.join("char").to_str().unwrap(), "c", "5", "300"]);
        run("mknod", &[root.join("block").to_str().unwrap(), "b", "259", "70000"]);
    });
    let tree = assert_as_driver(&volume);
    let names = ["link", "pipe", "socket", "char", "block"];
    let types = names.map(|name| tree[name.as_bytes()].file_type);
    use FileType::{BlockDevice, CharDevice, Link, Pipe, Socket};
    assert_eq!(types, [Link, Pipe, Socket, CharDevice, BlockDevice]);
}

/// A reparse point with two names, as Windows makes it.
fn reparse(tag: u32, flags: Option<u32>, substitute: &str, print: &str) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (substitute, print) = (utf16(substitute), utf16(print));
    let mut data = Vec::new();
    for number in [0, substitute.len(), substitute.len() + 2, print.len()] {
        data.extend(u16::try_from(number).unwrap().to_le_bytes());
    }
    data.extend(flags.map(u32::to_le_bytes).into_iter().flatten());
    data.extend([substitute, vec![0; 2], print, vec![0; 2]].concat());
    let len = u16::try_from(data.len()).unwrap();
    [&tag.to_le_bytes()[..], &len.to_le_bytes(), &[0; 2], &data].concat()
}

pub(crate) fn set_reparse(path: &Path, value: &[u8]) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(path, "system.ntfs_reparse_data", value, flags).unwrap();
}

#[test]
fn links_of_windows_say_where_they_lead() {
    const JUNCTION: u32 = 0xa000_0003;
    const LINK: u32 = 0xa000_000c;
    let unc = reparse(LINK, Some(0), r"\??\UNC\server\share", r"\\server\share");
    let cases = [
        (true, reparse(JUNCTION, None, r"\??\C:\Users\ö", r"C:\Users\ö"), "C:/Users/ö"),
        (true, reparse(JUNCTION, None, r"\??\Volume{1-2}\", ""), "Volume{1-2}/"),
        (false, reparse(LINK, Some(1), r"..\a\b", r"..\a\b"), "../a/b"),
        (false, reparse(LINK, Some(0), r"\??\D:\a", r"D:\a"), "D:/a"),
        (true, unc, "UNC/server/share"),
        (true, reparse(LINK, Some(1), "a", "b"), "a"),
    ];
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        for (n, (is_folder, reparse, _)) in cases.iter().enumerate() {
            let path = root.join(format!("{n}"));
            if *is_folder { fs::create_dir(&path) } else { fs::write(&path, "") }.unwrap();
            set_reparse(&path, reparse);
        }
        for (name, tag) in [("dedup", 0x8000_0013_u32), ("unknown", 0x8000_7777)] {
            fs::write(root.join(name), "bytes").unwrap();
            let value = [&tag.to_le_bytes()[..], &[4, 0, 0, 0, 1, 2, 3, 4]].concat();
            set_reparse(&root.join(name), &value);
        }
    });
    let reader = reader(&volume);
    let find =
        |name: &str| reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap().unwrap();
    for (n, (_, reparse, target)) in cases.iter().enumerate() {
        let id = find(&n.to_string());
        assert_eq!(reader.metadata(id).unwrap().file_type, FileType::Link);
        assert_eq!(String::from_utf8(reader.link_target(id).unwrap()).unwrap(), *target);
        let attributes = reader.attributes(id).unwrap();
        let data = attributes.iter().find(|one| one.name == b"system.ntfs_reparse_data").unwrap();
        assert_eq!(data.value, *reparse);
        assert!(matches!(reader.open(id), Err(Error::WrongType { .. })));
    }
    for name in ["dedup", "unknown"] {
        assert!(matches!(reader.open(find(name)), Err(Error::Unsupported { .. })), "{name}");
    }
    let unknown = reader.metadata(find("unknown")).unwrap().file_type;
    assert_eq!(unknown, FileType::Reparse { tag: 0x8000_7777 });
    assert_eq!(names(&*reader, reader.root()).len(), 8);
}

#[test]
fn a_short_name_is_not_told_and_found_all_the_same() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        let path = root.join("a name that is long");
        fs::write(&path, "bytes").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(&path, "system.ntfs_dos_name", b"ANAME~1.TXT", flags).unwrap();
    });
    let reader = reader(&volume);
    let told = names(&*reader, reader.root());
    assert_eq!(told.keys().collect::<Vec<_>>(), [b"a name that is long"]);
    let id = told[&b"a name that is long"[..]];
    assert_eq!(reader.lookup(reader.root(), b"aname~1.txt", Job::silent()).unwrap(), Some(id));
    assert_eq!(reader.metadata(id).unwrap().links, 1);
}

#[test]
fn a_folder_may_tell_upper_from_lower_case() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("folder/Name"), "bytes").unwrap();
    });
    let check = |is_folded: bool| {
        let reader = reader(&volume);
        let folder = reader.lookup(reader.root(), b"FOLDER", Job::silent()).unwrap().unwrap();
        let flags = reader.metadata(folder).unwrap().flags;
        assert_eq!(flags.contains(FileFlags::CASE_FOLDED), is_folded);
        let find = |name: &[u8]| reader.lookup(folder, name, Job::silent()).unwrap();
        assert!(find(b"Name").is_some());
        assert_eq!(find(b"name").is_some(), is_folded);
        folder.number & 0xffff_ffff_ffff
    };
    let number = check(true);
    edit_table(&volume, number, |record| {
        let at = attribute(record, 0x10, false) + 24;
        put(record, at + 36, &[0, 0, 0, 0, 1, 0, 0, 0]);
    });
    check(false);
}

#[test]
fn modes_and_owners_of_wsl_are_told_and_nobody_is_where_there_are_none() {
    let mut list = Vec::new();
    for (name, value) in [("$LXUID", 1001_u32), ("$LXGID", 1002), ("$LXMOD", 0o100_4751)] {
        list.extend([20, 0, 0, 0, 0, 6, 4, 0]);
        list.extend(name.bytes().chain([0]).chain(value.to_le_bytes()));
        list.push(0);
    }
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        for name in ["with", "without"] {
            fs::write(root.join(name), "bytes").unwrap();
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("with"), "system.ntfs_ea", &list, flags).unwrap();
    });
    let reader = reader(&volume);
    let metadata = |name: &[u8]| {
        let id = reader.lookup(reader.root(), name, Job::silent()).unwrap().unwrap();
        reader.metadata(id).unwrap()
    };
    let with = metadata(b"with");
    assert_eq!((with.mode, with.owner), (Some(0o4751), Some(Owner { user: 1001, group: 1002 })));
    let without = metadata(b"without");
    assert_eq!((without.mode, without.owner), (None, None));
}

#[test]
fn an_encrypted_file_is_told_and_not_read_and_what_was_never_written_is_zeros() {
    let volume = filled(16 * MIB, "-c 4096", "noatime", |root| {
        fs::write(root.join("file"), noise(1, 20_000)).unwrap();
    });
    let edited = |edit: &dyn Fn(&mut Vec<u8>, usize)| {
        let copy = volume.duplicate();
        let id = reader(&copy).lookup(reader(&copy).root(), b"file", Job::silent());
        let id = id.unwrap().unwrap();
        edit_table(&copy, id.number & 0xffff_ffff_ffff, |record| {
            let at = attribute(record, 0x80, true);
            edit(record, at);
        });
        (reader(&copy), id)
    };
    let (reader, id) = edited(&|record, at| record[at + 13] |= 0x40);
    let metadata = reader.metadata(id).unwrap();
    assert!(metadata.flags.contains(FileFlags::ENCRYPTED) && metadata.len == 20_000);
    assert!(matches!(reader.open(id), Err(Error::Unsupported { .. })));

    let (reader, id) = edited(&|record, at| put(record, at + 56, &5000_u64.to_le_bytes()));
    let data = reader.open(id).unwrap();
    let mut bytes = vec![1; 20_000];
    data.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..5000] == noise(1, 20_000)[..5000]);
    assert!(bytes[5000..].iter().all(|&byte| byte == 0));
    let holes = data.holes(Extent::new(0, 20_000)).unwrap();
    assert_eq!(holes, [Extent::between(5000, 20_000)]);
}
