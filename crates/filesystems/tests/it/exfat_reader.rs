//! Files of healthy exFAT volumes: the same names, bytes and times that exfat-fuse finds.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aiv_filesystems::{
    Error, FileFlags, FileId, FilesystemKind, ReaderNote, open_filesystem, recognise,
};
use aiv_volume_io::{Extent, Job, ReadAt};
use sha2::{Digest, Sha256};

use crate::exfat_maps::on_large_sectors;
use crate::exfat_tools::{Fused, fill_exfat, mkfs_exfat, patch_region};
use crate::ext_tools::MIB;
use crate::fat_reader::{assert_same, bytes_of, find, reader, short};
use crate::fat_tools::bytes_at;
use crate::reader_tools::{digest, names, opened, tree_of, tree_of_mount};
use crate::tools::{Volume, noise};

/// Compares with the driver; how many files and folders there are.
fn check(volume: &Volume) -> usize {
    let theirs = short(tree_of_mount(Fused::new(volume, "ro").path()));
    assert_same(&short(tree_of(volume)), &theirs);
    theirs.len()
}

fn fill_tree(root: &Path, cluster_size: usize) {
    let deep = (0..12).fold(root.join("deep"), |path, n| path.join(format!("Folder {n}")));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(root.join("empty folder")).unwrap();
    for len in [0, 1, cluster_size - 1, cluster_size, cluster_size + 1, 5 * cluster_size, 70_000] {
        fs::write(root.join(format!("file of {len} bytes")), noise(len as u64, len)).unwrap();
    }
    for (n, name) in [
        "UPPER.TXT",
        "lower.txt",
        "fifteen letters",
        "sixteen letters!",
        "gr\u{fc}\u{df}e \u{2014} \u{65e5}\u{672c}\u{8a9e} \u{1f600}.txt",
        &"x".repeat(255),
        &"\u{e9}".repeat(127),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(root.join(name), noise(100 + n as u64, 100 * n)).unwrap();
        fs::write(deep.join(name), noise(200 + n as u64, 50 * n)).unwrap();
    }
    for (seconds, name) in [
        (315_532_800, "the first day"),
        (951_782_398, "leap day 2000"),
        (1_709_164_800, "leap day 2024"),
        (4_000_000_000, "after 2038"),
    ] {
        let file = File::create(root.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
}

#[test]
fn exfat_is_read_as_exfat_fuse_reads_it() {
    for (len, options, cluster_size) in
        [(8 * MIB, "-c 512", 512), (20 * MIB, "-c 4096", 4096), (60 * MIB, "-c 128K", 131_072)]
    {
        let volume = mkfs_exfat(len, options);
        fill_tree(Fused::new(&volume, "rw").path(), cluster_size);
        let filesystem = reader(&volume);
        assert_eq!(filesystem.kind(), FilesystemKind::ExFat);
        assert_eq!(filesystem.notes(), []);
        assert_eq!(check(&volume), 39, "{options}");
        fill_exfat(&volume, 2 * MIB);
        check(&volume);
    }
}

#[test]
fn a_file_in_thousands_of_pieces_is_read_in_order() {
    let volume = mkfs_exfat(8 * MIB, "-c 512");
    {
        let mounted = Fused::new(&volume, "rw");
        let mut files = ["one", "two"].map(|name| File::create(mounted.path().join(name)).unwrap());
        for n in 0..2500 {
            for file in &mut files {
                file.write_all(&noise(n, 512)).unwrap();
            }
        }
    }
    let expected: Vec<u8> = (0..2500).flat_map(|n| noise(n, 512)).collect();
    let filesystem = reader(&volume);
    for name in ["one", "two"] {
        let data = filesystem.open(find(&*filesystem, name).unwrap()).unwrap();
        assert!(data.extents().unwrap().len() > 2000, "{}", data.extents().unwrap().len());
        assert_eq!(digest(&*data), Sha256::digest(&expected).to_vec());
    }
    check(&volume);
}

#[test]
fn a_large_folder_with_deletions_has_the_names_that_are_left() {
    // Files between its clusters: sets of records go on elsewhere.
    let volume = mkfs_exfat(16 * MIB, "-c 512");
    {
        let mounted = Fused::new(&volume, "rw");
        let folder = mounted.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for n in 0..4000 {
            fs::write(folder.join(format!("a file with number {n:04}")), n.to_string()).unwrap();
        }
        for n in (0..4000).step_by(7) {
            fs::remove_file(folder.join(format!("a file with number {n:04}"))).unwrap();
        }
    }
    let filesystem = reader(&volume);
    let folder = find(&*filesystem, "folder").unwrap();
    assert_eq!(names(&*filesystem, folder).len(), 4000 - 572);
    assert_eq!(find(&*filesystem, "folder/a file with number 0007"), None);
    assert_eq!(bytes_of(&*filesystem, "folder/A FILE with number 0008"), b"8");
    check(&volume);
}

#[test]
fn names_are_found_by_the_letters_of_the_volume() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    fs::write(Fused::new(&volume, "rw").path().join("\u{c4}rger \u{3a9} \u{1f600} ab"), b"1")
        .unwrap();
    let filesystem = reader(&volume);
    assert!(find(&*filesystem, "\u{e4}RGER \u{3c9} \u{1f600} AB").is_some());
    assert_eq!(find(&*filesystem, "\u{e4}RGER \u{3c9} \u{1f600} A"), None);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 1);
}

