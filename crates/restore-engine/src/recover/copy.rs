//! The bytes of one file, as many of them as can be read.

use std::io;

use aiv_browse::FileData;
use aiv_volume_io::{Extent, Job, ReadAt, Step};

use crate::error::{Error, Result};

/// Bytes read at once.
pub(super) const STRIDE: u64 = 1 << 20;
/// Where a read failed, it is tried again in ever smaller pieces, down to this.
const SMALLEST: u64 = 4096;

/// Parts of a file that are no holes, ascending.
pub(super) fn ranges(data: &dyn FileData) -> io::Result<Vec<Extent>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    for hole in data.holes(Extent::new(0, data.len()))? {
        if hole.start > at {
            ranges.push(Extent::between(at, hole.start));
        }
        at = hole.end();
    }
    if at < data.len() {
        ranges.push(Extent::between(at, data.len()));
    }
    Ok(ranges)
}

/// Tells `write` the bytes of all `ranges` of a file, in their order. What cannot be read comes
/// as zeros; where that is, is the answer.
pub(super) fn copy(
    data: &dyn ReadAt,
    ranges: &[Extent],
    buffer: &mut Vec<u8>,
    job: Job<'_>,
    write: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Vec<Extent>> {
    let mut lost: Vec<Extent> = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end() {
            job.check()?;
            // Strides begin at multiples of theirs, so that blocks of the image are read once.
            let len = (STRIDE - at % STRIDE).min(range.end() - at);
            buffer.resize(crate::zeros::in_memory(len), 0);
            if data.read_exact_at(buffer, at).is_err() {
                read_pieces(data, at, buffer, &mut lost);
            }
            write(at, buffer)?;
            job.progress.advance(Step::RecoverFiles, len);
            at += len;
        }
    }
    Ok(lost)
}

/// Fills `out` with what can be read from `start` on, and zeros elsewhere.
fn read_pieces(data: &dyn ReadAt, start: u64, out: &mut [u8], lost: &mut Vec<Extent>) {
    let end = start + out.len() as u64;
    // The ranges still to be read, the next one last.
    let mut todo = vec![(Extent::between(start, end), STRIDE)];
    while let Some((range, size)) = todo.pop() {
        let from = crate::zeros::in_memory(range.start - start);
        let piece = &mut out[from..from + crate::zeros::in_memory(range.len)];
        if size < STRIDE && data.read_exact_at(piece, range.start).is_ok() {
            continue;
        }
        if size > SMALLEST {
            let size = size / 16;
            let mut pieces = Vec::new();
            let mut at = range.start;
            while at < range.end() {
                let len = (size - at % size).min(range.end() - at);
                pieces.push((Extent::new(at, len), size));
                at += len;
            }
            todo.extend(pieces.into_iter().rev());
            continue;
        }
        piece.fill(0);
        match lost.last_mut() {
            Some(last) if last.end() == range.start => last.len += range.len,
            _ => lost.push(range),
        }
    }
}

/// A hash of ranges and the bytes in them.
pub(super) fn hash_of(
    file: &dyn ReadAt,
    ranges: &[Extent],
    buffer: &mut Vec<u8>,
    job: Job<'_>,
) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end() {
            job.check()?;
            let len = (STRIDE - at % STRIDE).min(range.end() - at);
            buffer.resize(crate::zeros::in_memory(len), 0);
            file.read_exact_at(buffer, at).map_err(Error::io("reading back", at))?;
            hasher.update(&at.to_le_bytes());
            hasher.update(buffer);
            at += len;
        }
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use aiv_volume_io::MemDisk;

    use super::*;

    struct Bad(MemDisk, Vec<u64>);

    impl ReadAt for Bad {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            let range = offset..offset + out.len() as u64;
            match self.1.iter().any(|bad| range.contains(bad)) {
                true => Err(io::Error::other("bad")),
                false => self.0.read_exact_at(out, offset),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_zeros_and_named_and_everything_else_is_there() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8 + 1).collect();
        let bad = vec![5000, 9000, 1_048_576, 1_500_000, 2_999_999];
        let file = Bad(MemDisk::from_bytes(bytes.clone()), bad);
        let mut found = vec![0; bytes.len()];
        let ranges = [Extent::between(0, 1000), Extent::between(2000, 3_000_000)];
        let lost = copy(&file, &ranges, &mut Vec::new(), Job::silent(), &mut |at, piece| {
            let at = usize::try_from(at).unwrap();
            found[at..at + piece.len()].copy_from_slice(piece);
            Ok(())
        });
        let lost = lost.unwrap();
        let expected =
            [(4096, 12288), (1_048_576, 1_052_672), (1_499_136, 1_503_232), (2_998_272, 3_000_000)];
        assert_eq!(lost, expected.map(|(from, to)| Extent::between(from, to)));
        for (at, byte) in found.iter().enumerate() {
            let at64 = at as u64;
            let is_lost = lost.iter().any(|range| (range.start..range.end()).contains(&at64));
            let is_read = !(1000..2000).contains(&at);
            assert_eq!(*byte, if is_read && !is_lost { bytes[at] } else { 0 }, "{at}");
        }
    }
}
