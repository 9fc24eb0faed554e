//! Log trees: what was synced since the last commit.
//!
//! Each subvolume with such files has a tree with copies of their items. Its blocks, and
//! extents that were written since the commit, are recorded nowhere else: the kernel records
//! them when it replays the log.

use aiv_volume_io::Extent;

use super::chunks::Chunks;
use super::extents::check_place;
use super::key::{Item, kind};
use super::reason::BtrfsReason;
use super::roots;
use super::superblock::{Root, Superblock};
use super::tree::{Tree, TreeReader};
use crate::bytes::le64;
use crate::stop::Stop;

/// Extents of data in log trees, and their blocks: 32 MiB of memory. A commit follows every half
/// minute, and a sync of many changes is one.
const EXTENTS_MAX: usize = 1 << 21;
/// `BTRFS_FILE_EXTENT_INLINE` and up to where its fields go.
const INLINE: u8 = 0;
const REGULAR: u8 = 1;
const PREALLOCATED: u8 = 2;
const FIXED_LEN: usize = 21;
const FULL_LEN: usize = 53;

/// What the log occupies, by logical address.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The blocks of its trees.
    pub(super) blocks: Vec<u64>,
    /// Extents of files; some are also in the extent tree.
    pub(super) data: Vec<Extent>,
}

impl Log {
    pub(super) fn read(
        reader: &mut TreeReader<'_>,
        superblock: &Superblock,
        chunks: &Chunks,
        root: Root,
    ) -> Result<Self, Stop> {
        let mut log = Self::default();
        let mut subvolumes = Vec::new();
        let blocks = reader.walk(chunks, Tree::LOG, root, &mut |item| {
            if item.key.kind != kind::ROOT_ITEM || item.key.object != Tree::LOG.owner {
                return Err(fault(item, "it has an unknown item among its roots"));
            }
            subvolumes.push(roots::parse(item, Tree::LOG, root.generation)?);
            bounded(subvolumes.len())
        })?;
        log.blocks.extend(blocks);
        for subvolume in subvolumes {
            let data = &mut log.data;
            let blocks = reader.walk(chunks, Tree::LOG, subvolume, &mut |item| {
                data.extend(extent_of(superblock, chunks, item)?);
                bounded(data.len())
            })?;
            log.blocks.extend(blocks);
        }
        log.blocks.sort_unstable();
        if let Some(pair) = log.blocks.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = "it is pointed to twice";
            return Err(BtrfsReason::Tree { tree: Tree::LOG.name, block: pair[0], what }.into());
        }
        Ok(log)
    }
}

fn fault(item: Item<'_>, what: &'static str) -> Stop {
    BtrfsReason::Tree { tree: Tree::LOG.name, block: item.leaf, what }.into()
}

fn bounded(len: usize) -> Result<(), Stop> {
    if len <= EXTENTS_MAX {
        return Ok(());
    }
    let (what, allowed) = ("extents in log trees", EXTENTS_MAX as u64);
    Err(BtrfsReason::TooMany { what, allowed }.into())
}

/// The space that an item of a log tree refers to.
fn extent_of(
    superblock: &Superblock,
    chunks: &Chunks,
    item: Item<'_>,
) -> Result<Option<Extent>, Stop> {
    if item.key.kind != kind::EXTENT_DATA {
        return Ok(None);
    }
    let data = item.data;
    if data.len() < FIXED_LEN {
        return Err(fault(item, "it has a file extent that is too short"));
    }
    match data[20] {
        INLINE => return Ok(None),
        REGULAR | PREALLOCATED if data.len() == FULL_LEN => {}
        _ => return Err(fault(item, "it has a file extent of an unknown kind")),
    }
    let extent = Extent::new(le64(data, 21), le64(data, 29));
    // A hole in the file.
    if extent.start == 0 {
        return Ok(None);
    }
    check_place(superblock, chunks, extent, false)?;
    Ok(Some(extent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WholeReason;

    #[test]
    fn more_extents_than_memory_is_set_aside_for() {
        bounded(EXTENTS_MAX).unwrap();
        let expected = BtrfsReason::TooMany { what: "extents in log trees", allowed: 1 << 21 };
        match bounded(EXTENTS_MAX + 1) {
            Err(Stop::Whole(reason)) => assert_eq!(reason, WholeReason::Btrfs(expected)),
            other => panic!("{other:?}"),
        }
    }
}
