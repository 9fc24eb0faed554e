//! XPRESS with Huffman codes. Facts: Microsoft, [MS-XCA] 2.1.

use super::huffman::{Bits, Code, copy_back};

/// Fills `out` with what `data` decompresses to; `None` when it cannot be such.
pub(super) fn decompress(data: &[u8], out: &mut [u8]) -> Option<()> {
    let (lengths, data) = data.split_at_checked(256)?;
    let lengths: Vec<u8> = lengths.iter().flat_map(|pair| [pair & 15, pair >> 4]).collect();
    let code = Code::new(&lengths)?;
    let mut bits = Bits::new(data);
    let mut done = 0;
    // Each symbol makes a byte at least.
    while done < out.len() {
        let symbol = code.next(&mut bits)?;
        if let Ok(byte) = u8::try_from(symbol) {
            out[done] = byte;
            done += 1;
            continue;
        }
        let symbol = symbol - 256;
        bits.ensure(16);
        let width = u32::try_from(symbol >> 4).ok()?;
        let distance = (1 << width) + bits.take(width);
        let mut len = symbol & 15;
        if len == 15 {
            len += usize::from(bits.bytes(1)?[0]);
            if len == 15 + 255 {
                let bytes = bits.bytes(2)?;
                len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                if len < 15 {
                    return None;
                }
            }
        }
        copy_back(out, done, distance, len + 3)?;
        done += len + 3;
    }
    bits.check()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] 3.2: the alphabet, and "abc" a hundred times.
        let mut data = vec![0; 256];
        data[0x30..0x3e].copy_from_slice(&[
            0x50, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x45, 0x44, 0x04,
        ]);
        data[0x80] = 0x04;
        data.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf,
            0x8d, 0x04, 0x00, 0x00, 0x00, 0x00,
        ]);
        let mut out = [0; 26];
        decompress(&data, &mut out).unwrap();
        assert_eq!(&out, b"abcdefghijklmnopqrstuvwxyz");

        let mut data = vec![0; 256];
        (data[0x30], data[0x31], data[0x80], data[0x8f]) = (0x30, 0x23, 0x02, 0x20);
        data.extend([0xa8, 0xdc, 0x00, 0x00, 0xff, 0x26, 0x01]);
        let mut out = [0; 300];
        decompress(&data, &mut out).unwrap();
        assert_eq!(&out[..], "abc".repeat(100).as_bytes());
        for cut in [0, 255, 256, 262] {
            assert_eq!(decompress(&data[..cut], &mut out), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_data_ends(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            lengths in prop::collection::vec(prop_oneof![Just(0x99_u8), any::<u8>()], 256),
            len in 0usize..20_000,
        ) {
            let mut out = vec![0; len];
            let _ = decompress(&[&[0x99; 256], data.as_slice()].concat(), &mut out);
            let _ = decompress(&[lengths, data].concat(), &mut out);
        }
    }
}