/// Changes the record of a file, and its checksum with it.
pub(crate) fn patch_set(volume: &Volume, file: FileId, at: u64, bytes: &[u8]) {
    volume.patch(file.number + at, bytes);
    let head = bytes_at(volume, Extent::new(file.number, 32));
    let len = 32 * (u64::from(head[1]) + 1);
    let set = bytes_at(volume, Extent::new(file.number, len));
    let each = set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    let sum = each.fold(0u16, |sum, (_, &b)| sum.rotate_right(1).wrapping_add(b.into()));
    volume.patch(file.number + 2, &sum.to_le_bytes());
}

#[test]
fn what_was_never_written_is_zeros_whatever_lies_there() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    fs::write(Fused::new(&volume, "rw").path().join("file"), noise(1, 20_000)).unwrap();
    let file = find(&*reader(&volume), "file").unwrap();
    patch_set(&volume, file, 32 + 8, &5000u64.to_le_bytes());
    let filesystem = reader(&volume);
    let bytes = bytes_of(&*filesystem, "file");
    assert!(bytes[..5000] == noise(1, 20_000)[..5000] && bytes[5000..] == [0; 15_000]);
    let data = filesystem.open(file).unwrap();
    let holes = data.holes(Extent::new(0, 20_000)).unwrap();
    assert_eq!(holes, [Extent::between(5000, 20_000)]);
    // More than there is.
    patch_set(&volume, file, 32 + 8, &u64::MAX.to_le_bytes());
    assert!(bytes_of(&*reader(&volume), "file") == noise(1, 20_000));
}

#[test]
fn times_are_utc_where_their_zone_is_noted_and_local_where_not() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    fs::write(Fused::new(&volume, "rw").path().join("file"), b"1").unwrap();
    let file = find(&*reader(&volume), "file").unwrap();
    // 2021-03-04 05:06:08.
    let time = (41u32 << 9 | 3 << 5 | 4) << 16 | 5 << 11 | 6 << 5 | 4;
    let times = [time; 3].map(u32::to_le_bytes).concat();
    patch_set(&volume, file, 8, &times);
    patch_set(&volume, file, 20, &[123, 50, 0x84, 0, 0xf8]);
    let metadata = reader(&volume).metadata(file).unwrap();
    let told = |time: Option<aiv_filesystems::Timestamp>| {
        time.map(|time| (time.seconds, time.nanoseconds, time.is_local)).unwrap()
    };
    assert_eq!(told(metadata.created), (1_614_834_369 - 3600, 230_000_000, false));
    assert_eq!(told(metadata.modified), (1_614_834_368, 500_000_000, true));
    assert_eq!(told(metadata.accessed), (1_614_834_368 + 7200, 0, false));
    patch_set(&volume, file, 4, &[0x27, 0]);
    let all = FileFlags::READ_ONLY | FileFlags::HIDDEN | FileFlags::SYSTEM | FileFlags::ARCHIVE;
    assert_eq!(reader(&volume).metadata(file).unwrap().flags, all);
}

#[test]
fn a_volume_that_was_not_unmounted_is_read_and_says_so() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    fs::write(Fused::new(&volume, "rw").path().join("file"), b"content").unwrap();
    volume.patch(106, &[2]);
    let filesystem = reader(&volume);
    assert_eq!(filesystem.notes(), [ReaderNote::NotUnmounted]);
    assert_eq!(bytes_of(&*filesystem, "file"), b"content");
}

#[test]
fn a_damaged_boot_region_is_replaced_by_its_backup() {
    // A number that does not match the checksum, and the size of sectors itself.
    for (volume, at) in [
        (mkfs_exfat(20 * MIB, "-c 4096"), 92),
        (mkfs_exfat(20 * MIB, "-c 4096"), 108),
        (on_large_sectors(), 108),
    ] {
        let recognised = recognise(&volume.open()).unwrap();
        let open =
            |volume: &Volume| open_filesystem(Arc::new(volume.open()), &recognised, Job::silent());
        let before = names(&*open(&volume).unwrap(), FileId { space: 0, number: 0 });
        let sector = 1 << bytes_at(&volume, Extent::new(108, 1))[0];
        volume.patch(at, &[0xff]);
        let filesystem = open(&volume).unwrap();
        let what = "the boot region".to_owned();
        assert_eq!(filesystem.notes(), [ReaderNote::CopyUsed { what }], "{at}");
        assert_eq!(names(&*filesystem, filesystem.root()), before);
        volume.patch(12 * sector + 92, &[0xff]);
        assert!(matches!(open(&volume), Err(Error::Damaged { .. })));
    }
}

#[test]
fn two_tables_are_not_supported_and_said_so() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    for region in [0, 12] {
        patch_region(&volume, region, 110, &[2]);
    }
    let error = opened(Arc::new(volume.open())).err().unwrap();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn a_folder_can_be_left_early() {
    let volume = mkfs_exfat(8 * MIB, "-c 4096");
    fill_exfat(&volume, MIB);
    let filesystem = reader(&volume);
    let mut count = 0;
    let read = filesystem.entries(filesystem.root(), Job::silent(), &mut |_| {
        count += 1;
        std::ops::ControlFlow::Break(())
    });
    assert!(read.is_ok() && count == 1);
}
