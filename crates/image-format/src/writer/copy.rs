//! Frames of other images, copied as they are: headers name neither their image nor their
//! place, so merging decodes nothing.

use std::collections::VecDeque;

use aiv_volume_io::ReadAt;

use super::{BlockPlace, ImageWriter, NewFrame, RunKind, in_memory};
use crate::block::{Buffer, check_frame, frame_header};
use crate::error::{Error, Fault, Result, Section};
use crate::ids::{BlockIndex, Digest, SessionTag};
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, IndexEntry, Kind, LocalHead};
use crate::limits::{
    ADDRESS_UNITS_MAX, CHECKPOINT_ENTRIES_MAX, FRAME_ALIGN, ORIGINS_MAX, PAGE_SIZE, PARITY_REACH,
};

/// Rows from this length on may share the storage of the file they come from. Shorter ones are
/// written: the padding in front of a shared row would outweigh what is saved.
const SHARED_ROW_MIN: usize = 1 << 20;

/// What one or several of the next blocks are, for [`ImageWriter::copy_row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowItem {
    /// One block by a frame of the row, as the index of the other image has it: the next frame
    /// of the row, or with kind REF also one that the row had before.
    Frame(IndexEntry),
    /// So many blocks without a frame.
    Run(RunKind, u64),
    /// So many blocks as they are in the parent's state.
    Inherited(u64),
    /// One block with the bytes of another one of the parent's state.
    Parent(BlockIndex, Digest),
    /// One block with the bytes of one stored earlier.
    Ref(BlockPlace, Digest),
}

impl RowItem {
    const fn blocks(&self) -> u64 {
        match self {
            Self::Run(_, count) | Self::Inherited(count) => *count,
            Self::Frame(_) | Self::Parent(..) | Self::Ref(..) => 1,
        }
    }
}

/// A row whose frames are what its items say.
struct CheckedRow {
    /// Address of the first frame in the other image.
    first: u64,
    /// Each frame, and where it begins in the row.
    frames: Vec<(usize, FrameHeader)>,
    len: usize,
    /// What those of them name that are differences to blocks of this image, in order.
    bases: VecDeque<LocalHead>,
    /// Whether the bytes can be taken as they stand.
    is_verbatim: bool,
    /// What a sealed frame holds.
    plain: Buffer,
}

