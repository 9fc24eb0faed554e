use super::{first_nonzero, record, salted_crc};
use crate::error::{Fault, Result, Section};
use crate::ids::{BlockIndex, Digest, ImageId};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE, RUN_MAX};

record! {
    /// The first 64 bytes of every index and tree page.
    struct RawPageHeader[64] {
        0 => magic: [u8; 4],
        4 => kind: u8,
        5 => level: u8,
        6 => count: u16,
        8 => page_no: u64,
        16 => first: u64,
        24 => image_uuid: [u8; 16],
        60 => crc: u32,
    }
}

record! {
    /// What the index says about one block or a run of equal ones.
    struct RawIndexEntry[48] {
        0 => key: u64,
        8 => place: u64,
        16 => leaf: [u8; 32],
    }
}

record! {
    /// What an inner index page says about one page of the level below.
    struct RawInnerEntry[48] {
        0 => first_block: u64,
        16 => page_hash: [u8; 32],
    }
}

record! {
    /// The level-one nodes of one group of 128 blocks.
    struct RawTreeNode[80] {
        0 => group: u64,
        16 => content: [u8; 32],
        48 => map: [u8; 32],
    }
}

const MAGIC: [u8; 4] = *b"AVP1";
const HEADER_SIZE: usize = 64;
const LBLK_BITS: u32 = 40;
const RUN_BITS: u32 = 20;
const ADDRESS_BITS: u32 = 48;

/// Entries one index page holds, at every level.
pub(crate) const INDEX_ENTRIES_PER_PAGE: usize = (PAGE_SIZE - HEADER_SIZE) / 48;
/// Nodes one tree page holds.
pub(crate) const TREE_NODES_PER_PAGE: usize = (PAGE_SIZE - HEADER_SIZE) / 80;

const _: () = assert!(INDEX_ENTRIES_PER_PAGE == 84 && TREE_NODES_PER_PAGE == 50);

/// The two sorts of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Index,
    Tree,
}

impl PageKind {
    const fn code(self) -> u8 {
        match self {
            Self::Index => 1,
            Self::Tree => 2,
        }
    }

    const fn salt(self) -> [u8; 8] {
        match self {
            Self::Index => *b"aiv.indx",
            Self::Tree => *b"aiv.tree",
        }
    }

    pub(crate) const fn section(self) -> Section {
        match self {
            Self::Index => Section::IndexPage,
            Self::Tree => Section::TreePage,
        }
    }

    /// Bytes per entry and entries per page at `level`.
    pub(crate) const fn shape(self) -> (usize, usize) {
        match self {
            Self::Index => (48, INDEX_ENTRIES_PER_PAGE),
            Self::Tree => (80, TREE_NODES_PER_PAGE),
        }
    }
}

/// A checked page header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub kind: PageKind,
    pub level: u8,
    pub count: u16,
    pub page_no: u64,
    pub first: u64,
    pub image: ImageId,
}

impl PageHeader {
    /// Checks the page at `offset`: that it is intact, of this kind, of this image, the
    /// `page_no`-th of its section, and that unused space is zero.
    pub(crate) fn from_page(
        page: &[u8; PAGE_SIZE],
        kind: PageKind,
        image: ImageId,
        page_no: u64,
        offset: u64,
    ) -> Result<Self> {
        Self::check(page, kind, image, page_no).map_err(|f| f.at(kind.section(), offset))
    }

    fn check(
        page: &[u8; PAGE_SIZE],
        kind: PageKind,
        image: ImageId,
        page_no: u64,
    ) -> std::result::Result<Self, Fault> {
        let mut head = [0; HEADER_SIZE];
        head.copy_from_slice(&page[..HEADER_SIZE]);
        let raw = RawPageHeader::decode(&head);
        if raw.magic != MAGIC {
            return Err(Fault::Magic);
        }
        let found = page_crc(kind, page);
        if found != raw.crc {
            return Err(Fault::Checksum { found, stored: raw.crc });
        }
        if let Some(at) = RawPageHeader::first_reserved_set(&head) {
            return Err(Fault::Reserved { at });
        }
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        if raw.kind != kind.code() {
            return Err(value("page kind", raw.kind.into(), "the kind of its section"));
        }
        if ImageId(raw.image_uuid) != image {
            return Err(Fault::Stranger);
        }
        if raw.page_no != page_no {
            return Err(value("page number", raw.page_no, "its place in the section"));
        }
        let (entry_size, entries_max) = kind.shape();
        let count = usize::from(raw.count);
        if count == 0 || count > entries_max {
            return Err(value("entry count", raw.count.into(), "one to a full page"));
        }
        let used = HEADER_SIZE + count * entry_size;
        if let Some(at) = first_nonzero(&page[used..]) {
            return Err(Fault::Reserved { at: used + at });
        }
        Ok(Self { kind, level: raw.level, count: raw.count, page_no, first: raw.first, image })
    }

