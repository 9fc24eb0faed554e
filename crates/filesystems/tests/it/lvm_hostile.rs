//! LVM2 physical volumes of an attacker, every checksum right: no panic, no endless loop, and no
//! map without the records it was read from.

use std::sync::LazyLock;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, Sums, total_len};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::ext_tools::{MIB, mke2fs};
use crate::lvm_tools::Lvm;
use crate::tools::Volume;

struct Target {
    disk: MemDisk,
    text: Extent,
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let lvm = Lvm::new(&[16 * MIB], "");
    for (name, extents) in [("root", 3), ("swap", 1), ("raw", 2)] {
        lvm.create(name, extents, "");
    }
    lvm.call("lvextend -l +1 vg/root");
    lvm.fill("root", &mke2fs(4 * MIB, "-t ext2 -b 1024"));
    lvm.fill("swap", &Volume::made_by(MIB, "mkswap", "-q"));
    let disk = MemDisk::from_bytes(std::fs::read(&lvm.disks[0].path).unwrap());
    let [offset, len] = [4096 + 40, 4096 + 48].map(|at| {
        let mut word = [0; 8];
        disk.read_exact_at(&mut word, at).unwrap();
        u64::from_le_bytes(word)
    });
    Target { disk, text: Extent::new(4096 + offset, len) }
});

/// Makes the checksums of the label, the header of the area and the text right.
fn mend(changes: &mut Changes) {
    Sums::Lvm.mend(&TARGET.disk, &[], changes);
}

fn check(changes: &Changes) -> bool {
    let target = &*TARGET;
    let mutated = Mutated::new(&target.disk, changes);
    let recognised = recognise(&mutated).unwrap();
    let _ = mutated.take_reads();
    let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
    let read = total_len(&mutated.take_reads());
    assert!(read <= 2 * target.disk.len(), "{read} bytes read");
    let UsedMap::Used { used, cluster_size, .. } = map else { return false };
    assert!(cluster_size.is_power_of_two());
    assert!(used.runs().last().unwrap().end() <= target.disk.len());
    for records in [Extent::new(0, 2048), Extent::new(4096, 512), target.text] {
        assert_eq!(used.within(records).next(), Some(records));
    }
    true
}

#[test]
fn what_is_not_changed_has_a_map() {
    let mut changes = Changes::new();
    assert!(check(&changes));
    mend(&mut changes);
    assert!(check(&changes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn mutated_labels_and_headers(
        list in prop::collection::vec(
            (any::<bool>(), 0u64..200, prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()]),
            1..5,
        ),
    ) {
        let place = |(label, at, value)| if label { (512 + at, value) } else { (4096 + at, value) };
        let mut changes = list.into_iter().map(place).collect();
        mend(&mut changes);
        check(&changes);
    }

    #[test]
    fn mutated_metadata(
        list in prop::collection::vec(
            (any::<prop::sample::Index>(),
             prop_oneof![prop::sample::select(b"0123459-\"{}[]=,# \n\\".as_slice()), any::<u8>()]),
            1..5,
        ),
    ) {
        let text = TARGET.text;
        let place = |(at, value): (prop::sample::Index, u8)| {
            (text.start + at.index(usize::try_from(text.len).unwrap()) as u64, value)
        };
        let mut changes = list.into_iter().map(place).collect();
        mend(&mut changes);
        check(&changes);
    }

    /// Every number of the metadata becomes another one.
    #[test]
    fn other_numbers_in_the_metadata(
        which in any::<prop::sample::Index>(),
        digits in prop::collection::vec(prop::sample::select(b"0123456789".as_slice()), 1..6),
    ) {
        let text = TARGET.text;
        let mut bytes = vec![0; usize::try_from(text.len).unwrap()];
        TARGET.disk.read_exact_at(&mut bytes, text.start).unwrap();
        let starts: Vec<usize> = (1..bytes.len() - 6)
            .filter(|&at| bytes[at].is_ascii_digit() && bytes[at - 1] == b' ')
            .collect();
        let at = *which.get(&starts);
        let room = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut changes = (text.start + at as u64..).zip(digits.into_iter().take(room)).collect();
        mend(&mut changes);
        check(&changes);
    }
}
