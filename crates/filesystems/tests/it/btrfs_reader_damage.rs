//! Files of Btrfs volumes that are damaged, or of which only one device is there.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use aiv_filesystems::{Error, FileData, Filesystem, ReaderNote};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use crate::btrfs_forge::{
    SUPERBLOCK, bytes_at, forge_items, forge_super, leaf_for, places_of, root_of,
};
use crate::btrfs_reader::{check, find, open};
use crate::btrfs_tools::{MOUNT, dump_tree, fill, mkfs};
use crate::ext_tools::MIB;
use crate::reader_tools::{Tree, assert_same, opened, tree_in, tree_of, tree_of_mount};
use crate::tools::{Mounted, Volume, noise, run};

/// Where the bytes of a file are.
fn extents(filesystem: &dyn Filesystem, path: &str) -> Vec<Extent> {
    filesystem.open(find(filesystem, path)).unwrap().extents().unwrap()
}

fn read(data: &dyn FileData, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    data.read_exact_at(&mut bytes, at).map(|()| bytes)
}

/// A volume with places that cannot be read.
struct Bad {
    volume: Volume,
    places: ExtentSet,
}

impl ReadAt for Bad {
    fn len(&self) -> u64 {
        self.volume.open().len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.places.within(Extent::new(offset, out.len() as u64)).next().is_some() {
            return Err(io::Error::other("a bad sector"));
        }
        self.volume.open().read_exact_at(out, offset)
    }
}

#[test]
fn a_copy_of_the_superblock_stands_in_for_the_first() {
    let volume = mkfs(128 * MIB, "");
    fill(&volume, MOUNT, 2 * MIB);
    let sound = check(&volume);
    for damaged in [&b"damage"[..], &[0; 3000]] {
        volume.patch(SUPERBLOCK + 0x48, damaged);
        let filesystem = open(&volume);
        let expected = ReaderNote::CopyUsed { what: "the superblock".to_owned() };
        assert_eq!(filesystem.notes(), [expected]);
        assert_same(&tree_of(&volume), &sound);
    }
    volume.patch((64 << 20) + 0x48, b"damage");
    let Err(failure) = opened(Arc::new(volume.open())) else { panic!("opened") };
    let expected = "the filesystem is damaged: checksum of the superblock at byte 65536 is wrong";
    assert_eq!(failure.to_string(), expected);
}

#[test]
fn a_filesystem_that_was_found_damaged_is_read_and_that_is_said() {
    let volume = mkfs(128 * MIB, "");
    forge_super(&volume, 0x38, &[5]);
    assert_eq!(open(&volume).notes(), [ReaderNote::HasErrors]);
    forge_super(&volume, 0x38, &[1]);
    volume.set_len(100 * MIB);
    assert_eq!(open(&volume).notes(), [ReaderNote::CutOff { missing: 28 * MIB }]);
    for (bit, name) in [(12, "zoned"), (13, "extent-tree-v2"), (14, "raid-stripe-tree")] {
        let unknown = volume.duplicate();
        forge_super(&unknown, 0xbc, &(1u64 << bit | 0x361).to_le_bytes());
        let Err(Error::Unsupported { what }) = opened(Arc::new(unknown.open())) else {
            panic!("{name}")
        };
        assert!(what.contains(name), "{what}");
    }
    forge_super(&volume, 0xbc, &(1u64 << 40 | 0x361).to_le_bytes());
    assert!(matches!(opened(Arc::new(volume.open())), Err(Error::Unsupported { .. })));
    // What only writers have to know.
    forge_super(&volume, 0xbc, &0x361u64.to_le_bytes());
    forge_super(&volume, 0xb4, &u64::MAX.to_le_bytes());
    open(&volume);
}

