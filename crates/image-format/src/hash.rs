//! BLAKE3 in separate domains, and the trees over the state of a disk.
//!
//! Each domain is keyed BLAKE3 under a 32-byte ASCII key, so that a hash from one place of the
//! format never stands for one from another. `docs/format.md` section 6 is normative.

use crate::ids::{BlockIndex, Digest, Geometry};
use crate::layout::{IndexEntry, Kind, TreeNode};

const KEY_LEAF: &[u8; 32] = b"aivory draft: leaf of one block ";
const KEY_CONTENT: &[u8; 32] = b"aivory draft: content tree node ";
const KEY_MAP: &[u8; 32] = b"aivory draft: map tree node     ";
const KEY_STATE: &[u8; 32] = b"aivory draft: state root        ";
const KEY_PIECE: &[u8; 32] = b"aivory draft: stored piece      ";
const KEY_STORED: &[u8; 32] = b"aivory draft: stored tree node  ";
const KEY_PAGE: &[u8; 32] = b"aivory draft: index page        ";
const KEY_SECTION: &[u8; 32] = b"aivory draft: whole section     ";
const KEY_TRAILER: &[u8; 32] = b"aivory draft: trailer           ";

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

/// Hash of one 64 KiB piece of the file.
pub(crate) fn piece(bytes: &[u8]) -> Digest {
    keyed(KEY_PIECE, bytes)
}

pub(crate) fn page(bytes: &[u8]) -> Digest {
    keyed(KEY_PAGE, bytes)
}

