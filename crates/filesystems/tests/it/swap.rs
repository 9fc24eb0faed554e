//! Swap space: its header is kept and nothing else, or all of it with the reason.

use std::collections::BTreeMap;

use aiv_filesystems::{FilesystemKind, SwapReason, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};

use crate::ext_tools::{MIB, copy_of_used, used_bytes, whole_reason};
use crate::tools::{Volume, noise, run};

fn mkswap(options: &str) -> Volume {
    Volume::made_by(8 * MIB, "mkswap", &format!("-q {options}"))
}

fn swap(volume: &Volume) -> SwapReason {
    match whole_reason(volume) {
        WholeReason::Swap(reason) => reason,
        other => panic!("{other}"),
    }
}

/// What blkid says of a volume.
fn blkid(volume: &Volume) -> BTreeMap<String, String> {
    let text = run("blkid", &["-p", "-o", "export", volume.path()]);
    let fields = text.lines().filter_map(|line| line.split_once('='));
    let fields = fields.filter(|(name, _)| *name != "DEVNAME");
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_first_page_and_what_follows_the_last_is_kept_for_every_page_size() {
    for page_size in [4096, 8192, 16_384, 32_768, 65_536u32] {
        let volume = mkswap(&format!("-L label -p {page_size}"));
        volume.patch(100_000, &noise(1, 1_000_000));
        volume.set_len(9 * MIB + 7);
        let (used, cluster_size, notes) = used_bytes(&volume);
        assert_eq!((cluster_size, notes), (page_size, vec![]));
        let kept = [Extent::new(0, page_size.into()), Extent::new(8 * MIB, MIB + 7)];
        assert_eq!(used, kept.into_iter().collect::<ExtentSet>());

        let copy = copy_of_used(&volume, &used);
        assert_eq!(blkid(&copy), blkid(&volume));
        assert!(run("swaplabel", &[copy.path()]).contains("LABEL: label"));
    }
}

#[test]
fn a_header_of_the_other_byte_order() {
    let volume = mkswap("");
    for at in [1024, 1028] {
        let mut word = [0; 4];
        volume.open().read_exact_at(&mut word, at).unwrap();
        word.reverse();
        volume.patch(at, &word);
    }
    assert_eq!(used_bytes(&volume).0.total_len(), 4096);
}

#[test]
fn a_system_that_was_suspended_to_disk() {
    for (at, magic) in [
        (4086, &b"S1SUSPEND\0"[..]),
        (4086, b"S2SUSPEND\0"),
        (4086, b"ULSUSPEND\0"),
        (4086, b"LINHIB0001"),
        (0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"),
    ] {
        let volume = mkswap("-L sleeps");
        volume.patch(at, magic);
        let recognised = recognise(&volume.open()).unwrap();
        assert_eq!(recognised.kind, FilesystemKind::SwapSuspended);
        assert_eq!(recognised.kind.name(), blkid(&volume)["TYPE"]);
        assert_eq!(recognised.label, "sleeps");
        assert_eq!(swap(&volume), SwapReason::Suspended);
    }
    // A magic in use beside it does not help.
    let volume = mkswap("");
    volume.patch(65_536 - 10, b"S1SUSPEND");
    let recognised = recognise(&volume.open()).unwrap();
    let reason = whole_reason(&volume);
    assert_eq!(recognised.also, [FilesystemKind::SwapSuspended]);
    assert!(matches!(reason, WholeReason::Ambiguous { .. }), "{reason}");
}

#[test]
fn headers_of_two_page_sizes() {
    let volume = mkswap("");
    volume.patch(8192 - 10, b"SWAPSPACE2");
    assert_eq!(swap(&volume), SwapReason::TwoPageSizes);
}

#[test]
fn a_volume_without_a_header() {
    let recognised = recognise(&mkswap("").open()).unwrap();
    for len in [0, 4095, 100_000] {
        let volume = MemDisk::from_bytes(vec![0; len]);
        let map = used_map(&volume, &recognised, Job::silent()).unwrap();
        let reason = WholeReason::Swap(SwapReason::NoHeader);
        assert_eq!(map, UsedMap::Whole { reason });
    }
}

#[test]
fn header_fields_out_of_range_are_named() {
    for (at, name, found) in [(1024, "version", 2), (1028, "last_page", 0)] {
        let volume = mkswap("");
        let recognised = recognise(&volume.open()).unwrap();
        volume.patch(at, &[if at == 1024 { 2 } else { 0 }, 0, 0, 0]);
        match used_map(&volume.open(), &recognised, Job::silent()).unwrap() {
            UsedMap::Whole {
                reason: WholeReason::Swap(SwapReason::Field { field, found: value, .. }),
            } => assert_eq!((field, value), (name, found)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_swap_space_larger_than_its_volume() {
    let volume = mkswap("");
    volume.set_len(8 * MIB - 1);
    let expected = SwapReason::LargerThanVolume { swap: 8 * MIB, volume: 8 * MIB - 1 };
    assert_eq!(swap(&volume), expected);
}

#[test]
fn bad_pages() {
    let volume = mkswap("");
    volume.patch(1032, &[3, 0, 0, 0]);
    assert_eq!(swap(&volume), SwapReason::BadPages { pages: 3 });
}

#[test]
fn a_first_page_that_holds_something_else() {
    for offset in [0, 500, 1023, 1068, 2000, 4085] {
        let volume = mkswap("");
        volume.patch(offset, &[1]);
        assert_eq!(swap(&volume), SwapReason::NotEmpty { offset });
    }
}

#[test]
fn a_filesystem_made_later_that_left_the_header_in_place() {
    for (at, magic, name) in [
        (32 << 10, &b"JFS1"[..], "JFS"),
        ((64 << 10) + 0x34, b"ReIsEr2Fs", "ReiserFS"),
        (64 << 10, b"\x01\x16\x19\x70", "GFS2"),
        (8 << 10, b"OCFSV2", "OCFS2"),
    ] {
        let volume = mkswap("");
        volume.patch(at, magic);
        assert_eq!(swap(&volume), SwapReason::OtherSignature { name });
    }
    // Of what is recognised by itself, both are told.
    for at in [8 << 10, 64 << 10, 256 << 10] {
        let volume = mkswap("");
        volume.patch(at + 0x55c, b"\x54\x19\x01\x00");
        let reason = whole_reason(&volume).to_string();
        assert_eq!(reason, "the volume carries signatures of both swap and ufs");
    }
}
