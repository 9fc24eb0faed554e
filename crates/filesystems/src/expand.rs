//! What filesystems compress with, each into a buffer that is as large as the answer may be.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zstd::zstd_safe;

/// Fills the front of `out` from a stream of zlib, behind which there may be more, and returns how
/// much. `None` when it is damaged, or has more than there is room for.
pub(crate) fn zlib(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut state = Box::new(DecompressorOxide::new());
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
        | inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
    let (status, _, len) = decompress(&mut state, stored, out, 0, flags);
    (status == TINFLStatus::Done).then_some(len)
}

/// The same from a frame of Zstandard that asks for no larger window.
pub(crate) fn zstd(stored: &[u8], out: &mut [u8], window_log: u32) -> Option<usize> {
    let mut context = zstd_safe::DCtx::create();
    context.set_parameter(zstd_safe::DParameter::WindowLogMax(window_log)).ok()?;
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
