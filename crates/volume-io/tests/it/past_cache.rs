//! Files of a folder as the medium has them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_volume_io::{DirStorage, ReadAt, Storage};

use crate::dir_storage::{kind, put};
use crate::machine::{FastDisk, Loop, Mounted, evict, resident, run, sparse};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Bytes no two blocks of which are alike.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).step_by(8).flat_map(|at| at.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

/// `count` bytes at `offset`, read into memory that begins `apart` bytes behind a page.
fn read(file: &dyn ReadAt, offset: u64, count: usize, apart: usize) -> io::Result<Vec<u8>> {
    let mut memory = vec![0; count + 2 * PAGE];
    let start = memory.as_ptr().align_offset(PAGE) + apart;
    let out = &mut memory[start..start + count];
    file.read_exact_at(out, offset)?;
    Ok(out.to_vec())
}

fn check_content(folder: &Path) {
    let storage = DirStorage::open(folder).unwrap();
    let all = content(3 * MIB + 1000);
    put(&storage, "a", &all);
    let file = storage.open_past_cache("a").unwrap();
    assert_eq!(file.len(), all.len() as u64);
    let cases = [
        (0, 3 * MIB + 1000, 0),
        (0, 3 * MIB + 1000, 16),
        (0, 2 * MIB, 0),
        (PAGE, MIB + 1, 0),
        (PAGE, MIB + 1, 512),
        (512, MIB, 0),
        (1, 2 * MIB, 1),
        (2 * MIB, MIB + 1000, 0),
        (3 * MIB, 1000, 0),
        (3 * MIB + 1000, 0, 0),
    ];
    for case @ (offset, count, apart) in cases {
        let found = read(&file, offset as u64, count, apart).unwrap();
        assert!(found == all[offset..offset + count], "{case:?}");
    }
    assert_eq!(kind(read(&file, PAGE as u64, 3 * MIB, 0)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(storage.open_past_cache("b")), io::ErrorKind::NotFound);
}

#[test]
fn a_file_reads_the_same_past_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    check_content(folder.path());
    let _tmpfs = Mounted::tmpfs("16m", folder.path());
    check_content(folder.path());
}

#[test]
fn long_reads_past_the_cache_leave_nothing_in_it() {
    let folder = FastDisk::new();
    let storage = DirStorage::open(folder.path()).unwrap();
    let path = folder.path().join("a");
    put(&storage, "a", &content(8 * MIB));
    evict(&path);
    let file = storage.open_past_cache("a").unwrap();
    read(&file, 0, 8 * MIB, 0).unwrap();
    assert_eq!(resident(&path), 0);
    read(&storage.open("a").unwrap(), 0, 8 * MIB, 0).unwrap();
    assert!(resident(&path) >= 8 * MIB as u64, "what is read in another way stays");
}

#[test]
fn damage_of_the_medium_is_seen_though_memory_has_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
    fs::create_dir(&at).unwrap();
    sparse(&image, 64 << 20);
    run("mkfs.ext4", &["-q".as_ref(), "-b".as_ref(), "4096".as_ref(), image.as_os_str()]);
    let device = Loop::on(&image, &[]);
    let _ext4 = Mounted::new(&[], &device.path, &at);
    let storage = DirStorage::open(&at).unwrap();
    let all = content(4 * MIB);
    put(&storage, "a", &all);
    let whole = |file: &dyn ReadAt| read(file, 0, all.len(), 0).unwrap();
    assert!(whole(&storage.open("a").unwrap()) == all, "and memory has it now");

    let place = 2 * MIB + 4 * PAGE;
    let medium = fs::read(&image).unwrap();
    let found = medium.chunks(PAGE).position(|page| page == &all[place..place + PAGE]).unwrap();
    let turned = [!all[place + 9]];
    let backing = File::options().write(true).open(&image).unwrap();
    backing.write_all_at(&turned, (found * PAGE + 9) as u64).unwrap();

    assert!(whole(&storage.open("a").unwrap()) == all);
    let seen = whole(&storage.open_past_cache("a").unwrap());
    let differences: Vec<usize> = (0..all.len()).filter(|&n| seen[n] != all[n]).collect();
    assert_eq!((differences, seen[place + 9]), (vec![place + 9], turned[0]));
}
