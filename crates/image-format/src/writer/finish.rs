//! The end of an image: what is built from what the file holds, then the trailers.

use super::{ImageSummary, ImageWriter, in_memory};
use crate::error::{Error, Result};
use crate::ids::Digest;
use crate::image::{tail_len, trailer_gap};
use crate::layout::Trailer;
use crate::meta::{Meta, encode_roots};
use crate::parent::ParentState;
use crate::seal::Access;

impl ImageWriter<'_> {
    /// Completes a full image: every block must have been pushed. On success the file is durable
    /// and complete; publishing it under its final name is the caller's next step.
    ///
    /// # Errors
    /// [`Error::Misuse`] when blocks are missing or META is one a reader would refuse (too
    /// large, or against the geometry), [`Error::Io`] when the storage fails; the file is then
    /// worthless and must be removed.
    pub fn finish(self, meta: Meta) -> Result<ImageSummary> {
        self.finish_on(meta, None)
    }

    /// Completes an image whose blocks were all pushed or inherited. `parent` is the state it
    /// builds on, present exactly when the superblock names one; it is proven against the link
    /// on the way, since the roots are made of its nodes.
    ///
    /// # Errors
    /// As [`ImageWriter::finish`]; [`Error::Parent`] when the parent's state is not the one the
    /// link names, or one of its files cannot be used.
    pub fn finish_on(
        mut self,
        mut meta: Meta,
        parent: Option<&dyn ParentState>,
    ) -> Result<ImageSummary> {
        if parent.map(ParentState::link) != self.superblock.parent {
            return Err(Error::Misuse("a parent state other than the one of the superblock"));
        }
        if self.next_block != self.superblock.geometry.blocks() {
            return Err(Error::Misuse("an image without all its blocks"));
        }
        meta.origins.clone_from(&self.origins);
        let mut meta = meta.encode(&self.superblock.geometry, |len| self.stored_len(len).0)?;
        // Also for inherited blocks, of which there are no entries.
        if self.next_unlisted != self.next_block {
            self.checkpoint()?;
        }
        self.cut_before_pages(&meta)?;
        let frames_end = self.file.position();
        let index = self.write_index()?;
        let tree = self.write_tree(&index, parent)?;
        self.end_cuts();
        let access = self.access.clone();
        if matches!(access, Access::Open(_)) {
            meta.push(encode_roots(&tree.roots));
        }
        let meta_area = self.write_meta(&meta)?;
        let stored = self.write_stored_list()?;
        let parity = self.write_page_parity(index.offset)?;
        self.file.sync()?;
        let end = self.file.position();
        let features = self.superblock.features;
        let trailer = Trailer {
            image: self.superblock.image,
            set: self.superblock.set,
            point: self.superblock.point,
            parent: self.superblock.parent,
            content_root: access.clear_root(&tree.roots.content),
            map_root: access.clear_root(&tree.roots.map),
            state_root: access.clear_root(&tree.roots.state),
            stored_root: stored.root,
            file_len: end + tail_len(features),
            frames_end,
            index_offset: frames_end,
            index_pages: index.pages,
            index_leaf_pages: index.leaf_pages,
            index_root: index.root,
            tree_offset: tree.offset,
            tree_pages: tree.pages,
            tree_hash: tree.hash,
            meta_offset: meta_area.offset,
            meta_len: meta_area.len,
            meta_hash: meta_area.hash,
            stored_offset: stored.offset,
            stored_pieces: stored.pieces,
            last_checkpoint: self.checkpoints.last().copied().unwrap_or(0),
            segment_count: self.segment_count(),
            totals: self.totals,
            parity_offset: parity.offset,
            parity_len: parity.len,
            parity_hash: parity.hash,
            mac: Digest::default(),
            session: self.session,
        };
        let superblock = self.superblock.to_bytes();
        let trailer = match &self.seal {
            None => trailer,
            Some(seal) => Trailer { mac: trailer.mac_of(&seal.key, &superblock), ..trailer },
        };
        let slots = self.seal.as_ref().and_then(|seal| seal.slots.as_deref()).unwrap_or_default();
        self.file.append(&trailer.to_bytes(1))?;
        self.file.append(slots)?;
        self.file.append_zeros(in_memory(trailer_gap(features)) - slots.len())?;
        self.file.append(&superblock)?;
        self.file.append(&trailer.to_bytes(2))?;
        self.file.sync()?;
        Ok(ImageSummary { trailer, roots: tree.roots })
    }
}
