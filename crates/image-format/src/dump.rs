//! An image as a page one can read: one line per structure, every byte accounted for.

use std::fmt::{self, Write};

use aiv_volume_io::ReadAt;

use crate::block::Buffer;
use crate::codec::codec_name;
use crate::error::{Error, Fault, Result, Section};
use crate::image::{Image, read_page, trailer_gap};
use crate::layout::{
    Checkpoint, DeltaHead, FRAME_HEADER_SIZE, FrameHeader, FrameKind, IndexEntry, InnerEntry, Kind,
    LocalHead, NamedBase, PageHeader, PageKind, Superblock, Trailer, TreeNode,
};
use crate::limits::{FRAME_ALIGN, LOCAL_BASES_MAX, PAGE_SIZE, PIECE_SIZE};
use crate::meta::SectionType;
use crate::parity::pages::ProtectedPages;
use crate::segments;

/// Writes the account of `image` to `out`. Each line begins with offset and length; the lengths
/// add up to the length of the file. Bytes that belong to nothing are called unaccounted, and
/// structures that are not what their place says are called damaged, with the reason. Of a split
/// image these are the bytes inside its segments; what is around them follows, file by file.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Misuse`] when `out` fails.
pub fn dump(image: &Image, out: &mut dyn Write) -> Result<()> {
    let mut dump = Dump { image, out, at: 0 };
    dump.run()
}

struct Dump<'a> {
    image: &'a Image,
    out: &'a mut dyn Write,
    at: u64,
}

