//! The newest images of a chain as one: what each block is in the image they become.

use aiv_image_format::{BlockIndex, IndexEntry, Kind};

use crate::layers::{ImageResult, Layers};
use crate::overlay::{Laid, Overlay, Span};
use crate::view::View;

/// The images to be merged, newest first, with those they build on below them.
#[derive(Clone)]
pub(crate) struct Run<'a> {
    pub layers: &'a Layers,
    /// Images that are merged: layers from this number on are the parent's.
    pub count: usize,
}

/// What the images of a run say about the blocks `start .. end`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision {
    pub start: BlockIndex,
    pub end: BlockIndex,
    /// The newest image that decides them, with its entry; `None` leaves them to the parent.
    pub by: Option<(usize, IndexEntry)>,
}

/// What a copy of a block of an older state leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A block of the state the run builds on.
    Parent(BlockIndex),
    /// An entry of an image of the run, never PARENT.
    Entry(usize, IndexEntry),
}

impl Run<'_> {
    /// The state the merged image builds on; `None` when it is full.
    pub(crate) fn parent(&self) -> Option<View> {
        self.layers.below(self.count).map(View::new)
    }

    /// What is decided, in block order and without gaps.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = ImageResult<Decision>> + Send + '_ {
        let blocks = self.layers.top().geometry().blocks();
        let mut limit = blocks;
        type Spans<'a> =
            Box<dyn Iterator<Item = ImageResult<Span<Option<IndexEntry>>>> + Send + 'a>;
        let mut lists: Vec<Spans<'_>> = Vec::with_capacity(self.count + 1);
        for layer in 0..self.count {
            limit = limit.min(self.layers.shared(layer, 0));
            let spans = self.layers.entry_spans(layer, 0, limit);
            lists.push(Box::new(spans.map(|span| {
                let Span { start, end, what } = span?;
                Ok(Span { start, end, what: Some(what) })
            })));
        }
        if self.layers.len() > self.count {
            // Under all of them lies what the parent's state has.
            let end = limit.min(self.layers.shared(self.count, 0));
            lists.push(Box::new(std::iter::once(Ok(Span { start: 0, end, what: None }))));
        }
        Overlay::new(lists, 0, blocks).map(move |laid| match laid? {
            Laid::Span { layer, start, end, what } => {
                let by = what.map(|entry| (layer, entry.cut(start, end)));
                Ok(Decision { start, end, by })
            }
            Laid::Nothing(block) => Err(self.layers.top().lacks(block)),
        })
    }

    /// The entry of the run that decides `block` in the state of `top`; `None` when none does,
    /// and the parent's state has the block.
    pub(crate) fn find(
        &self,
        top: usize,
        block: BlockIndex,
    ) -> ImageResult<Option<(usize, IndexEntry)>> {
        let lacks = || Err(self.layers.get(top - 1).image.lacks(block));
        for layer in top..self.count {
            if block >= self.layers.shared(layer, top) {
                return lacks();
            }
            let entry = self.layers.get(layer).image.entry(block);
            if let Some(entry) = entry.map_err(|e| self.layers.in_layer(layer, e))? {
                return Ok(Some((layer, entry)));
            }
        }
        if self.layers.len() == self.count || block >= self.layers.shared(self.count, top) {
            return lacks();
        }
        Ok(None)
    }

    /// The entry that the merged image has for `block`, which one of its images decides, and the
    /// layer it is of; `None` when it is left to the parent.
    pub(crate) fn decides(&self, block: BlockIndex) -> ImageResult<Option<(usize, IndexEntry)>> {
        for layer in (0..self.count).take_while(|&layer| block < self.layers.shared(layer, 0)) {
            let entry = self.layers.get(layer).image.entry(block);
            if let Some(entry) = entry.map_err(|e| self.layers.in_layer(layer, e))? {
                return Ok(Some((layer, entry)));
            }
        }
        Ok(None)
    }

    /// Follows a PARENT entry of `layer` to what has the bytes, as far as that lies in the run.
    /// Each step goes to an older image.
    pub(crate) fn follow(&self, mut layer: usize, entry: &IndexEntry) -> ImageResult<Origin> {
        let len = self.layers.get(layer).image.geometry().block_len(entry.block);
        let mut block = entry.parent_block;
        loop {
            // Beyond the run the parent's state has the block with the same length.
            let lacks = self.layers.get(layer).image.lacks(block);
            let found = self.find(layer + 1, block)?;
            let below = found.map_or(self.count.min(self.layers.len() - 1), |(at, _)| at);
            if self.layers.get(below).image.geometry().block_len(block) != len {
                return Err(self.layers.in_layer(layer, lacks));
            }
            match found {
                None => return Ok(Origin::Parent(block)),
                Some((at, found)) => {
                    if found.has_leaf() && found.leaf != entry.leaf {
                        return Err(self.layers.in_layer(layer, lacks));
                    }
                    if found.kind != Kind::Parent {
                        return Ok(Origin::Entry(at, found));
                    }
                    (layer, block) = (at, found.parent_block);
                }
            }
        }
    }
}
