//! The hash trees once more, from their definitions in `docs/format.md`: flat lists, level by
//! level, nothing shared with the crate but the hash function.

use aiv_image_format::{Digest, Geometry, Kind, Roots};

const FAN_OUT: usize = 128;

pub(crate) fn keyed(key: &str, parts: &[&[u8]]) -> [u8; 32] {
    let key: &[u8; 32] = key.as_bytes().try_into().expect("keys have 32 bytes");
    let mut hasher = blake3::Hasher::new_keyed(key);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes()
}

/// Level by level until one node is left.
fn root_of(key: &str, mut level: u64, mut nodes: Vec<[u8; 32]>) -> [u8; 32] {
    while nodes.len() > 1 || level == 0 {
        level += 1;
        nodes = nodes
            .chunks(FAN_OUT)
            .map(|children| keyed(key, &[&level.to_le_bytes(), &children.concat()]))
            .collect();
    }
    nodes[0]
}

/// The roots of the state in which the blocks of a disk are `blocks`.
pub(crate) fn roots(geometry: &Geometry, blocks: &[(Kind, Vec<u8>)]) -> Roots {
    let leaf = |block: &(Kind, Vec<u8>)| keyed("aivory draft: leaf of one block ", &[&block.1]);
    let leaves: Vec<[u8; 32]> = blocks.iter().map(leaf).collect();
    let states: Vec<u8> = blocks.iter().map(|block| state(block.0)).collect();
    let one = 1u64.to_le_bytes();

    let key = "aivory draft: content tree node ";
    let groups = leaves.chunks(FAN_OUT).map(|group| keyed(key, &[&one, &group.concat()])).collect();
    let content = root_of(key, 1, groups);

    let key = "aivory draft: map tree node     ";
    let groups = states.chunks(FAN_OUT).map(|group| keyed(key, &[&one, group])).collect();
    let map = root_of(key, 1, groups);

    let state = keyed(
        "aivory draft: state root        ",
        &[
            &geometry.len().to_le_bytes(),
            &geometry.block_size().get().to_le_bytes(),
            &geometry.sector_size().to_le_bytes(),
            &content,
            &map,
        ],
    );
    Roots { content: Digest(content), map: Digest(map), state: Digest(state) }
}

fn state(kind: Kind) -> u8 {
    match kind {
        Kind::Data | Kind::Zero | Kind::Ref | Kind::Delta | Kind::Parent | Kind::Local => 0,
        Kind::Unused => 1,
        Kind::Excluded => 2,
        Kind::Unreadable => 3,
    }
}

/// The root over the pieces of everything before the stored list.
pub(crate) fn stored_root(before_list: &[u8]) -> Digest {
    let pieces = before_list
        .chunks(64 << 10)
        .map(|piece| keyed("aivory draft: stored piece      ", &[piece]))
        .collect();
    root_of_list(pieces)
}

/// The root over the hashes of pieces.
pub(crate) fn root_of_list(pieces: Vec<[u8; 32]>) -> Digest {
    Digest(root_of("aivory draft: stored tree node  ", 0, pieces))
}
