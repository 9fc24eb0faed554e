//! BLAKE3 in separate domains, and the trees over the state of a disk.
//!
//! Each domain is keyed BLAKE3 under a 32-byte ASCII key, so that a hash from one place of the
//! format never stands for one from another. `docs/format.md` section 6 is normative.

use std::borrow::Cow;

use crate::ids::{BlockIndex, Digest, Geometry};
use crate::layout::Kind;
use crate::limits::PAGE_SIZE;

const KEY_LEAF: &[u8; 32] = b"aivory draft: leaf of one block ";
const KEY_CONTENT: &[u8; 32] = b"aivory draft: content tree node ";
const KEY_MAP: &[u8; 32] = b"aivory draft: map tree node     ";
const KEY_STATE: &[u8; 32] = b"aivory draft: state root        ";
const KEY_PIECE: &[u8; 32] = b"aivory draft: stored piece      ";
const KEY_STORED: &[u8; 32] = b"aivory draft: stored tree node  ";
const KEY_PAGE: &[u8; 32] = b"aivory draft: index page        ";
const KEY_SECTION: &[u8; 32] = b"aivory draft: whole section     ";
const KEY_TRAILER: &[u8; 32] = b"aivory draft: trailer           ";
const KEY_SEGMENT: &[u8; 32] = b"aivory draft: segment trailer   ";

/// Children per node of every tree.
pub const FAN_OUT: usize = 128;

/// What unreadable places read as, repeated from the start of the block: never zeros, and
/// recognisable in a hex dump.
pub const FILL_PATTERN: &[u8; 16] = b"!AIV-UNREADABLE!";

/// Leaf hash of the bytes of one block as a restore would write them.
#[must_use]
pub fn leaf(block: &[u8]) -> Digest {
    keyed(KEY_LEAF, block)
}

/// Hash of the 64 KiB piece `number` of a file with a key-slot area of `slots` bytes behind the
/// superblock. That area counts as zeros: it is the one part of a file that may be rewritten.
pub(crate) fn piece(number: u64, bytes: &[u8], slots: u64) -> Digest {
    keyed(KEY_PIECE, &as_proven(number, bytes, slots))
}

/// The bytes of the piece `number` as hashes and parity have them: with zeros in the place of the
/// key slots.
pub(crate) fn as_proven(number: u64, bytes: &[u8], slots: u64) -> Cow<'_, [u8]> {
    let end = usize::try_from(slots).unwrap_or(0).saturating_add(PAGE_SIZE).min(bytes.len());
    if number > 0 || end <= PAGE_SIZE {
        return Cow::Borrowed(bytes);
    }
    let mut masked = bytes.to_vec();
    masked[PAGE_SIZE..end].fill(0);
    Cow::Owned(masked)
}

pub(crate) fn page(bytes: &[u8]) -> Digest {
    keyed(KEY_PAGE, bytes)
}

pub(crate) fn trailer(bytes: &[u8]) -> Digest {
    keyed(KEY_TRAILER, bytes)
}

pub(crate) fn segment_trailer(bytes: &[u8]) -> Digest {
    keyed(KEY_SEGMENT, bytes)
}

/// Hash of a section that is written and read in parts.
pub(crate) struct SectionHasher(blake3::Hasher);

impl SectionHasher {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new_keyed(KEY_SECTION))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

fn keyed(key: &[u8; 32], bytes: &[u8]) -> Digest {
    Digest(*blake3::keyed_hash(key, bytes).as_bytes())
}

/// Fills a block, or an aligned part of one, with the pattern of unreadable places.
pub fn fill_unreadable(out: &mut [u8], offset_in_block: usize) {
    let mut pattern = *FILL_PATTERN;
    pattern.rotate_left(offset_in_block % FILL_PATTERN.len());
    for chunk in out.chunks_mut(pattern.len()) {
        chunk.copy_from_slice(&pattern[..chunk.len()]);
    }
}

/// The name of a state: geometry, content and map together.
#[must_use]
pub fn state_root(geometry: &Geometry, content: &Digest, map: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(KEY_STATE);
    hasher.update(&geometry.len().to_le_bytes());
    hasher.update(&geometry.block_size().get().to_le_bytes());
    hasher.update(&geometry.sector_size().to_le_bytes());
    hasher.update(&content.0);
    hasher.update(&map.0);
    Digest(*hasher.finalize().as_bytes())
}

/// A tree of fan-out 128 that is built from left to right and keeps one node list per level.
///
/// A node at level `n >= 1` is the keyed hash of `n` (u64, little-endian) and the hashes of its
/// children in order; the root is the first level with a single node, at least level one.
pub(crate) struct Tree {
    key: &'static [u8; 32],
    /// Incomplete nodes: `levels[0]` collects children of the lowest level.
    levels: Vec<Vec<Digest>>,
    /// Level of the children in `levels[0]`.
    base: u64,
}

impl Tree {
    /// The tree over the pieces of a file.
    pub(crate) fn stored() -> Self {
        Self { key: KEY_STORED, levels: Vec::new(), base: 0 }
    }

    /// The content and the map tree over level-one nodes.
    pub(crate) fn above_groups() -> (Self, Self) {
        let tree = |key| Self { key, levels: Vec::new(), base: 1 };
        (tree(KEY_CONTENT), tree(KEY_MAP))
    }

