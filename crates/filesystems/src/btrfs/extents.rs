//! The extent tree: every extent of data and every tree block, by logical address; and the
//! block groups, which say what they add up to.

use aiv_volume_io::{Extent, ExtentSet};

use super::chunks::{Chunk, Chunks};
use super::key::{Item, kind};
use super::reason::BtrfsReason;
use super::superblock::Superblock;
use super::tree::Tree;
use crate::bitmap::Bitmap;
use crate::bytes::le64;
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;

const CHUNK_OBJECT: u64 = 256;
const GROUP_LEN: usize = 24;
const EXTENT_LEN: usize = 24;
/// Key and level of a tree block, where its item does not have them in its key.
const TREE_BLOCK_INFO_LEN: usize = 18;
const FLAG_DATA: u64 = 1;
const FLAG_TREE_BLOCK: u64 = 2;

/// What is known of the space of a chunk.
#[derive(Debug, Clone, Default)]
struct Usage {
    /// Sum of its extents.
    counted: u64,
    /// By its block group.
    recorded: Option<u64>,
    /// Sectors in which tree blocks begin; nothing until there is one.
    tree_blocks: Option<Bitmap>,
}

/// Takes the items of the extent tree and of the block-group tree.
pub(super) struct ExtentTree<'a> {
    superblock: &'a Superblock,
    chunks: &'a Chunks,
    /// One for each chunk.
    usage: Vec<Usage>,
    used: RunCollector,
    last: Extent,
}

/// What the extent tree proves.
pub(super) struct Extents<'a> {
    superblock: &'a Superblock,
    chunks: &'a Chunks,
    usage: Vec<Usage>,
    /// Logical addresses in use.
    pub(super) used: ExtentSet,
}

impl<'a> ExtentTree<'a> {
    pub(super) fn new(superblock: &'a Superblock, chunks: &'a Chunks) -> Self {
        let usage = vec![Usage::default(); chunks.list().len()];
        let used = RunCollector::new(RUNS_MAX);
        Self { superblock, chunks, usage, used, last: Extent::new(0, 0) }
    }

    /// An item of the extent tree.
    pub(super) fn take(&mut self, item: Item<'_>) -> Result<(), Stop> {
        let block_groups_here = !self.superblock.features.block_group_tree;
        match item.key.kind {
            kind::EXTENT_ITEM | kind::METADATA_ITEM => Ok(self.take_extent(item)?),
            kind::BLOCK_GROUP_ITEM if block_groups_here => self.take_group(Tree::EXTENT, item),
            kind::TREE_BLOCK_REF
            | kind::EXTENT_DATA_REF
            | kind::SHARED_BLOCK_REF
            | kind::SHARED_DATA_REF
                if item.key.object == self.last.start && !self.last.is_empty() =>
            {
                Ok(())
            }
            _ => {
                let what = "it has an item that is unknown, or has no extent";
                Err(BtrfsReason::Tree { tree: Tree::EXTENT.name, block: item.leaf, what }.into())
            }
        }
    }

    /// An item of the extent tree, or of the block-group tree, about a block group.
    pub(super) fn take_group(&mut self, tree: Tree, item: Item<'_>) -> Result<(), Stop> {
        let Item { key, data, leaf: block } = item;
        let fault = |what| BtrfsReason::Tree { tree: tree.name, block, what };
        if key.kind != kind::BLOCK_GROUP_ITEM {
            return Err(fault("it has an unknown item").into());
        }
        if data.len() != GROUP_LEN || le64(data, 8) != CHUNK_OBJECT {
            return Err(fault("it has a block group that is malformed").into());
        }
        let (used, flags) = (le64(data, 0), le64(data, 16));
        let chunk = self.chunks.starting_at(key.object).filter(|&n| {
            let chunk = &self.chunks.list()[n];
            chunk.len == key.offset && chunk.flags == flags
        });
        let place = chunk.map(|n| &mut self.usage[n].recorded);
        let Some(place @ None) = place else {
            return Err(fault("it has a block group that is no chunk's, or twice").into());
        };
        *place = Some(used);
        Ok(())
    }

