//! A name found by its hash.
//!
//! A folder of one block keeps its hashes behind its names. Larger ones keep them in blocks of
//! their own, 32 GiB behind the names: a leaf, or a B+tree of nodes over leaves. Whatever is
//! wrong with them makes a search fail; the names themselves are searched then.
//!
//! Facts: `xfs_da_format.h`, `struct xfs_da_blkinfo`, `xfs_da_node_entry`, `xfs_dir2_leaf_entry`;
//! `xfs_da_hashname` of `xfs_da_btree.c`.

use super::folder::Folder;
use super::fork::Fork;
use super::layout::{At, INDEX_AT, Layout, Proof};
use super::names::{HASH_LEN, Name, NameBlock};
use crate::bytes::{be16, be32};
use crate::reader::Entry;
use crate::{Error, Result};

/// `XFS_DA_NODE_MAXDEPTH`.
pub(super) const LEVELS_MAX: u16 = 5;
/// Names of one hash that are looked at, and leaves they are in; else all names are searched.
const CANDIDATES_MAX: usize = 256;
const LEAVES_MAX: usize = 16;
/// Magics of nodes, versions 4 and 5.
pub(super) const NODE: [u16; 2] = [0xfebe, 0x3ebe];
const LEAF_ONLY: [u16; 2] = [0xd2f1, 0x3df1];
const LEAF: [u16; 2] = [0xd2ff, 0x3dff];

/// The hash of a name.
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| u32::from(byte) ^ hash.rotate_left(7))
}

/// A letter of ISO 8859-1 as `asciici` compares it (`xfs_ascii_ci_xfrm`).
pub(super) fn lower(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + (b'a' - b'A'),
        _ => byte,
    }
}

/// Number of entries in a block of an index, and where they begin.
pub(super) fn entries_of(
    layout: &Layout<'_>,
    block: &[u8],
    magics: &[[u16; 2]],
) -> Option<(usize, usize)> {
    let is_5 = layout.shape.self_describing;
    let magic = be16(block, 8);
    let is_known = magics.iter().any(|pair| pair[usize::from(is_5)] == magic);
    let (count_at, start) = if is_5 { (56, 64) } else { (12, 16) };
    is_known.then(|| (be16(block, count_at).into(), start))
}

/// The entries of a block, of eight bytes each: a hash, and where it leads.
fn pairs(block: &[u8], (count, start): (usize, usize)) -> Option<Vec<(u32, u32)>> {
    let bytes = block.get(start..start + count * HASH_LEN)?;
    let pairs = bytes.as_chunks::<HASH_LEN>().0.iter();
    Some(pairs.map(|pair| (be32(pair, 0), be32(pair, 4))).collect())
}

/// The search of a name in a folder that is not in its inode.
pub(super) struct Search<'a> {
    pub(super) folder: &'a Folder<'a>,
    pub(super) fork: Fork,
    pub(super) name: &'a [u8],
}

