//! NTFS from an attacker: no panic, no endless loop, bounded reading, and no map that leaves
//! out what it was read from.

use std::sync::LazyLock;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::ext_tools::MIB;
use crate::hostile::{self, Seed};
use crate::ntfs_maps::fragmented_table;
use crate::ntfs_tools::{mkntfs, mount};
use crate::tools::{Volume, noise};

/// In pieces of 512 bytes, but for those of an empty log (all ones) and of zeros.
fn seed(volume: &Volume) -> Seed {
    let Seed { volume, metadata } = hostile::seed(volume);
    let mut pieces = Vec::new();
    for extent in metadata.into_iter().collect::<ExtentSet>().runs() {
        for at in (extent.start..extent.end()).step_by(512) {
            let mut bytes = [0; 512];
            volume.read_exact_at(&mut bytes, at).unwrap();
            if bytes != [0xff; 512] && bytes != [0; 512] {
                pieces.push(Extent::new(at, 512));
            }
        }
    }
    Seed { volume, metadata: pieces }
}

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let filled = |options| {
        let volume = mkntfs(2 * MIB, options);
        let mounted = mount(&volume, "noatime");
        for n in 0..60 {
            let len = 500 * (n % 5) + 10;
            std::fs::write(mounted.path().join(format!("f{n}")), noise(1, len)).unwrap();
        }
        drop(mounted);
        seed(&volume)
    };
    vec![filled("-c 512"), filled("-c 4096"), filled("-s 4096"), seed(&fragmented_table())]
});

fn check(seed: &Seed, changes: &Changes) -> Result<(), TestCaseError> {
    let mutated = Mutated::new(&seed.volume, changes);
    let recognised = recognise(&mutated).unwrap();
    let recognising = mutated.take_reads();
    let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
    let reads = mutated.take_reads();
    let read = total_len(&recognising) + total_len(&reads);
    prop_assert!(read <= 4 * MIB + 2 * seed.volume.len(), "{read} bytes read");
    let UsedMap::Used { used, .. } = map else { return Ok(()) };
    prop_assert!(used.runs().last().unwrap().end() <= seed.volume.len());
    for extent in reads {
        // Looked for at places no file owns: shadow copies, and an old boot sector.
        if extent != Extent::new(7680, 128) && extent.len != 512 {
            prop_assert_eq!(used.within(extent).next(), Some(extent));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
    #[test]
    fn mutated_ntfs_never_panics_and_costs_little(
        which in 0..4usize,
        changes in prop::collection::vec(
            (
                any::<prop::sample::Index>(), 0u64..510, 0..4,
                prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()],
            ),
            1..5,
        ),
    ) {
        let seed = &SEEDS[which];
        let changes = changes.into_iter().map(|(range, at, where_, value)| {
            // A quarter of the changes each in the boot sector, in headers of records and
            // attributes, and anywhere.
            let range = range.get(&seed.metadata).start;
            match where_ {
                0 => (at % 80, value),
                1 => (range + at % 64, value),
                _ => (range + at, value),
            }
        }).collect();
        check(seed, &changes)?;
    }

    #[test]
    fn arbitrary_bytes_behind_a_boot_sector_never_panic(
        seed in any::<u64>(),
        boot in prop::collection::vec(any::<u8>(), 73),
        len in 512usize..100_000,
        sane in any::<bool>(),
    ) {
        let mut bytes = noise(seed, len);
        bytes[..73].copy_from_slice(&boot);
        bytes[3..11].copy_from_slice(b"NTFS    ");
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        if sane {
            bytes[11..40].fill(0);
            bytes[11..14].copy_from_slice(&[0, 2, 1]);
            bytes[40..72].fill(0);
            bytes[40..48].copy_from_slice(&(len as u64 / 512).to_le_bytes());
            bytes[48] = boot[48] % 64;
            bytes[56] = boot[56] % 64;
            bytes[64] = 0xf6;
            let at = usize::from(boot[48] % 64) * 512;
            if let Some(record) = bytes.get_mut(at..at + 56) {
                record[..24].copy_from_slice(b"FILE\x30\0\x03\0\0\0\0\0\0\0\0\0\x01\0\x01\0\x38\0\x01\0");
                record[24..32].copy_from_slice(&[0, 4, 0, 0, 0, 4, 0, 0]);
                record[32..48].fill(0);
            }
        }
        let volume = MemDisk::from_bytes(bytes);
        let recognised = recognise(&volume).unwrap();
        let map = used_map(&volume, &recognised, Job::silent()).unwrap();
        let whole = matches!(map, UsedMap::Whole { .. });
        prop_assert!(whole);
    }
}

/// Every byte of the boot sector, the system records and `$Bitmap`, one after another: what is
/// not refused still keeps everything that was used.
#[test]
fn one_wrong_byte_is_refused_or_loses_nothing() {
    let seed = &SEEDS[1];
    let used = |changes: Changes| {
        let mutated = Mutated::new(&seed.volume, &changes);
        let recognised = recognise(&mutated).unwrap();
        match used_map(&mutated, &recognised, Job::silent()).unwrap() {
            UsedMap::Used { used, .. } => Some(used),
            UsedMap::Whole { .. } => None,
        }
    };
    let expected = used(Changes::new()).unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        seed.volume.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let mft = number(48) * 4096;
    // A fresh $Bitmap follows the table and is the shortest file: found by its record.
    let run = number(mft + 6 * 1024 + 56 + 96 + 104 + 64);
    assert_eq!(run & 0xffff, 0x0111, "one cluster, found by one byte");
    let bitmap = (run >> 16 & 0xff) * 4096;
    let places = (0..84).chain(mft..mft + 10 * 1024).chain(bitmap..bitmap + 128);
    let (mut accepted, mut refused) = (0, 0);
    for at in places {
        let mut byte = [0];
        seed.volume.read_exact_at(&mut byte, at).unwrap();
        let value = if at % 2 == 0 { byte[0] ^ 0x81 } else { !byte[0] };
        let Some(used) = used(Changes::from([(at, value)])) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        for &run in expected.runs() {
            assert_eq!(used.within(run).next(), Some(run), "byte {at}");
        }
    }
    assert!(refused > 1500 && accepted > 1000, "{refused} refused, {accepted} accepted");
}
