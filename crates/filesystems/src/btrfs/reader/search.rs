//! Items of trees by their keys.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::Job;

use super::super::block::{Block, Expected};
use super::super::chunks::{Chunk, Chunks};
use super::super::key::{Item, Key, kind};
use super::super::superblock::{Root, Superblock};
use super::super::tree::Tree;
use crate::reader::VolumeOf;
use crate::stop::Stop;
use crate::{Error, Result, WholeReason};

/// Bytes of tree blocks that are kept, checked.
const KEPT_BYTES: usize = 8 << 20;

/// The trees of a filesystem.
pub(super) struct Trees<'v> {
    pub(super) volume: VolumeOf<'v>,
    pub(super) superblock: Superblock,
    pub(super) chunks: Chunks,
    kept: Mutex<Kept>,
}

/// Blocks by what their parent says of them: one that was checked for one parent is checked again
/// for another.
#[derive(Default)]
struct Kept {
    /// With the time of the last use.
    blocks: HashMap<Expected, (u64, Arc<Block>)>,
    now: u64,
}

/// What a reader of files says where a map would keep the whole volume.
pub(super) fn error(stop: impl Into<Stop>) -> Error {
    match stop.into() {
        Stop::Failed(error) => error,
        Stop::Whole(WholeReason::Btrfs(reason)) => Error::damaged(reason.to_string(), None),
        Stop::Whole(reason) => Error::damaged(reason.to_string(), None),
    }
}

impl<'v> Trees<'v> {
    /// Reads the chunks. Of those that are damaged only the contents are lost.
    pub(super) fn open(volume: VolumeOf<'v>, superblock: Superblock, job: Job<'_>) -> Result<Self> {
        let mut chunks = Chunks::of_any_superblock(&superblock).map_err(error)?;
        let kept = Mutex::default();
        let mut trees = Self { volume, superblock, chunks: Chunks::default(), kept };
        std::mem::swap(&mut trees.chunks, &mut chunks);
        let root = trees.superblock.chunk_root;
        let (from, to) = (Key::new(0, 0, 0), Key::new(u64::MAX, u8::MAX, u64::MAX));
        let mut found = Chunks::default();
        let read = trees.scan((Tree::CHUNK, root), from, to, job, &mut |item| {
            if item.key.kind == kind::CHUNK_ITEM {
                let chunk = Chunk::parse_any(item.key, item.data, &trees.superblock);
                // One that is not understood has no place.
                let _ = chunk.and_then(|chunk| found.push(chunk));
            }
            ControlFlow::Continue(())
        });
        match read {
            Err(failure) if found.list().is_empty() => return Err(failure),
            Err(canceled @ Error::Canceled(_)) => return Err(canceled),
            _ => trees.chunks = found,
        }
        Ok(trees)
    }

    /// A block of a tree, checked.
    fn block(&self, tree: Tree, root: Root, expected: Expected) -> Result<Arc<Block>> {
        if expected.generation > root.generation {
            let what = format!("a block of the {} tree is newer than its root", tree.name);
            return Err(Error::damaged(what, None));
        }
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.now += 1;
            let now = kept.now;
            if let Some((used, block)) = kept.blocks.get_mut(&expected) {
                *used = now;
                return Ok(block.clone());
            }
        }
        let mut block = Block::new(self.superblock.node_size);
        let (volume, superblock) = (&self.volume, &self.superblock);
        block.read(volume, superblock, &self.chunks, tree, expected).map_err(error)?;
        let block = Arc::new(block);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.blocks.len() >= KEPT_BYTES / self.superblock.node_size as usize {
            let oldest = kept.blocks.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = oldest.map(|(expected, _)| *expected);
            oldest.map(|oldest| kept.blocks.remove(&oldest));
        }
        let now = kept.now;
        kept.blocks.insert(expected, (now, block.clone()));
        Ok(block)
    }

    /// Hands the items of a tree to `take` whose keys are `from` to `to`, in order, until it
    /// breaks off.
    ///
    /// A block that cannot be read hides what is below it, and nothing else: its error comes
    /// last. As the keys of a block lie between those its parent has for it and for its
    /// neighbour, no block is met twice.
    pub(super) fn scan(
        &self,
        (tree, root): (Tree, Root),
        from: Key,
        to: Key,
        job: Job<'_>,
        take: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut failure = None;
        // Blocks from the root down, and the child of each that comes next.
        let mut path: Vec<(Arc<Block>, usize)> = Vec::new();
        let mut next = Some(of_root(root));
        while let Some(expected) = next {
            job.check()?;
            match self.block(tree, root, expected) {
                Err(failed) => failure = failure.or(Some(failed)),
                Ok(block) if block.level == 0 => {
                    for n in block.entries_below(from)..block.entries() {
                        let item = block.item(n);
                        if item.key > to {
                            return failure.map_or(Ok(()), Err);
                        }
                        if take(item).is_break() {
                            return Ok(());
                        }
                    }
                }
                Ok(block) => {
                    let child = child_around(&block, from);
                    path.push((block, child));
                }
            }
            next = None;
            while let Some((block, child)) = path.last_mut() {
                if *child < block.entries() && block.key(*child) <= to {
                    next = Some(block.child(*child));
                    *child += 1;
                    break;
                }
                path.pop();
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The data of the item of this key.
    pub(super) fn get(&self, tree: (Tree, Root), key: Key) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.scan(tree, key, key, Job::silent(), &mut |item| {
            found = Some(item.data.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The last key that is not greater than this one.
    pub(super) fn floor(&self, (tree, root): (Tree, Root), key: Key) -> Result<Option<Key>> {
        let mut expected = of_root(root);
        loop {
            let block = self.block(tree, root, expected)?;
            if block.level == 0 {
                let below = block.entries_below(key);
                let is_there = below < block.entries() && block.key(below) == key;
                let last = if is_there { Some(below) } else { below.checked_sub(1) };
                return Ok(last.map(|n| block.key(n)));
            }
            let child = child_around(&block, key);
            if block.key(child) > key {
                return Ok(None);
            }
            // Levels get less with each step.
            expected = block.child(child);
        }
    }
}

fn of_root(root: Root) -> Expected {
    let Root { logical, generation, level } = root;
    Expected { logical, generation, level, first: None, end: None }
}

/// The last child that begins with this key or before it, else the first.
fn child_around(block: &Block, key: Key) -> usize {
    let below = block.entries_below(key);
    let is_there = below < block.entries() && block.key(below) == key;
    if is_there { below } else { below.saturating_sub(1) }
}
