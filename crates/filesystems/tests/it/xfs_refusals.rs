//! What is not understood, or contradicts itself, means the whole volume, with the reason.

use aiv_filesystems::{UsedMap, WholeReason, XfsReason, recognise, used_map};
use aiv_volume_io::{Job, ReadAt};

use crate::ext_tools::{MIB, whole_reason};
use crate::tools::{Mounted, Volume};
use crate::xfs_tools::{MOUNT, field, fragment, log_at, mkfs};

pub(crate) fn xfs(volume: &Volume) -> XfsReason {
    match whole_reason(volume) {
        WholeReason::Xfs(reason) => reason,
        other => panic!("{other}"),
    }
}

/// Version 4 has no checksums, so that a patched field is judged by its value.
fn plain() -> Volume {
    mkfs(32 * MIB, "-m crc=0 -b size=4096 -d agcount=2")
}

/// Version 5 with trees of two levels.
pub(crate) fn fragmented() -> Volume {
    let volume = mkfs(32 * MIB, "-b size=1024 -d agcount=1 -m rmapbt=1");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 1000);
    drop(mounted);
    assert_eq!(field(&volume, "agf 0", "bnolevel"), 2);
    volume
}

pub(crate) fn bytes_of<const N: usize>(volume: &Volume, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    volume.open().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// A record with a checksum.
#[derive(Clone, Copy)]
struct Summed {
    at: u64,
    len: usize,
    crc_at: usize,
}

const SUPERBLOCK: Summed = Summed { at: 0, len: 512, crc_at: 224 };
const AGF: Summed = Summed { at: 512, len: 512, crc_at: 216 };
const AGI: Summed = Summed { at: 1024, len: 512, crc_at: 312 };
const AGFL: Summed = Summed { at: 1536, len: 512, crc_at: 32 };

/// A block of a tree in group 0 with blocks of 1 KiB.
fn tree_block(block: u64) -> Summed {
    Summed { at: block * 1024, len: 1024, crc_at: 52 }
}

/// Changes a field of a record and makes its checksum right again.
fn forge(volume: &Volume, record: Summed, field_at: u64, bytes: &[u8]) {
    volume.patch(record.at + field_at, bytes);
    volume.patch(record.at + record.crc_at as u64, &[0; 4]);
    let mut content = vec![0; record.len];
    volume.open().read_exact_at(&mut content, record.at).unwrap();
    volume.patch(record.at + record.crc_at as u64, &crc32c::crc32c(&content).to_le_bytes());
}

fn be(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap().to_be_bytes()
}

#[test]
fn no_superblock_or_half_of_one() {
    let recognised = recognise(&plain().open()).unwrap();
    for len in [0, 511, 512] {
        let map = used_map(&Volume::new(len).open(), &recognised, Job::silent()).unwrap();
        let reason = WholeReason::Xfs(XfsReason::NoSuperblock);
        assert_eq!(map, UsedMap::Whole { reason });
    }
    let volume = mkfs(64 * MIB, "-b size=4096 -s size=4096 -d agcount=2");
    volume.set_len(4095);
    assert_eq!(xfs(&volume), XfsReason::NoSuperblock);
}

#[test]
fn a_version_of_the_future_or_the_past() {
    for version in [0, 1, 3, 6, 15] {
        let volume = plain();
        let [high, low] = bytes_of(&volume, 100);
        volume.patch(100, &[high, low & 0xf0 | version]);
        assert_eq!(xfs(&volume), XfsReason::Version { found: version.into() });
    }
}

#[test]
fn unknown_features_of_each_set() {
    let volume = plain();
    let [high, low] = bytes_of(&volume, 100);
    volume.patch(100, &[high | 2, low]);
    let field = "sb_versionnum";
    assert_eq!(xfs(&volume), XfsReason::UnknownFeatures { field, bits: 0x200 });
    for (at, field) in [(200, "sb_features2"), (204, "sb_bad_features2")] {
        let volume = plain();
        volume.patch(at, &[0x40]);
        assert_eq!(xfs(&volume), XfsReason::UnknownFeatures { field, bits: 0x4000_0000 });
    }
    for (at, field, bits) in [
        (208, "sb_features_compat", 1),
        (212, "sb_features_ro_compat", 0x10),
        // metadir, zoned.
        (216, "sb_features_incompat", 0x100),
        (216, "sb_features_incompat", 0x200),
        (220, "sb_features_log_incompat", 2),
    ] {
        let volume = mkfs(32 * MIB, "-d agcount=2");
        let found = u32::from_be_bytes(bytes_of(&volume, at));
        forge(&volume, SUPERBLOCK, at, &(found | bits).to_be_bytes());
        let reason = xfs(&volume);
        assert_eq!(reason, XfsReason::UnknownFeatures { field, bits });
        assert!(reason.to_string().contains(field), "{reason}");
    }
}

#[test]
fn a_filesystem_that_asks_for_repair_or_was_never_finished() {
    let volume = mkfs(32 * MIB, "-d agcount=2");
    let found = u32::from_be_bytes(bytes_of(&volume, 216));
    forge(&volume, SUPERBLOCK, 216, &(found | 0x10).to_be_bytes());
    assert_eq!(xfs(&volume), XfsReason::NeedsRepair);
    let volume = plain();
    volume.patch(126, &[1]);
    assert_eq!(xfs(&volume), XfsReason::InProgress);
}

#[test]
fn a_log_or_files_on_another_device() {
    let other = Volume::new(32 * MIB);
    let volume = mkfs(32 * MIB, &format!("-d agcount=2 -l logdev={}", other.path()));
    assert_eq!(xfs(&volume), XfsReason::ExternalLog);
    let rtdev = format!("-d agcount=2 -m reflink=0,rmapbt=0 -r rtdev={}", other.path());
    assert_eq!(xfs(&mkfs(32 * MIB, &rtdev)), XfsReason::Realtime);
}

#[test]
fn superblock_fields_out_of_range_are_named() {
    for (at, bytes, field) in [
        (102, &[2, 1][..], "sb_sectsize"),
        (102, &[0, 0], "sb_sectsize"),
        (102, &[0x20, 0], "sb_sectsize"),
        (121, &[10], "sb_sectlog"),
        (4, &[0, 0, 3, 0], "sb_blocksize"),
        (4, &[0, 2, 0, 0], "sb_blocksize"),
        (120, &[13], "sb_blocklog"),
        (8, &[0xff; 8], "sb_dblocks"),
        (84, &[0, 0, 0, 63], "sb_agblocks"),
        (84, &[0xff, 0, 0, 0], "sb_agblocks"),
        (88, &[0, 0, 0, 3], "sb_agcount"),
        (8, &[0, 0, 0, 0, 0, 0, 0, 0], "sb_agcount"),
        (124, &[15], "sb_agblklog"),
        (96, &[0, 0, 0, 1], "sb_logblocks"),
        (96, &[0x70, 0, 0, 0], "sb_logblocks"),
        (56, &[0xff; 8], "sb_rootino"),
        (56, &[0, 0, 0, 0, 0, 0, 0, 1], "sb_rootino"),
        (122, &[7], "sb_inopblog"),
        (123, &[7], "sb_inopblog"),
        (48, &[0, 0, 0, 0, 0, 0, 0x10, 0], "sb_logstart"),
        (48, &[0, 0, 0, 0, 0, 0, 0x0f, 0xff], "sb_logstart"),
        (48, &[0, 0, 0, 9, 0, 0, 0, 8], "sb_logstart"),
    ] {
        let volume = plain();
        volume.patch(at, bytes);
        match xfs(&volume) {
            XfsReason::Field { field: found, .. } => assert_eq!(found, field),
            other => panic!("{field}: {other}"),
        }
    }
    // One block more than one group.
    let volume = plain();
    volume.patch(8, &(4096u64 + 1).to_be_bytes());
    assert!(xfs(&volume).to_string().contains("64 blocks or more"), "{}", xfs(&volume));
}

#[test]
fn a_filesystem_larger_than_its_volume() {
    let volume = plain();
    volume.set_len(32 * MIB - 1);
    let (filesystem, volume_len) = (32 * MIB, 32 * MIB - 1);
    let expected = XfsReason::LargerThanVolume { filesystem, volume: volume_len };
    assert_eq!(xfs(&volume), expected);
}

#[test]
fn every_checksum_is_checked() {
    let volume = fragmented();
    let [bno, cnt] = ["bnoroot", "cntroot"].map(|name| field(&volume, "agf 0", name) * 1024);
    for (at, section, offset) in [
        (108, "superblock", 0),
        (512 + 208, "AGF", 512),
        (1024 + 200, "AGI", 1024),
        (1536 + 300, "AGFL", 1536),
        (bno + 1000, "free-space tree", bno),
        (cnt + 1000, "free-space tree", cnt),
    ] {
        let damaged = volume.duplicate();
        damaged.flip(at);
        assert_eq!(xfs(&damaged), XfsReason::Checksum { section, offset });
    }
    let volume = mkfs(32 * MIB, "-d agcount=2");
    volume.patch(16 * MIB + 108, b"x");
    let expected = XfsReason::Checksum { section: "superblock copy", offset: 16 * MIB };
    assert_eq!(xfs(&volume), expected);
}

fn assert_header(volume: &Volume, section: &str, field: &str) {
    match xfs(volume) {
        XfsReason::Header { section: found, field: name, group: 0, .. } => {
            assert_eq!((found, name), (section, field));
        }
        other => panic!("{section} {field}: {other}"),
    }
}

#[test]
fn headers_of_groups_are_at_their_place_and_of_this_filesystem() {
    let volume = mkfs(32 * MIB, "-b size=1024 -d agcount=1 -m rmapbt=1");
    for (record, section, at, value, field) in [
        (AGF, "AGF", 0, 0, "magic"),
        (AGF, "AGF", 4, 2, "version"),
        (AGF, "AGF", 8, 1, "seqno"),
        (AGF, "AGF", 12, 1, "length"),
        (AGF, "AGF", 64, 7, "uuid"),
        (AGF, "AGF", 16, 0, "agf_bno_root"),
        (AGF, "AGF", 20, 32 * 1024, "agf_cnt_root"),
        (AGF, "AGF", 24, 1, "agf_rmap_root"),
        (AGF, "AGF", 88, 40_000, "agf_refcount_root"),
        (AGF, "AGF", 28, 0, "agf_levels"),
        (AGF, "AGF", 32, 10, "agf_levels"),
        (AGF, "AGF", 52, 40_000, "agf_freeblks"),
        (AGF, "AGF", 40, 119, "agf_flfirst"),
        (AGF, "AGF", 44, 119, "agf_fllast"),
        (AGF, "AGF", 48, 119, "agf_flcount"),
        (AGF, "AGF", 48, 3, "agf_flcount"),
        (AGI, "AGI", 0, 0, "magic"),
        (AGI, "AGI", 4, 2, "version"),
        (AGI, "AGI", 8, 1, "seqno"),
        (AGI, "AGI", 12, 1, "length"),
        (AGI, "AGI", 296, 7, "uuid"),
        (AGI, "AGI", 20, 0, "agi_root"),
        (AGI, "AGI", 328, 40_000, "agi_free_root"),
        (AGFL, "AGFL", 0, 0, "magic"),
        (AGFL, "AGFL", 4, 1, "seqno"),
        (AGFL, "AGFL", 8, 7, "uuid"),
        (AGFL, "AGFL", 36 + 4, 40_000, "agfl_bno"),
    ] {
        let forged = volume.duplicate();
        forge(&forged, record, at, &be(value));
        assert_header(&forged, section, field);
    }
    for (at, field) in [(0, "sb_magicnum"), (4, "sb_blocksize"), (84, "sb_agblocks")] {
        let volume = plain();
        volume.patch(16 * MIB + at, &[0x5a]);
        match xfs(&volume) {
            XfsReason::Header { section: "superblock copy", group: 1, field: found, .. } => {
                assert_eq!(found, field);
            }
            other => panic!("{field}: {other}"),
        }
    }
}

fn assert_tree(volume: &Volume, expected: &str) {
    match xfs(volume) {
        XfsReason::Tree { what, .. } => assert_eq!(what, expected),
        other => panic!("{expected}: {other}"),
    }
}

#[test]
fn blocks_of_trees_that_lie_about_themselves() {
    let volume = fragmented();
    let root = field(&volume, "agf 0", "bnoroot");
    let room = (1024 - 56) / 12 * 8;
    let child = u32::from_be_bytes(bytes_of(&volume, root * 1024 + 56 + room));
    // Identities are random, and one in 256 has any byte one may think of.
    let [first] = bytes_of(&volume, root * 1024 + 32);
    for (block, at, bytes, expected) in [
        (root, 0, &b"AB3C"[..], "its magic is wrong"),
        (root, 16, &[1], "it was written for another place"),
        (root, 32, &[!first], "it belongs to another filesystem"),
        (root, 48, &[1], "it belongs to another group"),
        (root, 4, &[0, 0], "its level is wrong"),
        (root, 4, &[0, 2], "its level is wrong"),
        (root, 8, &[0, 0, 0, 9], "its sibling links are wrong"),
        (root, 6, &[0, 0], "its number of children is out of range"),
        (root, 6, &[0, 81], "its number of children is out of range"),
        (root, 56 + 8, &[0, 0, 0, 0], "its keys are out of order"),
        (root, 56, &[0, 0, 0, 0], "its first key is not what its parent says"),
        (root, 56 + room, &[0x7f], "it lies outside the group"),
        (root, 56 + room + 4, &be(child.into()), "it is pointed to twice"),
        (child.into(), 4, &[0, 1], "its level is wrong"),
        (child.into(), 6, &[0, 0], "its number of records is out of range"),
        (child.into(), 6, &[0, 122], "its number of records is out of range"),
        (child.into(), 12, &[0xff; 4], "its sibling links are wrong"),
        (child.into(), 56 + 4, &[0; 4], "a free extent lies outside the group"),
        (child.into(), 56 + 12, &[0xff; 4], "a free extent lies outside the group"),
        (child.into(), 56 + 8, &[0; 4], "its records are out of order or touch"),
    ] {
        let forged = volume.duplicate();
        forge(&forged, tree_block(block), at, bytes);
        assert_tree(&forged, expected);
    }
}

#[test]
fn free_extents_that_touch_are_two_writers_or_damage() {
    let volume = fragmented();
    let root = field(&volume, "agf 0", "bnoroot") * 1024;
    let child: u64 = u32::from_be_bytes(bytes_of(&volume, root + 56 + 640)).into();
    let [first, second] =
        [56, 64].map(|at| u32::from_be_bytes(bytes_of(&volume, child * 1024 + at)));
    forge(&volume, tree_block(child), 60, &(second - first).to_be_bytes());
    assert_tree(&volume, "its records are out of order or touch");
}

#[test]
fn an_extent_in_one_tree_only() {
    let volume = plain();
    let root = field(&volume, "agf 1", "cntroot") * 4096 + 16 * MIB;
    let [start, blocks] = [16, 20].map(|at| u32::from_be_bytes(bytes_of(&volume, root + at)));
    volume.patch(root + 16, &(start + 1).to_be_bytes());
    volume.patch(root + 20, &(blocks - 1).to_be_bytes());
    assert_eq!(xfs(&volume), XfsReason::TreesDisagree { group: 1 });
}

#[test]
fn counts_that_disagree_with_the_trees() {
    for (at, field) in [(52, "agf_freeblks"), (56, "agf_longest"), (60, "agf_btreeblks")] {
        let volume = plain();
        let found = u32::from_be_bytes(bytes_of(&volume, 512 + at));
        volume.patch(512 + at, &(found ^ 1).to_be_bytes());
        match xfs(&volume) {
            XfsReason::Count { group: 0, field: name, header, tree } => {
                assert_eq!((name, header), (field, tree ^ 1));
            }
            other => panic!("{field}: {other}"),
        }
    }
    let volume = plain();
    let free = u64::from_be_bytes(bytes_of(&volume, 144));
    volume.patch(144, &(free + 1).to_be_bytes());
    let expected = XfsReason::GlobalCount { superblock: free + 1, groups: free };
    assert_eq!(xfs(&volume), expected);
}

/// Moves the only free extent of group 2, as both trees agree.
fn move_free_space(volume: &Volume, to: u32) {
    for name in ["bnoroot", "cntroot"] {
        let root = 32 * MIB + field(volume, "agf 2", name) * 4096;
        assert_eq!(bytes_of(volume, root + 6), [0, 1]);
        volume.patch(root + 16, &to.to_be_bytes());
    }
}

#[test]
fn trees_that_agree_to_call_metadata_free() {
    let what = "in use by the filesystem itself, but called free";
    let volume = mkfs(48 * MIB, "-m crc=0 -b size=4096 -d agcount=3");
    let [bno, cnt, inodes] = [("agf 2", "bnoroot"), ("agf 2", "cntroot"), ("agi 2", "root")]
        .map(|(header, name)| u32::try_from(field(&volume, header, name)).unwrap());
    assert_eq!([bno, cnt, inodes], [1, 2, 3]);
    // Headers, roots, blocks set aside.
    for block in 0..=7 {
        let forged = volume.duplicate();
        move_free_space(&forged, block);
        assert_eq!(xfs(&forged), XfsReason::Metadata { group: 2, block, what });
    }
    // The root directory.
    let forged = volume.duplicate();
    forged.patch(56, &((2u64 << 12 | 2000) << 4).to_be_bytes());
    assert_eq!(xfs(&forged), XfsReason::Metadata { group: 2, block: 2000, what });
    // The log, copied to where the trees have free space.
    let place = log_at(&volume);
    let len = field(&volume, "sb 0", "logblocks") * 4096;
    let mut log = vec![0; usize::try_from(len).unwrap()];
    volume.open().read_exact_at(&mut log, place).unwrap();
    volume.patch(32 * MIB + 1000 * 4096, &log);
    volume.patch(48, &(2u64 << 12 | 1000).to_be_bytes());
    assert_eq!(xfs(&volume), XfsReason::Metadata { group: 2, block: 1000, what });
}

#[test]
fn blocks_with_two_owners() {
    let volume = plain();
    let root = field(&volume, "agf 0", "bnoroot");
    // The inode tree where the tree of free space is.
    volume.patch(1024 + 20, &be(root));
    let block = u32::try_from(root).unwrap();
    let what = "used for two purposes";
    assert_eq!(xfs(&volume), XfsReason::Metadata { group: 0, block, what });
}
