use super::record;

record! {
    /// The first KiB of a copy of the key-slot area.
    pub(crate) struct KeyAreaHead[1024] {
        0 => magic: [u8; 8],
        8 => generation: u64,
        16 => key_commitment: [u8; 32],
        48 => count: u32,
        52 => flags: u32,
        64 => mac: [u8; 32],
        992 => hash: [u8; 32],
    }
}
