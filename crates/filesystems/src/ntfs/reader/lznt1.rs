//! LZNT1, by which NTFS compresses units of clusters.
//!
//! Facts: Microsoft, [MS-XCA] 2.5: chunks of 4096 bytes, each behind a header of 16 bits; in a
//! chunk, eight tokens behind a byte of flags. A token is a byte, or 16 bits that say how far
//! back and how long a copy is; how many bits each has depends on how far the chunk is.

use super::huffman::copy_back;

const CHUNK: usize = 4096;

/// Fills `out` with what `data` decompresses to. What is not said is zeros; `None` when `data`
/// cannot be such, or is more.
pub(super) fn decompress(data: &[u8], out: &mut [u8]) -> Option<()> {
    const IS_COMPRESSED: u16 = 0x8000;
    let mut left = data;
    for out in out.chunks_mut(CHUNK) {
        let header = match left {
            // The end may say nothing.
            [] | [_] => 0,
            [low, high, ..] => u16::from_le_bytes([*low, *high]),
        };
        if header == 0 {
            out.fill(0);
            left = &[];
            continue;
        }
        let len = usize::from(header & 0xfff) + 1;
        let chunk = left.get(2..2 + len)?;
        left = &left[2 + len..];
        if header & IS_COMPRESSED != 0 {
            decompress_chunk(chunk, out)?;
        } else {
            let plain = chunk.get(..out.len()).filter(|_| chunk.len() == CHUNK)?;
            out.copy_from_slice(plain);
        }
    }
    Some(())
}

fn decompress_chunk(chunk: &[u8], out: &mut [u8]) -> Option<()> {
    let mut left = chunk;
    let mut done = 0;
    while let Some((&flags, rest)) = left.split_first() {
        left = rest;
        for bit in 0..8 {
            if left.is_empty() {
                break;
            }
            if flags & 1 << bit == 0 {
                let (&byte, rest) = left.split_first()?;
                *out.get_mut(done)? = byte;
                left = rest;
                done += 1;
                continue;
            }
            let (token, rest) = left.split_first_chunk()?;
            left = rest;
            let token = u16::from_le_bytes(*token);
            // At least four bits are of the distance; as many as the chunk is far need.
            let far = u32::try_from(done.checked_sub(1)?).ok()?;
            let len_bits = 12 - (32 - far.leading_zeros()).saturating_sub(4);
            let distance = usize::from(token >> len_bits) + 1;
            let len = usize::from(token & ((1 << len_bits) - 1)) + 3;
            copy_back(out, done, distance, len)?;
            done += len;
        }
    }
    out[done..].fill(0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpacked(data: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![9; len];
        decompress(data, &mut out).map(|()| out)
    }

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] 3.3.
        let data = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let text =
            b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D \
            E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let out = unpacked(&data, 4096).unwrap();
        assert_eq!(&out[..text.len()], text);
        assert!(out[text.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn tokens_that_cannot_be() {
        // Back in front of the start; longer than a chunk; cut off; a short chunk that is plain.
        for data in [
            &[0x02, 0xb0, 0x01, 0x00, 0x00][..],
            &[0x03, 0xb0, 0x02, 0x41, 0xff, 0x1f],
            &[0x02, 0xb0, 0x02, 0x41, 0x00],
            &[0x05, 0xb0, 0x00, 0x41],
            &[0x00, 0x30, 0x41],
        ] {
            assert_eq!(unpacked(data, 4096), None, "{data:x?}");
        }
        assert_eq!(unpacked(&[], 5000), Some(vec![0; 5000]));
        assert_eq!(unpacked(&[0, 0, 7, 7], 100), Some(vec![0; 100]));
        let mut run = vec![0; 4096];
        run[..4095].fill(0x41);
        assert_eq!(unpacked(&[0x03, 0xb0, 0x02, 0x41, 0xfb, 0x0f], 4096), Some(run));
    }

    proptest! {
        #[test]
        fn arbitrary_data_ends(
            mut data in prop::collection::vec(any::<u8>(), 2..6000), len in 0usize..20_000,
        ) {
            data[1] = 0x80 | data[1] & 0xf;
            let _ = unpacked(&data, len);
        }
    }
}
