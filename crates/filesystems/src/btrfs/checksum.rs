//! The checksum of superblocks and tree blocks: over all but the first 32 bytes, which hold it.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use sha2::Sha256;
use twox_hash::XxHash64;

use super::reason::BtrfsReason;

/// Room for a checksum; shorter ones are followed by zeros.
pub(super) const FIELD_LEN: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Algorithm {
    pub(super) fn of_type(found: u16) -> Result<Self, BtrfsReason> {
        match found {
            0 => Ok(Self::Crc32c),
            1 => Ok(Self::XxHash64),
            2 => Ok(Self::Sha256),
            3 => Ok(Self::Blake2b),
            found => Err(BtrfsReason::ChecksumType { found }),
        }
    }

    /// Bytes of a checksum where they are not filled up.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::XxHash64 => 8,
            Self::Sha256 | Self::Blake2b => FIELD_LEN,
        }
    }

    /// Whether a record, longer than the field, matches the checksum at its front.
    pub(super) fn is_right(self, record: &[u8]) -> bool {
        let (field, content) = record.split_at(FIELD_LEN);
        self.is_sum_of(field, content)
    }

    /// Whether `field`, which may be longer than the checksum, begins with that of `content`.
    pub(super) fn is_sum_of(self, field: &[u8], content: &[u8]) -> bool {
        match self {
            Self::Crc32c => field.starts_with(&crc32c::crc32c(content).to_le_bytes()),
            Self::XxHash64 => field.starts_with(&XxHash64::oneshot(0, content).to_le_bytes()),
            Self::Sha256 => field.starts_with(&Sha256::digest(content)),
            Self::Blake2b => field.starts_with(&Blake2b::<U32>::digest(content)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 0 to 99, summed by Python.
    #[test]
    fn each_algorithm_is_the_one_it_is_called() {
        let content: Vec<u8> = (0..100).collect();
        for (kind, sum) in [
            (0, "e5ebcac1"),
            (1, "9765163280e5c16a"),
            (2, "bce0aff19cf5aa6a7469a30d61d04e4376e4bbf6381052ee9e7f33925c954d52"),
            (3, "5ac86383dec1db602fdbc2c978c3fe1bf4328fea1e1b495b68be2c3b67ba033b"),
        ] {
            let digits = sum.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
            let sum: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            let algorithm = Algorithm::of_type(kind).unwrap();
            let mut record = vec![0; FIELD_LEN];
            record[..sum.len()].copy_from_slice(&sum);
            record.extend(&content);
            assert!(algorithm.is_right(&record), "{algorithm:?}");
            for at in (0..sum.len()).chain(FIELD_LEN..record.len()) {
                record[at] ^= 1;
                assert!(!algorithm.is_right(&record), "{algorithm:?}: byte {at}");
                record[at] ^= 1;
            }
        }
        assert_eq!(Algorithm::of_type(4), Err(BtrfsReason::ChecksumType { found: 4 }));
    }
}
