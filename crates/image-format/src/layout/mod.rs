//! Bytes to checked types and back: pure, without I/O and without allocation.
//!
//! Each record of `docs/format.md` is declared once with the `record!` macro, whose lines
//! mirror the tables of the document (`cargo xtask tidy` compares them), and a checked type
//! beside it: raw is what the disk says, checked is what we believe.

mod checkpoint;
mod delta;
mod entry;
mod features;
mod frame;
mod local;
mod page;
mod segment;
mod superblock;
mod trailer;

pub(crate) use checkpoint::{Checkpoint, CheckpointHead, ORIGIN_SIZE};
pub use delta::DeltaHead;
pub(crate) use entry::covering;
pub use entry::{IndexEntry, Kind};
pub use features::Features;
pub use frame::FrameKind;
pub(crate) use frame::{
    FRAME_CLEAR, FRAME_HEADER_SIZE, FrameHeader, INNER_HEAD_SIZE, TAG_SIZE, frame_size,
};
pub use local::{LocalHead, NamedBase};
pub(crate) use page::{
    INDEX_ENTRIES_PER_PAGE, InnerEntry, PAGE_BODY, PAGE_CLEAR, PAGE_HASHES_PER_PAGE, PAGE_TAG,
    PageHeader, PageKind, TreeNode,
};
pub(crate) use segment::{SegmentPlace, SegmentTrailer};
pub use superblock::{ImageKind, ParentLink, Superblock};
pub use trailer::{Totals, Trailer};

use crate::limits::PAGE_SIZE;

/// A value of fixed size in a record, little-endian.
pub(crate) trait Field: Sized {
    fn get(bytes: &[u8]) -> Self;
    fn put(&self, out: &mut [u8]);
}

macro_rules! integer_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$ty>()];
                raw.copy_from_slice(bytes);
                <$ty>::from_le_bytes(raw)
            }
            fn put(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
integer_field!(u8, u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    fn get(bytes: &[u8]) -> Self {
        let mut raw = [0; N];
        raw.copy_from_slice(bytes);
        raw
    }
    fn put(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

/// Declares a record: its size, and each field with its offset. Offsets are checked at compile
/// time to ascend without overlap and to stay inside; bytes no field covers are reserved.
macro_rules! record {
    ($(#[$doc:meta])* $vis:vis struct $name:ident[$size:literal] {
        $($offset:literal => $field:ident: $ty:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name { $(pub(super) $field: $ty,)* }

        impl $name {
            const FIELDS: &[(usize, usize)] = &[$(($offset, size_of::<$ty>())),*];

            fn decode(bytes: &[u8; $size]) -> Self {
                Self { $($field: crate::layout::Field::get(
                    &bytes[$offset..$offset + size_of::<$ty>()]),)* }
            }

            fn encode(&self) -> [u8; $size] {
                let mut out = [0; $size];
                $(crate::layout::Field::put(
                    &self.$field, &mut out[$offset..$offset + size_of::<$ty>()]);)*
                out
            }

            /// Offset of the first byte that no field covers and that is not zero.
            #[allow(dead_code, reason = "records without reserved bytes do not ask")]
            fn first_reserved_set(bytes: &[u8; $size]) -> Option<usize> {
                crate::layout::first_reserved_set(bytes, Self::FIELDS)
            }
        }

        const _: () = crate::layout::assert_sound($name::FIELDS, $size);
    };
}
pub(crate) use record;

pub(crate) const fn assert_sound(fields: &[(usize, usize)], size: usize) {
    let (mut i, mut end) = (0, 0);
    while i < fields.len() {
        assert!(fields[i].0 >= end, "fields ascend and do not overlap");
        end = fields[i].0 + fields[i].1;
        i += 1;
    }
    assert!(end <= size, "fields stay inside the record");
}

fn first_reserved_set(bytes: &[u8], fields: &[(usize, usize)]) -> Option<usize> {
    let mut at = 0;
    for &(offset, size) in fields.iter().chain([&(bytes.len(), 0)]) {
        if let Some(set) = first_nonzero(&bytes[at..offset]) {
            return Some(at + set);
        }
        at = offset + size;
    }
    None
}

/// Position of the first byte that is not zero. Compares whole pages before it looks at bytes.
pub(crate) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
    let dirty = bytes.chunks(PAGE_SIZE).position(|chunk| *chunk != ZEROS[..chunk.len()])?;
    let from = dirty * PAGE_SIZE;
    bytes[from..].iter().position(|&b| b != 0).map(|at| from + at)
}

/// CRC-32C over a salt and the bytes: a record of one type never passes for another.
pub(crate) fn salted_crc(salt: [u8; 8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt), bytes)
}
