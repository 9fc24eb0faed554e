//! Pages of this image's blocks by their hash: where a copy that is shifted against the grid of
//! blocks came from.

use std::sync::{PoisonError, RwLock};

use aiv_image_format::{BlockIndex, BlockSize};
use twox_hash::XxHash3_64;

/// Bytes of a page: what filesystems allocate, so that copies are shifted by whole pages.
pub(crate) const PAGE: usize = 4096;

/// Slots of the table: 32 MiB, whatever the size of the source.
const SLOTS_MAX: u64 = 4 << 20;

/// Slots of a small source.
const SLOTS_MIN: u64 = 64;

/// Slots looked at for a hash. When all are taken, a page is not remembered.
const ROW: usize = 8;

/// Bits of a slot that hold the number of the page, plus one; the others hold a part of its
/// hash. Pages behind 4 PiB are not remembered.
const NUMBER_BITS: u32 = 40;

/// Bits of a hash that choose which pages are remembered, and nothing else.
const SAMPLE_BITS: u32 = 8;

/// A page inside of a block, worth remembering or looking for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its place in the block, in pages.
    pub at: u64,
    hash: u64,
}

/// Where pages were seen first. What is in it never changes: whoever asks for pages below a
/// block that was decided gets the same answer at any time.
#[derive(Debug)]
pub(crate) struct PageTable {
    /// Rows of [`ROW`] slots; zero is an empty one.
    slots: RwLock<Vec<u64>>,
    /// A page is remembered when these bits of its hash are zero.
    sample: u64,
    pages_per_block: u64,
}

impl PageTable {
    /// A table for blocks of this size that hold `bytes` in all: their pages, or every second,
    /// fourth ... of them where there are many, chosen by what they hold.
    pub(crate) fn new(block_size: BlockSize, bytes: u64) -> Self {
        let pages = bytes / PAGE as u64;
        // A quarter stays empty, or many rows would be full.
        let (mut shift, most) = (0, SLOTS_MAX / 4 * 3);
        while pages >> shift > most && shift < SAMPLE_BITS {
            shift += 1;
        }
        let slots = ((pages >> shift) / 3).saturating_mul(4).min(SLOTS_MAX).next_power_of_two();
        let slots = usize::try_from(slots.max(SLOTS_MIN)).expect("at most SLOTS_MAX");
        Self {
            slots: RwLock::new(vec![0; slots]),
            sample: (1 << shift) - 1,
            pages_per_block: u64::from(block_size.get()) / PAGE as u64,
        }
    }

    /// Whether all pages are looked for, so that what is not found is not there.
    pub(crate) fn is_complete(&self) -> bool {
        self.sample == 0
    }

    /// The pages of a block that are worth remembering or looking for. One that holds the same
    /// eight bytes everywhere is not, zeros above all: it says nothing about its neighbours.
    pub(crate) fn pages_of(&self, block: &[u8]) -> Vec<Page> {
        let pages = (0..).zip(block.chunks_exact(PAGE));
        let pages = pages.filter(|(_, page)| !is_constant(page));
        let pages = pages.map(|(at, page)| Page { at, hash: XxHash3_64::oneshot(page) });
        pages.filter(|page| page.hash & self.sample == 0).collect()
    }

    /// Remembers the pages of a block, except those that are known from elsewhere.
    pub(crate) fn remember(&self, block: BlockIndex, pages: &[Page]) {
        let Some(first) = block.checked_mul(self.pages_per_block) else { return };
        if first.saturating_add(self.pages_per_block) >= (1 << NUMBER_BITS) - 1 {
            return;
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        for page in pages {
            let new = tag(page.hash) | (first + page.at + 1);
            for slot in row_of(page.hash, slots.len()) {
                let Some(slot) = slots.get_mut(slot) else { break };
                if *slot == 0 {
                    *slot = new;
                }
                if tag_in(*slot) == tag_in(new) {
                    break;
                }
            }
        }
    }

    /// The pages of the disk, in pages from its start, where each of `pages` was seen first, if
    /// that was below `limit`. Hashes may coincide.
    pub(crate) fn find<'p>(&self, pages: &'p [Page], limit: BlockIndex) -> Vec<(&'p Page, u64)> {
        let limit = limit.saturating_mul(self.pages_per_block);
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let seen = |page: &Page| {
            let row = row_of(page.hash, slots.len()).filter_map(|slot| slots.get(slot));
            let mut found = row.filter(|slot| tag_in(**slot) == tag_in(tag(page.hash)));
            let number = found.find(|slot| **slot != 0).map(|slot| number_in(*slot))?;
            (number < limit).then_some(number)
        };
        pages.iter().filter_map(|page| Some((page, seen(page)?))).collect()
    }
}

/// The slots a hash may be in. Their choice and the tag share no bits.
fn row_of(hash: u64, slots: usize) -> std::ops::Range<usize> {
    let rows = slots / ROW;
    let row = usize::try_from(hash >> SAMPLE_BITS & 0xffff_ffff).unwrap_or(0) & (rows - 1);
    row * ROW..(row + 1) * ROW
}

const fn tag(hash: u64) -> u64 {
    hash >> NUMBER_BITS << NUMBER_BITS
}

const fn tag_in(slot: u64) -> u64 {
    slot >> NUMBER_BITS
}

/// The page in a slot that is not empty.
const fn number_in(slot: u64) -> u64 {
    (slot & ((1 << NUMBER_BITS) - 1)) - 1
}