    /// Builds the page that holds `entries`, already encoded one after the other.
    pub(crate) fn build(self, entries: &[u8]) -> [u8; PAGE_SIZE] {
        let mut raw = RawPageHeader {
            magic: MAGIC,
            kind: self.kind.code(),
            level: self.level,
            count: self.count,
            page_no: self.page_no,
            first: self.first,
            image_uuid: self.image.0,
            crc: 0,
        };
        let mut page = [0; PAGE_SIZE];
        page[HEADER_SIZE..HEADER_SIZE + entries.len()].copy_from_slice(entries);
        page[..HEADER_SIZE].copy_from_slice(&raw.encode());
        raw.crc = page_crc(self.kind, &page);
        page[..HEADER_SIZE].copy_from_slice(&raw.encode());
        page
    }
}

/// The checksum covers the header without its own field, then the entries.
fn page_crc(kind: PageKind, page: &[u8; PAGE_SIZE]) -> u32 {
    crc32c::crc32c_append(salted_crc(kind.salt(), &page[..60]), &page[HEADER_SIZE..])
}

/// The entries of a page, each of `N` bytes; `count` was checked by [`PageHeader::from_page`].
fn entries<const N: usize>(page: &[u8; PAGE_SIZE], count: u16) -> impl Iterator<Item = [u8; N]> {
    page[HEADER_SIZE..].chunks_exact(N).take(usize::from(count)).map(|chunk| {
        let mut entry = [0; N];
        entry.copy_from_slice(chunk);
        entry
    })
}

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
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Zero => 3,
            Self::Unused => 4,
            Self::Excluded => 5,
            Self::Unreadable => 6,
            Self::Ref => 7,
        }
    }

    /// Codes 2, 8 and 9 are DELTA, PARENT and STORE: defined, and only legal in images that
    /// carry their feature bit, which this version refuses before it reads an index.
    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            3 => Some(Self::Zero),
            4 => Some(Self::Unused),
            5 => Some(Self::Excluded),
            6 => Some(Self::Unreadable),
            7 => Some(Self::Ref),
            _ => None,
        }
    }

    /// The state the map tree records: 0 in use, 1 unused, 2 excluded, 3 unreadable.
    #[must_use]
    pub const fn map_state(self) -> u8 {
        match self {
            Self::Data | Self::Zero | Self::Ref => 0,
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
    /// Leaf hash of the block; zero without a frame, where the kind determines the bytes.
    pub leaf: Digest,
}

impl IndexEntry {
    /// An entry without a frame.
    pub(crate) fn run(block: BlockIndex, run: u64, kind: Kind) -> Self {
        Self { block, run, kind, address: 0, frame_size: 0, leaf: Digest([0; 32]) }
    }

    /// First block after the run.
    #[must_use]
    pub const fn end(&self) -> BlockIndex {
        self.block + self.run
    }

    /// Whether a frame holds the block.
    #[must_use]
    pub const fn has_frame(&self) -> bool {
        self.address != 0
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
        let entry = Self {
            block: raw.key & mask(LBLK_BITS),
            run: raw.key >> LBLK_BITS & mask(RUN_BITS),
            kind,
            address: (raw.place & mask(ADDRESS_BITS)) * FRAME_ALIGN,
            frame_size: match raw.place >> ADDRESS_BITS {
                0xffff => 0,
                units => units * FRAME_ALIGN,
            },
            leaf: Digest(raw.leaf),
        };
        if entry.run == 0 {
            return Err(value("run", 0, "at least 1"));
        }
        let framed = match kind {
            Kind::Data | Kind::Ref => true,
            Kind::Zero | Kind::Unused | Kind::Excluded => false,
            Kind::Unreadable => entry.has_frame(),
        };
        if framed && (!entry.has_frame() || entry.run != 1) {
            return Err(value("address", entry.address, "one block and a frame"));
        }
        if framed && raw.place >> ADDRESS_BITS < 2 {
            return Err(value("frame size", entry.frame_size, "a header and a payload"));
        }
        if !framed && (raw.place != 0 || !entry.leaf.is_zero()) {
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
            place: (self.address / FRAME_ALIGN) | (units << ADDRESS_BITS),
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

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A checked entry of an inner index page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InnerEntry {
    pub first_block: BlockIndex,
    pub page_hash: Digest,
}

impl InnerEntry {
    pub(crate) fn to_bytes(self) -> [u8; 48] {
        RawInnerEntry { first_block: self.first_block, page_hash: self.page_hash.0 }.encode()
    }

    pub(crate) fn of_page(
        page: &[u8; PAGE_SIZE],
        header: &PageHeader,
    ) -> impl Iterator<Item = std::result::Result<Self, Fault>> {
        entries(page, header.count).map(|bytes: [u8; 48]| {
            if let Some(at) = RawInnerEntry::first_reserved_set(&bytes) {
                return Err(Fault::Reserved { at });
            }
            let raw = RawInnerEntry::decode(&bytes);
            Ok(Self { first_block: raw.first_block, page_hash: Digest(raw.page_hash) })
        })
    }
}

/// A checked node of the tree section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeNode {
    pub group: u64,
    pub content: Digest,
    pub map: Digest,
}

impl TreeNode {
    pub(crate) fn to_bytes(self) -> [u8; 80] {
        RawTreeNode { group: self.group, content: self.content.0, map: self.map.0 }.encode()
    }

    pub(crate) fn of_page(
        page: &[u8; PAGE_SIZE],
        header: &PageHeader,
    ) -> impl Iterator<Item = std::result::Result<Self, Fault>> {
        entries(page, header.count).map(|bytes: [u8; 80]| {
            if let Some(at) = RawTreeNode::first_reserved_set(&bytes) {
                return Err(Fault::Reserved { at });
            }
            let raw = RawTreeNode::decode(&bytes);
            Ok(Self { group: raw.group, content: Digest(raw.content), map: Digest(raw.map) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arb_entry() -> impl Strategy<Value = IndexEntry> {
        let framed = (0..1u64 << 40, 0..3usize, 1..1u64 << 48, 2..70_000u64, any::<[u8; 32]>())
            .prop_map(|(block, kind, unit, size, leaf)| IndexEntry {
                block,
                run: 1,
                kind: [Kind::Data, Kind::Ref, Kind::Unreadable][kind],
                address: unit * 64,
                frame_size: if size >= 0xffff { 0 } else { size * 64 },
                leaf: Digest(leaf),
            });
        let plain = (0..1u64 << 40, 1..1u64 << 20, 0..4usize).prop_map(|(block, run, kind)| {
            let kinds = [Kind::Zero, Kind::Unused, Kind::Excluded, Kind::Unreadable];
            IndexEntry::run(block, run, kinds[kind])
        });
        prop_oneof![framed, plain]
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
                prop_assert!(entry.run == 1 || !entry.has_frame());
                prop_assert_eq!(entry.to_bytes(), bytes, "one way to say it");
            }
        }
    }

    #[test]
    fn kinds_that_need_a_feature_bit_are_refused() {
        for code in [0u64, 2, 8, 9, 15] {
            let mut bytes = IndexEntry::run(0, 1, Kind::Zero).to_bytes();
            let key = 1 << LBLK_BITS | code << (LBLK_BITS + RUN_BITS);
            bytes[..8].copy_from_slice(&key.to_le_bytes());
            let fault = IndexEntry::from_bytes(&bytes).expect_err("not a kind of this version");
            assert!(fault.to_string().contains("entry kind"), "{fault}");
        }
    }

    fn sample_page() -> [u8; PAGE_SIZE] {
        let entry = IndexEntry::run(0, 5, Kind::Zero).to_bytes();
        let header = PageHeader {
            kind: PageKind::Index,
            level: 0,
            count: 1,
            page_no: 3,
            first: 0,
            image: ImageId([7; 16]),
        };
        header.build(&entry)
    }

    #[test]
    fn a_page_of_another_kind_place_or_image_is_refused() {
        let page = sample_page();
        let open = |kind, image, page_no| PageHeader::from_page(&page, kind, image, page_no, 0);
        assert!(open(PageKind::Index, ImageId([7; 16]), 3).is_ok());
        assert!(open(PageKind::Tree, ImageId([7; 16]), 3).is_err());
        assert!(open(PageKind::Index, ImageId([8; 16]), 3).is_err());
        assert!(open(PageKind::Index, ImageId([7; 16]), 4).is_err());
    }

    #[test]
    fn any_flipped_bit_of_a_page_is_noticed() {
        let good = sample_page();
        for bit in 0..PAGE_SIZE * 8 {
            let mut page = good;
            page[bit / 8] ^= 1 << (bit % 8);
            let found = PageHeader::from_page(&page, PageKind::Index, ImageId([7; 16]), 3, 0);
            assert!(found.is_err(), "bit {bit}");
        }
    }
}
