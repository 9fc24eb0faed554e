//! Reads what a merged image is made of: long rows of frames, each with one read, and the few
//! blocks that have to be stored anew.

use std::collections::HashSet;
use std::iter::Peekable;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use aiv_image_format::limits::CHECKPOINT_ENTRIES_MAX;
use aiv_image_format::{
    BlockIndex, Compression, DeltaBase, Digest, EncodedBlock, Encoder, Error as ImageError,
    IndexEntry, Kind, ParentState, RunKind, Scratch,
    hash::{self, ConstantLeaves},
};

use crate::layers::ImageResult;
use crate::merge::REMEMBERED_MAX;
use crate::merge::run::{Decision, Origin, Run};
use crate::reader::Blocks;
use crate::view::View;

/// Bytes of frames read at once: large enough for any disk to read at its full speed.
const CHUNK: u64 = 4 << 20;

/// Bytes of blocks in one batch that may have to be stored anew: bounds what is in memory while
/// they are.
const ANEW_MAX: u64 = 16 << 20;

/// Blocks, or runs of them, in one batch.
const ITEMS_MAX: usize = 8192;
const _: () = assert!(ITEMS_MAX <= CHECKPOINT_ENTRIES_MAX);

/// What one block, or a run of blocks, becomes.
pub(super) enum Item {
    /// The next frame of the batch, as it is, and its size.
    Frame(IndexEntry, u64),
    Run(RunKind, u64),
    Inherited(u64),
    Parent(BlockIndex, Digest),
    /// A frame of that layer, which may have been copied before; the entry names it as REF.
    Stored(usize, IndexEntry),
    /// Being stored anew. A frame of the batch may lie there that is of no use any more.
    Anew(Receiver<ImageResult<EncodedBlock>>),
}

/// Consecutive blocks, and the frames of one image that some of them need.
pub(super) struct Batch {
    pub layer: usize,
    /// Where the bytes lie in the file of that image.
    pub first: u64,
    /// These bytes are the beginning of it.
    pub memory: Vec<u8>,
    len: usize,
    pub items: Vec<Item>,
}

impl Batch {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

/// A block that cannot be copied, by the entry of the layer that decides it.
pub(super) struct Anew {
    layer: usize,
    entry: IndexEntry,
    done: SyncSender<ImageResult<EncodedBlock>>,
}

pub(super) struct Gather<'r, I: Iterator<Item = ImageResult<Decision>>> {
    run: &'r Run<'r>,
    parent: Option<&'r View>,
    decisions: Peekable<I>,
    /// Has a block stored anew, by another thread: nobody waits for it before its turn comes.
    spawn: &'r dyn Fn(Anew),
    constants: ConstantLeaves,
    /// Frames that a block other than their own was the first to need.
    referred: HashSet<(usize, u64)>,
}

impl<'r, I: Iterator<Item = ImageResult<Decision>>> Gather<'r, I> {
    pub(super) fn new(
        run: &'r Run<'r>,
        parent: Option<&'r View>,
        decisions: I,
        spawn: &'r dyn Fn(Anew),
    ) -> Self {
        let constants = ConstantLeaves::new(*run.layers.top().geometry());
        let (decisions, referred) = (decisions.peekable(), HashSet::new());
        Self { run, parent, decisions, spawn, constants, referred }
    }

    /// The next blocks; `None` after the last one. `memory` is working memory for them.
    pub(super) fn next(&mut self, memory: Vec<u8>) -> ImageResult<Option<Batch>> {
        let mut batch = Batch { layer: 0, first: 0, memory, len: 0, items: Vec::new() };
        let (mut len, mut anew_len) = (0, 0);
        while batch.items.len() < ITEMS_MAX {
            let decision = match self.decisions.peek() {
                None => break,
                Some(Ok(decision)) => *decision,
                Some(Err(_)) => match self.decisions.next() {
                    Some(Err(error)) => return Err(error),
                    _ => break,
                },
            };
            let at = batch.items.len();
            if let Some((_, entry)) = decision.by
                && matches!(entry.kind, Kind::Delta | Kind::Local | Kind::Parent)
            {
                anew_len += u64::from(self.run.layers.top().geometry().block_len(entry.block));
                if at > 0 && anew_len > ANEW_MAX {
                    break;
                }
            }
            let item = match decision.by {
                None => Item::Inherited(decision.end - decision.start),
                Some((layer, entry)) => match self.simple(layer, &entry)? {
                    Simple::Item(item) => item,
                    Simple::Anew => self.anew(layer, &entry),
                    Simple::Frame => {
                        let image = &self.run.layers.get(layer).image;
                        let in_layer = |e| self.run.layers.in_layer(layer, e);
                        let size = image.frame_size(&entry).map_err(in_layer)?;
                        if len == 0 {
                            (batch.layer, batch.first) = (layer, entry.address);
                        } else if layer != batch.layer
                            || entry.address != batch.first + len
                            || len + size > CHUNK
                        {
                            break;
                        }
                        len += size;
                        Item::Frame(entry, size)
                    }
                },
            };
            self.decisions.next();
            batch.items.push(item);
        }
        if batch.items.is_empty() {
            return Ok(None);
        }
        self.read(&mut batch, len)?;
        for at in self.find_stranded(&batch)? {
            if let Item::Frame(entry, _) = &batch.items[at] {
                batch.items[at] = self.anew(batch.layer, entry);
            }
        }
        Ok(Some(batch))
    }

