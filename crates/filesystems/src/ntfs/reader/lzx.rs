//! LZX as Windows has it in WIM files and in the Windows Overlay Filter: chunks of 32 KiB, each
//! for itself.
//!
//! Facts: Microsoft, [MS-PATCH] 2 (LZX DELTA) and "Microsoft LZX Data Compression Format"; what is
//! different in these chunks, from wimlib's documentation: the size of a block is one bit or 16
//! more, and calls of x86 are always translated, for a file of 12,000,000 bytes.

use super::huffman::{Bits, Code, copy_back};

/// Bytes of a chunk, and how far back a copy goes.
pub(super) const CHUNK: usize = 32 << 10;
/// Distances come in 30 slots, eight lengths each.
const MAIN: usize = 256 + 30 * 8;
const LENGTHS: usize = 249;

/// Fills `out`, a chunk at most, with what `data` decompresses to; `None` when it cannot be such.
pub(super) fn decompress(data: &[u8], out: &mut [u8]) -> Option<()> {
    if out.len() > CHUNK {
        return None;
    }
    let mut chunk =
        Chunk { bits: Bits::new(data), recent: [1; 3], main: [0; MAIN], lengths: [0; LENGTHS] };
    let mut done = 0;
    while done < out.len() {
        done = chunk.block(out, done)?;
    }
    chunk.bits.check()?;
    undo_calls(out);
    Some(())
}

struct Chunk<'a> {
    bits: Bits<'a>,
    /// The last distances.
    recent: [usize; 3],
    /// How many bits each symbol has in the codes of the last block.
    main: [u8; MAIN],
    lengths: [u8; LENGTHS],
}

impl Chunk<'_> {
    /// Fills `out` from `done` on with a block, and tells where that ends.
    fn block(&mut self, out: &mut [u8], done: usize) -> Option<usize> {
        let kind = self.bits.take(3);
        let len = if self.bits.take(1) == 1 { CHUNK } else { self.bits.take(16) };
        let end = done.checked_add(len).filter(|&end| len != 0 && end <= out.len())?;
        let out = &mut out[..end];
        match kind {
            1 => self.compressed(out, done, None),
            2 => {
                let mut lengths = [0; 8];
                for length in &mut lengths {
                    *length = u8::try_from(self.bits.take(3)).ok()?;
                }
                self.compressed(out, done, Some(&Code::new(&lengths)?))
            }
            3 => {
                self.bits.align();
                for recent in &mut self.recent {
                    let bytes = *self.bits.bytes(4)?.first_chunk()?;
                    *recent = usize::try_from(u32::from_le_bytes(bytes)).ok()?;
                }
                out[done..].copy_from_slice(self.bits.bytes(len)?);
                // Words are whole.
                if len % 2 == 1 {
                    let _ = self.bits.bytes(1);
                }
                Some(end)
            }
            _ => None,
        }
    }

    fn compressed(&mut self, out: &mut [u8], done: usize, aligned: Option<&Code>) -> Option<usize> {
        let (bytes, copies) = self.main.split_at_mut(256);
        read_lengths(&mut self.bits, bytes)?;
        read_lengths(&mut self.bits, copies)?;
        read_lengths(&mut self.bits, &mut self.lengths)?;
        let main = Code::new(&self.main)?;
        let lengths = Code::new(&self.lengths)?;
        let mut done = done;
        // Each symbol makes a byte at least.
        while done < out.len() {
            let symbol = main.next(&mut self.bits)?;
            if let Ok(byte) = u8::try_from(symbol) {
                out[done] = byte;
                done += 1;
                continue;
            }
            let symbol = symbol - 256;
            let mut len = symbol % 8;
            if len == 7 {
                len += lengths.next(&mut self.bits)?;
            }
            let distance = self.distance(symbol / 8, aligned)?;
            copy_back(out, done, distance, len + 2)?;
            done += len + 2;
        }
        Some(done)
    }

    fn distance(&mut self, slot: usize, aligned: Option<&Code>) -> Option<usize> {
        if slot < 3 {
            self.recent.swap(0, slot);
            return Some(self.recent[0]);
        }
        let width = u32::try_from((slot / 2).saturating_sub(1)).ok()?;
        let base = if slot < 4 { slot } else { (2 | slot & 1) << width };
        let more = match aligned {
            Some(aligned) if width >= 3 => {
                let high = self.bits.take(width - 3) << 3;
                high | aligned.next(&mut self.bits)?
            }
            _ => self.bits.take(width),
        };
        let [first, second, _] = self.recent;
        self.recent = [base + more - 2, first, second];
        Some(self.recent[0])
    }
}

