//! The headers of an allocation group: a copy of the superblock, AGF (free space), AGI
//! (inodes), AGFL (blocks set aside for the trees to grow), a sector each.
//!
//! Facts: `xfs_format.h`, `struct xfs_agf`, `xfs_agi`, `xfs_agfl`.

use aiv_volume_io::ReadAt;

use super::checksum;
use super::reason::XfsReason;
use super::superblock::{self, Superblock};
use super::tree::{LEVELS_MAX, Order, Root};
use crate::Error;
use crate::bytes::{array, be32};
use crate::stop::Stop;

const SUPERBLOCK: &str = "superblock copy";
const AGF: &str = "AGF";
const AGI: &str = "AGI";
const AGFL: &str = "AGFL";

/// What the headers of a group say.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) index: u32,
    pub(super) by_block: Root,
    pub(super) by_size: Root,
    pub(super) free_blocks: u32,
    pub(super) longest: u32,
    /// Blocks of the free-space trees and the reverse-mapping tree except their roots.
    pub(super) tree_blocks: u32,
    /// Blocks of the reverse-mapping tree, 0 where there is none.
    pub(super) rmap_blocks: u32,
    /// Blocks set aside: not in the trees of free space, and of no use to anyone else.
    pub(super) set_aside: Vec<u32>,
    /// Trees that a map is not read from; the number of their levels is not checked.
    pub(super) other_trees: Vec<(Order, Root)>,
}

impl Group {
    pub(super) fn read(
        volume: &dyn ReadAt,
        superblock: &Superblock,
        index: u32,
    ) -> Result<Self, Stop> {
        let sector_size = superblock.geometry.sector_size as usize;
        let mut headers = vec![0; 4 * sector_size];
        let offset = superblock.geometry.offset_of(index, 0);
        let failed = Error::io("read allocation group headers", offset);
        volume.read_exact_at(&mut headers, offset).map_err(failed)?;
        let headers = Headers { superblock, index, offset, sectors: &headers };
        headers.check_superblock_copy()?;
        let agf = headers.sector(1);
        let agi = headers.sector(2);
        let count = |section, magic: [u8; 4], sector: &[u8]| -> Result<(), Stop> {
            let length = superblock.geometry.blocks_of(index);
            headers.expect(section, "magic", be32(sector, 0), u32::from_be_bytes(magic))?;
            headers.expect(section, "version", be32(sector, 4), 1)?;
            headers.expect(section, "seqno", be32(sector, 8), index)?;
            headers.expect(section, "length", be32(sector, 12), length)
        };
        count(AGF, *b"XAGF", agf)?;
        headers.check_protection(AGF, 1, 64, 216)?;
        count(AGI, *b"XAGI", agi)?;
        headers.check_protection(AGI, 2, 296, 312)?;
        headers.group()
    }
}

struct Headers<'a> {
    superblock: &'a Superblock,
    index: u32,
    /// Byte offset in the volume.
    offset: u64,
    sectors: &'a [u8],
}