impl Search<'_> {
    fn layout(&self) -> &Layout<'_> {
        self.folder.layout
    }

    pub(super) fn is_it(&self, name: &[u8]) -> bool {
        is_same(self.layout(), self.name, name)
    }

    fn damaged(&self) -> Error {
        self.folder.inode.damaged("its index is damaged")
    }

    fn block(&self, logical: u64) -> Result<(Vec<u8>, At)> {
        let mut block = vec![0; self.layout().folder_block_size()];
        let offset = self.fork.read_at(self.layout(), logical, &mut block)?;
        Ok((block, offset))
    }

    fn index_block(&self, logical: u64) -> Result<Vec<u8>> {
        let (block, offset) = self.block(logical)?;
        let folder = self.folder.inode.number;
        self.layout().check(&block, Proof::INDEX, offset, folder, "an index")?;
        Ok(block)
    }

    /// What the index says.
    pub(super) fn run(&self) -> Result<Option<Entry>> {
        let wanted = match self.layout().shape.ignores_case {
            true => hash(&self.name.iter().map(|&byte| lower(byte)).collect::<Vec<_>>()),
            false => hash(self.name),
        };
        let (block, offset) = self.block(0)?;
        let names = NameBlock::new(self.layout(), self.folder.inode.number, &block, offset)?;
        if let Some(hashes) = names.hashes() {
            let hashes = pairs(hashes, (hashes.len() / HASH_LEN, 0)).unwrap_or_default();
            for place in with_hash(&hashes, wanted) {
                if let Some(entry) = self.name_in(&names, u64::from(place) * 8)? {
                    return Ok(Some(entry));
                }
            }
            return Ok(None);
        }
        let mut leaf = self.leaf(wanted)?;
        // Names of one hash may go on in the next leaves.
        let mut candidates = 0;
        for _ in 0..LEAVES_MAX {
            let entries = entries_of(self.layout(), &leaf, &[LEAF_ONLY, LEAF]);
            let hashes = entries.and_then(|entries| pairs(&leaf, entries));
            let hashes = hashes.ok_or_else(|| self.damaged())?;
            for place in with_hash(&hashes, wanted) {
                candidates += 1;
                if candidates > CANDIDATES_MAX {
                    return Err(self.damaged());
                }
                if let Some(entry) = self.name_at(place)? {
                    return Ok(Some(entry));
                }
            }
            let next = be32(&leaf, 0);
            if next == 0 || hashes.last().is_some_and(|&(last, _)| last > wanted) {
                return Ok(None);
            }
            leaf = self.index_block(next.into())?;
        }
        Err(self.damaged())
    }

    /// The first leaf that may have a hash.
    fn leaf(&self, wanted: u32) -> Result<Vec<u8>> {
        let mut block = self.index_block(INDEX_AT / self.layout().block_size())?;
        for _ in 0..=LEVELS_MAX {
            let Some(entries) = entries_of(self.layout(), &block, &[NODE]) else {
                return Ok(block);
            };
            let children = pairs(&block, entries).ok_or_else(|| self.damaged())?;
            // Children go by the last hash they have.
            let n = children.partition_point(|&(last, _)| last < wanted);
            let child = children.get(n).or(children.last()).ok_or_else(|| self.damaged())?;
            block = self.index_block(child.1.into())?;
        }
        Err(self.damaged())
    }

    /// The name at a place of the folder, in units of eight bytes, if it is the wanted one.
    fn name_at(&self, place: u32) -> Result<Option<Entry>> {
        let place = u64::from(place) * 8;
        let size = self.layout().folder_block_size() as u64;
        let (block, offset) = self.block((place / size) << self.layout().shape.folder_log)?;
        let names = NameBlock::new(self.layout(), self.folder.inode.number, &block, offset)?;
        self.name_in(&names, place % size)
    }

    /// The name at a byte of a block, if it is the wanted one. There has to be one.
    fn name_in(&self, names: &NameBlock<'_>, at: u64) -> Result<Option<Entry>> {
        let name = usize::try_from(at).ok().and_then(|at| names.indexed(at));
        let name: Name<'_> = name.ok_or_else(|| self.damaged())?;
        Ok((!name.is_dots() && self.is_it(name.name)).then(|| name.entry()))
    }
}

/// Whether a name is the wanted one, by the rules of the filesystem.
pub(super) fn is_same(layout: &Layout<'_>, wanted: &[u8], name: &[u8]) -> bool {
    let is_alike = || name.iter().map(|&byte| lower(byte)).eq(wanted.iter().map(|&b| lower(b)));
    wanted == name || layout.shape.ignores_case && is_alike()
}

/// Where the names of a hash are, those that were removed left out.
fn with_hash(hashes: &[(u32, u32)], wanted: u32) -> impl Iterator<Item = u32> + '_ {
    let first = hashes.partition_point(|&(hash, _)| hash < wanted);
    let rest = hashes.get(first..).unwrap_or_default().iter();
    rest.take_while(move |(hash, _)| *hash == wanted).map(|&(_, place)| place).filter(|&at| at != 0)
}
