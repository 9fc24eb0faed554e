//! What F2FS volumes are kept whole for, with every checksum right.

use std::sync::LazyLock;

use aiv_filesystems::{F2fsReason, WholeReason};
use aiv_volume_io::ReadAt;

use crate::ext_tools::{MIB, used_bytes, whole_reason};
use crate::f2fs_maps::{field, fill_f2fs, mkfs_f2fs};
use crate::tools::Volume;

const BLOCK: u64 = 4096;

static FILLED: LazyLock<Volume> = LazyLock::new(|| {
    let volume = mkfs_f2fs(80 * MIB, "");
    fill_f2fs(&volume, 12);
    used_bytes(&volume);
    volume
});

fn f2fs(volume: &Volume) -> F2fsReason {
    match whole_reason(volume) {
        WholeReason::F2fs(reason) => reason,
        other => panic!("{other}"),
    }
}

fn bytes_at(volume: &Volume, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    volume.open().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf2f5_2010, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}

/// Changes bytes of both superblocks.
fn superblock(at: u64, bytes: &[u8]) -> Volume {
    let volume = FILLED.duplicate();
    volume.patch(1024 + at, bytes);
    volume.patch(BLOCK + 1024 + at, bytes);
    volume
}

/// Changes the headers of both checkpoints, at both of their ends, and sums them anew.
fn checkpoint(volume: &Volume, edit: impl Fn(&mut [u8])) {
    let first = field(&FILLED, "cp_blkaddr");
    for pack in [first, first + 512] {
        let total =
            u32::from_le_bytes(*bytes_at(volume, pack * BLOCK + 136, 4).first_chunk().unwrap());
        for block in [pack, pack + u64::from(total) - 1] {
            let mut header = bytes_at(volume, block * BLOCK, 4096);
            edit(&mut header);
            let sum = crc(&header[..4092]);
            header[4092..].copy_from_slice(&sum.to_le_bytes());
            volume.patch(block * BLOCK, &header);
        }
    }
}

fn edited(edit: impl Fn(&mut [u8])) -> Volume {
    let volume = FILLED.duplicate();
    checkpoint(&volume, edit);
    volume
}

#[test]
fn superblocks_that_are_unknown_or_contradict_themselves() {
    assert_eq!(f2fs(&superblock(2180 + 3, &[0x80])), F2fsReason::Features { bits: 0x8000_0000 });
    // A zoned device, and an image that is only ever read.
    assert_eq!(f2fs(&superblock(2180, &[2])), F2fsReason::Features { bits: 2 });
    assert_eq!(f2fs(&superblock(2181, &[0x40])), F2fsReason::Features { bits: 0x4000 });
    assert_eq!(f2fs(&superblock(2201, b"/dev/sdb")), F2fsReason::SeveralDevices);
    for (at, name) in [
        (16, "log_blocksize"),
        (20, "log_blocks_per_seg"),
        (24, "segs_per_sec"),
        (52, "segment_count_ckpt"),
        (56, "segment_count_sit"),
        (60, "segment_count_nat"),
        (76, "cp_blkaddr"),
        (80, "sit_blkaddr"),
        (84, "nat_blkaddr"),
        (88, "ssa_blkaddr"),
        (92, "main_blkaddr"),
        (1664, "cp_payload"),
    ] {
        let reason = f2fs(&superblock(at, &[7]));
        assert!(matches!(reason, F2fsReason::Field { field, .. } if field == name), "{reason}");
    }
    let volume = FILLED.duplicate();
    volume.patch(1024 + 130, &[1]);
    assert_eq!(f2fs(&volume), F2fsReason::SuperblocksDiffer);
    let volume = FILLED.duplicate();
    volume.set_len(80 * MIB - 1);
    let reason = F2fsReason::LargerThanVolume { filesystem: 80 * MIB, volume: 80 * MIB - 1 };
    assert_eq!(f2fs(&volume), reason);
}

#[test]
fn a_superblock_with_a_wrong_checksum() {
    let volume = mkfs_f2fs(60 * MIB, "-O extra_attr,sb_checksum");
    used_bytes(&volume);
    for block in 0..2 {
        volume.patch(block * BLOCK + 1024 + 130, &[1]);
    }
    assert_eq!(f2fs(&volume), F2fsReason::Checksum { section: "superblock", offset: 1024 });
}

#[test]
fn a_filesystem_that_was_not_unmounted_or_has_errors() {
    for (flags, what) in [(0x180, "in use"), (0x189, "errors"), (0x191, "fsck"), (0x1181, "off")] {
        let volume = edited(|header| header[132..136].copy_from_slice(&u32::to_le_bytes(flags)));
        assert_eq!(f2fs(&volume), F2fsReason::NotClean { flags }, "{what}");
    }
    // Orphans wait to be removed.
    let volume = edited(|header| header[132] |= 2);
    assert!(matches!(f2fs(&volume), F2fsReason::NotClean { .. }));
}

/// The older one describes tables that are no more, as here, or the same.
#[test]
fn a_damaged_checkpoint_gives_no_other_map() {
    let first = field(&FILLED, "cp_blkaddr");
    let expected = used_bytes(&FILLED).0;
    let version =
        |pack: u64| u64::from_le_bytes(*bytes_at(&FILLED, pack * BLOCK, 8).first_chunk().unwrap());
    // The first one, of two with the same version.
    let (older, newer) = match version(first + 512) > version(first) {
        true => (first, first + 512),
        false => (first + 512, first),
    };
    let damaged = |packs: &[u64]| {
        let volume = FILLED.duplicate();
        packs.iter().for_each(|pack| volume.patch(pack * BLOCK + 20, &[0xa5]));
        volume
    };
    assert_eq!(used_bytes(&damaged(&[older])).0, expected);
    let reason = f2fs(&damaged(&[newer]));
    assert!(matches!(reason, F2fsReason::Count { .. }), "{reason}");
    assert_eq!(f2fs(&damaged(&[older, newer])), F2fsReason::NoCheckpoint);
}