    /// Has a block stored anew.
    fn anew(&self, layer: usize, entry: &IndexEntry) -> Item {
        let (done, encoded) = sync_channel(1);
        (self.spawn)(Anew { layer, entry: *entry, done });
        Item::Anew(encoded)
    }

    fn simple(&mut self, layer: usize, entry: &IndexEntry) -> ImageResult<Simple> {
        let stored = |gather: &mut Self, layer, found: &IndexEntry| {
            if gather.referred.len() < REMEMBERED_MAX {
                gather.referred.insert((layer, found.address));
            }
            Simple::Item(Item::Stored(
                layer,
                IndexEntry { block: entry.block, kind: Kind::Ref, ..*found },
            ))
        };
        Ok(match entry.kind {
            Kind::Data if self.referred.contains(&(layer, entry.address)) => {
                stored(self, layer, entry)
            }
            Kind::Ref => stored(self, layer, entry),
            Kind::Data | Kind::Delta | Kind::Local => Simple::Frame,
            Kind::Unreadable if entry.has_frame() => Simple::Frame,
            Kind::Zero => Simple::Item(Item::Run(RunKind::Zero, entry.run)),
            Kind::Unused => Simple::Item(Item::Run(RunKind::Unused, entry.run)),
            Kind::Excluded => Simple::Item(Item::Run(RunKind::Excluded, entry.run)),
            Kind::Unreadable => Simple::Item(Item::Run(RunKind::Unreadable, entry.run)),
            Kind::Parent => match self.run.follow(layer, entry)? {
                Origin::Parent(block) => {
                    self.check_parent(layer, entry, block)?;
                    Simple::Item(Item::Parent(block, entry.leaf))
                }
                Origin::Entry(from, found) => match found.kind {
                    Kind::Data | Kind::Ref => stored(self, from, &found),
                    Kind::Zero | Kind::Unused | Kind::Excluded => {
                        Simple::Item(Item::Run(RunKind::Zero, 1))
                    }
                    Kind::Delta | Kind::Local | Kind::Unreadable | Kind::Parent => Simple::Anew,
                },
            },
        })
    }

    /// Refuses a copy of a block of the parent's state that has other bytes there.
    fn check_parent(&self, layer: usize, entry: &IndexEntry, block: BlockIndex) -> ImageResult<()> {
        if self.leaf_in_parent(block)? == Some(entry.leaf) {
            return Ok(());
        }
        let lacks = self.run.layers.get(layer).image.lacks(entry.block);
        Err(self.run.layers.in_layer(layer, lacks))
    }

    /// The leaf of a block of the state the run builds on.
    fn leaf_in_parent(&self, block: BlockIndex) -> ImageResult<Option<Digest>> {
        let Some(parent) = self.parent.filter(|parent| block < parent.geometry().blocks()) else {
            return Ok(None);
        };
        let entry = *parent.find(block).map_err(|e| parent.as_parent(e))?.entry();
        if entry.has_leaf() {
            return Ok(Some(entry.leaf));
        }
        let old = *parent.geometry();
        if old.len() == self.run.layers.top().geometry().len() {
            return Ok(Some(self.constants.of(block, entry.kind)));
        }
        Ok(Some(ConstantLeaves::new(old).of(block, entry.kind)))
    }

    fn read(&self, batch: &mut Batch, len: u64) -> ImageResult<()> {
        let len = usize::try_from(len).map_err(|_| ImageError::Misuse("a huge frame"))?;
        batch.len = len;
        if len == 0 {
            return Ok(());
        }
        if batch.memory.len() < len {
            batch.memory = vec![0; len];
        }
        let image = &self.run.layers.get(batch.layer).image;
        image.file().read_exact_at(&mut batch.memory[..len], batch.first).map_err(|source| {
            let error = ImageError::Io { op: "read frames", offset: batch.first, source };
            self.run.layers.in_layer(batch.layer, error)
        })
    }

