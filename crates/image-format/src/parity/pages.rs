//! Parity over the pages that everything else is found and proven by: superblock, index, tree,
//! META and stored list.
//!
//! The pages are cut into groups, so that writing and repairing takes the memory of one group.
//! In a group, pages and then parity pages are dealt out to stripes like cards: a burst hits many
//! stripes a little.

use std::ops::Range;

use aiv_parity::{PARITY_SHARDS, add_shard, add_shards, solve};

use crate::hash;
use crate::ids::ImageId;
use crate::layout::{PAGE_HASHES_PER_PAGE, PageHeader, PageKind, Trailer};
use crate::limits::PAGE_SIZE;

/// Data pages of a stripe at most.
const DATA_PAGES: usize = 16;

/// Pages of a group at most: 2 MiB.
const GROUP_PAGES: u64 = 512;

/// Stripes of a group at least where pieces have parity, too: four pages each of so many stripes
/// are more than a burst of 192 KiB touches.
const STRIPES_MIN_WITH_DATA: usize = 13;

/// What stands for a page in the directory: the beginning of its page hash.
pub(crate) type ShortHash = [u8; 16];

/// The short hash of a page.
pub(crate) fn short_hash(page: &[u8]) -> ShortHash {
    let mut short = [0; 16];
    short.copy_from_slice(&hash::page(page).0[..16]);
    short
}

/// Where the protected pages of an image and their parity are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProtectedPages {
    /// The superblock, and every page from the index to the end of the stored list.
    pages: u64,
    groups: u64,
    index_offset: u64,
    parity_offset: u64,
    stripes_min: usize,
}

/// A part of the protected pages with its parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Number of its first page among the protected ones.
    pub first: u64,
    /// Protected pages in it.
    pub pages: usize,
    pub stripes: usize,
    /// Where its part of the parity area begins: a copy of its directory, its parity pages, the
    /// other copy.
    pub offset: u64,
    /// Number of its first directory page in the area, copies not counted.
    pub first_directory: u64,
}

impl ProtectedPages {
    /// For an image whose index begins at `index_offset` and whose stored list ends at
    /// `list_end`, both multiples of a page.
    pub(crate) fn new(index_offset: u64, list_end: u64, with_data_parity: bool) -> Self {
        let page = PAGE_SIZE as u64;
        let pages = 1 + list_end.saturating_sub(index_offset) / page;
        let stripes_min = if with_data_parity { STRIPES_MIN_WITH_DATA } else { 1 };
        let groups = pages.div_ceil(GROUP_PAGES);
        Self { pages, groups, index_offset, parity_offset: list_end, stripes_min }
    }

    /// For a finished image, whose areas were checked.
    pub(crate) fn of(trailer: &Trailer, with_data_parity: bool) -> Self {
        Self::new(trailer.index_offset, trailer.parity_offset, with_data_parity)
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> u64 {
        self.groups
    }

    /// Bytes of the parity area; `None` for more than a file can have.
    pub(crate) fn area_len(&self) -> Option<u64> {
        // An area is smaller than the pages it is about, or than 1 MiB.
        self.pages.checked_mul(PAGE_SIZE as u64)?.checked_add(1 << 20)?;
        let last = Self { parity_offset: 0, ..*self }.group(self.groups - 1);
        Some(last.offset + last.area_len())
    }

    /// The group of this number. The pages are spread evenly: no group is small unless it is the
    /// only one.
    pub(crate) fn group(&self, number: u64) -> Group {
        let (base, larger) = (self.pages / self.groups, self.pages % self.groups);
        let first = number * base + number.min(larger);
        let shape = |pages: u64| {
            let pages = usize::try_from(pages).expect("at most a full group");
            let stripes = pages.div_ceil(DATA_PAGES).max(self.stripes_min);
            Group { first, pages, stripes, offset: self.parity_offset, first_directory: 0 }
        };
        let (large, small) = (shape(base + 1), shape(base));
        let before = (number.min(larger), number.saturating_sub(larger));
        let sum = |of: fn(&Group) -> u64| before.0 * of(&large) + before.1 * of(&small);
        Group {
            offset: self.parity_offset + sum(|group| group.area_len()),
            first_directory: sum(|group| group.directory_pages() as u64),
            ..if number < larger { large } else { small }
        }
    }

    /// The pages of a group as rows of bytes of the file: where each is among them, and its
    /// byte offset.
    pub(crate) fn runs(&self, group: &Group) -> Vec<(Range<usize>, u64)> {
        let end = group.pages * PAGE_SIZE;
        if group.first > 0 {
            return vec![(0..end, self.offset_of(group.first))];
        }
        vec![(0..PAGE_SIZE, 0), (PAGE_SIZE..end, self.index_offset)]
    }

    /// Byte offset of a protected page.
    pub(crate) fn offset_of(&self, page: u64) -> u64 {
        match page {
            0 => 0,
            page => self.index_offset + (page - 1) * PAGE_SIZE as u64,
        }
    }
}

impl Group {
    pub(crate) fn parity_pages(&self) -> usize {
        self.stripes * PARITY_SHARDS
    }

