//! Which image a file holds, and which sessions made its frames.

use aiv_volume_io::{Job, ReadAt};

use super::finds::{Finds, MetaFrame, Session};
use super::open::open_frame;
use super::{Hints, Identity, KnownBy, Sessions};
use crate::codec::Decoder;
use crate::error::{Error, Result, Section, Unsalvageable};
use crate::ids::{Geometry, ImageId, SessionTag};
use crate::image::read_page;
use crate::layout::{FRAME_HEADER_SIZE, Superblock};
use crate::limits::{META_SECTION_MAX, ORIGINS_MAX, PAGE_SIZE};
use crate::meta::{Meta, SectionType};

/// Bytes of the longest section of origins: each of them is an item with a head of 8 bytes. Of
/// these sections all are read, of the others the last.
const ORIGINS_LEN_MAX: u32 = 16_384 * (8 + 12);
const _: () = assert!(ORIGINS_LEN_MAX as usize == ORIGINS_MAX * (8 + size_of::<SessionTag>()));

/// What a superblock in its place says.
pub(super) struct Known {
    pub superblock: Superblock,
    pub by: KnownBy,
    /// Bytes of the image that are missing in front: those of the segments before this one.
    pub shift: u64,
}

/// The superblock at the beginning of a file, or its copy at the end.
///
/// # Errors
/// [`Error::Unsupported`] when it is sound and asks for another program.
pub(super) fn superblock(file: &dyn ReadAt) -> Result<Option<Known>> {
    let copy = file.len().checked_sub(2 * PAGE_SIZE as u64);
    let places = [(Some(0), KnownBy::Superblock), (copy, KnownBy::Copy)];
    for (offset, by) in places {
        let Some(Ok(page)) = offset.map(|offset| read_page(file, offset)) else { continue };
        match Superblock::of_segment(&page, Section::Superblock, 0) {
            Ok((superblock, place)) => {
                let shift = place.start.saturating_sub(place.head_len());
                return Ok(Some(Known { superblock, by, shift }));
            }
            Err(error @ Error::Unsupported(_)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Finds out whose frames are whose. `known` is what a superblock in its place said.
pub(super) fn identify(
    file: &dyn ReadAt,
    finds: &mut Finds,
    known: Option<Known>,
    job: Job<'_>,
) -> Result<(Identity, Sessions)> {
    let (superblock, mut by, in_front) = match known {
        Some(Known { superblock, by, shift }) => (Some(superblock), by, shift),
        None => (stray_superblock(finds), KnownBy::Elsewhere, 0),
    };
    let first = match &superblock {
        Some(superblock) => finds.session(superblock.session),
        None => busiest(finds),
    };
    let Some(first) = first else {
        return Err(Error::Unsalvageable(Unsalvageable::Nothing));
    };
    let Session { frames, sealed, .. } = finds.sessions[usize::from(first)];
    if superblock.as_ref().is_some_and(Superblock::is_sealed) {
        return Err(Error::Unsalvageable(Unsalvageable::Sealed));
    }
    // Nothing makes sealed frames and others in one session.
    if superblock.is_none() && sealed > frames / 2 {
        return Err(Error::Unsalvageable(Unsalvageable::SealedFrames { count: sealed }));
    }
    let ours = sessions(file, finds, first, superblock.is_some(), job)?;
    let image = match &superblock {
        Some(superblock) => Some(superblock.image),
        None => most(finds.trailers.iter().map(|(_, trailer)| trailer.image))
            .or_else(|| most(finds.pages.iter().map(|page| page.image))),
    };
    let trailer = finds.trailers.iter().rev().find(|(_, t)| Some(t.image) == image).cloned();
    if superblock.is_none() {
        by = if trailer.is_some() { KnownBy::Trailer } else { KnownBy::Frames };
    }
    // A file that lost its beginning has all else nearer to the start.
    let shift = match (&trailer, by) {
        (_, KnownBy::Superblock) | (None, _) => in_front,
        (Some((shift, _)), _) => *shift,
    };
    let session = finds.sessions[usize::from(first)].tag;
    let trailer = trailer.map(|(_, trailer)| trailer);
    Ok((Identity { superblock, trailer, image, session, known_by: by, shift }, ours))
}

/// A superblock that is not where one belongs: of the session that made most frames.
fn stray_superblock(finds: &mut Finds) -> Option<Superblock> {
    let busiest = busiest(finds).map(|n| finds.first_of(n))?;
    let mut best: Option<(u64, Superblock)> = None;
    for (_, superblock) in finds.superblocks.clone() {
        let Some(number) = finds.number_of(superblock.session) else { continue };
        let bytes = finds.sessions[usize::from(number)].bytes;
        if finds.first_of(number) == busiest && best.as_ref().is_none_or(|(most, _)| bytes > *most)
        {
            best = Some((bytes, superblock));
        }
    }
    best.map(|(_, superblock)| superblock)
}

/// The session whose frames, with those of the sessions it belongs together with, take most
/// bytes. What an image inside a damaged part of a disk has left is less.
fn busiest(finds: &mut Finds) -> Option<u16> {
    let groups = groups(finds);
    let mut bytes = vec![0u64; finds.sessions.len()];
    for (group, session) in groups.iter().zip(&finds.sessions) {
        let sum = &mut bytes[usize::from(*group)];
        *sum = sum.saturating_add(session.bytes).saturating_add(u64::from(session.wrote));
    }
    let most = bytes.iter().copied().max().filter(|&most| most > 0)?;
    let group = u16::try_from(bytes.iter().position(|&b| b == most)?).ok()?;
    let all = (0..).zip(&finds.sessions).zip(groups);
    let members = all.filter(|(_, of)| *of == group).map(|(member, _)| member);
    members.max_by_key(|(_, session)| session.bytes).map(|(number, _)| number)
}

/// For each session the first one that belongs together with it.
fn groups(finds: &mut Finds) -> Vec<u16> {
    let numbers = (0..finds.sessions.len()).map_while(|n| u16::try_from(n).ok());
    numbers.map(|n| finds.first_of(n)).collect()
}

fn most(ids: impl Iterator<Item = ImageId>) -> Option<ImageId> {
    let mut counts = std::collections::BTreeMap::new();
    ids.for_each(|id| *counts.entry(id).or_insert(0u64) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id)
}

/// The session that began the image, and every one that its checkpoints and META list. Only
/// what lists the first one is asked: an image inside the disk may share others.
fn sessions(
    file: &dyn ReadAt,
    finds: &mut Finds,
    first: u16,
    certain: bool,
    job: Job<'_>,
) -> Result<Sessions> {
    let tag = finds.sessions[usize::from(first)].tag;
    let mut tags = vec![tag];
    if certain {
        let named: Vec<u64> =
            finds.checkpoints.iter().filter(|c| c.names_first).map(|c| c.at).collect();
        // Each lists what the one before it lists: the last one is enough, and cheap.
        if let Some(origins) = named.last().and_then(|&at| origins_at(file, at)) {
            tags.extend(origins);
        }
        let meta = finds.meta.iter().filter(|m| m.section == SectionType::Origins.code());
        let meta: Vec<MetaFrame> = meta.copied().collect();
        for section in read_sections(file, &meta) {
            job.check()?;
            if section.origins.contains(&tag) {
                tags.extend(section.origins);
            }
        }
        let own = finds.checkpoints.iter().filter(|c| c.names_first);
        let mut made: Vec<u16> = own.map(|c| c.session).collect();
        made.sort_unstable();
        made.dedup();
        tags.extend(made.iter().map(|n| finds.sessions[usize::from(*n)].tag));
    }
    let group = finds.first_of(first);
    let mut sessions: Vec<bool> =
        groups(finds).into_iter().map(|of| !certain && of == group).collect();
    for tag in tags {
        if let Some(n) = finds.number_of(tag)
            && let Some(is_ours) = sessions.get_mut(usize::from(n))
        {
            *is_ours = true;
        }
    }
    if let Some(is_ours) = sessions.get_mut(usize::from(first)) {
        *is_ours = true;
    }
    // What the first session of an image wrote is where it was written.
    if certain {
        finds.sessions[usize::from(first)].wrote = true;
    }
    Ok(Sessions(sessions))
}

fn origins_at(file: &dyn ReadAt, at: u64) -> Option<Vec<SessionTag>> {
    Some(super::covers::read_checkpoint(file, at)?.origins().collect())
}

/// What the sound sections among `frames` say, each by itself.
pub(super) fn read_sections<'f>(
    file: &'f dyn ReadAt,
    frames: &'f [MetaFrame],
) -> impl Iterator<Item = Meta> + 'f {
    frames.iter().filter_map(move |frame| {
        let mut meta = Meta::default();
        read_section(file, frame, &mut meta)?;
        Some(meta)
    })
}

/// Adds what the section in `frame` says to `meta`.
pub(super) fn read_section(file: &dyn ReadAt, frame: &MetaFrame, meta: &mut Meta) -> Option<()> {
    let section = SectionType::from_code(frame.section)?;
    let bytes = read_frame(file, frame.at)?;
    let opened = open_frame(&bytes, frame.at).ok()?;
    let most = if section == SectionType::Origins { ORIGINS_LEN_MAX } else { META_SECTION_MAX };
    if opened.plain_len > most || opened.subject != frame.section {
        return None;
    }
    let mut plain = vec![0; opened.plain_len as usize];
    Decoder::new().decode(opened.codec, opened.content, &mut plain).ok()?;
    meta.read_section(section, &plain).ok()
}

/// The bytes of the frame at `at`, bounded by what a header may say.
pub(super) fn read_frame(file: &dyn ReadAt, at: u64) -> Option<Vec<u8>> {
    let mut header = [0; FRAME_HEADER_SIZE];
    file.read_exact_at(&mut header, at).ok()?;
    let stored = crate::block::frame_header(&header, at).ok()?.stored_len;
    let mut bytes = vec![0; FRAME_HEADER_SIZE + stored as usize];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// Length, block size and sector size: from the superblock, else from META, hints and frames.
pub(super) fn geometry(
    identity: &Identity,
    meta: &Meta,
    finds: &Finds,
    ours: &Sessions,
    hints: &Hints,
) -> Result<Geometry> {
    if let Some(superblock) = &identity.superblock {
        return Ok(superblock.geometry);
    }
    let size = hints.block_size.or_else(|| finds.block_size(|n| ours.has(n)));
    let block_size = size.ok_or(Error::Unsalvageable(Unsalvageable::BlockSize))?;
    let (len, sector) = match meta.disk.len {
        0 => (hints.len, 512),
        len => (Some(len), meta.disk.logical_sector),
    };
    let frames =
        finds.frames.iter().filter(|f| ours.has(f.session)).map(|f| f.block.saturating_add(1));
    let checkpoints = finds.checkpoints.iter().filter(|c| ours.has(c.session));
    let blocks = frames.chain(checkpoints.map(|c| c.next_block)).max().unwrap_or(0);
    let at_least = blocks.saturating_mul(block_size.get().into());
    let unknown = Error::Unsalvageable(Unsalvageable::Length { at_least });
    let len = len.ok_or(unknown)?;
    Geometry::new(len, block_size, sector).ok_or(Error::Misuse("a disk of that size"))
}
