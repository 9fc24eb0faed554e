//! Parts of a damaged image, read again by where they lie.

use aiv_volume_io::ReadAt;

use super::Evidence;
use super::covers::Cover;
use super::finds::MetaFrame;
use super::open::open_frame;
use super::scan::{bounds, leaf_entries, said_by};
use crate::block::{Buffer, frame_header};
use crate::codec::Decoder;
use crate::image::read_page;
use crate::layout::{Checkpoint, FRAME_HEADER_SIZE, FrameKind, IndexEntry, PageKind};
use crate::limits::{META_SECTION_MAX, ORIGINS_MAX};
use crate::meta::{Meta, SectionType};
use crate::seal::Access;

/// Bytes of the longest section of origins: each of them is an item with a head of 8 bytes. Of
/// these sections all are read, of the others the last.
const ORIGINS_LEN_MAX: u32 = 16_384 * (8 + 12);
const _: () =
    assert!(ORIGINS_LEN_MAX as usize == ORIGINS_MAX * (8 + size_of::<crate::ids::SessionTag>()));

/// A file, and what opens the parts of it that are sealed.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub file: &'a dyn ReadAt,
    pub access: &'a Access,
}

impl Parts<'_> {
    /// The entries of a cover; `None` when they do not come back as they were.
    pub(super) fn entries(self, cover: &Cover) -> Option<Vec<IndexEntry>> {
        let entries = match cover.by {
            Evidence::Index => self.page(cover.at)?,
            _ => self.checkpoint(cover.at)?.entries().ok()?,
        };
        let (first, end) = bounds(&entries)?;
        (entries.is_empty() || (first >= cover.from && end <= cover.to)).then_some(entries)
    }

    /// The entries of the index page at `at`, of level 0.
    pub(super) fn page(self, at: u64) -> Option<Vec<IndexEntry>> {
        let mut page = read_page(self.file, at).ok()?;
        let (image, page_no) = said_by(&page);
        let header = self.access.open_page(&mut page, PageKind::Index, image, page_no, at).ok()?;
        if header.level != 0 {
            return None;
        }
        leaf_entries(&page, &header)
    }

    /// The checkpoint in the frame at `at`.
    pub(super) fn checkpoint(self, at: u64) -> Option<Checkpoint> {
        let (bytes, mut plain) = (self.frame(at)?, Buffer::default());
        let frame = open_frame(self.access, &mut plain, &bytes, at).ok()?;
        if frame.kind != FrameKind::Checkpoint {
            return None;
        }
        Checkpoint::from_payload(frame.content.to_vec(), at).ok()
    }

    /// What the sound sections among `frames` say, each by itself.
    pub(super) fn sections(self, frames: &[MetaFrame]) -> impl Iterator<Item = Meta> {
        frames.iter().filter_map(move |frame| {
            let mut meta = Meta::default();
            self.section(frame, &mut meta)?;
            Some(meta)
        })
    }

    /// Adds what the section in `frame` says to `meta`.
    pub(super) fn section(self, frame: &MetaFrame, meta: &mut Meta) -> Option<()> {
        let section = SectionType::from_code(frame.section)?;
        let most = if section == SectionType::Origins { ORIGINS_LEN_MAX } else { META_SECTION_MAX };
        let plain = self.plain_section(frame, most)?;
        meta.read_section(section, &plain).ok()
    }

    /// What the section in `frame` holds, at most `most` bytes.
    fn plain_section(self, frame: &MetaFrame, most: u32) -> Option<Vec<u8>> {
        let (bytes, mut inside) = (self.frame(frame.at)?, Buffer::default());
        let opened = open_frame(self.access, &mut inside, &bytes, frame.at).ok()?;
        if opened.plain_len > most || opened.subject != frame.section {
            return None;
        }
        let mut plain = vec![0; opened.plain_len as usize];
        Decoder::new().decode(opened.codec, opened.content, &mut plain).ok()?;
        Some(plain)
    }

    /// The bytes of the frame at `at`, bounded by what a header may say.
    fn frame(self, at: u64) -> Option<Vec<u8>> {
        let mut header = [0; FRAME_HEADER_SIZE];
        self.file.read_exact_at(&mut header, at).ok()?;
        let stored = frame_header(&header, at).ok()?.stored_len;
        let mut bytes = vec![0; FRAME_HEADER_SIZE + stored as usize];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}