#[test]
fn second_copies_of_trees_stand_in_for_first_ones() {
    let volume = mkfs(128 * MIB, "");
    fill(&volume, MOUNT, 2 * MIB);
    let sound = check(&volume);
    for tree in [1, 3, 5, 7, 256] {
        let places = places_of(&volume, root_of(&volume, tree));
        assert_eq!(places.len(), 2);
        let before = bytes_at(&volume, places[0] + 5000, 6);
        volume.patch(places[0] + 5000, b"damage");
        assert_same(&tree_of(&volume), &sound);
        volume.patch(places[0] + 5000, &before);
        if tree != 5 {
            continue;
        }
        let place = [Extent::new(places[0] + 512, 512)].into_iter().collect();
        let bad = Bad { volume: volume.duplicate(), places: place };
        assert_same(&tree_in(&*opened(Arc::new(bad)).unwrap()), &sound);
    }
}

#[test]
fn second_copies_of_data_stand_in_for_first_ones() {
    for mount in ["rw", "rw,compress-force=lzo"] {
        let volume = mkfs(400 * MIB, "-d dup -m single --csum xxhash");
        let mounted = Mounted::new(&volume, mount);
        let bytes = noise(1, 3_000_000);
        fs::write(mounted.path().join("file"), &bytes).unwrap();
        drop(mounted);
        let filesystem = open(&volume);
        let pieces = extents(&*filesystem, "file");
        let damaged = volume.duplicate();
        for piece in &pieces {
            for at in (piece.start..piece.end()).step_by(20_000) {
                damaged.patch(at + 77, b"damage");
            }
        }
        let is_right = |volume: Arc<dyn ReadAt>| {
            let filesystem = opened(volume).unwrap();
            let file = filesystem.open(find(&*filesystem, "file")).unwrap();
            assert!(read(&*file, 0, bytes.len()).unwrap() == bytes);
            assert!(read(&*file, 1_000_001, 5).unwrap() == bytes[1_000_001..1_000_006]);
        };
        is_right(Arc::new(damaged.open()));
        let places = pieces.iter().map(|piece| Extent::new(piece.start + 4096, 4096)).collect();
        is_right(Arc::new(Bad { volume, places }));
    }
}

#[test]
fn damaged_data_is_an_error_that_names_the_place_and_the_rest_is_read() {
    for csum in ["crc32c", "xxhash", "sha256", "blake2"] {
        let volume = mkfs(128 * MIB, &format!("--csum {csum}"));
        let mounted = Mounted::new(&volume, MOUNT);
        let bytes = noise(1, 2_000_000);
        fs::write(mounted.path().join("file"), &bytes).unwrap();
        drop(mounted);
        let filesystem = open(&volume);
        let start = extents(&*filesystem, "file")[0].start;
        volume.patch(start + 40_960 + 5, &[0]);
        let file = filesystem.open(find(&*filesystem, "file")).unwrap();
        let failure = read(&*file, 0, 1_000_000).unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::InvalidData);
        let expected = format!("checksum of the data at byte {} is wrong", start + 40_960);
        assert_eq!(failure.to_string(), expected);
        assert!(read(&*file, 0, 40_960).unwrap() == bytes[..40_960]);
        assert!(read(&*file, 45_056, 1_000_000).unwrap() == bytes[45_056..1_045_056]);
        assert!(read(&*file, 40_960, 1).is_err() && read(&*file, 45_055, 1).is_err());
    }
}

#[test]
fn data_without_checksums_are_read_as_they_are_and_missing_checksums_are_told() {
    for mount in ["rw,nodatasum", "rw"] {
        let volume = mkfs(128 * MIB, "");
        let mounted = Mounted::new(&volume, mount);
        fs::write(mounted.path().join("file"), noise(1, 200_000)).unwrap();
        drop(mounted);
        let place = extents(&*open(&volume), "file")[0];
        volume.patch(place.start + 5, &[0]);
        let filesystem = open(&volume);
        let file = filesystem.open(find(&*filesystem, "file")).unwrap();
        if mount == "rw" {
            // The leaf with the checksums, in both places.
            for place in places_of(&volume, root_of(&volume, 7)) {
                volume.patch(place + 3000, b"damage");
            }
            let filesystem = open(&volume);
            let file = filesystem.open(find(&*filesystem, "file")).unwrap();
            let failure = read(&*file, 8192, 100).unwrap_err().to_string();
            assert!(failure.contains("checksum of the checksum tree at byte"), "{failure}");
        } else {
            assert_eq!(read(&*file, 5, 1).unwrap(), [0]);
        }
    }
}