/// Whether the same eight bytes come again and again.
pub(crate) fn is_constant(page: &[u8]) -> bool {
    let (words, _) = page.as_chunks::<8>();
    words.iter().all(|word| Some(word) == words.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_testkit::disks::Content;

    const BLOCK: usize = 64 << 10;
    const PAGES: u64 = 16;

    fn table(bytes: u64) -> PageTable {
        PageTable::new(BlockSize::new(64 << 10).expect("a block size"), bytes)
    }

    fn slots(table: &PageTable) -> u64 {
        table.slots.read().expect("not poisoned").len() as u64
    }

    #[test]
    fn a_page_is_found_where_it_was_seen_first_and_only_below_the_limit() {
        let table = table(100 << 20);
        let bytes = Content::Random(1).bytes(2 * BLOCK);
        let blocks = [&bytes[..BLOCK], &bytes[BLOCK..]];
        table.remember(5, &table.pages_of(blocks[0]));
        table.remember(6, &table.pages_of(blocks[1]));
        table.remember(7, &table.pages_of(blocks[0]));
        let shifted = table.pages_of(&bytes[3 * PAGE..][..BLOCK]);
        let places = |limit| -> Vec<_> {
            table.find(&shifted, limit).iter().map(|(page, old)| (page.at, *old)).collect()
        };
        let all: Vec<_> = (0..PAGES).map(|at| (at, 5 * PAGES + 3 + at)).collect();
        assert_eq!(places(7), all);
        assert_eq!(places(6), all[..13]);
        assert_eq!(places(5), []);
    }

    #[test]
    fn zeros_and_patterns_are_neither_remembered_nor_looked_for() {
        let table = table(100 << 20);
        for pattern in [&[0; 8][..], &[0xff], b"aivory.."] {
            assert_eq!(table.pages_of(&pattern.repeat(BLOCK / pattern.len())), []);
        }
        let mut bytes = vec![0; BLOCK];
        bytes[2 * PAGE - 1] = 1;
        let at: Vec<_> = table.pages_of(&bytes).iter().map(|page| page.at).collect();
        assert_eq!(at, [1]);
    }

    #[test]
    fn a_short_block_has_its_whole_pages() {
        let table = table(100 << 20);
        let bytes = Content::Random(2).bytes(BLOCK);
        for (len, pages) in [(0, 0), (PAGE - 1, 0), (PAGE, 1), (3 * PAGE + 1, 3)] {
            assert_eq!(table.pages_of(&bytes[..len]).len(), pages, "{len}");
        }
    }

    #[test]
    fn memory_follows_the_source_up_to_32_mib() {
        for (bytes, bound, sample) in [
            (0, SLOTS_MIN, 0),
            (1, SLOTS_MIN, 0),
            (64 << 20, 32 << 10, 0),
            (4 << 30, 2 << 20, 0),
            (12 << 30, SLOTS_MAX, 0),
            (13 << 30, SLOTS_MAX, 1),
            (57 << 30, SLOTS_MAX, 7),
            (u64::MAX, SLOTS_MAX, 255),
        ] {
            let table = table(bytes);
            assert!(slots(&table) <= bound, "{} slots for {bytes} bytes", slots(&table));
            assert_eq!(table.sample, sample, "{bytes}");
            assert_eq!(table.is_complete(), sample == 0);
        }
    }

    #[test]
    fn most_pages_of_a_source_of_the_expected_size_are_remembered() {
        let bytes = Content::Random(3).bytes(100 * BLOCK);
        let table = table(bytes.len() as u64);
        for (number, block) in (0..).zip(bytes.chunks(BLOCK)) {
            table.remember(number, &table.pages_of(block));
        }
        let found = bytes.chunks(BLOCK).map(|b| table.find(&table.pages_of(b), 100).len());
        let found: usize = found.sum();
        assert!(found >= 1520, "{found} of 1600");
    }

    #[test]
    fn a_table_that_is_full_keeps_what_it_has() {
        let table = table(0);
        let bytes = Content::Random(4).bytes(50 * BLOCK);
        let first = table.pages_of(&bytes[..BLOCK]);
        table.remember(0, &first);
        let before = table.find(&first, 1).len();
        for (number, block) in (1..).zip(bytes.chunks(BLOCK).skip(1)) {
            table.remember(number, &table.pages_of(block));
        }
        assert_eq!(table.find(&first, 1).len(), before);
        assert_eq!(slots(&table), SLOTS_MIN);
    }

    #[test]
    fn blocks_far_behind_anything_are_not_remembered() {
        let table = table(1 << 20);
        let pages = table.pages_of(&Content::Random(5).bytes(BLOCK));
        for block in [u64::MAX, u64::MAX / PAGES, (1 << NUMBER_BITS) / PAGES] {
            table.remember(block, &pages);
            assert_eq!(table.find(&pages, u64::MAX), []);
        }
    }

    #[test]
    fn of_a_large_source_pages_are_chosen_by_what_they_hold() {
        let table = table(57 << 30);
        let bytes = Content::Random(6).bytes(64 * BLOCK);
        let chosen: usize = bytes.chunks(BLOCK).map(|block| table.pages_of(block).len()).sum();
        assert!((64..=192).contains(&chosen), "{chosen} of 1024, one of eight was meant");
        let again: usize =
            bytes[PAGE..].chunks(BLOCK).map(|block| table.pages_of(block).len()).sum();
        assert!(chosen - again <= 1, "the same ones, wherever they are");
    }
}
