//! Group descriptors.

use aiv_volume_io::{Extent, ExtentSet, Job};

use super::blocks::{Blocks, STRIDE};
use super::reason::ExtReason;
use super::superblock::{Geometry, Superblock};
use crate::Error;
use crate::bytes::{le16, le32};
use crate::stop::Stop;

/// `bg_flags`: the block bitmap was never written; nothing but metadata is used.
const BLOCK_UNINIT: u16 = 0x2;

/// `bg_flags`: no inode of the group was ever used.
const INODE_UNINIT: u16 = 0x1;

const WRONG_SUM: &str = "checksum of a group descriptor";

/// What tells that an inode table is where it is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The descriptor of the group.
    Own,
    /// A copy of it.
    Copy,
    /// Neither: no checksum is right.
    Nothing,
}

/// What a group descriptor says. All blocks lie inside the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    /// Clusters with `bigalloc`, else blocks.
    pub(super) free_clusters: u32,
    /// CRC-32C of the block bitmap, of which `bitmap_checksum_mask` is stored.
    pub(super) bitmap_checksum: u32,
    pub(super) bitmap_checksum_mask: u32,
    /// The block bitmap on the disk means nothing.
    pub(super) uninitialised: bool,
    /// Inodes at the end of the table that were never used, and may not even be zeros; at most
    /// all of the group.
    pub(super) inodes_unused: u32,
}

impl Group {
    /// Reads the descriptors of groups `0 .. count`.
    pub(super) fn read_first(
        count: u32,
        blocks: &Blocks<'_>,
        superblock: &Superblock,
        job: Job<'_>,
    ) -> Result<Vec<Self>, Stop> {
        let geometry = &superblock.geometry;
        let per_block = geometry.descriptors_per_block();
        let table_blocks = count.div_ceil(per_block);
        let stride_blocks = u32::try_from(STRIDE / blocks.block_size()).unwrap_or(1);
        let mut groups = Vec::with_capacity(count as usize);
        let mut buffer = vec![0; STRIDE];
        let mut index = 0;
        while index < table_blocks {
            job.check()?;
            let first = geometry.descriptor_block(index);
            let run = (1..stride_blocks.min(table_blocks - index))
                .take_while(|&n| geometry.descriptor_block(index + n) == first + u64::from(n))
                .count()
                + 1;
            let bytes = &mut buffer[..run * blocks.block_size()];
            if first + run as u64 > geometry.blocks {
                let section = "descriptor table";
                let group = index * per_block;
                return Err(ExtReason::Pointer { section, group, block: first }.into());
            }
            blocks.read("read group descriptors", first, bytes)?;
            let descriptor_size = usize::from(geometry.descriptor_size);
            let start = blocks.offset_of(first);
            for (n, descriptor) in bytes.chunks_exact(descriptor_size).enumerate() {
                let group = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                if group == count {
                    break;
                }
                if !superblock.checksums.descriptor_is_right(group, descriptor) {
                    let offset = start + (n * descriptor_size) as u64;
                    let section = "group descriptor";
                    return Err(ExtReason::Checksum { section, offset }.into());
                }
                groups.push(Self::parse(descriptor, superblock).inside(group, geometry)?);
            }
            index += u32::try_from(run).unwrap_or(u32::MAX);
        }
        Ok(groups)
    }

    /// The inode table of one group by its descriptor, or by a copy of that where it is damaged.
    /// Tables stay where they are: an old copy is as good as a new one. Where none matches its
    /// checksum, the descriptor is believed as one without checksums is, if inodes have their own,
    /// which tell, or a copy says the same.
    pub(super) fn inode_table_of(
        group: u32,
        blocks: &Blocks<'_>,
        superblock: &Superblock,
    ) -> crate::Result<(u64, Proof)> {
        let geometry = &superblock.geometry;
        let per_block = geometry.descriptors_per_block();
        let (index, size) = (group / per_block, usize::from(geometry.descriptor_size));
        let at = u64::from(group % per_block) * u64::from(geometry.descriptor_size);
        let mut descriptor = vec![0; size];
        // The table, and whether the checksum is right.
        let mut table_in = |place: u64| {
            if place >= geometry.blocks {
                let reason =
                    ExtReason::Pointer { section: "descriptor table", group, block: place };
                return Err(Error::damaged(reason.to_string(), None));
            }
            blocks.read_part("read group descriptor", place, at, &mut descriptor)?;
            let offset = Some(blocks.offset_of(place) + at);
            let is_right = superblock.checksums.descriptor_is_right(group, &descriptor);
            let table = Self::parse(&descriptor, superblock).inode_table;
            let inside = u64::from(geometry.first_data_block).max(1)..geometry.blocks;
            let section = "inode table";
            match inside.contains(&table) {
                true => Ok((table, is_right, offset)),
                false if !is_right => Err(Error::damaged(WRONG_SUM, offset)),
                false => {
                    let reason = ExtReason::Pointer { section, group, block: table };
                    Err(Error::damaged(reason.to_string(), offset))
                }
            }
        };
        let first = table_in(geometry.descriptor_block(index));
        if let Ok((table, true, _)) = first {
            return Ok((table, Proof::Own));
        }
        let copies: Vec<_> = geometry.descriptor_copies(index).into_iter().map(table_in).collect();
        if let Some(&(table, ..)) = copies.iter().flatten().find(|(_, is_right, _)| *is_right) {
            return Ok((table, Proof::Copy));
        }
        let (table, _, offset) = first?;
        let mut others = copies.iter().flatten().map(|(other, ..)| *other).peekable();
        let is_proven_by_inodes = superblock.checksums.seed().is_some();
        match is_proven_by_inodes || others.peek().is_none() || others.any(|other| other == table) {
            true => Ok((table, Proof::Nothing)),
            false => Err(Error::damaged(WRONG_SUM, offset)),
        }
    }

