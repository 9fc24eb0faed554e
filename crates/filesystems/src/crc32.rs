//! CRC-32 as Ethernet has it, but begun with a number of the caller's and not inverted at the
//! end: LVM2 and F2FS.

/// The sum of `bytes`, begun with `start`.
pub(crate) fn crc32(start: u32, bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    bytes.iter().fold(start, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_ethernets_but_for_both_ends() {
        // The check value of that CRC for these digits.
        assert_eq!(!super::crc32(u32::MAX, b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc32(7, b""), 7);
    }
}
