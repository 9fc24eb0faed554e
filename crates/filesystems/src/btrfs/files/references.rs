//! Who refers to an extent, by the extent tree.

use aiv_volume_io::Extent;

use super::super::key::{Item, kind};
use super::Claim;
use crate::FileId;
use crate::bytes::{le32, le64};

/// Bytes of an extent item in front of its references.
pub(super) const HEADER_LEN: usize = 24;
const DATA: u64 = 1;
/// Tree, file, place and count of a reference of data.
const REFERENCE_LEN: usize = 28;

/// The extent whose items come.
struct Open {
    extent: Extent,
    /// References in all.
    count: u64,
    /// Claims of it.
    claims: std::ops::Range<usize>,
    /// References that are claims.
    found: u64,
    /// Something else refers to it, or is not understood.
    is_foreign: bool,
}

/// Takes the items of the extent tree, and finds extents whose references are the claims of one
/// file.
pub(super) struct Judge {
    /// By address.
    claims: Vec<Claim>,
    next: usize,
    open: Option<Open>,
    own: Vec<(usize, Extent)>,
}

impl Judge {
    pub(super) fn new(mut claims: Vec<Claim>) -> Self {
        claims.sort_unstable_by_key(|claim| (claim.extent.start, claim.file, claim.place));
        Self { claims, next: 0, open: None, own: Vec::new() }
    }

    pub(super) fn take(&mut self, item: Item<'_>) {
        match item.key.kind {
            kind::EXTENT_ITEM | kind::METADATA_ITEM => {
                self.close();
                self.begin(item);
            }
            kind::EXTENT_DATA_REF if item.data.len() == REFERENCE_LEN => {
                self.reference(item.key.object, item.data);
            }
            kind::EXTENT_DATA_REF | kind::SHARED_DATA_REF => self.foreign(item.key.object),
            _ => {}
        }
    }

    /// Extents and the numbers of the files that they belong to, by file.
    pub(super) fn finish(mut self) -> Vec<(usize, Extent)> {
        self.close();
        self.own.sort_unstable_by_key(|(file, extent)| (*file, extent.start));
        self.own
    }

    fn begin(&mut self, item: Item<'_>) {
        let extent = Extent::new(item.key.object, item.key.offset);
        while self.claims.get(self.next).is_some_and(|claim| claim.extent.start < extent.start) {
            self.next += 1;
        }
        let rest = self.claims.get(self.next..).unwrap_or_default();
        let len = rest.iter().take_while(|claim| claim.extent.start == extent.start).count();
        let is_data = item.key.kind == kind::EXTENT_ITEM
            && item.data.len() >= HEADER_LEN
            && le64(item.data, 16) & DATA != 0;
        if len == 0 || !is_data {
            return;
        }
        let claims = self.next..self.next + len;
        let is_of_one =
            rest[..len].iter().all(|claim| claim.file == rest[0].file && claim.extent == extent);
        let count = le64(item.data, 0);
        self.open = Some(Open { extent, count, claims, found: 0, is_foreign: !is_of_one });
        let mut inline = &item.data[HEADER_LEN..];
        while let Some((&kind, rest)) = inline.split_first() {
            let Some((reference, rest)) = rest.split_at_checked(REFERENCE_LEN) else {
                return self.foreign(extent.start);
            };
            if kind != kind::EXTENT_DATA_REF {
                return self.foreign(extent.start);
            }
            self.reference(extent.start, reference);
            inline = rest;
        }
    }

    fn foreign(&mut self, logical: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| open.extent.start == logical) {
            open.is_foreign = true;
        }
    }

    /// References from one place.
    fn reference(&mut self, logical: u64, bytes: &[u8]) {
        let open = self.open.as_mut().filter(|open| open.extent.start == logical);
        let Some(open) = open.filter(|open| !open.is_foreign) else { return };
        let id = FileId { space: le64(bytes, 0), number: le64(bytes, 8) };
        let (place, count) = (le64(bytes, 16), u64::from(le32(bytes, 24)));
        // All are of one file, by place.
        let claims = &self.claims[open.claims.clone()];
        let first = claims.partition_point(|claim| claim.place < place);
        let end = claims.partition_point(|claim| claim.place <= place);
        let is_it = end > first && claims[first].id == id && (end - first) as u64 == count;
        open.found = open.found.saturating_add(count);
        open.is_foreign = !is_it;
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let claims = open.claims.len() as u64;
        if !open.is_foreign && open.found == open.count && claims == open.count {
            self.own.push((self.claims[open.claims.start].file, open.extent));
        }
    }
}
