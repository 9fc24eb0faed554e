//! The superblock: checked once, trusted after.
//!
//! Facts: kernel documentation "ext4 data structures and algorithms", `struct
//! ext4_super_block`; offsets beside each field.

use super::checksum::{self, Checksums};
use super::features::{self, Features};
use super::reason::ExtReason;
use crate::bytes::{array, le16, le32};

/// Byte offset of the first superblock in a volume.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;
/// Size of a superblock in bytes.
pub(crate) const SUPERBLOCK_SIZE: usize = 1024;

/// Groups a filesystem may have here: 128 TiB with blocks of 4 KiB. Bounds the memory for
/// their descriptors to about 100 MiB.
const GROUPS_MAX: u64 = 1 << 20;
/// 1 GiB, the limit of the kernel.
const LOG_CLUSTER_SIZE_MAX: u32 = 20;
/// `s_state` of a filesystem that was unmounted and has no errors.
pub(super) const STATE_CLEAN: u16 = 1;
/// Bit of `s_state`: errors were found.
pub(super) const STATE_ERRORS: u16 = 2;

/// Where everything is. Two superblocks with equal geometry describe the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes; a power of two, 1 KiB to 64 KiB.
    pub(super) block_size: u32,
    /// Blocks one bit of a bitmap stands for; a power of two, 1 without `bigalloc`.
    pub(super) cluster_blocks: u32,
    /// Blocks of the filesystem, counted from the start of the volume.
    pub(super) blocks: u64,
    /// First block of group 0: 1 where the boot sector fills a block of its own.
    pub(super) first_data_block: u32,
    /// A multiple of 8, at most the bits of one block.
    pub(super) clusters_per_group: u32,
    /// At least 1.
    pub(super) groups: u32,
    /// Blocks of the inode table of each group.
    pub(super) inode_table_blocks: u32,
    /// At least 1; the last group has as many as any other.
    pub(super) inodes_per_group: u32,
    /// Bytes; a power of two, 128 to the block size.
    pub(super) inode_size: u16,
    /// Bytes of a group descriptor: 32, or 64 and more.
    pub(super) descriptor_size: u16,
    /// Blocks kept free for a growing descriptor table, after each copy of it.
    pub(super) reserved_descriptor_blocks: u16,
    /// Groups of groups before this one have the classic descriptor table; all, without
    /// `meta_bg`.
    pub(super) first_meta_group: Option<u32>,
    /// Which groups start with a copy of superblock and descriptors.
    pub(super) backups: Backups,
    /// Inode of the journal, zero for none or an external one.
    pub(super) journal_inode: u32,
}

/// Which groups start with a copy of superblock and descriptors. Group 0 always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backups {
    /// Every group.
    All,
    /// Group 1 and the powers of 3, 5 and 7.
    Sparse,
    /// Only these; zero stands for none.
    Two([u32; 2]),
}

/// A superblock that holds together.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) geometry: Geometry,
    pub(super) checksums: Checksums,
    /// `s_state`: [`STATE_CLEAN`] when unmounted without errors.
    pub(super) state: u16,
    /// Where sums begin that are made whether metadata has any or not.
    pub(super) seed: u32,
    pub(super) has_journal: bool,
    /// Block numbers have more than 32 bits.
    pub(super) is_wide: bool,
    pub(super) has_large_folders: bool,
    /// Allocated sizes have 48 bits.
    pub(super) has_huge_files: bool,
    /// A journal waits to be replayed.
    pub(super) needs_recovery: bool,
    /// Block of the multi-mount protection record.
    pub(super) mmp_block: Option<u64>,
    /// Names of folders stand beside the kind of their file.
    pub(super) has_entry_kinds: bool,
    /// Files may have blocks in common.
    pub(super) shares_blocks: bool,
    /// Inodes of the filesystem's own files, wherever they are; zero for none.
    pub(super) special_inodes: [u32; 5],
}

impl Superblock {
    /// Checks a superblock of a volume of `volume_len` bytes.
    pub(super) fn parse(sb: &[u8; SUPERBLOCK_SIZE], volume_len: u64) -> Result<Self, ExtReason> {
        let superblock = Self::parse_with(sb, Features::check)?;
        if superblock.state != STATE_CLEAN {
            return Err(ExtReason::NotClean { state: superblock.state });
        }
        let size = superblock.geometry.len();
        if size > volume_len {
            return Err(ExtReason::LargerThanVolume { filesystem: size, volume: volume_len });
        }
        Ok(superblock)
    }

    /// Checks a superblock as far as who reads files hangs on it: the filesystem need not be
    /// clean, and may reach beyond the volume.
    pub(super) fn parse_to_read(sb: &[u8; SUPERBLOCK_SIZE]) -> Result<Self, ExtReason> {
        Self::parse_with(sb, Features::check_to_read)
    }

