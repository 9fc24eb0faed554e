//! From extents to used bytes of the device.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::chunks::{ChunkTree, Chunks};
use super::device::{DeviceTree, Piece};
use super::extents::{ExtentTree, Extents};
use super::free_space::FreeSpaceTree;
use super::log::Log;
use super::reason::BtrfsReason;
use super::roots::Roots;
use super::superblock::{RESERVED, Superblock};
use super::tree::{Tree, TreeReader};
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{MapNote, UsedMap};

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    job.check()?;
    let superblock = &Superblock::read(volume)?;
    let mut reader = TreeReader::new(volume, superblock, job);
    // Blocks that were read, which the extent tree must have.
    let mut visited = Vec::new();

    let (chunks, blocks) = read_chunks(&mut reader, superblock)?;
    visited.push((Tree::CHUNK, blocks));
    let chunks = &chunks;

    let (tree, root) = (Tree::ROOT, superblock.root);
    let mut roots = Roots::default();
    let blocks = reader.walk(chunks, tree, root, &mut |item| roots.take(superblock, item))?;
    visited.push((tree, blocks));

    let (tree, root) = (Tree::DEVICE, roots.device()?);
    let mut device = DeviceTree::new(superblock, chunks);
    let blocks = reader.walk(chunks, tree, root, &mut |item| device.take(item))?;
    visited.push((tree, blocks));
    let pieces = device.finish()?;

    let mut extents = ExtentTree::new(superblock, chunks);
    if let Some(root) = roots.block_group(superblock)? {
        let tree = Tree::BLOCK_GROUP;
        let blocks = reader.walk(chunks, tree, root, &mut |item| extents.take_group(tree, item))?;
        visited.push((tree, blocks));
    }
    let (tree, root) = (Tree::EXTENT, roots.extent()?);
    let blocks = reader.walk(chunks, tree, root, &mut |item| extents.take(item))?;
    visited.push((tree, blocks));
    let extents = extents.finish()?;
    if let Some(root) = roots.free_space(superblock)? {
        let tree = Tree::FREE_SPACE;
        let mut free = FreeSpaceTree::new(superblock, chunks, &extents);
        let blocks = reader.walk(chunks, tree, root, &mut |item| free.take(item))?;
        visited.push((tree, blocks));
        free.finish()?;
    }
    for (tree, blocks) in visited {
        extents.check_has(tree.block_name, &blocks)?;
    }
    extents.check_has("root of a tree", &roots.blocks)?;

    let log = match superblock.log_root {
        Some(root) => Log::read(&mut reader, superblock, chunks, root)?,
        None => Log::default(),
    };
    let log_pending = superblock.log_root.is_some();
    let logged = logged(superblock, &extents, log)?;
    let logical = union(extents.used.runs().iter(), logged.runs().iter());
    drop(extents);
    let physical = on_device(chunks, &pieces, &logical);
    drop(logical);

    let mut kept = vec![Extent::new(0, RESERVED)];
    kept.extend(superblock.places());
    kept.push(Extent::between(superblock.end(), volume.len()));
    let kept: ExtentSet = kept.into_iter().collect();
    let used = union(physical.runs().iter(), kept.runs().iter());
    let notes = notes(superblock, log_pending, reader.damaged_copies);
    Ok(UsedMap::Used { used, cluster_size: superblock.sector_size, notes })
}

/// All chunks, and the blocks of their tree.
pub(super) fn read_chunks(
    reader: &mut TreeReader<'_>,
    superblock: &Superblock,
) -> Result<(Chunks, Vec<u64>), Stop> {
    let bootstrap = Chunks::of_superblock(superblock)?;
    let mut tree = ChunkTree::new(superblock);
    let root = superblock.chunk_root;
    let blocks = reader.walk(&bootstrap, Tree::CHUNK, root, &mut |item| tree.take(item))?;
    Ok((tree.finish(&bootstrap)?, blocks))
}

fn notes(superblock: &Superblock, log_pending: bool, damaged_copies: u64) -> Vec<MapNote> {
    let mut notes = Vec::new();
    if log_pending {
        notes.push(MapNote::LogPending);
    }
    if damaged_copies > 0 {
        notes.push(MapNote::DamagedCopies { blocks: damaged_copies });
    }
    if superblock.copies_differ {
        notes.push(MapNote::SuperblockCopiesDiffer);
    }
    notes
}

/// What only the log refers to. Its blocks are nobody else's.
fn logged(superblock: &Superblock, extents: &Extents<'_>, log: Log) -> Result<ExtentSet, Stop> {
    let node_size = u64::from(superblock.node_size);
    if let Some(&block) = log.blocks.iter().find(|&&block| extents.has_tree_block(block)) {
        let what = "it is also in the extent tree";
        return Err(BtrfsReason::Tree { tree: Tree::LOG.name, block, what }.into());
    }
    let blocks = log.blocks.into_iter().map(|block| Extent::new(block, node_size));
    Ok(blocks.chain(log.data).collect())
}

/// Both sets, whose runs are ascending.
fn union<'a>(
    a: impl Iterator<Item = &'a Extent>,
    b: impl Iterator<Item = &'a Extent>,
) -> ExtentSet {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let mut runs = RunCollector::new(RUNS_MAX);
    loop {
        let from_a = match (a.peek(), b.peek()) {
            (Some(a), Some(b)) => a.start <= b.start,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return runs.finish(),
        };
        if let Some(&run) = if from_a { a.next() } else { b.next() } {
            runs.push(run);
        }
    }
}

/// Where the used part of each chunk lies, front to back.
fn on_device(chunks: &Chunks, pieces: &[Piece], logical: &ExtentSet) -> ExtentSet {
    let mut runs = RunCollector::new(RUNS_MAX);
    for piece in pieces {
        let chunk = chunks.list()[piece.chunk].extent();
        for run in logical.within(chunk) {
            runs.push(Extent::new(piece.place.start + (run.start - chunk.start), run.len));
        }
    }
    runs.finish()
}
