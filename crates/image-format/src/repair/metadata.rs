//! Superblock, index, tree, META and stored list, found again by the parity area.

use std::sync::Arc;

use aiv_volume_io::{Job, ReadAt};

use super::RepairReport;
use super::mended::Mended;
use crate::error::{Fault, Result, Section};
use crate::hash::Tree;
use crate::ids::Digest;
use crate::layout::{Superblock, Trailer};
use crate::limits::PAGE_SIZE;
use crate::parity::pages::{Group, ProtectedPages, ShortHash, short_hash};

/// Repairs what can be, by parity or else by `copies`.
pub(super) fn mend(
    mut mended: Mended,
    superblock: &Superblock,
    trailer: &Trailer,
    copies: &[Arc<dyn ReadAt>],
    report: &mut RepairReport,
    job: Job<'_>,
) -> Result<Mended> {
    let protected = ProtectedPages::of(trailer, superblock.features.has_data_parity());
    let mut first = [0; PAGE_SIZE];
    if mended.raw().read_exact_at(&mut first, 0).is_err() || first != mended.page(0)? {
        report.pages += 1;
    }
    for number in 0..protected.groups() {
        job.check()?;
        let group = protected.group(number);
        let found = Row::read(&mended, &protected, &group, superblock);
        for (offset, page) in found.mend(&protected, copies) {
            mended.put(offset, &page)?;
            report.pages += 1;
        }
    }
    let root = stored_root(&mended, trailer, job)?;
    if root != trailer.stored_root {
        let fault = Fault::Hash { by: "trailer" };
        return Err(fault.at(Section::StoredList, trailer.stored_offset));
    }
    Ok(mended)
}

/// The root of the stored list as it is now.
fn stored_root(mended: &Mended, trailer: &Trailer, job: Job<'_>) -> Result<Digest> {
    let mut tree = Tree::stored();
    let mut left = trailer.stored_pieces;
    let mut offset = trailer.stored_offset;
    while left > 0 {
        job.check()?;
        let page = mended.page(offset)?;
        for hash in page.as_chunks::<32>().0.iter().take(usize::try_from(left).unwrap_or(128)) {
            tree.push(Digest(*hash));
            left -= 1;
        }
        offset += PAGE_SIZE as u64;
    }
    Ok(tree.finish())
}

/// The pages of a group and its parity pages, one after the other, and which of them are bad.
struct Row {
    group: Group,
    bytes: Vec<u8>,
    hashes: Vec<Option<ShortHash>>,
    is_bad: Vec<bool>,
}

impl Row {
    /// A page that cannot be read is bad; so is one whose hash is known and differs. What no copy
    /// of the directory knows is taken as it is: trailer and stored list prove it later.
    fn read(
        mended: &Mended,
        protected: &ProtectedPages,
        group: &Group,
        superblock: &Superblock,
    ) -> Self {
        let mut area = vec![0; usize::try_from(group.area_len()).unwrap_or(0)];
        let unread = read_pages(mended, &mut area, group.offset);
        let [_, parity, _] = group.parts();
        let mut bytes = vec![0; group.pages * PAGE_SIZE];
        let mut is_bad = Vec::new();
        for (run, at) in protected.runs(group) {
            is_bad.extend(read_pages(mended, &mut bytes[run], at));
        }
        let pages = parity.start / PAGE_SIZE..parity.end / PAGE_SIZE;
        is_bad.extend_from_slice(&unread[pages]);
        bytes.extend_from_slice(&area[parity]);
        let hashes = group.hashes(&area, superblock.image);
        let pages = bytes.chunks(PAGE_SIZE).zip(&hashes);
        for (is_bad, (page, hash)) in is_bad.iter_mut().zip(pages) {
            *is_bad |= hash.is_some_and(|hash| short_hash(page) != hash);
        }
        Self { group: *group, bytes, hashes, is_bad }
    }

    /// The pages found again, with their places.
    fn mend(
        mut self,
        protected: &ProtectedPages,
        copies: &[Arc<dyn ReadAt>],
    ) -> Vec<(u64, [u8; PAGE_SIZE])> {
        if !self.is_bad[..self.group.pages].contains(&true) {
            return Vec::new();
        }
        let offset = |page: usize| protected.offset_of(self.group.first + page as u64);
        let mut left = self.group.repair(&mut self.bytes, &self.is_bad);
        left.retain(|&page| page < self.group.pages);
        for &page in &left {
            let wanted = self.hashes[page];
            let found = copies.iter().find_map(|copy| {
                let mut bytes = [0; PAGE_SIZE];
                copy.read_exact_at(&mut bytes, offset(page)).ok()?;
                (Some(short_hash(&bytes)) == wanted).then_some(bytes)
            });
            if let Some(found) = found {
                self.bytes[page * PAGE_SIZE..(page + 1) * PAGE_SIZE].copy_from_slice(&found);
            }
        }
        let pages = self.bytes.as_chunks::<PAGE_SIZE>().0.iter().enumerate();
        pages
            .take(self.group.pages)
            .filter(|(page, _)| self.is_bad[*page])
            .filter(|(page, bytes)| {
                self.hashes[*page].is_none_or(|hash| short_hash(*bytes) == hash)
            })
            .map(|(page, bytes)| (offset(page), *bytes))
            .collect()
    }
}

/// Reads pages, those that can be: which of them could not.
fn read_pages(file: &dyn ReadAt, out: &mut [u8], offset: u64) -> Vec<bool> {
    let count = out.len() / PAGE_SIZE;
    if file.read_exact_at(out, offset).is_ok() {
        return vec![false; count];
    }
    let mut at = offset;
    let mut unread = Vec::with_capacity(count);
    for page in out.chunks_mut(PAGE_SIZE) {
        unread.push(file.read_exact_at(page, at).is_err());
        at += PAGE_SIZE as u64;
    }
    unread
}