    /// Pages of one copy of its directory.
    pub(crate) fn directory_pages(&self) -> usize {
        (self.pages + self.parity_pages()).div_ceil(PAGE_HASHES_PER_PAGE)
    }

    /// Bytes of its part of the parity area.
    pub(crate) fn area_len(&self) -> u64 {
        ((2 * self.directory_pages() + self.parity_pages()) * PAGE_SIZE) as u64
    }

    /// Where in its part of the area the copies of the directory, and the parity pages, are.
    pub(crate) fn parts(&self) -> [Range<usize>; 3] {
        let (directory, parity) =
            (self.directory_pages() * PAGE_SIZE, self.parity_pages() * PAGE_SIZE);
        let behind = directory + parity;
        [0..directory, directory..behind, behind..behind + directory]
    }

    /// The number of a parity page behind the protected pages.
    const fn parity_page(&self, stripe: usize, row: usize) -> usize {
        // The row goes on where the protected pages end, so that no burst over the end of them
        // hits a stripe more often than one elsewhere.
        let turn = (stripe + self.stripes - self.pages % self.stripes) % self.stripes;
        self.pages + row * self.stripes + turn
    }

    /// The parity pages of the protected pages `bytes`.
    pub(crate) fn encode(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.parity_pages() * PAGE_SIZE];
        let mut parity = vec![0; PARITY_SHARDS * PAGE_SIZE];
        for stripe in 0..self.stripes {
            parity.fill(0);
            let pages = (stripe..self.pages).step_by(self.stripes);
            let pages: Vec<&[u8]> = pages.map(|page| page_of(bytes, page)).collect();
            add_shards(0, &pages, &mut parity);
            for (row, parity) in parity.chunks(PAGE_SIZE).enumerate() {
                let place = self.parity_page(stripe, row) - self.pages;
                out[place * PAGE_SIZE..(place + 1) * PAGE_SIZE].copy_from_slice(parity);
            }
        }
        out
    }

    /// Its part of the parity area, for the protected pages `bytes`.
    pub(crate) fn area(&self, bytes: &[u8], image: ImageId) -> Vec<u8> {
        let parity = self.encode(bytes);
        let hashes: Vec<u8> =
            bytes.chunks(PAGE_SIZE).chain(parity.chunks(PAGE_SIZE)).flat_map(short_hash).collect();
        let mut directory = Vec::with_capacity(self.directory_pages() * PAGE_SIZE);
        for (number, hashes) in hashes.chunks(PAGE_HASHES_PER_PAGE * 16).enumerate() {
            let header = PageHeader {
                kind: PageKind::Parity,
                level: 0,
                count: u16::try_from(hashes.len() / 16).expect("a page full"),
                page_no: self.first_directory + number as u64,
                first: (number * PAGE_HASHES_PER_PAGE) as u64,
                image,
            };
            directory.extend_from_slice(&header.build(hashes));
        }
        [&directory[..], &parity, &directory].concat()
    }