    fn take_extent(&mut self, item: Item<'_>) -> Result<(), BtrfsReason> {
        let Item { key, data, .. } = item;
        let node_size = u64::from(self.superblock.node_size);
        let fault = |what| BtrfsReason::Extent { logical: key.object, what };
        let skinny = key.kind == kind::METADATA_ITEM;
        let extent = Extent::new(key.object, if skinny { node_size } else { key.offset });
        if data.len() < EXTENT_LEN {
            return Err(fault("its item is too short"));
        }
        if le64(data, 8) > self.superblock.generation {
            return Err(fault("it is of a commit to come"));
        }
        let is_tree_block = match le64(data, 16) & (FLAG_DATA | FLAG_TREE_BLOCK) {
            FLAG_DATA if !skinny => false,
            FLAG_TREE_BLOCK => true,
            _ => return Err(fault("it is neither of data nor a tree block")),
        };
        let info_len = if is_tree_block && !skinny { TREE_BLOCK_INFO_LEN } else { 0 };
        if data.len() < EXTENT_LEN + info_len {
            return Err(fault("its item is too short"));
        }
        if is_tree_block && extent.len != node_size {
            return Err(fault("it is not as long as a tree block"));
        }
        let n = check_place(self.superblock, self.chunks, extent, is_tree_block)?;
        if extent.start < self.last.end() {
            return Err(fault("it overlaps the one before"));
        }
        let chunk = &self.chunks.list()[n];
        let usage = &mut self.usage[n];
        usage.counted += extent.len;
        if is_tree_block {
            let sectors = sector_in(self.superblock, chunk, chunk.extent().end())
                .ok_or_else(|| fault("its chunk is too large"))?;
            let tree_blocks = usage.tree_blocks.get_or_insert_with(|| Bitmap::empty(sectors));
            let sector = sector_in(self.superblock, chunk, extent.start);
            tree_blocks.set(sector.map_or(0..0, |sector| sector..sector + 1));
        }
        self.last = extent;
        self.used.push(extent);
        Ok(())
    }

    /// The extents, when they add up to what block groups and superblock say.
    pub(super) fn finish(self) -> Result<Extents<'a>, BtrfsReason> {
        let Self { superblock, chunks, usage, used, .. } = self;
        let mut total = 0;
        for (chunk, usage) in chunks.list().iter().zip(&usage) {
            let logical = chunk.logical;
            let Some(recorded) = usage.recorded else {
                return Err(BtrfsReason::Chunk { logical, what: "it has no block group" });
            };
            let found = usage.counted;
            if recorded != found {
                let what = format!("use of the block group at logical byte {logical}");
                return Err(BtrfsReason::Count { what, recorded, found });
            }
            // Extents lie in chunks, and those lie on the device.
            total += found;
        }
        let (recorded, found) = (superblock.bytes_used, total);
        if recorded != found {
            let what = "use of the filesystem".to_owned();
            return Err(BtrfsReason::Count { what, recorded, found });
        }
        Ok(Extents { superblock, chunks, usage, used: used.finish() })
    }
}

impl Extents<'_> {
    /// Whether a tree block of the extent tree begins there.
    pub(super) fn has_tree_block(&self, logical: u64) -> bool {
        let Some((n, chunk)) = self.chunks.around(Extent::new(logical, 1)) else { return false };
        let sector_size = u64::from(self.superblock.sector_size);
        let sector = sector_in(self.superblock, chunk, logical);
        match (&self.usage[n].tree_blocks, sector) {
            (Some(tree_blocks), Some(sector)) if logical.is_multiple_of(sector_size) => {
                tree_blocks.is_set(sector)
            }
            _ => false,
        }
    }

    /// Whether an extent touches `space`. Never, when there are more runs than are held exactly.
    pub(super) fn occupy(&self, space: Extent) -> bool {
        self.used.runs().len() < RUNS_MAX / 2 && self.used.within(space).next().is_some()
    }

    /// Bytes of the chunk with this number that no extent occupies.
    pub(super) fn free_in(&self, chunk: usize) -> u64 {
        // Extents lie in it and do not overlap.
        self.chunks.list()[chunk].len - self.usage[chunk].counted
    }

    /// Blocks of a committed state that were read, or are the roots of others, are part of it.
    pub(super) fn check_has(&self, tree: &'static str, blocks: &[u64]) -> Result<(), BtrfsReason> {
        match blocks.iter().find(|&&block| !self.has_tree_block(block)) {
            Some(&block) => Err(BtrfsReason::NotInExtentTree { tree, block }),
            None => Ok(()),
        }
    }
}

/// The sector of a chunk at `logical`, inside it or at its end.
fn sector_in(superblock: &Superblock, chunk: &Chunk, logical: u64) -> Option<u32> {
    u32::try_from((logical - chunk.logical) / u64::from(superblock.sector_size)).ok()
}

/// An extent consists of sectors, lies in one chunk of its kind, and not on a superblock.
/// Returns the number of the chunk.
pub(super) fn check_place(
    superblock: &Superblock,
    chunks: &Chunks,
    extent: Extent,
    is_tree_block: bool,
) -> Result<usize, BtrfsReason> {
    let fault = |what| BtrfsReason::Extent { logical: extent.start, what };
    let sector_size = u64::from(superblock.sector_size);
    if extent.is_empty()
        || !extent.start.is_multiple_of(sector_size)
        || !extent.len.is_multiple_of(sector_size)
    {
        return Err(fault("it does not consist of sectors"));
    }
    let Some((n, chunk)) = chunks.around(extent) else {
        return Err(fault("it does not lie in one chunk"));
    };
    let right = if is_tree_block { chunk.holds_tree_blocks() } else { chunk.holds_data() };
    if !right {
        return Err(fault("it lies in a chunk of another kind"));
    }
    let on_superblock = chunk
        .places_of(extent)
        .any(|place| superblock.places().any(|other| place.intersect(other).is_some()));
    if on_superblock {
        return Err(fault("it lies on a superblock"));
    }
    Ok(n)
}
