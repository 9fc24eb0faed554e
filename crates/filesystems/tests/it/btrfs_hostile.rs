//! Btrfs volumes of an attacker: no panic, no endless loop, no unbounded memory, no map that
//! leaves out what it was read from, or anything the right one has.

use std::sync::LazyLock;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::btrfs_forge::SUPERBLOCK;
use crate::btrfs_live::with_log;
use crate::btrfs_tools::{MOUNT, fill, mkfs};
use crate::ext_tools::{MIB, used_bytes};
use crate::hostile::{Seed, seed};
use crate::tools::Volume;

struct Target {
    seed: Seed,
    used: ExtentSet,
    /// How many come with the map.
    notes: usize,
    /// Another record has to agree with the extent tree, so that a few changes are noticed.
    confirmed: bool,
}

fn target(volume: &Volume, confirmed: bool) -> Target {
    let (used, _, notes) = used_bytes(volume);
    let mut seed = seed(volume);
    seed.metadata.sort_unstable_by_key(|read| read.start);
    seed.metadata.dedup();
    Target { seed, used, notes: notes.len(), confirmed }
}

fn filled(mib: u64, options: &str) -> Volume {
    let volume = mkfs(mib * MIB, options);
    fill(&volume, MOUNT, 2 * MIB);
    volume
}

static TARGETS: LazyLock<Vec<Target>> = LazyLock::new(|| {
    vec![
        target(&filled(48, "-M -n 4096"), true),
        target(&filled(112, ""), true),
        target(&mkfs(48 * MIB, "-m single"), true),
        target(&filled(48, "-m single -O ^skinny-metadata -R ^free-space-tree"), false),
        target(&with_log("-m single -n 4096", 30), false),
    ]
});

impl Target {
    /// Makes the checksums of changed records right again. All are CRC-32C of what follows 32
    /// bytes, and a record is what is read at once.
    fn mend(&self, changes: &mut Changes) {
        for record in &self.seed.metadata {
            if !changes.keys().any(|&at| record.start <= at && at < record.end()) {
                continue;
            }
            let mutated = Mutated::new(&self.seed.volume, changes);
            let mut bytes = vec![0; usize::try_from(record.len).unwrap()];
            mutated.read_exact_at(&mut bytes, record.start).unwrap();
            let sum = crc32c::crc32c(&bytes[32..]).to_le_bytes();
            changes.extend((record.start..).zip(sum));
        }
    }

    fn check(&self, changes: &Changes) {
        let mutated = Mutated::new(&self.seed.volume, changes);
        let recognised = recognise(&mutated).unwrap();
        // Signatures and labels are no records of the map.
        let _ = mutated.take_reads();
        let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
        let reads = mutated.take_reads();
        assert!(total_len(&reads) <= 2 * self.seed.volume.len(), "{} reads", reads.len());
        let UsedMap::Used { used, .. } = map else { return };
        assert!(used.runs().last().unwrap().end() <= self.seed.volume.len());
        for read in reads {
            assert_eq!(used.within(read).next(), Some(read), "a record is not in the map");
        }
        // Whether the free-space tree is valid.
        let flags = SUPERBLOCK + 0xb4..SUPERBLOCK + 0xbc;
        if self.confirmed && !changes.keys().any(|at| flags.contains(at)) {
            for &run in self.used.runs() {
                assert_eq!(used.within(run).next(), Some(run), "the map lost something");
            }
        }
    }
}

/// Where in a record: its front, where fields and keys are; its end, where items are; anywhere.
fn place(record: Extent, at: u64, part: u8) -> u64 {
    let reach = record.len.min(512);
    record.start
        + match part {
            0 => at % record.len.min(256),
            1 => at % reach,
            2 => record.len - reach + at % reach,
            _ => at % record.len,
        }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn mutated_btrfs_metadata_never_gives_a_map_that_lacks_something(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u64..1 << 20, 0u8..4,
             prop_oneof![Just(0), Just(1), Just(2), Just(0x10), Just(0x80), Just(0xff), any::<u8>()]),
            1..5,
        ),
        mended in prop::bool::weighted(0.9),
    ) {
        let target = which.get(&TARGETS);
        let mut changes: Changes = changes
            .into_iter()
            .map(|(record, at, part, value)| {
                (place(*record.get(&target.seed.metadata), at, part), value)
            })
            .collect();
        if mended {
            target.mend(&mut changes);
        }
        target.check(&changes);
    }

    #[test]
    fn arbitrary_bytes_behind_the_magic_of_btrfs(
        len in 0usize..300_000,
        bytes in prop::collection::vec(any::<u8>(), 4096),
    ) {
        let mut volume = vec![0; 69_632 + len];
        volume[65_536..69_632].copy_from_slice(&bytes);
        volume[65_536 + 0x40..][..8].copy_from_slice(b"_BHRfS_M");
        volume[65_536 + 0xc4..][..2].fill(0);
        let sum = crc32c::crc32c(&volume[65_536 + 32..69_632]).to_le_bytes();
        volume[65_536..][..4].copy_from_slice(&sum);
        let volume = MemDisk::from_bytes(volume);
        let recognised = recognise(&volume).unwrap();
        let map = used_map(&volume, &recognised, Job::silent()).unwrap();
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }
}

proptest! {
    // Each of them changes thousands of bytes.
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Behind a superblock that is right, anything.
    #[test]
    fn arbitrary_bytes_in_place_of_a_btrfs_record(
        which in any::<prop::sample::Index>(),
        record in any::<prop::sample::Index>(),
        noise in any::<u64>(),
        keep in prop_oneof![Just(0u64), Just(96), Just(101), 0u64..600],
    ) {
        let target = which.get(&TARGETS);
        let record = *record.get(&target.seed.metadata);
        // What identifies the record stays, in many of the cases.
        let bytes = crate::tools::noise(noise, usize::try_from(record.len).unwrap());
        let mut changes: Changes =
            (record.start..record.end()).zip(bytes).skip(usize::try_from(keep).unwrap()).collect();
        target.mend(&mut changes);
        target.check(&changes);
    }
}

#[test]
fn the_btrfs_seeds_have_a_map_and_every_record_matters() {
    for target in TARGETS.iter() {
        target.check(&Changes::new());
        for record in &target.seed.metadata {
            // A checksum alone, of a record that may have a second copy.
            let mut sum = [0; 2];
            target.seed.volume.read_exact_at(&mut sum, record.start).unwrap();
            let changes = Changes::from([(record.start, !sum[0]), (record.start + 1, !sum[1])]);
            let mutated = Mutated::new(&target.seed.volume, &changes);
            let recognised = recognise(&mutated).unwrap();
            let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
            if let UsedMap::Used { used, notes, .. } = map {
                assert_eq!(
                    (used, notes.len()),
                    (target.used.clone(), target.notes + 1),
                    "{record:?}"
                );
            }
        }
    }
}