    fn parse_with(
        sb: &[u8; SUPERBLOCK_SIZE],
        check: fn(u32, u32, u32) -> Result<Features, ExtReason>,
    ) -> Result<Self, ExtReason> {
        if le16(sb, 0x38) != 0xef53 {
            return Err(ExtReason::NoSuperblock);
        }
        let features = match le32(sb, 0x4c) {
            // Revision 0 has neither feature bits nor inode sizes.
            0 => check(0, 0, 0)?,
            1 => check(le32(sb, 0x5c), le32(sb, 0x60), le32(sb, 0x64))?,
            found => return Err(field("s_rev_level", found, "0 or 1")),
        };
        let checksums = Self::checksums(sb, features)?;
        let geometry = Geometry::parse(sb, features)?;
        let mmp = features.incompat(features::INCOMPAT_MMP);
        Ok(Self {
            checksums,
            state: le16(sb, 0x3a),
            seed: Self::seed(sb, features),
            has_journal: features.compat(features::COMPAT_HAS_JOURNAL),
            is_wide: features.incompat(features::INCOMPAT_64BIT),
            has_large_folders: features.incompat(features::INCOMPAT_LARGE_DIR),
            has_huge_files: features.ro_compat(features::RO_COMPAT_HUGE_FILE),
            needs_recovery: features.incompat(features::INCOMPAT_RECOVER),
            has_entry_kinds: features.incompat(features::INCOMPAT_FILETYPE),
            shares_blocks: features.ro_compat(features::RO_COMPAT_SHARED_BLOCKS),
            // Journal, quotas of users, groups and projects, list of orphans.
            special_inodes: [0xe0, 0x240, 0x244, 0x26c, 0x280].map(|at| le32(sb, at)),
            mmp_block: mmp.then(|| u64::from_le_bytes(array(sb, 0x168))),
            geometry,
        })
    }

    fn checksums(sb: &[u8; SUPERBLOCK_SIZE], features: Features) -> Result<Checksums, ExtReason> {
        const CRC32C: u8 = 1;
        let uuid = array(sb, 0x68);
        if !features.ro_compat(features::RO_COMPAT_METADATA_CSUM) {
            return Ok(if features.ro_compat(features::RO_COMPAT_GDT_CSUM) {
                Checksums::Descriptors { uuid }
            } else {
                Checksums::None
            });
        }
        if sb[0x175] != CRC32C {
            return Err(field("s_checksum_type", sb[0x175], "1 (crc32c)"));
        }
        if !checksum::superblock_is_right(sb) {
            let offset = SUPERBLOCK_OFFSET as u64;
            return Err(ExtReason::Checksum { section: "superblock", offset });
        }
        Ok(Checksums::Metadata { seed: Self::seed(sb, features) })
    }

    fn seed(sb: &[u8; SUPERBLOCK_SIZE], features: Features) -> u32 {
        match features.incompat(features::INCOMPAT_CSUM_SEED) {
            true => le32(sb, 0x270),
            false => checksum::crc32c(!0, &array::<16>(sb, 0x68)),
        }
    }
}

