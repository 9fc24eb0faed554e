//! Files of ext volumes whose state is not that of an unmounted, sound filesystem: a journal
//! waits, copies of records have to do, the end is missing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aiv_filesystems::{Error, FileId, Filesystem, ReaderNote};
use aiv_volume_io::ReadAt;

use crate::ext_journal::{hot_copy, set_recover, write_synced};
use crate::ext_reader::of_kernel;
use crate::ext_tools::{MIB, churn, mke2fs};
use crate::reader_tools::{assert_same, names_of, opened, tree_in, tree_of};
use crate::tools::{Mounted, Volume, noise, run};

fn notes(volume: &Volume) -> Vec<ReaderNote> {
    opened(Arc::new(volume.open())).unwrap().notes().to_vec()
}

fn copy_used(what: &str) -> ReaderNote {
    ReaderNote::CopyUsed { what: what.to_owned() }
}

/// A filesystem that was copied while mounted, after more was committed than its blocks say.
fn check_hot(options: &str, mount_options: &str) {
    let volume = mke2fs(32 * MIB, options);
    let mounted = Mounted::new(&volume, &format!("rw,commit=600{mount_options}"));
    churn(mounted.path(), 8 * MIB);
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    for n in 0..8 {
        write_synced(&mounted.path().join(format!("late{n}")), &noise(500 + n, 100_000));
    }
    fs::rename(mounted.path().join("dir1"), mounted.path().join("renamed")).unwrap();
    fs::remove_dir_all(mounted.path().join("dir2")).unwrap();
    let magic = [0xc0, 0x3b, 0x39, 0x98, 1, 2, 3, 4].repeat(10_000);
    write_synced(&mounted.path().join("magic"), &magic);
    fs::write(mounted.path().join("uncommitted"), noise(7, 50_000)).unwrap();
    let hot = hot_copy(&volume);
    drop(mounted);
    let filesystem = opened(Arc::new(hot.open())).unwrap();
    assert_eq!(filesystem.notes(), [ReaderNote::Replayed]);
    let ours = tree_in(&*filesystem);
    assert!(ours.contains_key(&b"magic"[..]) && !ours.contains_key(&b"dir2"[..]));
    // The kernel replays it.
    drop(Mounted::new(&hot, "rw"));
    assert!(notes(&hot).is_empty());
    assert_same(&ours, &of_kernel(&hot));
}

#[test]
fn a_journal_that_waits_is_read_through() {
    check_hot("-t ext4 -b 1024", "");
    check_hot("-t ext3 -b 4096 -g 1024", "");
    check_hot("-t ext4 -b 4096 -g 1024 -O ^metadata_csum,inline_data", "");
}

#[test]
fn so_is_one_that_holds_contents_of_files() {
    check_hot("-t ext4 -b 1024", ",data=journal");
    check_hot("-t ext3 -b 2048", ",data=journal");
}

#[test]
fn a_journal_that_cannot_be_read_through_is_told_and_the_files_are_there() {
    let volume = mke2fs(16 * MIB, "-t ext4 -b 1024 -O ^metadata_csum");
    fs::write(Mounted::new(&volume, "rw").path().join("a"), noise(1, 5000)).unwrap();
    let sound = tree_of(&volume);
    set_recover(&volume);
    assert_eq!(notes(&volume), [ReaderNote::Replayed]);
    // The journal is elsewhere.
    volume.patch(1024 + 0xe0, &[0; 4]);
    let told = notes(&volume);
    let [ReaderNote::NotReplayed { why }] = told.as_slice() else { panic!("{told:?}") };
    assert!(why.ends_with("is on another device"), "{why}");
    assert_same(&tree_of(&volume), &sound);
}

#[test]
fn fast_commits_are_told() {
    let volume = mke2fs(32 * MIB, "-t ext4 -O fast_commit");
    let mounted = Mounted::new(&volume, "rw,commit=600");
    write_synced(&mounted.path().join("a"), &noise(1, 5000));
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    write_synced(&mounted.path().join("b"), &noise(2, 5000));
    let hot = hot_copy(&volume);
    drop(mounted);
    let told = notes(&hot);
    let [ReaderNote::NotReplayed { why }] = told.as_slice() else { panic!("{told:?}") };
    assert!(why.ends_with("may hold fast commits"), "{why}");
    assert!(notes(&volume).is_empty());
}

