use super::page::{PageHeader, entries};
use super::{Features, FrameKind, record};
use crate::error::Fault;
use crate::ids::{BlockIndex, Digest};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE, RUN_MAX};

record! {
    /// What the index says about one block or a run of equal ones.
    struct RawIndexEntry[48] {
        0 => key: u64,
        8 => place: u64,
        16 => leaf: [u8; 32],
    }
}

const LBLK_BITS: u32 = 40;
const RUN_BITS: u32 = 20;
const ADDRESS_BITS: u32 = 48;

/// How a block, or a run of blocks, is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A DATA frame of this image holds the block.
    Data,
    /// The block is in use and all zeros: a restore must write it.
    Zero,
    /// The filesystem calls the block free: reads as zeros, a restore may leave it.
    Unused,
    /// Left out on request: reads as zeros.
    Excluded,
    /// Some or all of the block could not be read at the source. With a frame, the frame holds
    /// the block with the fill pattern in the unreadable places; without, all is fill pattern.
    Unreadable,
    /// The same bytes as another block of this image, whose frame is named.
    Ref,
    /// A DELTA frame of this image holds the block as a difference to a block of the parent's
    /// state.
    Delta,
    /// The same bytes as another block of the parent's state.
    Parent,
    /// A LOCAL frame of this image holds the block as a difference to other blocks of this image
    /// that are stored whole.
    Local,
}

impl Kind {
    /// The word of `docs/format.md` and of dumps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "DATA",
            Self::Zero => "ZERO",
            Self::Unused => "UNUSED",
            Self::Excluded => "EXCLUDED",
            Self::Unreadable => "UNREADABLE",
            Self::Ref => "REF",
            Self::Delta => "DELTA",
            Self::Parent => "PARENT",
            Self::Local => "LOCAL",
        }
    }

    /// The kind of frame that entries of this kind name.
    pub(crate) const fn frame(self) -> FrameKind {
        match self {
            Self::Delta => FrameKind::Delta,
            Self::Local => FrameKind::Local,
            _ => FrameKind::Data,
        }
    }

    /// The feature bits without which no entry of this kind may be.
    pub(crate) const fn needs(self) -> u64 {
        match self {
            Self::Delta => Features::DELTA,
            Self::Parent => Features::PARENT,
            Self::Local => Features::LOCAL,
            _ => 0,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Delta => 2,
            Self::Zero => 3,
            Self::Unused => 4,
            Self::Excluded => 5,
            Self::Unreadable => 6,
            Self::Ref => 7,
            Self::Parent => 8,
            Self::Local => 10,
        }
    }

    /// Code 9 is STORE: defined, and only legal in images that carry its feature bit, which this
    /// version refuses before it reads an index.
    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Delta),
            3 => Some(Self::Zero),
            4 => Some(Self::Unused),
            5 => Some(Self::Excluded),
            6 => Some(Self::Unreadable),
            7 => Some(Self::Ref),
            8 => Some(Self::Parent),
            10 => Some(Self::Local),
            _ => None,
        }
    }

    /// The state the map tree records: 0 in use, 1 unused, 2 excluded, 3 unreadable.
    #[must_use]
    pub const fn map_state(self) -> u8 {
        match self {
            Self::Data | Self::Zero | Self::Ref | Self::Delta | Self::Parent | Self::Local => 0,
            Self::Unused => 1,
            Self::Excluded => 2,
            Self::Unreadable => 3,
        }
    }
}

/// A checked index entry: blocks `block .. block + run` are stored as `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// First block.
    pub block: BlockIndex,
    /// Number of blocks, 1 to 2^20 - 1; always 1 with a frame.
    pub run: u64,
    /// How they are stored.
    pub kind: Kind,
    /// Byte offset of the frame in the file, zero without one.
    pub address: u64,
    /// Bytes the frame takes in the file with header and padding, as far as the index knows:
    /// zero without a frame and for frames of 4,194,240 bytes and more, whose header tells.
    pub frame_size: u64,
    /// For [`Kind::Parent`], the block of the parent's state that has the bytes; zero for all
    /// others.
    pub parent_block: BlockIndex,
    /// Leaf hash of the block; zero where the kind determines the bytes.
    pub leaf: Digest,
}

impl IndexEntry {
    /// `run` blocks whose kind determines their bytes: [`Kind::Zero`], [`Kind::Unused`],
    /// [`Kind::Excluded`], or [`Kind::Unreadable`] without a byte that could be read.
    #[must_use]
    pub fn run(block: BlockIndex, run: u64, kind: Kind) -> Self {
        Self { block, run, kind, address: 0, frame_size: 0, parent_block: 0, leaf: Digest([0; 32]) }
    }

    /// The part of the entry that covers `[from, to)`, which must lie inside it. Only runs can
    /// be cut.
    #[must_use]
    pub fn cut(&self, from: BlockIndex, to: BlockIndex) -> Self {
        debug_assert!(self.block <= from && from < to && to <= self.end());
        Self { block: from, run: to - from, ..*self }
    }

    /// First block after the run.
    #[must_use]
    pub const fn end(&self) -> BlockIndex {
        self.block + self.run
    }

    /// Whether a frame of the image holds the block, in full or as a difference.
    #[must_use]
    pub const fn has_frame(&self) -> bool {
        self.address != 0
    }

