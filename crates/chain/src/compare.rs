//! Two states of a disk, block by block.

use std::iter::Peekable;

use aiv_image_format::{Digest, Kind};
use aiv_volume_io::{ExtentSet, Job};

use crate::error::Result;
use crate::view::{Stretch, View};

/// What the index says a block holds.
#[derive(PartialEq, Eq)]
enum Holds {
    Zeros,
    Bytes(Digest),
    /// Nothing of it could be read at the source.
    Unreadable,
}

fn holds(stretch: &Stretch) -> Holds {
    match (stretch.kind(), stretch.leaf()) {
        (Kind::Zero | Kind::Unused | Kind::Excluded, _) => Holds::Zeros,
        (_, Some(leaf)) => Holds::Bytes(leaf),
        _ => Holds::Unreadable,
    }
}

/// Bytes of the disk, in whole blocks, that are not the same in `old` and `new`. Only the indexes
/// are read. What a filesystem does not use counts as zeros. `None` when their blocks or disks are
/// of different sizes: their bytes have to be compared then.
///
/// # Errors
/// [`Error::Image`](crate::Error::Image) and [`Error::Io`](crate::Error::Io) when an index cannot
/// be read, [`Error::Canceled`](crate::Error::Canceled).
pub fn changed_bytes(old: &View, new: &View, job: Job<'_>) -> Result<Option<ExtentSet>> {
    let geometry = new.geometry();
    if old.geometry().len() != geometry.len()
        || old.geometry().block_size() != geometry.block_size()
    {
        return Ok(None);
    }
    let mut changed = ExtentSet::default();
    let (mut left, mut right) = (old.stretches(0).peekable(), new.stretches(0).peekable());
    let mut block = 0;
    while let (Some(a), Some(b)) = (current(&mut left, block)?, current(&mut right, block)?) {
        job.check()?;
        let end = (a.block() + a.run()).min(b.block() + b.run());
        if holds(&a) != holds(&b) {
            let start = geometry.offset_of(block);
            let end = geometry.offset_of(end).min(geometry.len());
            changed.push(aiv_volume_io::Extent::between(start, end));
        }
        block = end;
    }
    Ok(Some(changed))
}

/// The stretch that covers a block, the ones before it left behind.
fn current<I: Iterator<Item = Result<Stretch>>>(
    stretches: &mut Peekable<I>,
    block: u64,
) -> Result<Option<Stretch>> {
    while let Some(next) = stretches.peek() {
        match next {
            Ok(stretch) if stretch.block() + stretch.run() > block => return Ok(Some(*stretch)),
            _ => {
                if let Some(Err(error)) = stretches.next() {
                    return Err(error);
                }
            }
        }
    }
    Ok(None)
}
