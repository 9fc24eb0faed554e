//! The free-space tree: a second record of what the extent tree says, where it is valid.
//!
//! It is never believed in place of the extent tree. But space it calls free and the extent tree
//! calls used, or the other way round, is a filesystem that only `btrfs check` understands.
//! Accounts of block groups that are gone mean nothing: mkfs leaves some.

use aiv_volume_io::Extent;

use super::chunks::Chunks;
use super::extents::Extents;
use super::key::{Item, Key, kind};
use super::reason::BtrfsReason;
use super::superblock::Superblock;
use super::tree::Tree;
use crate::bytes::le32;
use crate::stop::Stop;

const INFO_LEN: usize = 8;
const FLAG_BITMAPS: u32 = 1;

/// Takes the items of the free-space tree: for each block group an account, and then its free
/// extents, or bitmaps of them.
pub(super) struct FreeSpaceTree<'a> {
    superblock: &'a Superblock,
    chunks: &'a Chunks,
    extents: &'a Extents<'a>,
    /// The block group whose account came last, and its chunk, if it is not gone.
    group: Extent,
    chunk: Option<usize>,
    /// Chunks with an account.
    chunks_seen: u64,
    bitmaps: bool,
    /// Free bytes of the last block group.
    free: u64,
    /// Free extents that its account promises, less those found.
    expected: u32,
    last_end: u64,
}

impl<'a> FreeSpaceTree<'a> {
    pub(super) fn new(
        superblock: &'a Superblock,
        chunks: &'a Chunks,
        extents: &'a Extents<'a>,
    ) -> Self {
        Self {
            superblock,
            chunks,
            extents,
            group: Extent::new(0, 0),
            chunk: None,
            chunks_seen: 0,
            bitmaps: false,
            free: 0,
            expected: 0,
            last_end: 0,
        }
    }

    pub(super) fn take(&mut self, item: Item<'_>) -> Result<(), Stop> {
        let Item { key, data, leaf } = item;
        match key.kind {
            kind::FREE_SPACE_INFO if data.len() == INFO_LEN => {
                self.check_group()?;
                if key.object < self.group.end() || key.object.checked_add(key.offset).is_none() {
                    return Err(fault(leaf, "its block groups overlap"));
                }
                self.group = Extent::new(key.object, key.offset);
                self.chunk = self.chunks.starting_at(key.object);
                let same = |n: usize| self.chunks.list()[n].extent() == self.group;
                if !self.chunk.map_or(!self.chunks.touch(self.group), same) {
                    return Err(fault(leaf, "its block groups are not the chunks"));
                }
                self.chunks_seen += u64::from(self.chunk.is_some());
                self.expected = le32(data, 0);
                self.bitmaps = le32(data, 4) & FLAG_BITMAPS != 0;
                (self.free, self.last_end) = (0, key.object);
                Ok(())
            }
            kind::FREE_SPACE_EXTENT if !self.bitmaps && data.is_empty() => {
                self.check_key(leaf, key)?;
                self.add(leaf, Extent::new(key.object, key.offset))
            }
            kind::FREE_SPACE_BITMAP if self.bitmaps => {
                self.check_key(leaf, key)?;
                self.add_bitmap(leaf, key, data)
            }
            _ => Err(fault(leaf, "it has an unknown item")),
        }
    }

    /// Items lie in the block group whose account came last.
    fn check_key(&self, leaf: u64, key: Key) -> Result<(), Stop> {
        let sector_size = u64::from(self.superblock.sector_size);
        let end = key.object.checked_add(key.offset);
        if key.object < self.group.start
            || end.is_none_or(|end| end > self.group.end())
            || !key.object.is_multiple_of(sector_size)
            || !key.offset.is_multiple_of(sector_size)
            || key.offset == 0
        {
            return Err(fault(leaf, "it has an item outside its block group"));
        }
        Ok(())
    }

    fn add(&mut self, leaf: u64, free: Extent) -> Result<(), Stop> {
        if free.start < self.last_end {
            return Err(fault(leaf, "it has free extents that overlap"));
        }
        // Free extents that touch are one, except where one bitmap ends and the next begins.
        if free.start > self.last_end || self.free == 0 {
            let Some(left) = self.expected.checked_sub(1) else {
                return Err(fault(leaf, "it has more free extents than it says"));
            };
            self.expected = left;
        } else if !self.bitmaps {
            return Err(fault(leaf, "it has free extents that touch"));
        }
        self.last_end = free.end();
        self.free += free.len;
        if self.extents.occupy(free) {
            return Err(fault(leaf, "it calls space free that the extent tree calls used"));
        }
        Ok(())
    }

    fn add_bitmap(&mut self, leaf: u64, key: Key, data: &[u8]) -> Result<(), Stop> {
        let sector_size = u64::from(self.superblock.sector_size);
        let bits = key.offset / sector_size;
        if data.len() as u64 != bits.div_ceil(8) {
            return Err(fault(leaf, "it has a bitmap of another length"));
        }
        let is_free =
            |bit: u64| usize::try_from(bit / 8).is_ok_and(|at| data[at] >> (bit % 8) & 1 == 1);
        let mut start = None;
        for bit in 0..=bits {
            match (start, bit < bits && is_free(bit)) {
                (None, true) => start = Some(bit),
                (Some(first), false) => {
                    let at = key.object + first * sector_size;
                    self.add(leaf, Extent::new(at, (bit - first) * sector_size))?;
                    start = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The free space of the last block group is all that its extents leave.
    fn check_group(&self) -> Result<(), BtrfsReason> {
        let Some(n) = self.chunk else { return Ok(()) };
        let chunk = &self.chunks.list()[n];
        let what = format!("free space of the block group at logical byte {}", chunk.logical);
        let found = self.extents.free_in(n);
        if self.free != found {
            return Err(BtrfsReason::Count { what, recorded: self.free, found });
        }
        if self.expected != 0 {
            let (what, recorded) = (format!("number of extents of {what}"), self.expected.into());
            return Err(BtrfsReason::Count { what, recorded, found: 0 });
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), BtrfsReason> {
        self.check_group()?;
        let (recorded, found) = (self.chunks_seen, self.chunks.list().len() as u64);
        if recorded != found {
            let what = "number of block groups with free space".to_owned();
            return Err(BtrfsReason::Count { what, recorded, found });
        }
        Ok(())
    }
}

fn fault(block: u64, what: &'static str) -> Stop {
    BtrfsReason::Tree { tree: Tree::FREE_SPACE.name, block, what }.into()
}
