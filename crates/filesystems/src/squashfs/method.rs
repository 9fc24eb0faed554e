//! What everything is compressed with.

use std::io::Read;

use lzma_rust2::{LzmaReader, XzReader};

use crate::{Error, Result, expand, lzo};

/// Memory of a decoder of XZ or LZMA: a dictionary is no longer than a block of 1 MiB.
const XZ_KIB_MAX: u32 = 4 << 10;
/// The window of a frame of Zstandard: a block of 1 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Zlib,
    /// Streams of the old kind, each with a header of its own and no checksum.
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd,
}

impl Method {
    pub(super) fn numbered(number: u16) -> Result<Self> {
        Ok(match number {
            1 => Self::Zlib,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            number => {
                let what = format!("volumes compressed with method {number} are not known");
                return Err(Error::Unsupported { what });
            }
        })
    }

    /// Fills the front of `out`, and returns how much. `None` when it is damaged, or has more than
    /// there is room for.
    pub(super) fn expand(self, stored: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Zlib => expand::zlib(stored, out),
            Self::Lzma => fill(LzmaReader::new_mem_limit(stored, XZ_KIB_MAX, None).ok()?, out),
            Self::Lzo => lzo::decompress(stored, out),
            Self::Xz => fill(XzReader::new_mem_limit(stored, false, XZ_KIB_MAX), out),
            Self::Lz4 => lz4_flex::block::decompress_into(stored, out).ok(),
            Self::Zstd => expand::zstd(stored, out, ZSTD_WINDOW_LOG_MAX),
        }
    }
}

fn fill(mut stream: impl Read, out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    while len < out.len() {
        match stream.read(&mut out[len..]).ok()? {
            0 => return Some(len),
            more => len += more,
        }
    }
    // Nothing is left, and the sum of XZ is right.
    (stream.read(&mut [0]).ok()? == 0).then_some(len)
}
