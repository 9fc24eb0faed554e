//! exFAT volumes that are not understood, or contradict themselves, are kept whole.

use aiv_filesystems::{ExFatReason, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::{Job, MemDisk, ReadAt};

use crate::exfat_tools::{Fused, field_by_dump_exfat, mkfs_exfat, patch_boot};
use crate::ext_tools::{MIB, used_bytes, whole_reason};
use crate::tools::Volume;

fn exfat(volume: &Volume) -> ExFatReason {
    match whole_reason(volume) {
        WholeReason::ExFat(reason) => reason,
        other => panic!("{other}"),
    }
}

/// 512-byte clusters: the bitmap has several.
fn plain() -> Volume {
    mkfs_exfat(16 * MIB, "-c 512")
}

/// The reason for a volume that `recognise` itself would no longer take for exFAT.
fn changed(at: u64, bytes: &[u8]) -> ExFatReason {
    let volume = plain();
    let recognised = recognise(&volume.open()).unwrap();
    patch_boot(&volume, at, bytes);
    match used_map(&volume.open(), &recognised, Job::silent()).unwrap() {
        UsedMap::Whole { reason: WholeReason::ExFat(reason) } => reason,
        other => panic!("{other:?}"),
    }
}

struct Places {
    table: u64,
    heap: u64,
    root: u64,
    bitmap: u64,
    upcase: u64,
}

impl Places {
    fn of(volume: &Volume) -> Self {
        let field = |name| field_by_dump_exfat(volume, name);
        Self {
            table: field("FAT Offset(sector offset):") * 512,
            heap: field("Cluster Heap Offset (sector offset):") * 512,
            root: field("Root Cluster (cluster offset):"),
            bitmap: field("Bitmap start cluster:"),
            upcase: field("Upcase table start cluster:"),
        }
    }

    fn cluster(&self, cluster: u64) -> u64 {
        self.heap + (cluster - 2) * 512
    }

    fn entry(&self, cluster: u64) -> u64 {
        self.table + cluster * 4
    }

    /// Offset of the root directory's entry of a type, and the entry.
    fn root_entry(&self, volume: &Volume, kind: u8) -> (u64, [u8; 32]) {
        let mut entries = [0; 512];
        volume.open().read_exact_at(&mut entries, self.cluster(self.root)).unwrap();
        let n = entries.chunks(32).position(|entry| entry[0] == kind).unwrap();
        let entry = entries[n * 32..][..32].try_into().unwrap();
        (self.cluster(self.root) + n as u64 * 32, entry)
    }
}

#[test]
fn a_volume_without_a_boot_region() {
    for (at, byte) in [(0, 0), (3, b'X'), (510, 0)] {
        assert_eq!(changed(at, &[byte]), ExFatReason::NoBootRegion);
    }
    let volume = plain();
    let recognised = recognise(&volume.open()).unwrap();
    let mut bytes = vec![0; 24 * 512 - 1];
    volume.open().read_exact_at(&mut bytes, 0).unwrap();
    for len in [511, 24 * 512 - 1] {
        let short = MemDisk::from_bytes(bytes[..len].to_vec());
        let map = used_map(&short, &recognised, Job::silent()).unwrap();
        let reason = WholeReason::ExFat(ExFatReason::NoBootRegion);
        assert_eq!(map, UsedMap::Whole { reason });
    }
}

#[test]
fn a_boot_region_that_does_not_match_its_checksum() {
    for at in [100, 513, 11 * 512 - 1, 11 * 512, 12 * 512 - 1] {
        let volume = plain();
        // The serial number, which the checksum is of too, is another one each time.
        volume.flip(at);
        assert_eq!(exfat(&volume), ExFatReason::Checksum, "byte {at}");
    }
}

#[test]
fn boot_sector_fields_out_of_range_are_named() {
    for (at, value, name) in [
        (11, &[1][..], "MustBeZero"),
        (80, &[23, 0, 0, 0], "FatOffset"),
        (84, &[1, 0, 0, 0], "FatLength"),
        (88, &[30, 0, 0, 0], "ClusterHeapOffset"),
        (88, &[0, 0x7f, 0, 0], "ClusterHeapOffset"),
        (92, &[0, 0, 0, 0], "ClusterCount"),
        (92, &[0xff, 0xff, 0xff, 0xff], "ClusterCount"),
        (96, &[1, 0, 0, 0], "FirstClusterOfRootDirectory"),
        (96, &[0, 0, 1, 0], "FirstClusterOfRootDirectory"),
        (104, &[0, 2], "FileSystemRevision"),
        (108, &[8], "BytesPerSectorShift"),
        (108, &[13], "BytesPerSectorShift"),
        (109, &[17], "SectorsPerClusterShift"),
        (110, &[0], "NumberOfFats"),
        (110, &[3], "NumberOfFats"),
    ] {
        let reason = match at {
            // Regions of other sectors would be summed; the field is judged before.
            108 => {
                let volume = plain();
                let recognised = recognise(&volume.open()).unwrap();
                volume.patch(at, value);
                match used_map(&volume.open(), &recognised, Job::silent()).unwrap() {
                    UsedMap::Whole { reason: WholeReason::ExFat(reason) } => reason,
                    other => panic!("{other:?}"),
                }
            }
            at => changed(at, value),
        };
        match reason {
            ExFatReason::Field { field, .. } => assert_eq!(field, name),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_filesystem_larger_than_its_volume() {
    let volume = plain();
    volume.set_len(16 * MIB - 1);
    let expected = ExFatReason::LargerThanVolume { filesystem: 16 * MIB, volume: 16 * MIB - 1 };
    assert_eq!(exfat(&volume), expected);
}

#[test]
fn two_tables_or_two_bitmaps() {
    assert_eq!(changed(110, &[2]), ExFatReason::TexFat);
    assert_eq!(changed(106, &[1, 0]), ExFatReason::TexFat);

    let volume = plain();
    let places = Places::of(&volume);
    let (_, mut entry) = places.root_entry(&volume, 0x81);
    entry[1] = 1;
    let (after, _) = places.root_entry(&volume, 0x00);
    volume.patch(after, &entry);
    let expected = ExFatReason::Entries { section: "allocation bitmap", found: 2 };
    assert_eq!(exfat(&volume), expected);
}

#[test]
fn a_table_that_begins_with_something_else() {
    for at in [0, 3, 4, 7] {
        let volume = plain();
        let places = Places::of(&volume);
        volume.patch(places.table + at, &[0x5a]);
        assert!(matches!(exfat(&volume), ExFatReason::FirstEntries { .. }));
    }
}

#[test]
fn a_root_directory_without_bitmap_or_table() {
    for (kind, section) in [(0x81, "allocation bitmap"), (0x82, "up-case table")] {
        let volume = plain();
        let (at, _) = Places::of(&volume).root_entry(&volume, kind);
        volume.patch(at, &[kind & 0x7f]);
        assert_eq!(exfat(&volume), ExFatReason::Entries { section, found: 0 });
    }
}

#[test]
fn a_bitmap_behind_the_end_of_the_root_directory_is_none() {
    let volume = plain();
    let places = Places::of(&volume);
    volume.patch(places.cluster(places.root), &[0]);
    let expected = ExFatReason::Entries { section: "allocation bitmap", found: 0 };
    assert_eq!(exfat(&volume), expected);
}

#[test]
fn structures_of_a_wrong_size() {
    for (kind, section, len) in [
        (0x81, "allocation bitmap", 1u64),
        (0x81, "allocation bitmap", 1 << 40),
        (0x82, "up-case table", 0),
        (0x82, "up-case table", (128 << 10) + 1),
    ] {
        let volume = plain();
        let (at, _) = Places::of(&volume).root_entry(&volume, kind);
        volume.patch(at + 24, &len.to_le_bytes());
        match exfat(&volume) {
            ExFatReason::Size { section: found, found: size, .. } => {
                assert_eq!((found, size), (section, len));
            }
            other => panic!("{section}: {other}"),
        }
    }
}

#[test]
fn chains_that_lead_nowhere_or_do_not_end() {
    let root = |value: u32| {
        let volume = plain();
        let places = Places::of(&volume);
        volume.patch(places.entry(places.root), &value.to_le_bytes());
        (exfat(&volume), u32::try_from(places.root).unwrap())
    };
    for value in [0, 1, 0xffff_fff7, 0x7fff_ffff] {
        let (reason, cluster) = root(value);
        assert_eq!(reason, ExFatReason::Chain { section: "root directory", cluster });
    }
    // A chain that leads back to its own first cluster.
    let volume = plain();
    let places = Places::of(&volume);
    let itself = u32::try_from(places.root).unwrap();
    volume.patch(places.entry(places.root), &itself.to_le_bytes());
    let expected = ExFatReason::Chain { section: "root directory", cluster: itself };
    assert_eq!(exfat(&volume), expected);
}

#[test]
fn a_bitmap_in_pieces_or_outside_the_volume() {
    let broken = |change: &dyn Fn(&Volume, &Places)| {
        let volume = plain();
        let places = Places::of(&volume);
        change(&volume, &places);
        match exfat(&volume) {
            ExFatReason::Chain { section: "allocation bitmap", cluster } => u64::from(cluster),
            other => panic!("{other}"),
        }
    };
    let first = Places::of(&plain()).bitmap;
    // The second link skips a cluster; the last one goes on; one in the middle is missing.
    let skips = |volume: &Volume, places: &Places| {
        let next = u32::try_from(first + 3).unwrap();
        volume.patch(places.entry(first + 1), &next.to_le_bytes());
    };
    assert_eq!(broken(&skips), first + 1);
    let missing = |volume: &Volume, places: &Places| {
        volume.patch(places.entry(first + 1), &[0; 4]);
    };
    assert_eq!(broken(&missing), first + 1);
    let outside = |volume: &Volume, places: &Places| {
        let (at, _) = places.root_entry(volume, 0x81);
        volume.patch(at + 20, &0xffff_fff0_u32.to_le_bytes());
    };
    assert_eq!(broken(&outside), 0xffff_fff0);
}

#[test]
fn a_bitmap_that_calls_metadata_free() {
    for section in ["root directory", "allocation bitmap", "up-case table"] {
        let volume = plain();
        let places = Places::of(&volume);
        let cluster = match section {
            "root directory" => places.root,
            "allocation bitmap" => places.bitmap + 1,
            _ => places.upcase,
        };
        let byte_at = places.cluster(places.bitmap) + (cluster - 2) / 8;
        let mut byte = [0];
        volume.open().read_exact_at(&mut byte, byte_at).unwrap();
        volume.patch(byte_at, &[byte[0] & !(1 << ((cluster - 2) % 8))]);
        let cluster = u32::try_from(cluster).unwrap();
        assert_eq!(exfat(&volume), ExFatReason::MetadataFree { section, cluster });
    }
}

#[test]
fn structures_that_share_clusters() {
    let volume = plain();
    let places = Places::of(&volume);
    let (at, _) = places.root_entry(&volume, 0x82);
    let cluster = u32::try_from(places.root).unwrap();
    volume.patch(at + 20, &cluster.to_le_bytes());
    volume.patch(at + 24, &512u64.to_le_bytes());
    assert_eq!(exfat(&volume), ExFatReason::SharedCluster { cluster });
}

/// A volume with a file of three clusters in the root directory and one in a folder.
fn with_files() -> Volume {
    let volume = plain();
    let mounted = Fused::new(&volume, "rw");
    std::fs::create_dir(mounted.path().join("folder")).unwrap();
    for name in ["folder/inner", "outer"] {
        std::fs::write(mounted.path().join(name), [7; 1500]).unwrap();
    }
    drop(mounted);
    assert!(matches!(used_bytes(&volume), (_, 512, _)));
    volume
}

/// The entry set of "outer", the last in the root directory, and where it is.
fn outer(volume: &Volume) -> (u64, Vec<u8>) {
    let places = Places::of(volume);
    let mut entries = vec![0; 512];
    volume.open().read_exact_at(&mut entries, places.cluster(places.root)).unwrap();
    let n = entries.chunks(32).rposition(|entry| entry[0] == 0x85).unwrap();
    (places.cluster(places.root) + n as u64 * 32, entries[n * 32..][..96].to_vec())
}

/// Changes the set of "outer" and gives it the checksum it then has.
fn change_outer(volume: &Volume, change: impl FnOnce(&mut [u8])) -> u64 {
    let (at, mut set) = outer(volume);
    change(&mut set);
    let summed = set.iter().enumerate().filter(|(n, _)| ![2, 3].contains(n));
    let sum = summed.fold(0u16, |sum, (_, &b)| sum.rotate_right(1).wrapping_add(b.into()));
    set[2..4].copy_from_slice(&sum.to_le_bytes());
    volume.patch(at, &set);
    at
}

fn first_of(set: &[u8]) -> u32 {
    u32::from_le_bytes(set[32 + 20..][..4].try_into().unwrap())
}

#[test]
fn a_bitmap_that_calls_a_cluster_of_a_file_free() {
    let volume = with_files();
    let places = Places::of(&volume);
    let cluster = first_of(&outer(&volume).1) + 1;
    let bit = u64::from(cluster) - 2;
    let byte_at = places.cluster(places.bitmap) + bit / 8;
    let mut byte = [0];
    volume.open().read_exact_at(&mut byte, byte_at).unwrap();
    volume.patch(byte_at, &[byte[0] & !(1 << (bit % 8))]);
    assert_eq!(exfat(&volume), ExFatReason::FileFree { cluster });
    // Whether it was unmounted or not.
    volume.patch(106, &[2, 0]);
    assert_eq!(exfat(&volume), ExFatReason::FileFree { cluster });
}

#[test]
fn files_that_share_clusters() {
    let volume = with_files();
    let cluster = u32::try_from(Places::of(&volume).upcase).unwrap();
    change_outer(&volume, |set| {
        set[33] |= 2;
        set[32 + 20..][..4].copy_from_slice(&cluster.to_le_bytes());
    });
    assert_eq!(exfat(&volume), ExFatReason::SharedCluster { cluster });
}

#[test]
fn a_file_whose_chain_is_too_short_or_leads_outside() {
    let volume = with_files();
    let cluster = first_of(&outer(&volume).1);
    let places = Places::of(&volume);
    change_outer(&volume, |set| set[33] &= !2);
    for entry in [1u32, 0xffff_ffff] {
        volume.patch(places.entry(cluster.into()), &entry.to_le_bytes());
        let expected = ExFatReason::Chain { section: "a file or folder", cluster };
        assert_eq!(exfat(&volume), expected);
    }
}

#[test]
fn a_file_with_a_size_or_place_it_cannot_have() {
    for (first, len) in [(0u32, 5u64), (1, 5), (100, 0), (0xffff_0000, 5), (100, u64::MAX)] {
        let volume = with_files();
        let at = change_outer(&volume, |set| {
            set[32 + 20..][..4].copy_from_slice(&first.to_le_bytes());
            set[32 + 24..][..8].copy_from_slice(&len.to_le_bytes());
        });
        let what = "has a size or first cluster it cannot have";
        let expected = ExFatReason::DirectoryEntry { offset: at + 32, what };
        assert_eq!(exfat(&volume), expected, "{first} {len}");
    }
}

#[test]
fn directory_entries_that_are_damaged_or_not_understood() {
    let entry = |change: &dyn Fn(&Volume) -> u64| {
        let volume = with_files();
        let at = change(&volume);
        match exfat(&volume) {
            ExFatReason::DirectoryEntry { offset, what } => (offset - at, what),
            other => panic!("{other}"),
        }
    };
    let checksum = entry(&|volume| {
        let (at, _) = outer(volume);
        // The time it was made.
        volume.flip(at + 8);
        at
    });
    assert_eq!(checksum, (0, "does not match its checksum"));
    let count = entry(&|volume| change_outer(volume, |set| set[1] = 1));
    assert_eq!(count, (0, "has a number of further entries it cannot have"));
    let ends = entry(&|volume| change_outer(volume, |set| set[1] = 3));
    assert_eq!(ends, (96, "is not the further entry of a file that it should be"));
    let order = entry(&|volume| change_outer(volume, |set| set[64] = 0xc0));
    assert_eq!(order, (0, "has its further entries in a wrong order"));
    let kind = entry(&|volume| change_outer(volume, |set| set[0] = 0x86));
    assert_eq!(kind, (0, "is of an unknown kind, or belongs to no file"));
}

#[test]
fn more_clusters_than_are_followed() {
    let reason = changed(92, &(1u32 << 30 | 1).to_le_bytes());
    assert!(matches!(reason, ExFatReason::Field { field: "ClusterCount", .. }));
}
