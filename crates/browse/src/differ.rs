//! The bytes of two files.

use aiv_filesystems::FileData;
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::error::Result;

/// Bytes compared at once.
const STRIDE: u64 = 1 << 20;

/// Whether two files of one length have other bytes; the inner error is one of reading. Where both
/// have holes, nothing is read.
pub(crate) fn differ(
    a: &dyn FileData,
    b: &dyn FileData,
    job: Job<'_>,
) -> Result<std::io::Result<bool>> {
    let all = Extent::new(0, a.len().min(b.len()));
    let parts = a.holes(all).and_then(|left| {
        let right: ExtentSet = b.holes(all)?.into_iter().collect();
        let both: ExtentSet = left.into_iter().flat_map(|hole| right.within(hole)).collect();
        Ok(both)
    });
    let holes = match parts {
        Ok(holes) => holes,
        Err(error) => return Ok(Err(error)),
    };
    let mut at = 0;
    for hole in holes.runs().iter().copied().chain([Extent::new(all.end(), 0)]) {
        match differ_within(a, b, Extent::between(at, hole.start), job)? {
            Ok(false) => at = hole.end(),
            other => return Ok(other),
        }
    }
    Ok(Ok(a.len() != b.len()))
}

fn differ_within(
    a: &dyn FileData,
    b: &dyn FileData,
    range: Extent,
    job: Job<'_>,
) -> Result<std::io::Result<bool>> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut at = range.start;
    while at < range.end() {
        job.check()?;
        let count = STRIDE.min(range.end() - at);
        let Ok(count) = usize::try_from(count) else { return Ok(Ok(true)) };
        left.resize(count, 0);
        right.resize(count, 0);
        let read = a.read_exact_at(&mut left, at).and_then(|()| b.read_exact_at(&mut right, at));
        match read {
            Err(error) => return Ok(Err(error)),
            Ok(()) if left != right => return Ok(Ok(true)),
            Ok(()) => at += count as u64,
        }
    }
    Ok(Ok(false))
}
