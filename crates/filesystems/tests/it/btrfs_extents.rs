//! Btrfs extents, block groups, free space and logs that contradict each other: the whole volume
//! is kept, with the reason.

use aiv_volume_io::ReadAt;

use crate::btrfs_forge::{
    Forge, Item, Key, SUPERBLOCK, block, forge_items, forge_super, items, number, put_block,
    root_of,
};
use crate::btrfs_live::with_log;
use crate::btrfs_refusals::{
    EXTENT_TREE, FILLED, Items, PLAIN, check, check_item, check_items, data_chunk, move_data_chunk,
    put,
};
use crate::btrfs_tools::super_field;
use crate::ext_tools::{MIB, used_bytes};
use crate::tools::Volume;

const FREE_SPACE_TREE: u64 = 10;

#[test]
fn extents_that_contradict_themselves() {
    let metadata = |forge: Forge<'_>, expected| {
        check_item(EXTENT_TREE, 169, forge, expected);
    };
    metadata(&|item| item.1.truncate(23), "its item is too short");
    metadata(&|item| put(&mut item.1, 8, 99), "it is of a commit to come");
    metadata(&|item| put(&mut item.1, 16, 1), "neither of data nor a tree block");
    metadata(&|item| put(&mut item.1, 16, 3), "neither of data nor a tree block");
    metadata(&|item| put(&mut item.1, 16, 0), "neither of data nor a tree block");
    metadata(&|item| item.0 = (item.0.0, 168, 4096), "its item is too short");
    metadata(
        &|item| {
            item.0 = (item.0.0, 168, 4096);
            item.1.resize(60, 0);
        },
        "it is not as long as a tree block",
    );
    metadata(&|item| item.0.0 += 512, "it does not consist of sectors");
    metadata(&|item| item.0.1 = 170, "an item that is unknown, or has no extent");
    metadata(&|item| item.0.1 = 176, "an item that is unknown, or has no extent");
    let insert = |extent: Key, flags: u64, expected: &str| {
        let forge = |items: &mut Items| {
            let mut data = vec![0; 24];
            data[0] = 1;
            put(&mut data, 16, flags);
            items.push((extent, data));
            items.sort_by_key(|(key, _)| *key);
        };
        check_items(EXTENT_TREE, forge, expected);
    };
    let data = data_chunk(&PLAIN).1;
    insert((data, 168, 0), 1, "it does not consist of sectors");
    insert((data, 168, 4097), 1, "it does not consist of sectors");
    insert((data, 168, 9 * MIB), 1, "it does not lie in one chunk");
    insert((4096, 168, 4096), 1, "it does not lie in one chunk");
    insert((u64::MAX << 13, 168, 4096), 1, "it does not lie in one chunk");
    insert((data, 168, 16_384), 2, "its item is too short");
    insert((data, 169, 0), 2, "it lies in a chunk of another kind");
    insert((root_of(&PLAIN, EXTENT_TREE) + 65_536, 168, 4096), 1, "in a chunk of another kind");
    insert((data, 168, 4096), 1, "use of the block group at logical byte 13631488 is 0");
    let last = items(&block(&PLAIN, root_of(&PLAIN, EXTENT_TREE)));
    let last = last.iter().rfind(|(key, _)| key.1 == 169).unwrap().0.0;
    insert((last + 4096, 169, 0), 2, "it overlaps the one before");
}

#[test]
fn extents_on_a_superblock() {
    // Data around the copy at 64 MiB.
    let (_, logical, _) = data_chunk(&PLAIN);
    let forge = |volume: &Volume| {
        move_data_chunk(volume, 60 * MIB);
        forge_items(volume, root_of(volume, EXTENT_TREE), |items| {
            let mut data = vec![0; 24];
            (data[0], data[16]) = (1, 1);
            items.push(((logical + 4 * MIB, 168, 4096), data));
            items.sort_by_key(|(key, _)| *key);
        });
    };
    check(&PLAIN, forge, "it lies on a superblock");
}

#[test]
fn block_groups_that_are_not_the_chunks() {
    let group = |forge: Forge<'_>, expected| {
        check_item(EXTENT_TREE, 192, forge, expected);
    };
    group(&|item| item.1.truncate(23), "a block group that is malformed");
    group(&|item| item.1[8] = 1, "a block group that is malformed");
    group(&|item| item.0.2 += 4096, "a block group that is no chunk's, or twice");
    group(&|item| item.0.0 += 4096, "a block group that is no chunk's, or twice");
    group(&|item| item.1[16] = 4, "a block group that is no chunk's, or twice");
    group(&|item| item.1[0] = 1, "use of the block group at logical byte");
    let remove = |items: &mut Items| items.retain(|(key, _)| key.1 != 192);
    check_items(EXTENT_TREE, remove, "it has no block group");
}

