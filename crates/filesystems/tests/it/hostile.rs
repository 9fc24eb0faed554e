//! Bytes of an attacker: no panic, no endless loop, no unbounded memory, no map that is too
//! small to hold what it was read from.

use std::sync::LazyLock;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, total_len};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::ext_tools::{MIB, mke2fs};
use crate::tools::{Mounted, Volume};

pub(crate) struct Seed {
    pub(crate) volume: MemDisk,
    /// The ranges a map is read from.
    pub(crate) metadata: Vec<Extent>,
}

pub(crate) fn seed(volume: &Volume) -> Seed {
    let volume = MemDisk::from_bytes(std::fs::read(&volume.path).unwrap());
    let unchanged = Changes::new();
    let recorder = Mutated::new(&volume, &unchanged);
    let recognised = recognise(&recorder).unwrap();
    let _ = recorder.take_reads();
    let map = used_map(&recorder, &recognised, Job::silent()).unwrap();
    assert!(matches!(map, UsedMap::Used { .. }), "{map:?}");
    let metadata = recorder.take_reads();
    Seed { volume, metadata }
}

fn hot(options: &str) -> Volume {
    let volume = mke2fs(10 * MIB, options);
    let mounted = Mounted::new(&volume, "rw,commit=600");
    std::fs::create_dir(mounted.path().join("dir")).unwrap();
    std::fs::write(mounted.path().join("dir/file"), [1; 70_000]).unwrap();
    std::fs::File::open(mounted.path().join("dir/file")).unwrap().sync_all().unwrap();
    let copy = volume.duplicate();
    drop(mounted);
    copy
}

/// Without checksums, or nothing behind the first one would ever be reached.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    vec![
        seed(&mke2fs(10 * MIB, "-t ext2 -b 1024 -g 1024")),
        seed(&mke2fs(
            10 * MIB,
            "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,meta_bg,^resize_inode -g 512",
        )),
        seed(&mke2fs(10 * MIB, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,bigalloc -C 4096")),
        seed(&hot("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,64bit")),
        seed(&hot("-t ext3 -b 1024 -O ^resize_inode")),
        seed(&hot("-t ext4 -b 1024")),
    ]
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    #[test]
    fn mutated_metadata_never_panics_and_costs_little(
        which in 0..6usize,
        changes in prop::collection::vec(
            // Half of the changes go into the superblock, where geometry is.
            (any::<prop::sample::Index>(), 0u64..1 << 20, any::<bool>(),
             prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()]),
            1..6,
        ),
    ) {
        let seed = &SEEDS[which];
        let changes: Changes = changes.into_iter().map(|(range, at, superblock, value)| {
            let range = match superblock {
                true => Extent::new(1024, 0x180),
                false => *range.get(&seed.metadata),
            };
            (range.start + at % range.len, value)
        }).collect();
        let mutated = Mutated::new(&seed.volume, &changes);
        let recognised = recognise(&mutated).unwrap();
        let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
        let read = total_len(&mutated.take_reads());
        prop_assert!(read <= 2 * seed.volume.len(), "{read} bytes read");
        if let UsedMap::Used { used, .. } = map {
            let superblock = Extent::new(0, 2048);
            prop_assert_eq!(used.within(superblock).next(), Some(superblock));
            prop_assert!(used.runs().last().unwrap().end() <= seed.volume.len());
        }
    }

    #[test]
    fn noise_with_any_signature_is_recognised_or_not_and_never_panics(
        seed in any::<u64>(),
        len in prop_oneof![0usize..200, 1000usize..300_000],
        signature in prop::sample::select(SIGNATURES),
        zeros in any::<bool>(),
    ) {
        let mut bytes = if zeros { vec![0; len] } else { crate::tools::noise(seed, len) };
        let (at, magic) = signature;
        if let Some(place) = bytes.get_mut(at..at + magic.len()) {
            place.copy_from_slice(magic);
        }
        let volume = MemDisk::from_bytes(bytes);
        let recognised = recognise(&volume).unwrap();
        let map = used_map(&volume, &recognised, Job::silent()).unwrap();
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }
}

const SIGNATURES: &[(usize, &[u8])] = &[
    (3, b"NTFS    \0\x02\x08"),
    (3, b"EXFAT   "),
    (0, b"\xeb\x58\x90mkfs.fat\0\x02\x08\x20\0\x02\0\0\0\0\xf8\0\0"),
    (0, b"XFSB"),
    (0, b"hsqs"),
    (0, b"LUKS\xba\xbe\0\x02"),
    (512, b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xffLVM2 001"),
    (1024, b"\x10\x20\xf5\xf2"),
    (1024, b"\xe2\xe1\xf5\xe0"),
    (1024 + 0x38, b"\x53\xef\x01\0"),
    (4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    (4086, b"SWAPSPACE2"),
    (0x8000, b"\x01CD001"),
    (0x1_0040, b"_BHRfS_M"),
];