    /// Whether a frame of the image holds the block whole, so that others may be differences to it
    /// or the same.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Ref)
    }

    /// Whether the entry carries a leaf hash; without one its kind determines the bytes.
    #[must_use]
    pub const fn has_leaf(&self) -> bool {
        self.has_frame() || matches!(self.kind, Kind::Parent)
    }

    pub(crate) fn from_bytes(bytes: &[u8; 48]) -> std::result::Result<Self, Fault> {
        let raw = RawIndexEntry::decode(bytes);
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        let kind_code = raw.key >> (LBLK_BITS + RUN_BITS);
        let kind = Kind::from_code(kind_code).ok_or(value(
            "entry kind",
            kind_code,
            "a kind of this version",
        ))?;
        let (low, high) = (raw.place & mask(ADDRESS_BITS), raw.place >> ADDRESS_BITS);
        let mut entry = Self {
            block: raw.key & mask(LBLK_BITS),
            run: raw.key >> LBLK_BITS & mask(RUN_BITS),
            kind,
            address: 0,
            frame_size: 0,
            parent_block: 0,
            leaf: Digest(raw.leaf),
        };
        if entry.run == 0 {
            return Err(value("run", 0, "at least 1"));
        }
        let framed = match kind {
            Kind::Data | Kind::Ref | Kind::Delta | Kind::Local => true,
            Kind::Zero | Kind::Unused | Kind::Excluded | Kind::Parent => false,
            Kind::Unreadable => low != 0,
        };
        if framed {
            entry.address = low * FRAME_ALIGN;
            entry.frame_size = if high == 0xffff { 0 } else { high * FRAME_ALIGN };
            if low == 0 || entry.run != 1 {
                return Err(value("address", entry.address, "one block and a frame"));
            }
            if high < 2 {
                return Err(value("frame size", entry.frame_size, "a header and a payload"));
            }
        } else if kind == Kind::Parent {
            entry.parent_block = low;
            if high != 0 || low > mask(LBLK_BITS) || entry.run != 1 {
                return Err(value("parent block", raw.place, "one block of the parent's state"));
            }
        } else if raw.place != 0 || !entry.leaf.is_zero() {
            return Err(value("address", raw.place, "0 for a kind without a frame"));
        }
        Ok(entry)
    }

    pub(crate) fn to_bytes(self) -> [u8; 48] {
        debug_assert!(self.run >= 1 && self.run <= RUN_MAX && self.block <= mask(LBLK_BITS));
        let units = match self.frame_size / FRAME_ALIGN {
            0 if !self.has_frame() => 0,
            units if units == 0 || units >= 0xffff => 0xffff,
            units => units,
        };
        RawIndexEntry {
            key: self.block
                | self.run << LBLK_BITS
                | u64::from(self.kind.code()) << (LBLK_BITS + RUN_BITS),
            place: (self.address / FRAME_ALIGN) | self.parent_block | (units << ADDRESS_BITS),
            leaf: self.leaf.0,
        }
        .encode()
    }

    /// Reads all entries of an index leaf page that was checked before.
    pub(crate) fn of_page(
        page: &[u8; PAGE_SIZE],
        header: &PageHeader,
    ) -> impl Iterator<Item = std::result::Result<Self, Fault>> {
        entries(page, header.count).map(|bytes| Self::from_bytes(&bytes))
    }
}

/// The one of `entries`, which ascend, that covers `block`.
pub(crate) fn covering(entries: &[IndexEntry], block: BlockIndex) -> Option<&IndexEntry> {
    let after = entries.partition_point(|entry| entry.block <= block);
    entries.get(after.checked_sub(1)?).filter(|entry| entry.end() > block)
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arb_entry() -> impl Strategy<Value = IndexEntry> {
        let framed = (0..1u64 << 40, 0..5usize, 1..1u64 << 48, 2..70_000u64, any::<[u8; 32]>())
            .prop_map(|(block, kind, unit, size, leaf)| IndexEntry {
                block,
                run: 1,
                kind: [Kind::Data, Kind::Ref, Kind::Unreadable, Kind::Delta, Kind::Local][kind],
                address: unit * 64,
                frame_size: if size >= 0xffff { 0 } else { size * 64 },
                parent_block: 0,
                leaf: Digest(leaf),
            });
        let moved = (0..1u64 << 40, 0..1u64 << 40, any::<[u8; 32]>()).prop_map(
            |(block, parent_block, leaf)| IndexEntry {
                parent_block,
                leaf: Digest(leaf),
                ..IndexEntry::run(block, 1, Kind::Parent)
            },
        );
        let plain = (0..1u64 << 40, 1..1u64 << 20, 0..4usize).prop_map(|(block, run, kind)| {
            let kinds = [Kind::Zero, Kind::Unused, Kind::Excluded, Kind::Unreadable];
            IndexEntry::run(block, run, kinds[kind])
        });
        prop_oneof![framed, moved, plain]
    }

    proptest! {
        #[test]
        fn an_index_entry_survives_the_round_trip(entry in arb_entry()) {
            prop_assert_eq!(IndexEntry::from_bytes(&entry.to_bytes()), Ok(entry));
        }

        #[test]
        fn any_48_bytes_are_an_entry_or_an_error(bytes in any::<[u8; 48]>()) {
            if let Ok(entry) = IndexEntry::from_bytes(&bytes) {
                prop_assert!(entry.run >= 1 && entry.run <= RUN_MAX);
                prop_assert!(entry.run == 1 || !entry.has_leaf());
                prop_assert_eq!(entry.to_bytes(), bytes, "one way to say it");
            }
        }
    }

    #[test]
    fn kinds_that_need_a_feature_bit_are_refused() {
        for code in [0u64, 9, 11, 15] {
            let mut bytes = IndexEntry::run(0, 1, Kind::Zero).to_bytes();
            let key = 1 << LBLK_BITS | code << (LBLK_BITS + RUN_BITS);
            bytes[..8].copy_from_slice(&key.to_le_bytes());
            let fault = IndexEntry::from_bytes(&bytes).expect_err("not a kind of this version");
            assert!(fault.to_string().contains("entry kind"), "{fault}");
        }
    }
}
