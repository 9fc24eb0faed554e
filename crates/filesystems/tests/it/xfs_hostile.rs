//! XFS volumes of an attacker: no panic, no endless loop, no unbounded memory, and no map but
//! the right one.

use std::sync::LazyLock;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, Sums, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::ext_tools::{MIB, used_bytes};
use crate::hostile::{Seed, seed};
use crate::tools::{Mounted, Volume};
use crate::xfs_tools::{MOUNT, fragment, mkfs};

struct Target {
    seed: Seed,
    used: ExtentSet,
    /// What is read of headers and trees: everything but the log.
    structures: Vec<Extent>,
}

fn target(volume: &Volume) -> Target {
    let used = used_bytes(volume).0;
    let seed = seed(volume);
    let summed = Sums::xfs_records(&seed.volume, &seed.metadata);
    let mut structures: Vec<Extent> = summed.into_iter().map(|(record, _)| record).collect();
    for read in &seed.metadata {
        let mut start = [0; 4];
        seed.volume.read_exact_at(&mut start, read.start).unwrap();
        // Version 4: trees without checksums, and the AGFL without a magic.
        if start.starts_with(b"ABT") {
            structures.push(*read);
        } else if read.len == 2048 && &start == b"XFSB" {
            structures.push(Extent::new(read.start + 1536, 512));
        }
    }
    Target { seed, used, structures }
}

fn volume(options: &str) -> Volume {
    let volume = mkfs(32 * MIB, options);
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 1500);
    drop(mounted);
    volume
}

static TARGETS: LazyLock<Vec<Target>> = LazyLock::new(|| {
    vec![
        target(&mkfs(32 * MIB, "-m crc=0 -b size=512 -d agcount=2")),
        target(&mkfs(32 * MIB, "-m crc=0 -b size=4096 -d agcount=2")),
        target(&volume("-b size=1024 -d agcount=2 -m rmapbt=1")),
        target(&volume("-b size=4096 -d agcount=2")),
    ]
});

/// Makes the checksums of version 5 right again.
fn mend(target: &Target, changes: &mut Changes) {
    Sums::Xfs.mend(&target.seed.volume, &target.seed.metadata, changes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, ..ProptestConfig::default() })]
    /// A few wrong bytes never make two trees, two headers and the superblock agree on another
    /// map: what comes out is the right map, or none.
    #[test]
    fn mutated_metadata_never_gives_a_wrong_map(
        which in 0..4usize,
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<bool>(), 0u64..1 << 20, 0u8..8,
             prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()]),
            1..5,
        ),
        mended in prop::bool::weighted(0.9),
    ) {
        let target = &TARGETS[which];
        let mut changes: Changes = changes
            .into_iter()
            .map(|(range, structure, at, front, value)| {
                let range = match structure {
                    true => *range.get(&target.structures),
                    false => *range.get(&target.seed.metadata),
                };
                // Most fields are at the front of their records.
                let reach = if front < 5 { range.len.min(256) } else { range.len };
                (range.start + at % reach, value)
            })
            .collect();
        if mended {
            mend(target, &mut changes);
        }
        let mutated = Mutated::new(&target.seed.volume, &changes);
        let recognised = recognise(&mutated).unwrap();
        let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
        let read = total_len(&mutated.take_reads());
        prop_assert!(read <= target.seed.volume.len(), "{read} bytes read");
        if let UsedMap::Used { used, .. } = map {
            prop_assert_eq!(&used, &target.used);
        }
    }

    /// Behind a superblock that is right, anything.
    #[test]
    fn arbitrary_bytes_in_place_of_a_structure(
        which in 0..4usize,
        range in any::<prop::sample::Index>(),
        noise in any::<u64>(),
        keep in 0u64..64,
    ) {
        let target = &TARGETS[which];
        let range = *range.get(&target.structures);
        // What identifies the structure stays, in some of the cases.
        let replaced = keep.min(range.len - 1)..range.len.min(512);
        let bytes = crate::tools::noise(noise, 512);
        let mut changes: Changes =
            replaced.map(|at| range.start + at).zip(bytes).collect();
        mend(target, &mut changes);
        let mutated = Mutated::new(&target.seed.volume, &changes);
        let recognised = recognise(&mutated).unwrap();
        let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
        if let UsedMap::Used { used, .. } = map {
            prop_assert_eq!(&used, &target.used);
        }
    }

    #[test]
    fn arbitrary_bytes_behind_the_magic(
        len in 4usize..200_000,
        bytes in prop::collection::vec(any::<u8>(), 512),
        version in prop_oneof![Just(0xb4a4u16), Just(0xb4a5)],
    ) {
        let mut volume = vec![0; len.max(512)];
        volume[..512].copy_from_slice(&bytes);
        volume[..4].copy_from_slice(b"XFSB");
        volume[100..102].copy_from_slice(&version.to_be_bytes());
        volume[102..104].copy_from_slice(&512u16.to_be_bytes());
        volume.truncate(len);
        let volume = MemDisk::from_bytes(volume);
        let recognised = recognise(&volume).unwrap();
        let map = used_map(&volume, &recognised, Job::silent()).unwrap();
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }
}
