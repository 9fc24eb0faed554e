//! The bytes of the key-slot area, as the tables of `docs/format.md` have them; `cargo xtask
//! tidy` compares the two. Raw is what the disk says; what is believed of it stands in
//! `area.rs` and `slot.rs`.

mod head;
mod slot;

pub(crate) use head::KeyAreaHead;
pub(crate) use slot::KeySlot;

/// A value of fixed size in a record, little-endian.
pub(crate) trait Field: Sized {
    fn get(bytes: &[u8]) -> Self;
    fn put(&self, out: &mut [u8]);
}

macro_rules! integer_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn get(bytes: &[u8]) -> Self {
                <$ty>::from_le_bytes(Field::get(bytes))
            }
            fn put(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
integer_field!(u8, u32, u64);

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
        $vis struct $name { $(pub(crate) $field: $ty,)* }

        impl $name {
            /// Bytes of the record.
            pub(crate) const SIZE: usize = $size;
            const FIELDS: &[(usize, usize)] = &[$(($offset, size_of::<$ty>())),*];

            pub(crate) fn decode(bytes: &[u8; $size]) -> Self {
                Self { $($field: crate::layout::Field::get(
                    &bytes[$offset..$offset + size_of::<$ty>()]),)* }
            }

            pub(crate) fn encode(&self) -> [u8; $size] {
                let mut out = [0; $size];
                $(crate::layout::Field::put(
                    &self.$field, &mut out[$offset..$offset + size_of::<$ty>()]);)*
                out
            }

            /// Whether every byte that no field covers is zero.
            pub(crate) fn reserved_is_zero(bytes: &[u8; $size]) -> bool {
                Self::decode(bytes).encode() == *bytes
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
