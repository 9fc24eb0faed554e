use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use aiv_volume_io::{AppendFile, DirStorage, MemDisk, ReadAt, Slice, Storage, Tail};

use crate::dir_storage::{kind, put};
use crate::machine::{FastDisk, Loop, Mounted, resident, run, sparse};

const MIB: usize = 1 << 20;

/// Bytes no two blocks of which are alike.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).step_by(8).flat_map(|at| at.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

/// `count` bytes of the source at `offset`, as the caller of `append_from` has them.
fn read(source: &dyn ReadAt, offset: u64, count: usize) -> Vec<u8> {
    let mut data = vec![0; count];
    source.read_exact_at(&mut data, offset).unwrap();
    data
}

/// Appends pieces of `source`, written in `from`, to files in `to` and compares what came out.
fn check_content(from: &Path, to: &Path) {
    let (from, to) = (DirStorage::open(from).unwrap(), DirStorage::open(to).unwrap());
    let all = content(2 * MIB);
    put(&from, "source", &all);
    let source = from.open("source").unwrap();
    // What is in front of the piece, where it lies in the source, how long it is.
    let cases = [
        (0, 0, 2 * MIB),
        (0, 4096, 64 << 10),
        (4096, 8192, (64 << 10) + 5),
        (4096, 8192, MIB + 4095),
        (8192, 4096, (64 << 10) - 1),
        (1, 0, 100_000),
        (4096, 1, 100_000),
        (511, 513, MIB),
        (0, 0, 0),
    ];
    for case @ (head, offset, count) in cases {
        let data = read(&source, offset, count);
        let mut file = to.create("copy").unwrap();
        file.append_all(&all[..head]).unwrap();
        file.append_from(&source, offset, &data).unwrap();
        file.append_all(b"end").unwrap();
        file.append_from(&source, offset, &data).unwrap();
        let expected = [&all[..head], &data, b"end", &data].concat();
        assert!(read_back(&*file, expected.len()) == expected, "{case:?} before the sync");
        file.sync().unwrap();
        let copy = to.open("copy").unwrap();
        assert_eq!(copy.len(), expected.len() as u64, "{case:?}");
        assert!(read(&copy, 0, expected.len()) == expected, "{case:?}");
        to.remove("copy").unwrap();
    }
    from.remove("source").unwrap();
}

fn read_back(file: &dyn AppendFile, count: usize) -> Vec<u8> {
    let mut back = vec![0; count];
    file.read_exact_at(&mut back, 0).unwrap();
    back
}

#[test]
fn what_is_appended_from_a_file_is_what_was_read_from_it() {
    let folder = tempfile::tempdir().unwrap();
    check_content(folder.path(), folder.path());
}

#[test]
fn what_cannot_be_shared_across_filesystems_is_written() {
    let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _tmpfs = Mounted::tmpfs("16m", memory.path());
    check_content(disk.path(), memory.path());
    check_content(memory.path(), disk.path());
    check_content(memory.path(), memory.path());
}

/// Mounts what `mkfs` makes of an empty file, and appends from a file on it to another.
fn check_is_shared(mkfs: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
    fs::create_dir(&at).unwrap();
    sparse(&image, 512 << 20);
    run(mkfs, &[Path::new("-q"), &image]);
    let device = Loop::on(&image, &[]);
    let _mounted = Mounted::new(&[], &device.path, &at);
    check_content(&at, &at);

    let storage = DirStorage::open(&at).unwrap();
    let all = content(16 * MIB);
    put(&storage, "source", &all);
    let source = storage.open("source").unwrap();
    let mut file = storage.create("copy").unwrap();
    // A header of its own, two pieces that were not neighbours, and an end that is no block.
    file.append_all(&[1; 4096]).unwrap();
    let (first, second) = (Tail::read(source.clone(), MIB).unwrap(), Box::new(source));
    file.append_from(&first, 9 << 20, &all[9 * MIB..15 * MIB]).unwrap();
    file.append_from(&second, 1 << 20, &all[MIB..8 * MIB + 100]).unwrap();
    file.sync().unwrap();

    let blocks = (13 * MIB / 4096) as u64;
    assert_eq!(shared_blocks(&at.join("copy")), blocks, "{mkfs}");
    // Btrfs calls an extent shared as soon as a part of it is.
    assert!(shared_blocks(&at.join("source")) >= blocks, "{mkfs}");
    let expected = [&[1; 4096], &all[9 * MIB..15 * MIB], &all[MIB..8 * MIB + 100]].concat();
    assert!(fs::read(at.join("copy")).unwrap() == expected);
    // Each file goes on alone.
    storage.remove("source").unwrap();
    assert!(fs::read(at.join("copy")).unwrap() == expected);
}