impl Geometry {
    fn parse(sb: &[u8; SUPERBLOCK_SIZE], features: Features) -> Result<Self, ExtReason> {
        let log_block_size = le32(sb, 0x18);
        if log_block_size > 6 {
            return Err(field("s_log_block_size", log_block_size, "0 to 6"));
        }
        let block_size = 1024u32 << log_block_size;
        let bits_per_block = block_size * 8;
        let cluster_blocks = Self::cluster_blocks(sb, features, log_block_size)?;
        let clusters_per_group = le32(sb, 0x24);
        if !(8..=bits_per_block).contains(&clusters_per_group)
            || !clusters_per_group.is_multiple_of(8)
        {
            let allowed = format!("a multiple of 8 up to {bits_per_block}");
            return Err(field("s_clusters_per_group", clusters_per_group, allowed));
        }
        let blocks_per_group = le32(sb, 0x20);
        let expected = u64::from(clusters_per_group) * u64::from(cluster_blocks);
        if u64::from(blocks_per_group) != expected {
            return Err(field("s_blocks_per_group", blocks_per_group, expected.to_string()));
        }

        let wide = features.incompat(features::INCOMPAT_64BIT);
        let blocks_hi = le32(sb, 0x150);
        if blocks_hi != 0 && !wide {
            return Err(field("s_blocks_count_hi", blocks_hi, "0 without the 64bit feature"));
        }
        let blocks = u64::from(blocks_hi) << 32 | u64::from(le32(sb, 0x4));
        let first_data_block = le32(sb, 0x14);
        // A boot sector that fills a block of its own is not counted in group 0.
        let boot_block = u32::from(block_size == 1024 && cluster_blocks == 1);
        if first_data_block != boot_block {
            return Err(field("s_first_data_block", first_data_block, boot_block.to_string()));
        }
        let groups = blocks
            .saturating_sub(u64::from(first_data_block))
            .div_ceil(u64::from(blocks_per_group));
        if !(1..=GROUPS_MAX).contains(&groups) {
            let allowed = format!("1 to {GROUPS_MAX} groups of {blocks_per_group} blocks");
            return Err(field("s_blocks_count", blocks, allowed));
        }
        let groups = u32::try_from(groups).expect("groups were just compared to their limit");

        let (inodes_per_group, inode_size) = Self::inodes(sb, block_size, groups)?;
        let inode_table_bytes = u64::from(inodes_per_group) * u64::from(inode_size);
        let inode_table_blocks = u32::try_from(inode_table_bytes.div_ceil(u64::from(block_size)))
            .expect("inodes per group and inode size were just bounded by the block size");

        let mut geometry = Self {
            block_size,
            cluster_blocks,
            blocks,
            first_data_block,
            clusters_per_group,
            groups,
            inode_table_blocks,
            inodes_per_group,
            inode_size,
            descriptor_size: Self::descriptor_size(sb, wide)?,
            reserved_descriptor_blocks: le16(sb, 0xce),
            first_meta_group: None,
            backups: Self::backups(sb, features),
            journal_inode: match features.compat(features::COMPAT_HAS_JOURNAL) {
                true => le32(sb, 0xe0),
                false => 0,
            },
        };
        if features.incompat(features::INCOMPAT_META_BG) {
            let first = le32(sb, 0x104);
            if u64::from(first) > geometry.descriptor_blocks() {
                let allowed = format!("0 to {}", geometry.descriptor_blocks());
                return Err(field("s_first_meta_bg", first, allowed));
            }
            geometry.first_meta_group = Some(first);
        }
        Ok(geometry)
    }

    fn cluster_blocks(
        sb: &[u8; SUPERBLOCK_SIZE],
        features: Features,
        log_block_size: u32,
    ) -> Result<u32, ExtReason> {
        let log_cluster_size = le32(sb, 0x1c);
        let (min, max) = match features.ro_compat(features::RO_COMPAT_BIGALLOC) {
            true => (log_block_size, LOG_CLUSTER_SIZE_MAX),
            // The field was the fragment size once; fragments were never implemented.
            false => (log_block_size, log_block_size),
        };
        if !(min..=max).contains(&log_cluster_size) {
            return Err(field("s_log_cluster_size", log_cluster_size, format!("{min} to {max}")));
        }
        Ok(1 << (log_cluster_size - log_block_size))
    }

    fn inodes(
        sb: &[u8; SUPERBLOCK_SIZE],
        block_size: u32,
        groups: u32,
    ) -> Result<(u32, u16), ExtReason> {
        let inode_size = if le32(sb, 0x4c) == 0 { 128 } else { le16(sb, 0x58) };
        if !inode_size.is_power_of_two() || inode_size < 128 || u32::from(inode_size) > block_size {
            let allowed = format!("a power of two from 128 to {block_size}");
            return Err(field("s_inode_size", inode_size, allowed));
        }
        let inodes_per_group = le32(sb, 0x28);
        if !(1..=block_size * 8).contains(&inodes_per_group) {
            let allowed = format!("1 to {}", block_size * 8);
            return Err(field("s_inodes_per_group", inodes_per_group, allowed));
        }
        let expected = u64::from(inodes_per_group) * u64::from(groups);
        if u64::from(le32(sb, 0x0)) != expected {
            return Err(field("s_inodes_count", le32(sb, 0x0), expected.to_string()));
        }
        Ok((inodes_per_group, inode_size))
    }

    fn descriptor_size(sb: &[u8; SUPERBLOCK_SIZE], wide: bool) -> Result<u16, ExtReason> {
        let size = le16(sb, 0xfe);
        match wide {
            false => Ok(32),
            true if size.is_power_of_two() && (64..=1024).contains(&size) => Ok(size),
            true => Err(field("s_desc_size", size, "a power of two from 64 to 1024")),
        }
    }

    fn backups(sb: &[u8; SUPERBLOCK_SIZE], features: Features) -> Backups {
        if features.compat(features::COMPAT_SPARSE_SUPER2) {
            Backups::Two([le32(sb, 0x24c), le32(sb, 0x250)])
        } else if features.ro_compat(features::RO_COMPAT_SPARSE_SUPER) {
            Backups::Sparse
        } else {
            Backups::All
        }
    }
}

fn field(field: &'static str, found: impl Into<u64>, allowed: impl Into<String>) -> ExtReason {
    ExtReason::Field { field, found: found.into(), allowed: allowed.into() }
}
