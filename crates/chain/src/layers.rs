//! The images of a chain laid over each other, and the parent's state as the format asks for it.

use std::collections::HashSet;
use std::sync::Arc;

use aiv_image_format::hash::ConstantLeaves;
use aiv_image_format::{
    BlockIndex, Error as ImageError, Geometry, GroupNode, Image, IndexEntry, Kind, ParentLink,
    ParentState,
};

use crate::error::{Error, Result};
use crate::facts::Protection;
use crate::folder::PointState;
use crate::overlay::{Laid, Overlay, Span};
use crate::reader::Blocks;
use crate::view::{Stretch, View};

pub(crate) type ImageResult<T> = std::result::Result<T, ImageError>;

const GROUP: u64 = aiv_image_format::hash::FAN_OUT as u64;

/// One image of a chain.
#[derive(Clone)]
pub(crate) struct Layer {
    pub image: Arc<Image>,
    /// Name of its file, for messages.
    pub file: String,
}

/// The images of a chain, newest first.
#[derive(Clone)]
pub(crate) struct Layers {
    all: Arc<[Layer]>,
    /// The newest one that counts: the state of an older point shares the list.
    first: usize,
}

impl Layers {
    /// At least one image.
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        debug_assert!(!layers.is_empty());
        Self { all: layers.into(), first: 0 }
    }

    /// Without the newest image; `None` when that was the last.
    pub(crate) fn parent(&self) -> Option<Self> {
        self.below(1)
    }

    /// Without the newest `count` images; `None` when there are no others.
    pub(crate) fn below(&self, count: usize) -> Option<Self> {
        let first = self.first + count;
        (first < self.all.len()).then(|| Self { all: Arc::clone(&self.all), first })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len() - self.first
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Layer> {
        self.all[self.first..].iter()
    }

    pub(crate) fn get(&self, layer: usize) -> &Layer {
        &self.all[self.first + layer]
    }

    pub(crate) fn top(&self) -> &Image {
        &self.get(0).image
    }

    /// Refuses images that do not follow each other, whatever the folder said, and locked ones.
    pub(crate) fn check_links(&self) -> Result<()> {
        let mut points = HashSet::new();
        for (at, layer) in self.iter().enumerate() {
            let superblock = layer.image.superblock();
            if layer.image.is_locked() {
                let commitment = superblock.key_commitment;
                return Err(Error::in_file(&layer.file, ImageError::Locked { commitment }));
            }
            if !points.insert(superblock.point) {
                return Err(not_restorable(self.get(0), PointState::Circular));
            }
            let Some(link) = superblock.parent else {
                return match at + 1 == self.len() {
                    true => Ok(()),
                    false => Err(not_restorable(layer, PointState::TooLong)),
                };
            };
            let below = (at + 1 < self.len()).then(|| self.get(at + 1));
            let missing = PointState::MissingParent { point: link.point };
            let Some(below) = below else { return Err(not_restorable(layer, missing)) };
            let (parent, geometry) = (below.image.superblock(), superblock.geometry);
            let is_it = parent.point == link.point
                && below.image.trailer().state_root == link.state_root
                && parent.geometry.block_size() == geometry.block_size()
                && parent.geometry.sector_size() == geometry.sector_size()
                && Protection::of(parent) == Protection::of(superblock);
            if !is_it {
                let differs = PointState::ParentDiffers { point: link.point };
                return Err(not_restorable(layer, differs));
            }
        }
        Ok(())
    }

    /// Blocks, from the first on, that `layer` may take from older images on behalf of `top`:
    /// those that both have with the same length.
    pub(crate) fn shared(&self, layer: usize, top: usize) -> u64 {
        let (old, new) = (self.get(layer).image.geometry(), self.get(top).image.geometry());
        if old.len() == new.len() {
            return new.blocks();
        }
        old.len().min(new.len()) / u64::from(new.block_size().get())
    }

    /// The entry that decides `block` in the state of `top`, and the layer it is of.
    pub(crate) fn find(&self, top: usize, block: BlockIndex) -> ImageResult<(usize, IndexEntry)> {
        for layer in top..self.len() {
            if block >= self.shared(layer, top) {
                break;
            }
            let entry = self.get(layer).image.entry(block);
            if let Some(entry) = entry.map_err(|e| self.in_layer(layer, e))? {
                return Ok((layer, entry));
            }
        }
        Err(self.get(top).image.lacks(block))
    }

    /// Follows copies to where the bytes are: never a PARENT entry, and the block whose number
    /// the bytes have there. Each step goes to an older image.
    pub(crate) fn resolve(
        &self,
        (mut layer, mut entry): (usize, IndexEntry),
        mut block: BlockIndex,
    ) -> ImageResult<(usize, IndexEntry, BlockIndex)> {
        let len = self.get(layer).image.geometry().block_len(block);
        while entry.kind == Kind::Parent {
            let (from, leaf) = (layer, entry.leaf);
            block = entry.parent_block;
            (layer, entry) = self.find(layer + 1, block).map_err(|e| self.in_layer(from, e))?;
            let geometry = self.get(layer).image.geometry();
            // Where no frame holds the bytes nobody compares them later.
            let said = match entry.has_leaf() {
                true => entry.leaf,
                false => ConstantLeaves::new(*geometry).of(block, entry.kind),
            };
            if said != leaf || geometry.block_len(block) != len {
                return Err(self.in_layer(from, self.get(from).image.lacks(block)));
            }
        }
        Ok((layer, entry, block))
    }

    /// The stretches of `[first, end)` in block order.
    pub(crate) fn stretches(
        &self,
        first: BlockIndex,
        end: BlockIndex,
    ) -> Box<dyn Iterator<Item = ImageResult<Stretch>> + Send + '_> {
        if self.len() == 1 {
            let entries = self.top().entries(first).take_while(move |entry| {
                entry.as_ref().is_ok_and(|e| e.block < end) || entry.is_err()
            });
            return Box::new(entries.map(move |entry| Ok(Stretch { entry: entry?, layer: 0 })));
        }
        let mut limit = end;
        let mut lists = Vec::with_capacity(self.len());
        for layer in 0..self.len() {
            limit = limit.min(self.shared(layer, 0));
            lists.push(self.entry_spans(layer, first, limit));
        }
        let laid = Overlay::new(lists, first, end);
        Box::new(laid.map(move |laid| match laid? {
            Laid::Span { layer, start, end, what } => {
                Ok(Stretch { entry: what.cut(start, end), layer })
            }
            Laid::Nothing(block) => Err(self.top().lacks(block)),
        }))
    }

    pub(crate) fn entry_spans(
        &self,
        layer: usize,
        first: BlockIndex,
        limit: BlockIndex,
    ) -> Box<dyn Iterator<Item = ImageResult<Span<IndexEntry>>> + Send + '_> {
        let entries = self.get(layer).image.entries(first);
        let spans = entries.map(move |entry| {
            let entry = entry.map_err(|e| self.in_layer(layer, e))?;
            Ok(Span { start: entry.block, end: entry.end().min(limit), what: entry })
        });
        Box::new(spans.take_while(|span| span.as_ref().map_or(true, |s| s.start < s.end)))
    }

    /// The nodes of every group of the state in order.
    fn group_nodes(&self) -> Box<dyn Iterator<Item = ImageResult<GroupNode>> + Send + '_> {
        let groups = self.top().geometry().blocks().div_ceil(GROUP);
        let mut limit = self.top().geometry().blocks();
        let mut lists = Vec::with_capacity(self.len());
        for layer in 0..self.len() {
            limit = limit.min(self.shared(layer, 0));
            // A group that only partly exists below is listed above.
            let whole = limit == self.top().geometry().blocks();
            let limit = if whole { groups } else { limit / GROUP };
            let spans = self.get(layer).image.groups().map(move |span| {
                let span = span.map_err(|e| self.in_layer(layer, e))?;
                let end = span.first.saturating_add(span.count).min(limit);
                Ok(Span { start: span.first, end, what: span.node })
            });
            lists.push(spans.take_while(|span: &ImageResult<Span<_>>| {
                span.as_ref().map_or(true, |s| s.start < s.end)
            }));
        }
        let laid = Overlay::new(lists, 0, groups);
        Box::new(laid.flat_map(move |laid| {
            let (item, count) = match laid {
                Ok(Laid::Span { start, end, what, .. }) => (Ok(what), end - start),
                Ok(Laid::Nothing(group)) => (Err(group * GROUP), 1),
                Err(error) => return Repeat::Once(Some(Err(error))),
            };
            match item {
                Ok(node) => Repeat::Nodes(node, count),
                Err(block) => Repeat::Once(Some(Err(self.top().lacks(block)))),
            }
        }))
    }

    /// Says in which file of the chain an error was found; the newest one is the caller's own.
    pub(crate) fn in_layer(&self, layer: usize, error: ImageError) -> ImageError {
        match error {
            error @ (ImageError::Parent { .. } | ImageError::Canceled(_)) => error,
            error if layer == 0 => error,
            error => {
                let file = self.get(layer).file.clone();
                ImageError::Parent { file, source: Box::new(error) }
            }
        }
    }

    /// An error of any file of the chain, with the name of the file.
    pub(crate) fn explain(&self, error: ImageError) -> Error {
        match error {
            ImageError::Canceled(canceled) => canceled.into(),
            ImageError::Parent { file, source } => Error::Image { file, source: *source },
            source => Error::Image { file: self.get(0).file.clone(), source },
        }
    }
}

