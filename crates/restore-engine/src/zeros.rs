//! Finding out whether a range of the target reads as zeros.

use std::io;

use aiv_volume_io::{Extent, ExtentSet, WriteAt};

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Looks at `range` of the target in steps of the length of `buffer` and tells `found` of each
/// whether it reads as zeros, or why it cannot be read. Holes are not read and not told about.
pub(crate) fn scan<E>(
    target: &dyn WriteAt,
    range: Extent,
    buffer: &mut [u8],
    mut found: impl FnMut(Extent, io::Result<bool>) -> Result<(), E>,
) -> Result<(), E> {
    // A target that cannot tell its holes is read.
    let holes: ExtentSet = target.holes(range).unwrap_or_default().into_iter().collect();
    for data in holes.gaps_within(range) {
        let mut at = data.start;
        while at < data.end() {
            let step = Extent::between(at, data.end().min(at + buffer.len() as u64));
            let bytes = &mut buffer[..in_memory(step.len)];
            let read = target.read_exact_at(bytes, at);
            found(step, read.map(|()| is_zero(bytes)))?;
            at = step.end();
        }
    }
    Ok(())
}

/// A count that is known to fit a buffer.
pub(crate) fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("counts inside a buffer fit the address space")
}
