//! Inodes: checked once, trusted after.

use super::blocks::Blocks;
use super::checksum::crc32c;
use super::groups::Group;
use super::superblock::{Geometry, Superblock};
use crate::FileFlags;
use crate::bytes::{array, le16, le32};

/// Folder everything begins in.
pub(super) const ROOT: u32 = 2;
/// First inode a user's file can have.
pub(super) const FIRST_OF_USERS: u32 = 11;

const COMPRESSED: u32 = 0x4;
const IMMUTABLE: u32 = 0x10;
const APPEND_ONLY: u32 = 0x20;
const NO_DUMP: u32 = 0x40;
/// Some of its blocks are compressed indeed.
const COMPRESSED_BLOCKS: u32 = 0x200;
const ENCRYPTED: u32 = 0x800;
/// Its allocated size is in blocks.
const HUGE_FILE: u32 = 0x4_0000;
const EXTENTS: u32 = 0x8_0000;
const VERITY: u32 = 0x10_0000;
const EA_INODE: u32 = 0x20_0000;
const INLINE_DATA: u32 = 0x1000_0000;
const CASE_FOLDED: u32 = 0x4000_0000;

/// Bytes an inode has at least.
pub(super) const GOOD_OLD_LEN: usize = 128;

/// Place and size of the block map in an inode.
const MAP_AT: usize = 0x28;
pub(super) const MAP_LEN: usize = 60;

/// What kind of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    /// A device, pipe, socket, or a reserved inode without a type.
    Other,
}

/// Where an inode lies: its group, and its byte in the inode table of that; nothing where there
/// are not so many.
pub(super) fn place_of(number: u32, geometry: &Geometry) -> Option<(u32, u64)> {
    let before = number.checked_sub(1)?;
    let group = before / geometry.inodes_per_group;
    let index = before % geometry.inodes_per_group;
    let at = u64::from(index) * u64::from(geometry.inode_size);
    (group < geometry.groups).then_some((group, at))
}

/// An inode in use.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) len: u64,
    pub(super) links: u16,
    /// Block of extended attributes, zero for none. Several inodes may share one.
    pub(super) attributes: u64,
    /// Where checksums of what belongs to the inode start from.
    pub(super) seed: Option<u32>,
    pub(super) map: [u8; MAP_LEN],
    flags: u32,
    sectors: u64,
    /// Of those, how many may be of its block of attributes.
    attribute_sectors: u64,
}

impl Inode {
    /// The inode in its bytes of the table, or nothing when it is not in use.
    pub(super) fn parse(
        number: u32,
        raw: &[u8],
        superblock: &Superblock,
    ) -> Result<Option<Self>, &'static str> {
        let mode = le16(raw, 0x0);
        let (links, removed) = (le16(raw, 0x1a), le32(raw, 0x14));
        let map: [u8; MAP_LEN] = array(raw, MAP_AT);
        // The inode of bad blocks has neither type nor name.
        let reserved = number < FIRST_OF_USERS && map.iter().any(|&byte| byte != 0);
        if links == 0 && !reserved && (mode == 0 || removed != 0) {
            return Ok(None);
        }
        let generation: [u8; 4] = array(raw, 0x64);
        let seed = superblock.checksums.seed();
        let seed = seed.map(|seed| crc32c(crc32c(seed, &number.to_le_bytes()), &generation));
        if let Some(seed) = seed
            && !checksum_is_right(seed, raw)
        {
            return Err("its checksum is wrong");
        }
        let kind = match mode >> 12 {
            0x8 => Kind::File,
            0x4 => Kind::Folder,
            0xa => Kind::Link,
            _ => Kind::Other,
        };
        // Of anything else the upper half was something different once.
        let long = kind == Kind::File || superblock.has_large_folders;
        let len_high = if long { u64::from(le32(raw, 0x6c)) << 32 } else { 0 };
        let attributes_high = if superblock.is_wide { u64::from(le16(raw, 0x76)) << 32 } else { 0 };
        let attributes = attributes_high | u64::from(le32(raw, 0x68));
        Ok(Some(Self {
            number,
            kind,
            len: len_high | u64::from(le32(raw, 0x4)),
            links,
            attributes,
            attribute_sectors: match attributes {
                0 => 0,
                _ => u64::from(superblock.geometry.cluster_size() / 512),
            },
            seed,
            map,
            flags: le32(raw, 0x20),
            sectors: u64::from(le16(raw, 0x74)) << 32 | u64::from(le32(raw, 0x1c)),
        }))
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    pub(super) fn is_inline(&self) -> bool {
        self.flags & INLINE_DATA != 0
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }

    /// Whether its bytes are to be decompressed. The mark of [`is_compressed`](Self::is_compressed)
    /// is a wish that most kernels keep and none but those of e2compr fulfils.
    pub(super) fn has_compressed_blocks(&self) -> bool {
        self.flags & COMPRESSED_BLOCKS != 0
    }

