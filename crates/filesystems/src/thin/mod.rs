//! Pools of thin volumes (dm-thin): which block of the pool holds which of a volume.
//!
//! The metadata is a superblock and a tree of trees: of volumes by their numbers, and of each its
//! blocks. It is written beside what it replaces, and counts from the moment the superblock does: what
//! lies on a disk is always one whole state, the last one that was written in full. Every record has a
//! checksum and says where it is. Nothing is held but the nodes that were used last: a look-up goes
//! down two short trees.
//!
//! A snapshot of a thin volume has a tree of its own, which shares nodes and blocks with the other's.
//! What was never written is zeros.
//!
//! Facts: `drivers/md/dm-thin-metadata.c` and `persistent-data` of Linux.

mod node;
mod superblock;
mod volume;

use std::sync::Arc;

use aiv_volume_io::ReadAt;

use crate::bytes::{le32, le64};
use crate::recent::Recent;
use crate::{Error, Result};
use node::Node;
use superblock::Superblock;
pub(crate) use volume::ThinVolume;

/// Bytes of a record.
const BLOCK: usize = 4096;
/// Nodes on the way to a leaf: of the largest trees some four.
const DEPTH_MAX: usize = 12;
/// Nodes that are kept: 2 MiB.
const NODES_KEPT: usize = 512;
/// What the checksum of a node is mixed with.
const NODE_SUM: u32 = 121_107;

/// A pool, by its metadata and its data.
pub(crate) struct Pool {
    metadata: Arc<dyn ReadAt>,
    data: Arc<dyn ReadAt>,
    superblock: Superblock,
    nodes: Recent<Node>,
}

/// What is known about one key.
struct Found {
    /// Its value.
    value: Option<u64>,
    /// The first key behind it of which something else may be true.
    until: u64,
}

impl Pool {
    /// Of data in blocks of `block_len` bytes.
    pub(crate) fn open(
        metadata: Arc<dyn ReadAt>,
        data: Arc<dyn ReadAt>,
        block_len: u64,
    ) -> Result<Self> {
        let superblock = Superblock::read(&*metadata)?;
        if superblock.block_len != block_len {
            return Err(Error::damaged("its pool has blocks of another length", Some(0)));
        }
        Ok(Self { metadata, data, superblock, nodes: Recent::new(NODES_KEPT) })
    }

    /// The root of the tree of a volume.
    fn root_of(&self, device: u64) -> Result<Option<u64>> {
        Ok(self.find(self.superblock.volumes, device)?.value)
    }

    fn node(&self, number: u64) -> Result<Arc<Node>> {
        self.nodes.get(number, || Node::parse(&record(&*self.metadata, number, NODE_SUM)?, number))
    }

    /// Looks a key up in the tree below `root`.
    fn find(&self, root: u64, key: u64) -> Result<Found> {
        let mut number = root;
        let mut until = u64::MAX;
        for _ in 0..DEPTH_MAX {
            let node = self.node(number)?;
            let behind = node.keys.partition_point(|known| *known <= key);
            until = node.keys.get(behind).map_or(until, |next| until.min(*next));
            let before = behind
                .checked_sub(1)
                .and_then(|at| Some((*node.keys.get(at)?, *node.values.get(at)?)));
            match before {
                Some((_, child)) if !node.is_leaf => number = child,
                Some((known, value)) if known == key => {
                    return Ok(Found { value: Some(value), until: key.saturating_add(1) });
                }
                _ => return Ok(Found { value: None, until }),
            }
        }
        Err(Error::damaged("a tree of its pool has no end", None))
    }
}

/// Record `number` of the metadata, with the right checksum and in its place.
fn record(metadata: &dyn ReadAt, number: u64, sum: u32) -> Result<[u8; BLOCK]> {
    let mut bytes = [0; BLOCK];
    let at = number.checked_mul(BLOCK as u64);
    let at = at.filter(|at| at.checked_add(BLOCK as u64).is_some_and(|end| end <= metadata.len()));
    let at = at.ok_or_else(|| Error::damaged("a record of its pool lies nowhere", None))?;
    metadata.read_exact_at(&mut bytes, at).map_err(Error::io("read metadata of pool", at))?;
    let is_right = !crc32c::crc32c(&bytes[4..]) ^ sum == le32(&bytes, 0);
    match is_right && le64(&bytes, 8) == number {
        true => Ok(bytes),
        false => Err(Error::damaged("a record of its pool does not match its checksum", Some(at))),
    }
}