    fn node(key: &[u8; 32], level: u64, children: &[Digest]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&level.to_le_bytes());
        children.iter().for_each(|c| {
            hasher.update(&c.0);
        });
        Digest(*hasher.finalize().as_bytes())
    }

    pub(crate) fn push(&mut self, child: Digest) {
        self.push_run(child, 1);
    }

    /// Appends `count` equal children. Whole subtrees are hashed once, so a long run costs
    /// time in the number of levels and not in `count`.
    pub(crate) fn push_run(&mut self, child: Digest, count: u64) {
        self.push_run_at(0, child, count);
    }

    /// Recursion is bounded by the number of levels, and that by the bits of `count`.
    fn push_run_at(&mut self, depth: usize, child: Digest, mut count: u64) {
        while self.levels.len() <= depth {
            self.levels.push(Vec::with_capacity(FAN_OUT));
        }
        // Top up the node that is open at this level.
        while !self.levels[depth].is_empty() && count > 0 {
            self.levels[depth].push(child);
            count -= 1;
            self.carry(depth);
        }
        // Whole nodes of equal children go up as a run; the rest opens a new node.
        let whole = count / FAN_OUT as u64;
        if whole > 0 {
            let parent = Self::node(self.key, self.base + depth as u64 + 1, &[child; FAN_OUT]);
            self.push_run_at(depth + 1, parent, whole);
        }
        for _ in 0..count % FAN_OUT as u64 {
            self.levels[depth].push(child);
        }
    }

    /// Closes full nodes from `depth` upwards.
    fn carry(&mut self, mut depth: usize) {
        while self.levels[depth].len() == FAN_OUT {
            let node = Self::node(self.key, self.base + depth as u64 + 1, &self.levels[depth]);
            self.levels[depth].clear();
            depth += 1;
            if self.levels.len() <= depth {
                self.levels.push(Vec::with_capacity(FAN_OUT));
            }
            self.levels[depth].push(node);
        }
    }

    /// The root; all zeros for a tree without children.
    pub(crate) fn finish(mut self) -> Digest {
        let mut depth = 0;
        while depth < self.levels.len() {
            let top = self.levels[depth + 1..].iter().all(Vec::is_empty);
            let children = std::mem::take(&mut self.levels[depth]);
            // A single node on the top level is the root, unless it is still a child of the
            // lowest level, which always gets a node above it.
            if top && children.len() == 1 && (depth > 0 || self.base > 0) {
                return children[0];
            }
            if !children.is_empty() {
                let node = Self::node(self.key, self.base + depth as u64 + 1, &children);
                if self.levels.len() == depth + 1 {
                    self.levels.push(Vec::new());
                }
                self.levels[depth + 1].push(node);
            }
            depth += 1;
        }
        Digest::default()
    }
}

/// The roots of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// Over the bytes of the address space as they read.
    pub content: Digest,
    /// Over the states of the blocks.
    pub map: Digest,
    /// Over both with the geometry.
    pub state: Digest,
}

/// The level-one nodes of one group of 128 blocks: what stands for the group in both trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNode {
    /// Node of the content tree.
    pub content: Digest,
    /// Node of the map tree.
    pub map: Digest,
}

impl GroupNode {
    /// The nodes over a group, from leaf and condition of each of its blocks in order: at most
    /// 128 of each.
    #[must_use]
    pub fn new(leaves: &[Digest], conditions: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(KEY_MAP);
        hasher.update(&1u64.to_le_bytes());
        hasher.update(conditions);
        let map = Digest(*hasher.finalize().as_bytes());
        Self { content: Tree::node(KEY_CONTENT, 1, leaves), map }
    }
}

/// Leaves of the blocks whose kind determines their bytes.
#[derive(Debug, Clone)]
pub struct ConstantLeaves {
    geometry: Geometry,
    zero: Digest,
    fill: Digest,
}

impl ConstantLeaves {
    /// For blocks of `geometry`.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let zeros = vec![0; geometry.block_size().bytes()];
        let mut fill = zeros.clone();
        fill_unreadable(&mut fill, 0);
        Self { geometry, zero: leaf(&zeros), fill: leaf(&fill) }
    }

    /// The leaf of `block` when it is of `kind` and no frame holds it.
    #[must_use]
    pub fn of(&self, block: BlockIndex, kind: Kind) -> Digest {
        let len = self.geometry.block_len(block);
        if len == self.geometry.block_size().get() {
            return if kind == Kind::Unreadable { self.fill } else { self.zero };
        }
        let mut bytes = vec![0; len as usize];
        if kind == Kind::Unreadable {
            fill_unreadable(&mut bytes, 0);
        }
        leaf(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, level by level, without any shortcut.
    fn reference_root(key: &'static [u8; 32], base: u64, mut nodes: Vec<Digest>) -> Digest {
        let mut level = base;
        while nodes.len() > 1 || level == 0 {
            level += 1;
            nodes = nodes.chunks(FAN_OUT).map(|c| Tree::node(key, level, c)).collect();
        }
        nodes.first().copied().unwrap_or_default()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn runs_and_single_children_build_the_same_tree(
            runs in prop::collection::vec((0u8..3, prop_oneof![1u64..4, 100u64..300, 1u64..40_000]), 1..6),
            base in 0u64..2,
        ) {
            let mut tree = Tree { key: KEY_STORED, levels: Vec::new(), base };
            let mut flat = Vec::new();
            for &(value, count) in &runs {
                tree.push_run(Digest([value; 32]), count);
                flat.extend(std::iter::repeat_n(Digest([value; 32]), usize::try_from(count).expect("small")));
            }
            prop_assert_eq!(tree.finish(), reference_root(KEY_STORED, base, flat));
        }
    }
}
