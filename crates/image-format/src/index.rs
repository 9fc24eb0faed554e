//! The index of one image: sorted pages under a bounded cache, each proven by its parent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::ReadAt;

use crate::error::{Fault, Result, Section};
use crate::hash;
use crate::ids::{BlockIndex, Digest, Geometry, ImageId};
use crate::image::read_page;
use crate::layout::{
    INDEX_ENTRIES_PER_PAGE, IndexEntry, InnerEntry, PageHeader, PageKind, Superblock, Trailer,
    covering,
};
use crate::limits::{INDEX_LEVELS_MAX, PAGE_SIZE};
use crate::seal::Access;

/// Pages kept in memory: about 24 MiB decoded, the index of 21 GiB of used 64 KiB blocks.
const CACHED_PAGES_MAX: usize = 4096;
/// Pages an image with a parent keeps: a chain has many of them, and most are smaller than this.
const CACHED_PAGES_OF_CHILD_MAX: usize = 32;

enum Page {
    Leaf(Vec<IndexEntry>),
    Inner(Vec<InnerEntry>),
}

pub(crate) struct Index {
    file: Arc<dyn ReadAt>,
    image: ImageId,
    geometry: Geometry,
    offset: u64,
    frames_end: u64,
    /// Feature bits of the image, which allow kinds of entries.
    incompat: u64,
    access: Access,
    frames_start: u64,
    root: Digest,
    cached_pages_max: usize,
    /// First page and number of pages of each level, leaves first.
    levels: Vec<(u64, u64)>,
    cache: Mutex<HashMap<u64, Arc<Page>>>,
}

impl Index {
    pub(crate) fn new(
        file: Arc<dyn ReadAt>,
        superblock: &Superblock,
        trailer: &Trailer,
        access: Access,
    ) -> Result<Self> {
        let levels = levels(trailer.index_leaf_pages, trailer.index_pages).ok_or_else(|| {
            let fault = Fault::Differs { field: "index pages", other: "number of leaf pages" };
            fault.at(Section::Trailer, trailer.file_len - PAGE_SIZE as u64)
        })?;
        if levels.is_empty() && !trailer.index_root.is_zero() {
            let fault = Fault::Differs { field: "index root", other: "number of index pages" };
            return Err(fault.at(Section::Trailer, trailer.file_len - PAGE_SIZE as u64));
        }
        Ok(Self {
            file,
            image: superblock.image,
            geometry: superblock.geometry,
            offset: trailer.index_offset,
            frames_end: trailer.frames_end,
            incompat: superblock.features.incompat,
            access,
            frames_start: superblock.frames_start(),
            root: trailer.index_root,
            cached_pages_max: match superblock.parent {
                None => CACHED_PAGES_MAX,
                Some(_) => CACHED_PAGES_OF_CHILD_MAX,
            },
            levels,
            cache: Mutex::new(HashMap::new()),
        })
    }