/// Reads how many bits symbols have, as differences to the code of the block before.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut own = [0; 20];
    for length in &mut own {
        *length = u8::try_from(bits.take(4)).ok()?;
    }
    let code = Code::new(&own)?;
    let less =
        |was: u8, by: usize| u8::try_from((usize::from(was) + 17).checked_sub(by)? % 17).ok();
    let mut at = 0;
    while at < lengths.len() {
        let (value, count) = match code.next(bits)? {
            17 => (0, 4 + bits.take(4)),
            18 => (0, 20 + bits.take(5)),
            19 => {
                let count = 4 + bits.take(1);
                let by = code.next(bits)?;
                (less(lengths[at], by).filter(|_| by <= 16)?, count)
            }
            by => (less(lengths[at], by)?, 1),
        };
        // What goes on behind the last is cut off.
        let end = (at + count).min(lengths.len());
        lengths[at..end].fill(value);
        at = end;
    }
    Some(())
}

/// Makes the absolute targets of calls of x86 relative again.
fn undo_calls(out: &mut [u8]) {
    const FILE_SIZE: i32 = 12_000_000;
    const CALL: u8 = 0xe8;
    let end = out.len().saturating_sub(10);
    let mut at = 0;
    while at < end {
        if out[at] != CALL {
            at += 1;
            continue;
        }
        let place = i32::try_from(at).unwrap_or(0);
        if let Some(target) = out[at + 1..].first_chunk_mut() {
            let absolute = i32::from_le_bytes(*target);
            if (0..FILE_SIZE).contains(&absolute) {
                *target = (absolute - place).to_le_bytes();
            } else if (-place..0).contains(&absolute) {
                *target = (absolute + FILE_SIZE).to_le_bytes();
            }
        }
        at += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_that_is_stored_and_calls() {
        // Type 3, the usual size; then the recent distances and the bytes.
        let mut data = vec![0x00, 0x70];
        for _ in 0..3 {
            data.extend(1_u32.to_le_bytes());
        }
        let mut plain = vec![0x41; CHUNK];
        plain[100..105].copy_from_slice(&[0xe8, 0x64, 0x01, 0, 0]);
        plain[CHUNK - 10..CHUNK - 5].copy_from_slice(&[0xe8, 0x64, 0x01, 0, 0]);
        data.extend(&plain);
        let mut out = vec![0; CHUNK];
        assert_eq!(decompress(&data, &mut out), Some(()));
        plain[101] = 0;
        assert!(out == plain);
        assert_eq!(decompress(&data[..CHUNK], &mut out), None);
        assert_eq!(decompress(&data, &mut [0; 100]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_data_ends(
            mut data in prop::collection::vec(any::<u8>(), 2..3000), len in 0usize..=CHUNK,
            kind in 0u8..4,
        ) {
            data[1] = kind << 5 | data[1] & 0x1f;
            let mut out = vec![0; len];
            let _ = decompress(&data, &mut out);
            // Lengths that make a code: many symbols of nine bits.
            let codes: Vec<u8> = (0..60).map(|n| [0x11, 0x11, 0x50][n % 3]).collect();
            data.splice(2..2, codes);
            let _ = decompress(&data, &mut out);
        }
    }
}
