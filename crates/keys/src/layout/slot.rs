use super::record;

record! {
    /// One way to the chain key.
    pub(crate) struct KeySlot[1024] {
        0 => kind: u8,
        4 => memory_kib: u32,
        8 => passes: u32,
        12 => lanes: u32,
        16 => created_unix_ms: u64,
        32 => label: [u8; 64],
        96 => salt: [u8; 32],
        128 => ephemeral: [u8; 32],
        160 => recipient: [u8; 32],
        192 => wrapped: [u8; 48],
    }
}

impl KeySlot {
    /// Bytes in front of the wrapped key, which its tag proves as well.
    pub(crate) const PROVEN: usize = 192;
}
