//! Compressed extents. What a stream does not fill is zeros, as it is for the kernel.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zstd::zstd_safe;

use super::lzo;

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
            Self::Zlib => zlib(stored, out)?,
            Self::Lzo => lzo_blocks(stored, sector_size, out)?,
            Self::Zstd => zstd(stored, out)?,
        };
        out[len..].fill(0);
        Some(())
    }
}

fn zlib(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut state = Box::new(DecompressorOxide::new());
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
        | inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
    let (status, _, len) = decompress(&mut state, stored, out, 0, flags);
    (status == TINFLStatus::Done).then_some(len)
}

fn zstd(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut context = zstd_safe::DCtx::create();
    context.set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
    let mut output = zstd_safe::OutBuffer::around(out);
    let mut input = zstd_safe::InBuffer::around(stored);
    loop {
        let before = (input.pos, output.pos());
        let missing = context.decompress_stream(&mut output, &mut input).ok()?;
        if missing == 0 {
            return Some(output.pos());
        }
        if (input.pos, output.pos()) == before {
            return None;
        }
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