#[test]
fn a_filesystem_that_was_not_unmounted_or_has_errors_is_read_and_told() {
    let volume = mke2fs(16 * MIB, "-t ext2");
    fs::write(Mounted::new(&volume, "rw").path().join("a"), noise(1, 5000)).unwrap();
    let sound = tree_of(&volume);
    assert!(notes(&volume).is_empty());
    for (state, expected) in [
        (0, vec![ReaderNote::NotUnmounted]),
        (3, vec![ReaderNote::HasErrors]),
        (2, vec![ReaderNote::HasErrors, ReaderNote::NotUnmounted]),
    ] {
        volume.patch(1024 + 0x3a, &[state, 0]);
        assert_eq!(notes(&volume), expected);
        assert_same(&tree_of(&volume), &sound);
    }
}

/// After `damage` the same is read, and `expected` told.
fn check_copy(options: &str, mib: u64, expected: &[ReaderNote], damage: impl Fn(&Volume)) {
    let volume = mke2fs(mib * MIB, options);
    let mounted = Mounted::new(&volume, "rw");
    churn(mounted.path(), 6 * MIB);
    drop(mounted);
    let sound = tree_of(&volume);
    assert!(notes(&volume).is_empty());
    damage(&volume);
    assert_eq!(notes(&volume), expected, "{options}");
    assert_same(&tree_of(&volume), &sound);
}

#[test]
fn copies_of_a_damaged_superblock_are_found() {
    let told = [copy_used("the superblock")];
    let one_byte = |volume: &Volume| volume.patch(1024 + 0x200, b"x");
    check_copy("-t ext2 -b 1024", 20, &told, |volume| volume.patch(1024, &[0; 4]));
    check_copy(
        "-t ext2 -b 1024 -O ^sparse_super,^resize_inode",
        20,
        &told,
        geometry_but_block_size,
    );
    check_copy("-t ext4 -b 1024", 20, &told, one_byte);
    check_copy("-t ext4 -b 2048", 40, &told, geometry_but_block_size);
    check_copy("-t ext4 -b 4096", 140, &told, one_byte);
    check_copy("-t ext4 -b 4096 -g 2048", 24, &told, one_byte);
    check_copy("-t ext4 -b 1024 -O sparse_super2", 24, &told, one_byte);
    check_copy("-t ext4 -b 1024 -O bigalloc,^resize_inode -C 4096", 48, &told, one_byte);

    fn geometry_but_block_size(volume: &Volume) {
        volume.patch(1024, &[0xff; 0x18]);
        volume.patch(1024 + 0x20, &[0xff; 0x10]);
    }
}