#[test]
fn a_damaged_leaf_hides_its_names_and_nothing_else() {
    let volume = mkfs(128 * MIB, "-n 4096");
    let mounted = Mounted::new(&volume, MOUNT);
    let names = |n: usize| format!("name{n}");
    for n in 0..500 {
        fs::write(mounted.path().join(names(n)), noise(n as u64, 10)).unwrap();
    }
    drop(mounted);
    // Keys of names: folder 256, kind 96.
    let leaf = leaf_for(&volume, root_of(&volume, 5), (256, 96, 250));
    for place in places_of(&volume, leaf) {
        volume.patch(place + 2000, b"damage");
    }
    let filesystem = open(&volume);
    let mut told = Vec::new();
    let read = filesystem.entries(filesystem.root(), Job::silent(), &mut |entry| {
        told.push(entry.name);
        ControlFlow::Continue(())
    });
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    assert!((400..500).contains(&told.len()), "{}", told.len());
    assert!(told.contains(&b"name0".to_vec()) && told.contains(&b"name499".to_vec()));
    // By their hash they are all there, and so are their files.
    for n in 0..500 {
        let id = find(&*filesystem, &names(n));
        let data = filesystem.open(id).unwrap();
        assert_eq!(self::read(&*data, 0, 10).unwrap(), noise(n as u64, 10));
    }
    // And the other way round.
    let leaf = leaf_for(&volume, root_of(&volume, 5), (256, 84, 1 << 31));
    for place in places_of(&volume, leaf) {
        volume.patch(place + 2000, b"damage");
    }
    let filesystem = open(&volume);
    let found = told.iter().filter(|name| {
        let found = filesystem.lookup(filesystem.root(), name, Job::silent());
        found.is_ok_and(|found| found.is_some())
    });
    assert_eq!(found.count(), told.len());
}

#[test]
fn a_file_longer_than_a_kernel_can_count_is_damaged() {
    let volume = mkfs(128 * MIB, "");
    let mounted = Mounted::new(&volume, MOUNT);
    for name in ["longest", "too long"] {
        fs::write(mounted.path().join(name), noise(1, 10)).unwrap();
    }
    drop(mounted);
    let (longest, too_long) = {
        let filesystem = open(&volume);
        (find(&*filesystem, "longest").number, find(&*filesystem, "too long").number)
    };
    let leaf = leaf_for(&volume, root_of(&volume, 5), (longest, 1, 0));
    forge_items(&volume, leaf, |items| {
        for (number, len) in [(longest, u64::MAX >> 1), (too_long, (u64::MAX >> 1) + 1)] {
            let item = items.iter_mut().find(|(key, _)| *key == (number, 1, 0)).unwrap();
            item.1[16..24].copy_from_slice(&len.to_le_bytes());
        }
    });
    let filesystem = open(&volume);
    let data = filesystem.open(find(&*filesystem, "longest")).unwrap();
    assert_eq!(read(&*data, (u64::MAX >> 1) - 1, 1).unwrap(), [0]);
    let failure = filesystem.open(find(&*filesystem, "too long")).err().unwrap();
    let expected = format!("the record of file {too_long} of subvolume 5");
    assert!(failure.to_string().contains(&expected), "{failure}");
}

/// Files as devices, given back when dropped.
struct Loops(Vec<String>);

