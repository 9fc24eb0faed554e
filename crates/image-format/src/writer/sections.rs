//! The sections behind the frames, each built from what the file already holds: memory stays
//! constant however large the index is.

use super::pages::PageBuilder;
use super::{ImageWriter, NewFrame, extend_last, in_memory};
use crate::error::{Result, Section};
use crate::hash::{self, Roots, SectionHasher, Tree};
use crate::ids::Digest;
use crate::layout::{
    Checkpoint, FRAME_HEADER_SIZE, FrameHeader, FrameKind, IndexEntry, InnerEntry, PageHeader,
    PageKind, TreeNode,
};
use crate::limits::PAGE_SIZE;
use crate::meta::EncodedSection;
use crate::parent::ParentState;
use crate::state::StateBuilder;

impl ImageWriter<'_> {
    fn page_header(&self, kind: PageKind, level: u8, page_no: u64) -> PageHeader {
        let image = self.superblock.image;
        PageHeader { kind, level, count: 0, page_no, first: 0, image }
    }

    /// Writes the leaf pages from the checkpoints, then each level from the one below it, read
    /// back from the file: memory stays constant however large the index is.
    pub(super) fn write_index(&mut self) -> Result<IndexArea> {
        let offset = self.file.position();
        let mut pages = PageBuilder::new(self.page_header(PageKind::Index, 0, 0));
        let mut open: Vec<IndexEntry> = Vec::new();
        for i in 0..self.checkpoints.len() {
            for entry in self.read_checkpoint(self.checkpoints[i])?.entries()? {
                if extend_last(&mut open, &entry) {
                    continue;
                }
                if let Some(done) = open.pop() {
                    pages.push(done.block, &done.to_bytes(), &mut self.file)?;
                }
                open.push(entry);
            }
        }
        if let Some(done) = open.pop() {
            pages.push(done.block, &done.to_bytes(), &mut self.file)?;
        }
        let leaf_pages = pages.close(&mut self.file)?;
        let mut level_start = 0;
        let mut level_pages = leaf_pages;
        let mut total = leaf_pages;
        let mut level = 0;
        while level_pages > 1 {
            level += 1;
            let mut inner = PageBuilder::new(self.page_header(PageKind::Index, level, total));
            for page_no in level_start..level_start + level_pages {
                let page = self.read_page(offset, page_no)?;
                let header = self.check_own_page(&page, PageKind::Index, page_no, offset)?;
                let entry = InnerEntry { first_block: header.first, page_hash: hash::page(&page) };
                inner.push(entry.first_block, &entry.to_bytes(), &mut self.file)?;
            }
            let written = inner.close(&mut self.file)?;
            (level_start, level_pages) = (total, written);
            total += written;
        }
        let root = match total {
            0 => Digest::default(),
            _ => hash::page(&self.read_page(offset, level_start)?),
        };
        Ok(IndexArea { offset, pages: total, leaf_pages, root })
    }

    /// Reads one checkpoint back, checking that the storage returns what was written.
    fn read_checkpoint(&mut self, address: u64) -> Result<Checkpoint> {
        let mut header = [0; FRAME_HEADER_SIZE];
        self.file.read_back(&mut header, address)?;
        let header = FrameHeader::from_bytes(&header, address)?;
        let mut payload = vec![0; header.stored_len as usize];
        self.file.read_back(&mut payload, address + FRAME_HEADER_SIZE as u64)?;
        Checkpoint::of_frame(&header, payload, address)
    }

    fn read_page(&mut self, area: u64, page_no: u64) -> Result<[u8; PAGE_SIZE]> {
        let mut page = [0; PAGE_SIZE];
        self.file.read_back(&mut page, area + page_no * PAGE_SIZE as u64)?;
        Ok(page)
    }

    fn check_own_page(
        &self,
        page: &[u8; PAGE_SIZE],
        kind: PageKind,
        page_no: u64,
        area: u64,
    ) -> Result<PageHeader> {
        let offset = area + page_no * PAGE_SIZE as u64;
        PageHeader::from_page(page, kind, self.superblock.image, page_no, offset)
    }

    /// Second pass over the leaf pages: roots, and the level-one nodes the tree section lists.
    pub(super) fn write_tree(
        &mut self,
        index: &IndexArea,
        parent: Option<&dyn ParentState>,
    ) -> Result<TreeArea> {
        let offset = self.file.position();
        let mut pages = PageBuilder::new(self.page_header(PageKind::Tree, 0, 0));
        let mut state = StateBuilder::new(self.superblock.geometry, parent, index.offset);
        let mut nodes: Vec<TreeNode> = Vec::new();
        for page_no in 0..index.leaf_pages {
            let page = self.read_page(index.offset, page_no)?;
            let header = self.check_own_page(&page, PageKind::Index, page_no, index.offset)?;
            for entry in IndexEntry::of_page(&page, &header) {
                let entry = entry.map_err(|f| f.at(Section::IndexPage, index.offset))?;
                state.push(&entry, &mut |node| nodes.push(node))?;
            }
            for node in nodes.drain(..) {
                pages.push(node.group, &node.to_bytes(), &mut self.file)?;
            }
        }
        let roots = state.finish(&mut |node| nodes.push(node))?;
        for node in nodes {
            pages.push(node.group, &node.to_bytes(), &mut self.file)?;
        }
        let count = pages.close(&mut self.file)?;
        let mut hasher = SectionHasher::new();
        for page_no in 0..count {
            hasher.update(&self.read_page(offset, page_no)?);
        }
        Ok(TreeArea { offset, pages: count, hash: hasher.finish(), roots })
    }

    pub(super) fn write_meta(&mut self, sections: &[EncodedSection]) -> Result<MetaArea> {
        let offset = self.file.position();
        for EncodedSection { section, codec, plain_len, payload } in sections {
            let mut about = NewFrame::plain(FrameKind::Meta, section.code(), *plain_len);
            about.codec = *codec;
            self.append_frame(&about, payload)?;
        }
        let len = self.file.position() - offset;
        let mut bytes = vec![0; in_memory(len)];
        self.file.read_back(&mut bytes, offset)?;
        let mut hasher = SectionHasher::new();
        hasher.update(&bytes);
        self.pad_to_page()?;
        Ok(MetaArea { offset, len, hash: hasher.finish() })
    }

    /// Lists the hash of every piece before this point: those the checkpoints hold, read back,
    /// then those since the last checkpoint.
    pub(super) fn write_stored_list(&mut self) -> Result<StoredArea> {
        let late = self.file.take_pieces(true)?;
        let offset = self.file.position();
        let mut tree = Tree::stored();
        let mut pieces = 0;
        for i in 0..self.checkpoints.len() {
            let checkpoint = self.read_checkpoint(self.checkpoints[i])?;
            for digest in checkpoint.pieces() {
                tree.push(digest);
                self.file.append(&digest.0)?;
                pieces += 1;
            }
        }
        for digest in late {
            tree.push(digest);
            self.file.append(&digest.0)?;
            pieces += 1;
        }
        let past = in_memory(self.file.position() % PAGE_SIZE as u64);
        self.file.append_zeros((PAGE_SIZE - past) % PAGE_SIZE)?;
        Ok(StoredArea { offset, pieces, root: tree.finish() })
    }
}

pub(super) struct IndexArea {
    pub offset: u64,
    pub pages: u64,
    pub leaf_pages: u64,
    pub root: Digest,
}

pub(super) struct TreeArea {
    pub offset: u64,
    pub pages: u64,
    pub hash: Digest,
    pub roots: Roots,
}

pub(super) struct MetaArea {
    pub offset: u64,
    pub len: u64,
    pub hash: Digest,
}

pub(super) struct StoredArea {
    pub offset: u64,
    pub pieces: u64,
    pub root: Digest,
}
