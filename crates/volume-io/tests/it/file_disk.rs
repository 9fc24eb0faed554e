use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aiv_volume_io::{Error, Extent, FileDisk, FileKind, ReadAt, Slice, WriteAt};

use crate::machine::{FastDisk, Loop, Mounted, evict, resident, run, sparse};

const MIB: u64 = 1 << 20;

fn kind(error: Error) -> io::ErrorKind {
    match error {
        Error::Path { source, .. } => source.kind(),
        other => panic!("not about a path: {other}"),
    }
}

fn patterned(len: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(len).collect()
}

#[test]
fn a_file_and_a_device_tell_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let bytes = patterned(1 << 20);
    fs::write(&path, &bytes).unwrap();
    let check = |path: &Path, kind, sector: u32| {
        let disk = FileDisk::open_source(path).unwrap();
        assert_eq!((disk.len(), disk.kind(), disk.path()), (MIB, kind, path));
        assert_eq!((disk.logical_sector_size(), disk.physical_sector_size()), (sector, sector));
        let mut back = vec![0; 70_001];
        disk.read_exact_at(&mut back, 333).unwrap();
        assert_eq!(back, bytes[333..70_334]);
        let beyond = disk.read_exact_at(&mut back, MIB - 70_000).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        disk.read_exact_at(&mut [], MIB).unwrap();
    };
    check(&path, FileKind::RegularFile, 512);
    for sector in [512, 4096] {
        let device = Loop::on(&path, &["--read-only", "--sector-size", &sector.to_string()]);
        check(&device.path, FileKind::BlockDevice, sector);
    }
}

#[test]
fn what_is_no_disk_is_refused_before_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    run("mkfifo", &[&pipe]);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (folder.path(), "folder"),
        (Path::new("/dev/null"), "character device"),
        (&pipe, "pipe"),
        (&socket, "socket"),
    ] {
        for result in [FileDisk::open_source(path), FileDisk::open_target(path, true)] {
            match result.unwrap_err() {
                Error::NotADisk { found, .. } => assert_eq!(found, expected),
                other => panic!("{other}"),
            }
        }
    }
    let missing = FileDisk::open_source(folder.path().join("x")).unwrap_err();
    assert!(missing.to_string().ends_with("/x"), "{missing}");
    assert_eq!(kind(missing), io::ErrorKind::NotFound);
}

#[test]
fn a_source_that_shrinks_ends_early_instead_of_reading_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, patterned(100_000)).unwrap();
    let disk = FileDisk::open_source(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let error = disk.read_exact_at(&mut [0; 1000], 49_500).unwrap_err();
    assert_eq!((error.kind(), disk.len()), (io::ErrorKind::UnexpectedEof, 100_000));
}

#[test]
fn reading_a_source_leaves_its_access_time_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, patterned(10_000)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    FileDisk::open_source(&path).unwrap().read_exact_at(&mut [0; 10_000], 0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
}

#[test]
fn the_end_of_a_file_that_shrank_is_no_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    sparse(&path, 8 * MIB);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&patterned(1 << 20), MIB).unwrap();
    let disk = FileDisk::open_source(&path).unwrap();
    file.set_len(4 * MIB).unwrap();
    // The hole before the data is one; of what comes after it nobody can tell.
    assert_eq!(disk.holes(Extent::new(0, 8 * MIB)).unwrap(), [Extent::new(0, MIB)]);
    assert_eq!(disk.holes(Extent::new(5 * MIB, MIB)).unwrap(), []);
    let error = disk.read_exact_at(&mut [0; 512], 5 * MIB).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn holes_of_a_sparse_file_are_known_without_reading_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    sparse(&path, 16 * MIB);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1; 8192], 3 * MIB).unwrap();
    file.write_all_at(&[2; 4096], 15 * MIB).unwrap();
    let disk = FileDisk::open_source(&path).unwrap();
    let (a, b) = (Extent::new(3 * MIB, 8192), Extent::new(15 * MIB, 4096));
    let all = Extent::new(0, 16 * MIB);
    let expected = [
        Extent::between(0, a.start),
        Extent::between(a.end(), b.start),
        Extent::between(b.end(), all.end()),
    ];
    assert_eq!(disk.holes(all).unwrap(), expected);
    assert_eq!(disk.holes(Extent::new(0, u64::MAX)).unwrap(), expected);
    assert_eq!(disk.holes(a).unwrap(), []);
    let window = Extent::new(a.start + 100, 10_000);
    assert_eq!(disk.holes(window).unwrap(), [Extent::between(a.end(), window.end())]);
    assert_eq!(disk.holes(Extent::new(16 * MIB, 10)).unwrap(), []);

    let part = Slice::new(&disk, Extent::new(3 * MIB, MIB)).unwrap();
    let in_part = [Extent::between(8192, MIB)];
    assert_eq!(part.holes(Extent::new(0, u64::MAX)).unwrap(), in_part);
    let shared: std::sync::Arc<dyn ReadAt> = std::sync::Arc::new(disk);
    assert_eq!(shared.holes(all).unwrap(), expected);

    let device = Loop::on(&path, &[]);
    let device = FileDisk::open_source(&device.path).unwrap();
    assert_eq!(device.holes(all).unwrap(), []);
}

