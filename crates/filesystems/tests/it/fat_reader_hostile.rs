//! Damaged FAT and exFAT volumes: what can be read is, the rest is an error, and nothing wrong is
//! told.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use aiv_filesystems::{Error, FileId, Filesystem, ReaderNote};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::exfat_reader::patch_set;
use crate::exfat_tools::{Fused, mkfs_exfat};
use crate::ext_tools::MIB;
use crate::fat_reader::{bytes_of, find, put, reader};
use crate::fat_tools::{bytes_at, mkfs_fat};
use crate::reader_tools::names;
use crate::tools::{Volume, noise, run};

/// A volume of FAT16 with clusters of 2 KiB.
struct Fat16 {
    volume: Volume,
    table: u64,
    table_len: u64,
}

impl Fat16 {
    /// With `a/file` of 20,000 bytes and `other` of 3,000.
    fn new() -> Self {
        let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
        run("mmd", &["-i", volume.path(), "::/a"]);
        put(&volume, "a/file", &noise(1, 20_000));
        put(&volume, "other", &noise(2, 3000));
        let boot = bytes_at(&volume, Extent::new(0, 512));
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        Self { table: word(14) * 512, table_len: word(22) * 512, volume }
    }

    /// The clusters of `a/file`.
    fn clusters(&self) -> Vec<u16> {
        let id = self.id("a/file");
        let mut chain = vec![self.word(id.number + 26)];
        for n in 0..9 {
            chain.push(self.word(self.table + 2 * u64::from(chain[n])));
        }
        chain
    }

    fn id(&self, path: &str) -> FileId {
        find(&*reader(&self.volume), path).unwrap()
    }

    fn word(&self, at: u64) -> u16 {
        let bytes = bytes_at(&self.volume, Extent::new(at, 2));
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn set_entry(&self, tables: &[u64], cluster: u16, value: u16) {
        for table in tables {
            let at = self.table + table * self.table_len + 2 * u64::from(cluster);
            self.volume.patch(at, &value.to_le_bytes());
        }
    }

    /// So many bytes of `a/file` can be read, and no more; `other` is whole.
    fn check_readable(&self, readable: usize) {
        let filesystem = reader(&self.volume);
        let data = filesystem.open(find(&*filesystem, "a/file").unwrap()).unwrap();
        assert_eq!(data.len(), 20_000);
        let mut bytes = vec![0; readable];
        data.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == noise(1, 20_000)[..readable]);
        for at in [readable, 19_999] {
            if readable < 20_000 {
                let error = data.read_exact_at(&mut [0; 1], at as u64).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }
        }
        assert_eq!(data.extents().is_ok(), readable == 20_000);
        assert!(bytes_of(&*filesystem, "other") == noise(2, 3000));
    }
}

/// What a folder tells, and how that ends.
fn listed(filesystem: &dyn Filesystem, folder: FileId) -> (Vec<String>, Option<Error>) {
    let mut names = Vec::new();
    let read = filesystem.entries(folder, Job::silent(), &mut |entry| {
        names.push(String::from_utf8(entry.name).unwrap());
        ControlFlow::Continue(())
    });
    names.sort();
    (names, read.err())
}

fn assert_damaged((found, error): (Vec<String>, Option<Error>), expected: &[&str]) {
    assert_eq!(found, expected);
    assert!(matches!(error, Some(Error::Damaged { .. })), "{error:?}");
}

#[test]
fn a_chain_that_ends_too_early_leaves_the_rest_unreadable() {
    for value in [0xffff, 0xfff8, 0, 1, 0xfff7, 0xfff0] {
        let fat = Fat16::new();
        fat.check_readable(20_000);
        fat.set_entry(&[0, 1], fat.clusters()[3], value);
        fat.check_readable(4 * 2048);
    }
}

#[test]
fn a_chain_that_comes_back_to_itself_is_read_once() {
    for (from, to) in [(3, 0), (3, 3), (8, 5)] {
        let fat = Fat16::new();
        let clusters = fat.clusters();
        fat.set_entry(&[0, 1], clusters[from], clusters[to]);
        fat.check_readable((from + 1) * 2048);
    }
}

