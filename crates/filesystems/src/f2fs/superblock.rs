//! The superblock: two copies, and the places of all areas.

use aiv_volume_io::ReadAt;

use super::reason::F2fsReason;
use super::{BLOCK, BLOCK_LEN, MAGIC, SEGMENT_BLOCKS};
use crate::Error;
use crate::bytes::{le32, le64};
use crate::crc32::crc32;
use crate::stop::Stop;

/// Where the superblock is in each of the first two blocks, and how long.
const AT: usize = 1024;
const LEN: usize = BLOCK - AT;
const CHECKSUM_AT: usize = LEN - 4;
const DEVICES_AT: usize = 2201;

/// Features that change files and directories only: encryption, attributes, quotas, checksums of
/// inodes, verity, case folding, compression.
const FEATURES: u32 =
    0x1 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | SUMMED | 0x1000 | 0x2000;
const SUMMED: u32 = 0x800;

/// Where everything is, in blocks of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) checkpoint: u64,
    pub(super) sit: u64,
    /// Blocks of one of its two copies.
    pub(super) sit_blocks: u64,
    pub(super) nat: u64,
    /// Blocks of one of its two copies.
    pub(super) nat_blocks: u64,
    pub(super) main: u64,
    /// Segments of the main area.
    pub(super) segments: u64,
}

impl Superblock {
    /// Reads both copies, which must be equal and sound.
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Self, Stop> {
        if volume.len() < 2 * BLOCK_LEN {
            return Err(F2fsReason::NoSuperblock.into());
        }
        let mut blocks = vec![0; 2 * BLOCK];
        volume.read_exact_at(&mut blocks, 0).map_err(Error::io("read superblocks", 0))?;
        let [first, second] = [&blocks[AT..BLOCK], &blocks[BLOCK + AT..]];
        if le32(first, 0) != MAGIC {
            return Err(F2fsReason::NoSuperblock.into());
        }
        if first != second {
            return Err(F2fsReason::SuperblocksDiffer.into());
        }
        Ok(Self::from(first, volume.len())?)
    }

    fn from(sb: &[u8], volume_len: u64) -> Result<Self, F2fsReason> {
        let features = le32(sb, 2180);
        if features & !FEATURES != 0 {
            return Err(F2fsReason::Features { bits: features & !FEATURES });
        }
        let summed = crc32(MAGIC, &sb[..CHECKSUM_AT]) == le32(sb, CHECKSUM_AT);
        if features & SUMMED != 0 && !summed {
            return Err(F2fsReason::Checksum { section: "superblock", offset: AT as u64 });
        }
        if sb[DEVICES_AT] != 0 {
            return Err(F2fsReason::SeveralDevices);
        }
        let number = |at: usize| u64::from(le32(sb, at));
        let expect = |field, at, allowed: u64| match number(at) {
            found if found == allowed => Ok(()),
            found => {
                let allowed = allowed.to_string();
                Err(F2fsReason::Field { section: "superblock", field, found, allowed })
            }
        };
        expect("log_blocksize", 16, 12)?;
        expect("log_blocks_per_seg", 20, 9)?;
        expect("segs_per_sec", 24, 1)?;
        expect("cp_payload", 1664, 0)?;
        expect("segment_count_ckpt", 52, 2)?;
        let [sit, nat, ssa, main] = [56, 60, 64, 68].map(number);
        // Two copies of each table; both counts are of 32 bits.
        for (field, found) in [("segment_count_sit", sit), ("segment_count_nat", nat)] {
            if found == 0 || found % 2 != 0 {
                let allowed = "even, and not 0".to_owned();
                return Err(F2fsReason::Field { section: "superblock", field, found, allowed });
            }
        }
        // Each area begins where the one before ends.
        let start = number(72);
        let mut at = start;
        for (field, place, segments) in [
            ("cp_blkaddr", 76, 2),
            ("sit_blkaddr", 80, sit),
            ("nat_blkaddr", 84, nat),
            ("ssa_blkaddr", 88, ssa),
            ("main_blkaddr", 92, main),
        ] {
            expect(field, place, at)?;
            at += segments * SEGMENT_BLOCKS;
        }
        let blocks = le64(sb, 36);
        let filesystem = blocks.max(at).saturating_mul(BLOCK_LEN);
        if filesystem > volume_len {
            return Err(F2fsReason::LargerThanVolume { filesystem, volume: volume_len });
        }
        if start < 2 || at > blocks {
            let allowed = format!("{at} or more, behind two superblocks");
            let (section, field) = ("superblock", "block_count");
            return Err(F2fsReason::Field { section, field, found: blocks, allowed });
        }
        // The kernel's own limit: each of them has a summary.
        if ssa * SEGMENT_BLOCKS < main {
            let (section, field, allowed) =
                ("superblock", "segment_count_main", format!("up to {}", ssa * SEGMENT_BLOCKS));
            return Err(F2fsReason::Field { section, field, found: main, allowed });
        }
        Ok(Self {
            checkpoint: number(76),
            sit: number(80),
            sit_blocks: sit / 2 * SEGMENT_BLOCKS,
            nat: number(84),
            nat_blocks: nat / 2 * SEGMENT_BLOCKS,
            main: number(92),
            segments: main,
        })
    }
}
