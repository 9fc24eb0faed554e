//! What is not understood, or contradicts itself, means the whole volume, with the reason.

use std::sync::LazyLock;

use aiv_filesystems::{BtrfsReason, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::Job;

use crate::btrfs_forge::{
    Forge, Item, SUPERBLOCK, block, bytes_at, forge_block, forge_items, forge_super, items, number,
    put_block, root_of,
};
use crate::btrfs_tools::{MOUNT, fill, mkfs, super_field};
use crate::ext_tools::{MIB, used_bytes, whole_reason};
use crate::tools::Volume;

const CHUNK_TREE: u64 = 3;
const DEVICE_TREE: u64 = 4;
pub(crate) const EXTENT_TREE: u64 = 2;
const ROOT_TREE: u64 = 1;

pub(crate) type Items = Vec<Item>;

/// Empty, every tree a leaf, one copy of everything.
pub(crate) static PLAIN: LazyLock<Volume> = LazyLock::new(|| mkfs(100 * MIB, "-m single"));
/// Trees of two levels.
pub(crate) static FILLED: LazyLock<Volume> = LazyLock::new(|| {
    let volume = mkfs(100 * MIB, "-m single -n 4096");
    fill(&volume, MOUNT, 4 * MIB);
    assert_eq!(block(&volume, root_of(&volume, EXTENT_TREE))[100], 1);
    volume
});

fn btrfs(volume: &Volume) -> BtrfsReason {
    match whole_reason(volume) {
        WholeReason::Btrfs(reason) => reason,
        other => panic!("{other}"),
    }
}

/// Changes a copy of a sound volume, which then has no map, for this reason.
pub(crate) fn check(sound: &Volume, forge: impl FnOnce(&Volume), expected: &str) {
    let forged = sound.duplicate();
    forge(&forged);
    let reason = btrfs(&forged).to_string();
    assert!(reason.contains(expected), "{reason:?} is not {expected:?}");
}

fn check_super(at: usize, value: &[u8], expected: &str) {
    check(&PLAIN, |volume| forge_super(volume, at, value), expected);
}

pub(crate) fn check_items(tree: u64, forge: impl FnOnce(&mut Items), expected: &str) {
    check(&PLAIN, |volume| forge_items(volume, root_of(volume, tree), forge), expected);
}

/// Changes the item of the first key of a kind.
pub(crate) fn check_item(tree: u64, kind: u8, forge: impl FnOnce(&mut Item), expected: &str) {
    let forge = |items: &mut Items| forge(items.iter_mut().find(|(key, _)| key.1 == kind).unwrap());
    check_items(tree, forge, expected);
}

pub(crate) fn put(data: &mut [u8], at: usize, value: u64) {
    data[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn no_superblock_or_half_of_one() {
    let recognised = recognise(&PLAIN.open()).unwrap();
    for len in [0, SUPERBLOCK + 4095, MIB] {
        let map = used_map(&Volume::new(len).open(), &recognised, Job::silent()).unwrap();
        let reason = WholeReason::Btrfs(BtrfsReason::NoSuperblock);
        assert_eq!(map, UsedMap::Whole { reason });
    }
    check(&PLAIN, |volume| volume.patch(SUPERBLOCK + 0xc4, &[4]), "checksum type 4, known are");
    let wrong = "checksum of the superblock at byte 65536 is wrong";
    check(&PLAIN, |volume| volume.patch(SUPERBLOCK + 4000, &[4]), wrong);
}

#[test]
fn features_that_are_not_known() {
    let incompat = super_field(&PLAIN, "incompat_flags");
    for bit in [15u32, 17, 40, 63] {
        let flags = (incompat | 1 << bit).to_le_bytes();
        check_super(0xbc, &flags, &format!("unknown feature bits {:#x} in incompat", 1u64 << bit));
    }
    for (bit, name) in [(12, "zoned"), (13, "extent-tree-v2"), (14, "raid-stripe-tree")] {
        let flags = (incompat | 1 << bit).to_le_bytes();
        check_super(0xbc, &flags, &format!("the feature {name} is not supported"));
    }
    check_super(0xbc, &(incompat & !1).to_le_bytes(), "back references of 2008");
    check_super(0xb4, &[0x13], "unknown feature bits 0x10 in compat_ro_flags");
    check_super(0xac, &[1], "unknown feature bits 0x1 in compat_flags");
}

#[test]
fn filesystems_of_several_devices_seeds_and_conversions() {
    check_super(0x88, &[2], "one of 2 devices");
    check_super(0x88, &[0], "one of 0 devices");
    for flag in [1u64 << 2, 1 << 32, 1 << 33, 1 << 35, 1 << 36, 1 << 38] {
        check_super(0x38, &(1 | flag).to_le_bytes(), &format!("the flags {flag:#x}"));
    }
    // The kernel starts it as the tree's last item.
    let mut data = vec![0; 72];
    data[32] = 1;
    for (state, data) in [(1, data.clone()), (4, data.clone()), (0, vec![0; 39])] {
        let mut data = data;
        data[32] = state;
        let add = |items: &mut Items| items.insert(0, ((0, 250, 0), data));
        check_items(DEVICE_TREE, add, "the device is being replaced");
    }
    let finished = PLAIN.duplicate();
    let item = ((0, 250, 0), {
        data[32] = 2;
        data
    });
    forge_items(&finished, root_of(&finished, DEVICE_TREE), |items| items.insert(0, item));
    used_bytes(&finished);
}

#[test]
fn fields_of_the_superblock_out_of_range() {
    for (at, value, expected) in [
        (0x30, &[1][..], "bytenr is 65537, allowed is 65536"),
        (0x90, &[0, 8], "sectorsize is 2048"),
        (0x90, &[0, 0, 2, 0], "sectorsize is 131072"),
        (0x90, &[1, 16], "sectorsize is 4097"),
        (0x94, &[0, 8], "nodesize is 2048, allowed is a power of two, 4096 to 65536"),
        (0x94, &[0, 0, 2, 0], "nodesize is 131072"),
        (0x98, &[0, 8], "leafsize is 2048, allowed is 16384"),
        (0xc9 + 8, &[0, 0, 0x10, 0, 0], "dev_item.total_bytes is 1048576"),
        (0xa0, &[1, 8], "sys_chunk_array_size is 2049"),
        (0x48, &[0; 8], "generation is 0"),
        (0x48, &[0xff; 8], "generation is 18446744073709551615"),
        (0xa4, &[0xff; 4], "chunk_root_generation is"),
        (0xc6, &[8], "root_level is 8"),
        (0xc7, &[8], "chunk_root_level is 8"),
        (0x60, &[0, 0, 1], "log tree, block at logical byte 65536: it lies in no chunk"),
        (0x78, &[1], "use of the filesystem is"),
    ] {
        check_super(at, value, expected);
    }
    check(&PLAIN, |volume| volume.set_len(100 * MIB - 1), "has 104857600 bytes, the volume only");
    let log_level = |volume: &Volume| {
        forge_super(volume, 0x60, &[0, 0, 1]);
        forge_super(volume, 0xc8, &[8]);
    };
    check(&PLAIN, log_level, "log_root_level is 8");
}

#[test]
fn the_superblock_s_list_of_chunks() {
    let at = 0x32b;
    let malformed = "the superblock's list of chunks is malformed";
    check_super(0xa0, &[0; 4], malformed);
    check_super(0xa0, &[5, 0], malformed);
    check_super(0xa0, &[64, 0], malformed);
    check_super(0xa0, &[98, 0], malformed);
    check_super(at + 8, &[229], malformed);
    check_super(at + 17 + 44, &[2], malformed);
    check_super(at + 17 + 24, &[1], "list has chunks of other kinds");
    check_super(at + 17 + 56, &[0, 0, 0x30], "of the chunk tree at byte 3");
    // Two of them, the second a copy of the first.
    let bytes = bytes_at(&PLAIN, SUPERBLOCK + at as u64, 97);
    let twice = |volume: &Volume| {
        forge_super(volume, at + 97, &bytes);
        forge_super(volume, 0xa0, &[194]);
    };
    check(&PLAIN, twice, "it overlaps the one before");
    let another = |volume: &Volume| {
        let mut bytes = bytes.clone();
        bytes[15] = 1;
        forge_super(volume, at + 97, &bytes);
        forge_super(volume, 0xa0, &[194]);
    };
    check(&PLAIN, another, "the superblock has more chunks of the chunk tree");
}

#[test]
fn chunks_that_contradict_themselves() {
    let data = |item: &mut Item, at: usize, value: u64| put(&mut item.1, at, value);
    let chunk = |forge: Forge<'_>, expected| {
        let of_data = |item: &&mut Item| item.0.1 == 228 && item.1[24] == 1;
        let forge = |items: &mut Items| forge(items.iter_mut().find(of_data).unwrap());
        check_items(CHUNK_TREE, forge, expected);
    };
    chunk(&|item| item.0.0 = 257, "its item is malformed");
    chunk(&|item| item.1.truncate(79), "its item is malformed");
    chunk(&|item| data(item, 0, 0), "its length is out of range");
    chunk(&|item| data(item, 0, 4097), "its length is out of range");
    chunk(&|item| data(item, 0, u64::MAX << 12), "its length is out of range");
    chunk(&|item| item.0.2 += 1, "its length is out of range");
    chunk(&|item| data(item, 16, 1 << 15), "stripes are not of 64 KiB");
    chunk(&|item| data(item, 24, 0), "its kind is unknown");
    chunk(&|item| data(item, 24, 3), "its kind is unknown");
    for profile in [4u32, 6, 7, 8, 9, 10, 11, 62] {
        chunk(&|item| data(item, 24, 1 | 1 << profile), "more devices than one, or is unknown");
    }
    chunk(&|item| item.1[44] = 2, "its number of stripes");
    chunk(&|item| data(item, 24, 1 | 32), "its number of stripes");
    chunk(&|item| item.1.push(0), "its number of stripes");
    chunk(&|item| item.1[48] = 2, "it lies on another device");
    chunk(&|item| data(item, 56, 100 * MIB), "it lies outside the device");
    chunk(&|item| data(item, 56, u64::MAX << 12), "it lies outside the device");
    chunk(&|item| data(item, 56, data_chunk(&PLAIN).1 + 512), "it lies outside the device");
    let longer = |item: &mut Item| data(item, 0, 40 * MIB);
    let metadata = |item: &&mut Item| item.0.1 == 228 && item.1[24] == 4;
    let overlapping = |items: &mut Items| longer(items.iter_mut().find(metadata).unwrap());
    check_items(CHUNK_TREE, overlapping, "it overlaps the one before");
    chunk(&|item| data(item, 24, 2), "the superblock has more chunks of the chunk tree, or fewer");
    let elsewhere = |item: &mut Item| data(item, 56, 60 * MIB);
    check_item(CHUNK_TREE, 228, elsewhere, "it differs from the superblock's");
    check_item(CHUNK_TREE, 216, |item| item.1[8] = 1, "device item is not that of the superblock");
    check_item(CHUNK_TREE, 216, |item| item.1.truncate(97), "it has an unknown item");
    check_items(CHUNK_TREE, |items| items[0].0.1 = 217, "it has an unknown item");
    check_items(CHUNK_TREE, |items| drop(items.remove(0)), "its device item is not that");
    let system = |items: &mut Items| {
        items.retain(|(key, data)| key.1 != 228 || number(data, 24) != 2);
    };
    check_items(CHUNK_TREE, system, "the superblock has more chunks of the chunk tree");
}

#[test]
fn blocks_of_trees_that_lie_about_themselves() {
    let root = root_of(&PLAIN, DEVICE_TREE);
    // Identities are random, and one in 256 has any byte one may think of.
    let another = |at: usize| [block(&PLAIN, root)[at] ^ 1];
    for (at, value, expected) in [
        (0x30, &another(0x30)[..], "it was written for another place"),
        (0x20, &another(0x20), "it belongs to another filesystem"),
        (0x50, &another(0x50), "its generation is not what its parent says"),
        (0x64, &[1], "its level is not what its parent says"),
        (0x58, &[5], "it belongs to another tree"),
        (0x60, &[0xff; 4], "its number of entries is out of range"),
        (0x60, &[0; 4], "it lacks device extents"),
        (101, &[0xff], "its keys are out of order"),
        (101 + 17, &[0], "its items are not one behind the other"),
        (101 + 21, &[0xff; 4], "its items are not one behind the other"),
    ] {
        check(&PLAIN, |volume| forge_block(volume, root, at, value), expected);
    }
    // One item that is all of the leaf.
    let long = |volume: &Volume| {
        let mut leaf = block(volume, root);
        leaf[0x60..0x64].copy_from_slice(&1u32.to_le_bytes());
        leaf[118..122].copy_from_slice(&0u32.to_le_bytes());
        leaf[122..126].copy_from_slice(&(16_384u32 - 101).to_le_bytes());
        put_block(volume, root, &leaf);
    };
    check(&PLAIN, long, "its items lie on their keys");
    let moved = |volume: &Volume| {
        forge_items(volume, root_of(volume, ROOT_TREE), |items| {
            let item =
                items.iter_mut().find(|(key, _)| key.0 == DEVICE_TREE && key.1 == 132).unwrap();
            put(&mut item.1, 176, root + 512);
        });
    };
    check(&PLAIN, moved, "it lies in no chunk of metadata");
}

#[test]
fn nodes_and_children_that_disagree() {
    let root = root_of(&FILLED, EXTENT_TREE);
    let node = block(&FILLED, root);
    let child = number(&node, 101 + 33 + 17);
    let generation = super_field(&FILLED, "generation");
    let count = u32::from_le_bytes(node[96..100].try_into().unwrap());
    assert!(count >= 3);
    let newer = (generation + 1).to_le_bytes();
    for (block, at, value, expected) in [
        (root, 101 + 33 + 25, &newer[..], "it is newer than its root"),
        (root, 101 + 33 + 17, &[0xff; 7], "it lies in no chunk of metadata"),
        (root, 101 + 33, &[1], "its first key is not what its parent says"),
        (root, 0x60, &[0; 4], "it is empty"),
        (root, 0x60, &[125, 0, 0, 0], "its number of entries is out of range"),
        (child, 0x60, &[0; 4], "it is empty"),
        (child, 0x64, &[1], "its level is not what its parent says"),
    ] {
        check(&FILLED, |volume| forge_block(volume, block, at, value), expected);
    }
    // The second leaf goes on where the third is.
    let beyond = |volume: &Volume| {
        let third = Volume::duplicate(volume);
        let key = items(&block(&third, number(&node, 101 + 66 + 17)))[0].0;
        forge_items(volume, child, |items| items.last_mut().unwrap().0 = key);
    };
    check(&FILLED, beyond, "its last key is not what its parent says");
    // The third child is the second again.
    let twice = |volume: &Volume| {
        let pointer = node[101 + 33 + 17..101 + 66].to_vec();
        forge_block(volume, root, 101 + 66 + 17, &pointer);
    };
    check(&FILLED, twice, "what its parent says");
}

#[test]
fn roots_of_trees() {
    let root = |forge: &dyn Fn(&mut Vec<u8>), expected| {
        check_item(ROOT_TREE, 132, |item| forge(&mut item.1), expected);
    };
    root(&|data| data.truncate(238), "a root item that is too short");
    root(&|data| data[238] = 8, "a root item with too many levels");
    root(&|data| put(data, 160, 99), "a root item of a commit to come");
    for (tree, name) in [(2, "extent"), (4, "device"), (10, "free-space")] {
        let remove = |items: &mut Items| items.retain(|(key, _)| key.0 != tree);
        check_items(ROOT_TREE, remove, &format!("the {name} tree is missing"));
    }
    let twice = |items: &mut Items| {
        let n = items.iter().position(|(key, _)| key.0 == 4 && key.1 == 132).unwrap();
        let mut item = items[n].clone();
        item.0.2 = 1;
        items.insert(n + 1, item);
    };
    check_items(ROOT_TREE, twice, "it names one of the trees twice");
    check_super(0xb4, &[0xb], "the block-group tree is missing");
    // A tree without a block of its own, and one on a block of data.
    let filesystem = |items: &mut Items| {
        let item = items.iter_mut().find(|(key, _)| key.0 == 5 && key.1 == 132).unwrap();
        put(&mut item.1, 176, data_chunk(&PLAIN).1);
    };
    let lacks = "the extent tree lacks the block of the root of a tree at logical byte 13631488";
    check_items(ROOT_TREE, filesystem, lacks);
}

#[test]
fn device_extents_that_are_not_the_chunks() {
    let extent = |forge: Forge<'_>, expected| {
        check_item(DEVICE_TREE, 204, forge, expected);
    };
    extent(&|item| item.1.truncate(47), "a device extent that is malformed");
    extent(&|item| item.0.0 = 2, "keys are out of order");
    extent(&|item| item.0.2 += 4096, "a device extent that is no chunk's");
    extent(&|item| put(&mut item.1, 16, 4096), "a device extent that is no chunk's");
    extent(&|item| put(&mut item.1, 24, 4096), "a device extent that is no chunk's");
    check_items(DEVICE_TREE, |items| drop(items.pop()), "it lacks device extents of chunks");
    check_items(DEVICE_TREE, |items| items[0].0.1 = 3, "it has an unknown item");
    let other = |items: &mut Items| items.last_mut().unwrap().0.0 = 2;
    check_items(DEVICE_TREE, other, "an extent of another device");
    // The device's use, as superblock and chunk tree agree to have it wrong.
    let used = |volume: &Volume| {
        let used = super_field(volume, "dev_item.bytes_used") + 4096;
        forge_super(volume, 0xc9 + 16, &used.to_le_bytes());
        forge_items(volume, root_of(volume, CHUNK_TREE), |items| put(&mut items[0].1, 16, used));
    };
    check(&PLAIN, used, "use of the device is");
}

/// The chunk of data in the empty filesystem: where it lies, its logical address, its length.
pub(crate) fn data_chunk(volume: &Volume) -> (u64, u64, u64) {
    let items = items(&block(volume, root_of(volume, CHUNK_TREE)));
    let (key, data) = items.iter().find(|(key, data)| key.1 == 228 && data[24] == 1).unwrap();
    (number(data, 56), key.2, number(data, 0))
}

pub(crate) fn move_data_chunk(volume: &Volume, to: u64) {
    let from = data_chunk(volume).0;
    for tree in [CHUNK_TREE, DEVICE_TREE] {
        forge_items(volume, root_of(volume, tree), |items| {
            for ((_, kind, offset), data) in items.iter_mut() {
                if *kind == 204 && *offset == from {
                    *offset = to;
                } else if *kind == 228 && number(data, 56) == from {
                    put(data, 56, to);
                }
            }
            items.sort_by_key(|(key, _)| *key);
        });
    }
}

#[test]
fn chunks_that_lie_on_each_other() {
    let on_each_other = |volume: &Volume| {
        let starts: Vec<u64> = items(&block(volume, root_of(volume, DEVICE_TREE)))
            .iter()
            .filter(|(key, _)| key.1 == 204)
            .map(|(key, _)| key.2)
            .collect();
        let last = starts[starts.len() - 1];
        let to = if last == data_chunk(volume).0 { starts[0] } else { last };
        move_data_chunk(volume, to + 4096);
    };
    check(&PLAIN, on_each_other, "it has device extents that overlap");
}
