use super::{first_nonzero, record, salted_crc};
use crate::error::{Fault, Result, Section};
use crate::ids::{BlockIndex, Digest, ImageId};
use crate::limits::{BLOCKS_MAX, PAGE_SIZE};

record! {
    /// The first 64 bytes of every page of index, tree and parity directory.
    struct RawPageHeader[64] {
        0 => magic: [u8; 4],
        4 => kind: u8,
        5 => level: u8,
        6 => count: u16,
        8 => page_no: u64,
        16 => first: u64,
        24 => image_uuid: [u8; 16],
        40 => tag: [u8; 16],
        60 => crc: u32,
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

/// The part of a page that stays readable in sealed images, and is authenticated there.
pub(crate) const PAGE_CLEAR: std::ops::Range<usize> = 0..40;
/// Where the authentication tag of a sealed page lies.
pub(crate) const PAGE_TAG: std::ops::Range<usize> = 40..56;
/// The entries of a page: what is encrypted in sealed images.
pub(crate) const PAGE_BODY: std::ops::Range<usize> = HEADER_SIZE..PAGE_SIZE;

/// Entries one index page holds, at every level.
pub(crate) const INDEX_ENTRIES_PER_PAGE: usize = (PAGE_SIZE - HEADER_SIZE) / 48;
/// Nodes one tree page holds.
pub(crate) const TREE_NODES_PER_PAGE: usize = (PAGE_SIZE - HEADER_SIZE) / 80;
/// Hashes one page of a directory of the parity area holds.
pub(crate) const PAGE_HASHES_PER_PAGE: usize = (PAGE_SIZE - HEADER_SIZE) / 16;

const _: () = assert!(INDEX_ENTRIES_PER_PAGE == 84 && TREE_NODES_PER_PAGE == 50);

/// The sorts of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Index,
    Tree,
    /// Hashes of the pages that parity protects.
    Parity,
}

impl PageKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Index => 1,
            Self::Tree => 2,
            Self::Parity => 3,
        }
    }

    const fn salt(self) -> [u8; 8] {
        match self {
            Self::Index => *b"aiv.indx",
            Self::Tree => *b"aiv.tree",
            Self::Parity => *b"aiv.pdir",
        }
    }

    pub(crate) const fn section(self) -> Section {
        match self {
            Self::Index => Section::IndexPage,
            Self::Tree => Section::TreePage,
            Self::Parity => Section::ParityArea,
        }
    }

    /// Makes the checksum of a page right.
    pub(crate) fn put_crc(self, page: &mut [u8; PAGE_SIZE]) {
        let crc = page_crc(self, page);
        page[60..HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    }

    /// Bytes per entry and entries per page at `level`.
    pub(crate) const fn shape(self) -> (usize, usize) {
        match self {
            Self::Index => (48, INDEX_ENTRIES_PER_PAGE),
            Self::Tree => (80, TREE_NODES_PER_PAGE),
            Self::Parity => (16, PAGE_HASHES_PER_PAGE),
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
        let check = || {
            let (header, raw) = Self::check(page, kind, image, page_no)?;
            if raw.tag != [0; 16] {
                return Err(Fault::Reserved { at: PAGE_TAG.start });
            }
            header.check_unused(page)?;
            Ok(header)
        };
        check().map_err(|f| f.at(kind.section(), offset))
    }

    /// Checks a page of a sealed image as far as that goes before it is opened: what its first
    /// entry is remains unknown.
    pub(crate) fn of_sealed(
        page: &[u8; PAGE_SIZE],
        kind: PageKind,
        image: ImageId,
        page_no: u64,
    ) -> std::result::Result<Self, Fault> {
        let (header, _) = Self::check(page, kind, image, page_no)?;
        if header.first != 0 {
            let (field, found) = ("first entry", header.first);
            return Err(Fault::Value { field, found, allowed: "0 in sealed pages" });
        }
        Ok(header)
    }

    /// The header of a sealed page whose entries have been opened.
    pub(crate) fn opened(self, page: &[u8; PAGE_SIZE]) -> std::result::Result<Self, Fault> {
        self.check_unused(page)?;
        let mut first = [0; 8];
        first.copy_from_slice(&page[HEADER_SIZE..HEADER_SIZE + 8]);
        let first = u64::from_le_bytes(first);
        let first = match (self.kind, self.level) {
            // The number of a block shares its field with others.
            (PageKind::Index, 0) => first % BLOCKS_MAX,
            _ => first,
        };
        Ok(Self { first, ..self })
    }

    fn check(
        page: &[u8; PAGE_SIZE],
        kind: PageKind,
        image: ImageId,
        page_no: u64,
    ) -> std::result::Result<(Self, RawPageHeader), Fault> {
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
        let count = usize::from(raw.count);
        if count == 0 || count > kind.shape().1 {
            return Err(value("entry count", raw.count.into(), "one to a full page"));
        }
        let (level, count, first) = (raw.level, raw.count, raw.first);
        Ok((Self { kind, level, count, page_no, first, image }, raw))
    }

    fn check_unused(&self, page: &[u8; PAGE_SIZE]) -> std::result::Result<(), Fault> {
        let used = HEADER_SIZE + usize::from(self.count) * self.kind.shape().0;
        match first_nonzero(&page[used..]) {
            Some(at) => Err(Fault::Reserved { at: used + at }),
            None => Ok(()),
        }
    }

    /// The short hashes of a page of a parity directory, which was checked.
    pub(crate) fn short_hashes(self, page: &[u8; PAGE_SIZE]) -> impl Iterator<Item = [u8; 16]> {
        entries(page, self.count)
    }

    /// Builds the page that holds `entries`, already encoded one after the other.
    pub(crate) fn build(self, entries: &[u8]) -> [u8; PAGE_SIZE] {
        let mut page = self.lay_out(entries);
        self.kind.put_crc(&mut page);
        page
    }

    /// The page without its checksum.
    pub(crate) fn lay_out(self, entries: &[u8]) -> [u8; PAGE_SIZE] {
        let raw = RawPageHeader {
            magic: MAGIC,
            kind: self.kind.code(),
            level: self.level,
            count: self.count,
            page_no: self.page_no,
            first: self.first,
            image_uuid: self.image.0,
            tag: [0; 16],
            crc: 0,
        };
        let mut page = [0; PAGE_SIZE];
        page[HEADER_SIZE..HEADER_SIZE + entries.len()].copy_from_slice(entries);
        page[..HEADER_SIZE].copy_from_slice(&raw.encode());
        page
    }
}

/// The checksum covers the header without its own field, then the entries.
fn page_crc(kind: PageKind, page: &[u8; PAGE_SIZE]) -> u32 {
    crc32c::crc32c_append(salted_crc(kind.salt(), &page[..60]), &page[HEADER_SIZE..])
}

/// The entries of a page, each of `N` bytes; `count` was checked by [`PageHeader::from_page`].
pub(super) fn entries<const N: usize>(
    page: &[u8; PAGE_SIZE],
    count: u16,
) -> impl Iterator<Item = [u8; N]> {
    page[HEADER_SIZE..].chunks_exact(N).take(usize::from(count)).map(|chunk| {
        let mut entry = [0; N];
        entry.copy_from_slice(chunk);
        entry
    })
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
    use crate::layout::{IndexEntry, Kind};

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
