//! Compressed clusters and grains: never more than the one unit that was asked for.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zstd::zstd_safe;

/// Largest window a zstd frame may ask for: 8 MiB, four times the largest cluster. A frame that
/// wants more was not made by anybody who compresses clusters.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Fills `out` exactly from a deflate stream, bare or in a zlib wrapper; what follows the stream
/// is ignored, because only a number of sectors says how long it is. `None` when the stream is
/// damaged or gives less.
pub(crate) fn deflate(input: &[u8], out: &mut [u8], zlib: bool) -> Option<()> {
    let mut state = Box::new(DecompressorOxide::new());
    let mut flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    if zlib {
        flags |= inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
    }
    let (status, _, written) = decompress(&mut state, input, out, 0, flags);
    let is_sound = !matches!(status, TINFLStatus::Failed | TINFLStatus::Adler32Mismatch);
    (is_sound && written == out.len()).then_some(())
}

/// Fills `out` exactly from zstd frames; what follows is ignored.
pub(crate) fn zstd(input: &[u8], out: &mut [u8]) -> Option<()> {
    let mut context = zstd_safe::DCtx::create();
    context.set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
    let len = out.len();
    let mut output = zstd_safe::OutBuffer::around(out);
    let mut input = zstd_safe::InBuffer::around(input);
    while output.pos() < len {
        let before = (input.pos, output.pos());
        context.decompress_stream(&mut output, &mut input).ok()?;
        if (input.pos, output.pos()) == before {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_filled_exactly_and_less_or_damaged_input_is_refused() {
        let plain: Vec<u8> = (0..5000u32).map(|i| (i * i % 251) as u8).collect();
        let mut zlib = miniz_oxide::deflate::compress_to_vec_zlib(&plain, 6);
        let mut bare = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        let mut frame = zstd_safe_frame(&plain);
        // What lies in the rest of the last sector.
        for packed in [&mut zlib, &mut bare, &mut frame] {
            packed.extend([0xAA; 300]);
        }
        let unpack = |which: usize, len: usize, input: &[u8]| {
            let mut out = vec![0; len];
            let done = match which {
                0 => deflate(input, &mut out, true),
                1 => deflate(input, &mut out, false),
                _ => super::zstd(input, &mut out),
            };
            done.map(|()| out)
        };
        for (which, packed) in [&zlib, &bare, &frame].into_iter().enumerate() {
            assert_eq!(unpack(which, 5000, packed).unwrap(), plain, "{which}");
            // More than one unit is cut off, less is no unit.
            assert_eq!(unpack(which, 4096, packed).unwrap(), plain[..4096], "{which}");
            assert_eq!(unpack(which, 5001, packed), None, "{which}");
            assert_eq!(unpack(which, 5000, &packed[..40]), None, "{which}");
            assert_eq!(unpack(which, 5000, &[]), None, "{which}");
        }
        let end = zlib.len() - 301;
        zlib[end] ^= 1;
        assert_eq!(unpack(0, 5000, &zlib), None, "a wrong checksum");
    }

    #[test]
    fn a_zstd_frame_with_a_huge_window_is_refused_before_memory_is_taken() {
        // Magic, descriptor without content size, window descriptor of 1 GiB.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        assert_eq!(super::zstd(&frame, &mut [0; 512]), None);
    }

    fn zstd_safe_frame(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        zstd_safe::compress(&mut out, plain, 3).unwrap();
        out
    }
}