#[test]
fn a_first_cluster_that_is_none_leaves_nothing_to_read() {
    for cluster in [0u16, 1, 0xffff] {
        let fat = Fat16::new();
        fat.volume.patch(fat.id("a/file").number + 26, &cluster.to_le_bytes());
        fat.check_readable(0);
    }
}

#[test]
fn a_chain_longer_than_its_file_is_no_fault() {
    let fat = Fat16::new();
    fat.set_entry(&[0, 1], fat.clusters()[9], fat.clusters()[0]);
    fat.check_readable(20_000);
}

#[test]
fn entries_that_the_first_table_cannot_have_are_read_from_the_second() {
    for value in [0, 1, 0xfff7] {
        let fat = Fat16::new();
        fat.set_entry(&[0], fat.clusters()[3], value);
        fat.check_readable(20_000);
        // One that may be right is believed.
        fat.set_entry(&[0], fat.clusters()[3], 0xffff);
        fat.check_readable(4 * 2048);
    }
}

#[test]
fn a_first_table_that_is_none_is_replaced_by_the_second() {
    let fat = Fat16::new();
    fat.volume.patch(fat.table, &vec![0x5a; usize::try_from(fat.table_len).unwrap()]);
    let what = "the file allocation table".to_owned();
    assert_eq!(reader(&fat.volume).notes(), [ReaderNote::CopyUsed { what }]);
    fat.check_readable(20_000);
}

/// A volume that cannot be read in places.
struct Bad {
    disk: MemDisk,
    bad: Vec<Extent>,
}

impl Bad {
    fn open(volume: &Volume, bad: Extent) -> Box<dyn Filesystem> {
        let disk = MemDisk::from_bytes(fs::read(&volume.path).unwrap());
        let recognised = aiv_filesystems::recognise(&disk).unwrap();
        let bad = Self { disk, bad: vec![bad] };
        aiv_filesystems::open_filesystem(Arc::new(bad), &recognised, Job::silent()).unwrap()
    }
}

impl ReadAt for Bad {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, out.len() as u64);
        match self.bad.iter().any(|bad| bad.intersect(range).is_some()) {
            true => Err(io::Error::other("bad sector")),
            false => self.disk.read_exact_at(out, offset),
        }
    }
}

#[test]
fn a_first_table_that_cannot_be_read_is_replaced_by_the_second() {
    let fat = Fat16::new();
    // All of it, and all but its front.
    for skipped in [0, 2] {
        let bad = Extent::new(fat.table + skipped, fat.table_len - skipped);
        let filesystem = Bad::open(&fat.volume, bad);
        assert!(bytes_of(&*filesystem, "a/file") == noise(1, 20_000));
    }
}

#[test]
fn a_folder_with_an_unreadable_sector_tells_the_rest() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    for n in 0..40 {
        put(&volume, &format!("N{n:02}"), b"1");
    }
    let filesystem = reader(&volume);
    let first = find(&*filesystem, "N20").unwrap().number;
    let filesystem = Bad::open(&volume, Extent::new(first - first % 512, 512));
    let (found, error) = listed(&*filesystem, filesystem.root());
    assert_eq!(found.len(), 24);
    assert!(matches!(error, Some(Error::Io { .. })), "{error:?}");
    let look_up = |name: &[u8]| filesystem.lookup(filesystem.root(), name, Job::silent());
    assert!(matches!(look_up(b"N20"), Err(Error::Io { .. })));
    assert!(look_up(b"N39").unwrap().is_some());
}