    /// Finds the differences among the frames that have lost their base, by their place.
    fn find_stranded(&self, batch: &Batch) -> ImageResult<Vec<usize>> {
        let mut stranded = Vec::new();
        let mut from = 0;
        for (at, item) in batch.items.iter().enumerate() {
            let Item::Frame(entry, size) = item else { continue };
            let frame = &batch.bytes()[from..];
            // Bounded by the bytes that were read.
            from += usize::try_from(*size).map_err(|_| ImageError::Misuse("a huge frame"))?;
            let is_fine = match entry.kind {
                Kind::Delta => self.keeps_base(batch.layer, entry, frame)?,
                Kind::Local => self.keeps_own_bases(batch.layer, entry, frame)?,
                _ => true,
            };
            if !is_fine {
                stranded.push(at);
            }
        }
        Ok(stranded)
    }

    /// Whether the base of a difference is in the state the merged image builds on, with the
    /// same bytes and not deeper than the frame allows.
    fn keeps_base(&self, layer: usize, entry: &IndexEntry, frame: &[u8]) -> ImageResult<bool> {
        let in_layer = |e| self.run.layers.in_layer(layer, e);
        let image = &self.run.layers.get(layer).image;
        let head = image.delta_head(&mut Scratch::default(), frame, entry).map_err(in_layer)?;
        if self.run.find(layer + 1, head.base_block)?.is_none() {
            // No image of the run has touched it.
            return Ok(true);
        }
        let Some(parent) = self.parent else { return Ok(false) };
        let len = self.run.layers.top().geometry().block_len(entry.block);
        if parent.geometry().block_len(head.base_block) != len
            || self.leaf_in_parent(head.base_block)? != Some(head.base_leaf)
        {
            return Ok(false);
        }
        let mut bytes = vec![0; len as usize];
        Ok(ParentState::read(parent, head.base_block, &mut bytes)? < head.depth)
    }

    /// Whether the merged image has every base of a difference to blocks of its own image, with
    /// the same bytes and stored whole.
    fn keeps_own_bases(&self, layer: usize, entry: &IndexEntry, frame: &[u8]) -> ImageResult<bool> {
        let in_layer = |e| self.run.layers.in_layer(layer, e);
        let image = &self.run.layers.get(layer).image;
        let head = image.local_head(&mut Scratch::default(), frame, entry).map_err(in_layer)?;
        for base in head.bases() {
            let found = self.run.decides(base.block)?;
            if !found.is_some_and(|(_, found)| found.is_whole() && found.leaf == base.leaf) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

enum Simple {
    Item(Item),
    /// Its frame is copied, unless it is a difference that has lost a base.
    Frame,
    Anew,
}

/// Stores blocks anew.
pub(super) struct Storing<'r> {
    run: &'r Run<'r>,
    parent: Option<&'r View>,
    compression: Compression,
    /// Working memory that nobody uses now: making it takes as long as storing a block.
    spare: Mutex<Vec<(Blocks, Encoder)>>,
}

impl<'r> Storing<'r> {
    pub(super) fn new(
        run: &'r Run<'r>,
        parent: Option<&'r View>,
        compression: Compression,
    ) -> Self {
        Self { run, parent, compression, spare: Mutex::default() }
    }

    /// Stores one, and gives it to whoever waits for it.
    pub(super) fn store(&self, anew: &Anew) {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = spare().pop();
        let new = || (Blocks::default(), Encoder::new(self.compression, true));
        let (mut blocks, mut encoder) = worker.unwrap_or_else(new);
        // Nobody waits for it when the merge was given up.
        let _ = anew.done.send(self.one(&mut blocks, &mut encoder, anew));
        spare().push((blocks, encoder));
    }

    fn one(
        &self,
        blocks: &mut Blocks,
        encoder: &mut Encoder,
        Anew { layer, entry, .. }: &Anew,
    ) -> ImageResult<EncodedBlock> {
        let layers = self.run.layers;
        let block = entry.block;
        let len = layers.top().geometry().block_len(block);
        let mut bytes = vec![0; len as usize];
        let depth = blocks.read(layers, (*layer, *entry), block, &mut bytes)?;
        let leaf = hash::leaf(&bytes);
        let same = self.parent.filter(|parent| parent.geometry().block_len(block) == len);
        if let Some(parent) = same.filter(|_| depth > 0)
            && let Some(base_leaf) = parent.find(block).map_err(|e| parent.as_parent(e))?.leaf()
        {
            let mut old = vec![0; len as usize];
            let base_depth = ParentState::read(parent, block, &mut old)?;
            // Images that build on this point count from the depth the block has, and others are
            // read on top of the images that are merged here: it must not become more, and is
            // stated even where it becomes less.
            if base_depth < depth {
                let base = DeltaBase { block, leaf: base_leaf, depth: base_depth, bytes: &old };
                let encoded = encoder.encode_against(&bytes, leaf, &base)?;
                return Ok(encoded.standing_for(depth));
            }
        }
        Ok(encoder.encode(&bytes, leaf)?.standing_for(depth))
    }
}
