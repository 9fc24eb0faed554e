//! Inodes: checked once, trusted after.

use super::super::checksum::crc32c;
use super::super::superblock::Superblock;
use super::Filesystem;
use crate::bytes::{array, le16, le32};

/// Folder everything begins in.
pub(super) const ROOT: u32 = 2;
/// First inode a user's file can have.
pub(super) const FIRST_OF_USERS: u32 = 11;

const COMPRESSED: u32 = 0x4;
const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const VERITY: u32 = 0x10_0000;
const EA_INODE: u32 = 0x20_0000;
const INLINE_DATA: u32 = 0x1000_0000;

/// Place and size of the block map in an inode.
const MAP_AT: usize = 0x28;
const MAP_LEN: usize = 60;

/// What kind of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    /// A device, pipe, socket, or a reserved inode without a type.
    Other,
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
        Ok(Some(Self {
            number,
            kind: match mode >> 12 {
                0x8 => Kind::File,
                0x4 => Kind::Folder,
                0xa => Kind::Link,
                _ => Kind::Other,
            },
            len: u64::from(le32(raw, 0x6c)) << 32 | u64::from(le32(raw, 0x4)),
            links,
            attributes: u64::from(le16(raw, 0x76)) << 32 | u64::from(le32(raw, 0x68)),
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
            // A short target takes the place of the map.
            Kind::Link => self.has_extents() || self.len >= MAP_LEN as u64,
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
    filesystem: &'a Filesystem<'a>,
    at: u64,
    block: Vec<u8>,
}

impl<'a> Inodes<'a> {
    pub(super) fn new(filesystem: &'a Filesystem<'a>) -> Self {
        Self { filesystem, at: u64::MAX, block: vec![0; filesystem.blocks.block_size()] }
    }

    /// The inode a name leads to. The inner error is one of the record.
    pub(super) fn read(&mut self, number: u32) -> crate::Result<Result<Inode, &'static str>> {
        let Filesystem { blocks, superblock, groups } = self.filesystem;
        let geometry = &superblock.geometry;
        let (group, index) = match number.checked_sub(1) {
            Some(n) => (n / geometry.inodes_per_group, n % geometry.inodes_per_group),
            None => return Ok(Err("there is no inode 0")),
        };
        let Some(group) = groups.get(group as usize) else {
            return Ok(Err("there are not so many inodes"));
        };
        if index >= geometry.inodes_per_group - group.inodes_unused {
            return Ok(Err("its inode was never used"));
        }
        let byte = u64::from(index) * u64::from(geometry.inode_size);
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
