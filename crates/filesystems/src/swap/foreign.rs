//! Signatures behind the first page, of what [`recognise`](crate::recognise) has no name for.
//!
//! Facts: `libblkid/src/superblocks` of util-linux.

/// Every signature below lies in here, and so do first pages of all sizes.
pub(super) const HEAD_LEN: usize = 160 << 10;

const KIB: usize = 1 << 10;

/// A name, byte offsets, and the bytes found at any of them.
struct Signature(&'static str, &'static [usize], &'static [u8]);

const SIGNATURES: &[Signature] = &[
    Signature("JFS", &[32 * KIB], b"JFS1"),
    Signature("ReiserFS", &[8 * KIB + 0x34, 64 * KIB + 0x34], b"ReIsEr"),
    Signature("ReiserFS", &[8 * KIB + 20], b"ReIsEr"),
    Signature("Reiser4", &[64 * KIB], b"ReIsEr4"),
    Signature("GFS2", &[64 * KIB], &[0x01, 0x16, 0x19, 0x70]),
    Signature("OCFS2", &[4 * KIB, 8 * KIB], b"OCFSV2"),
    Signature("bcachefs", &[4 * KIB + 24], b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    Signature("bcachefs", &[4 * KIB + 24], b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    Signature("VxFS", &[8 * KIB], &[0xf5, 0xfc, 0x01, 0xa5]),
    Signature("VxFS", &[8 * KIB], &[0xa5, 0x01, 0xfc, 0xf5]),
    Signature("HPFS", &[8 * KIB], &[0x49, 0xe8, 0x95, 0xf9]),
    Signature("UDF", &[32 * KIB + 1], b"BEA01"),
    Signature("UDF", &[32 * KIB + 1], b"NSR0"),
];

/// The name of the first signature in `head`, the front of a volume.
pub(super) fn signature(head: &[u8]) -> Option<&'static str> {
    let found = |Signature(_, places, magic): &&Signature| {
        places.iter().any(|&at| head.get(at..).is_some_and(|bytes| bytes.starts_with(magic)))
    };
    SIGNATURES.iter().find(found).map(|signature| signature.0)
}
