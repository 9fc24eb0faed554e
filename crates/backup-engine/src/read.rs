//! Reading a source that may have bad sectors.

use std::ops::Range;
use std::{io, iter};

use aiv_image_format::hash::fill_unreadable;
use aiv_volume_io::{Extent, Job, ReadAt};

use crate::error::{Error, Result};

/// Reads `out` from `offset`. Where single sectors fail, reads with ever smaller strides, fills
/// what stays unreadable with the pattern of the format, and returns those ranges, ascending.
///
/// `offset` must be a multiple of `sector`.
pub(crate) fn read_around_bad_sectors(
    source: &dyn ReadAt,
    out: &mut [u8],
    offset: u64,
    sector: usize,
    job: Job<'_>,
) -> Result<Vec<Extent>> {
    let mut bad: Vec<Extent> = Vec::new();
    // Ranges still to be read, the next one last; halving keeps this as deep as the logarithm
    // of the range.
    let mut todo: Vec<Range<usize>> = iter::once(0..out.len()).collect();
    while let Some(range) = todo.pop() {
        // A drive may take seconds for each bad sector.
        job.check()?;
        let at = offset + range.start as u64;
        let smallest = range.len() <= sector;
        // The last attempt at a single sector gets a second chance: drives remap on retry.
        let attempts = if smallest { 2 } else { 1 };
        match try_read(source, &mut out[range.clone()], at, attempts) {
            Ok(()) => {}
            Err(error) if !is_bad_sector(&error) => return Err(classify(source, at, error)),
            Err(_) if smallest => {
                fill_unreadable(&mut out[range.clone()], range.start);
                let extent = Extent::new(at, range.len() as u64);
                match bad.last_mut() {
                    Some(last) if last.end() == at => last.len += extent.len,
                    _ => bad.push(extent),
                }
            }
            Err(_) => {
                let half = (range.len() / 2).next_multiple_of(sector);
                let middle = range.start + half;
                todo.push(middle..range.end);
                todo.push(range.start..middle);
            }
        }
    }
    Ok(bad)
}

fn try_read(source: &dyn ReadAt, out: &mut [u8], at: u64, attempts: u32) -> io::Result<()> {
    let mut result = source.read_exact_at(out, at);
    for _ in 1..attempts {
        if !matches!(&result, Err(e) if is_bad_sector(e)) {
            break;
        }
        result = source.read_exact_at(out, at);
    }
    result
}

/// Whether the medium says "these sectors", as opposed to "this device" or "this program".
/// Numbers of Linux: EIO 5, EBADMSG 74, EILSEQ 84, ENODATA 61, ETIMEDOUT 110, EREMOTEIO 121.
pub(crate) fn is_bad_sector(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 61 | 74 | 84 | 110 | 121))
}

fn classify(source: &dyn ReadAt, offset: u64, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::SourceShrank { offset, len: source.len() };
    }
    Error::Source { offset, source: error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_testkit::disks::FlakyDisk;
    use aiv_volume_io::{ExtentSet, MemDisk};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_bad_sectors_are_lost(
            bad in prop::collection::btree_set(0u64..256, 0..20), odd_end in 0usize..512,
        ) {
            let len = 256 * 512 - odd_end;
            let bytes: Vec<u8> = (0..=250).flat_map(|n: u8| [n; 512]).cycle().take(len).collect();
            let ranges: Vec<Extent> = bad.iter().map(|s| Extent::new(s * 512, 512)).collect();
            let disk = FlakyDisk::new(MemDisk::from_bytes(bytes.clone()), ranges);
            let mut out = vec![0; len];
            let lost = read_around_bad_sectors(&disk, &mut out, 0, 512, Job::silent())?;
            let mut expected = bytes;
            for sector in &bad {
                let start = usize::try_from(sector * 512).expect("small");
                let end = (start + 512).min(len);
                fill_unreadable(&mut expected[start..end], start);
            }
            prop_assert!(out == expected);
            let exact: ExtentSet =
                bad.iter().map(|s| Extent::between(s * 512, (s * 512 + 512).min(len as u64))).collect();
            prop_assert_eq!(lost, exact.runs());
        }
    }
}