#[test]
fn a_damaged_superblock_without_copies_is_an_error() {
    let volume = mke2fs(6 * MIB, "-t ext4 -b 1024");
    volume.patch(1024 + 0x200, b"x");
    let Err(error) = opened(Arc::new(volume.open())) else { panic!("opened") };
    assert!(matches!(&error, Error::Damaged { offset: Some(1024), .. }), "{error}");
    // What is not known is not damaged.
    let volume = mke2fs(20 * MIB, "-t ext2 -b 1024");
    volume.patch(1024 + 0x60, &0x1000_u32.to_le_bytes());
    let Err(error) = opened(Arc::new(volume.open())) else { panic!("opened") };
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn a_superblock_of_an_image_within_the_volume_is_no_copy() {
    // Without copies of its own; a file holds a filesystem where a copy would be.
    let volume =
        mke2fs(24 * MIB, "-t ext2 -b 1024 -O ^resize_inode,sparse_super2 -E num_backup_sb=0");
    let inner = mke2fs(MIB, "-t ext2 -b 1024");
    let mut superblock = [0; 1024];
    inner.open().read_exact_at(&mut superblock, 1024).unwrap();
    volume.patch(8193 * 1024, &superblock);
    volume.patch(1024, &[0; 4]);
    assert!(matches!(opened(Arc::new(volume.open())), Err(Error::Damaged { .. })));
}

#[test]
fn copies_of_damaged_group_descriptors_are_used() {
    let told = [copy_used("the first group descriptor")];
    let first = |volume: &Volume| volume.patch(2048 + 8, &[0xff; 4]);
    check_copy("-t ext2 -b 1024", 20, &told, first);
    check_copy("-t ext4 -b 1024", 20, &told, first);
    check_copy("-t ext4 -b 1024 -O meta_bg,^resize_inode", 20, &told, first);
    // Files of the other groups are read as well.
    check_copy("-t ext4 -b 1024 -g 1024", 20, &told, |volume| volume.patch(2048, &[0xaa; 1024]));
    // Without checksums and copies what is wrong is wrong, and the rest can be read.
    let volume = mke2fs(20 * MIB, "-t ext2 -b 1024 -g 1024 -O sparse_super2 -E num_backup_sb=0");
    let mounted = Mounted::new(&volume, "rw");
    for n in 0..20 {
        // Each in another of as many groups: of a few groups, the kernel draws one.
        fs::create_dir(mounted.path().join(format!("folder{n}"))).unwrap();
        fs::write(mounted.path().join(format!("folder{n}/file")), noise(n, 3000)).unwrap();
    }
    drop(mounted);
    (10..20).for_each(|group| volume.patch(2048 + 32 * group + 8, &[0xff; 4]));
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    let folders = names_of(&*filesystem, filesystem.root());
    let read = folders.values().map(|&id| filesystem.metadata(id));
    let (good, bad): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
    assert!(good.len() >= 5 && bad.len() >= 5, "{} {}", good.len(), bad.len());
    assert!(bad.iter().all(|bad| matches!(bad, Err(Error::Damaged { .. }))));
}

#[test]
fn what_lies_behind_the_end_of_a_volume_is_damaged_and_the_rest_is_read() {
    let volume = mke2fs(32 * MIB, "-t ext4 -b 1024");
    let mounted = Mounted::new(&volume, "rw");
    churn(mounted.path(), 20 * MIB);
    drop(mounted);
    // As far as half of the files reach.
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    let end = |id: &FileId| {
        let extents = filesystem.open(*id).unwrap().extents().unwrap();
        extents.iter().map(|extent| extent.end()).max()
    };
    let mut ends: Vec<u64> = files_in_folders(&*filesystem).iter().filter_map(end).collect();
    ends.sort_unstable();
    let len = ends[ends.len() / 2];
    drop(filesystem);
    volume.set_len(len);

    let filesystem = opened(Arc::new(volume.open())).unwrap();
    assert_eq!(filesystem.notes(), [ReaderNote::CutOff { missing: 32 * MIB - len }]);
    let files = files_in_folders(&*filesystem).into_iter();
    let opened = files.map(|id| open_and_read(&*filesystem, id));
    let (good, bad): (Vec<_>, Vec<_>) = opened.partition(Result::is_ok);
    assert!(good.len() >= 8 && bad.len() >= 8, "{} {}", good.len(), bad.len());
    for error in bad.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

fn files_in_folders(filesystem: &dyn Filesystem) -> Vec<FileId> {
    let folders = names_of(filesystem, filesystem.root()).into_values();
    folders.flat_map(|folder| names_of(filesystem, folder).into_values()).collect()
}

fn open_and_read(filesystem: &dyn Filesystem, id: FileId) -> Result<(), Error> {
    let data = filesystem.open(id)?;
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
    data.read_exact_at(&mut bytes, 0).unwrap();
    Ok(())
}

#[test]
fn a_sparse_file_of_terabytes_is_read_where_its_bytes_are() {
    let volume = mke2fs(64 * MIB, "-t ext4 -b 4096");
    let mounted = Mounted::new(&volume, "rw");
    let file = File::create(mounted.path().join("huge")).unwrap();
    let places = [0, 5 << 30, (2 << 40) - 3, (3 << 40) + 7, (15 << 40) + 12_345];
    for (n, at) in (0u64..).zip(places) {
        file.write_all_at(&noise(n, 9000), at).unwrap();
    }
    file.set_len((16 << 40) - 4096).unwrap();
    drop((file, mounted));
    let filesystem = opened(Arc::new(volume.open())).unwrap();
    let names = names_of(&*filesystem, filesystem.root());
    let data = filesystem.open(names[&b"huge"[..]]).unwrap();
    assert_eq!(data.len(), (16 << 40) - 4096);
    for (n, at) in (0u64..).zip(places) {
        let mut bytes = vec![1; 9002];
        let from = at.saturating_sub(1);
        data.read_exact_at(&mut bytes, from).unwrap();
        let before = usize::try_from(at - from).unwrap();
        assert!(bytes[before..before + 9000] == noise(n, 9000), "{at}");
        assert!(bytes[..before].iter().chain(&bytes[before + 9000..]).all(|&byte| byte == 0));
    }
    assert!(data.read_exact_at(&mut [0; 2], (16 << 40) - 4097).is_err());
    let extents: u64 = data.extents().unwrap().iter().map(|extent| extent.len).sum();
    assert!((45_000..80_000).contains(&extents), "{extents}");
}