    /// The hashes of protected and parity pages, from whichever copy of each directory page is
    /// sound; `None` where neither is. `area` is its part of the parity area.
    pub(crate) fn hashes(&self, area: &[u8], image: ImageId) -> Vec<Option<ShortHash>> {
        let count = self.pages + self.parity_pages();
        let mut hashes = vec![None; count];
        let [front, _, back] = self.parts();
        for copy in [front, back] {
            let pages = area[copy].as_chunks::<PAGE_SIZE>().0.iter();
            for (number, page) in pages.enumerate() {
                let page_no = self.first_directory + number as u64;
                let header = PageHeader::from_page(page, PageKind::Parity, image, page_no, 0);
                let first = number * PAGE_HASHES_PER_PAGE;
                let room = (count - first).min(PAGE_HASHES_PER_PAGE);
                let Ok(header) = header else { continue };
                if usize::from(header.count) != room || header.first != first as u64 {
                    continue;
                }
                for (hash, found) in hashes[first..].iter_mut().zip(header.short_hashes(page)) {
                    *hash = Some(found);
                }
            }
        }
        hashes
    }

    /// Finds the pages for which `is_bad` holds, by number in the row of protected pages and
    /// then parity pages, in `row`, whose other pages are sound. Returns those that stay lost:
    /// of stripes with more than four.
    pub(crate) fn repair(&self, row: &mut [u8], is_bad: &[bool]) -> Vec<usize> {
        let mut left = Vec::new();
        for stripe in 0..self.stripes {
            let bad: Vec<usize> = (0..is_bad.len())
                .filter(|&page| is_bad[page] && page % self.stripes == stripe)
                .collect();
            let lost: Vec<usize> = bad.iter().copied().filter(|&page| page < self.pages).collect();
            if bad.len() > PARITY_SHARDS {
                left.extend(bad);
                continue;
            }
            let columns: Vec<usize> = lost.iter().map(|page| page / self.stripes).collect();
            let rows: Vec<usize> =
                (0..PARITY_SHARDS).filter(|&row| !is_bad[self.parity_page(stripe, row)]).collect();
            let mut difference: Vec<u8> = (0..PARITY_SHARDS)
                .flat_map(|number| page_of(row, self.parity_page(stripe, number)).to_vec())
                .collect();
            for page in (stripe..self.pages).step_by(self.stripes) {
                if !lost.contains(&page) {
                    add_shard(page / self.stripes, page_of(row, page), &mut difference);
                }
            }
            match solve(&columns, &rows, &difference) {
                Some(found) => lost.iter().zip(found).for_each(|(page, found)| {
                    row[page * PAGE_SIZE..(page + 1) * PAGE_SIZE].copy_from_slice(&found);
                }),
                None => left.extend(lost),
            }
        }
        left.sort_unstable();
        left
    }
}

