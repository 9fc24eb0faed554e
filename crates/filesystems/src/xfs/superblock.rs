//! The superblock of allocation group 0, and the geometry it states.

use aiv_volume_io::ReadAt;

use super::checksum;
use super::features::Features;
use super::reason::XfsReason;
use crate::Error;
use crate::bytes::{array, be16, be32, be64};
use crate::stop::Stop;

pub(super) const MAGIC: [u8; 4] = *b"XFSB";
pub(super) const SECTOR_SIZE_MAX: u16 = 32_768;
/// The fields end before; the checksum covers the whole sector.
const FIELDS_LEN: usize = 512;
pub(super) const CRC_AT: usize = 224;
/// `XFS_MIN_AG_BLOCKS` and `XFS_MAX_AG_BYTES`.
const GROUP_BLOCKS_MIN: u32 = 64;
const GROUP_BYTES_MAX: u64 = 1 << 40;
/// `XFS_MIN_LOG_BYTES` is 10 MiB, which tests of XFS itself undercut; `XFS_MAX_LOG_BYTES`.
const LOG_BYTES_MIN: u64 = 64 << 10;
const LOG_BYTES_MAX: u64 = 1 << 31;

/// Sizes and places, proven to fit into each other and into the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) block_size: u32,
    pub(super) sector_size: u32,
    /// Blocks of the filesystem.
    pub(super) blocks: u64,
    /// Blocks of every allocation group but the last.
    pub(super) group_blocks: u32,
    pub(super) groups: u32,
    pub(super) log: LogPlace,
    /// Group, and block in it, of the root directory's inode.
    pub(super) root_inode: (u32, u32),
}

/// The internal log: consecutive blocks of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub(super) group: u32,
    /// Block in the group.
    pub(super) block: u32,
    pub(super) blocks: u32,
}

impl Geometry {
    pub(super) fn blocks_of(&self, group: u32) -> u32 {
        let before = u64::from(group) * u64::from(self.group_blocks);
        let left = self.blocks.saturating_sub(before).min(self.group_blocks.into());
        u32::try_from(left).unwrap_or(self.group_blocks)
    }

    /// Byte offset of a block of a group.
    pub(super) fn offset_of(&self, group: u32, block: u32) -> u64 {
        // Blocks lie inside the filesystem, whose length in bytes fits.
        let block = u64::from(group) * u64::from(self.group_blocks) + u64::from(block);
        block * u64::from(self.block_size)
    }

    /// Bits that a block in its group takes in an address.
    pub(super) fn group_log(&self) -> u32 {
        self.group_blocks.next_power_of_two().trailing_zeros()
    }

    pub(super) fn filesystem_len(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// Blocks at the start of every group that hold its four header sectors.
    pub(super) fn header_blocks(&self) -> u32 {
        (4 * self.sector_size).div_ceil(self.block_size)
    }
}

/// What the superblock says, checked.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    pub(super) uuid: [u8; 16],
    /// The identity that metadata of version 5 carry.
    pub(super) meta_uuid: [u8; 16],
    pub(super) free_blocks: u64,
}

impl Superblock {
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Self, Stop> {
        let mut sector = vec![0; FIELDS_LEN];
        if volume.len() < sector.len() as u64 {
            return Err(XfsReason::NoSuperblock.into());
        }
        volume.read_exact_at(&mut sector, 0).map_err(Error::io("read superblock", 0))?;
        if array(&sector, 0) != MAGIC {
            return Err(XfsReason::NoSuperblock.into());
        }
        let sector_size = be16(&sector, 102);
        if !sector_size.is_power_of_two() || !(512..=SECTOR_SIZE_MAX).contains(&sector_size) {
            let allowed = "a power of two, 512 to 32768";
            return Err(field("sb_sectsize", sector_size.into(), allowed).into());
        }
        if volume.len() < u64::from(sector_size) {
            return Err(XfsReason::NoSuperblock.into());
        }
        sector.resize(sector_size.into(), 0);
        volume.read_exact_at(&mut sector, 0).map_err(Error::io("read superblock", 0))?;
        Self::parse(&sector, volume.len())
    }

    fn parse(sector: &[u8], volume_len: u64) -> Result<Self, Stop> {
        let features = Features::check(sector)?;
        if features.self_describing && !checksum::is_right(sector, CRC_AT) {
            return Err(XfsReason::Checksum { section: "superblock", offset: 0 }.into());
        }
        if sector[126] != 0 {
            return Err(XfsReason::InProgress.into());
        }
        // `sb_rblocks` and `sb_rextents`. The extent size is set without such a device, too.
        if be64(sector, 16) != 0 || be64(sector, 24) != 0 {
            return Err(XfsReason::Realtime.into());
        }
        let geometry = geometry(sector, volume_len)?;
        let uuid = array(sector, 32);
        Ok(Self {
            geometry,
            features,
            uuid,
            meta_uuid: if features.meta_uuid { array(sector, 248) } else { uuid },
            free_blocks: be64(sector, 144),
        })
    }
}

