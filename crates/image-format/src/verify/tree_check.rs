use crate::error::{Error, Fault, Section};
use crate::image::Image;
use crate::layout::TreeNode;
use crate::tree_pages::TreePages;

/// Compares the tree section with the nodes the index gives, in step.
pub(super) struct TreeCheck<'a> {
    image: &'a Image,
    pages: TreePages<'a>,
}

impl<'a> TreeCheck<'a> {
    pub(super) fn new(image: &'a Image) -> Self {
        Self { image, pages: TreePages::new(image) }
    }

    pub(super) fn compare(&mut self, expected: TreeNode, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        match self.pages.next_node() {
            Ok(Some(node)) if node == expected => {}
            Ok(_) => {
                let fault = Fault::Differs { field: "node", other: "index" };
                *damage = Some(fault.at(Section::TreePage, self.pages.offset()));
            }
            Err(error) => *damage = Some(error),
        }
    }

    /// Reads the nodes that nothing can be compared with.
    pub(super) fn skip_all(mut self, damage: &mut Option<Error>) {
        loop {
            match self.pages.next_node() {
                Ok(Some(_)) => {}
                Ok(None) => return self.finish(damage),
                Err(error) => {
                    *damage = Some(error);
                    return;
                }
            }
        }
    }

    pub(super) fn finish(mut self, damage: &mut Option<Error>) {
        if damage.is_some() {
            return;
        }
        let offset = self.pages.offset();
        match self.pages.next_node() {
            Ok(None) if self.pages.finish() == self.image.trailer().tree_hash => {}
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