fn page_of(bytes: &[u8], page: usize) -> &[u8] {
    &bytes[page * PAGE_SIZE..(page + 1) * PAGE_SIZE]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    /// The only group of an image with so many protected pages.
    fn group(pages: u64, with_data_parity: bool) -> Group {
        let list_end = 4096 + (pages - 1) * 4096;
        let protected = ProtectedPages::new(4096, list_end, with_data_parity);
        assert_eq!(protected.groups(), 1);
        protected.group(0)
    }

    /// Damages the pages in `bad` of the row and compares what is found again.
    fn check(group: &Group, bad: &[usize], recoverable: bool) {
        let bytes = noise(group.pages as u64, group.pages * PAGE_SIZE);
        let row = [bytes.clone(), group.encode(&bytes)].concat();
        let mut damaged = row.clone();
        let mut is_bad = vec![false; group.pages + group.parity_pages()];
        for &page in bad {
            is_bad[page] = true;
            damaged[page * PAGE_SIZE..(page + 1) * PAGE_SIZE].fill(0xbb);
        }
        let left = group.repair(&mut damaged, &is_bad);
        assert_eq!(left.is_empty(), recoverable, "{bad:?} leaves {left:?}");
        if recoverable {
            assert!(damaged[..bytes.len()] == bytes, "{bad:?}");
        }
    }

    #[test]
    fn groups_share_the_pages_evenly_and_their_areas_follow_each_other() {
        for pages in [1, 15, 16, 17, 511, 512, 513, 1024, 1025, 5000, 262_144, (1 << 30) + 7] {
            let list_end = (1 << 20) + (pages - 1) * 4096;
            let protected = ProtectedPages::new(1 << 20, list_end, false);
            let count = protected.groups();
            let seen = [0, 1, count / 2, count.saturating_sub(2), count - 1];
            for number in seen.into_iter().filter(|&number| number < count) {
                let group = protected.group(number);
                assert!(group.pages <= 512 && (count == 1 || group.pages >= 256), "{group:?}");
                assert_eq!(group.stripes, group.pages.div_ceil(16));
                let next = protected.group(number + 1);
                assert_eq!(next.first, group.first + group.pages as u64);
                assert_eq!(next.offset, group.offset + group.area_len());
                let directory = group.directory_pages() as u64;
                assert_eq!(next.first_directory, group.first_directory + directory);
            }
            let end = protected.group(count);
            assert_eq!(end.first, pages);
            assert_eq!(protected.area_len(), Some(end.offset - list_end));
        }
    }

    #[test]
    fn offsets_beyond_any_file_have_no_area() {
        for (index, list_end) in [(0, u64::MAX), (4096, u64::MAX - 4095), (1 << 63, u64::MAX)] {
            let len = ProtectedPages::new(index, list_end, true).area_len();
            assert!(len.is_none_or(|len| len < 1 << 63), "{index} {list_end}");
        }
    }

    #[test]
    fn any_four_pages_of_each_stripe_are_found_again() {
        for (pages, with_data_parity) in
            [(1, false), (9, false), (16, false), (40, true), (300, false)]
        {
            let group = group(pages, with_data_parity);
            let total = group.pages + group.parity_pages();
            for seed in 0..40 {
                // In each stripe four pages that depend on the seed.
                let order = noise(seed, total);
                let mut bad = Vec::new();
                for stripe in 0..group.stripes {
                    let mut pages: Vec<usize> =
                        (0..total).filter(|page| page % group.stripes == stripe).collect();
                    pages.sort_by_key(|&page| order[page]);
                    bad.extend(pages.into_iter().take(4));
                }
                check(&group, &bad, true);
            }
        }
    }

    #[test]
    fn five_pages_of_a_stripe_are_too_many() {
        let group = group(40, false);
        check(&group, &[0, 3, 6, 9, 12], false);
        check(&group, &[0, 3, 6, 40 + 2, 40 + 5], false);
        check(&group, &[0, 3, 6, 9, 13], true);
    }

    #[test]
    fn a_burst_that_touches_four_pages_a_stripe_is_repaired_wherever_it_is() {
        for (pages, with_data_parity) in
            [(5, true), (200, true), (70, false), (83, false), (512, false)]
        {
            let group = group(pages, with_data_parity);
            let total = group.pages + group.parity_pages();
            // 192 KiB, and 64 KiB, at any place in a page.
            let burst = if with_data_parity { 49 } else { 17 };
            assert!(burst <= 4 * group.stripes);
            for start in (0..total).step_by(3) {
                let bad: Vec<usize> = (start..(start + burst).min(total)).collect();
                check(&group, &bad, true);
            }
        }
    }

    #[test]
    fn hashes_come_from_whichever_copy_of_a_directory_page_is_sound() {
        let (image, group) = (ImageId([5; 16]), group(400, false));
        let bytes = noise(1, group.pages * PAGE_SIZE);
        let area = group.area(&bytes, image);
        let [front, parity, back] = group.parts();
        let row = [&bytes[..], &area[parity]].concat();
        let expected: Vec<_> = row.chunks(PAGE_SIZE).map(|page| Some(short_hash(page))).collect();
        assert_eq!(group.hashes(&area, image), expected);
        assert!(group.hashes(&area, ImageId([6; 16])).iter().all(Option::is_none));
        // One page of the first copy, another one of the second.
        let mut damaged = area.clone();
        damaged[front.start + 70] ^= 1;
        damaged[back.start + PAGE_SIZE + 70] ^= 1;
        assert_eq!(group.hashes(&damaged, image), expected);
        // The same page of both.
        damaged[back.start + 70] ^= 1;
        let found = group.hashes(&damaged, image);
        assert!(found[..252].iter().all(Option::is_none));
        assert_eq!(found[252..], expected[252..]);
    }
}
