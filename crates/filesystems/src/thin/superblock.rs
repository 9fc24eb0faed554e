use aiv_volume_io::ReadAt;

use super::record;
use crate::bytes::{le32, le64};
use crate::{Error, Result};

const MAGIC: u64 = 27_022_010;
/// What its checksum is mixed with.
const SUM: u32 = 160_774;
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
/// Bytes of a block of data: 64 KiB to 1 GiB, in steps of 64 KiB.
const LENS: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

/// What the first record says.
pub(super) struct Superblock {
    /// Bytes of a block of data.
    pub(super) block_len: u64,
    /// Root of the tree of volumes.
    pub(super) volumes: u64,
}

impl Superblock {
    pub(super) fn read(metadata: &dyn ReadAt) -> Result<Self> {
        let raw = record(metadata, 0, SUM)?;
        if le64(&raw, 32) != MAGIC {
            return Err(Error::damaged("its pool has no superblock", Some(0)));
        }
        let (version, features) = (le32(&raw, 40), le32(&raw, 360));
        if !VERSIONS.contains(&version) || features != 0 {
            let what =
                format!("pools of version {version} with features {features:#x} are not known");
            return Err(Error::Unsupported { what });
        }
        let block_len = u64::from(le32(&raw, 336)) * 512;
        if !LENS.contains(&block_len) || block_len % LENS.start() != 0 {
            return Err(Error::damaged("its pool has blocks of a length that is none", Some(336)));
        }
        Ok(Self { block_len, volumes: le64(&raw, 320) })
    }
}
