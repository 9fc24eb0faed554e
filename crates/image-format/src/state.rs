//! The trees over the state of an address space, built from index entries and, for an image
//! with a parent, from the parent's state under them.

use crate::error::{Error, Fault, Result, Section};
use crate::hash::{ConstantLeaves, FAN_OUT, GroupNode, Roots, Tree, state_root};
use crate::ids::{BlockIndex, Digest, Geometry};
use crate::layout::{IndexEntry, ParentLink, TreeNode};
use crate::parent::{ParentState, failed};
use crate::seal::Access;

/// The content and the map tree of one state, fed with index entries in block order.
pub(crate) struct StateTree {
    geometry: Geometry,
    constants: ConstantLeaves,
    content: Tree,
    map: Tree,
    next: BlockIndex,
    group_leaves: Vec<Digest>,
    group_states: Vec<u8>,
    /// Whether the open group has to be listed: constant entries of the image alone do not
    /// determine it.
    group_is_listed: bool,
}

impl StateTree {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let (content, map) = Tree::above_groups();
        Self {
            geometry,
            constants: ConstantLeaves::new(geometry),
            content,
            map,
            next: 0,
            group_leaves: Vec::with_capacity(FAN_OUT),
            group_states: Vec::with_capacity(FAN_OUT),
            group_is_listed: false,
        }
    }

    /// The first block not covered yet.
    pub(crate) fn next_block(&self) -> BlockIndex {
        self.next
    }

    /// Adds the blocks of `entry`, which must begin at [`StateTree::next_block`] and end inside
    /// the geometry. `emit` receives the nodes of each completed group that the tree section
    /// lists.
    pub(crate) fn push(&mut self, entry: &IndexEntry, emit: &mut dyn FnMut(TreeNode)) {
        debug_assert!(entry.block == self.next && entry.end() <= self.geometry.blocks());
        let state = entry.kind.map_state();
        let is_listed = entry.has_leaf();
        let mut left = entry.run;
        while left > 0 {
            let last = self.geometry.blocks() - 1;
            let full_blocks = last.saturating_sub(self.next).min(left);
            let whole_groups = full_blocks / FAN_OUT as u64;
            if self.group_leaves.is_empty() && whole_groups > 0 && !is_listed {
                let leaves = [self.constants.of(self.next, entry.kind); FAN_OUT];
                self.push_nodes(GroupNode::new(&leaves, &[state; FAN_OUT]), whole_groups);
                self.next += whole_groups * FAN_OUT as u64;
                left -= whole_groups * FAN_OUT as u64;
                continue;
            }
            let leaf = match entry.has_leaf() {
                true => entry.leaf,
                false => self.constants.of(self.next, entry.kind),
            };
            self.push_block(leaf, state, is_listed, emit);
            left -= 1;
        }
    }

    /// Adds the next block by its leaf and condition.
    fn push_block(
        &mut self,
        leaf: Digest,
        state: u8,
        is_listed: bool,
        emit: &mut dyn FnMut(TreeNode),
    ) {
        self.group_is_listed |= is_listed;
        self.group_leaves.push(leaf);
        self.group_states.push(state);
        self.next += 1;
        if self.group_leaves.len() == FAN_OUT {
            self.close_group(emit);
        }
    }

    /// Adds a whole group, of `blocks` blocks, that is the same as in the parent's state. Only
    /// between groups.
    fn push_group(&mut self, node: GroupNode, blocks: u64) {
        debug_assert!(self.group_leaves.is_empty());
        self.push_nodes(node, 1);
        self.next += blocks;
    }

    fn push_nodes(&mut self, node: GroupNode, count: u64) {
        self.content.push_run(node.content, count);
        self.map.push_run(node.map, count);
    }

    fn close_group(&mut self, emit: &mut dyn FnMut(TreeNode)) {
        let node = GroupNode::new(&self.group_leaves, &self.group_states);
        if self.group_is_listed {
            let GroupNode { content, map } = node;
            emit(TreeNode { group: (self.next - 1) / FAN_OUT as u64, content, map });
        }
        self.push_nodes(node, 1);
        self.group_leaves.clear();
        self.group_states.clear();
        self.group_is_listed = false;
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

/// Builds the state of an image from its entries in block order and the state it builds on.
pub(crate) struct StateBuilder<'p> {
    tree: StateTree,
    parent: Option<OldState<'p>>,
    /// Where the index lies, for messages.
    index_offset: u64,
}

impl<'p> StateBuilder<'p> {
    pub(crate) fn new(
        geometry: Geometry,
        parent: Option<&'p dyn ParentState>,
        index_offset: u64,
        access: &'p Access,
    ) -> Self {
        let parent = parent.map(|state| OldState::new(state, access));
        Self { tree: StateTree::new(geometry), parent, index_offset }
    }

    /// Takes the next entry of the image; what lies between the one before and this one is
    /// inherited.
    pub(crate) fn push(
        &mut self,
        entry: &IndexEntry,
        emit: &mut dyn FnMut(TreeNode),
    ) -> Result<()> {
        self.inherit_up_to(entry.block, emit)?;
        self.tree.push(entry, emit);
        Ok(())
    }