#[test]
fn a_free_space_tree_that_disagrees() {
    let extent = |forge: Forge<'_>, expected| {
        check_items(FREE_SPACE_TREE, |items| forge(items.last_mut().unwrap()), expected);
    };
    extent(&|item| item.1.push(0), "it has an unknown item");
    extent(&|item| item.0.2 -= 512, "it has an item outside its block group");
    extent(&|item| item.0.2 += MIB, "it has an item outside its block group");
    extent(&|item| item.0.1 = 200, "it has an unknown item");
    let info = |forge: Forge<'_>, expected| {
        let forge = |items: &mut Items| {
            // The first ones are of block groups that mkfs took back.
            let item = items.iter_mut().rfind(|(key, _)| key.1 == 198);
            forge(item.unwrap());
        };
        check_items(FREE_SPACE_TREE, forge, expected);
    };
    info(&|item| item.1.truncate(7), "it has an unknown item");
    info(&|item| item.0.2 += 4096, "its block groups are not the chunks");
    info(&|item| item.1[0] = 0, "it has more free extents than it says");
    info(&|item| item.1[0] = 99, "number of extents of free space of the block group");
    info(&|item| item.1[4] = 1, "it has an unknown item");
    check_items(FREE_SPACE_TREE, Vec::clear, "number of block groups with free space is 0");
    check_items(
        FREE_SPACE_TREE,
        |items| items.last_mut().unwrap().0.2 -= 4096,
        "free space of the block group at logical byte",
    );
    // The last free extent before the first tree block.
    let over = |item: &mut Item| item.0.2 += 4096;
    let what = "calls space free that the extent tree calls used";
    check_item(FREE_SPACE_TREE, 199, over, what);
    let two = |items: &mut Items| {
        let ((start, _, len), _) = items.pop().unwrap();
        items.push(((start, 199, 4096), Vec::new()));
        items.push(((start + 4096, 199, len - 4096), Vec::new()));
    };
    check_items(FREE_SPACE_TREE, two, "it has free extents that touch");
    let overlap = |items: &mut Items| {
        let ((start, _, len), _) = items[items.len() - 1];
        items.push(((start + 4096, 199, len - 4096), Vec::new()));
    };
    check_items(FREE_SPACE_TREE, overlap, "it has free extents that overlap");
    // One that is not valid is not looked at.
    let invalid = PLAIN.duplicate();
    forge_items(&invalid, root_of(&invalid, FREE_SPACE_TREE), Vec::clear);
    forge_super(&invalid, 0xb4, &[1]);
    assert_eq!(used_bytes(&invalid).0, used_bytes(&PLAIN).0);
}

#[test]
fn bitmaps_of_free_space() {
    let root = root_of(&FILLED, FREE_SPACE_TREE);
    let first = block(&FILLED, root);
    assert_eq!(first[100], 0, "a leaf is needed");
    let is_bitmap = |item: &&mut Item| item.0.1 == 200;
    assert!(items(&first).iter_mut().any(|item| is_bitmap(&item)), "no bitmaps");
    let bitmap = |forge: Forge<'_>, expected| {
        let forge = |items: &mut Items| forge(items.iter_mut().find(is_bitmap).unwrap());
        check(&FILLED, |volume| forge_items(volume, root, forge), expected);
    };
    bitmap(&|item| item.1.truncate(10), "it has a bitmap of another length");
    bitmap(&|item| item.1.fill(0xff), "calls space free that the extent tree calls used");
    bitmap(&|item| item.1.fill(0), "free space of the block group at logical byte");
    bitmap(&|item| item.0.1 = 199, "it has an unknown item");
}

#[test]
fn logs_that_are_not_understood() {
    let volume = with_log("-m single", 20);
    let root = super_field(&volume, "log_root");
    let roots = items(&block(&volume, root));
    let tree = number(&roots[0].1, 176);
    assert_eq!(block(&volume, tree)[100], 0, "a leaf is needed");
    let of_roots = |forge: &dyn Fn(&mut Items), expected| {
        check(&volume, |volume| forge_items(volume, root, forge), expected);
    };
    of_roots(&|items| items[0].0.1 = 131, "an unknown item among its roots");
    of_roots(&|items| items[0].0.0 = 5, "an unknown item among its roots");
    of_roots(&|items| items[0].1.truncate(100), "a root item that is too short");
    of_roots(&|items| put(&mut items[0].1, 160, 1 << 40), "a root item of a commit to come");
    of_roots(
        &|items| {
            let item = items[0].clone();
            items.insert(1, ((item.0.0, 132, item.0.2 + 1), item.1));
        },
        "it is pointed to twice",
    );
    let extent = |forge: Forge<'_>, expected| {
        let forge = |items: &mut Items| {
            let regular = |item: &&mut Item| item.0.1 == 108 && item.1[20] != 0;
            forge(items.iter_mut().find(regular).unwrap());
        };
        check(&volume, |volume| forge_items(volume, tree, forge), expected);
    };
    extent(&|item| item.1.truncate(20), "a file extent that is too short");
    extent(&|item| item.1[20] = 3, "a file extent of an unknown kind");
    extent(&|item| item.1.push(0), "a file extent of an unknown kind");
    extent(&|item| item.1[21] = 1, "it does not consist of sectors");
    extent(&|item| put(&mut item.1, 29, 1 << 40), "it does not lie in one chunk");
    extent(&|item| put(&mut item.1, 21, root), "it lies in a chunk of another kind");
    // A log whose block is that of a tree.
    let stolen = |volume: &Volume| {
        let place = root_of(volume, 5);
        let mut leaf = block(volume, tree);
        leaf[0x30..0x38].copy_from_slice(&place.to_le_bytes());
        forge_items(volume, root, |items| put(&mut items[0].1, 176, place));
        put_block(volume, place, &leaf);
    };
    check(&volume, stolen, "it is also in the extent tree");
    let mut byte = [0];
    volume.open().read_exact_at(&mut byte, SUPERBLOCK + 0x48).unwrap();
    check(&volume, |volume| forge_super(volume, 0x48, &[byte[0] + 1]), "generation is not what");
}