#[test]
fn a_folder_that_comes_back_to_itself_tells_each_name_once() {
    let volume = mkfs_fat(40 * MIB, "-F 32 -s 1");
    for n in 0..40 {
        put(&volume, &format!("N{n:02}"), b"1");
    }
    let table = 32 * 512;
    let id = |name| find(&*reader(&volume), name).unwrap().number;
    let data_at = id("N00") - id("N00") % 512;
    assert_eq!(id("N15") + 32, id("N15") / 512 * 512 + 512);
    let second = u32::try_from((id("N16") - data_at) / 512 + 2).unwrap();
    // The second cluster leads back to the first.
    for copy in [0, 1] {
        let len = u32::from_le_bytes(bytes_at(&volume, Extent::new(36, 4)).try_into().unwrap());
        let at = table + copy * u64::from(len) * 512 + 4 * u64::from(second);
        volume.patch(at, &2u32.to_le_bytes());
    }
    let filesystem = reader(&volume);
    let expected: Vec<String> = (0..32).map(|n| format!("N{n:02}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_damaged(listed(&*filesystem, filesystem.root()), &expected);
}

#[test]
fn long_names_that_lost_their_file_are_left_out_and_the_short_one_shown() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    for name in ["a long name of one file", "another long name"] {
        put(&volume, name, b"1");
    }
    let id = find(&*reader(&volume), "a long name of one file").unwrap();
    // A driver that knows no long names renamed it.
    volume.patch(id.number, b"NEW     TXT");
    let filesystem = reader(&volume);
    let found: Vec<_> = names(&*filesystem, filesystem.root()).into_keys().collect();
    assert_eq!(found, [b"NEW.TXT".to_vec(), b"another long name".to_vec()]);
    // Or removed it.
    volume.patch(id.number, &[0xe5]);
    let filesystem = reader(&volume);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 1);
}

#[test]
fn names_that_are_none_or_there_twice_are_left_out_and_are_an_error_at_the_end() {
    let volume = mkfs_fat(20 * MIB, "-F 16 -s 4");
    for name in ["AA", "BB", "CC"] {
        put(&volume, name, b"1");
    }
    let id = find(&*reader(&volume), "BB").unwrap();
    for name in [b"AA", b"A/", b"B\0", b"  "] {
        volume.patch(id.number, name);
        let filesystem = reader(&volume);
        assert_damaged(listed(&*filesystem, filesystem.root()), &["AA", "CC"]);
    }
    volume.patch(id.number, b"\x05\x8e");
    let filesystem = reader(&volume);
    assert_eq!(listed(&*filesystem, filesystem.root()).0, ["AA", "CC", "\u{3c3}\u{c4}"]);
}

#[test]
fn a_table_that_counts_alone_is_the_only_one_read() {
    let volume = mkfs_fat(40 * MIB, "-F 32 -s 1");
    put(&volume, "file", &noise(1, 2000));
    let table_len = u32::from_le_bytes(bytes_at(&volume, Extent::new(36, 4)).try_into().unwrap());
    // Table 1 counts, and table 0 says something else.
    volume.patch(40, &[0x81, 0]);
    let root = bytes_at(&volume, Extent::new(32 * 512, 8));
    volume.patch(32 * 512, &vec![0; table_len as usize * 512]);
    volume.patch(32 * 512, &root);
    let filesystem = reader(&volume);
    assert!(bytes_of(&*filesystem, "file") == noise(1, 2000));
    assert_eq!(filesystem.notes(), []);
}

#[test]
fn a_volume_that_is_cut_off_gives_what_is_there() {
    let fat = Fat16::new();
    let first = fat.id("a/file");
    let filesystem = reader(&fat.volume);
    let place = filesystem.open(first).unwrap().extents().unwrap()[0].start;
    drop(filesystem);
    fat.volume.set_len(place + 5000);
    let filesystem = reader(&fat.volume);
    let data = filesystem.open(first).unwrap();
    let mut bytes = vec![0; 5000];
    data.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(1, 20_000)[..5000]);
    assert!(data.read_exact_at(&mut [0; 2], 4999).is_err());
}

#[test]
fn numbers_that_nobody_gave_out_are_refused() {
    let fat = Fat16::new();
    let exfat = mkfs_exfat(8 * MIB, "-c 4096");
    for volume in [&fat.volume, &exfat] {
        let filesystem = reader(volume);
        let ends = [1, 32, 511, 512, volume.open().len() - 32, volume.open().len(), u64::MAX];
        for number in ends.into_iter().chain((0..20).map(|n| u64::MAX - 31 * n)) {
            for space in [0, 1, 2, u64::MAX] {
                let id = FileId { space, number };
                assert!(filesystem.metadata(id).is_err(), "{id:?}");
                assert!(filesystem.open(id).is_err() && filesystem.attributes(id).is_err());
                assert!(listed(&*filesystem, id).1.is_some());
            }
        }
        let root = filesystem.root();
        assert!(matches!(filesystem.open(root).err(), Some(Error::WrongType { .. })));
        assert!(matches!(filesystem.link_target(root), Err(Error::WrongType { .. })));
    }
    let filesystem = reader(&fat.volume);
    let (_, error) = listed(&*filesystem, fat.id("other"));
    assert!(matches!(error, Some(Error::WrongType { .. })), "{error:?}");
}

