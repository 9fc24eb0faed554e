//! Tree blocks: read from one of their places, and proven to be what their parent says.

use aiv_volume_io::{Extent, ReadAt};

use super::chunks::Chunks;
use super::key::{self, Item, Key};
use super::reason::BtrfsReason;
use super::superblock::Superblock;
use super::tree::Tree;
use crate::Error;
use crate::bytes::{array, le32, le64};
use crate::stop::Stop;

const HEADER_LEN: usize = 101;
/// A key, and where the data of the item are.
const ITEM_LEN: usize = 25;
/// A key, and address and generation of a child.
const POINTER_LEN: usize = 33;

/// A block as its parent describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Expected {
    pub(super) logical: u64,
    pub(super) generation: u64,
    pub(super) level: u8,
    /// `None` for a root, which has no parent.
    pub(super) first: Option<Key>,
    /// All keys are less. `None` at the end of the tree.
    pub(super) end: Option<Key>,
}

/// How the reading of a block went.
pub(super) struct Found {
    /// A copy that was tried before is damaged.
    pub(super) after_damage: bool,
}

/// A checked block. Its bytes are those of one node.
pub(super) struct Block {
    pub(super) logical: u64,
    pub(super) level: u8,
    end: Option<Key>,
    bytes: Vec<u8>,
}

impl Block {
    pub(super) fn new(node_size: u32) -> Self {
        Self { logical: 0, level: 0, end: None, bytes: vec![0; node_size as usize] }
    }

    /// Fills the block from the first of its places that holds it.
    pub(super) fn read(
        &mut self,
        volume: &dyn ReadAt,
        superblock: &Superblock,
        chunks: &Chunks,
        tree: Tree,
        expected: Expected,
    ) -> Result<Found, Stop> {
        let fault = |what| BtrfsReason::Tree { tree: tree.name, block: expected.logical, what };
        let extent = Extent::new(expected.logical, superblock.node_size.into());
        let aligned = expected.logical.is_multiple_of(superblock.sector_size.into());
        let chunk = chunks.around(extent).map(|(_, chunk)| chunk);
        let Some(chunk) = chunk.filter(|chunk| aligned && chunk.holds_tree_blocks()) else {
            return Err(fault("it lies in no chunk of metadata").into());
        };
        let mut first_failure = None;
        if chunk.places().next().is_none() {
            return Err(fault("it lies on another device, or in stripes").into());
        }
        for place in chunk.places_of(extent) {
            let read = volume.read_exact_at(&mut self.bytes, place.start);
            let checked = match read.map_err(Error::io("read tree block", place.start)) {
                Err(failed) => Err(Stop::from(failed)),
                Ok(()) => self.check_identity(superblock, tree, expected, place.start),
            };
            match checked {
                Ok(()) => {
                    self.check_content(expected).map_err(fault)?;
                    return Ok(Found { after_damage: first_failure.is_some() });
                }
                // A medium that fails is told of rather than what was read elsewhere.
                Err(failure) => match (&first_failure, &failure) {
                    (None, _) | (Some(Stop::Whole(_)), Stop::Failed(_)) => {
                        first_failure = Some(failure);
                    }
                    _ => {}
                },
            }
        }
        Err(first_failure.unwrap_or_else(|| fault("it lies in no chunk of metadata").into()))
    }

    /// Whether these are the bytes that were written to this place by the commit that the
    /// parent names. Another copy may be better.
    fn check_identity(
        &self,
        superblock: &Superblock,
        tree: Tree,
        expected: Expected,
        offset: u64,
    ) -> Result<(), Stop> {
        let bytes = &self.bytes[..];
        if !superblock.algorithm.is_right(bytes) {
            return Err(BtrfsReason::Checksum { section: tree.block_name, offset }.into());
        }
        let what = if le64(bytes, 0x30) != expected.logical {
            "it was written for another place"
        } else if array(bytes, 0x20) != superblock.fsid {
            "it belongs to another filesystem"
        } else if le64(bytes, 0x50) != expected.generation {
            "its generation is not what its parent says"
        } else if bytes[0x64] != expected.level {
            "its level is not what its parent says"
        } else if !tree.may_have(le64(bytes, 0x58)) {
            "it belongs to another tree"
        } else {
            return Ok(());
        };
        Err(BtrfsReason::Tree { tree: tree.name, block: expected.logical, what }.into())
    }

    fn check_content(&mut self, expected: Expected) -> Result<(), &'static str> {
        (self.logical, self.level, self.end) = (expected.logical, expected.level, expected.end);
        let room = self.bytes.len() - HEADER_LEN;
        let entry_len = self.entry_len();
        let entries = le32(&self.bytes, 0x60) as usize;
        if entries > room / entry_len {
            return Err("its number of entries is out of range");
        }
        if entries == 0 {
            // Only the root of a tree without items is empty.
            let alone = expected.level == 0 && expected.first.is_none();
            return if alone { Ok(()) } else { Err("it is empty") };
        }
        if expected.first.is_some_and(|first| first != self.key(0)) {
            return Err("its first key is not what its parent says");
        }
        if (1..entries).any(|n| self.key(n - 1) >= self.key(n)) {
            return Err("its keys are out of order");
        }
        if expected.end.is_some_and(|end| self.key(entries - 1) >= end) {
            return Err("its last key is not what its parent says");
        }
        if self.level == 0 { self.check_items(entries, room) } else { Ok(()) }
    }

    /// The data of items fill a leaf from its end, one in front of the other.
    fn check_items(&self, entries: usize, room: usize) -> Result<(), &'static str> {
        let mut end = room as u64;
        for n in 0..entries {
            let (offset, len) = self.place_of_data(n);
            if u64::from(offset) + u64::from(len) != end {
                return Err("its items are not one behind the other");
            }
            end = offset.into();
        }
        if end < (entries * ITEM_LEN) as u64 {
            return Err("its items lie on their keys");
        }
        Ok(())
    }

    fn entry_len(&self) -> usize {
        if self.level == 0 { ITEM_LEN } else { POINTER_LEN }
    }

    pub(super) fn entries(&self) -> usize {
        le32(&self.bytes, 0x60) as usize
    }

    fn entry(&self, n: usize) -> &[u8] {
        let len = self.entry_len();
        &self.bytes[HEADER_LEN + n * len..][..len]
    }

    /// Of an entry, less than [`Self::entries`].
    pub(super) fn key(&self, n: usize) -> Key {
        Key::parse(self.entry(n))
    }

    /// How many entries have keys less than this one.
    pub(super) fn entries_below(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.entries());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn place_of_data(&self, n: usize) -> (u32, u32) {
        let entry = self.entry(n);
        (le32(entry, key::LEN), le32(entry, key::LEN + 4))
    }

    /// An item of a leaf, less than [`Self::entries`].
    pub(super) fn item(&self, n: usize) -> Item<'_> {
        let (offset, len) = self.place_of_data(n);
        let data = &self.bytes[HEADER_LEN + offset as usize..][..len as usize];
        Item { key: self.key(n), data, leaf: self.logical }
    }

    /// A child of a node, less than [`Self::entries`].
    pub(super) fn child(&self, n: usize) -> Expected {
        let entry = self.entry(n);
        Expected {
            logical: le64(entry, key::LEN),
            generation: le64(entry, key::LEN + 8),
            level: self.level.saturating_sub(1),
            first: Some(Key::parse(entry)),
            end: if n + 1 < self.entries() { Some(self.key(n + 1)) } else { self.end },
        }
    }
}
