//! Reading past the page cache: whole blocks, into aligned memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What every device accepts as a place, a length and an address in memory: a page.
const ALIGN: u64 = 4096;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// Fills `out` from `offset` of a device of `len` bytes, which holds all of it.
pub(super) fn read_exact_at(file: &File, len: u64, out: &mut [u8], offset: u64) -> io::Result<()> {
    let wanted = out.len().min(to_usize(PIECE));
    let mut memory = vec![0; wanted + 3 * to_usize(ALIGN)];
    // Where the memory begins is not ours to choose, so the first aligned address in it is used.
    let start = memory.as_ptr().align_offset(to_usize(ALIGN)).min(to_usize(ALIGN));
    let aligned = &mut memory[start..];
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let first = at / ALIGN * ALIGN;
        let count = (out.len() - done).min(wanted);
        // A device may end with a sector that is no whole page.
        let end = (at + count as u64).next_multiple_of(ALIGN).min(len);
        let block = &mut aligned[..to_usize(end - first)];
        file.read_exact_at(block, first)?;
        let skipped = to_usize(at - first);
        out[done..done + count].copy_from_slice(&block[skipped..skipped + count]);
        done += count;
    }
    Ok(())
}

/// For what was bounded by a length in memory.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
