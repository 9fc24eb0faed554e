//! Where the fixed structures of each group lie.

use std::ops::Range;

use super::superblock::{Backups, Geometry};

impl Geometry {
    /// Bytes of the whole filesystem.
    pub(super) fn len(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    /// Bytes of a cluster: a power of two, at most 1 GiB.
    pub(super) fn cluster_size(&self) -> u32 {
        self.block_size * self.cluster_blocks
    }

    pub(super) fn blocks_per_group(&self) -> u64 {
        u64::from(self.clusters_per_group) * u64::from(self.cluster_blocks)
    }

    pub(super) fn first_block_of(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * self.blocks_per_group()
    }

    /// The blocks of a group; the last group may be short.
    pub(super) fn blocks_of(&self, group: u32) -> Range<u64> {
        let first = self.first_block_of(group);
        first..self.blocks.min(first + self.blocks_per_group())
    }

    /// Clusters of a group, a last partial one included.
    pub(super) fn clusters_of(&self, group: u32) -> u32 {
        let blocks = self.blocks_of(group);
        let clusters = (blocks.end - blocks.start).div_ceil(u64::from(self.cluster_blocks));
        u32::try_from(clusters).expect("a group has no more clusters than a block has bits")
    }

    /// Block of the superblock, which is always at byte 1024.
    pub(super) fn superblock_block(&self) -> u64 {
        u64::from(self.block_size == 1024)
    }

    pub(super) fn descriptors_per_block(&self) -> u32 {
        self.block_size / u32::from(self.descriptor_size)
    }

    /// Blocks of the whole descriptor table.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        u64::from(self.groups.div_ceil(self.descriptors_per_block()))
    }

    /// Where block `index` of the primary descriptor table lies.
    pub(super) fn descriptor_block(&self, index: u32) -> u64 {
        match self.first_meta_group {
            Some(first) if index >= first => {
                let group = index * self.descriptors_per_block();
                self.group_start(group) + u64::from(self.has_superblock(group))
            }
            _ => self.superblock_block() + 1 + u64::from(index),
        }
    }

    /// Where a few copies of block `index` of the descriptor table lie.
    pub(super) fn descriptor_copies(&self, index: u32) -> Vec<u64> {
        let per_block = self.descriptors_per_block();
        let place = |group: u32| self.group_start(group) + u64::from(self.has_superblock(group));
        let exists = |group: &u32| *group < self.groups;
        match self.first_meta_group {
            Some(first) if index >= first => {
                let group = index.saturating_mul(per_block);
                let copies = [group.saturating_add(1), group.saturating_add(per_block - 1)];
                copies.into_iter().filter(exists).map(place).collect()
            }
            _ => {
                let mut groups = [1, 3, 5, 7].to_vec();
                if let Backups::Two(two) = self.backups {
                    groups.extend(two);
                }
                groups.retain(|&group| group != 0 && self.has_superblock(group) && exists(&group));
                groups.into_iter().map(|group| place(group) + u64::from(index)).collect()
            }
        }
    }

    /// First block of a group where a superblock may be. Clusters of 1 KiB blocks make the
    /// boot sector part of group 0 without moving the superblock.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        self.first_block_of(group).max(self.superblock_block() * u64::from(group == 0))
    }

    /// Superblock copy and descriptor copies at the start of a group, with the blocks reserved
    /// for a growing descriptor table if `with_reserved`. Empty for groups without copies;
    /// never past the end of the group.
    pub(super) fn copies_in(&self, group: u32, with_reserved: bool) -> Range<u64> {
        let superblock = u64::from(self.has_superblock(group));
        let per_block = self.descriptors_per_block();
        let reserved = if with_reserved { u64::from(self.reserved_descriptor_blocks) } else { 0 };
        let descriptors = match self.first_meta_group {
            // With `meta_bg`, the first, second and last group of each run of groups that
            // share a descriptor block have a copy of that one block.
            Some(first) if group / per_block >= first => {
                u64::from([0, 1, per_block - 1].contains(&(group % per_block)))
            }
            Some(first) => superblock * (u64::from(first) + reserved),
            None => superblock * (self.descriptor_blocks() + reserved),
        };
        let start = self.group_start(group);
        let end = self.blocks_of(group).end.max(start);
        start..end.min(start + superblock + descriptors)
    }

    fn has_superblock(&self, group: u32) -> bool {
        match self.backups {
            _ if group == 0 => true,
            Backups::All => true,
            Backups::Sparse => group == 1 || [3, 5, 7].iter().any(|&base| is_power(group, base)),
            Backups::Two(groups) => groups.contains(&group),
        }
    }
}

fn is_power(mut number: u32, base: u32) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_told_from_products() {
        let powers: Vec<u32> = (2..400).filter(|&n| is_power(n, 3) || is_power(n, 7)).collect();
        assert_eq!(powers, [3, 7, 9, 27, 49, 81, 243, 343]);
    }
}