impl ImageWriter<'_> {
    /// Decides the next blocks by frames of another image. `entries` are those of that image,
    /// one for each of the next blocks in order, with their frames one behind the other in
    /// `bytes`, which begin with the first frame. An entry may say REF where the frame is that
    /// of another block. Every frame is checked as far as that goes without decoding it. At most
    /// [`CHECKPOINT_ENTRIES_MAX`] frames at once.
    ///
    /// Returns where the first frame landed; the others follow it as they did before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a frame is damaged, at its offset in the other image;
    /// [`Error::Misuse`] when the entries are no such sequence, [`Error::Io`].
    pub fn copy_frames(&mut self, entries: &[IndexEntry], bytes: &[u8]) -> Result<BlockPlace> {
        let Some(first) = entries.first() else { return Err(Error::Misuse("no frame to copy")) };
        let items: Vec<RowItem> = entries.iter().copied().map(RowItem::Frame).collect();
        let address = self.copy_row(&items, bytes, None)?;
        let frame_size = frame_header(bytes, first.address)?.frame_size();
        Ok(BlockPlace { address, frame_size })
    }

    /// Decides the next blocks by a row of frames of another image, with whatever lies between
    /// them. The frames stand one behind the other in `bytes`, which begin with the first of
    /// them; every frame is checked as far as that goes without decoding it. With `source`, from
    /// which the bytes were read at the addresses of the entries, a long row may share the
    /// storage of that file. At most [`CHECKPOINT_ENTRIES_MAX`] items at once.
    ///
    /// Returns where the row begins: each frame lies as far from there as it did before.
    ///
    /// # Errors
    /// As [`ImageWriter::copy_frames`], and of what the other items do. When a frame is refused,
    /// nothing of the row was written.
    pub fn copy_row(
        &mut self,
        items: &[RowItem],
        bytes: &[u8],
        source: Option<&dyn ReadAt>,
    ) -> Result<u64> {
        if items.len() > CHECKPOINT_ENTRIES_MAX {
            return Err(Error::Misuse("more blocks at once than a checkpoint lists"));
        }
        let mut row = self.check_row(items, bytes)?;
        if items.len() + self.pending.len() > CHECKPOINT_ENTRIES_MAX {
            self.checkpoint()?;
        }
        self.checkpoint_if_due()?;
        self.parity_if_due()?;
        if self.stripes_written.is_some() && row.len as u64 > PARITY_REACH / 2 {
            return Err(Error::Misuse("a row that no parity frame may interrupt, above 16 MiB"));
        }
        let room = row.len as u64 + PAGE_SIZE as u64;
        if (self.file.position() + room) / FRAME_ALIGN >= ADDRESS_UNITS_MAX {
            return Err(Error::Misuse("an image above 16 PiB"));
        }
        // Behind the frame that may bring it to its place in a page.
        self.cut_before(row.len + PAGE_SIZE)?;
        let shared = source.filter(|source| {
            row.is_verbatim && row.len >= SHARED_ROW_MIN && source.file().is_some()
        });
        let start = match shared {
            Some(source) => self.share_row(&row, &bytes[..row.len], source)?,
            None => self.append_row(&row, &bytes[..row.len])?,
        };
        for item in items {
            match *item {
                RowItem::Frame(entry) => {
                    self.checkpoint_if_due()?;
                    if entry.kind == Kind::Local
                        && let Some(head) = row.bases.pop_front()
                    {
                        self.check_bases(&head)?;
                    }
                    // A frame whose size the index cannot hold keeps the zero of the other index.
                    let address = start + (entry.address - row.first);
                    self.push_entry(IndexEntry { address, ..entry });
                }
                RowItem::Run(kind, count) => self.push_run(kind, count)?,
                RowItem::Inherited(count) => self.inherit(count)?,
                RowItem::Parent(block, leaf) => self.push_parent(block, leaf)?,
                RowItem::Ref(place, leaf) => self.push_ref(place, leaf)?,
            }
        }
        Ok(start)
    }

    /// Names sessions as origins beside those whose frames are copied, as many as there is room
    /// for: of images that this one takes the place of. Before the first block.
    pub fn name_origins(&mut self, sessions: &[SessionTag]) {
        for session in sessions {
            // Frames need room, too.
            if self.origins.len() < ORIGINS_MAX / 2 && !self.origins.contains(session) {
                self.origins.push(*session);
            }
        }
    }

    fn check_row(&mut self, items: &[RowItem], bytes: &[u8]) -> Result<CheckedRow> {
        let (frames, plain) = (Vec::new(), Buffer::default());
        let bases = VecDeque::new();
        let mut row = CheckedRow { first: 0, frames, len: 0, bases, is_verbatim: true, plain };
        let mut block = self.next_block;
        for item in items {
            if let RowItem::Frame(entry) = item {
                if entry.block != block {
                    return Err(Error::Misuse("frames that do not follow each other"));
                }
                if row.frames.is_empty() {
                    row.first = entry.address;
                }
                self.check_in_row(&mut row, entry, bytes)?;
            }
            block = block.saturating_add(item.blocks());
        }
        Ok(row)
    }

    fn check_in_row(
        &mut self,
        row: &mut CheckedRow,
        entry: &IndexEntry,
        bytes: &[u8],
    ) -> Result<()> {
        let apart = Error::Misuse("frames that do not follow each other");
        let Some(at) = entry.address.checked_sub(row.first) else { return Err(apart) };
        let Ok(at) = usize::try_from(at) else { return Err(apart) };
        let is_again =
            entry.kind == Kind::Ref && row.frames.binary_search_by_key(&at, |f| f.0).is_ok();
        if at != row.len && !is_again {
            return Err(apart);
        }
        let frame = bytes.get(at..).unwrap_or_default();
        let (header, content) =
            check_frame(&self.access, &mut row.plain, frame, entry, entry.block)?;
        if header.plain_len != self.superblock.geometry.block_len(entry.block) {
            let (field, found) = ("plain length", header.plain_len.into());
            let fault = Fault::Value { field, found, allowed: "the block length" };
            return Err(fault.at(Section::Frame, entry.address));
        }
        self.needs_of(entry.kind)?;
        if entry.kind == Kind::Local {
            let head = LocalHead::split(content, entry.block);
            let (head, _) = head.map_err(|fault| fault.at(Section::Frame, entry.address))?;
            row.bases.push_back(head);
        }
        if is_again {
            return Ok(());
        }
        let end = at.checked_add(in_memory(header.frame_size()));
        let end = end.filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| Fault::Bounds.at(Section::Frame, entry.address))?;
        // Damage may lie in the padding, which no checksum of the frame covers.
        let padding = &bytes[at + FRAME_HEADER_SIZE + header.stored_len as usize..end];
        row.is_verbatim &= self.knows_origin(&header) && padding.iter().all(|&byte| byte == 0);
        row.frames.push((at, header));
        row.len = end;
        Ok(())
    }

    fn needs_of(&self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Data | Kind::Ref | Kind::Unreadable | Kind::Delta | Kind::Local => {
                self.needs(kind.needs())
            }
            _ => Err(Error::Misuse("an entry without a frame to copy")),
        }
    }

    /// Appends the frames of a row, and returns where the first one landed.
    fn append_row(&mut self, row: &CheckedRow, bytes: &[u8]) -> Result<u64> {
        let start = self.file.position();
        if row.is_verbatim {
            self.file.append(bytes)?;
            self.count_frames(row);
            return Ok(start);
        }
        for (at, header) in &row.frames {
            let payload_end = at + FRAME_HEADER_SIZE + header.stored_len as usize;
            let payload = &bytes[at + FRAME_HEADER_SIZE..payload_end];
            if self.knows_origin(header) {
                self.file.append(&bytes[*at..at + FRAME_HEADER_SIZE])?;
                self.file.append(payload)?;
                let len = FRAME_HEADER_SIZE + payload.len();
                self.file.append_zeros(in_memory(header.frame_size()) - len)?;
                self.totals.frames += 1;
            } else {
                self.append_as_ours(header, &bytes[*at..payload_end])?;
            }
            self.totals.payload_bytes += u64::from(header.stored_len);
        }
        Ok(start)
    }

    /// Appends the frames of a row as storage shared with their file, as far as that is possible:
    /// filesystems share whole pages, so a PAD frame brings the row to the place in its page
    /// that it has there.
    fn share_row(&mut self, row: &CheckedRow, bytes: &[u8], source: &dyn ReadAt) -> Result<u64> {
        let page = PAGE_SIZE as u64;
        let (wanted, now) = (row.first % page, self.file.position() % page);
        self.pad(in_memory((page + wanted - now) % page))?;
        let start = self.file.position();
        let head = in_memory((page - wanted) % page);
        self.file.append(&bytes[..head])?;
        self.file.append_from(source, row.first + head as u64, &bytes[head..])?;
        self.count_frames(row);
        Ok(start)
    }

    fn count_frames(&mut self, row: &CheckedRow) {
        self.totals.frames += row.frames.len() as u64;
        let stored = row.frames.iter().map(|(_, header)| u64::from(header.stored_len));
        self.totals.payload_bytes += stored.sum::<u64>();
    }

    /// Whether the session of a frame is among the origins, or can be taken into them.
    fn knows_origin(&mut self, header: &FrameHeader) -> bool {
        // Frames of one session come in long rows.
        if self.last_origin == header.session {
            return true;
        }
        if !self.origins.contains(&header.session) {
            if self.origins.len() == ORIGINS_MAX {
                return false;
            }
            self.origins.push(header.session);
        }
        self.last_origin = header.session;
        true
    }

    /// Copies a payload under a header of our own session: an image names only so many.
    fn append_as_ours(&mut self, header: &FrameHeader, frame: &[u8]) -> Result<()> {
        let mut plain = Buffer::default();
        let content = match header.seal {
            Some(_) => self.access.open_frame(*header, frame, &mut plain, 0)?.1,
            None => &frame[FRAME_HEADER_SIZE..],
        };
        let about = NewFrame {
            kind: header.kind,
            codec: header.codec,
            is_damaged: header.is_damaged,
            depth: header.depth,
            subject: header.subject,
            plain_len: header.plain_len,
            leaf_prefix: header.leaf_prefix,
            // What follows in the row lies as far from its start as it did before.
            stored_len: Some(header.stored_len as usize),
        };
        debug_assert!(header.kind.holds_block());
        self.append_frame_here(&about, content).map(drop)
    }
}
