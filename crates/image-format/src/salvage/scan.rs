//! Steps through a file of which nothing is believed: from one sound frame to the next, and by 64
//! bytes where there is none.
//!
//! A frame counts only when header and payload are sound. Then it lies here in one piece, so
//! nothing else of the image is inside of it, and what looks like a frame in there belongs to an
//! image on the disk that was backed up. A frame whose payload is damaged is not stepped over:
//! its length may have been made up, or reach over frames that are sound. What such a look costs
//! is bounded all the same: see [`Checks`].

use std::thread;

use aiv_volume_io::{Extent, Job, ReadAt, Step};

use super::checks::Checks;
use super::finds::{CheckpointFrame, Finds, LeafPage};
use super::open::{Opened, Openers, Under};
use crate::block::frame_header;
use crate::error::{Result, Section};
use crate::ids::ImageId;
use crate::layout::{
    Checkpoint, FRAME_HEADER_SIZE, FrameKind, IndexEntry, PageHeader, PageKind, Superblock, Trailer,
};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE};
use crate::salvage::feed::Feed;

const ALIGN: usize = 64;
const _: () = assert!(ALIGN as u64 == FRAME_ALIGN);

/// Bytes between two looks at the stop button.
const STRIDE: u64 = 4 << 20;

/// What the parts of an image begin with.
const FRAME: [u8; 4] = *b"AVF1";
const PAGE: [u8; 4] = *b"AVP1";
const SUPERBLOCK: [u8; 4] = *b"\x89AIV";
const TRAILER: [u8; 4] = *b"AIVT";

/// Looks at every byte of `file` once, and opens what is sealed with `openers`; what cannot be read
/// is returned, and taken for zeros.
pub(super) fn scan(
    file: &dyn ReadAt,
    openers: &mut Openers,
    finds: &mut Finds,
    job: Job<'_>,
) -> Result<Vec<Extent>> {
    let len = file.len();
    job.progress.begin(Step::SalvageImage, len);
    let unreadable = thread::scope(|scope| {
        let mut feed = Feed::new(scope, file, job.cancel);
        let mut tools = Tools { checks: Checks::default(), openers };
        let (mut at, mut told) = (0, 0);
        while at < len {
            if at - told >= STRIDE {
                job.check()?;
                job.progress.advance(Step::SalvageImage, at - told);
                told = at;
            }
            at += step(&mut feed, &mut tools, at, finds, job)?;
        }
        job.check()?;
        job.progress.advance(Step::SalvageImage, len - told);
        Ok::<_, crate::Error>(feed.unreadable)
    })?;
    job.progress.end(Step::SalvageImage);
    Ok(unreadable)
}

/// What tells a sound frame from another.
struct Tools<'o> {
    checks: Checks,
    openers: &'o mut Openers,
}

/// Looks at what is at `at`, and returns the bytes up to where the next part may begin.
fn step(
    feed: &mut Feed,
    tools: &mut Tools<'_>,
    at: u64,
    finds: &mut Finds,
    job: Job<'_>,
) -> Result<u64> {
    let here = feed.at(at, FRAME_HEADER_SIZE);
    let Some(nothing) = here.chunks_exact(ALIGN).position(begins_something) else {
        // The rest of the window holds nothing.
        return Ok((here.len() / ALIGN * ALIGN).max(ALIGN) as u64);
    };
    if nothing > 0 {
        return Ok((nothing * ALIGN) as u64);
    }
    let magic = [here[0], here[1], here[2], here[3]];
    if magic == FRAME {
        if let Ok(header) = frame_header(here, at) {
            let whole = feed.at(at, FRAME_HEADER_SIZE + header.stored_len as usize);
            if let Some(content) = tools.checks.payload(&header, whole, at) {
                if header.seal.is_none() {
                    take_frame(&Opened::of(&header, content), Under::Nothing, at, finds)?;
                } else if let Some((under, frame)) = tools.openers.open(header, whole, at) {
                    take_frame(&frame, under, at, finds)?;
                } else {
                    finds.sealed(header.session, header.frame_size(), at);
                    if tools.openers.looks_into(at) {
                        return Ok(ALIGN as u64);
                    }
                }
                return Ok(header.frame_size());
            }
            job.check()?;
        }
    } else if let Some(page) = feed.at(at, PAGE_SIZE).first_chunk::<PAGE_SIZE>()
        && take_page(page, at, magic, finds)
    {
        return Ok(PAGE_SIZE as u64);
    }
    Ok(ALIGN as u64)
}

fn begins_something(bytes: &[u8]) -> bool {
    let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
    magic == FRAME || magic == PAGE || magic == SUPERBLOCK || magic == TRAILER
}