pub(crate) fn trailer(bytes: &[u8]) -> Digest {
    keyed(KEY_TRAILER, bytes)
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

    fn above_groups(key: &'static [u8; 32]) -> Self {
        Self { key, levels: Vec::new(), base: 1 }
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

/// The content and the map tree of one state, fed with index entries in block order.
pub(crate) struct StateTree {
    geometry: Geometry,
    zero_leaf: Digest,
    fill_leaf: Digest,
    content: Tree,
    map: Tree,
    next: BlockIndex,
    group_leaves: Vec<Digest>,
    group_states: Vec<u8>,
    group_has_frames: bool,
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

impl StateTree {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let zeros = vec![0; geometry.block_size().bytes()];
        let mut fill = zeros.clone();
        fill_unreadable(&mut fill, 0);
        Self {
            geometry,
            zero_leaf: leaf(&zeros),
            fill_leaf: leaf(&fill),
            content: Tree::above_groups(KEY_CONTENT),
            map: Tree::above_groups(KEY_MAP),
            next: 0,
            group_leaves: Vec::with_capacity(FAN_OUT),
            group_states: Vec::with_capacity(FAN_OUT),
            group_has_frames: false,
        }
    }

    /// The first block not covered yet.
    pub(crate) fn next_block(&self) -> BlockIndex {
        self.next
    }

    /// Leaf hash of a block that `kind` determines without a frame.
    pub(crate) fn constant_leaf(&self, block: BlockIndex, kind: Kind) -> Digest {
        let len = self.geometry.block_len(block);
        if len == self.geometry.block_size().get() {
            return if kind == Kind::Unreadable { self.fill_leaf } else { self.zero_leaf };
        }
        let mut bytes = vec![0; len as usize];
        if kind == Kind::Unreadable {
            fill_unreadable(&mut bytes, 0);
        }
        leaf(&bytes)
    }

    /// Adds the blocks of `entry`, which must begin at [`StateTree::next_block`] and end inside
    /// the geometry. `emit` receives the nodes of each completed group that holds a frame.
    pub(crate) fn push(&mut self, entry: &IndexEntry, emit: &mut dyn FnMut(TreeNode)) {
        debug_assert!(entry.block == self.next && entry.end() <= self.geometry.blocks());
        let state = entry.kind.map_state();
        let mut left = entry.run;
        while left > 0 {
            let last = self.geometry.blocks() - 1;
            let full_blocks = last.saturating_sub(self.next).min(left);
            let whole_groups = full_blocks / FAN_OUT as u64;
            if self.group_leaves.is_empty() && whole_groups > 0 && !entry.has_frame() {
                let leaves = [self.constant_leaf(self.next, entry.kind); FAN_OUT];
                self.content.push_run(Tree::node(KEY_CONTENT, 1, &leaves), whole_groups);
                self.map.push_run(map_group(&[state; FAN_OUT]), whole_groups);
                self.next += whole_groups * FAN_OUT as u64;
                left -= whole_groups * FAN_OUT as u64;
                continue;
            }
            let leaf = if entry.has_frame() {
                entry.leaf
            } else {
                self.constant_leaf(self.next, entry.kind)
            };
            self.group_has_frames |= entry.has_frame();
            self.group_leaves.push(leaf);
            self.group_states.push(state);
            self.next += 1;
            left -= 1;
            if self.group_leaves.len() == FAN_OUT {
                self.close_group(emit);
            }
        }
    }

    fn close_group(&mut self, emit: &mut dyn FnMut(TreeNode)) {
        let content = Tree::node(KEY_CONTENT, 1, &self.group_leaves);
        let map = map_group(&self.group_states);
        if self.group_has_frames {
            emit(TreeNode { group: (self.next - 1) / FAN_OUT as u64, content, map });
        }
        self.content.push(content);
        self.map.push(map);
        self.group_leaves.clear();
        self.group_states.clear();
        self.group_has_frames = false;
    }

    /// The roots, once every block was pushed.
    pub(crate) fn finish(mut self, emit: &mut dyn FnMut(TreeNode)) -> Roots {
        if !self.group_leaves.is_empty() {
            self.close_group(emit);
        }
        let (content, map) = (self.content.finish(), self.map.finish());
        Roots { content, map, state: state_root(&self.geometry, &content, &map) }
    }
}

fn map_group(states: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(KEY_MAP);
    hasher.update(&1u64.to_le_bytes());
    hasher.update(states);
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlockSize;
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

        #[test]
        fn a_state_root_does_not_depend_on_how_runs_are_cut(
            runs in prop::collection::vec((0usize..3, 1u64..700), 1..8), cut in 1u64..400,
        ) {
            let kinds = [Kind::Zero, Kind::Unused, Kind::Unreadable];
            let blocks: u64 = runs.iter().map(|r| r.1).sum();
            let size = BlockSize::new(16384).expect("a block size");
            let geometry = Geometry::new(blocks * 16384 - 5000, size, 512).expect("small");
            let roots = |piece: u64| {
                let mut tree = StateTree::new(geometry);
                for &(kind, run) in &runs {
                    let mut left = run;
                    while left > 0 {
                        let now = left.min(piece);
                        let entry = IndexEntry::run(tree.next_block(), now, kinds[kind]);
                        tree.push(&entry, &mut |_| {});
                        left -= now;
                    }
                }
                tree.finish(&mut |_| {})
            };
            prop_assert_eq!(roots(u64::MAX), roots(cut));
        }
    }

    #[test]
    fn zero_unused_and_excluded_read_alike_and_are_different_states() {
        let size = BlockSize::new(65536).expect("a block size");
        let geometry = Geometry::new(65536 * 300, size, 512).expect("small");
        let roots = |kind| {
            let mut tree = StateTree::new(geometry);
            tree.push(&IndexEntry::run(0, 300, kind), &mut |_| {});
            tree.finish(&mut |_| {})
        };
        let (zero, unused, lost) =
            (roots(Kind::Zero), roots(Kind::Unused), roots(Kind::Unreadable));
        assert_eq!(zero.content, unused.content);
        assert_ne!(zero.map, unused.map);
        assert_ne!(zero.state, unused.state);
        assert_ne!(zero.content, lost.content);
    }
}
