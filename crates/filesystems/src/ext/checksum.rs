//! The checksums of ext4: CRC-32C without its usual final inversion, and CRC-16/ARC.

use crate::bytes::{array, le32};

/// CRC-32C as ext4 and jbd2 use it: continues from `seed`, inverts neither at the start nor at
/// the end. A fresh sum starts from `!0`.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-16 with polynomial 0x8005, reflected. Only descriptors of at most 1 KiB are summed.
fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(
            crc ^ u16::from(byte),
            |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 }
            },
        )
    })
}

/// How a filesystem protects its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    /// Not at all.
    None,
    /// `uninit_bg`: group descriptors only.
    Descriptors { uuid: [u8; 16] },
    /// `metadata_csum`: everything.
    Metadata { seed: u32 },
}

/// Offset of `bg_checksum` in a group descriptor.
const DESCRIPTOR_CHECKSUM_AT: usize = 0x1e;

impl Checksums {
    /// The whole-metadata seed, where there is one.
    pub(super) fn seed(self) -> Option<u32> {
        match self {
            Self::Metadata { seed } => Some(seed),
            Self::None | Self::Descriptors { .. } => None,
        }
    }

    /// Whether a group descriptor matches its own checksum. `descriptor` has its full size.
    pub(super) fn descriptor_is_right(self, group: u32, descriptor: &[u8]) -> bool {
        let stored = u16::from_le_bytes(array(descriptor, DESCRIPTOR_CHECKSUM_AT));
        let before = &descriptor[..DESCRIPTOR_CHECKSUM_AT];
        let after = &descriptor[DESCRIPTOR_CHECKSUM_AT + 2..];
        let group = group.to_le_bytes();
        match self {
            Self::None => true,
            Self::Descriptors { uuid } => {
                let sum = crc16(crc16(crc16(!0, &uuid), &group), before);
                crc16(sum, after) == stored
            }
            Self::Metadata { seed } => {
                let sum = crc32c(crc32c(crc32c(seed, &group), before), &[0; 2]);
                crc32c(sum, after) & 0xffff == u32::from(stored)
            }
        }
    }
}

/// Whether a superblock of 1024 bytes matches its own checksum.
pub(super) fn superblock_is_right(superblock: &[u8]) -> bool {
    crc32c(!0, &superblock[..0x3fc]) == le32(superblock, 0x3fc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_have_their_catalogued_check_values() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }
}
