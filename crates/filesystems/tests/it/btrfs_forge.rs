//! Changes to Btrfs volumes that no kernel would make, with right checksums: CRC-32C only.

use aiv_volume_io::ReadAt;

use crate::btrfs_tools::{ChunksByDump, chunks_by_dump, super_field};
use crate::tools::Volume;

pub(crate) const SUPERBLOCK: u64 = 64 << 10;
const HEADER: usize = 101;

/// A key as it lies on the volume, sorted like numbers.
pub(crate) type Key = (u64, u8, u64);
pub(crate) type Item = (Key, Vec<u8>);
/// A change to an item.
pub(crate) type Forge<'a> = &'a dyn Fn(&mut Item);

pub(crate) fn bytes_at(volume: &Volume, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    volume.open().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

pub(crate) fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(volume: &Volume, at: u64, mut bytes: Vec<u8>) {
    let sum = crc32c::crc32c(&bytes[32..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    volume.patch(at, &bytes);
}

/// Changes bytes of the superblock at `place`.
pub(crate) fn forge_super_at(volume: &Volume, place: u64, at: usize, value: &[u8]) {
    let mut bytes = bytes_at(volume, place, 4096);
    bytes[at..at + value.len()].copy_from_slice(value);
    put(volume, place, bytes);
}

pub(crate) fn forge_super(volume: &Volume, at: usize, value: &[u8]) {
    forge_super_at(volume, SUPERBLOCK, at, value);
}

/// Where a tree block lies, once or twice.
pub(crate) fn places_of(volume: &Volume, logical: u64) -> Vec<u64> {
    places_in(&chunks_by_dump(volume), logical)
}

pub(crate) fn places_in(chunks: &ChunksByDump, logical: u64) -> Vec<u64> {
    let (start, (_, places)) = chunks.range(..=logical).next_back().unwrap();
    places.iter().map(|place| place + logical - start).collect()
}

/// Bytes of a tree block.
pub(crate) fn block(volume: &Volume, logical: u64) -> Vec<u8> {
    let node_size = usize::try_from(super_field(volume, "nodesize")).unwrap();
    bytes_at(volume, places_of(volume, logical)[0], node_size)
}

/// Writes a tree block to all of its places.
pub(crate) fn put_block(volume: &Volume, logical: u64, bytes: &[u8]) {
    for place in places_of(volume, logical) {
        put(volume, place, bytes.to_vec());
    }
}

/// Changes bytes of a tree block.
pub(crate) fn forge_block(volume: &Volume, logical: u64, at: usize, value: &[u8]) {
    let mut bytes = block(volume, logical);
    bytes[at..at + value.len()].copy_from_slice(value);
    put_block(volume, logical, &bytes);
}

/// The items of a leaf.
pub(crate) fn items(leaf: &[u8]) -> Vec<Item> {
    assert_eq!(leaf[100], 0, "a leaf is needed");
    let count = usize::try_from(number(leaf, 96) & 0xffff_ffff).unwrap();
    let field = |at: usize| u32::from_le_bytes(leaf[at..at + 4].try_into().unwrap()) as usize;
    (0..count)
        .map(|n| {
            let at = HEADER + n * 25;
            let key = (number(leaf, at), leaf[at + 8], number(leaf, at + 9));
            (key, leaf[HEADER + field(at + 17)..][..field(at + 21)].to_vec())
        })
        .collect()
}

/// Replaces the items of a leaf.
pub(crate) fn set_items(leaf: &mut [u8], items: &[Item]) {
    leaf[96..100].copy_from_slice(&u32::try_from(items.len()).unwrap().to_le_bytes());
    let mut end = leaf.len();
    for (n, ((object, kind, offset), data)) in items.iter().enumerate() {
        end -= data.len();
        let at = HEADER + n * 25;
        leaf[at..at + 8].copy_from_slice(&object.to_le_bytes());
        leaf[at + 8] = *kind;
        leaf[at + 9..at + 17].copy_from_slice(&offset.to_le_bytes());
        let place = [end - HEADER, data.len()].map(|number| u32::try_from(number).unwrap());
        leaf[at + 17..at + 21].copy_from_slice(&place[0].to_le_bytes());
        leaf[at + 21..at + 25].copy_from_slice(&place[1].to_le_bytes());
        leaf[end..end + data.len()].copy_from_slice(data);
    }
}

/// Changes the items of a leaf in place.
pub(crate) fn forge_items(volume: &Volume, logical: u64, change: impl FnOnce(&mut Vec<Item>)) {
    let mut leaf = block(volume, logical);
    let mut items = items(&leaf);
    change(&mut items);
    set_items(&mut leaf, &items);
    put_block(volume, logical, &leaf);
}

/// Where the tree with this number begins.
pub(crate) fn root_of(volume: &Volume, tree: u64) -> u64 {
    match tree {
        1 => super_field(volume, "root"),
        3 => super_field(volume, "chunk_root"),
        _ => {
            let leaf = leaf_for(volume, super_field(volume, "root"), (tree, 132, 0));
            let items = items(&block(volume, leaf));
            let item = items.iter().find(|(key, _)| key.0 == tree && key.1 == 132);
            number(&item.unwrap_or_else(|| panic!("no tree {tree}")).1, 176)
        }
    }
}

/// The leaf that has, or would have, an item.
pub(crate) fn leaf_for(volume: &Volume, root: u64, wanted: Key) -> u64 {
    let mut logical = root;
    loop {
        let node = block(volume, logical);
        if node[100] == 0 {
            return logical;
        }
        let count = usize::try_from(number(&node, 96) & 0xffff_ffff).unwrap();
        let key = |at: usize| (number(&node, at), node[at + 8], number(&node, at + 9));
        let children = (0..count).map(|n| HEADER + n * 33);
        let child = children.take_while(|&at| key(at) <= wanted).last().unwrap_or(HEADER);
        logical = number(&node, child + 17);
    }
}

/// Gives an empty filesystem, with trees of one leaf each, a block-group tree, which only newer
/// or experimental tools do.
pub(crate) fn add_block_group_tree(volume: &Volume) {
    let node_size = super_field(volume, "nodesize");
    let [root, extent_root] = [1, 2].map(|tree| root_of(volume, tree));
    let generation = super_field(volume, "generation").to_le_bytes();
    let mut groups = Vec::new();
    let mut place = 0;
    forge_items(volume, extent_root, |items| {
        let last = items.iter().rfind(|(key, _)| key.1 == 169).unwrap();
        place = last.0.0 + node_size;
        groups = items.extract_if(.., |(key, _)| key.1 == 192).collect();
        // One reference, of tree 11.
        let mut data = 1u64.to_le_bytes().to_vec();
        data.extend(generation);
        data.extend(2u64.to_le_bytes());
        data.push(176);
        data.extend(11u64.to_le_bytes());
        items.push(((place, 169, 0), data));
    });
    let group = groups.iter_mut().find(|(key, _)| (key.0..key.0 + key.2).contains(&place));
    let data = &mut group.unwrap().1;
    let used = number(data, 0) + node_size;
    data[..8].copy_from_slice(&used.to_le_bytes());

    let mut leaf = block(volume, extent_root);
    leaf[0x30..0x38].copy_from_slice(&place.to_le_bytes());
    leaf[0x58..0x60].copy_from_slice(&11u64.to_le_bytes());
    set_items(&mut leaf, &groups);
    put_block(volume, place, &leaf);

    // Behind the last tree block begins a free extent.
    forge_items(volume, root_of(volume, 10), |items| {
        let mut keys = items.iter_mut().map(|(key, _)| key);
        let key = keys.find(|key| key.0 == place && key.1 == 199).unwrap();
        *key = (place + node_size, 199, key.2 - node_size);
    });
    forge_items(volume, root, |items| {
        let device = items.iter().find(|(key, _)| key.0 == 4 && key.1 == 132).unwrap();
        let mut data = device.1.clone();
        data[176..184].copy_from_slice(&place.to_le_bytes());
        // The generation, in its first place and its second.
        data[160..168].copy_from_slice(&generation);
        data[239..247].copy_from_slice(&generation);
        items.push(((11, 132, 0), data));
        items.sort_by_key(|(key, _)| *key);
    });
    let used = super_field(volume, "bytes_used") + node_size;
    for place in [SUPERBLOCK, 64 << 20] {
        forge_super_at(volume, place, 0x78, &used.to_le_bytes());
        forge_super_at(volume, place, 0xb4, &0xbu64.to_le_bytes());
    }
}