    fn inherit_up_to(&mut self, end: BlockIndex, emit: &mut dyn FnMut(TreeNode)) -> Result<()> {
        let uncovered = |found, allowed| {
            let fault = Fault::Value { field: "block", found, allowed };
            fault.at(Section::IndexPage, self.index_offset)
        };
        while self.tree.next_block() < end {
            let at = self.tree.next_block();
            let Some(old) = &mut self.parent else {
                return Err(uncovered(at, "covered by the index"));
            };
            let group_end = (at + FAN_OUT as u64).min(self.tree.geometry.blocks());
            // The last group of a disk that shrank has a node of its own.
            if at.is_multiple_of(FAN_OUT as u64)
                && group_end <= end
                && group_end == (at + FAN_OUT as u64).min(old.geometry.blocks())
                && same_blocks(&self.tree.geometry, &old.geometry, at, group_end)
            {
                self.tree.push_group(old.node(at / FAN_OUT as u64)?, group_end - at);
                continue;
            }
            if !same_blocks(&self.tree.geometry, &old.geometry, at, at + 1) {
                return Err(uncovered(at, "covered by the index or the parent's state"));
            }
            let (leaf, condition) = old.block(at)?;
            self.tree.push_block(leaf, condition, true, emit);
        }
        Ok(())
    }

    /// The roots, once every entry was pushed. Proves the parent's state on the way.
    pub(crate) fn finish(mut self, emit: &mut dyn FnMut(TreeNode)) -> Result<Roots> {
        self.inherit_up_to(self.tree.geometry.blocks(), emit)?;
        if let Some(old) = self.parent {
            old.prove()?;
        }
        Ok(self.tree.finish(emit))
    }
}

/// Whether the blocks `from .. to` exist in both with equal lengths.
fn same_blocks(new: &Geometry, old: &Geometry, from: BlockIndex, to: BlockIndex) -> bool {
    from < to
        && new.block_size() == old.block_size()
        && to <= new.blocks().min(old.blocks())
        && new.block_len(to - 1) == old.block_len(to - 1)
}

/// The parent's state, and the trees that prove it.
struct OldState<'p> {
    state: &'p dyn ParentState,
    /// Of the image that builds on it, which has the same key: links do not name roots of sealed
    /// images, but what stands for them.
    access: &'p Access,
    geometry: Geometry,
    link: ParentLink,
    nodes: Box<dyn Iterator<Item = Result<GroupNode>> + Send + 'p>,
    next_group: u64,
    content: Tree,
    map: Tree,
    constants: ConstantLeaves,
    /// The group some blocks of which are inherited: its number, and leaf and condition of each
    /// of its blocks, which its node proves.
    open_group: Option<u64>,
    leaves: Vec<Digest>,
    conditions: Vec<u8>,
}

impl<'p> OldState<'p> {
    fn new(state: &'p dyn ParentState, access: &'p Access) -> Self {
        let (content, map) = Tree::above_groups();
        let (geometry, link) = (state.geometry(), state.link());
        Self {
            state,
            access,
            geometry,
            link,
            nodes: state.nodes(),
            next_group: 0,
            content,
            map,
            constants: ConstantLeaves::new(geometry),
            open_group: None,
            leaves: Vec::with_capacity(FAN_OUT),
            conditions: Vec::with_capacity(FAN_OUT),
        }
    }

    /// Leaf and condition of a block that exists, asked for in ascending order.
    fn block(&mut self, block: BlockIndex) -> Result<(Digest, u8)> {
        let group = block / FAN_OUT as u64;
        if self.open_group != Some(group) {
            self.load(group)?;
        }
        let place = usize::try_from(block % FAN_OUT as u64).unwrap_or(usize::MAX);
        let found = self.leaves.get(place).copied().zip(self.conditions.get(place).copied());
        found.ok_or_else(|| self.mismatch())
    }

    /// Takes what the state says about the blocks of a group, and proves it by the node.
    fn load(&mut self, group: u64) -> Result<()> {
        let node = self.node(group)?;
        let mut next = group * FAN_OUT as u64;
        let end = (next + FAN_OUT as u64).min(self.geometry.blocks());
        self.leaves.clear();
        self.conditions.clear();
        for stretch in self.state.stretches(next) {
            let stretch = stretch.map_err(failed(self.state))?;
            let until = stretch.end().min(end);
            if stretch.block > next || until <= next {
                break;
            }
            while next < until {
                self.leaves.push(match stretch.has_leaf() {
                    true => stretch.leaf,
                    false => self.constants.of(next, stretch.kind),
                });
                self.conditions.push(stretch.kind.map_state());
                next += 1;
            }
            if next == end {
                break;
            }
        }
        if next < end || GroupNode::new(&self.leaves, &self.conditions) != node {
            return Err(self.mismatch());
        }
        self.open_group = Some(group);
        Ok(())
    }

    /// The node of a group, asked for in ascending order.
    fn node(&mut self, group: u64) -> Result<GroupNode> {
        loop {
            let node = self.next_node()?.ok_or_else(|| self.mismatch())?;
            if self.next_group > group {
                return Ok(node);
            }
        }
    }

    fn next_node(&mut self) -> Result<Option<GroupNode>> {
        let next = self.nodes.next().transpose().map_err(failed(self.state))?;
        let Some(node) = next else { return Ok(None) };
        self.content.push(node.content);
        self.map.push(node.map);
        self.next_group += 1;
        Ok(Some(node))
    }

    fn mismatch(&self) -> Error {
        let fault = Fault::Differs { field: "state root", other: "state of the parent" };
        failed(self.state)(fault.at(Section::TreePage, 0))
    }

    fn prove(mut self) -> Result<()> {
        while self.next_node()?.is_some() {}
        let whole = self.next_group == self.geometry.blocks().div_ceil(FAN_OUT as u64);
        let mismatch = self.mismatch();
        let root = state_root(&self.geometry, &self.content.finish(), &self.map.finish());
        if whole && self.access.clear_root(&root) == self.link.state_root {
            Ok(())
        } else {
            Err(mismatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlockSize;
    use crate::layout::Kind;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
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
