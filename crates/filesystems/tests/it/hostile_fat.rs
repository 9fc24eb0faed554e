//! Bytes of an attacker for the parsers of FAT, exFAT and swap: no panic, no endless loop, no
//! map that leaves out what it was read from.

use std::sync::LazyLock;

use aiv_filesystems::{Recognised, UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, Sums, total_len};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::exfat_tools::{fill_exfat, mkfs_exfat};
use crate::ext_tools::MIB;
use crate::fat_tools::{fill_fat, mkfs_fat};
use crate::tools::Volume;

/// A sound volume, and where its map is read from.
struct Seed {
    disk: MemDisk,
    recognised: Recognised,
    records: Vec<Extent>,
}

impl Seed {
    fn of(volume: &Volume) -> Self {
        let disk = MemDisk::from_bytes(std::fs::read(&volume.path).unwrap());
        let recognised = recognise(&disk).unwrap();
        let none = Changes::new();
        let recorder = Mutated::new(&disk, &none);
        let map = used_map(&recorder, &recognised, Job::silent()).unwrap();
        assert!(matches!(map, UsedMap::Used { .. }), "{map:?}");
        let records = recorder.take_reads();
        Self { disk, recognised, records }
    }

    /// Puts changes on the volume and asks for its map, whatever it is then recognised as.
    fn check(&self, changes: &Changes) -> bool {
        let mutated = Mutated::new(&self.disk, changes);
        recognise(&mutated).unwrap();
        // Signatures and labels are no records of the map.
        let _ = mutated.take_reads();
        let map = used_map(&mutated, &self.recognised, Job::silent()).unwrap();
        let reads = mutated.take_reads();
        let read = total_len(&reads);
        assert!(read <= 4 * self.disk.len(), "{read} bytes read");
        let UsedMap::Used { used, cluster_size, .. } = map else { return false };
        assert!(cluster_size.is_power_of_two() && cluster_size >= 512);
        assert!(used.runs().last().unwrap().end() <= self.disk.len());
        for seen in reads {
            // The front of a swap space is read for signatures as well.
            let seen = if seen.start == 0 { Extent::new(0, 512) } else { seen };
            assert_eq!(used.within(seen).next(), Some(seen), "a record is not in the map");
        }
        true
    }
}

fn filled(volume: Volume, fill: fn(&Volume, u64), bytes: u64) -> Seed {
    fill(&volume, bytes);
    Seed::of(&volume)
}

static FAT: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    vec![
        filled(mkfs_fat(MIB, "-F 12 -s 1"), fill_fat, MIB / 2),
        filled(mkfs_fat(3 * MIB, "-F 16 -s 1 -f 1"), fill_fat, MIB),
        filled(mkfs_fat(3 * MIB, "-F 16 -s 1"), fill_fat, MIB),
        filled(mkfs_fat(35 * MIB, "-F 32 -s 1"), fill_fat, MIB),
    ]
});

static EXFAT: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    vec![
        filled(mkfs_exfat(6 * MIB, "-c 512"), fill_exfat, MIB),
        filled(mkfs_exfat(6 * MIB, "-c 4096"), fill_exfat, MIB),
    ]
});

static SWAP: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    ["-q", "-q -p 65536 -L label"]
        .map(|options| Seed::of(&Volume::made_by(MIB, "mkswap", options)))
        .into()
});

/// Which seed, and which bytes of its records become what. Half of the changes go into the
/// fields at the front.
fn changes()
-> impl Strategy<Value = (prop::sample::Index, Vec<(prop::sample::Index, u64, bool, u8)>)> {
    let value = prop_oneof![Just(0), Just(1), Just(2), Just(0x7f), Just(0xff), any::<u8>()];
    let change = (any::<prop::sample::Index>(), 0u64..1 << 20, any::<bool>(), value);
    (any::<prop::sample::Index>(), prop::collection::vec(change, 1..5))
}

fn place(
    seed: &Seed,
    fields: Extent,
    changes: Vec<(prop::sample::Index, u64, bool, u8)>,
) -> Changes {
    let place = |(range, at, front, value): (prop::sample::Index, u64, bool, u8)| {
        let range = if front { fields } else { *range.get(&seed.records) };
        (range.start + at % range.len, value)
    };
    changes.into_iter().map(place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn mutated_fat((which, list) in changes()) {
        let seed = which.get(&FAT);
        seed.check(&place(seed, Extent::new(11, 56), list));
    }

    #[test]
    fn mutated_exfat_with_a_right_checksum((which, list) in changes()) {
        let seed = which.get(&EXFAT);
        let mut changes = place(seed, Extent::new(64, 48), list);
        // Without the checksum nothing behind it would ever be reached.
        Sums::ExFat.mend(&seed.disk, &seed.records, &mut changes);
        seed.check(&changes);
    }

    #[test]
    fn mutated_exfat_as_it_comes((which, list) in changes()) {
        let seed = which.get(&EXFAT);
        seed.check(&place(seed, Extent::new(64, 48), list));
    }

    #[test]
    fn mutated_swap((which, list) in changes()) {
        let seed = which.get(&SWAP);
        seed.check(&place(seed, Extent::new(1024, 64), list));
    }

    #[test]
    fn arbitrary_bytes_behind_a_sound_front(
        parser in 0..3usize,
        noise in any::<u64>(),
        kept in prop_oneof![0usize..600, 600usize..40_000],
        len in 0usize..200_000,
    ) {
        let seed = [&FAT[1], &EXFAT[0], &SWAP[0]][parser];
        let mut bytes = crate::tools::noise(noise, len);
        let kept = kept.min(len);
        seed.disk.read_exact_at(&mut bytes[..kept], 0).unwrap();
        let disk = MemDisk::from_bytes(bytes);
        recognise(&disk).unwrap();
        let map = used_map(&disk, &seed.recognised, Job::silent()).unwrap();
        // The filesystem no longer fits, whatever its records say.
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }

    #[test]
    fn arbitrary_bytes(
        parser in 0..3usize,
        bytes in prop::collection::vec(any::<u8>(), 0..30_000),
    ) {
        let seed = [&FAT[1], &EXFAT[0], &SWAP[0]][parser];
        let disk = MemDisk::from_bytes(bytes);
        let map = used_map(&disk, &seed.recognised, Job::silent()).unwrap();
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }
}

#[test]
fn the_seeds_have_a_map_and_each_parser_can_refuse() {
    for (seeds, at) in [(&FAT, 16), (&EXFAT, 100), (&SWAP, 1032)] {
        for seed in seeds.iter() {
            assert!(seed.check(&Changes::new()));
            // Of exFAT it is the serial number, which may be any.
            let mut byte = [0];
            seed.disk.read_exact_at(&mut byte, at).unwrap();
            assert!(!seed.check(&Changes::from([(at, !byte[0])])));
        }
    }
}
