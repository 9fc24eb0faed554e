//! Forged images: a change anywhere, and every checksum and hash above it made right again, so
//! that the checks behind the checksums are reached.

use std::ops::Range;
use std::sync::Arc;

use crate::areas::{Areas, Frame, PAGE, has_data_parity};
use crate::naive::{keyed, stored_root};
use crate::naive_parity;

const ENTRIES_PER_INDEX_PAGE: usize = 84;
const KEY_PAGE: &str = "aivory draft: index page        ";
const KEY_SECTION: &str = "aivory draft: whole section     ";
const KEY_TRAILER: &str = "aivory draft: trailer           ";
const KEY_PIECE: &str = "aivory draft: stored piece      ";
const KEY_STATE: &str = "aivory draft: state root        ";

/// An image under change.
#[derive(Clone)]
pub(crate) struct Forgery {
    pub bytes: Vec<u8>,
    /// Where the parts were before any change.
    pub areas: Areas,
}

impl Forgery {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), areas: Areas::of(bytes) }
    }

    /// Writes `value` at `offset` of the superblock and of its copy.
    pub(crate) fn superblock(mut self, offset: usize, value: &[u8]) -> Self {
        let places = [self.areas.superblock.start, self.areas.superblock_copy.start];
        places.iter().for_each(|place| self.put(place + offset, value));
        self
    }

    /// Writes `value` at `offset` of both trailers.
    pub(crate) fn trailer(mut self, offset: usize, value: &[u8]) -> Self {
        let places = [self.areas.first_trailer.start, self.areas.last_trailer.start];
        places.iter().for_each(|place| self.put(place + offset, value));
        self
    }

    /// Writes `value` at byte `at` of the file.
    pub(crate) fn at(mut self, at: usize, value: &[u8]) -> Self {
        self.put(at, value);
        self
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// Makes every checksum and hash fit the bytes again, from the inside out.
    pub(crate) fn seal(mut self) -> Arc<Vec<u8>> {
        let areas = self.areas.clone();
        areas.frames.iter().chain(&areas.sections).for_each(|frame| self.seal_frame(frame));
        self.seal_index();
        self.seal_tree();
        let meta = keyed(KEY_SECTION, &[&self.bytes[areas.meta.clone()]]);
        self = self.trailer(376, &meta).seal_state();
        self.seal_superblocks();
        self.seal_pieces();
        self.seal_parity();
        self.seal_trailers();
        Arc::new(self.bytes)
    }

    /// Makes every checksum and hash of a sealed image of one index page fit the bytes again, as
    /// far as that goes without its key.
    pub(crate) fn seal_without_key(mut self) -> Arc<Vec<u8>> {
        let areas = self.areas.clone();
        areas.frames.iter().chain(&areas.sections).for_each(|frame| self.seal_frame(frame));
        assert_eq!(areas.leaf_pages, 1, "pages above name others, and cannot be read");
        self.seal_index();
        self.seal_tree();
        let meta = keyed(KEY_SECTION, &[&self.bytes[areas.meta.clone()]]);
        self = self.trailer(376, &meta);
        self.seal_superblocks();
        self.seal_pieces();
        self.seal_trailers();
        Arc::new(self.bytes)
    }

    /// Makes only the frames fit themselves again.
    pub(crate) fn seal_frames_only(mut self) -> Arc<Vec<u8>> {
        self.areas.frames.clone().iter().for_each(|frame| self.seal_frame(frame));
        Arc::new(self.bytes)
    }

    /// Makes only the index pages fit themselves again.
    pub(crate) fn seal_pages_only(mut self) -> Arc<Vec<u8>> {
        self.areas.index.clone().step_by(PAGE).for_each(|at| self.seal_page(b"aiv.indx", at));
        Arc::new(self.bytes)
    }

    /// Makes only the superblocks fit themselves again.
    pub(crate) fn seal_superblocks_only(mut self) -> Arc<Vec<u8>> {
        self.seal_superblocks();
        Arc::new(self.bytes)
    }

    /// Makes only the trailers fit themselves again.
    pub(crate) fn seal_trailers_only(mut self) -> Arc<Vec<u8>> {
        self.seal_trailers();
        Arc::new(self.bytes)
    }

    fn seal_frame(&mut self, frame: &Frame) {
        let payload = crc(b"aiv.load", &[&self.bytes[frame.payload.clone()]]);
        let header = frame.header.start;
        self.put(header + 48, &payload.to_le_bytes());
        let own = crc(b"aiv.fram", &[&self.bytes[header..header + 60]]);
        self.put(header + 60, &own.to_le_bytes());
    }

    fn seal_page(&mut self, salt: &[u8; 8], at: usize) {
        let parts = [&self.bytes[at..at + 60], &self.bytes[at + 64..at + PAGE]];
        let own = crc(salt, &parts);
        self.put(at + 60, &own.to_le_bytes());
    }

    fn seal_index(&mut self) {
        let start = self.areas.index.start;
        let (mut first, mut count) = (0, self.areas.leaf_pages);
        while count > 1 {
            for page in 0..count {
                let at = start + (first + page) * PAGE;
                self.seal_page(b"aiv.indx", at);
                let hash = keyed(KEY_PAGE, &[&self.bytes[at..at + PAGE]]);
                let parent = first + count + page / ENTRIES_PER_INDEX_PAGE;
                let entry = 64 + page % ENTRIES_PER_INDEX_PAGE * 48;
                self.put(start + parent * PAGE + entry + 16, &hash);
            }
            first += count;
            count = count.div_ceil(ENTRIES_PER_INDEX_PAGE);
        }
        let root = start + first * PAGE;
        self.seal_page(b"aiv.indx", root);
        let hash = keyed(KEY_PAGE, &[&self.bytes[root..root + PAGE]]);
        *self = self.clone().trailer(280, &hash);
    }

    fn seal_tree(&mut self) {
        let tree = self.areas.tree.clone();
        tree.clone().step_by(PAGE).for_each(|at| self.seal_page(b"aiv.tree", at));
        let hash = keyed(KEY_SECTION, &[&self.bytes[tree]]);
        *self = self.clone().trailer(328, &hash);
    }

    /// The state root over geometry, content and map as they stand.
    fn seal_state(self) -> Self {
        let trailer = self.areas.last_trailer.start;
        let log2 = |at: usize| 1u32.checked_shl(self.bytes[at].into()).unwrap_or(0).to_le_bytes();
        let state = keyed(
            KEY_STATE,
            &[
                &self.bytes[160..168],
                &log2(145),
                &log2(147),
                &self.bytes[trailer + 112..trailer + 144],
                &self.bytes[trailer + 144..trailer + 176],
            ],
        );
        self.trailer(176, &state)
    }

    fn seal_superblocks(&mut self) {
        for area in [self.areas.superblock.clone(), self.areas.superblock_copy.clone()] {
            let own = crc(b"aiv.supr", &[&self.bytes[area.start..area.start + 4092]]);
            self.put(area.start + 4092, &own.to_le_bytes());
        }
    }

    fn seal_pieces(&mut self) {
        let list = self.areas.list.clone();
        for (number, at) in (0..list.start).step_by(64 << 10).enumerate() {
            let piece: Range<usize> = at..(at + (64 << 10)).min(list.start);
            let hash = keyed(KEY_PIECE, &[&self.bytes[piece]]);
            self.put(list.start + number * 32, &hash);
        }
        let root = stored_root(&self.bytes[..list.start]);
        *self = self.clone().trailer(208, &root.0);
    }

    /// The parity area over pages as they stand.
    fn seal_parity(&mut self) {
        let (index, parity) = (self.areas.index.start, self.areas.parity.clone());
        let protected = [&self.bytes[..PAGE], &self.bytes[index..parity.start]].concat();
        let with_data_parity = has_data_parity(&self.bytes);
        let area = naive_parity::area(&protected, &self.bytes[48..64], with_data_parity);
        // Where a forged feature makes it another length, the image is refused anyway.
        if area.len() == parity.len() {
            self.put(parity.start, &area);
        }
        let hash = keyed(KEY_SECTION, &[&self.bytes[parity]]);
        *self = self.clone().trailer(576, &hash);
    }

    fn seal_trailers(&mut self) {
        for at in [self.areas.first_trailer.start, self.areas.last_trailer.start] {
            let hash = keyed(KEY_TRAILER, &[&self.bytes[at..at + 4060]]);
            self.put(at + 4060, &hash);
            let own = crc(b"aiv.trlr", &[&self.bytes[at..at + 4092]]);
            self.put(at + 4092, &own.to_le_bytes());
        }
    }
}