fn read_through(disk: &FileDisk, step: usize) {
    let mut block = vec![0; step];
    for at in (0..disk.len()).step_by(step) {
        disk.read_exact_at(&mut block, at).unwrap();
    }
}

/// A file of 256 MiB and how much of it is in the page cache.
struct Cached {
    path: PathBuf,
    _disk: FastDisk,
}

impl Cached {
    fn new() -> Self {
        let disk = FastDisk::new();
        let path = disk.path().join("image");
        fs::write(&path, vec![5; 256 << 20]).unwrap();
        Self { path, _disk: disk }
    }

    /// How much is there when somebody had used a part and all was then read front to back.
    fn after_backup(&self, used: Extent, step: usize) -> u64 {
        evict(&self.path);
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(used.start)).unwrap();
        file.read_exact(&mut vec![0; usize::try_from(used.len).unwrap()]).unwrap();
        let source = FileDisk::open_source(&self.path).unwrap();
        read_through(&source, step);
        drop(source);
        resident(&self.path)
    }
}

/// What the cache may be off by at a border between used and unused data.
const BORDER: u64 = 36 * MIB;

#[test]
fn a_backup_leaves_the_page_cache_as_it_was() {
    let cached = Cached::new();
    assert_eq!(cached.after_backup(Extent::new(0, 256 * MIB), 1 << 20), 256 * MIB);
    for step in [64 << 10, 1 << 20] {
        let nothing = cached.after_backup(Extent::new(0, 0), step);
        assert!(nothing < 4 * MIB, "step {step}: {nothing}");
        let front = cached.after_backup(Extent::new(0, 64 * MIB), step);
        assert!((64 * MIB..64 * MIB + BORDER).contains(&front), "step {step}: {front}");
    }
    let back = cached.after_backup(Extent::new(128 * MIB, 128 * MIB), 256 << 10);
    assert!((128 * MIB - BORDER..128 * MIB + BORDER).contains(&back), "{back}");
}

#[test]
fn one_that_reads_places_behind_it_again_does_so_too() {
    let cached = Cached::new();
    evict(&cached.path);
    let source = FileDisk::open_source(&cached.path).unwrap();
    let mut block = vec![0; 64 << 10];
    for at in (0..source.len()).step_by(block.len()) {
        source.read_exact_at(&mut block, at).unwrap();
        if at.is_multiple_of(4 * MIB) {
            source.read_exact_at(&mut block, at / 3 / 65_536 * 65_536).unwrap();
        }
    }
    drop(source);
    // What the kernel reads ahead behind each of them stays.
    let left = resident(&cached.path);
    assert!(left < BORDER, "{left}");
}

#[test]
fn a_device_in_use_is_not_opened_exclusively() {
    let folder = tempfile::tempdir().unwrap();
    let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
    sparse(&image, 8 * MIB);
    fs::create_dir(&at).unwrap();
    let device = Loop::on(&image, &[]);
    run("mkfs.ext4", &[Path::new("-q"), &device.path]);
    {
        let _mounted = Mounted::new(&[], &device.path, &at);
        let busy = FileDisk::open_target(&device.path, true).unwrap_err();
        assert_eq!(kind(busy), io::ErrorKind::ResourceBusy);
        FileDisk::open_target(&device.path, false).unwrap();
        FileDisk::open_source(&device.path).unwrap();
    }
    let held = FileDisk::open_target(&device.path, true).unwrap();
    let second = FileDisk::open_target(&device.path, true).unwrap_err();
    assert_eq!(kind(second), io::ErrorKind::ResourceBusy);
    drop(held);
    FileDisk::open_target(&device.path, true).unwrap();
}