impl Headers<'_> {
    fn sector(&self, n: usize) -> &[u8] {
        let size = self.superblock.geometry.sector_size as usize;
        &self.sectors[n * size..][..size]
    }

    fn fault(
        &self,
        section: &'static str,
        field: &'static str,
        found: u32,
        expected: impl ToString,
    ) -> Stop {
        let (group, found, expected) = (self.index, found.into(), expected.to_string());
        XfsReason::Header { section, group, field, found, expected }.into()
    }

    fn expect(
        &self,
        section: &'static str,
        field: &'static str,
        found: u32,
        expected: u32,
    ) -> Result<(), Stop> {
        if found == expected { Ok(()) } else { Err(self.fault(section, field, found, expected)) }
    }

    /// Identity and checksum of a header, where the version has them.
    fn check_protection(
        &self,
        section: &'static str,
        sector: usize,
        uuid_at: usize,
        crc_at: usize,
    ) -> Result<(), Stop> {
        if !self.superblock.features.self_describing {
            return Ok(());
        }
        let bytes = self.sector(sector);
        if !checksum::is_right(bytes, crc_at) {
            let offset = self.offset + sector as u64 * bytes.len() as u64;
            return Err(XfsReason::Checksum { section, offset }.into());
        }
        if array(bytes, uuid_at) != self.superblock.meta_uuid {
            let expected = "that of the filesystem";
            return Err(self.fault(section, "uuid", be32(bytes, uuid_at), expected));
        }
        Ok(())
    }

    /// Copies are written by mkfs and when the filesystem grows; what changes every day is old
    /// in them. Its identity is of the day it was made, or of the last `xfs_admin -U`.
    fn check_superblock_copy(&self) -> Result<(), Stop> {
        let copy = self.sector(0);
        let geometry = &self.superblock.geometry;
        let magic = u32::from_be_bytes(superblock::MAGIC);
        self.expect(SUPERBLOCK, "sb_magicnum", be32(copy, 0), magic)?;
        self.expect(SUPERBLOCK, "sb_blocksize", be32(copy, 4), geometry.block_size)?;
        self.expect(SUPERBLOCK, "sb_agblocks", be32(copy, 84), geometry.group_blocks)?;
        if self.superblock.features.self_describing && !checksum::is_right(copy, superblock::CRC_AT)
        {
            return Err(XfsReason::Checksum { section: SUPERBLOCK, offset: self.offset }.into());
        }
        Ok(())
    }

    fn group(&self) -> Result<Group, Stop> {
        let (agf, agi) = (self.sector(1), self.sector(2));
        let features = self.superblock.features;
        let length = self.superblock.geometry.blocks_of(self.index);
        let free_blocks = be32(agf, 52);
        if free_blocks > length {
            return Err(self.fault(AGF, "agf_freeblks", free_blocks, "at most the group"));
        }
        // The free inode tree has its root in the AGI like the inode tree.
        let mut other_trees = Vec::new();
        for (present, order, section, field, sector, at, levels_at) in [
            (true, Order::Inodes, AGI, "agi_root", agi, 20, 24),
            (features.finobt, Order::FreeInodes, AGI, "agi_free_root", agi, 328, 332),
            (features.rmapbt, Order::Owners, AGF, "agf_rmap_root", agf, 24, 36),
            (features.reflink, Order::References, AGF, "agf_refcount_root", agf, 88, 92),
        ] {
            if present {
                let root = Root { block: be32(sector, at), levels: be32(sector, levels_at) };
                self.check_block(section, field, root.block)?;
                other_trees.push((order, root));
            }
        }
        Ok(Group {
            index: self.index,
            by_block: self.root("agf_bno_root", be32(agf, 16), be32(agf, 28))?,
            by_size: self.root("agf_cnt_root", be32(agf, 20), be32(agf, 32))?,
            free_blocks,
            longest: be32(agf, 56),
            tree_blocks: be32(agf, 60),
            rmap_blocks: if features.rmapbt { be32(agf, 80) } else { 0 },
            set_aside: self.set_aside()?,
            other_trees,
        })
    }

    /// Blocks that are pointed to lie in the group and behind its headers.
    fn check_block(
        &self,
        section: &'static str,
        field: &'static str,
        block: u32,
    ) -> Result<(), Stop> {
        let geometry = &self.superblock.geometry;
        let allowed = geometry.header_blocks()..geometry.blocks_of(self.index);
        if allowed.contains(&block) {
            Ok(())
        } else {
            let expected = format!("{} to {}", allowed.start, allowed.end - 1);
            Err(self.fault(section, field, block, expected))
        }
    }

    fn root(&self, field: &'static str, block: u32, levels: u32) -> Result<Root, Stop> {
        self.check_block(AGF, field, block)?;
        if !(1..=LEVELS_MAX).contains(&levels) {
            return Err(self.fault(AGF, "agf_levels", levels, "1 to 9"));
        }
        Ok(Root { block, levels })
    }

    /// The blocks in the AGFL, a ring that fills its sector.
    fn set_aside(&self) -> Result<Vec<u32>, Stop> {
        let (agf, agfl) = (self.sector(1), self.sector(3));
        let list_at = if self.superblock.features.self_describing {
            self.expect(AGFL, "magic", be32(agfl, 0), u32::from_be_bytes(*b"XAFL"))?;
            self.expect(AGFL, "seqno", be32(agfl, 4), self.index)?;
            self.check_protection(AGFL, 3, 8, 32)?;
            36
        } else {
            0
        };
        let entries = agfl[list_at..].as_chunks::<4>().0;
        let size = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let (first, last, count) = (be32(agf, 40), be32(agf, 44), be32(agf, 48));
        for (field, found) in [("agf_flfirst", first), ("agf_fllast", last), ("agf_flcount", count)]
        {
            if found >= size {
                return Err(self.fault(AGF, field, found, format!("less than {size}")));
            }
        }
        // Both ends lie in the ring. An empty one and a full one look alike; mkfs leaves none
        // of either, and no kernel fills one.
        let active = if count == 0 && (first + size - last) % size == 1 {
            0
        } else {
            (last + size - first) % size + 1
        };
        self.expect(AGF, "agf_flcount", count, active)?;
        let mut blocks = Vec::with_capacity(count as usize);
        for n in 0..count {
            let block = u32::from_be_bytes(entries[((first + n) % size) as usize]);
            self.check_block(AGFL, "agfl_bno", block)?;
            blocks.push(block);
        }
        Ok(blocks)
    }
}
