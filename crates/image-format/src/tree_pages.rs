//! The tree section of an image, read from front to back.

use crate::error::{Fault, Result, Section};
use crate::hash::SectionHasher;
use crate::ids::Digest;
use crate::image::{Image, read_page};
use crate::layout::{PageKind, TreeNode};
use crate::limits::PAGE_SIZE;

/// The nodes of the tree section in order. Pages are checked one by one; that all of them are
/// what was written shows [`TreePages::finish`], or the root the nodes lead to.
pub(crate) struct TreePages<'a> {
    image: &'a Image,
    next_page: u64,
    next_group: u64,
    open: std::vec::IntoIter<TreeNode>,
    hasher: SectionHasher,
}

impl<'a> TreePages<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        let open = Vec::new().into_iter();
        Self { image, next_page: 0, next_group: 0, open, hasher: SectionHasher::new() }
    }

    pub(crate) fn next_node(&mut self) -> Result<Option<TreeNode>> {
        loop {
            if let Some(node) = self.open.next() {
                if node.group < self.next_group {
                    let (field, found) = ("group", node.group);
                    let fault = Fault::Value { field, found, allowed: "ascending" };
                    return Err(fault.at(Section::TreePage, self.offset()));
                }
                self.next_group = node.group.saturating_add(1);
                return Ok(Some(node));
            }
            let trailer = self.image.trailer();
            if self.next_page == trailer.tree_pages {
                return Ok(None);
            }
            let offset = trailer.tree_offset + self.next_page * PAGE_SIZE as u64;
            self.image.access.unlocked()?;
            let mut page = read_page(&*self.image.file, offset)?;
            self.hasher.update(&page);
            let image = self.image.superblock().image;
            let (access, number) = (&self.image.access, self.next_page);
            let header = access.open_page(&mut page, PageKind::Tree, image, number, offset)?;
            let nodes: std::result::Result<Vec<_>, Fault> =
                TreeNode::of_page(&page, &header).collect();
            let nodes = nodes.map_err(|f| f.at(Section::TreePage, offset))?;
            if header.level != 0 || nodes.first().is_none_or(|node| node.group != header.first) {
                let fault = Fault::Differs { field: "first group", other: "first node" };
                return Err(fault.at(Section::TreePage, offset));
            }
            self.open = nodes.into_iter();
            self.next_page += 1;
        }
    }

    /// Where the section begins.
    pub(crate) fn offset(&self) -> u64 {
        self.image.trailer().tree_offset
    }

    /// Hash over all pages, once every node was read.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}
