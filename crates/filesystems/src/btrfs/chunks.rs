//! Chunks: from logical addresses to places of the device.

use aiv_volume_io::Extent;

use super::key::{self, Item, Key, kind};
use super::reason::BtrfsReason;
use super::superblock::{Device, Superblock};
use crate::bytes::{le16, le64};
use crate::stop::Stop;

/// Chunks of a device: a kernel makes them of 1 GiB, or a tenth of a small device.
const CHUNKS_MAX: usize = 1 << 20;
const STRIPE_LEN: u64 = 64 << 10;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`, and the device items' own.
const CHUNK_OBJECT: u64 = 256;
const DEVICES_OBJECT: u64 = 1;
const FIXED_LEN: usize = 48;
const COPY_LEN: usize = 32;

const DATA: u64 = 1;
const SYSTEM: u64 = 2;
const METADATA: u64 = 4;
const RAID0: u64 = 8;
const RAID1: u64 = 16;
const DUP: u64 = 32;
const RAID10: u64 = 64;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;

/// A piece of the logical address space that lies on the device in one piece, or in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) logical: u64,
    pub(super) len: u64,
    /// Kinds of content and profile, as its block group repeats them.
    pub(super) flags: u64,
    /// Always there in what [`Self::parse`] returns.
    first: Option<u64>,
    second: Option<u64>,
}

impl Chunk {
    /// Without its places.
    fn parse_fixed(key: Key, bytes: &[u8], superblock: &Superblock) -> Result<Self, BtrfsReason> {
        let fault = |what| BtrfsReason::Chunk { logical: key.offset, what };
        if key.object != CHUNK_OBJECT || bytes.len() < FIXED_LEN + COPY_LEN {
            return Err(fault("its item is malformed"));
        }
        let (len, flags) = (le64(bytes, 0), le64(bytes, 24));
        let sector_size = u64::from(superblock.sector_size);
        let aligned = key.offset.is_multiple_of(sector_size) && len.is_multiple_of(sector_size);
        if len == 0 || !aligned || key.offset.checked_add(len).is_none() {
            return Err(fault("its length is out of range"));
        }
        if le64(bytes, 16) != STRIPE_LEN {
            return Err(fault("its stripes are not of 64 KiB"));
        }
        let content = flags & (DATA | SYSTEM | METADATA);
        if ![DATA, SYSTEM, METADATA, DATA | METADATA].contains(&content) {
            return Err(fault("its kind is unknown"));
        }
        Ok(Self { logical: key.offset, len, flags, first: None, second: None })
    }

    /// A chunk all of which lies on the device.
    fn parse(key: Key, bytes: &[u8], superblock: &Superblock) -> Result<Self, BtrfsReason> {
        let fault = |what| BtrfsReason::Chunk { logical: key.offset, what };
        let chunk = Self::parse_fixed(key, bytes, superblock)?;
        let (len, sector_size) = (chunk.len, u64::from(superblock.sector_size));
        let content = chunk.flags & (DATA | SYSTEM | METADATA);
        // RAID0 over one device is one piece, like any chunk of the profile "single".
        let copies = match chunk.flags & !content {
            0 | RAID0 => 1,
            DUP => 2,
            _ => return Err(fault("its profile needs more devices than one, or is unknown")),
        };
        if le16(bytes, 44) != copies || bytes.len() != FIXED_LEN + usize::from(copies) * COPY_LEN {
            return Err(fault("its number of stripes is not that of its profile"));
        }
        let place = |n: usize| {
            let copy = &bytes[FIXED_LEN + n * COPY_LEN..];
            let (device, physical) = (le64(copy, 0), le64(copy, 8));
            if device != superblock.device.id {
                return Err(fault("it lies on another device"));
            }
            let end = physical.checked_add(len);
            if end.is_none_or(|end| end > superblock.device.total_bytes)
                || !physical.is_multiple_of(sector_size)
            {
                return Err(fault("it lies outside the device"));
            }
            Ok(physical)
        };
        let second = if copies == 2 { Some(place(1)?) } else { None };
        Ok(Self { first: Some(place(0)?), second, ..chunk })
    }

    /// A chunk some or all of which may lie elsewhere, with the places of whole copies on the
    /// device. It has none where it is striped over several devices, or lies on others.
    pub(super) fn parse_any(
        key: Key,
        bytes: &[u8],
        superblock: &Superblock,
    ) -> Result<Self, BtrfsReason> {
        let chunk = Self::parse_fixed(key, bytes, superblock)?;
        let fault = |what| BtrfsReason::Chunk { logical: key.offset, what };
        let (stripes, sub_stripes) = (le16(bytes, 44), le16(bytes, 46));
        if stripes == 0 || bytes.len() != FIXED_LEN + usize::from(stripes) * COPY_LEN {
            return Err(fault("its number of stripes is not that of its profile"));
        }
        let is_copied = match chunk.flags & !(DATA | SYSTEM | METADATA) {
            0 | RAID0 => stripes == 1,
            DUP | RAID1 | RAID1C3 | RAID1C4 => true,
            RAID10 => stripes == 2 && sub_stripes == 2,
            _ => false,
        };
        let places = bytes[FIXED_LEN..].chunks_exact(COPY_LEN).filter_map(|copy| {
            let (device, physical) = (le64(copy, 0), le64(copy, 8));
            let is_here =
                device == superblock.device.id && physical.checked_add(chunk.len).is_some();
            is_here.then_some(physical)
        });
        let mut places = places.filter(|_| is_copied);
        Ok(Self { first: places.next(), second: places.next(), ..chunk })
    }

    pub(super) fn extent(&self) -> Extent {
        Extent::new(self.logical, self.len)
    }

    pub(super) fn holds_data(&self) -> bool {
        self.flags & DATA != 0
    }

    pub(super) fn holds_tree_blocks(&self) -> bool {
        self.flags & (SYSTEM | METADATA) != 0
    }

    fn holds_chunk_tree(&self) -> bool {
        self.flags & SYSTEM != 0
    }

    /// Places on the device, one or two.
    pub(super) fn places(&self) -> impl Iterator<Item = u64> + use<> {
        [self.first, self.second].into_iter().flatten()
    }

    /// Where an extent of this chunk lies on the device.
    pub(super) fn places_of(&self, extent: Extent) -> impl Iterator<Item = Extent> + use<> {
        let within = extent.start - self.logical;
        self.places().map(move |place| Extent::new(place + within, extent.len))
    }
}

/// Chunks by logical address, none touching the space of another.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
}

impl Chunks {
    /// The chunks in the superblock, through which the chunk tree is read.
    pub(super) fn of_superblock(superblock: &Superblock) -> Result<Self, BtrfsReason> {
        Self::bootstrap(superblock, Chunk::parse)
    }

    /// The same, of a filesystem some of which may lie on other devices.
    pub(super) fn of_any_superblock(superblock: &Superblock) -> Result<Self, BtrfsReason> {
        Self::bootstrap(superblock, Chunk::parse_any)
    }

    fn bootstrap(
        superblock: &Superblock,
        parse: fn(Key, &[u8], &Superblock) -> Result<Chunk, BtrfsReason>,
    ) -> Result<Self, BtrfsReason> {
        let mut rest = &superblock.sys_chunks[..];
        let mut list = Vec::new();
        while let Some((key, item)) = rest.split_at_checked(key::LEN) {
            let key = Key::parse(key);
            let fault = |what| BtrfsReason::Chunk { logical: key.offset, what };
            if key.kind != kind::CHUNK_ITEM || item.len() < FIXED_LEN {
                return Err(fault("the superblock's list of chunks is malformed"));
            }
            let len = FIXED_LEN + usize::from(le16(item, 44)) * COPY_LEN;
            let Some((item, behind)) = item.split_at_checked(len) else {
                return Err(fault("the superblock's list of chunks is malformed"));
            };
            let chunk = parse(key, item, superblock)?;
            if !chunk.holds_chunk_tree() {
                return Err(fault("the superblock's list has chunks of other kinds"));
            }
            list.push(chunk);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() || list.is_empty() {
            let what = "the superblock's list of chunks is malformed";
            return Err(BtrfsReason::Chunk { logical: 0, what });
        }
        list.sort_unstable_by_key(|chunk| chunk.logical);
        let mut chunks = Self::default();
        list.into_iter().try_for_each(|chunk| chunks.push(chunk))?;
        Ok(chunks)
    }

    pub(super) fn push(&mut self, chunk: Chunk) -> Result<(), BtrfsReason> {
        if self.list.last().is_some_and(|last| last.extent().end() > chunk.logical) {
            let what = "it overlaps the one before";
            return Err(BtrfsReason::Chunk { logical: chunk.logical, what });
        }
        if self.list.len() == CHUNKS_MAX {
            return Err(BtrfsReason::TooMany { what: "chunks", allowed: CHUNKS_MAX as u64 });
        }
        self.list.push(chunk);
        Ok(())
    }

    pub(super) fn list(&self) -> &[Chunk] {
        &self.list
    }

    /// The chunk with all of `extent`, and its number.
    pub(super) fn around(&self, extent: Extent) -> Option<(usize, &Chunk)> {
        let n = self.list.partition_point(|chunk| chunk.logical <= extent.start).checked_sub(1)?;
        let chunk = &self.list[n];
        let end = extent.start.checked_add(extent.len)?;
        (end <= chunk.extent().end()).then_some((n, chunk))
    }

    /// Whether a part of `space` is in any chunk.
    pub(super) fn touch(&self, space: Extent) -> bool {
        let after = self.list.partition_point(|chunk| chunk.logical < space.end());
        let last = after.checked_sub(1).map(|n| self.list[n].extent());
        last.is_some_and(|chunk| chunk.end() > space.start)
    }

    /// The number of the chunk that begins at `logical`.
    pub(super) fn starting_at(&self, logical: u64) -> Option<usize> {
        self.list.binary_search_by_key(&logical, |chunk| chunk.logical).ok()
    }
}

/// Takes the items of the chunk tree.
pub(super) struct ChunkTree<'a> {
    superblock: &'a Superblock,
    chunks: Chunks,
    device: Option<Device>,
}

impl<'a> ChunkTree<'a> {
    pub(super) fn new(superblock: &'a Superblock) -> Self {
        Self { superblock, chunks: Chunks::default(), device: None }
    }

    pub(super) fn take(&mut self, item: Item<'_>) -> Result<(), Stop> {
        let Item { key, data, leaf: block } = item;
        match key.kind {
            kind::CHUNK_ITEM => Ok(self.chunks.push(Chunk::parse(key, data, self.superblock)?)?),
            kind::DEV_ITEM
                if key.object == DEVICES_OBJECT
                    && data.len() == Device::LEN
                    && self.device.is_none() =>
            {
                self.device = Some(Device::parse(data));
                Ok(())
            }
            _ => {
                let what = "it has an unknown item";
                Err(BtrfsReason::Tree { tree: "chunk", block, what }.into())
            }
        }
    }

    /// The chunks, when device and superblock are as the superblock says.
    pub(super) fn finish(self, bootstrap: &Chunks) -> Result<Chunks, BtrfsReason> {
        if self.device != Some(self.superblock.device) {
            let what = "its device item is not that of the superblock";
            let block = self.superblock.chunk_root.logical;
            return Err(BtrfsReason::Tree { tree: "chunk", block, what });
        }
        let system = self.chunks.list.iter().filter(|chunk| chunk.holds_chunk_tree());
        let differs = system.clone().zip(&bootstrap.list).find(|(here, there)| here != there);
        if let Some((chunk, _)) = differs {
            let what = "it differs from the superblock's";
            return Err(BtrfsReason::Chunk { logical: chunk.logical, what });
        }
        if system.count() != bootstrap.list.len() {
            let what = "the superblock has more chunks of the chunk tree, or fewer";
            return Err(BtrfsReason::Chunk { logical: bootstrap.list[0].logical, what });
        }
        Ok(self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_touch_and_more_than_memory_is_set_aside_for() {
        let chunk = |n: usize| Chunk {
            logical: (n as u64) << 20,
            len: 1 << 20,
            flags: DATA,
            first: Some(0),
            second: None,
        };
        let mut chunks = Chunks { list: (0..CHUNKS_MAX - 1).map(chunk).collect() };
        let overlapping = Chunk { logical: ((CHUNKS_MAX as u64 - 1) << 20) - 4096, ..chunk(0) };
        let fault = chunks.push(overlapping).unwrap_err().to_string();
        assert!(fault.ends_with("it overlaps the one before"), "{fault}");
        chunks.push(chunk(CHUNKS_MAX - 1)).unwrap();
        let expected = BtrfsReason::TooMany { what: "chunks", allowed: CHUNKS_MAX as u64 };
        assert_eq!(chunks.push(chunk(CHUNKS_MAX)), Err(expected));
    }
}
