//! The root tree: where all other trees begin.

use super::key::{Item, kind};
use super::reason::BtrfsReason;
use super::superblock::{LEVELS_MAX, Root, Superblock};
use super::tree::Tree;
use crate::bytes::le64;
use crate::stop::Stop;

/// Trees, one for each snapshot: 64 MiB of memory.
const ROOTS_MAX: usize = 1 << 21;
/// The item before it got times and identities of subvolumes.
const LEN_MIN: usize = 239;

/// Where a tree begins, by its item in the root tree or in that of the log.
pub(super) fn parse(item: Item<'_>, tree: Tree, generation_max: u64) -> Result<Root, BtrfsReason> {
    let fault = |what| BtrfsReason::Tree { tree: tree.name, block: item.leaf, what };
    let data = item.data;
    if data.len() < LEN_MIN {
        return Err(fault("it has a root item that is too short"));
    }
    let root = Root { logical: le64(data, 176), generation: le64(data, 160), level: data[238] };
    if root.level >= LEVELS_MAX {
        return Err(fault("it has a root item with too many levels"));
    }
    if root.generation > generation_max {
        return Err(fault("it has a root item of a commit to come"));
    }
    Ok(root)
}

/// What the root tree names.
#[derive(Debug, Default)]
pub(super) struct Roots {
    extent: Option<Root>,
    device: Option<Root>,
    block_group: Option<Root>,
    free_space: Option<Root>,
    /// The first blocks of all trees.
    pub(super) blocks: Vec<u64>,
}

impl Roots {
    pub(super) fn take(&mut self, superblock: &Superblock, item: Item<'_>) -> Result<(), Stop> {
        match item.key.kind {
            kind::ROOT_ITEM => Ok(self.add(superblock.generation, item)?),
            _ => Ok(()),
        }
    }

    fn add(&mut self, generation_max: u64, item: Item<'_>) -> Result<(), BtrfsReason> {
        let root = parse(item, Tree::ROOT, generation_max)?;
        for (tree, place) in [
            (Tree::EXTENT, &mut self.extent),
            (Tree::DEVICE, &mut self.device),
            (Tree::BLOCK_GROUP, &mut self.block_group),
            (Tree::FREE_SPACE, &mut self.free_space),
        ] {
            if item.key.object == tree.owner && place.replace(root).is_some() {
                let what = "it names one of the trees twice";
                return Err(BtrfsReason::Tree { tree: "root", block: item.leaf, what });
            }
        }
        if self.blocks.len() == ROOTS_MAX {
            return Err(BtrfsReason::TooMany { what: "trees", allowed: ROOTS_MAX as u64 });
        }
        self.blocks.push(root.logical);
        Ok(())
    }

    pub(super) fn extent(&self) -> Result<Root, BtrfsReason> {
        self.extent.ok_or(BtrfsReason::NoTree { tree: "extent" })
    }

    pub(super) fn device(&self) -> Result<Root, BtrfsReason> {
        self.device.ok_or(BtrfsReason::NoTree { tree: "device" })
    }

    /// Present when the superblock says so.
    pub(super) fn block_group(&self, superblock: &Superblock) -> Result<Option<Root>, BtrfsReason> {
        optional("block-group", superblock.features.block_group_tree, self.block_group)
    }

    /// Present when the superblock says so.
    pub(super) fn free_space(&self, superblock: &Superblock) -> Result<Option<Root>, BtrfsReason> {
        optional("free-space", superblock.features.free_space_tree, self.free_space)
    }
}

/// One that nobody announced, left behind by a conversion, is a tree like any other.
fn optional(
    tree: &'static str,
    announced: bool,
    root: Option<Root>,
) -> Result<Option<Root>, BtrfsReason> {
    match (announced, root) {
        (true, None) => Err(BtrfsReason::NoTree { tree }),
        (true, root) => Ok(root),
        (false, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn more_trees_than_memory_is_set_aside_for() {
        let mut roots = Roots { blocks: vec![0; ROOTS_MAX - 1], ..Roots::default() };
        let data = [0; LEN_MIN];
        let key = Key { object: 256, kind: kind::ROOT_ITEM, offset: 0 };
        let mut take = || roots.add(0, Item { key, data: &data, leaf: 0 });
        take().unwrap();
        let expected = BtrfsReason::TooMany { what: "trees", allowed: ROOTS_MAX as u64 };
        assert_eq!(take(), Err(expected));
    }
}
