//! The checksum of version 5: CRC-32C of a whole record with the field itself as zeros, stored
//! in little endian (`xfs_cksum.h`).

use crate::bytes::le32;

/// Whether `record` matches the checksum at its byte `at`.
pub(super) fn is_right(record: &[u8], at: usize) -> bool {
    let sum = crc32c::crc32c(&record[..at]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &record[at + 4..]) == le32(record, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_summed_without_its_sum() {
        let mut record = [7; 40];
        record[12..16].fill(0);
        let sum = crc32c::crc32c(&record);
        record[12..16].copy_from_slice(&sum.to_le_bytes());
        assert!(is_right(&record, 12));
        for at in 0..record.len() {
            record[at] ^= 1;
            assert!(!is_right(&record, 12), "byte {at}");
            record[at] ^= 1;
        }
    }
}
