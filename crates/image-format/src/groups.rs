//! The level-one nodes of the groups an image touches, in order, with as few reads as possible:
//! from the tree section where it lists them, from constant entries where it does not.

use crate::error::{Fault, Result, Section};
use crate::hash::{ConstantLeaves, FAN_OUT, GroupNode};
use crate::ids::BlockIndex;
use crate::image::Image;
use crate::layout::{IndexEntry, TreeNode};
use crate::tree_pages::TreePages;

const GROUP: u64 = FAN_OUT as u64;

/// Consecutive groups with the same nodes, as the image that touches them makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpan {
    /// First group: number of its first block divided by 128.
    pub first: u64,
    /// Number of groups, at least one.
    pub count: u64,
    /// The nodes of each of them.
    pub node: GroupNode,
}

/// See [`Image::groups`].
pub struct Groups<'a> {
    image: &'a Image,
    pages: TreePages<'a>,
    constants: ConstantLeaves,
    /// The next node of the tree section; `None` before the first.
    listed: Option<TreeNode>,
    began: bool,
    next: u64,
    done: bool,
}

impl Image {
    /// Every group that an entry of the image touches, ascending, with its nodes in the state of
    /// the image. Reads the tree section, and index pages only where that lists nothing. What it
    /// says is proven by the roots that all groups of the state lead to.
    #[must_use]
    pub fn groups(&self) -> Groups<'_> {
        Groups {
            image: self,
            pages: TreePages::new(self),
            constants: ConstantLeaves::new(*self.geometry()),
            listed: None,
            began: false,
            next: 0,
            done: false,
        }
    }
}

impl Groups<'_> {
    fn advance(&mut self) -> Result<Option<GroupSpan>> {
        if !self.began {
            self.listed = self.pages.next_node()?;
            self.began = true;
        }
        let listed = self.listed.map_or(u64::MAX, |node| node.group);
        if listed > self.next {
            // Something unlisted may lie before it.
            let mut entries = self.image.entries(self.next.saturating_mul(GROUP));
            if let Some(entry) = entries.next().transpose()? {
                let group = (entry.block / GROUP).max(self.next);
                if group < listed {
                    let span = self.constant(group, listed, entry, entries)?;
                    self.next = span.first + span.count;
                    return Ok(Some(span));
                }
            }
        }
        let Some(TreeNode { group, content, map }) = self.listed else { return Ok(None) };
        if group >= self.image.geometry().blocks().div_ceil(GROUP) {
            return Err(self.wrong(group, "inside the disk"));
        }
        self.listed = self.pages.next_node()?;
        self.next = group + 1;
        Ok(Some(GroupSpan { first: group, count: 1, node: GroupNode { content, map } }))
    }

    /// The groups from `group` on, below `limit`, that constant entries cover: as many as the
    /// first one covers, or the one that several share.
    fn constant(
        &self,
        group: u64,
        limit: u64,
        first: IndexEntry,
        rest: impl Iterator<Item = Result<IndexEntry>>,
    ) -> Result<GroupSpan> {
        let (start, blocks) = (group * GROUP, self.image.geometry().blocks());
        // The last block may be short, and its group with it.
        let whole_end = first.end().min(blocks - 1) / GROUP;
        if first.block <= start && !first.has_leaf() && whole_end > group {
            let leaves = [self.constants.of(start, first.kind); FAN_OUT];
            let node = GroupNode::new(&leaves, &[first.kind.map_state(); FAN_OUT]);
            return Ok(GroupSpan { first: group, count: whole_end.min(limit) - group, node });
        }
        let end = (start + GROUP).min(blocks);
        let mut leaves = Vec::with_capacity(FAN_OUT);
        let mut states = Vec::with_capacity(FAN_OUT);
        let mut at: BlockIndex = start;
        for entry in std::iter::once(Ok(first)).chain(rest) {
            let entry = entry?;
            if entry.block > at || entry.has_leaf() {
                break;
            }
            while at < entry.end().min(end) {
                leaves.push(self.constants.of(at, entry.kind));
                states.push(entry.kind.map_state());
                at += 1;
            }
            if at == end {
                let node = GroupNode::new(&leaves, &states);
                return Ok(GroupSpan { first: group, count: 1, node });
            }
        }
        Err(self.wrong(group, "listed"))
    }

    fn wrong(&self, group: u64, allowed: &'static str) -> crate::error::Error {
        let fault = Fault::Value { field: "group", found: group, allowed };
        fault.at(Section::TreePage, self.pages.offset())
    }
}

impl Iterator for Groups<'_> {
    type Item = Result<GroupSpan>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.advance().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