#[test]
fn a_file_is_restored_to_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target");
    let created = FileDisk::create_target(&path, 3 * MIB + 5).unwrap();
    assert_eq!((created.len(), fs::metadata(&path).unwrap().blocks()), (3 * MIB + 5, 0));
    let locked = FileDisk::open_target(&path, true).unwrap_err();
    assert_eq!(kind(locked), io::ErrorKind::WouldBlock);
    drop(created);
    FileDisk::open_target(&path, true).unwrap();
    let taken = FileDisk::create_target(&path, 1).unwrap_err();
    assert_eq!(kind(taken), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * MIB + 5);
}

#[test]
fn a_target_that_cannot_be_that_long_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target");
    FileDisk::create_target(&path, u64::MAX / 2).unwrap_err();
    assert!(!path.exists());
}

#[test]
fn a_source_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, [7; 4096]).unwrap();
    let disk = FileDisk::open_source(&path).unwrap();
    let range = Extent::new(0, 512);
    for result in [
        disk.write_all_at(&[1], 0),
        disk.zero_range(range),
        disk.discard_range(range),
        disk.set_len(0),
        disk.sync(),
    ] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    assert_eq!(fs::read(&path).unwrap(), [7; 4096]);
}

/// Writes, zeros and discards at all kinds of alignments, next to a plain model.
fn check_writes(disk: &FileDisk) {
    let len = disk.len();
    let mut model = vec![0xEE; usize::try_from(len).unwrap()];
    disk.write_all_at(&model, 0).unwrap();
    let mut number = 12345u64;
    for round in 0..60 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let start = (number >> 33) % len;
        let unit = [1, 512, 4096][round % 3];
        let start = start - start % unit;
        let count = ((number >> 20) % 40_000).min(len - start);
        let range = Extent::new(start, count - count % unit.min(count.max(1)));
        let part = &mut model
            [usize::try_from(range.start).unwrap()..usize::try_from(range.end()).unwrap()];
        match round % 4 {
            0 => {
                part.fill(u8::try_from(round).unwrap());
                disk.write_all_at(part, range.start).unwrap();
            }
            1 | 2 => {
                part.fill(0);
                disk.zero_range(range).unwrap();
            }
            _ => {
                disk.discard_range(range).unwrap();
                // What a discarded range holds is unspecified; take note of it.
                disk.read_exact_at(part, range.start).unwrap();
            }
        }
    }
    disk.sync().unwrap();
    let mut back = vec![0; model.len()];
    disk.read_exact_at(&mut back, 0).unwrap();
    assert!(back == model);
    for range in [Extent::new(len, 1), Extent::new(len - 1, 2), Extent::new(u64::MAX - 1, 1)] {
        assert_eq!(disk.zero_range(range).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(disk.discard_range(range).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
    assert_eq!(disk.write_all_at(&[1, 2], len - 1).unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(disk.len(), len);
}

#[test]
fn files_and_devices_of_both_sector_sizes_hold_what_was_written_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target");
    check_writes(&FileDisk::create_target(&file, 300_000).unwrap());
    let image = folder.path().join("image");
    sparse(&image, 512 << 10);
    for sector in ["512", "4096"] {
        let device = Loop::on(&image, &["--sector-size", sector]);
        check_writes(&FileDisk::open_target(&device.path, true).unwrap());
    }
}

#[test]
fn zeroing_and_discarding_give_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target");
    let disk = FileDisk::create_target(&path, 4 * MIB).unwrap();
    let fill = || {
        disk.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        disk.sync().unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 4 * MIB);
    };
    fill();
    disk.zero_range(Extent::new(0, 4 * MIB)).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < MIB);
    fill();
    disk.discard_range(Extent::new(0, 4 * MIB)).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < MIB);

    // The same through a loop device, which passes it on to the file behind it.
    disk.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    drop(disk);
    let device = Loop::on(&path, &[]);
    let disk = FileDisk::open_target(&device.path, true).unwrap();
    disk.zero_range(Extent::new(0, 4 * MIB)).unwrap();
    disk.sync().unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < MIB);
}

