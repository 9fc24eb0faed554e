use crate::error::{Error, Fault, Result, Section};
use crate::hash::SectionHasher;
use crate::image::{Image, read_page};
use crate::layout::{PageHeader, PageKind, TreeNode};
use crate::limits::PAGE_SIZE;

/// Reads the tree pages in step with the nodes the index gives.
pub(super) struct TreePages<'a> {
    image: &'a Image,
    next_page: u64,
    open: std::vec::IntoIter<TreeNode>,
    hasher: SectionHasher,
}

impl<'a> TreePages<'a> {
    pub(super) fn new(image: &'a Image) -> Self {
        let open = Vec::new().into_iter();
        Self { image, next_page: 0, open, hasher: SectionHasher::new() }
    }

    fn next_node(&mut self) -> Result<Option<TreeNode>> {
        loop {
            if let Some(node) = self.open.next() {
                return Ok(Some(node));
            }
            let trailer = self.image.trailer();
            if self.next_page == trailer.tree_pages {
                return Ok(None);
            }
            let offset = trailer.tree_offset + self.next_page * PAGE_SIZE as u64;
            let page = read_page(&*self.image.file, offset)?;
            self.hasher.update(&page);
            let image = self.image.superblock().image;
            let header =
                PageHeader::from_page(&page, PageKind::Tree, image, self.next_page, offset)?;
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

    pub(super) fn compare(&mut self, expected: TreeNode, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        match self.next_node() {
            Ok(Some(node)) if node == expected => {}
            Ok(_) => {
                let fault = Fault::Differs { field: "node", other: "index" };
                *damage = Some(fault.at(Section::TreePage, self.image.trailer().tree_offset));
            }
            Err(error) => *damage = Some(error),
        }
    }

    pub(super) fn finish(mut self, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        let offset = self.image.trailer().tree_offset;
        match self.next_node() {
            Ok(None) if self.hasher.finish() == self.image.trailer().tree_hash => {}
            Ok(None) => {
                *damage = Some(Fault::Hash { by: "trailer" }.at(Section::TreePage, offset));
            }
            Ok(Some(_)) => {
                let fault = Fault::Differs { field: "node count", other: "index" };
                *damage = Some(fault.at(Section::TreePage, offset));
            }
            Err(error) => *damage = Some(error),
        }
    }
}
