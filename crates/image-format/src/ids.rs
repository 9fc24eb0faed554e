use std::fmt;

use crate::limits::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, BLOCKS_MAX};

macro_rules! hex_newtype {
    ($($(#[$doc:meta])* $name:ident[$size:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// Whether every byte is zero, which the format uses for "none".
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0 == [0; $size]
            }

            /// Parses the form `Display` prints: lower- or upper-case hexadecimal digits.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                if text.len() != 2 * $size || !text.is_ascii() {
                    return None;
                }
                let mut out = [0; $size];
                for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
                }
                Some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

hex_newtype! {
    /// Names one image file (all its segments), random.
    ImageId[16];
    /// Names a set: all images of one source disk. Derived from the source's identity.
    SetId[16];
    /// Names a recovery point: the state of one disk at one time, random.
    PointId[16];
    /// Names the points of several disks that were taken together, random.
    GroupId[16];
    /// Names one writing session, random; every frame carries the tag of its session.
    SessionTag[12];
    /// A BLAKE3 hash in one of the domains of [`crate::hash`].
    Digest[32];
}

/// Number of a block in the address space: byte offset divided by the block size.
pub type BlockIndex = u64;

/// Bytes per block: a power of two, 16 KiB to 4 MiB, fixed for a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The size of `bytes`, `None` unless a power of two from 16 KiB to 4 MiB.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= BLOCK_SIZE_MIN && bytes <= BLOCK_SIZE_MAX {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size the format recommends for a disk of `len` bytes: 64 KiB up to 16 TiB, 128 KiB
    /// up to 32 TiB, 256 KiB above, which keeps a disk below 2^28 blocks until 64 TiB.
    #[must_use]
    pub const fn recommended(len: u64) -> Self {
        const TIB: u64 = 1 << 40;
        if len <= 16 * TIB {
            Self(64 << 10)
        } else if len <= 32 * TIB {
            Self(128 << 10)
        } else {
            Self(256 << 10)
        }
    }

    /// Bytes per block.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Bytes per block, as a buffer length.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Base-two logarithm, 14 to 22.
    #[must_use]
    pub const fn log2(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// The shape of the address space an image describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    len: u64,
    block_size: BlockSize,
    sector_size: u32,
}

impl Geometry {
    /// An address space of `len` bytes. `None` when it is empty, has more than 2^40 blocks, or
    /// the logical sector size is not a power of two from 512 to 4096.
    #[must_use]
    pub const fn new(len: u64, block_size: BlockSize, sector_size: u32) -> Option<Self> {
        let sector_ok = sector_size.is_power_of_two() && sector_size >= 512 && sector_size <= 4096;
        if len == 0 || !sector_ok || len.div_ceil(block_size.0 as u64) > BLOCKS_MAX {
            return None;
        }
        Some(Self { len, block_size, sector_size })
    }

    /// Bytes in the address space, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty, by construction")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes per block.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Bytes per logical sector of the source.
    #[must_use]
    pub const fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Number of blocks, the last of which may be short.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.len.div_ceil(self.block_size.0 as u64)
    }

    /// Byte offset of a block. Exact for every block below [`Geometry::blocks`].
    #[must_use]
    pub const fn offset_of(&self, block: BlockIndex) -> u64 {
        block.saturating_mul(self.block_size.0 as u64)
    }

    /// Bytes in block `block`: the block size, less for the last one, zero beyond the end.
    #[must_use]
    pub const fn block_len(&self, block: BlockIndex) -> u32 {
        let left = self.len.saturating_sub(self.offset_of(block));
        if left < self.block_size.0 as u64 {
            // Below the block size, which is a u32.
            #[expect(clippy::cast_possible_truncation, reason = "smaller than a u32 just above")]
            let short = left as u32;
            short
        } else {
            self.block_size.0
        }
    }
}