#[test]
fn only_files_change_their_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target");
    let disk = FileDisk::create_target(&path, MIB).unwrap();
    disk.set_len(2 * MIB).unwrap();
    disk.write_all_at(&[5], 2 * MIB - 1).unwrap();
    assert_eq!((disk.len(), fs::metadata(&path).unwrap().len()), (2 * MIB, 2 * MIB));
    let device = Loop::on(&path, &[]);
    let device = FileDisk::open_target(&device.path, true).unwrap();
    assert_eq!(device.set_len(MIB).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_failed_sync_of_a_device_is_final() {
    let folder = tempfile::tempdir().unwrap();
    // A disk that promises 64 MiB and has 1.
    let _tmpfs = Mounted::tmpfs("1m", folder.path());
    let image = folder.path().join("image");
    sparse(&image, 64 * MIB);
    let device = Loop::on(&image, &[]);
    let disk = FileDisk::open_target(&device.path, true).unwrap();
    disk.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    disk.sync().unwrap_err();
    disk.sync().unwrap_err();
    disk.write_all_at(&[1], 0).unwrap_err();
}

#[test]
fn a_restore_does_not_fill_the_page_cache() {
    let folder = FastDisk::new();
    let path = folder.path().join("target");
    let disk = FileDisk::create_target(&path, 64 * MIB).unwrap();
    let block = vec![9; 1 << 20];
    for at in 0..64 {
        disk.write_all_at(&block, at * MIB).unwrap();
    }
    disk.sync().unwrap();
    assert!(resident(&path) < MIB, "{}", resident(&path));
}

#[test]
fn a_device_read_past_the_cache_shows_every_byte_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    // The last page is not whole.
    let bytes = patterned((3 << 20) + 512);
    fs::write(&path, &bytes).unwrap();
    let device = Loop::on(&path, &[]);
    for source in [&device.path, &path] {
        let disk = FileDisk::open_source_direct(source).unwrap();
        assert_eq!(disk.len(), bytes.len() as u64);
        for (offset, len) in [
            (0, bytes.len()),
            (1, 1),
            (4095, 2),
            (512, 4096),
            ((1 << 20) - 1, (1 << 20) + 2),
            (bytes.len() - 512, 512),
            (bytes.len() - 1, 1),
            (7, 0),
        ] {
            let mut out = vec![0; len];
            disk.read_exact_at(&mut out, offset as u64).unwrap();
            assert!(out == bytes[offset..offset + len], "{len} bytes at {offset}");
        }
        let past = disk.read_exact_at(&mut [0; 2], bytes.len() as u64 - 1).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_read_only_device_is_a_source_and_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().write_all(&[1; 8192]).unwrap();
    let device = Loop::on(&path, &["--read-only"]);
    FileDisk::open_source(&device.path).unwrap();
    let refused = FileDisk::open_target(&device.path, true).unwrap_err();
    assert_eq!(kind(refused), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_dropped_cache_leaves_the_proof_to_the_medium() {
    let folder = FastDisk::new();
    let path = folder.path().join("target");
    let disk = FileDisk::create_target(&path, 16 * MIB).unwrap();
    disk.write_all_at(&vec![9; 16 << 20], 0).unwrap();
    disk.sync().unwrap();
    fs::read(&path).unwrap();
    assert_eq!(resident(&path), 16 * MIB);
    disk.drop_cache(Extent::new(3 * MIB + 1, 4 * MIB));
    let left = resident(&path);
    assert!((8 * MIB..=12 * MIB).contains(&left), "{left}");
}

#[test]
fn a_filesystem_without_a_medium_is_read_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("4m", folder.path());
    let path = folder.path().join("image");
    let bytes = patterned(3_000_001);
    fs::write(&path, &bytes).unwrap();
    let disk = FileDisk::open_source(&path).unwrap();
    let mut back = vec![0; bytes.len()];
    disk.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes);
}