    /// How many groups have descriptors that do not match their checksums, up to the first that
    /// cannot be read, and the first `max` of them: how many groups there are is the volume's word.
    pub(super) fn wrong_sums(
        blocks: &Blocks<'_>,
        superblock: &Superblock,
        max: usize,
        job: Job<'_>,
    ) -> crate::Result<(usize, Vec<u32>)> {
        let geometry = &superblock.geometry;
        let per_block = geometry.descriptors_per_block();
        let mut table = vec![0; blocks.block_size()];
        let (mut count, mut first) = (0, Vec::new());
        if superblock.checksums == super::checksum::Checksums::None {
            return Ok((count, first));
        }
        for index in 0..geometry.groups.div_ceil(per_block) {
            job.check()?;
            let place = geometry.descriptor_block(index);
            if place >= geometry.blocks
                || blocks.read("read group descriptors", place, &mut table).is_err()
            {
                break;
            }
            let groups = index * per_block..geometry.groups;
            let descriptors = table.chunks_exact(usize::from(geometry.descriptor_size));
            let all = groups.zip(descriptors);
            let is_wrong = |(group, descriptor): &(u32, &[u8])| {
                !superblock.checksums.descriptor_is_right(*group, descriptor)
            };
            for (group, _) in all.filter(is_wrong) {
                count += 1;
                if first.len() < max {
                    first.push(group);
                }
            }
        }
        Ok((count, first))
    }

    fn parse(descriptor: &[u8], superblock: &Superblock) -> Self {
        // Descriptors of 64 bytes and more carry the upper halves behind the classic 32.
        let wide = descriptor.len() >= 64;
        let high32 = |at: usize| if wide { u64::from(le32(descriptor, at)) << 32 } else { 0 };
        let high16 = |at: usize| if wide { u32::from(le16(descriptor, at)) << 16 } else { 0 };
        // Only a descriptor that is itself protected can be believed about its flags.
        let protected = superblock.checksums != super::checksum::Checksums::None;
        let flags = if protected { le16(descriptor, 0x12) } else { 0 };
        let inodes = superblock.geometry.inodes_per_group;
        let inodes_unused = match (protected, flags & INODE_UNINIT) {
            (false, _) => 0,
            (true, 0) => (high16(0x32) | u32::from(le16(descriptor, 0x1c))).min(inodes),
            (true, _) => inodes,
        };
        Self {
            inodes_unused,
            block_bitmap: high32(0x20) | u64::from(le32(descriptor, 0x0)),
            inode_bitmap: high32(0x24) | u64::from(le32(descriptor, 0x4)),
            inode_table: high32(0x28) | u64::from(le32(descriptor, 0x8)),
            free_clusters: high16(0x2c) | u32::from(le16(descriptor, 0xc)),
            bitmap_checksum: high16(0x38) | u32::from(le16(descriptor, 0x18)),
            bitmap_checksum_mask: if wide { u32::MAX } else { 0xffff },
            uninitialised: flags & BLOCK_UNINIT != 0,
        }
    }

    fn inside(self, group: u32, geometry: &Geometry) -> Result<Self, ExtReason> {
        let valid = u64::from(geometry.first_data_block)..geometry.blocks;
        for (section, block, count) in [
            ("block bitmap", self.block_bitmap, 1),
            ("inode bitmap", self.inode_bitmap, 1),
            ("inode table", self.inode_table, u64::from(geometry.inode_table_blocks)),
        ] {
            let end = block.checked_add(count);
            if !valid.contains(&block) || end.is_none_or(|end| end > geometry.blocks) {
                return Err(ExtReason::Pointer { section, group, block });
            }
        }
        Ok(self)
    }
}

/// Blocks (not bytes) of the bitmaps and inode tables of all groups, wherever they lie.
pub(super) fn metadata_blocks(
    groups: &[Group],
    geometry: &Geometry,
) -> Result<ExtentSet, ExtReason> {
    let set: ExtentSet = groups
        .iter()
        .flat_map(|group| {
            [
                Extent::new(group.block_bitmap, 1),
                Extent::new(group.inode_bitmap, 1),
                Extent::new(group.inode_table, u64::from(geometry.inode_table_blocks)),
            ]
        })
        .collect();
    let expected = groups.len() as u64 * (2 + u64::from(geometry.inode_table_blocks));
    if set.total_len() == expected { Ok(set) } else { Err(ExtReason::MetadataOverlap) }
}
