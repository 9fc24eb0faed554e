//! Compressed extents. What a stream does not fill is zeros, as it is for the kernel.

use crate::{expand, lzo};

/// Bytes of a compressed extent, stored or not.
pub(super) const LEN_MAX: u64 = 128 << 10;
/// The window a frame may ask for: an extent.
const ZSTD_WINDOW_LOG_MAX: u32 = 17;
/// Length of a stream of LZO, and of each of its blocks.
const LZO_LEN: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Zlib,
    Lzo,
    Zstd,
}

impl Method {
    /// Fills `out` from what is stored, behind which there may be the rest of a sector. `None`
    /// when it is damaged.
    pub(super) fn expand(self, stored: &[u8], sector_size: usize, out: &mut [u8]) -> Option<()> {
        let len = match self {
            Self::Zlib => expand::zlib(stored, out)?,
            Self::Lzo => lzo_blocks(stored, sector_size, out)?,
            Self::Zstd => expand::zstd(stored, out, ZSTD_WINDOW_LOG_MAX)?,
        };
        out[len..].fill(0);
        // Nothing is never stored.
        (len > 0).then_some(())
    }
}

/// A total length, then blocks of a sector each with their lengths in front. A length is never
/// divided by the end of a sector: the few bytes in front of that are skipped.
fn lzo_blocks(stored: &[u8], sector_size: usize, out: &mut [u8]) -> Option<usize> {
    let total = number(stored, 0)?;
    let stream = stored.get(..total)?;
    let (mut at, mut done) = (LZO_LEN, 0);
    while at < total {
        let left = sector_size - at % sector_size;
        if left < LZO_LEN {
            at += left;
            if at >= total {
                break;
            }
        }
        let len = number(stream, at)?;
        at += LZO_LEN;
        let block = stream.get(at..)?.get(..len)?;
        let room = out.len().min(done + sector_size);
        let filled = lzo::decompress(block, &mut out[done..room])?;
        (at, done) = (at + len, done + filled);
        // Only the last one may be short.
        if filled < sector_size && at < total {
            return None;
        }
    }
    Some(done)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(method: Method, stored: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut out = vec![9; room];
        method.expand(stored, 64, &mut out).map(|()| out)
    }

    #[test]
    fn streams_fill_their_extent_and_what_they_leave_is_zeros() {
        let plain = b"a text of some length ".repeat(10);
        let mut zlib = miniz_oxide::deflate::compress_to_vec_zlib(&plain, 6);
        let mut zstd = zstd::bulk::compress(&plain, 3).expect("it is compressed");
        // The rest of the last sector.
        for stored in [&mut zlib, &mut zstd] {
            stored.extend([0; 100]);
        }
        for (method, stored) in [(Method::Zlib, zlib), (Method::Zstd, zstd)] {
            assert_eq!(expand(method, &stored, plain.len()), Some(plain.clone()));
            let padded = [&plain[..], &[0; 50]].concat();
            assert_eq!(expand(method, &stored, padded.len()), Some(padded), "{method:?}");
            // More than there is room for, and less than all of it.
            assert_eq!(expand(method, &stored, plain.len() - 1), None, "{method:?}");
            assert_eq!(expand(method, &stored[..20], plain.len()), None, "{method:?}");
            assert_eq!(expand(method, &[], 10), None, "{method:?}");
        }
        let wide = zstd::bulk::compress(&vec![7; 1 << 20], 1).expect("it is compressed");
        assert_eq!(expand(Method::Zstd, &wide, 1 << 17), None);
    }

    /// Sixty-four bytes in 68, or the last three of them as a copy in 67.
    fn block(first: u8, is_short: bool) -> (Vec<u8>, Vec<u8>) {
        let count: u8 = if is_short { 61 } else { 64 };
        let mut plain: Vec<u8> = (first..).take(count.into()).collect();
        let mut stored = [&[17 + count], &plain[..]].concat();
        if is_short {
            stored.extend([0x40, 0]);
            plain.extend([plain[60]; 3]);
        }
        stored.extend([0x11, 0, 0]);
        (plain, stored)
    }

    fn stream(padding: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut plain, mut stream) = (Vec::new(), vec![0; 4]);
        for n in 0..10 {
            let (bytes, stored) = block(n, n < 7);
            plain.extend(bytes);
            // Eight of them end three bytes before a sector does.
            if n == 8 {
                assert_eq!(stream.len() % 64, 61);
                stream.extend(vec![0; padding]);
            }
            stream.extend(u32::try_from(stored.len()).expect("short").to_le_bytes());
            stream.extend(stored);
        }
        let len = u32::try_from(stream.len()).expect("short").to_le_bytes();
        stream[..4].copy_from_slice(&len);
        (plain, stream)
    }

    #[test]
    fn blocks_of_lzo_have_their_lengths_within_one_sector() {
        let (plain, mut stored) = stream(3);
        assert_eq!(expand(Method::Lzo, &stored, plain.len()), Some(plain.clone()));
        assert_eq!(expand(Method::Lzo, &stored, plain.len() - 1), None);
        assert_eq!(expand(Method::Lzo, &stored[..stored.len() - 1], plain.len()), None);
        stored.extend([0; 50]);
        assert_eq!(expand(Method::Lzo, &stored, plain.len()), Some(plain.clone()));
        for padding in [0, 1, 2, 4] {
            assert_eq!(expand(Method::Lzo, &stream(padding).1, plain.len()), None, "{padding}");
        }
        // A block that is short, in front of another.
        let (_, block) = block(1, false);
        let short = [&[14, 0, 0, 0, 6, 0, 0, 0, 19, 1, 2, 17, 0, 0][..], &block].concat();
        assert_eq!(expand(Method::Lzo, &short, 2), Some(vec![1, 2]));
        let mut again = [&short[..14], &[68, 0, 0, 0], &block].concat();
        again[0] = 86;
        assert_eq!(expand(Method::Lzo, &again, 128), None);
        for len in [3, 0xff] {
            assert_eq!(expand(Method::Lzo, &[len, 0, 0, 0], 64), None);
        }
    }
}
