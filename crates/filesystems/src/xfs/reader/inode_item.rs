//! An inode in the log: in the byte order of the machine, its forks beside it.
//!
//! Facts: `xfs_log_format.h`, `struct xfs_inode_log_format`, `xfs_log_dinode`;
//! `xfs_log_dinode_to_disk`, `xfs_bmbt_to_bmdr`.

use super::super::log::transactions::Item;
use super::layout::Shape;
use super::replay::SECTOR;
use crate::bytes::{le16, le32, le64};

const CORE: usize = 176;
/// Offset and width of the numbers of an inode; everything else of its core is bytes. Times are
/// below, and the counts of extents.
const NUMBERS: [(usize, usize); 21] = [
    (0, 2),
    (2, 2),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 2),
    (22, 2),
    (56, 8),
    (64, 8),
    (72, 4),
    (84, 4),
    (88, 2),
    (90, 2),
    (92, 4),
    (104, 8),
    (120, 8),
    (128, 4),
    (152, 8),
    // Counts.
    (24, 8),
    (76, 4),
    (80, 2),
];
const TIMES: [usize; 4] = [32, 40, 48, 144];
const FLAG2_BIGTIME: u64 = 1 << 3;

/// `XFS_ILOG_*`: core, and local, extents, root of tree of either fork; the number of a device.
const DATA: [u32; 3] = [0x002, 0x004, 0x008];
const DEVICE: u32 = 0x010;
const ATTRIBUTES: [u32; 3] = [0x040, 0x080, 0x100];
/// What only the kernel's memory is concerned with: timestamps, version.
const KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | DEVICE | 0x040 | 0x080 | 0x100 | 0x4000 | 0x8000;

/// A logged inode.
pub(super) struct Logged<'a> {
    fields: u32,
    device: u32,
    sector: u64,
    sectors: u32,
    within: u32,
    core: &'a [u8],
    forks: &'a [Vec<u8>],
}

impl<'a> Logged<'a> {
    /// `None` when it is none that is known here.
    pub(super) fn parse(item: &'a Item) -> Option<Self> {
        let (head, rest) = item.regions.split_first()?;
        let (core, forks) = rest.split_first()?;
        if head.len() < 56 || core.len() < CORE || le32(head, 4) & !KNOWN != 0 {
            return None;
        }
        Some(Self {
            fields: le32(head, 4),
            device: le32(head, 24),
            sector: le64(head, 40),
            sectors: le32(head, 48),
            within: le32(head, 52),
            core,
            forks,
        })
    }

    /// The buffer it lies in: first sector and sectors.
    pub(super) fn buffer(&self) -> (u64, u32) {
        (self.sector, self.sectors)
    }

    /// Byte offset on the volume.
    pub(super) fn place(&self) -> u64 {
        self.sector.saturating_mul(SECTOR).saturating_add(self.within.into())
    }

    /// Changes an inode as it was to what the log says. `None` when that cannot be.
    pub(super) fn lay_over(&self, shape: &Shape, inode: &mut [u8], number: u64) -> Option<()> {
        let core = self.core;
        if le16(core, 0) != 0x494e || core[4] != 3 {
            return None;
        }
        // Of the core all is written but what only the volume knows: next deleted one, checksum.
        let kept = (inode[96..100].to_vec(), inode[100..104].to_vec());
        inode[..CORE].copy_from_slice(&core[..CORE]);
        for (at, width) in NUMBERS {
            inode[at..at + width].reverse();
        }
        // No time, but one count of nanoseconds, is one number.
        let has_wide_times = le64(core, 120) & FLAG2_BIGTIME != 0;
        for at in TIMES {
            if has_wide_times {
                inode[at..at + 8].reverse();
            } else {
                inode[at..at + 4].reverse();
                inode[at + 4..at + 8].reverse();
            }
        }
        // Links of version 1.
        inode[6..8].fill(0);
        inode[96..100].copy_from_slice(&kept.0);
        inode[100..104].copy_from_slice(&kept.1);
        inode[112..120].copy_from_slice(&number.to_be_bytes());
        let border = 8 * usize::from(core[82]);
        let forks = inode.get_mut(CORE..)?;
        if border >= forks.len() {
            return None;
        }
        let mut regions = self.forks.iter();
        let (data, attributes) = match border {
            0 => (forks, &mut [][..]),
            border => forks.split_at_mut(border),
        };
        if self.fields & DEVICE != 0 {
            data.get_mut(..4)?.copy_from_slice(&self.device.to_be_bytes());
        }
        for (kinds, fork) in [(DATA, data), (ATTRIBUTES, attributes)] {
            if kinds.iter().all(|kind| self.fields & kind == 0) {
                continue;
            }
            let region = regions.next()?;
            if self.fields & kinds[2] != 0 {
                put_root(shape, region, fork)?;
            } else {
                fork.get_mut(..region.len())?.copy_from_slice(region);
            }
        }
        Some(())
    }
}

/// The root of a tree of extents, which is a block of such a tree in the log.
fn put_root(shape: &Shape, block: &[u8], fork: &mut [u8]) -> Option<()> {
    let header = if shape.self_describing { 72 } else { 24 };
    let room = block.len().checked_sub(header)? / 16;
    let count = usize::from(u16::from_be_bytes(*block.get(6..)?.first_chunk()?));
    let room_below = fork.len().checked_sub(4)? / 16;
    if count > room || count > room_below {
        return None;
    }
    fork.get_mut(..4)?.copy_from_slice(&block[4..8]);
    for (from, to) in [(header, 4), (header + room * 8, 4 + room_below * 8)] {
        fork.get_mut(to..to + count * 8)?.copy_from_slice(block.get(from..from + count * 8)?);
    }
    Some(())
}

/// An inode that was set aside and is not in use.
pub(super) fn empty(shape: &Shape, number: u64, generation: u32) -> Vec<u8> {
    let mut inode = vec![0; shape.inode_size];
    inode[..2].copy_from_slice(b"IN");
    inode[4] = 3;
    inode[92..96].copy_from_slice(&generation.to_be_bytes());
    inode[96..100].copy_from_slice(&[0xff; 4]);
    inode[152..160].copy_from_slice(&number.to_be_bytes());
    inode[160..176].copy_from_slice(&shape.meta_uuid);
    inode
}