impl Loops {
    fn new(volumes: &[Volume]) -> Self {
        let attach = |volume: &Volume| run("losetup", &["-f", "--show", volume.path()]);
        Self(volumes.iter().map(|volume| attach(volume).trim().to_owned()).collect())
    }

    fn mount(&self, options: &str) -> Mounted {
        let devices: Vec<String> = self.0.iter().map(|path| format!("device={path}")).collect();
        Mounted::of_device(&self.0[0], &format!("{options},{}", devices.join(",")))
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for device in &self.0 {
            run("losetup", &["-d", device]);
        }
    }
}

/// Volumes of one filesystem, and what the kernel finds on it.
fn several(count: usize, options: &str) -> (Vec<Volume>, Tree) {
    let volumes: Vec<Volume> = (0..count).map(|_| Volume::new(300 * MIB)).collect();
    let mut words: Vec<&str> = "-q -f".split(' ').chain(options.split(' ')).collect();
    words.extend(volumes.iter().map(Volume::path));
    run("mkfs.btrfs", &words);
    let loops = Loops::new(&volumes);
    let mounted = loops.mount("rw");
    fs::write(mounted.path().join("small"), b"inline").unwrap();
    fs::create_dir(mounted.path().join("folder")).unwrap();
    for n in 0..20 {
        fs::write(mounted.path().join(format!("folder/{n}")), noise(n, 500_000)).unwrap();
    }
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let tree = tree_of_mount(mounted.path());
    drop(mounted);
    (volumes, tree)
}

#[test]
fn one_device_of_a_mirror_has_all_files() {
    for (count, options) in
        [(2, "-d raid1 -m raid1"), (3, "-d raid1c3 -m raid1c3"), (2, "-d raid10 -m raid10")]
    {
        let (volumes, tree) = several(count, options);
        for volume in &volumes {
            assert_same(&tree_of(volume), &tree);
        }
    }
}

#[test]
fn one_device_of_stripes_has_names_and_what_lies_in_records() {
    let (volumes, tree) = several(2, "-d raid0 -m raid1");
    for volume in &volumes {
        let filesystem = open(volume);
        let small = filesystem.open(find(&*filesystem, "small")).unwrap();
        assert_eq!(read(&*small, 0, 6).unwrap(), b"inline");
        for n in 0..20 {
            let id = find(&*filesystem, &format!("folder/{n}"));
            let metadata = filesystem.metadata(id).unwrap();
            assert_eq!(metadata.len, tree[format!("folder/{n}").as_bytes()].len);
            let data = filesystem.open(id).unwrap();
            let failure = read(&*data, 0, 10).unwrap_err();
            assert_eq!(failure.kind(), io::ErrorKind::InvalidData);
            let failure = failure.to_string();
            assert!(failure.ends_with("it lies on another device, or in stripes"), "{failure}");
            assert!(matches!(data.extents(), Err(Error::Damaged { .. })));
        }
    }
}

#[test]
fn chunks_on_another_device_are_lost_and_the_others_are_read() {
    let (volumes, tree) = several(2, "-d single -m raid1");
    let chunks = dump_tree(&volumes[0], "chunk");
    assert!(chunks.contains("DATA|single"), "{chunks}");
    let mut read_of = [0, 0];
    for (volume, count) in volumes.iter().zip(&mut read_of) {
        let filesystem = open(volume);
        for n in 0..20 {
            let path = format!("folder/{n}");
            let data = filesystem.open(find(&*filesystem, &path)).unwrap();
            match read(&*data, 0, 500_000) {
                Ok(bytes) => {
                    assert!(bytes == noise(n, 500_000));
                    *count += 1;
                }
                Err(failure) => {
                    let failure = failure.to_string();
                    assert!(failure.contains("on another device"), "{failure}");
                }
            }
        }
    }
    assert_eq!(tree.len(), 23);
    assert_eq!(read_of[0] + read_of[1], 20, "{read_of:?}");
}