    pub(super) fn is_case_folded(&self) -> bool {
        self.flags & CASE_FOLDED != 0
    }

    /// Bytes it takes on the volume.
    pub(super) fn allocated(&self, superblock: &Superblock) -> u64 {
        match superblock.has_huge_files {
            false => (self.sectors & 0xffff_ffff) * 512,
            true if self.flags & HUGE_FILE == 0 => self.sectors * 512,
            true => self.sectors.saturating_mul(u64::from(superblock.geometry.block_size)),
        }
    }

    /// What it is marked as.
    pub(super) fn marks(&self) -> FileFlags {
        let is = |bit: u32| self.flags & bit != 0;
        FileFlags::default()
            .with(FileFlags::COMPRESSED, is(COMPRESSED_BLOCKS))
            .with(FileFlags::ENCRYPTED, is(ENCRYPTED))
            .with(FileFlags::IMMUTABLE, is(IMMUTABLE))
            .with(FileFlags::APPEND_ONLY, is(APPEND_ONLY))
            .with(FileFlags::NO_DUMP, is(NO_DUMP))
            .with(FileFlags::CASE_FOLDED, is(CASE_FOLDED) && self.kind == Kind::Folder)
            .with(FileFlags::VERITY, is(VERITY))
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.flags & VERITY != 0
    }

    pub(super) fn is_attribute(&self) -> bool {
        self.flags & EA_INODE != 0
    }

    /// Whether its map is one, and not the data itself, a device number or nothing.
    pub(super) fn has_map(&self) -> bool {
        let reserved = self.number < FIRST_OF_USERS;
        match self.kind {
            _ if self.is_inline() => false,
            Kind::File | Kind::Folder => true,
            // A short target takes the place of the map. Early ones had a block all the same.
            Kind::Link => {
                let is_short = self.len < MAP_LEN as u64;
                self.has_extents() || !is_short || self.sectors > self.attribute_sectors
            }
            Kind::Other => reserved && self.sectors != 0,
        }
    }
}

fn checksum_is_right(seed: u32, raw: &[u8]) -> bool {
    const LOW_AT: usize = 0x7c;
    const HIGH_AT: usize = 0x82;
    let mut sum = crc32c(crc32c(seed, &raw[..LOW_AT]), &[0; 2]);
    let mut stored = u32::from(le16(raw, LOW_AT));
    if raw.len() > 128 && le16(raw, 0x80) >= 4 {
        stored |= u32::from(le16(raw, HIGH_AT)) << 16;
        sum = crc32c(sum, &raw[LOW_AT + 2..HIGH_AT]);
        sum = crc32c(crc32c(sum, &[0; 2]), &raw[HIGH_AT + 2..]);
        sum == stored
    } else {
        sum = crc32c(sum, &raw[LOW_AT + 2..]);
        sum & 0xffff == stored
    }
}

/// Reads inodes one by one, with the block the last one was in.
pub(super) struct Inodes<'a> {
    blocks: &'a Blocks<'a>,
    superblock: &'a Superblock,
    groups: &'a [Group],
    at: u64,
    block: Vec<u8>,
}

impl<'a> Inodes<'a> {
    pub(super) fn new(
        blocks: &'a Blocks<'a>,
        superblock: &'a Superblock,
        groups: &'a [Group],
    ) -> Self {
        let block = vec![0; blocks.block_size()];
        Self { blocks, superblock, groups, at: u64::MAX, block }
    }

    /// The inode a name leads to. The inner error is one of the record.
    pub(super) fn read(&mut self, number: u32) -> crate::Result<Result<Inode, &'static str>> {
        let Self { blocks, superblock, groups, .. } = self;
        let geometry = &superblock.geometry;
        let Some((group, byte)) = place_of(number, geometry) else {
            return Ok(Err("there is no such inode"));
        };
        let Some(group) = groups.get(group as usize) else {
            return Ok(Err("there is no such inode"));
        };
        let used = geometry.inodes_per_group - group.inodes_unused;
        if byte >= u64::from(used) * u64::from(geometry.inode_size) {
            return Ok(Err("its inode was never used"));
        }
        let (block, at) = (byte / self.block.len() as u64, byte % self.block.len() as u64);
        let block = group.inode_table + block;
        if self.at != block {
            self.at = u64::MAX;
            blocks.read("read inode", block, &mut self.block)?;
            self.at = block;
        }
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        // Sizes of inodes and blocks are powers of two: no inode crosses blocks.
        let raw = &self.block[at..at + usize::from(geometry.inode_size)];
        let inode = Inode::parse(number, raw, superblock);
        Ok(inode.and_then(|inode| inode.ok_or("its inode is not in use")))
    }
}