impl Dump<'_> {
    fn run(&mut self) -> Result<()> {
        let trailer = *self.image.trailer();
        self.superblock("superblock")?;
        let slots = self.image.superblock().slot_area_len();
        if slots > 0 {
            self.line(slots, format_args!("key slots"))?;
        }
        while self.at < trailer.frames_end {
            self.frame(trailer.frames_end, "frame area")?;
        }
        for page_no in 0..trailer.index_pages {
            self.index_page(page_no)?;
        }
        for page_no in 0..trailer.tree_pages {
            self.tree_page(page_no)?;
        }
        while self.at < trailer.stored_offset {
            self.frame(trailer.stored_offset, "META area")?;
        }
        let list_end = trailer.parity_offset;
        let (pieces, root) = (trailer.stored_pieces, trailer.stored_root);
        self.line(list_end - self.at, format_args!("stored list, {pieces} pieces, root {root}"))?;
        self.parity_area(&trailer)?;
        self.trailer(1)?;
        if slots > 0 {
            self.line(slots, format_args!("key slots"))?;
        }
        let gap = trailer_gap(self.image.superblock().features);
        self.line(gap - slots, format_args!("gap"))?;
        self.superblock("superblock copy")?;
        self.trailer(2)?;
        if self.at != trailer.file_len {
            let fault = Fault::Differs { field: "length", other: "areas" };
            return Err(fault.at(Section::Image, self.at));
        }
        let total = self.at;
        self.text(format_args!("total {total} bytes, all accounted for"))?;
        for line in self.image.segments().map(segments::account).unwrap_or_default() {
            self.text(format_args!("{line}"))?;
        }
        Ok(())
    }

    fn text(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        writeln!(self.out, "{text}").map_err(|_| Error::Misuse("an output that fails"))
    }

    /// Accounts for the next `len` bytes.
    fn line(&mut self, len: u64, text: fmt::Arguments<'_>) -> Result<()> {
        let at = self.at;
        self.at += len;
        self.text(format_args!("{at:#012x} +{len:<8} {text}"))
    }

    fn detail(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        self.text(format_args!("{:23}{text}", ""))
    }

    /// Accounts for the next `len` bytes, which should be `name` and are not.
    fn damaged(&mut self, len: u64, name: fmt::Arguments<'_>, error: Error) -> Result<()> {
        match error {
            Error::Corrupt(corrupt) => {
                self.line(len, format_args!("{name}, damaged: {}", corrupt.what()))
            }
            Error::Foreign(_) | Error::Unsupported(_) => {
                self.line(len, format_args!("{name}, damaged: {error}"))
            }
            other => Err(other),
        }
    }

    fn superblock(&mut self, name: &str) -> Result<()> {
        let page = read_page(&*self.image.file, self.at)?;
        let s = match Superblock::from_bytes(&page, Section::Superblock, self.at) {
            Ok(superblock) => superblock,
            Err(error) => return self.damaged(PAGE_SIZE as u64, format_args!("{name}"), error),
        };
        let g = s.geometry;
        self.line(
            PAGE_SIZE as u64,
            format_args!("{name}, format {}.{}", crate::MAJOR, crate::MINOR),
        )?;
        self.detail(format_args!("image {}, set {}, point {}", s.image, s.set, s.point))?;
        self.detail(format_args!(
            "{}, {} bytes in blocks of {}, sectors of {}",
            s.kind.name(),
            g.len(),
            g.block_size().get(),
            g.sector_size()
        ))?;
        if let Some(parent) = s.parent {
            let (point, root) = (parent.point, parent.state_root);
            self.detail(format_args!("parent point {point}, state {root}"))?;
        }
        if s.is_keyed() {
            let what = if s.is_sealed() { "sealed" } else { "authenticated" };
            let with = match (self.image.is_locked(), self.image.is_authentic()) {
                (true, _) => ", locked",
                (false, true) => ", key is there",
                (false, false) => ", not proven by its key",
            };
            self.detail(format_args!("{what}, key {}{with}", s.key_commitment))?;
        }
        if !s.source_token.is_zero() {
            self.detail(format_args!("source token {}", s.source_token))?;
        }
        self.detail(format_args!("session {}, writer {:?}", s.session, s.writer))
    }

    /// Parity of superblock, index, tree, META and stored list; its pages are told by number, as
    /// there are many, and all of them can be computed.
    fn parity_area(&mut self, trailer: &Trailer) -> Result<()> {
        let features = self.image.superblock().features;
        let protected = ProtectedPages::of(trailer, features.has_data_parity());
        for number in 0..protected.groups() {
            let group = protected.group(number);
            let (pages, stripes) = (group.pages, group.stripes);
            self.line(
                group.area_len(),
                format_args!(
                    "parity of {pages} pages from page {}, {stripes} stripes, {} + {} pages",
                    group.first,
                    2 * group.directory_pages(),
                    group.parity_pages()
                ),
            )?;
        }
        Ok(())
    }

    fn trailer(&mut self, copy: u8) -> Result<()> {
        let page = read_page(&*self.image.file, self.at)?;
        let t = match Trailer::from_bytes(&page, copy, self.at) {
            Ok(trailer) => trailer,
            Err(error) => {
                return self.damaged(PAGE_SIZE as u64, format_args!("trailer {copy}"), error);
            }
        };
        self.line(PAGE_SIZE as u64, format_args!("trailer {copy}"))?;
        if copy == 1 && t == *self.image.trailer() {
            return Ok(());
        }
        if !t.mac.is_zero() {
            self.detail(format_args!("authentication code {}", t.mac))?;
        }
        self.detail(format_args!("content {}", t.content_root))?;
        self.detail(format_args!("map     {}", t.map_root))?;
        self.detail(format_args!("state   {}", t.state_root))?;
        let n = t.totals;
        self.detail(format_args!(
            "blocks: {} data, {} ref, {} zero, {} unused, {} excluded, {} unreadable",
            n.blocks_data,
            n.blocks_ref,
            n.blocks_zero,
            n.blocks_unused,
            n.blocks_excluded,
            n.blocks_unreadable
        ))?;
        if n.blocks_local > 0 {
            self.detail(format_args!("{} local", n.blocks_local))?;
        }
        if t.parent.is_none() {
            return Ok(());
        }
        let decided = n.blocks_decided();
        let inherited = self.image.geometry().blocks().saturating_sub(decided);
        let (delta, parent) = (n.blocks_delta, n.blocks_parent);
        self.detail(format_args!("{delta} delta, {parent} parent, {inherited} inherited"))
    }

    /// One frame, or the bytes up to the next place a frame could begin.
    fn frame(&mut self, area_end: u64, area: &str) -> Result<()> {
        let left = area_end - self.at;
        if left < FRAME_HEADER_SIZE as u64 {
            return self.line(left, format_args!("unaccounted: end of the {area}"));
        }
        let mut bytes = [0; FRAME_HEADER_SIZE];
        let op = Error::io("read frame", self.at);
        self.image.file.read_exact_at(&mut bytes, self.at).map_err(op)?;
        let header = match FrameHeader::from_bytes(&bytes, self.at) {
            Ok(header) if header.frame_size() <= left => header,
            Ok(_) => return self.skip(area_end, "frame reaches past its area"),
            Err(Error::Corrupt(corrupt)) => return self.skip(area_end, &corrupt.what()),
            Err(other) => return Err(other),
        };
        let name = header.kind.name();
        let (at, size) = (self.at, header.frame_size());
        let (header, content) = match self.open(header) {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                let stored = header.stored_len;
                return self.line(size, format_args!("{name}, sealed, {stored} bytes"));
            }
            Err(error) => return self.damaged(size, format_args!("{name}"), error),
        };
        let (subject, plain, stored) = (header.subject, header.plain_len, header.stored_len);
        let codec = codec_name(header.codec);
        match header.kind {
            FrameKind::Delta => self.delta(&header, &content, at),
            FrameKind::Local => self.local(&header, &content, at),
            FrameKind::Data => {
                let damaged = if header.is_damaged { ", damaged" } else { "" };
                let depth = match header.depth {
                    0 => String::new(),
                    depth => format!(", in place of depth {depth}"),
                };
                self.line(
                    size,
                    format_args!(
                        "{name} block {subject}, {codec} {plain} -> {stored}{damaged}{depth}"
                    ),
                )
            }
            FrameKind::Meta => {
                let section =
                    SectionType::from_code(subject).map_or("unknown section", |s| s.name());
                self.line(size, format_args!("{name} {section}, {codec} {plain} -> {stored}"))
            }
            FrameKind::Checkpoint => self.checkpoint(&header, content, at),
            FrameKind::Parity => self.line(size, format_args!("{name} stripe {subject}, {stored}")),
            FrameKind::Pad => self.line(size, format_args!("{name}")),
        }
    }

    /// What the frame that is next says and holds, as far as this account needs it; `None` for a
    /// sealed one without a key. Of an unsealed frame the checksum of the payload is not looked
    /// at where only its beginning is read.
    fn open(&self, header: FrameHeader) -> Result<Option<(FrameHeader, Vec<u8>)>> {
        let at = self.at;
        self.image.access.check_mode(&header).map_err(|fault| fault.at(Section::Frame, at))?;
        let wanted = match header.kind {
            _ if header.seal.is_some() => header.stored_len as usize,
            FrameKind::Delta => DeltaHead::SIZE.min(header.stored_len as usize),
            FrameKind::Local => LocalHead::size(LOCAL_BASES_MAX).min(header.stored_len as usize),
            FrameKind::Checkpoint => header.stored_len as usize,
            _ => return Ok(Some((header, Vec::new()))),
        };
        if header.seal.is_some() && self.image.is_locked() {
            return Ok(None);
        }
        let mut frame = vec![0; FRAME_HEADER_SIZE + wanted];
        self.image.file.read_exact_at(&mut frame, at).map_err(Error::io("read frame", at))?;
        if header.seal.is_some() {
            let mut plain = Buffer::default();
            let (header, content) = self.image.access.open_frame(header, &frame, &mut plain, at)?;
            return Ok(Some((header, content.to_vec())));
        }
        frame.drain(..FRAME_HEADER_SIZE);
        Ok(Some((header, frame)))
    }

    fn delta(&mut self, header: &FrameHeader, head: &[u8], at: u64) -> Result<()> {
        let (subject, plain, stored) = (header.subject, header.plain_len, header.stored_len);
        let name = format_args!("DELTA block {subject}, {plain} -> {stored}");
        match DeltaHead::split(head) {
            Ok((DeltaHead { base_block, base_leaf, depth }, _)) => {
                self.line(header.frame_size(), name)?;
                self.detail(format_args!(
                    "depth {depth} on block {base_block} of the parent, leaf {base_leaf}"
                ))
            }
            Err(fault) => self.damaged(header.frame_size(), name, fault.at(Section::Frame, at)),
        }
    }

    fn local(&mut self, header: &FrameHeader, head: &[u8], at: u64) -> Result<()> {
        let (subject, plain, stored) = (header.subject, header.plain_len, header.stored_len);
        let name = format_args!("LOCAL block {subject}, {plain} -> {stored}");
        match LocalHead::split(head, subject) {
            Ok((head, _)) => {
                self.line(header.frame_size(), name)?;
                for NamedBase { block, leaf } in head.bases() {
                    self.detail(format_args!("on block {block}, leaf {leaf}"))?;
                }
                Ok(())
            }
            Err(fault) => self.damaged(header.frame_size(), name, fault.at(Section::Frame, at)),
        }
    }

    fn checkpoint(&mut self, header: &FrameHeader, payload: Vec<u8>, at: u64) -> Result<()> {
        let intact = match header.seal {
            Some(_) => Ok(()),
            None => header.check_payload(&payload, at),
        };
        let checkpoint = intact
            .and_then(|()| Checkpoint::from_payload(payload, at))
            .and_then(|checkpoint| Ok((checkpoint.entries()?.len(), checkpoint)));
        let (entry_count, checkpoint) = match checkpoint {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                return self.damaged(header.frame_size(), format_args!("CHECKPOINT"), error);
            }
        };
        let head = checkpoint.head;
        self.line(
            header.frame_size(),
            format_args!(
                "CHECKPOINT {}, previous {:#x}, blocks below {}, {entry_count} entries, {} pieces \
                 from {}",
                head.number,
                head.previous_address,
                head.next_block,
                head.piece_count,
                head.first_piece
            ),
        )?;
        let origins: Vec<String> = checkpoint.origins().map(|o| o.to_string()).collect();
        self.detail(format_args!("sessions {}", origins.join(" ")))
    }

    /// Looks for the next frame header, so that one damaged frame does not hide the others.
    fn skip(&mut self, area_end: u64, why: &str) -> Result<()> {
        let start = self.at;
        let mut next = start + FRAME_ALIGN;
        let mut chunk = vec![0; PIECE_SIZE];
        'area: while next < area_end {
            chunk.truncate(usize::try_from(area_end - next).unwrap_or(usize::MAX));
            let op = Error::io("read frame", next);
            self.image.file.read_exact_at(&mut chunk, next).map_err(op)?;
            for header in chunk.as_chunks::<FRAME_HEADER_SIZE>().0 {
                if FrameHeader::from_bytes(header, next).is_ok() {
                    break 'area;
                }
                next += FRAME_ALIGN;
            }
        }
        self.line(next.min(area_end) - start, format_args!("unaccounted: {why}"))
    }

    /// Checks and opens a page; `None` for a sound one that is sealed, without a key.
    fn open_page(
        &self,
        page: &mut [u8; PAGE_SIZE],
        kind: PageKind,
        page_no: u64,
    ) -> Result<Option<PageHeader>> {
        let image = self.image.superblock().image;
        if self.image.is_locked() {
            let header = PageHeader::of_sealed(page, kind, image, page_no);
            return header.map(|_| None).map_err(|fault| fault.at(kind.section(), self.at));
        }
        self.image.access.open_page(page, kind, image, page_no, self.at).map(Some)
    }

    fn index_page(&mut self, page_no: u64) -> Result<()> {
        let mut page = read_page(&*self.image.file, self.at)?;
        let len = PAGE_SIZE as u64;
        let name = format_args!("index page {page_no}");
        let header = match self.open_page(&mut page, PageKind::Index, page_no) {
            Ok(Some(header)) => header,
            Ok(None) => return self.line(len, format_args!("{name}, sealed")),
            Err(error) => return self.damaged(len, name, error),
        };
        let (level, count) = (header.level, header.count);
        self.line(len, format_args!("{name}, level {level}, {count} entries"))?;
        if level > 0 {
            for entry in InnerEntry::of_page(&page, &header) {
                match entry {
                    Ok(InnerEntry { first_block, page_hash }) => {
                        self.detail(format_args!("from block {first_block}: {page_hash}"))?;
                    }
                    Err(fault) => self.detail(format_args!("damaged entry: {fault}"))?,
                }
            }
            return Ok(());
        }
        for entry in IndexEntry::of_page(&page, &header) {
            let e = match entry {
                Ok(entry) => entry,
                Err(fault) => {
                    self.detail(format_args!("damaged entry: {fault}"))?;
                    continue;
                }
            };
            let blocks = match e.run {
                1 => format!("block {}", e.block),
                _ => format!("blocks {}..{}", e.block, e.end()),
            };
            let kind = e.kind.name();
            match e.kind {
                Kind::Parent => self.detail(format_args!(
                    "{blocks} {kind} as block {} of the parent, leaf {}",
                    e.parent_block, e.leaf
                ))?,
                _ if e.has_frame() => self
                    .detail(format_args!("{blocks} {kind} at {:#x}, leaf {}", e.address, e.leaf))?,
                _ => self.detail(format_args!("{blocks} {kind}"))?,
            }
        }
        Ok(())
    }

    fn tree_page(&mut self, page_no: u64) -> Result<()> {
        let mut page = read_page(&*self.image.file, self.at)?;
        let len = PAGE_SIZE as u64;
        let name = format_args!("tree page {page_no}");
        let header = match self.open_page(&mut page, PageKind::Tree, page_no) {
            Ok(Some(header)) => header,
            Ok(None) => return self.line(len, format_args!("{name}, sealed")),
            Err(error) => return self.damaged(len, name, error),
        };
        self.line(len, format_args!("{name}, {} nodes", header.count))?;
        for node in TreeNode::of_page(&page, &header) {
            match node {
                Ok(TreeNode { group, content, map }) => {
                    self.detail(format_args!("group {group}: content {content}"))?;
                    self.detail(format_args!("group {group}: map     {map}"))?;
                }
                Err(fault) => self.detail(format_args!("damaged node: {fault}"))?,
            }
        }
        Ok(())
    }
}
