//! The checksum of LVM2: the CRC-32 of Ethernet, begun with a number of its own and not inverted
//! at the end.

/// The sum of `bytes`.
pub(super) fn of(bytes: &[u8]) -> u32 {
    from(0xf597_a6cf, bytes)
}

fn from(start: u32, bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    bytes.iter().fold(start, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_ethernets_but_for_both_ends() {
        // The check value of that CRC for these digits.
        assert_eq!(!super::from(u32::MAX, b"123456789"), 0xcbf4_3926);
        assert_eq!(super::of(b""), 0xf597_a6cf);
    }
}
