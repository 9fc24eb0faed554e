/// Why a swap space is kept whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapReason {
    /// A system sleeps in it, to be woken after the restore.
    #[error("it holds a system that was suspended to disk")]
    Suspended,
    /// No first page ends with the magic.
    #[error("there is no swap header")]
    NoHeader,
    /// First pages of two sizes end with the magic.
    #[error("there are swap headers for two page sizes")]
    TwoPageSizes,
    /// A field of the header out of its range.
    #[error("header field {field} is {found}, allowed is {allowed}")]
    Field {
        /// Name in the kernel's header.
        field: &'static str,
        /// Value on the volume.
        found: u32,
        /// Allowed values, in words.
        allowed: &'static str,
    },
    /// The swap space claims more than there is.
    #[error("the swap space has {swap} bytes, the volume only {volume}")]
    LargerThanVolume {
        /// Bytes the header claims.
        swap: u64,
        /// Bytes of the volume.
        volume: u64,
    },
    /// The header lists pages that cannot be used.
    #[error("its header lists {pages} bad pages")]
    BadPages {
        /// How many.
        pages: u32,
    },
    /// The first page holds something beside the header.
    #[error("its first page holds something else at byte {offset}")]
    NotEmpty {
        /// Byte offset in the volume.
        offset: u64,
    },
    /// Something else was put on the volume, and left the header of the swap space in place.
    #[error("the volume carries a signature of {name} as well")]
    OtherSignature {
        /// What it is.
        name: &'static str,
    },
}
