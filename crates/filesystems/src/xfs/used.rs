//! From free extents to used bytes.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::group::Group;
use super::log::{self, LogEnd};
use super::reason::XfsReason;
use super::superblock::Superblock;
use super::tree::{FreeExtent, Limits, Order, Tree, TreeReader};
use crate::UsedMap;
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    job.check()?;
    let superblock = Superblock::read(volume)?;
    let geometry = &superblock.geometry;
    let end = log::check_is_empty(volume, geometry, &superblock.uuid)?;
    let mut runs = RunCollector::new(RUNS_MAX);
    let mut free_blocks = 0;
    for index in 0..geometry.groups {
        job.check()?;
        let free = FreeSpace::read(volume, &superblock, index, job)?;
        free_blocks += free.counted;
        let mut used_from = 0;
        for extent in &free.extents {
            runs.push(Extent::between(
                geometry.offset_of(index, used_from),
                geometry.offset_of(index, extent.start),
            ));
            used_from = extent.start + extent.blocks;
        }
        runs.push(Extent::between(
            geometry.offset_of(index, used_from),
            geometry.offset_of(index, geometry.blocks_of(index)),
        ));
    }
    // As long as it is mounted, what groups may still need for their trees is taken off the count
    // in the superblock, and nothing is ever added to it.
    let is_right = match end {
        LogEnd::Covered if superblock.features.lazy_counts => superblock.free_blocks <= free_blocks,
        LogEnd::Covered | LogEnd::Unmounted => superblock.free_blocks == free_blocks,
    };
    if !is_right {
        let superblock = superblock.free_blocks;
        return Err(XfsReason::GlobalCount { superblock, groups: free_blocks }.into());
    }
    runs.push(Extent::between(geometry.filesystem_len(), volume.len()));
    Ok(UsedMap::Used { used: runs.finish(), cluster_size: geometry.block_size, notes: Vec::new() })
}

/// The free space of a group, proven by everything that says something about it.
struct FreeSpace {
    /// By block.
    extents: Vec<FreeExtent>,
    /// What the superblock's count has for this group: blocks of trees that only exist to
    /// describe free space count as free, and so do those set aside for them, except the roots,
    /// which are always there (`xfs_initialize_perag_data`).
    counted: u64,
}

impl FreeSpace {
    fn read(
        volume: &dyn ReadAt,
        superblock: &Superblock,
        index: u32,
        job: Job<'_>,
    ) -> Result<Self, Stop> {
        let group = Group::read(volume, superblock, index)?;
        let reader = |order| TreeReader {
            volume,
            superblock,
            group: index,
            order,
            limits: Limits::DEFAULT,
            job,
        };
        let by_block = reader(Order::Block).read(group.by_block)?;
        let by_size = reader(Order::Size).read(group.by_size)?;
        check_same(index, &by_block, &by_size)?;
        let free: u64 = by_block.extents.iter().map(|extent| u64::from(extent.blocks)).sum();
        let longest = by_size.extents.last().map_or(0, |extent| extent.blocks);
        let below_roots = [&by_block, &by_size].map(|tree| tree.blocks.len() as u64 - 1);
        let tree_blocks =
            below_roots[0] + below_roots[1] + u64::from(group.rmap_blocks.saturating_sub(1));
        // Nobody needed this count before version 5 without lazy counts.
        let lazy_counts = superblock.features.lazy_counts;
        let counted_blocks = if lazy_counts { u64::from(group.tree_blocks) } else { tree_blocks };
        for (field, header, tree) in [
            ("agf_freeblks", group.free_blocks.into(), free),
            ("agf_longest", group.longest.into(), longest.into()),
            ("agf_btreeblks", counted_blocks, tree_blocks),
        ] {
            if header != tree {
                return Err(XfsReason::Count { group: index, field, header, tree }.into());
            }
        }
        check_metadata(superblock, &group, &by_block, &by_size)?;
        let counted = free + tree_blocks + group.set_aside.len() as u64;
        Ok(Self { extents: by_block.extents, counted })
    }
}

/// Both trees name the same extents. Within each, every extent occurs once.
fn check_same(group: u32, by_block: &Tree, by_size: &Tree) -> Result<(), XfsReason> {
    let known = |extent: &FreeExtent| {
        by_block
            .extents
            .binary_search_by_key(&extent.start, |other| other.start)
            .is_ok_and(|n| by_block.extents[n] == *extent)
    };
    if by_block.extents.len() == by_size.extents.len() && by_size.extents.iter().all(known) {
        Ok(())
    } else {
        Err(XfsReason::TreesDisagree { group })
    }
}

/// What is in use for certain has one owner, and no free extent touches it.
fn check_metadata(
    superblock: &Superblock,
    group: &Group,
    by_block: &Tree,
    by_size: &Tree,
) -> Result<(), XfsReason> {
    let geometry = &superblock.geometry;
    let fault = |block, what| XfsReason::Metadata { group: group.index, block, what };
    let mut owned = vec![(0, geometry.header_blocks())];
    if geometry.log.group == group.index {
        owned.push((geometry.log.block, geometry.log.blocks));
    }
    if geometry.root_inode.0 == group.index {
        owned.push((geometry.root_inode.1, 1));
    }
    let roots: Vec<u32> = group.other_trees.iter().map(|(_, root)| root.block).collect();
    let singles = [&by_block.blocks, &by_size.blocks, &group.set_aside, &roots];
    owned.extend(singles.into_iter().flatten().map(|&block| (block, 1)));
    owned.sort_unstable();
    if let Some(pair) = owned.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        return Err(fault(pair[1].0, "used for two purposes"));
    }
    for (start, blocks) in owned {
        let after = by_block.extents.partition_point(|free| free.start < start + blocks);
        let last = after.checked_sub(1).map(|n| by_block.extents[n]);
        if last.is_some_and(|free| free.start + free.blocks > start) {
            return Err(fault(start, "in use by the filesystem itself, but called free"));
        }
    }
    Ok(())
}