/// The nodes of equal groups, or one error.
enum Repeat {
    Nodes(GroupNode, u64),
    Once(Option<ImageResult<GroupNode>>),
}

impl Iterator for Repeat {
    type Item = ImageResult<GroupNode>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Nodes(_, 0) => None,
            Self::Nodes(node, left) => {
                *left -= 1;
                Some(Ok(*node))
            }
            Self::Once(item) => item.take(),
        }
    }
}

fn not_restorable(layer: &Layer, state: PointState) -> Error {
    Error::NotRestorable { point: layer.image.superblock().point, state }
}

impl ParentState for View {
    fn link(&self) -> ParentLink {
        ParentLink { point: self.point(), state_root: self.image().trailer().state_root }
    }

    fn geometry(&self) -> Geometry {
        *self.image().geometry()
    }

    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = ImageResult<IndexEntry>> + Send + '_> {
        let stretches = self.layers.stretches(first, self.image().geometry().blocks());
        Box::new(stretches.map(|s| s.map(|s| s.entry).map_err(|e| self.as_parent(e))))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = ImageResult<GroupNode>> + Send + '_> {
        Box::new(self.layers.group_nodes().map(|node| node.map_err(|e| self.as_parent(e))))
    }

    fn read(&self, block: BlockIndex, out: &mut [u8]) -> ImageResult<u8> {
        let found = self.find(block).map_err(|e| self.as_parent(e))?;
        let read = Blocks::default().read(&self.layers, (found.layer, found.entry), block, out);
        read.map_err(|e| self.as_parent(e))
    }
}

impl View {
    /// All its files are the parent's for who asks through [`ParentState`].
    pub(crate) fn as_parent(&self, error: ImageError) -> ImageError {
        match error {
            error @ (ImageError::Parent { .. } | ImageError::Canceled(_)) => error,
            error => {
                let file = self.layers.get(0).file.clone();
                ImageError::Parent { file, source: Box::new(error) }
            }
        }
    }
}