/// Takes a frame that is as well protected as those of the image are, where that is known.
fn take_frame(frame: &Opened<'_>, under: Under, at: u64, finds: &mut Finds) -> Result<()> {
    if frame.kind.is_sealable() && finds.expected().is_some_and(|expected| expected != under) {
        return Ok(());
    }
    finds.see(at);
    match frame.kind {
        FrameKind::Data | FrameKind::Delta | FrameKind::Local => finds.block(frame, under, at),
        FrameKind::Checkpoint => {
            take_checkpoint(frame, under, at, finds);
            Ok(())
        }
        FrameKind::Meta => {
            finds.meta(frame, under, at);
            Ok(())
        }
        FrameKind::Parity | FrameKind::Pad => Ok(()),
    }
}

fn take_checkpoint(frame: &Opened<'_>, under: Under, at: u64, finds: &mut Finds) {
    let Ok(checkpoint) = Checkpoint::from_payload(frame.content.to_vec(), at) else { return };
    let Ok(entries) = checkpoint.entries() else { return };
    let Some((first, end)) = bounds(&entries) else { return };
    let head = &checkpoint.head;
    if end > head.next_block {
        return;
    }
    let Some(session) = finds.session(frame.session, under) else { return };
    let found = CheckpointFrame {
        at,
        number: head.number,
        next_block: head.next_block,
        first: if entries.is_empty() { head.next_block } else { first },
        end: if entries.is_empty() { head.next_block } else { end },
        session,
        begun_by: session,
        payload_crc: frame.payload_crc,
        names_first: false,
    };
    finds.checkpoint(found, checkpoint.origins(), &entries);
}

/// First block of the entries and first block behind them; `None` when they are out of order.
pub(super) fn bounds(entries: &[IndexEntry]) -> Option<(u64, u64)> {
    let mut end = 0;
    for entry in entries {
        if entry.block < end {
            return None;
        }
        end = entry.end();
    }
    Some((entries.first().map_or(0, |e| e.block), end))
}

/// Takes a page, superblock or trailer; says whether it is sound.
fn take_page(page: &[u8; PAGE_SIZE], at: u64, magic: [u8; 4], finds: &mut Finds) -> bool {
    match magic {
        SUPERBLOCK => match Superblock::from_bytes(page, Section::Superblock, at) {
            Ok(superblock) => finds.superblock(at, superblock),
            Err(_) => return false,
        },
        TRAILER => {
            let mut copies = (1..=2).filter_map(|copy| {
                Trailer::from_bytes(page, copy, at).ok().map(|trailer| (copy, trailer))
            });
            let Some((copy, trailer)) = copies.next() else { return false };
            let was_at = match copy {
                // Right behind the parity area, however long the gap is.
                1 => trailer.parity_offset.saturating_add(trailer.parity_len),
                _ => trailer.file_len.saturating_sub(PAGE_SIZE as u64),
            };
            finds.trailer(was_at.saturating_sub(at), trailer);
        }
        _ => return take_index_page(page, at, finds),
    }
    true
}

fn take_index_page(page: &[u8; PAGE_SIZE], at: u64, finds: &mut Finds) -> bool {
    let (image, page_no) = said_by(page);
    let Ok(header) = PageHeader::from_page(page, PageKind::Index, image, page_no, at) else {
        // What a sealed one lists is seen when it is known under which key it is.
        let sealed = PageHeader::of_sealed(page, PageKind::Index, image, page_no);
        if sealed.as_ref().is_ok_and(|header| header.level == 0) {
            finds.page(LeafPage { at, page_no, first: 0, end: 0, image, is_sealed: true });
        }
        return sealed.is_ok();
    };
    if header.level == 0
        && let Some(entries) = leaf_entries(page, &header)
        && let Some((first, end)) = bounds(&entries)
        && first == header.first
    {
        finds.page(LeafPage { at, page_no, first, end, image, is_sealed: false });
    }
    true
}

/// Image and number of the page, as it says itself: its checksum is what proves them.
pub(super) fn said_by(page: &[u8; PAGE_SIZE]) -> (ImageId, u64) {
    let (mut number, mut image) = ([0; 8], ImageId::default());
    number.copy_from_slice(&page[8..16]);
    image.0.copy_from_slice(&page[24..40]);
    (image, u64::from_le_bytes(number))
}

/// The entries of a sound page of level 0; `None` when one of them is none.
pub(super) fn leaf_entries(page: &[u8; PAGE_SIZE], header: &PageHeader) -> Option<Vec<IndexEntry>> {
    IndexEntry::of_page(page, header).collect::<std::result::Result<_, _>>().ok()
}