    fn leaf_pages(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.1)
    }

    /// Page `position` of `level`, checked against its own checksum, its place, its parent's
    /// hash of it, and the rules of its entries. Recursion is bounded by [`INDEX_LEVELS_MAX`].
    fn page(&self, level: usize, position: u64) -> Result<Arc<Page>> {
        let page_no = self.levels[level].0 + position;
        if let Some(page) = self.lock().get(&page_no) {
            return Ok(page.clone());
        }
        let offset = self.offset + page_no * PAGE_SIZE as u64;
        let at = |fault: Fault| fault.at(Section::IndexPage, offset);
        self.access.unlocked()?;
        let mut bytes = read_page(&*self.file, offset)?;
        // Over the stored bytes: what is there can be proven without a key.
        let digest = hash::page(&bytes);
        let kind = PageKind::Index;
        let header = self.access.open_page(&mut bytes, kind, self.image, page_no, offset)?;
        if usize::from(header.level) != level {
            let (field, found) = ("level", header.level.into());
            return Err(at(Fault::Value { field, found, allowed: "the level of its place" }));
        }
        if level + 1 == self.levels.len() {
            if digest != self.root {
                return Err(at(Fault::Hash { by: "trailer" }));
            }
        } else {
            let fan_out = INDEX_ENTRIES_PER_PAGE as u64;
            let parent = self.page(level + 1, position / fan_out)?;
            let slot = usize::try_from(position % fan_out).unwrap_or(usize::MAX);
            let named = match &*parent {
                Page::Inner(entries) => entries.get(slot),
                Page::Leaf(_) => None,
            };
            if named.is_none_or(|e| e.page_hash != digest || e.first_block != header.first) {
                return Err(at(Fault::Hash { by: "page above" }));
            }
        }
        let page = if level == 0 {
            Page::Leaf(self.check_leaf_entries(&bytes, &header).map_err(at)?)
        } else {
            let fan_out = INDEX_ENTRIES_PER_PAGE as u64;
            let below = self.levels[level - 1].1 - position * fan_out;
            if u64::from(header.count) != below.min(fan_out) {
                let (field, found) = ("entry count", header.count.into());
                return Err(at(Fault::Value { field, found, allowed: "the pages below" }));
            }
            Page::Inner(check_inner_entries(&bytes, &header).map_err(at)?)
        };
        let page = Arc::new(page);
        let mut cache = self.lock();
        if cache.len() >= self.cached_pages_max {
            // Rare and cheap: a sequential scan never comes back, a random one refills fast.
            cache.clear();
        }
        cache.insert(page_no, page.clone());
        Ok(page)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Page>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_leaf_entries(
        &self,
        bytes: &[u8; PAGE_SIZE],
        header: &PageHeader,
    ) -> std::result::Result<Vec<IndexEntry>, Fault> {
        let mut entries: Vec<IndexEntry> = Vec::with_capacity(header.count.into());
        for entry in IndexEntry::of_page(bytes, header) {
            let entry = entry?;
            let least = entries.last().map_or(header.first, IndexEntry::end);
            if entry.block < least || (entries.is_empty() && entry.block != header.first) {
                let (field, found) = ("block", entry.block);
                return Err(Fault::Value { field, found, allowed: "ascending, without overlap" });
            }
            if entry.end() > self.geometry.blocks() {
                let (field, found) = ("block", entry.end() - 1);
                return Err(Fault::Value { field, found, allowed: "inside the disk" });
            }
            let needs = entry.kind.needs();
            if self.incompat & needs != needs {
                let (field, found) = ("entry kind", u64::from(entry.kind.code()));
                return Err(Fault::Value { field, found, allowed: "a kind of its feature bits" });
            }
            let frame_end = entry.address.saturating_add(entry.frame_size);
            if entry.has_frame()
                && (entry.address < self.frames_start
                    || entry.address >= self.frames_end
                    || frame_end > self.frames_end)
            {
                let (field, found) = ("address", entry.address);
                return Err(Fault::Value { field, found, allowed: "inside the frames" });
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The entry that covers `block`.
    pub(crate) fn find(&self, block: BlockIndex) -> Result<Option<IndexEntry>> {
        let Some(position) = self.leaf_of(block)? else { return Ok(None) };
        let page = self.page(0, position)?;
        let Page::Leaf(entries) = &*page else { return Ok(None) };
        Ok(covering(entries, block).copied())
    }

    /// The leaf page whose first block is the last one at or below `block`.
    fn leaf_of(&self, block: BlockIndex) -> Result<Option<u64>> {
        self.access.unlocked()?;
        if self.levels.is_empty() {
            return Ok(None);
        }
        let mut position = 0;
        for level in (1..self.levels.len()).rev() {
            let page = self.page(level, position)?;
            let Page::Inner(entries) = &*page else { return Ok(None) };
            let after = entries.partition_point(|e| e.first_block <= block);
            let slot = after.saturating_sub(1) as u64;
            position = position * INDEX_ENTRIES_PER_PAGE as u64 + slot;
        }
        Ok(Some(position))
    }

    pub(crate) fn entries(&self, first: BlockIndex) -> Entries<'_> {
        Entries { index: self, first, page: None, position: None, slot: 0, end: 0, done: false }
    }
}

/// First page and number of pages of each level over `leaf_pages`, leaves first; `None` when
/// they are not `pages` together.
fn levels(leaf_pages: u64, pages: u64) -> Option<Vec<(u64, u64)>> {
    // Fewer than all pages, which lie inside the file: the sums below cannot overflow.
    if leaf_pages > pages {
        return None;
    }
    let mut levels = Vec::new();
    let mut total = 0;
    let mut count = leaf_pages;
    while count > 0 {
        levels.push((total, count));
        total += count;
        count = if count == 1 { 0 } else { count.div_ceil(INDEX_ENTRIES_PER_PAGE as u64) };
    }
    (total == pages && levels.len() <= INDEX_LEVELS_MAX).then_some(levels)
}

fn check_inner_entries(
    bytes: &[u8; PAGE_SIZE],
    header: &PageHeader,
) -> std::result::Result<Vec<InnerEntry>, Fault> {
    let mut entries: Vec<InnerEntry> = Vec::with_capacity(header.count.into());
    for entry in InnerEntry::of_page(bytes, header) {
        let entry = entry?;
        let ordered = entries
            .last()
            .map_or(entry.first_block == header.first, |last| entry.first_block > last.first_block);
        if !ordered {
            let (field, found) = ("first block", entry.first_block);
            return Err(Fault::Value { field, found, allowed: "ascending" });
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Index entries in block order; see [`crate::Image::entries`]. Ends after the first error.
pub struct Entries<'a> {
    index: &'a Index,
    first: BlockIndex,
    page: Option<Arc<Page>>,
    /// Leaf page being read; `None` before the first.
    position: Option<u64>,
    slot: usize,
    /// First block after the last entry handed out.
    end: BlockIndex,
    done: bool,
}

impl Entries<'_> {
    fn advance(&mut self) -> Result<Option<IndexEntry>> {
        loop {
            if let Some(Page::Leaf(entries)) = self.page.as_deref()
                && let Some(entry) = entries.get(self.slot)
            {
                self.slot += 1;
                return self.in_order(*entry).map(Some);
            }
            let begins = self.position.is_none();
            let next = match self.position {
                Some(position) => position + 1,
                None => match self.index.leaf_of(self.first)? {
                    Some(position) => position,
                    None => return Ok(None),
                },
            };
            if next >= self.index.leaf_pages() {
                return Ok(None);
            }
            let page = self.index.page(0, next)?;
            self.slot = match &*page {
                Page::Leaf(entries) if begins => entries.partition_point(|e| e.end() <= self.first),
                _ => 0,
            };
            self.page = Some(page);
            self.position = Some(next);
        }
    }

    /// Each page is in order by itself; this compares it with the page before.
    fn in_order(&mut self, entry: IndexEntry) -> Result<IndexEntry> {
        if entry.block < self.end {
            let (field, found) = ("block", entry.block);
            let fault = Fault::Value { field, found, allowed: "ascending, without overlap" };
            let page_no = self.position.unwrap_or(0);
            let offset = self.index.offset + page_no * PAGE_SIZE as u64;
            return Err(fault.at(Section::IndexPage, offset));
        }
        self.end = entry.end();
        Ok(entry)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.advance().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