#[test]
fn checkpoints_that_contradict_themselves() {
    for (at, bytes, name) in [
        (156, &[3, 0, 0, 0][..], "sit_ver_bitmap_bytesize"),
        (160, &[0, 0, 0, 1], "nat_ver_bitmap_bytesize"),
    ] {
        let reason = f2fs(&edited(|header| header[at..at + 4].copy_from_slice(bytes)));
        assert!(matches!(reason, F2fsReason::Field { field, .. } if field == name), "{reason}");
    }
    for (at, name) in
        [(16, "valid_block_count"), (32, "free_segment_count"), (144, "valid_node_count")]
    {
        let reason = f2fs(&edited(|header| header[at] ^= 1));
        assert!(matches!(reason, F2fsReason::Count { field, .. } if field == name), "{reason}");
    }
    // A segment that is written to at a block that is used, twice, or not there.
    let segment = field(&FILLED, "cur_data_segno[0]");
    for (at, bytes, what) in [
        (116, &[0, 0][..], "its next block is used"),
        (84, &[0xff, 0xff], "it is written to at a block that there is not"),
        (116, &[0, 2], "it is written to at a block that there is not"),
    ] {
        let reason = f2fs(&edited(|header| header[at..at + 2].copy_from_slice(bytes)));
        match reason {
            F2fsReason::Segment { what: found, .. } => assert_eq!(found, what),
            other => panic!("{other}"),
        }
    }
    let twice = edited(|header| {
        let (hot, block) = (header[84..88].to_vec(), header[116..118].to_vec());
        header[88..92].copy_from_slice(&hot);
        header[118..120].copy_from_slice(&block);
    });
    assert_eq!(f2fs(&twice), F2fsReason::Segment { segment, what: "it is written to twice" });
}

/// Changes a byte of both copies of a table.
fn table(area: &str, copies: u64, at: u64, edit: impl Fn(u8) -> u8) -> Volume {
    let volume = FILLED.duplicate();
    let start = field(&FILLED, area) * BLOCK;
    for copy in [0, copies * BLOCK] {
        let place = start + copy + at;
        volume.patch(place, &[edit(bytes_at(&volume, place, 1)[0])]);
    }
    volume
}

#[test]
fn a_segment_table_that_contradicts_itself() {
    let copies = field(&FILLED, "segment_count_sit") / 2 * 512;
    // The bitmap of segment 2.
    let entry = 2 * 74;
    let what = "its count of used blocks is not that of its bitmap";
    let volume = table("sit_blkaddr", copies, entry + 2 + 60, |byte| byte ^ 1);
    assert_eq!(f2fs(&volume), F2fsReason::Segment { segment: 2, what });
    let volume = table("sit_blkaddr", copies, entry + 1, |byte| byte | 0xfc);
    let what = "it is of an unknown type";
    assert_eq!(f2fs(&volume), F2fsReason::Segment { segment: 2, what });
    // One block more, counted, is one too many for the checkpoint.
    let volume = table("sit_blkaddr", copies, entry + 2 + 60, |byte| byte ^ 1);
    let start = field(&FILLED, "sit_blkaddr") * BLOCK + entry;
    for copy in [0, copies * BLOCK] {
        let count = bytes_at(&volume, start + copy, 1)[0];
        let set =
            bytes_at(&volume, start + copy + 2, 64).iter().map(|b| b.count_ones()).sum::<u32>();
        assert_ne!(u32::from(count), set);
        volume.patch(start + copy, &[u8::try_from(set & 0xff).unwrap()]);
    }
    let reason = f2fs(&volume);
    let expected = matches!(reason, F2fsReason::Count { field: "valid_block_count", .. });
    assert!(expected, "{reason}");
}

#[test]
fn a_node_that_lies_in_a_free_block_or_nowhere() {
    let entry = 4 * 9 + 5;
    let reason = f2fs(&table("nat_blkaddr", 512, entry, |byte| byte ^ 0x80));
    assert!(matches!(reason, F2fsReason::Node { node: 4, what: "free", .. }), "{reason}");
    let reason = f2fs(&table("nat_blkaddr", 512, entry + 3, |_| 0x10));
    let outside = "outside of the main area";
    assert!(
        matches!(reason, F2fsReason::Node { node: 4, what, .. } if what == outside),
        "{reason}"
    );
}

#[test]
fn journals_of_the_checkpoint_that_make_no_sense() {
    let first = field(&FILLED, "cp_blkaddr");
    let total = field(&FILLED, "cp_pack_total_block_count");
    for (summary, entry, journal) in [(0, 13, "node"), (2, 78, "segment")] {
        let patched = |at: u64, bytes: &[u8]| {
            let volume = FILLED.duplicate();
            for pack in [first, first + 512] {
                volume.patch((pack + total - 7 + summary) * BLOCK + 3584 + at, bytes);
            }
            f2fs(&volume)
        };
        let what = "it has more entries than room";
        assert_eq!(patched(0, &[200, 0]), F2fsReason::Journal { journal, what });
        let mut two = vec![2, 0];
        two.resize(2 + 2 * entry, 0);
        let what = "it has an entry twice";
        assert_eq!(patched(0, &two), F2fsReason::Journal { journal, what });
        let what = match journal {
            "node" => "it names a node that there is not",
            _ => "it names a segment that there is not",
        };
        let reason = F2fsReason::Journal { journal, what };
        assert_eq!(patched(0, &[1, 0, 0xff, 0xff, 0xff, 0x7f]), reason);
    }
}