/// Blocks of 4096 bytes that a file shares with another.
fn shared_blocks(path: &Path) -> u64 {
    let options = ["-v", "-s", "-b4096"].map(Path::new);
    let printed = run("filefrag", &[&options[..], &[path]].concat());
    // "0:  0..  1023:  5123..  6146:  1024:  last,shared,eof"
    let extents = printed.lines().filter(|line| line.contains("shared"));
    extents.map(|line| line.split(':').nth(3).unwrap().trim().parse::<u64>().unwrap()).sum()
}

#[test]
fn storage_is_shared_on_xfs() {
    check_is_shared("mkfs.xfs");
}

#[test]
fn storage_is_shared_on_btrfs() {
    check_is_shared("mkfs.btrfs");
}

#[test]
fn a_source_that_is_no_file_at_the_same_offsets_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    let all = content(MIB);
    put(&storage, "source", &all);
    let stored = storage.open("source").unwrap();
    let slice = Slice::new(&stored, aiv_volume_io::Extent::new(8192, 128 << 10)).unwrap();
    let memory = MemDisk::from_bytes(all.clone());
    let mut file = storage.create("copy").unwrap();
    file.append_from(&slice, 0, &all[8192..][..128 << 10]).unwrap();
    file.append_from(&memory, 4096, &all[4096..][..128 << 10]).unwrap();
    let expected = [&all[8192..][..128 << 10], &all[4096..][..128 << 10]].concat();
    assert!(read_back(&*file, expected.len()) == expected);
}

/// Says that its bytes are those of some file.
struct Claims(File);

impl ReadAt for Claims {
    fn len(&self) -> u64 {
        1 << 30
    }
    fn read_exact_at(&self, out: &mut [u8], _: u64) -> io::Result<()> {
        out.fill(7);
        Ok(())
    }
    fn file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

#[test]
fn a_file_the_kernel_will_not_read_or_that_ends_early_costs_nothing_but_the_writing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    let data = vec![7; 128 << 10];
    let write_only = File::create(folder.path().join("a")).unwrap();
    write_only.set_len(1 << 20).unwrap();
    fs::write(folder.path().join("b"), &data[..70_000]).unwrap();
    let ends_early = File::open(folder.path().join("b")).unwrap();
    let device = Loop::on(&folder.path().join("a"), &[]);
    let no_file = File::open(&device.path).unwrap();
    for (name, file) in [("c", write_only), ("d", ends_early), ("e", no_file)] {
        let mut copy = storage.create(name).unwrap();
        copy.append_from(&Claims(file), 0, &data).unwrap();
        assert!(read_back(&*copy, data.len()) == data, "{name}");
    }
}

#[test]
fn an_error_of_the_copy_is_the_end_of_the_file_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    let mut file = storage.create("a").unwrap();
    file.append_all(&[1; 4096]).unwrap();
    let directory = Claims(File::open(folder.path()).unwrap());
    let data = vec![7; 128 << 10];
    let error = file.append_from(&directory, 0, &data);
    assert_eq!(kind(error), io::ErrorKind::IsADirectory);
    file.append(b"x").unwrap_err();
    file.append_from(&directory, 0, &data).unwrap_err();
    file.append_from(&directory, 1, b"x").unwrap_err();
    file.sync().unwrap_err();
}

#[test]
fn a_filesystem_that_fills_up_during_the_copy_ends_the_file_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("1m", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    let all = content(640 << 10);
    put(&storage, "source", &all);
    let source = storage.open("source").unwrap();
    let mut file = storage.create("copy").unwrap();
    assert_eq!(kind(file.append_from(&source, 0, &all)), io::ErrorKind::StorageFull);
    file.append_from(&source, 0, &all).unwrap_err();
    file.sync().unwrap_err();
}

#[test]
fn what_the_kernel_copied_does_not_stay_in_the_page_cache() {
    let folder = FastDisk::new();
    let storage = DirStorage::open(folder.path()).unwrap();
    put(&storage, "source", &content(MIB));
    let source: Arc<dyn ReadAt> = storage.open("source").unwrap();
    let data = read(&source, 0, MIB);
    let mut file = storage.create("copy").unwrap();
    for _ in 0..48 {
        file.append_from(&source, 0, &data).unwrap();
    }
    file.sync().unwrap();
    let left = resident(&folder.path().join("copy"));
    assert!(left < MIB as u64, "{left}");
    assert!(read_back(&*file, MIB) == data);
}