pub(crate) fn crc(salt: &[u8; 8], parts: &[&[u8]]) -> u32 {
    parts.iter().fold(crc32c::crc32c(salt), |crc, part| crc32c::crc32c_append(crc, part))
}

/// The image with other META sections, each a type and its plain bytes, stored as they are.
pub(crate) fn with_sections(image: &[u8], sections: &[(u64, Vec<u8>)]) -> Arc<Vec<u8>> {
    let frames: Vec<Vec<u8>> =
        sections.iter().map(|(kind, plain)| section(0, *kind, plain, plain)).collect();
    with_meta_area(image, &frames.concat())
}

/// A META frame; its checksums are made right by [`with_meta_area`].
pub(crate) fn section(codec: u8, kind: u64, plain: &[u8], stored: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..4].copy_from_slice(b"AVF1");
    frame[4] = 4;
    frame[5] = codec;
    frame[32..40].copy_from_slice(&kind.to_le_bytes());
    frame[40..44].copy_from_slice(&u32::try_from(plain.len()).unwrap().to_le_bytes());
    frame[44..48].copy_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
    frame.extend_from_slice(stored);
    frame.resize(frame.len().next_multiple_of(64), 0);
    frame
}

/// The image with another META area, which must be a row of frames.
pub(crate) fn with_meta_area(image: &[u8], meta: &[u8]) -> Arc<Vec<u8>> {
    let areas = Areas::of(image);
    let start = areas.meta.start;
    let mut bytes = [&image[..start], meta].concat();
    let list = bytes.len().next_multiple_of(PAGE);
    let pieces = list.div_ceil(64 << 10);
    let list_end = (list + pieces * 32).next_multiple_of(PAGE);
    let protected = 1 + (list_end - areas.index.start) / PAGE;
    let parity_len = naive_parity::area_len(protected, has_data_parity(image));
    bytes.resize(list_end + parity_len, 0);
    bytes.extend_from_slice(&image[areas.first_trailer.start..]);
    let len = bytes.len();
    let tail = len - (image.len() - areas.first_trailer.start);
    for trailer in [tail, len - PAGE] {
        let mut put = |at: usize, value: usize| {
            let value = (value as u64).to_le_bytes();
            bytes[trailer + at..trailer + at + 8].copy_from_slice(&value);
        };
        put(240, len);
        put(368, meta.len());
        put(408, list);
        put(416, pieces);
        put(560, list_end);
        put(568, parity_len);
    }
    Forgery::of(&bytes).seal()
}