fn geometry(sector: &[u8], volume_len: u64) -> Result<Geometry, XfsReason> {
    let mut geometry = sizes(sector, volume_len)?;
    geometry.log = log_place(sector, &geometry)?;
    geometry.root_inode = root_inode(sector, &geometry)?;
    Ok(geometry)
}

/// The geometry without the places of the log and the root directory.
pub(super) fn sizes(sector: &[u8], volume_len: u64) -> Result<Geometry, XfsReason> {
    let (block_size, blocks) = (be32(sector, 4), be64(sector, 8));
    let sector_size = u32::from(be16(sector, 102));
    let (group_blocks, groups) = (be32(sector, 84), be32(sector, 88));
    if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
        return Err(field("sb_blocksize", block_size.into(), "a power of two, 512 to 65536"));
    }
    if u32::from(sector[120]) != block_size.trailing_zeros() {
        return Err(field("sb_blocklog", sector[120].into(), block_size.trailing_zeros()));
    }
    if sector_size > block_size {
        return Err(field("sb_sectsize", sector_size.into(), "at most a block"));
    }
    if u32::from(sector[121]) != sector_size.trailing_zeros() {
        return Err(field("sb_sectlog", sector[121].into(), sector_size.trailing_zeros()));
    }
    let Some(filesystem) = blocks.checked_mul(block_size.into()) else {
        return Err(field("sb_dblocks", blocks, "less than 2^64 bytes"));
    };
    if filesystem > volume_len {
        return Err(XfsReason::LargerThanVolume { filesystem, volume: volume_len });
    }
    let group_bytes = u64::from(group_blocks) * u64::from(block_size);
    if group_blocks < GROUP_BLOCKS_MIN || group_bytes > GROUP_BYTES_MAX {
        return Err(field("sb_agblocks", group_blocks.into(), "64 blocks to 1 TiB"));
    }
    if u64::from(groups) != blocks.div_ceil(group_blocks.into()) || groups == 0 {
        return Err(field("sb_agcount", groups.into(), blocks.div_ceil(group_blocks.into())));
    }
    let log = LogPlace { group: 0, block: 0, blocks: 0 };
    let geometry =
        Geometry { block_size, sector_size, blocks, group_blocks, groups, log, root_inode: (0, 0) };
    if u32::from(sector[124]) != geometry.group_log() {
        return Err(field("sb_agblklog", sector[124].into(), geometry.group_log()));
    }
    let last = geometry.blocks_of(groups - 1);
    if last < GROUP_BLOCKS_MIN {
        return Err(field("sb_dblocks", blocks, "64 blocks or more in the last group"));
    }
    Ok(geometry)
}

pub(super) fn log_place(sector: &[u8], geometry: &Geometry) -> Result<LogPlace, XfsReason> {
    let (start, blocks) = (be64(sector, 48), be32(sector, 96));
    if start == 0 {
        return Err(XfsReason::ExternalLog);
    }
    let bytes = u64::from(blocks) * u64::from(geometry.block_size);
    if !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&bytes) {
        return Err(field("sb_logblocks", blocks.into(), "64 KiB to 2 GiB"));
    }
    match place(start, blocks, geometry) {
        Some((group, block)) => Ok(LogPlace { group, block, blocks }),
        None => Err(field("sb_logstart", start, "inside one group, behind its headers")),
    }
}

/// The block of the root directory's inode; an inode number is a block address with the place
/// in the block below.
pub(super) fn root_inode(sector: &[u8], geometry: &Geometry) -> Result<(u32, u32), XfsReason> {
    let (inode, per_block_log) = (be64(sector, 56), sector[123]);
    // Inodes of 256 to 2048 bytes, two or more in a block.
    let expected = sector[120].wrapping_sub(sector[122]);
    if !(8..=11).contains(&sector[122]) || per_block_log != expected || !(1..=8).contains(&expected)
    {
        return Err(field("sb_inopblog", per_block_log.into(), "block size by inode size"));
    }
    place(inode >> per_block_log, 1, geometry)
        .ok_or_else(|| field("sb_rootino", inode, "inside a group, behind its headers"))
}

/// Block addresses of XFS have the group above and the block in the group below. `None` when
/// `blocks` from there on are not all inside a group and behind its headers.
pub(super) fn place(start: u64, blocks: u32, geometry: &Geometry) -> Option<(u32, u32)> {
    let group_log = geometry.group_log();
    let group = u32::try_from(start >> group_log).ok()?;
    let block = u32::try_from(start & ((1 << group_log) - 1)).ok()?;
    let inside = group < geometry.groups
        && block >= geometry.header_blocks()
        && block.checked_add(blocks)? <= geometry.blocks_of(group);
    inside.then_some((group, block))
}

fn field(field: &'static str, found: u64, allowed: impl ToString) -> XfsReason {
    XfsReason::Field { field, found, allowed: allowed.to_string() }
}