/// An exFAT volume with `one`, `two` and `three`, of 9000 bytes each.
fn exfat() -> Volume {
    let volume = mkfs_exfat(6 * MIB, "-c 4096");
    let mounted = Fused::new(&volume, "rw");
    for (n, name) in (0..).zip(["one", "two", "three"]) {
        fs::write(mounted.path().join(name), noise(n, 9000)).unwrap();
    }
    drop(mounted);
    volume
}

#[test]
fn records_that_do_not_match_their_checksum_or_hash_are_left_out() {
    let volume = exfat();
    let id = find(&*reader(&volume), "two").unwrap();
    let check = |volume: &Volume| {
        let filesystem = reader(volume);
        assert_damaged(listed(&*filesystem, filesystem.root()), &["one", "three"]);
        assert!(matches!(filesystem.metadata(id), Err(Error::Damaged { .. })));
        assert!(bytes_of(&*filesystem, "three") == noise(2, 9000));
        let absent = filesystem.lookup(filesystem.root(), b"two", Job::silent());
        assert!(matches!(absent, Err(Error::Damaged { .. })));
    };
    for at in [4, 33, 50, 66, 95] {
        let changed = volume.duplicate();
        let byte = bytes_at(&changed, Extent::new(id.number + at, 1))[0];
        changed.patch(id.number + at, &[byte ^ 0x10]);
        check(&changed);
    }
    // A right checksum over a name that is not that of the hash, no name, no stream.
    for (at, bytes) in [(66, b"x"), (35, b"\0"), (32, b"\xc1"), (64, b"\xe0")] {
        let changed = volume.duplicate();
        patch_set(&changed, id, at, bytes);
        check(&changed);
    }
}

#[test]
fn a_set_that_breaks_off_hides_no_other() {
    let volume = exfat();
    let id = find(&*reader(&volume), "two").unwrap();
    for (at, value) in [(0, 0x86), (0, 0xc5), (1, 1), (1, 19), (1, 5), (32, 0x40), (64, 0x85)] {
        let changed = volume.duplicate();
        changed.patch(id.number + at, &[value]);
        let filesystem = reader(&changed);
        assert_damaged(listed(&*filesystem, filesystem.root()), &["one", "three"]);
    }
}

#[test]
fn clusters_of_exfat_that_do_not_reach_leave_the_rest_unreadable() {
    let volume = exfat();
    let id = find(&*reader(&volume), "two").unwrap();
    // Not in one piece any more: the table knows nothing of the file.
    patch_set(&volume, id, 33, &[1]);
    let filesystem = reader(&volume);
    let data = filesystem.open(id).unwrap();
    let mut bytes = vec![0; 4096];
    data.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(1, 9000)[..4096]);
    let error = data.read_exact_at(&mut bytes, 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // In one piece, and larger than the volume.
    patch_set(&volume, id, 33, &[3]);
    patch_set(&volume, id, 32 + 8, &[0xff; 8]);
    patch_set(&volume, id, 32 + 24, &(u64::MAX / 2).to_le_bytes());
    let filesystem = reader(&volume);
    let data = filesystem.open(id).unwrap();
    assert_eq!(data.len(), u64::MAX / 2);
    data.read_exact_at(&mut bytes, 0).unwrap();
    for at in [8 * MIB, u64::MAX / 2 - 4096] {
        assert!(data.read_exact_at(&mut bytes, at).is_err());
    }
}

#[test]
fn an_up_case_table_that_is_damaged_costs_only_foreign_letters() {
    let volume = exfat();
    let root = find(&*reader(&volume), "one").unwrap().number / 4096 * 4096;
    let records = bytes_at(&volume, Extent::new(root, 4096));
    let at = records.chunks(32).position(|record| record[0] == 0x82).unwrap() as u64;
    volume.patch(root + 32 * at + 4, &[1, 2, 3, 4]);
    let filesystem = reader(&volume);
    assert_eq!(names(&*filesystem, filesystem.root()).len(), 3);
    assert!(bytes_of(&*filesystem, "THREE") == noise(2, 9000));
}
