//! What a symbolic link says: in its inode, or in blocks of its own.
//!
//! Facts: `xfs_format.h`, `struct xfs_dsymlink_hdr`. There is one header for every extent.

use super::fork::{Fork, Place};
use super::inode::{Inode, Which};
use super::layout::{Layout, Proof};
use crate::bytes::be32;
use crate::reader::FileType;
use crate::{Error, Result};

/// `XFS_SYMLINK_MAXLEN`.
const LEN_MAX: usize = 1024;
const HEADER: usize = 56;

pub(super) fn read(layout: &Layout<'_>, inode: &Inode) -> Result<Vec<u8>> {
    if inode.file_type() != FileType::Link {
        return Err(Error::WrongType { wanted: "symbolic link" });
    }
    let len = usize::try_from(inode.len()).ok().filter(|len| (1..=LEN_MAX).contains(len));
    let len = len.ok_or_else(|| inode.damaged("a link of an impossible length"))?;
    let broken = || inode.damaged("a link that is shorter than it says");
    let place = inode.fork(Which::Data)?.ok_or_else(broken)?;
    if let Place::Local(bytes) = place {
        return bytes.get(..len).map(<[u8]>::to_vec).ok_or_else(broken);
    }
    let fork = Fork::read_records(layout, place, inode.number)?;
    let header = if layout.shape.self_describing { HEADER } else { 0 };
    let mut target: Vec<u8> = Vec::with_capacity(len);
    for run in &fork.runs {
        let blocks = usize::try_from(run.blocks).unwrap_or(usize::MAX);
        // No link needs more, and so much is allocated.
        let blocks_max = (LEN_MAX + HEADER).div_ceil(layout.shape.geometry.block_size as usize) + 1;
        if target.len() == len || blocks > blocks_max || run.is_unwritten {
            break;
        }
        let mut bytes = vec![0; blocks * layout.shape.geometry.block_size as usize];
        let offset = fork.read_at(layout, run.logical, &mut bytes)?;
        let count = (len - target.len()).min(bytes.len() - header);
        if header > 0 {
            layout.check(&bytes, Proof::REMOTE, offset, inode.number, "a link")?;
            let is_next = bytes[..4] == *b"XSLM"
                && be32(&bytes, 4) as usize == target.len()
                && be32(&bytes, 8) as usize == count;
            if !is_next {
                return Err(inode.damaged("a link of other pieces"));
            }
        }
        target.extend_from_slice(&bytes[header..header + count]);
    }
    if target.len() == len { Ok(target) } else { Err(broken()) }
}
